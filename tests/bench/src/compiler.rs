//! What the pure compiler costs as lists grow: instructions, which no other load on the machine changes, beside time and memory.
//!
//! A second process of this program makes the rules and takes them through the stages; under callgrind it is asked how many instructions
//! each stage took, alone it is asked how long and with how much memory. No kernel is involved.

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
/// The stages, by the names of the functions below.
const STAGES: [(&str, &str); 5] = [
    ("order", "stage_order"),
    ("fingerprint", "stage_fingerprint"),
    ("compile", "stage_compile"),
    ("trie", "stage_trie"),
    ("describe", "stage_describe"),
];

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
    let stage =
        |((name, _), milliseconds): (&(&'static str, _), f64), instructions| Stage { name, milliseconds, instructions };
    let stages = STAGES.iter().zip(said.milliseconds).zip(instructions);
    Ok(Compiler {
        label: label.to_owned(),
        rules: size,
        prefixes: said.prefixes,
        class_entries: said.class_entries,
        peak_kib: said.peak_kib,
        stages: stages.map(|(timed, instructions)| stage(timed, instructions)).collect(),
    })
}

/// Instructions of each stage; none where the machine has no valgrind.
fn instructions(program: &Path, size: usize, files: &Path) -> anyhow::Result<[Option<u64>; STAGES.len()]> {
    let mut counts = [None; STAGES.len()];
    let folder = files.join(format!("callgrind-{size}"));
    std::fs::create_dir_all(&folder)?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=out"]);
    // Counts inside of the stages alone, and writes a file at the end of each.
    for (_, function) in STAGES {
        valgrind.args([format!("--toggle-collect=*{function}*"), format!("--dump-after=*{function}*")]);
    }
    valgrind.arg(program).args([ARGUMENT, &size.to_string()]).current_dir(&folder);
    match valgrind.stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(counts),
        status => anyhow::ensure!(status?.success(), "valgrind failed"),
    }
    for (count, number) in counts.iter_mut().zip(1..) {
        let text = std::fs::read_to_string(folder.join(format!("out.{number}")))?;
        let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
        *count = Some(total.context("callgrind wrote no total")?.trim().parse()?);
    }
    Ok(counts)
}

/// What the second process does.
pub(crate) fn alone(size: &str) -> anyhow::Result<()> {
    let (set, pod, node) = (policies(size.parse()?), pod(), NodeContext::default());
    let mut milliseconds = [0.0; STAGES.len()];
    let mut started = Instant::now();
    let mut lap = |index: usize| {
        if let Some(stage) = milliseconds.get_mut(index) {
            *stage = started.elapsed().as_secs_f64() * 1e3;
        }
        started = Instant::now();
    };
    let list = stage_order(&set, &pod, &node);
    lap(0);
    black_box(stage_fingerprint(&list));
    lap(1);
    let table = stage_compile(&list)?;
    lap(2);
    black_box(stage_trie(&table));
    lap(3);
    black_box(stage_describe(&list));
    lap(4);
    let said =
        Said { milliseconds, peak_kib: peak_kib(), prefixes: table.prefixes(), class_entries: table.classes.len() };
    println!("{}", serde_json::to_string(&said)?);
    Ok(())
}

// `black_box`, so that each stage returns by itself: callgrind would not see the end of a function that ends in a jump to another.
#[inline(never)]
fn stage_order(set: &PolicySet, pod: &PodIdentity, node: &NodeContext) -> RuleList {
    black_box(set.rule_list(pod, node))
}

#[inline(never)]
fn stage_fingerprint(list: &RuleList) -> [u8; 32] {
    black_box(list.fingerprint())
}

#[inline(never)]
fn stage_compile(list: &RuleList) -> anyhow::Result<Table> {
    Ok(black_box(compile(list, &Limits::default())?))
}

#[inline(never)]
fn stage_trie(table: &Table) -> u32 {
    let mut pool = Pool::new(Growing::default());
    let _ = pool.insert(&items4(table));
    black_box(pool.used())
}

#[inline(never)]
fn stage_describe(list: &RuleList) -> TableDescription {
    black_box(TableDescription::new(list))
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
