//! Ours, through the production path: policy files, rule list, compiled table, `Datapath::apply`.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aya::programs::Program;
use egress_agent::datapath::inspect::Inspector;
use egress_agent::datapath::{
    self, Applied, Datapath, Desired, DesiredEndpoint, DesiredTable, Interface, Options, ProgramFigures,
};
use egress_common::abi::{self, map};
use egress_common::table::flag;
use egress_policy::compile::{Limits, Table};
use egress_policy::document::{self, Object};
use egress_policy::follow::{Followed, Next};
use egress_policy::model::{NodeContext, PodIdentity, PolicySet};

use crate::kernel;
use crate::lab::{INTERFACE, SINK};
use crate::mix;

const POD: &str = "bench/pod";
/// What the agent's own default is.
const EVENTS_PER_SECOND: u32 = 10;

/// How long each part of an apply took, in milliseconds.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Stages {
    /// Ordering the rules of the pod, and their fingerprint.
    pub(crate) rules: f64,
    /// Rules to prefixes and classes.
    pub(crate) compile: f64,
    /// Everything in the kernel, until packets are judged by it.
    pub(crate) enforce: f64,
    /// What follows while it is in force: the texts of the rules are made and pinned beside the table.
    pub(crate) after: f64,
}

impl Stages {
    /// From the policies to enforcement.
    pub(crate) fn until_enforced(&self) -> f64 {
        self.rules + self.compile + self.enforce
    }
}

/// Our firewall with one pod.
pub(crate) struct Egress {
    datapath: Datapath,
    options: Options,
    set: PolicySet,
    /// The pod's rules, for their next version.
    followed: Option<Followed>,
    netns: Option<u64>,
}

/// Ours once more, with every prefix in the kernel's LPM trie however many they are: what the array trie, and the short way that only such tables
/// have, are worth.
pub(crate) struct OnLpm {
    egress: Egress,
    program: OwnedFd,
}

impl OnLpm {
    /// Its name among the peers.
    pub(crate) const NAME: &'static str = "egress-lpm";

    /// Loads the programs and puts a compiled table into the kernel; how long the latter took, in milliseconds.
    pub(crate) fn new(options: &Options, table: &Arc<DesiredTable>) -> anyhow::Result<(Self, f64)> {
        std::fs::create_dir_all(&options.bpffs)?;
        let mut egress = Egress::new(options.clone())?;
        let enforced = egress.enforce(table)?.enforced;
        let program = egress.program()?;
        Ok((Self { egress, program }, enforced.as_secs_f64() * 1e3))
    }

    /// The program for packets that a pod sends.
    pub(crate) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Takes everything out of the kernel again.
    pub(crate) fn remove(self) -> anyhow::Result<()> {
        let options = self.egress.options.clone();
        drop(self);
        datapath::cleanup(&options)?;
        Ok(())
    }
}

/// Kernel memory of the pod's table, in bytes.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Memory {
    /// Prefixes and classes.
    pub(crate) table: u64,
    /// The rules' texts, which no packet reads.
    pub(crate) description: u64,
}

impl Egress {
    /// Loads the programs.
    pub(crate) fn new(options: Options) -> anyhow::Result<Self> {
        let datapath = Datapath::open(&options)?;
        Ok(Self { datapath, options, set: PolicySet::default(), followed: None, netns: None })
    }

    /// How long it takes to load and verify every program, maps and pins included.
    pub(crate) fn time_of_loading(options: &Options) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let datapath = Datapath::open(options)?;
        let took = started.elapsed();
        drop(datapath);
        datapath::cleanup(options)?;
        std::fs::create_dir_all(&options.bpffs)?;
        Ok(took)
    }

    /// What the verifier said.
    pub(crate) fn figures(&mut self) -> anyhow::Result<Vec<ProgramFigures>> {
        Ok(self.datapath.programs_mut().figures()?)
    }

    /// The program for packets that a pod sends.
    pub(crate) fn program(&mut self) -> anyhow::Result<OwnedFd> {
        let program = self.datapath.programs_mut().ebpf_mut().program("tc_from_pod").context("no tc_from_pod")?;
        let Program::SchedClassifier(program) = program else { anyhow::bail!("tc_from_pod is no classifier") };
        Ok(program.fd()?.as_fd().try_clone_to_owned()?)
    }

    /// Takes these policies from now on.
    pub(crate) fn set_policies(&mut self, set: PolicySet) {
        self.set = set;
    }

    /// The socket hooks know the pod by this network namespace.
    pub(crate) fn set_netns(&mut self, cookie: u64) {
        self.netns = Some(cookie);
    }

    /// Compiles the policies for the pod, as the agent's planner does: what is new in them, if they are followed.
    fn table(&mut self) -> anyhow::Result<(DesiredTable, Stages)> {
        let pod = PodIdentity { namespace: "bench".into(), name: "pod".into(), ..PodIdentity::default() };
        let node = NodeContext::default();
        let started = Instant::now();
        let selection = self.set.selected(&pod);
        let next = self.followed.take().map(|followed| followed.follow(&self.set, &selection, &node));
        let (followed, ordered) = match next {
            Some(Next::Same(followed) | Next::Changed(followed)) => (followed, Instant::now()),
            Some(Next::Whole) | None => {
                let rules = self.set.rule_list_of(&selection, &node).with_vacancies(Limits::default().rules);
                let ordered = Instant::now();
                (Followed::new(rules, &self.set, &selection, &Limits::default())?.0, ordered)
            }
        };
        let (list, fingerprint) = (Arc::clone(followed.list()), followed.fingerprint());
        let table = DesiredTable::new(list, fingerprint, followed.table(), false);
        let stages = Stages {
            rules: (ordered - started).as_secs_f64() * 1e3,
            compile: ordered.elapsed().as_secs_f64() * 1e3,
            enforce: 0.0,
            after: 0.0,
        };
        self.followed = Some(followed);
        Ok((table, stages))
    }

    /// Compiles the policies and puts them into the kernel.
    pub(crate) fn apply(&mut self) -> anyhow::Result<(Arc<DesiredTable>, Stages)> {
        let (table, mut stages) = self.table()?;
        let table = Arc::new(table);
        let started = Instant::now();
        let enforced = self.enforce(&table)?.enforced;
        stages.enforce = enforced.as_secs_f64() * 1e3;
        stages.after = started.elapsed().saturating_sub(enforced).as_secs_f64() * 1e3;
        Ok((table, stages))
    }

    fn enforce(&mut self, table: &Arc<DesiredTable>) -> anyhow::Result<Applied> {
        let endpoint = DesiredEndpoint {
            is_resolver: false,
            name: POD.into(),
            interface: Some(Interface { name: SINK.into(), index: INTERFACE }),
            netns: self.netns,
            namespace: None,
            cgroup: None,
            table: Arc::clone(table),
            fallback: None,
        };
        self.desire(vec![endpoint])
    }

    fn desire(&mut self, endpoints: Vec<DesiredEndpoint>) -> anyhow::Result<Applied> {
        let applied =
            self.datapath.apply(&Desired { endpoints, events_per_second: EVENTS_PER_SECOND, ..Desired::default() })?;
        if let Some(problem) = applied.problems.first() {
            anyhow::bail!("{}: {}", problem.endpoint, problem.message);
        }
        Ok(applied)
    }

    /// Takes the pod and its table out of the kernel.
    pub(crate) fn clear(&mut self) -> anyhow::Result<()> {
        self.followed = None;
        self.desire(Vec::new()).map(|_| ())
    }

    /// Changes one rule: one small file is read, everything is compiled and applied.
    pub(crate) fn update(&mut self, address: Ipv4Addr) -> anyhow::Result<()> {
        for object in document::read(&mix::update_file(address)).objects {
            if let Object::Policy(policy) = object {
                self.set.insert(policy);
            }
        }
        self.apply().map(|_| ())
    }

    /// Two tables for the pod to be switched between, by their policy files.
    pub(crate) fn tables_of(&mut self, versions: [&[String]; 2]) -> anyhow::Result<[Arc<DesiredTable>; 2]> {
        let mut tables = Vec::new();
        for files in versions {
            (self.set, self.followed) = (mix::read(files)?, None);
            tables.push(Arc::new(self.table()?.0));
        }
        tables.try_into().map_err(|_| anyhow::anyhow!("two tables"))
    }

    /// One table, by its policy files.
    pub(crate) fn table_of(&mut self, files: &[String]) -> anyhow::Result<DesiredTable> {
        (self.set, self.followed) = (mix::read(files)?, None);
        Ok(self.table()?.0)
    }

    /// Lets this many pods be judged, each by one of `tables` in turn.
    pub(crate) fn set_pods(&mut self, tables: &[Arc<DesiredTable>], pods: usize) -> anyhow::Result<()> {
        let endpoint = |(number, table): (u64, &Arc<DesiredTable>)| DesiredEndpoint {
            is_resolver: false,
            name: format!("bench/pod-{number}"),
            interface: None,
            // No namespace has such a cookie.
            netns: Some(u64::MAX - number),
            namespace: None,
            cgroup: None,
            table: Arc::clone(table),
            fallback: None,
        };
        self.desire((0..).zip(tables.iter().cycle().take(pods)).map(endpoint).collect()).map(|_| ())
    }

    /// Switches the pod to a table.
    pub(crate) fn switch(&mut self, table: &Arc<DesiredTable>) -> anyhow::Result<()> {
        self.enforce(table).map(|_| ())
    }

    /// Kernel memory of the pod's table, as the kernel accounts it.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        let reference = self.datapath.table_of(POD).context("the pod has no table")?;
        let slot = reference.slot;
        let view = Inspector::open(&self.options.bpffs)?.table(reference)?.context("the table is gone")?;
        let has = |bit| view.info.flags & bit != 0;
        let maps = [
            (map::TABLES4, slot..slot + 1, !has(flag::TRIE4)),
            (map::TABLES6, slot..slot + 1, !has(flag::TRIE6)),
            // There are no other tries.
            (map::TRIES, 0..abi::capacity::CHUNKS, true),
            (map::CLASSES, slot..slot + 1, true),
        ];
        let mut table = 0;
        for (name, slots, _) in maps.into_iter().filter(|(_, _, there)| *there) {
            let outer = kernel::open_pin(&self.pins().join("maps").join(name))?;
            for inner in slots.filter_map(|slot| kernel::inner_map(outer.as_fd(), slot).ok()) {
                table += kernel::map_memory(inner.as_fd())?;
            }
        }
        let description = kernel::open_pin(&self.pins().join("tables").join(slot.to_string()))?;
        Ok(Memory { table, description: kernel::map_memory(description.as_fd())? })
    }

    fn pins(&self) -> PathBuf {
        Path::new(&self.options.bpffs).join(format!("abi-{}", abi::VERSION))
    }
}

/// What the other peers are filled with: the prefixes of a table, each with its verdict on a measured packet.
pub(crate) fn flattened(table: &Table) -> Vec<(ipnet::Ipv4Net, bool)> {
    let key = egress_common::class::key(egress_common::packet::protocol::UDP, mix::PORT);
    let verdict = |leaf| table.open(leaf, key).is_some_and(|found| !found.decision.is_deny());
    table.prefixes4.iter().map(|(prefix, leaf)| (*prefix, verdict(*leaf))).collect()
}
