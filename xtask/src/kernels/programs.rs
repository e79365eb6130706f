//! What runs inside the guest: static builds of the agent, the verifier program and the test programs, and the few
//! programs of this machine that tests call, with their libraries.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

use crate::command::{Task, ask, find_program, outside_cargo};
use crate::kernels::results::KernelRun;
use crate::progress;
use crate::test::{TestProgram, from_cargo_messages};
use crate::tree::Tree;

/// Packages whose tests run under every kernel.
pub(crate) const TESTED: &[&str] = &["egress-packets", "egress-e2e"];
/// Programs of this machine that tests may call.
const FROM_THIS_MACHINE: &[&str] = &["ip", "tc"];
/// The end-to-end tests that lean on the kernel: each way out of a pod, each hook, replies, fragments, changes and a dead
/// agent. Each starts an agent, which takes ten seconds where the verifier is emulated, so the others, which lean on the
/// agent, are run by `--all` only.
const CORE: &[&str] = &[
    "agent_life::a_killed_agent_leaves_no_gap",
    "changes::a_live_tcp_connection",
    "changes::fifty_swaps",
    "cluster::a_pod_that_comes_while",
    "dns_attacks::a_pod_cannot_play",
    "dns_attacks::answers_that_point_inside",
    "dns_attacks::false_replies_teach",
    "dns_attacks::replies_in_two_segments",
    "endpoints::a_pod_without_an_interface",
    "endpoints::host_network_pods",
    "fragments::large_datagrams",
    "fragments::later_fragments_follow",
    "order::the_openshift_example",
    "reject::a_rejected_syn",
    "serving::a_pod_under_deny_all",
    "ways_out::connected_udp",
    "ways_out::unconnected_udp",
    "ways_out::tcp_connections",
    "ways_out::tcp_fast_open",
    "ways_out::sctp_associations",
    "ways_out::echo_requests_of_a_raw_socket",
    "ways_out::frames_of_a_packet_socket",
    "ways_out::frames_that_bypass",
    "ways_out::ipv4_mapped",
    "ways_out::ipv6_extension_headers",
];
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// One thing that the guest runs.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Its name in reports.
    pub(crate) name: String,
    /// The program.
    pub(crate) path: PathBuf,
    /// Its arguments.
    pub(crate) arguments: String,
}

/// Everything that goes into the guest.
#[derive(Debug)]
pub(crate) struct Payload {
    /// Run one after another.
    pub(crate) jobs: Vec<Job>,
    /// The agent, for the end-to-end tests.
    pub(crate) agent: Option<PathBuf>,
    /// The eBPF object.
    pub(crate) object: PathBuf,
}

/// The name of the job that prints the verifier's figures.
pub(crate) const VERIFIER: &str = "verifier";

/// Builds the static programs: the one that loads ours, and the tests of the packages `tested`.
pub(crate) fn build(tree: &Tree, tested: &[&str], all: bool) -> anyhow::Result<Payload> {
    progress::heading("static programs");
    let mut packages = vec!["egress-kernels"];
    if !tested.is_empty() {
        packages.push("egress-agent");
    }
    let mut command = cargo(tree, "build", &packages);
    command.arg("--bins");
    let built = Task::new("compile the agent, statically", command).run(tree)?;
    let verifier = executable(&built.stdout, "egress-kernels").context("cargo built no egress-kernels")?;
    let mut jobs = vec![Job { name: VERIFIER.to_owned(), path: verifier, arguments: "/egress-ebpf".to_owned() }];
    if !tested.is_empty() {
        let mut command = cargo(tree, "test", tested);
        command.arg("--no-run");
        let tests = Task::new("compile the tests, statically", command).run(tree)?;
        for program in from_cargo_messages(&tests.stdout)? {
            jobs.push(job(program, all)?);
        }
    }
    Ok(Payload { jobs, agent: executable(&built.stdout, "egress-agent"), object: tree.ebpf_object() })
}

fn job(program: TestProgram, all: bool) -> anyhow::Result<Job> {
    let mut arguments = "--show-output".to_owned();
    if program.target == "e2e" && !all {
        let list = ask(&program.path, &["--list"]).context("the end-to-end tests do not list themselves")?;
        let absent: Vec<&str> = absent(&list, CORE);
        anyhow::ensure!(absent.is_empty(), "no end-to-end test is named {}: bring CORE up to date", absent.join(", "));
        arguments = format!("{arguments} {}", CORE.join(" "));
    }
    Ok(Job { name: program.name(), path: program.path, arguments })
}

/// The filters that would run nothing.
fn absent<'a>(list: &str, filters: &[&'a str]) -> Vec<&'a str> {
    filters.iter().filter(|filter| !list.lines().any(|line| line.contains(*filter))).copied().collect()
}

/// Emulation is slow, so the programs are optimised a little, and symbols would only fill the guest's memory.
fn cargo(tree: &Tree, subcommand: &str, packages: &[&str]) -> Command {
    let mut command = outside_cargo("cargo");
    command.args([
        subcommand,
        "--locked",
        "--target",
        TRIPLE,
        "--message-format",
        "json-render-diagnostics",
        "--target-dir",
    ]);
    command.arg(tree.target("static")).args(packages.iter().flat_map(|package| ["--package", package]));
    command
        .current_dir(tree.root())
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("EGRESS_EBPF_OBJECT", tree.ebpf_object())
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_PROFILE_DEV_STRIP", "symbols")
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
    command
}

fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter(|message| message.pointer("/target/name").and_then(Value::as_str) == Some(target))
        .find_map(|message| message.get("executable").and_then(Value::as_str).map(PathBuf::from))
}

/// The verifier's figures on the kernel that is running here.
pub(crate) fn on_this_kernel(tree: &Tree, payload: &Payload) -> anyhow::Result<KernelRun> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    progress::heading(&format!("Linux {release} (this machine)"));
    let verifier = payload.jobs.iter().find(|job| job.name == VERIFIER).context("no verifier program")?;
    let mut command = Command::new(&verifier.path);
    command.arg(&payload.object);
    let transcript = Task::new("verifier", command).watch(tree)?;
    let series: Vec<&str> = release.split('.').take(2).collect();
    let mut run = KernelRun::new(&series.join("."), &release, "this machine");
    run.add_job(VERIFIER, &transcript.all, transcript.success());
    run.seconds = transcript.took.as_secs();
    run.report();
    Ok(run)
}

/// The programs of this machine that are present, and the libraries that they load: paths as the guest must have them.
pub(crate) fn from_this_machine() -> Vec<(PathBuf, Vec<PathBuf>)> {
    FROM_THIS_MACHINE
        .iter()
        .filter_map(|name| find_program(name))
        .map(|path| {
            let needs = libraries(&path);
            (path, needs)
        })
        .collect()
}

fn libraries(program: &Path) -> Vec<PathBuf> {
    let text = program.to_str().and_then(|program| ask("ldd", &[program])).unwrap_or_default();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_would_run_nothing_is_found() {
        assert_eq!(absent("a::b_c: test\nd: test\n", &["a::b", "x", "d"]), ["x"]);
    }
}
