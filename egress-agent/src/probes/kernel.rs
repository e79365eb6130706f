//! The real programs as a third judge (`test --kernel`): a datapath of its own, beside whatever enforces on this machine, and one
//! packet per probe and interval of ports through `tc_from_pod` by `BPF_PROG_TEST_RUN`.
//!
//! Nothing outside is touched: a network namespace, a BPF file system in a mount namespace and an empty cgroup of its own. The kernel
//! takes the first two back however the process ends; the cgroup is removed at the end, or by the next process if this one was killed.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use aya::programs::{Program, SchedClassifier, TestRun as _, TestRunOptions};
use egress_common::abi::capacity;
use egress_common::dns::Answer;
use egress_policy::compile::Lookup;
use egress_policy::model::DnsConfig;
use egress_policy::places::{Place, Places};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::cli::Failure;
use crate::datapath::{
    self, Capacity, Counted, Datapath, Desired, DesiredDns, DesiredEndpoint, DesiredNames, DesiredTable, Interface,
    Options, bytes,
};
use crate::destination::Destination;
use crate::startup;

use super::frame::frame;

/// What `tc_from_pod` returns for a packet that goes on (`TC_ACT_UNSPEC`).
const PASSES: u32 = u32::MAX;
const BPFFS: &str = "/sys/fs/bpf";
/// Of the name of a cgroup and a folder of pins; the process's number follows.
const PREFIX: &str = "egress-try-";
/// Enough for one pod.
const SMALL: Capacity =
    Capacity { endpoints: 4, tables: 4, rule_counters: 1 << 16, flows: 1024, trie_from: capacity::TRIE_FROM };

/// The kernel gave another answer than the compiled table.
#[derive(Debug, thiserror::Error)]
#[error(
    "this is a bug in egress-agent: for {to}, port {port}, the kernel {kernel} and the compiled table says {table}; please report it with the policy files"
)]
pub(super) struct Difference {
    to: Destination,
    port: u16,
    kernel: String,
    table: String,
}

/// Why the kernel gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum KernelError {
    #[error("--kernel: {0}")]
    Startup(#[from] startup::StartupError),
    #[error("--kernel: {0}")]
    Datapath(#[from] datapath::DatapathError),
    #[error("--kernel: {what}: {source}")]
    Io {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("--kernel: running a program: {0}")]
    Run(#[from] aya::programs::ProgramError),
    #[error("--kernel: the rules do not fit the small maps of a test: {0}")]
    NotApplied(String),
    #[error(transparent)]
    Difference(#[from] Box<Difference>),
}

impl From<KernelError> for Failure {
    fn from(error: KernelError) -> Self {
        Self::runtime(error)
    }
}

/// Programs and maps of this process alone.
pub(super) struct Kernel {
    datapath: Datapath,
    /// Where the names of the rules lie; their ids count from 1.
    places: Places,
    _place: Own,
}

impl Kernel {
    /// Loads the programs. Moves the calling thread into a network namespace of its own. `places` are those of the names of every table
    /// that will be asked, because addresses are learned once for all of them.
    pub(super) fn new(places: Places) -> Result<Self, KernelError> {
        let place = Own::make()?;
        Ok(Self { datapath: Datapath::open(&place.0)?, places, _place: place })
    }

    /// Lets packets of the pod be judged by `table` from now on.
    pub(super) fn judge_by(&mut self, table: &Arc<DesiredTable>) -> Result<(), KernelError> {
        let endpoint = DesiredEndpoint {
            is_resolver: false,
            name: "test/test".to_owned(),
            interface: Some(Interface { name: "lo".to_owned(), index: 1 }),
            netns: None,
            namespace: None,
            cgroup: None,
            table: Arc::clone(table),
            fallback: None,
        };
        let numbered: Vec<(u32, Place)> = (1..).zip(self.places.iter()).collect();
        let names = DesiredNames {
            length: numbered.iter().map(|(id, _)| id + 1).max().unwrap_or(1),
            places: numbered,
            ..DesiredNames::default()
        };
        // Addresses that no name can have were left out before.
        let lifetimes = DnsConfig { allow_internal: true, ..DnsConfig::default() };
        let dns = DesiredDns { lifetimes, ..DesiredDns::default() };
        let desired = Desired { endpoints: vec![endpoint], dns, names, ..Desired::default() };
        let applied = self.datapath.apply(&desired)?;
        applied.problems.first().map_or(Ok(()), |problem| Err(KernelError::NotApplied(problem.message.clone())))
    }

    /// Lets the address belong to those of `names` that a rule is about.
    pub(super) fn learn(&mut self, address: IpAddr, names: &[String]) -> Result<(), KernelError> {
        let answer = Answer { address: bytes(address), ttl: 3600, padding: 0 };
        for place in names.iter().filter_map(|name| self.places.place_of(&Place::of_name(name))) {
            if let Some((id, _)) = (1_u32..).zip(self.places.iter()).find(|(_, known)| *known == place) {
                self.datapath.name_maps()?.learn(id, &[answer])?;
            }
        }
        Ok(())
    }

    /// Sends a packet and insists that verdict and counters are those of `expected`. `None` where there is no such packet.
    pub(super) fn insist(&mut self, to: Destination, port: u16, expected: Lookup) -> Result<Option<()>, KernelError> {
        let Some(frame) = frame(to.address, to.protocol, port) else { return Ok(None) };
        let before = self.datapath.counted();
        let passes = self.run(&frame)? == PASSES;
        let charged = charged(&before, &self.datapath.counted());
        let wanted: BTreeSet<u32> =
            [Some(expected.decision), expected.audit].iter().flatten().map(|said| said.rank()).collect();
        if passes != expected.decision.is_deny() && charged == wanted {
            return Ok(Some(()));
        }
        let verb = if passes { "passes" } else { "drops" };
        let kernel = format!("{verb} and charges ranks {charged:?}");
        Err(Box::new(Difference { to, port, kernel, table: format!("{expected:?}") }).into())
    }

    fn run(&mut self, frame: &[u8]) -> Result<u32, KernelError> {
        let program = self.datapath.programs_mut().ebpf_mut().program_mut("tc_from_pod");
        let program: &mut Program = program.ok_or(datapath::DatapathError::Missing("tc_from_pod"))?;
        let program: &mut SchedClassifier = program.try_into()?;
        let mut output = vec![0; 4096];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut output), repeat: 1, ..TestRunOptions::new() };
        Ok(program.test_run(options)?.return_value)
    }
}

/// Ranks whose counters moved. There is one table.
fn charged(before: &[Counted], after: &[Counted]) -> BTreeSet<u32> {
    let (Some(before), Some(after)) = (before.first(), after.first()) else { return BTreeSet::new() };
    let moved = (0..).zip(before.counters.iter().zip(&after.counters)).filter(|(_, (a, b))| a.packets != b.packets);
    moved.map(|(rank, _)| rank).collect()
}

/// Pins, cgroup and network namespace.
struct Own(Options);

impl Own {
    fn make() -> Result<Self, KernelError> {
        let name = format!("{PREFIX}{}", std::process::id());
        let bpffs = Path::new(BPFFS).join(&name);
        let root = startup::check(&bpffs, None)?;
        let io = |what| move |source| KernelError::Io { what, source };
        let namespaces = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
        unshare(namespaces).map_err(|error| io("namespaces of its own")(error.into()))?;
        private_bpffs().map_err(|error| io("a BPF file system of its own")(error.into()))?;
        remove_leftovers(&root);
        let cgroup_root = root.join(&name);
        fs::create_dir_all(&cgroup_root).map_err(io("a cgroup of its own"))?;
        Ok(Self(Options { bpffs, cgroup_root, capacity: SMALL }))
    }
}

/// Mounts a BPF file system that nobody else sees and that ends with the mount namespace.
fn private_bpffs() -> nix::Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
}

/// Removes the empty cgroups of processes that were killed. It is no error if one stays.
fn remove_leftovers(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix(PREFIX).is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Err(error) = datapath::cleanup(&self.0) {
            tracing::warn!(%error, pins = %self.0.bpffs.display(), "the pins of the test cannot be removed");
        }
        let _ = fs::remove_dir(&self.0.cgroup_root);
    }
}
