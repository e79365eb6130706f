//! The figures of a run, as they stand in the JSON file.

use std::collections::BTreeMap;

use egress_agent::datapath::ProgramFigures;
use serde::Serialize;

use crate::goals::Goal;
use crate::peers::egress::{Memory, Stages};
use crate::rounds::{Effort, Run};
use crate::stages::Step;

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Results {
    /// Of the file's form.
    pub(crate) version: u32,
    /// Where and when.
    pub(crate) host: Host,
    /// Rounds and repetitions.
    pub(crate) effort: Effort,
    /// Peers that the machine does not have, and why.
    pub(crate) absent: BTreeMap<&'static str, String>,
    /// Versions of the peers.
    pub(crate) versions: BTreeMap<&'static str, String>,
    /// What the verifier made of our programs.
    pub(crate) programs: Vec<ProgramFigures>,
    /// Loading and verifying all programs.
    pub(crate) load: Timing,
    /// Each size.
    pub(crate) sizes: Vec<Size>,
    /// Switching tables under a sender.
    pub(crate) swap: Option<Swap>,
    /// A pod's traffic.
    pub(crate) traffic: Option<Traffic>,
    /// `connect()`.
    pub(crate) connect: Option<Connect>,
    /// What each stage costs, by family and kind of table.
    pub(crate) stages: Vec<(&'static str, Vec<Step>)>,
    /// Learning from DNS replies.
    pub(crate) dns: Option<Dns>,
    /// What lookups cost a pod.
    pub(crate) lookups: Option<Lookups>,
    /// Connections right after a lookup.
    pub(crate) race: Option<Race>,
    /// The control path.
    pub(crate) control: Option<Control>,
    /// The pure compiler, by size.
    pub(crate) compiler: Vec<Compiler>,
    /// Pods that share policies.
    pub(crate) sharing: Option<Sharing>,
    /// The goals of the design.
    pub(crate) goals: Vec<Goal>,
}

/// The pure compiler at one size.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Compiler {
    /// `1k`.
    pub(crate) label: String,
    /// Rules, each about one prefix.
    pub(crate) rules: usize,
    /// Prefixes of the table.
    pub(crate) prefixes: usize,
    /// Class entries of the table.
    pub(crate) class_entries: usize,
    /// Most memory that the process had, in KiB: the rules, and everything that was made of them.
    pub(crate) peak_kib: u64,
    /// The stages in order.
    pub(crate) stages: Vec<Stage>,
}

/// A stage of the compiler.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Stage {
    /// Its name.
    pub(crate) name: &'static str,
    /// How long it took.
    pub(crate) milliseconds: f64,
    /// Instructions of the processor; none where they could not be counted.
    pub(crate) instructions: Option<u64>,
}

/// Where and when.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Host {
    /// Kernel release.
    pub(crate) kernel: String,
    /// Model of the processors.
    pub(crate) processor: String,
    /// How many.
    pub(crate) processors: usize,
    /// MiB of memory.
    pub(crate) memory_mib: u64,
    /// Load average over a minute, before and after.
    pub(crate) load: [f64; 2],
    /// UTC.
    pub(crate) date: String,
    /// Of the source tree.
    pub(crate) revision: String,
    /// Arguments.
    pub(crate) command: String,
    /// Whole run.
    pub(crate) seconds: f64,
}

/// Milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Timing {
    /// Least.
    pub(crate) min: f64,
    /// Median.
    pub(crate) median: f64,
    /// Each.
    pub(crate) all: Vec<f64>,
}

impl Timing {
    /// Of single durations in milliseconds.
    pub(crate) fn of(all: Vec<f64>) -> Self {
        Self { min: crate::rounds::least(&all), median: crate::rounds::median(&all), all }
    }
}

/// One size.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Size {
    /// "100k".
    pub(crate) label: String,
    /// Prefixes in the policies, one rule each.
    pub(crate) cidrs: usize,
    /// Policy files.
    pub(crate) policies: usize,
    /// IPv4 prefixes of the compiled table.
    pub(crate) prefixes: usize,
    /// Its class entries.
    pub(crate) class_entries: usize,
    /// Intervals in nft's set.
    pub(crate) intervals: usize,
    /// Reading the policy files.
    pub(crate) read_ms: f64,
    /// Parts of our best apply.
    pub(crate) stages: Stages,
    /// Ours, in parts.
    pub(crate) memory: Memory,
    /// By peer.
    pub(crate) peers: BTreeMap<&'static str, Peer>,
    /// UDP through the real stack.
    pub(crate) cold: Run,
    /// TCP through the real stack.
    pub(crate) cold_tcp: Run,
    /// UDP by `BPF_PROG_TEST_RUN`.
    pub(crate) hot: Run,
    /// TCP by `BPF_PROG_TEST_RUN`.
    pub(crate) hot_tcp: Run,
}

/// What is measured of each peer beside packets.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Peer {
    /// Everything from nothing.
    pub(crate) apply: Timing,
    /// One rule or element, from the call to the first packet.
    pub(crate) update: Option<Timing>,
    /// Bytes of kernel memory that appeared with it: of this run's cgroup, or as ipset says, whose memory is in no cgroup.
    pub(crate) memory: Option<u64>,
    /// Fingerprint of the verdicts on all mixed destinations.
    pub(crate) verdicts: String,
    /// How many of them are not what the policies say.
    pub(crate) wrong: usize,
}

/// A pod switched between two tables while packets flow.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Swap {
    /// How often.
    pub(crate) swaps: usize,
    /// Packets sent meanwhile.
    pub(crate) packets: u64,
    /// Packets that neither table would have treated so.
    pub(crate) wrong: u64,
    /// Median time of one switch, tables compiled but not in the kernel, in milliseconds.
    pub(crate) switch_ms: f64,
}

/// A pod's traffic, with and without a policy about the pod.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Traffic {
    /// A UDP packet.
    pub(crate) udp: Compared,
    /// A TCP connection with a byte each way.
    pub(crate) connections: Compared,
    /// A KiB of a TCP stream.
    pub(crate) stream: Compared,
}

/// Nanoseconds: least and median of all rounds; and ratios.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Compared {
    /// Of a pod that no policy is about.
    pub(crate) free: [f64; 2],
    /// Of one under a policy.
    pub(crate) judged: [f64; 2],
    /// Median of judged over free, round by round.
    pub(crate) ratio: f64,
    /// The same of a second pod that no policy is about: what it differs from 1 is chance.
    pub(crate) control: f64,
}

/// Nanoseconds of single packets: least and median.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Dns {
    /// A reply with two addresses that is learned from.
    pub(crate) learn: [f64; 2],
    /// The query, judged, passed and remembered.
    pub(crate) query: [f64; 2],
    /// The empty program on the same packet.
    pub(crate) none: [f64; 2],
}

/// Microseconds of `connect()`.
#[derive(Clone, Copy, Debug, Serialize, serde::Deserialize)]
pub(crate) struct Connect {
    /// Refused: least and median.
    pub(crate) denied_us: [f64; 2],
    /// Established over loopback: least and median.
    pub(crate) loopback_us: [f64; 2],
}

/// Lookups of a pod by UDP, in every way that was tried.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Lookups {
    /// The first one is without a firewall.
    pub(crate) ways: Vec<Way>,
}

/// One way to look names up.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Way {
    /// Name.
    pub(crate) name: &'static str,
    /// Microseconds of a lookup, one at a time: the median of the round in which it was least,
    pub(crate) p50_us: f64,
    /// and what 99 of 100 take at most, over all rounds.
    pub(crate) p99_us: f64,
    /// Lookups a second, 32 at a time.
    pub(crate) per_second: f64,
}

/// Kernel memory of pods that share policies.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sharing {
    /// Different lists of rules.
    pub(crate) policies: usize,
    /// Prefixes in each, about.
    pub(crate) prefixes: usize,
    /// Few pods and many.
    pub(crate) pods: [usize; 2],
    /// Bytes with few pods.
    pub(crate) few: u64,
    /// Bytes with many.
    pub(crate) many: u64,
}

/// Fresh names, looked up and called.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Race {
    /// Names.
    pub(crate) names: u64,
    /// Connections, one for each address that a lookup gave.
    pub(crate) connects: u64,
    /// Of these, refused by the firewall.
    pub(crate) refused: u64,
    /// Of these, failed in another way.
    pub(crate) failed: u64,
}

/// The control path, through the real agent.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Control {
    /// Policies from files, by size.
    pub(crate) files: Vec<FilesApplied>,
    /// Many pods under several policies.
    pub(crate) many: Option<Many>,
    /// Pods that start.
    pub(crate) bursts: Vec<Burst>,
    /// What the agent takes.
    pub(crate) loads: Vec<Load>,
}

/// Policies from files.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FilesApplied {
    /// `1k`.
    pub(crate) label: String,
    /// Prefixes, one rule each.
    pub(crate) cidrs: usize,
    /// Files.
    pub(crate) files: usize,
    /// Milliseconds from the first renaming of all files to the first packet.
    pub(crate) whole_ms: f64,
    /// Processor time of the agent for all of it, what follows the first packet included.
    pub(crate) processor_ms: f64,
    /// From the renaming of one small file to the first packet.
    pub(crate) change: Timing,
    /// Memory of the agent afterwards.
    pub(crate) rss_kib: u64,
}

/// Many pods under several policies.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Many {
    /// Pods.
    pub(crate) pods: usize,
    /// Policies, each about as many of the pods.
    pub(crate) policies: usize,
    /// Prefixes of each.
    pub(crate) prefixes: usize,
    /// Milliseconds from the start of an agent that finds nothing in the kernel until the last pod is judged: its calls, and its packets.
    pub(crate) start_ms: [f64; 2],
    /// From a change of the policy about all of them until the last one is judged by it.
    pub(crate) change: Timing,
    /// Bytes of kernel memory of an agent without pods.
    pub(crate) idle: Option<u64>,
    /// Of one with all of them.
    pub(crate) kernel: Option<u64>,
}

/// Pods that start one after the other as fast as they can be started.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Burst {
    /// How many.
    pub(crate) pods: usize,
    /// Whether the API server told of each before it started, or of all after the last one had.
    pub(crate) told_before: bool,
    /// Milliseconds from the first start to the last.
    pub(crate) starting_ms: f64,
    /// How many pods got a packet out with the first call of their first process.
    pub(crate) first_calls_out: usize,
    /// What its processes send by calls.
    pub(crate) calls: Window,
    /// What comes by its interface without a call that is judged, such as by a raw socket.
    pub(crate) packets: Window,
}

/// The first moments of pods.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Window {
    /// From the first process of a pod until something is stopped, by its policies or because it is held.
    pub(crate) unjudged: Spread,
    /// From when it ran and was told of until it is judged by its policies.
    pub(crate) judged: Spread,
}

/// Milliseconds of many.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    /// The median,
    pub(crate) p50: f64,
    /// what 99 of 100 take at most,
    pub(crate) p99: f64,
    /// and the longest.
    pub(crate) max: f64,
}

impl Spread {
    /// Of single durations.
    pub(crate) fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        let at = |percent: usize| all.get(all.len() * percent / 100).or(all.last()).copied().unwrap_or(f64::NAN);
        Self { p50: at(50), p99: at(99), max: at(100) }
    }
}

/// What the agent takes of the machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Load {
    /// When.
    pub(crate) what: String,
    /// How long it was looked at.
    pub(crate) seconds: f64,
    /// Processor time, in percent of one processor.
    pub(crate) percent: f64,
    /// Memory.
    pub(crate) rss_kib: u64,
    /// DNS lookups of the agent.
    pub(crate) lookups_per_second: Option<f64>,
    /// Names whose address was refused, and packets that were sent to find out.
    pub(crate) stale: Option<[u64; 2]>,
}
