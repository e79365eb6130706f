//! `cargo xtask bench`: what a packet, an apply and an update cost, beside the kernel's LPM trie, nftables and ipset, in one run.
//!
//! place (pins, cgroup) ▶ labs (network namespaces with a sink) ▶ sizes (fill, compare verdicts, cold, hot, update) ▶ goals ▶ table and
//! JSON. Invariant: no time is asserted, a wrong verdict is shown beside every figure, and nothing is left behind.

mod chart;
mod compiler;
mod connect;
mod control;
mod dns;
mod goals;
mod kernel;
mod lab;
mod lookups;
mod mix;
mod peers;
mod place;
mod pods;
mod program;
mod progress;
mod results;
mod rounds;
mod show;
mod size;
mod stages;
mod swap;
mod traffic;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser;
use nix::sched::{CloneFlags, unshare};

use crate::lab::Lab;
use crate::peers::egress::Egress;
use crate::peers::{ipset, nft};
use crate::place::Place;
use crate::progress::step;
use crate::results::{Host, Results, Timing};
use crate::rounds::Effort;
use crate::size::Bench;

/// Measures the firewall beside others.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Args {
    /// Fewer rounds, and no 1M unless it is named: under two minutes.
    #[arg(long)]
    quick: bool,
    /// Sizes, such as 1k,10k,100k,1M.
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<String>,
    /// Only a part.
    #[arg(long)]
    only: Option<Only>,
    /// Only what each stage of a program costs, packet by packet.
    #[arg(long, conflicts_with_all = ["only", "sizes"])]
    stages: bool,
    /// Where the figures are written.
    #[arg(long, default_value = "target/bench/results.json")]
    json: PathBuf,
    /// Also write the tables into this page of the documentation, and the chart beside it.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
}

/// A part of what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Only {
    /// The pure compiler: instructions, time and memory.
    Compiler,
    /// The agent: from files to packets, many pods, bursts, and what it takes at rest.
    Control,
    /// Names.
    Dns,
    /// Everything else.
    Packets,
    /// Applies and changes of rules, without any packet but the one that is waited for.
    Policies,
    /// What a pod's traffic loses.
    Traffic,
}

impl Args {
    fn sizes(&self) -> anyhow::Result<Vec<(String, usize)>> {
        let default: &[&str] = if self.quick { &["1k", "10k", "100k"] } else { &["1k", "10k", "100k", "1M"] };
        let named = self.sizes.iter().map(String::as_str);
        let labels: Vec<&str> = if self.sizes.is_empty() { default.to_vec() } else { named.collect() };
        labels.into_iter().map(|label| Ok((label.trim().to_owned(), mix::parse_size(label)?))).collect()
    }

    fn effort(&self) -> Effort {
        if self.quick {
            Effort { rounds: 6, packets: 50_000, runs: 50_000, frame: 5, again: false, applies: 2, updates: 3 }
        } else {
            Effort { rounds: 40, packets: 50_000, runs: 50_000, frame: 10, again: true, applies: 3, updates: 5 }
        }
    }
}

fn main() -> ExitCode {
    let outcome = match std::env::args_os().collect::<Vec<_>>().as_slice() {
        [_, name, cgroup] if name == connect::ARGUMENT => connect::call(cgroup.as_ref()),
        [_, name, size] if name == compiler::ARGUMENT => compiler::alone(&size.to_string_lossy()),
        _ => run(&Args::parse()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::from(3)
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(nix::unistd::geteuid().is_root(), "the benchmark makes network namespaces: run it as root");
    let (sizes, started) = (args.sizes()?, Instant::now());
    let mut host = host();
    // Before any thread: the datapath is at home in a network namespace that ends with this process.
    unshare(CloneFlags::CLONE_NEWNET).context("a new network namespace")?;
    let place = Place::new()?;
    let mut results = measure(args, &sizes, &place, host.clone())?;
    host.load[1] = load_average();
    host.seconds = started.elapsed().as_secs_f64();
    results.host = host;
    results.goals = goals::all(&results);
    write(args, &results)?;
    // A closed pipe (`| head`) is no reason to fail.
    let _ = std::io::stdout().lock().write_all(show::text(&results).as_bytes());
    if let Some(page) = &args.page {
        show::write_page(page, &results)?;
        chart::write(&page.with_extension("svg"), &results)?;
    }
    eprintln!("\n{:.0} s; figures in {}", results.host.seconds, args.json.display());
    Ok(())
}

fn measure(args: &Args, sizes: &[(String, usize)], place: &Place, host: Host) -> anyhow::Result<Results> {
    progress::heading("programs and namespaces");
    let options = place.options();
    let load = step("load and verify all programs", || {
        let times = (0..5).map(|_| Egress::time_of_loading(&options).map(|took| took.as_secs_f64() * 1e3));
        times.collect::<anyhow::Result<Vec<f64>>>().map(Timing::of)
    })?;
    sink_of_the_node()?;
    let labs = ["tc", "bare", "nft", "ipset"].map(Lab::new);
    let [tc, bare, nft_lab, ipset_lab] = labs;
    let (tc, bare, nft_lab, ipset_lab) = (tc?, bare?, nft_lab?, ipset_lab?);
    let absences = [("nft", nft::absent(nft_lab.namespace())), ("ipset", ipset::absent(ipset_lab.namespace()))];
    let absent: BTreeMap<_, _> = absences.into_iter().filter_map(|(name, why)| Some((name, why?))).collect();
    for (name, why) in &absent {
        progress::warn(&format!("{name} is left out: {why}"));
    }
    let none = program::none()?;
    let link = tc.attach(none.as_fd())?;
    let mut bench = Bench {
        egress: Egress::new(options)?,
        on_lpm: (!args.quick).then(|| place.options_on_lpm()),
        tc: &tc,
        link: &link,
        none: &none,
        bare: &bare,
        nft: (!absent.contains_key("nft")).then_some(&nft_lab),
        ipset: (!absent.contains_key("ipset")).then_some(&ipset_lab),
        files: place.files(),
        memory: place.memory(),
        effort: args.effort(),
    };
    let versions = [("nft", nft::version(nft_lab.namespace())), ("ipset", ipset::version(ipset_lab.namespace()))];
    let mut results = Results {
        version: 1,
        host,
        effort: args.effort(),
        versions: versions.into_iter().filter(|(name, _)| !absent.contains_key(name)).collect(),
        absent,
        programs: bench.egress.figures()?,
        load,
        sizes: Vec::new(),
        swap: None,
        traffic: None,
        connect: None,
        stages: Vec::new(),
        dns: None,
        lookups: None,
        race: None,
        sharing: None,
        control: None,
        compiler: Vec::new(),
        goals: Vec::new(),
    };
    if args.stages || args.only.is_none_or(|only| only == Only::Packets) {
        progress::heading("stages");
        results.stages = step("packets that get further and further", || stages::measure(args.effort()))?;
    }
    if args.stages {
        return Ok(results);
    }
    if args.only.is_none_or(|only| only == Only::Compiler) {
        progress::heading("compiler");
        // Instructions are counted and not timed, which takes long where there are many; in a quick run only if nothing else is asked for.
        let most = if args.quick && args.only.is_none() { 10_000 } else { usize::MAX };
        for (label, size) in sizes.iter().filter(|(_, size)| *size <= most) {
            let found = step(&format!("{label} rules"), || compiler::measure(label, *size, place.files()))?;
            results.compiler.push(found);
        }
    }
    if args.only.is_none_or(|only| only == Only::Dns) {
        progress::heading("names");
        results.dns = Some(step("DNS replies", dns::measure)?);
        let effort =
            lookups::Effort { rounds: if args.quick { 5 } else { 20 }, fresh: if args.quick { 1000 } else { 10_000 } };
        let (lookups, race) = step("lookups of pods, and connections right after them", || lookups::measure(effort))?;
        (results.lookups, results.race) = (Some(lookups), Some(race));
    }
    if args.only.is_none_or(|only| only == Only::Traffic) {
        progress::heading("a pod's traffic");
        let rounds = if args.quick { 8 } else { 60 };
        results.traffic = Some(step("UDP, connections and a stream through the node", || traffic::measure(rounds))?);
    }
    if args.only.is_none_or(|only| only == Only::Control) {
        results.control = Some(control::measure(sizes, control::Effort::of(args.quick), place.memory())?);
    }
    if args.only.is_some_and(|only| !matches!(only, Only::Packets | Only::Policies)) {
        return Ok(results);
    }
    for (label, size) in sizes {
        results.sizes.push(bench.measure(label, *size, args.only != Some(Only::Policies))?);
    }
    if args.only == Some(Only::Policies) {
        return Ok(results);
    }
    measure_few_rules(&mut bench, place, if args.quick { 50 } else { 200 }, &mut results)?;
    Ok(results)
}

/// What does not depend on the number of rules.
fn measure_few_rules(bench: &mut Bench<'_>, place: &Place, swaps: usize, results: &mut Results) -> anyhow::Result<()> {
    progress::heading("pods that share policies");
    results.sharing = step("10 and 1,000 pods under 10 policies", || bench.sharing())?;
    progress::heading("swaps and calls");
    kernel::exchange(bench.link, bench.egress.program()?.as_fd())?;
    let swap = step("swaps under a sender", || swap::measure(&mut bench.egress, bench.tc, 1000, swaps))?;
    results.swap = Some(swap);
    results.connect = Some(step("connect()", || measure_connect(bench, place))?);
    Ok(())
}

/// The pod of the last swap, known by a namespace, calls `connect()`.
fn measure_connect(bench: &mut Bench<'_>, place: &Place) -> anyhow::Result<results::Connect> {
    bench.egress.set_netns(connect::netns_cookie(bench.tc.namespace())?);
    bench.egress.apply()?;
    connect::measure(bench.tc.namespace(), &place.cgroup())
}

/// The interface that the datapath attaches to. It has the index of the sinks, so that our program, run on a sink, finds the pod.
fn sink_of_the_node() -> anyhow::Result<()> {
    let add = |kind: &str| {
        let index = lab::INTERFACE.to_string();
        let status =
            Command::new("ip").args(["link", "add", lab::SINK, "index", &index, "type", kind]).output()?.status;
        anyhow::Ok(status.success())
    };
    anyhow::ensure!(add("ifb")? || add("dummy")?, "neither ifb nor dummy");
    Ok(())
}

fn write(args: &Args, results: &Results) -> anyhow::Result<()> {
    if let Some(folder) = args.json.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let text = serde_json::to_string_pretty(results)? + "\n";
    std::fs::write(&args.json, text).with_context(|| format!("writing {}", args.json.display()))
}

fn host() -> Host {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let ask = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let after = |text: &str, name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.split_once(':').map(|(_, value)| value.trim().to_owned()));
        line.unwrap_or_default()
    };
    let memory = after(&read("/proc/meminfo"), "MemTotal");
    let kib = memory.split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
    let dirty = if ask("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty() { "" } else { "+changes" };
    Host {
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        processor: after(&read("/proc/cpuinfo"), "model name"),
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        memory_mib: kib / 1024,
        load: [load_average(), 0.0],
        date: ask("date", &["--utc", "+%FT%TZ"]),
        revision: ask("git", &["rev-parse", "--short=12", "HEAD"]) + dirty,
        command: command_line(),
        seconds: 0.0,
    }
}

/// The command, with the arguments that choose what is measured; files are the machine's own.
fn command_line() -> String {
    let mut words = std::env::args().skip(1);
    let mut kept = vec!["cargo xtask bench".to_owned()];
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" | "--page" => drop(words.next()),
            _ => kept.push(word),
        }
    }
    kept.join(" ")
}

fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}
