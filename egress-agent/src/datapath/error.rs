//! What can go wrong between the agent and the kernel, each with what to do next.

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
        "loading the eBPF object: {0}; the agent supports Linux 6.1 and later with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF"
    )]
    Load(#[from] EbpfError),
    /// A program was refused.
    #[error("program {name}: {source}")]
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
    #[error("map {name}: {source}")]
    Map {
        /// Name of the map.
        name: &'static str,
        /// Why.
        source: Box<MapError>,
    },
    /// A pin failed.
    #[error("pinning: {0}")]
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
