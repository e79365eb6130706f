//! What can go wrong between the agent and the kernel, each with what to do next.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::pin::PinError;
use aya::programs::ProgramError;

/// A failure of the datapath.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// A folder or pin could not be made, read or removed.
    #[error("{action} {path}: {source}; is a bpffs mounted there and are you root?")]
    Path {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The object could not be loaded.
    #[error(
        "loading the eBPF object: {}; the agent supports Linux 6.1 and later with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF",
        whole(.0)
    )]
    Load(#[from] EbpfError),
    /// A program was refused.
    #[error("program {name}: {}", whole(source))]
    Program {
        /// Name of the program.
        name: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
    /// The object has no such program or map: agent and object do not belong together.
    #[error("the eBPF object has no {0}; build agent and object from the same source (`cargo xtask build-ebpf`)")]
    Missing(&'static str),
    /// A map operation failed.
    #[error("map {name}: {}", whole(source))]
    Map {
        /// Name of the map.
        name: &'static str,
        /// Why.
        source: Box<MapError>,
    },
    /// A pin failed.
    #[error("pinning: {}", whole(.0))]
    Pin(#[from] PinError),
    /// A system call failed.
    #[error("{call}: {source}")]
    Syscall {
        /// Which.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Something is full.
    #[error("{what} is full: {needed} needed, {limit} there; {advice}")]
    Full {
        /// What.
        what: &'static str,
        /// Entries that were needed.
        needed: u64,
        /// Entries there are.
        limit: u64,
        /// What to do.
        advice: &'static str,
    },
}

impl DatapathError {
    pub(super) fn path(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Path { action, path, source }
    }

    pub(super) fn map(name: &'static str) -> impl Fn(MapError) -> Self {
        move |source| Self::Map { name, source: Box::new(source) }
    }

    pub(super) fn program(name: &'static str) -> impl Fn(ProgramError) -> Self {
        move |source| Self::Program { name, source: Box::new(source) }
    }
}

/// What aya says, and why: it names the call that failed and leaves the `errno` to the error's source.
fn whole(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let reason = source.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use aya::sys::SyscallError;

    use super::*;

    fn refused(call: &'static str) -> SyscallError {
        SyscallError { call, io_error: io::Error::from_raw_os_error(libc::E2BIG) }
    }

    #[test]
    fn a_failed_map_update_says_why_the_kernel_refused_it() {
        let message = DatapathError::map("tables4")(refused("bpf_map_update_elem").into()).to_string();
        assert_eq!(message, "map tables4: `bpf_map_update_elem` failed: Argument list too long (os error 7)");
    }

    #[test]
    fn a_reason_that_was_given_already_is_not_repeated() {
        let error = ProgramError::LoadError {
            io_error: io::Error::from_raw_os_error(libc::E2BIG),
            verifier_log: aya_obj::VerifierLog::new("too large".to_owned()),
        };
        let message = DatapathError::program("connect4")(error).to_string();
        assert_eq!(message.matches("os error 7").count(), 1, "{message}");
    }
}
