//! What must be true of the machine before anything is loaded; each check says what to do where it fails.
//!
//! Called once by [`agent`](crate::agent). Only two things are changed here: bpffs is mounted at its usual place if it is not,
//! and the limit of locked memory is raised for kernels that still count maps against it.

mod lock;
mod mounts;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::utsname::uname;
use tracing::debug;

pub(crate) use lock::Lock;
pub(crate) use mounts::mount_bpffs;

/// First kernel that has what the programs and the agent use: `get_netns_cookie` for socket hooks (5.7), ring buffers (5.8),
/// `SO_NETNS_COOKIE` (5.14). 6.1 is the oldest one that is tested.
const OLDEST_KERNEL: (u32, u32) = (5, 15);
/// The oldest kernel in the support table.
const OLDEST_TESTED_KERNEL: (u32, u32) = (6, 1);

/// Why the agent cannot work on this machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartupError {
    #[error("the agent needs {missing}; run it as root, or give it these capabilities")]
    Privileges { missing: String },
    #[error("Linux {release} is too old: the agent needs {}.{} or later and is tested from {}.{} on; update the kernel", OLDEST_KERNEL.0, OLDEST_KERNEL.1, OLDEST_TESTED_KERNEL.0, OLDEST_TESTED_KERNEL.1)]
    Kernel { release: String },
    #[error("{} is not on a BPF file system{}; mount one with `mount -t bpf bpf {}`, or give another --bpffs", folder.display(), tried(.error.as_ref()), mount.display())]
    NoBpffs { folder: PathBuf, mount: PathBuf, error: Option<io::Error> },
    #[error(
        "{} is not a BPF file system, and one that a container mounts ends with it, and enforcement with that: mount it on the node \
         (`mount -t bpf bpf {}`), or by the init container of deploy/components/mount-bpffs (`bpffs.mount` of the chart)",
        .0.display(), .0.display()
    )]
    PrivateMounts(PathBuf),
    #[error(
        "no cgroup v2 hierarchy is mounted; mount one with `mount -t cgroup2 none /sys/fs/cgroup/unified`, or boot with systemd.unified_cgroup_hierarchy=1"
    )]
    NoCgroup2,
    #[error("{} is not in a cgroup v2 hierarchy; correct --cgroup-root, or leave it out", .0.display())]
    NotCgroup2(PathBuf),
    #[error("cannot read {what}: {error}")]
    Unreadable {
        what: &'static str,
        #[source]
        error: io::Error,
    },
}

fn tried(error: Option<&io::Error>) -> String {
    error.map(|error| format!(" and mounting one failed ({error})")).unwrap_or_default()
}

/// Checks privileges, kernel and file systems. Returns the root of the cgroup v2 hierarchy.
pub(crate) fn check(bpffs: &Path, cgroup_root: Option<&Path>) -> Result<PathBuf, StartupError> {
    check_privileges()?;
    check_kernel()?;
    raise_locked_memory();
    mounts::ensure_bpffs(bpffs)?;
    mounts::cgroup_root(cgroup_root)
}

/// The part of [`check`] that removing everything needs.
pub(crate) fn check_privileges() -> Result<(), StartupError> {
    let status = fs::read_to_string("/proc/self/status")
        .map_err(|error| StartupError::Unreadable { what: "/proc/self/status", error })?;
    match missing_capabilities(&status) {
        missing if missing.is_empty() => Ok(()),
        missing => Err(StartupError::Privileges { missing }),
    }
}

/// Capabilities that are not effective, in words. `CAP_SYS_ADMIN` (entering namespaces) includes `CAP_BPF` and `CAP_PERFMON`;
/// `CAP_SYS_PTRACE` opens `/proc/PID/ns` of processes that have capabilities which the agent does not have.
fn missing_capabilities(status: &str) -> String {
    const NEEDED: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_SYS_PTRACE", 19), ("CAP_SYS_ADMIN", 21)];
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let missing = NEEDED.iter().filter(|(_, bit)| effective & (1 << bit) == 0);
    missing.map(|&(name, _)| name).collect::<Vec<_>>().join(" and ")
}

fn check_kernel() -> Result<(), StartupError> {
    let names =
        uname().map_err(|error| StartupError::Unreadable { what: "the kernel's version", error: error.into() })?;
    let release = names.release().to_string_lossy().into_owned();
    match version(&release) {
        Some(version) if version < OLDEST_KERNEL => Err(StartupError::Kernel { release }),
        Some(version) if version < OLDEST_TESTED_KERNEL => {
            tracing::warn!(release, "this kernel is older than those that the agent is tested on");
            Ok(())
        }
        Some(_) => Ok(()),
        None => {
            tracing::warn!(release, "the kernel's version cannot be understood; going on");
            Ok(())
        }
    }
}

/// Major and minor number of a release such as `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Before 5.11 maps counted against this limit; some distributions still carry that.
fn raise_locked_memory() {
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        debug!(%error, "the limit of locked memory stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_compared_by_number() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.4.17-2136.el8"), Some((5, 4)));
        assert!(version("5.9.1") < Some(OLDEST_KERNEL));
        assert!(version("10.0") > Some(OLDEST_KERNEL));
        assert_eq!(version("strange"), None);
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing_capabilities("CapEff:\t000001ffffffffff\n"), "");
        assert_eq!(missing_capabilities("CapEff:\t0000000000281000\n"), "", "what deploy/ gives");
        assert_eq!(missing_capabilities("CapEff:\t0000000000001000\n"), "CAP_SYS_PTRACE and CAP_SYS_ADMIN");
        let all = "CAP_NET_ADMIN and CAP_SYS_PTRACE and CAP_SYS_ADMIN";
        assert_eq!(missing_capabilities("CapEff:\t0000000000000000\n"), all);
        assert_eq!(missing_capabilities(""), all);
    }

    #[test]
    fn errors_say_what_to_do() {
        let error = StartupError::Kernel { release: "5.4.0".into() };
        assert_eq!(
            error.to_string(),
            "Linux 5.4.0 is too old: the agent needs 5.15 or later and is tested from 6.1 on; update the kernel"
        );
        let error = StartupError::NoBpffs { folder: "/tmp/x".into(), mount: "/tmp".into(), error: None };
        assert!(error.to_string().contains("mount -t bpf bpf /tmp"));
    }
}
