//! The Debian packages that each group needs, and installing the missing ones.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::command::{Task, ask};
use crate::progress::{self, Mark};
use crate::setup::Group;
use crate::setup::machine::Machine;
use crate::setup::orphans;
use crate::setup::services::Quiet;
use crate::tree::Tree;

/// What a group needs, apart from the eBPF compiler.
fn of_group(group: Group) -> &'static [&'static str] {
    match group {
        Group::Build => &["gcc", "libc6-dev"],
        // prometheus for promtool, which checks the alert rules. dnsmasq-base is the name server without a service, bind9-dnsutils has dig,
        // musl-tools another C library with its own resolver. tmux is a terminal for tests, less the pager on it.
        Group::Test => &[
            "iproute2",
            "prometheus",
            "dnsmasq-base",
            "bind9-dnsutils",
            "bind9",
            "unbound",
            "musl-tools",
            "tmux",
            "less",
        ],
        Group::Kernels => &["qemu-system-x86", "busybox-static", "cpio", "kmod", "xz-utils", "iproute2"],
        Group::Bench => &["nftables", "ipset", "iptables", "iperf3", "iproute2", "dnsmasq-base", "dnsdist", "valgrind"],
        Group::Image => &["buildah", "binutils"],
    }
}

/// The packages of several groups.
pub(crate) fn of_groups(groups: &[Group]) -> BTreeSet<String> {
    groups.iter().flat_map(|group| of_group(*group)).map(|name| (*name).to_owned()).collect()
}

/// Installs those of the packages that are missing.
pub(crate) fn install(tree: &Tree, machine: &Machine, label: &str, wanted: &BTreeSet<String>) -> anyhow::Result<()> {
    let missing = if machine.apt { missing(wanted) } else { missing_programs(wanted) };
    if missing.is_empty() {
        progress::step(Mark::Present, label, &format!("{} present", wanted.len()), None);
        return Ok(());
    }
    let list = missing.join(" ");
    machine.require_installing(&list)?;
    progress::step(Mark::Present, label, &format!("{} to install: {list}", missing.len()), None);
    if let Err(error) = refresh(tree) {
        // One unreachable third-party source fails the whole update; the packages may still be known.
        progress::note(&format!("{error}; trying with the lists at hand"));
    }
    let mut simulation = install_command(&missing);
    simulation.arg("--simulate");
    let replaced = orphans::to_replace(simulation);
    let mut command = install_command(&missing);
    command.arg("--no-remove").args(&replaced);
    if !replaced.is_empty() {
        command.arg("--allow-downgrades");
    }
    let _quiet = Quiet::new(&missing)?;
    Task::new("apt-get install", command)
        .hint("see the lines above; `apt-get update` and the apt sources are the usual causes")
        .run(tree)?;
    Ok(())
}

fn install_command(packages: &[String]) -> Command {
    let mut command = apt_get();
    command.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    command
}

static REFRESHED: AtomicBool = AtomicBool::new(false);

/// Fetches the lists of packages, once in a run.
pub(crate) fn refresh(tree: &Tree) -> anyhow::Result<()> {
    if REFRESHED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let mut command = apt_get();
    command.arg("update");
    Task::new("apt-get update", command).run(tree).map(|_| ())
}

/// Whether apt knows a version that could be installed.
pub(crate) fn available(package: &str) -> bool {
    ask("apt-cache", &["policy", package]).is_some_and(|policy| has_candidate(&policy))
}

fn has_candidate(policy: &str) -> bool {
    policy.lines().filter_map(|line| line.trim().strip_prefix("Candidate:")).any(|version| version.trim() != "(none)")
}

/// Whether a package is installed.
pub(crate) fn installed(package: &str) -> bool {
    missing(&BTreeSet::from([package.to_owned()])).is_empty()
}

fn missing(wanted: &BTreeSet<String>) -> Vec<String> {
    // dpkg-query fails when one of the packages is unknown, and still prints the others.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\n"])
        .args(wanted)
        .output();
    let present = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let present: BTreeSet<&str> = present.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    wanted.iter().filter(|name| !present.contains(name.as_str())).cloned().collect()
}

/// Without dpkg, the packages whose chief program is not to be found.
fn missing_programs(wanted: &BTreeSet<String>) -> Vec<String> {
    let program = |package: &str| match package {
        "gcc" => Some("cc"),
        "iproute2" => Some("ip"),
        "iputils-ping" => Some("ping"),
        "kmod" => Some("depmod"),
        "qemu-system-x86" => Some("qemu-system-x86_64"),
        "busybox-static" => Some("busybox"),
        "xz-utils" => Some("xz"),
        "nftables" => Some("nft"),
        "binutils" => Some("readelf"),
        "prometheus" => Some("promtool"),
        "dnsmasq-base" => Some("dnsmasq"),
        "bind9-dnsutils" => Some("dig"),
        "bind9" => Some("named"),
        "musl-tools" => Some("musl-gcc"),
        "buildah" | "cpio" | "ipset" | "iptables" | "iperf3" | "unbound" | "dnsdist" => None,
        _ => Some(""),
    };
    wanted
        .iter()
        .filter(|package| match program(package) {
            Some("") => false,
            Some(program) => crate::command::find_program(program).is_none(),
            None => crate::command::find_program(package).is_none(),
        })
        .cloned()
        .collect()
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args([
        "-q",
        "-o",
        "Dpkg::Use-Pty=0",
        "-o",
        "DPkg::Lock::Timeout=300",
    ]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_group_asks_for_no_virtual_machine() {
        assert!(!of_groups(&[Group::Build, Group::Test]).contains("qemu-system-x86"));
        assert!(of_groups(&[Group::Kernels]).contains("qemu-system-x86"));
    }

    #[test]
    fn a_package_without_a_candidate_is_not_available() {
        assert!(has_candidate("x:\n  Installed: (none)\n  Candidate: 6.1.192-2\n"));
        assert!(!has_candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"));
        assert!(!has_candidate(""));
    }
}
