//! What the pure compiler costs as lists grow: instructions, which no other load on the machine changes, beside time and memory.
//!
//! A second process of this program makes the rules and takes them through the stages; alone it is asked how long and with how much memory.
//! Under callgrind the count is written down after each stage. No kernel is involved.

use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use egress_common::packet::protocol::{TCP, UDP};
use egress_policy::compile::{Limits, Table, compile};
use egress_policy::describe::TableDescription;
use egress_policy::model::{
    Action, Config, DefaultAction, Mode, NodeContext, Peer, PodIdentity, Policy, PolicyKey, PolicyKind, PolicySet,
    Rule, Tier,
};
use egress_policy::ports::{KeyRange, Ports};
use egress_policy::rules::RuleList;
use egress_policy::spec::MAX_RULES;
use egress_policy::trie::{Growing, Pool, items4};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::mix::{self, Random};
use crate::results::{Compiler, Stage};

/// The hidden argument that makes a process the compiler.
pub(crate) const ARGUMENT: &str = "compile-alone";
/// The stages in order.
const STAGES: [&str; 5] = ["order", "fingerprint", "compile", "trie", "describe"];

/// What the second process says.
#[derive(Debug, Serialize, Deserialize)]
struct Said {
    milliseconds: [f64; STAGES.len()],
    peak_kib: u64,
    prefixes: usize,
    class_entries: usize,
}

/// Measures one size. `files`: a folder for what callgrind writes.
pub(crate) fn measure(label: &str, size: usize, files: &Path) -> anyhow::Result<Compiler> {
    let program = std::env::current_exe()?;
    let alone = Command::new(&program).args([ARGUMENT, &size.to_string()]).stderr(Stdio::inherit()).output()?;
    anyhow::ensure!(alone.status.success(), "the compiler failed");
    let said: Said = serde_json::from_slice(&alone.stdout).context("the compiler answered nonsense")?;
    let instructions = instructions(&program, size, files)?;
    let stage = |((name, milliseconds), instructions)| Stage { name, milliseconds, instructions };
    let stages = STAGES.into_iter().zip(said.milliseconds).zip(instructions);
    Ok(Compiler {
        label: label.to_owned(),
        rules: size,
        prefixes: said.prefixes,
        class_entries: said.class_entries,
        peak_kib: said.peak_kib,
        stages: stages.map(stage).collect(),
    })
}

/// Instructions of each stage; none where the machine has no valgrind.
fn instructions(program: &Path, size: usize, files: &Path) -> anyhow::Result<[Option<u64>; STAGES.len()]> {
    let file = files.join("callgrind");
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", file.display()));
    // A file with a number behind its name each time that the function ends; the counts begin anew.
    valgrind.arg("--dump-after=*stage_ends*").arg(program).args([ARGUMENT, &size.to_string()]);
    match valgrind.stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok([None; STAGES.len()]),
        status => anyhow::ensure!(status?.success(), "valgrind failed"),
    }
    let mut counts = [None; STAGES.len()];
    // The first one is what comes before the first stage.
    for (count, number) in counts.iter_mut().zip(2..) {
        let file = format!("{}.{number}", file.display());
        let text = std::fs::read_to_string(&file).with_context(|| format!("callgrind did not write {file}"))?;
        let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
        *count = Some(total.context("callgrind wrote no total")?.trim().parse()?);
    }
    Ok(counts)
}

/// Callgrind is told to look for it.
#[inline(never)]
fn stage_ends(number: usize) {
    black_box(number);
}

/// What the second process does.
pub(crate) fn alone(size: &str) -> anyhow::Result<()> {
    let (set, pod, node) = (policies(size.parse()?), pod(), NodeContext::default());
    let mut said = Said { milliseconds: [0.0; STAGES.len()], peak_kib: 0, prefixes: 0, class_entries: 0 };
    let (mut list, mut table) = (None, None);
    stage_ends(0);
    for (stage, milliseconds) in said.milliseconds.iter_mut().enumerate() {
        let started = Instant::now();
        match (stage, &list, &table) {
            (0, ..) => list = Some(set.rule_list(&pod, &node)),
            (1, Some(list), _) => _ = black_box(RuleList::fingerprint(list)),
            (2, Some(list), _) => table = Some(compile(list, &Limits::default())?),
            (3, _, Some(table)) => _ = black_box(Pool::new(Growing::default()).insert(&items4(table))),
            (_, Some(list), _) => _ = black_box(TableDescription::new(list)),
            _ => {}
        }
        *milliseconds = started.elapsed().as_secs_f64() * 1e3;
        stage_ends(stage + 1);
    }
    said.peak_kib = peak_kib();
    if let Some(table) = &table {
        (said.prefixes, said.class_entries) = (Table::prefixes(table), table.classes.len());
    }
    println!("{}", serde_json::to_string(&said)?);
    // What was made is not taken apart: nobody waits for that.
    std::mem::forget((set, list, table));
    Ok(())
}

fn pod() -> PodIdentity {
    PodIdentity { namespace: "bench".into(), name: "pod".into(), ..PodIdentity::default() }
}

/// The mix of the other measurements, without the texts of its files.
fn policies(size: usize) -> PolicySet {
    let config = Config { default_action: DefaultAction::Deny, ..Config::default() };
    let mut set = PolicySet { config, ..PolicySet::default() };
    let mut random = Random::new(size as u64);
    let mut prefixes = mix::prefixes(size, &mut random);
    prefixes.reverse();
    for (part, prefixes) in (1..).zip(prefixes.chunks(MAX_RULES)) {
        let key = PolicyKey {
            kind: PolicyKind::EgressNetworkPolicy,
            namespace: Some("bench".into()),
            name: format!("part-{part:04}"),
        };
        set.insert(Policy {
            key: Arc::new(key),
            tier: Tier::Namespace,
            priority: part,
            mode: Mode::Enforce,
            namespace_selector: None,
            pod_selector: None,
            service_accounts: None,
            rules: prefixes.iter().map(|prefix| rule(*prefix, &mut random)).collect(),
            warnings: Vec::new(),
        });
    }
    set
}

fn rule(prefix: Ipv4Net, random: &mut Random) -> Rule {
    let action = if random.below(10) == 0 { Action::Deny } else { Action::Allow };
    let ports = match random.below(16) {
        0 => Ports::new(vec![KeyRange::ports(TCP, 443, 443)]),
        1 => Ports::new(vec![
            KeyRange::ports(TCP, 80, 80),
            KeyRange::ports(TCP, 443, 443),
            KeyRange::ports(UDP, 4000, 5000),
        ]),
        2 => Ports::new(vec![KeyRange::ports(UDP, 4242, 4242), KeyRange::ports(UDP, 53, 53)]),
        3 => Ports::new(vec![KeyRange::ports(UDP, 0, u16::MAX), KeyRange::ports(TCP, 1024, u16::MAX)]),
        _ => Ports::Any,
    };
    Rule { action, peer: Peer::Cidr { cidr: IpNet::V4(prefix), except: Arc::from([]) }, ports, name: None }
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
