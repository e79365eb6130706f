//! The only way to the kernel: takes what should be enforced and makes it so, leaving alone what already is.
//!
//! plan ▶ tables (built aside) ▶ endpoints (one store publishes a table) ▶ links ▶ what nobody uses any more is freed. Everything that
//! enforces is pinned; a new agent opens the same pins, compares, and replaces the programs link by link, so that nothing is
//! unguarded meanwhile (§6.5). Called by reconcile, by tests and by benchmarks.

pub mod census;
mod chunks;
mod counters;
mod descriptions;
mod endpoints;
mod error;
mod grace;
mod inner;
pub mod inspect;
mod leaves;
mod links;
mod mapped;
mod maps;
mod names;
mod outer;
mod pins;
mod programs;
mod seed;
mod sockets;
mod syscall;
mod tables;
mod tries;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::maps::{MapData, RingBuf};
use egress_common::abi::{self, Config, Hold, capacity, config_flag, map};
use egress_common::endpoint::TableRef;
use egress_policy::compile::Table;
use egress_policy::describe::{Describing, TableDescription};
use egress_policy::model::DnsConfig;
use egress_policy::name::NamePattern;
use egress_policy::rules::RuleList;
use ipnet::IpNet;

pub use self::error::DatapathError;
pub(crate) use self::names::bytes;
pub use self::names::{DesiredNames, NameMaps, Swept};
pub use self::programs::{ProgramFigures, Programs};
pub use self::tables::Counted;

use self::endpoints::Endpoints;
use self::pins::Pins;
use self::tables::Tables;

/// Where the datapath lives on this node.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of pins, on a bpffs.
    pub bpffs: PathBuf,
    /// Cgroup v2 folder at which the socket hooks are attached; every pod's cgroup is below it.
    pub cgroup_root: PathBuf,
    /// Sizes of the maps, used when they are created.
    pub capacity: Capacity,
}

/// Sizes of the maps, in entries.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Endpoints.
    pub endpoints: u32,
    /// Table versions.
    pub tables: u32,
    /// Rule counters of each CPU; rounded up to a power of two.
    pub rule_counters: u32,
    /// Connections remembered.
    pub flows: u32,
    /// Prefixes of one family from which on a table keeps them as an array trie and not as a kernel LPM trie. Both say the same.
    pub trie_from: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            endpoints: capacity::ENDPOINTS,
            tables: capacity::TABLES,
            rule_counters: capacity::RULE_COUNTERS,
            flows: capacity::FLOWS,
            trie_from: capacity::TRIE_FROM,
        }
    }
}

/// The host side of a pod's interface, in the agent's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
}

/// A pod's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its folder in the cgroup v2 tree.
    pub path: PathBuf,
    /// Its id.
    pub id: u64,
}

/// What the kernel should enforce.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// Every pod that a policy covers.
    pub endpoints: Vec<DesiredEndpoint>,
    /// Every other pod that is known: those are not held by `hold`.
    pub free: Vec<FreePod>,
    /// How pods are held that are not known yet; `None`: they are not.
    pub hold: Option<DesiredHold>,
    /// Events per second and (endpoint, rule).
    pub events_per_second: u32,
    /// What DNS depends on.
    pub dns: DesiredDns,
    /// What names mean.
    pub names: DesiredNames,
}

/// A pod that no policy is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FreePod {
    /// Cookie of its network namespace.
    pub netns: Option<u64>,
    /// Its cgroup, for what runs in namespaces that it makes itself.
    pub cgroup: Option<Cgroup>,
}

/// How pods are held that the kernel sees before anybody knows them (§6.6): the calls of their processes, by the programs at the root cgroup.
#[derive(Clone, Debug)]
pub struct DesiredHold {
    /// The cgroup that all pods are in.
    pub cgroup: Cgroup,
    /// Cookie of the host's network namespace: what is in it is not held.
    pub host: u64,
    /// What judges them.
    pub table: Arc<DesiredTable>,
}

/// How long one apply, but for the first, attaches programs to interfaces that have none. The kernel waits for each (tens of milliseconds), and
/// meanwhile nobody would hear of pods that start.
const ATTACH_TURN: Duration = Duration::from_millis(200);

/// Name of the endpoint that new pods are taken for. No pod has it.
pub const NEW_PODS: &str = "?/new";

impl DesiredHold {
    fn endpoint(&self) -> DesiredEndpoint {
        DesiredEndpoint {
            name: NEW_PODS.to_owned(),
            interface: None,
            netns: None,
            namespace: None,
            cgroup: None,
            is_resolver: false,
            table: Arc::clone(&self.table),
            fallback: None,
        }
    }
}

/// DNS settings of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredDns {
    /// Trusted resolvers.
    pub resolvers: Vec<IpAddr>,
    /// Lifetimes of addresses (§5.3).
    pub lifetimes: DnsConfig,
    /// Prefixes whose addresses no name has (§5.6).
    pub internal: Vec<IpNet>,
}

/// One pod.
#[derive(Clone, Debug)]
pub struct DesiredEndpoint {
    /// `namespace/name`, unique.
    pub name: String,
    /// Where TC programs go.
    pub interface: Option<Interface>,
    /// Cookie of its network namespace: the socket hooks know it by that.
    pub netns: Option<u64>,
    /// Its network namespace as a file, to find the connections that it accepted before it had a policy.
    pub namespace: Option<PathBuf>,
    /// Where `cgroup_skb` programs go if there is no interface; without `netns`, the socket hooks know it by this.
    pub cgroup: Option<Cgroup>,
    /// Whether the pod is a trusted resolver, and may send from a resolver's address.
    pub is_resolver: bool,
    /// What judges it.
    pub table: Arc<DesiredTable>,
    /// What judges it if `table` does not fit and the pod has none yet (§6.6).
    pub fallback: Option<Arc<DesiredTable>>,
}

/// A compiled rule list.
#[derive(Debug)]
pub struct DesiredTable {
    /// Fingerprint of the rule list: equal ones share a table.
    pub fingerprint: [u8; 32],
    /// The prefixes and classes.
    pub table: Table,
    /// The names that its rules are about.
    pub patterns: BTreeSet<Arc<NamePattern>>,
    /// Its rules, for people; pinned beside it once it is in force.
    pub description: Arc<Describing>,
    /// Whether refusals are answered (`denyResponse: Reject`).
    pub reject: bool,
}

impl DesiredTable {
    /// The table that `list`, which has this fingerprint, was compiled to.
    pub fn new(list: Arc<RuleList>, fingerprint: [u8; 32], table: Table, reject: bool) -> Self {
        let patterns = if table.has_names() { list.patterns() } else { BTreeSet::new() };
        let description = Arc::new(TableDescription::later(list, fingerprint));
        Self { fingerprint, table, patterns, description, reject }
    }

    fn key(&self) -> tables::TableKey {
        (self.fingerprint, self.reject)
    }
}

/// What an [`apply`](Datapath::apply) did.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Endpoints that the kernel now has.
    pub endpoints: usize,
    /// Tables that the kernel now has.
    pub tables: usize,
    /// Tables that were built.
    pub tables_built: usize,
    /// Tables that were freed.
    pub tables_freed: usize,
    /// What the freed tables had counted.
    pub retired: Vec<Counted>,
    /// Endpoints whose table was switched, or that are new.
    pub endpoints_changed: usize,
    /// Endpoints that were removed.
    pub endpoints_removed: usize,
    /// From the call until every packet was judged by what was desired. What comes after is no packet's business: the texts of rules are
    /// pinned, and tables are freed.
    pub enforced: Duration,
    /// What could not be done, by endpoint. Their former tables stay in force.
    pub problems: Vec<Problem>,
    /// Endpoints whose interfaces have no programs yet, because a turn is over: calls are judged, packets with the next apply or one after.
    pub unattached: BTreeSet<String>,
}

impl Applied {
    fn problem(&mut self, endpoint: &DesiredEndpoint, error: &DatapathError) {
        self.problems.push(Problem { endpoint: endpoint.name.clone(), message: error.to_string() });
    }
}

/// Something that could not be done for one endpoint.
#[derive(Clone, Debug)]
pub struct Problem {
    /// `namespace/name`.
    pub endpoint: String,
    /// What, and what to do.
    pub message: String,
}

/// The datapath of this node, loaded.
pub struct Datapath {
    pins: Pins,
    cgroup_root: PathBuf,
    programs: Programs,
    tables: Tables,
    endpoints: Endpoints,
    attached: bool,
}

impl Datapath {
    /// Loads the programs and opens or makes the pinned maps. What is attached goes on running the programs that it ran.
    pub fn open(options: &Options) -> Result<Self, DatapathError> {
        let pins = Pins::new(&options.bpffs);
        let programs = Programs::load(&pins, &options.capacity)?;
        let mut tables = Tables::adopt(&pins, options.capacity.trie_from)?;
        let endpoints = Endpoints::adopt(&pins)?;
        tables.keep(&endpoints.tables())?;
        Ok(Self { pins, cgroup_root: options.cgroup_root.clone(), programs, tables, endpoints, attached: false })
    }

    /// Makes the kernel enforce `desired`. Problems of single endpoints are in the result; an error means that nothing could be done.
    pub fn apply(&mut self, desired: &Desired) -> Result<Applied, DatapathError> {
        let (started, mut applied) = (Instant::now(), Applied::default());
        self.configure(desired)?;
        names::set_resolvers(&self.pins, &desired.dns.resolvers)?;
        names::forget_flows(&self.pins, &desired.names.reused)?;
        let tables_before = self.tables.len();
        let new_pods = desired.hold.as_ref().map(DesiredHold::endpoint);
        let all = || desired.endpoints.iter().chain(&new_pods);
        let kept: BTreeSet<String> = all().map(|endpoint| endpoint.name.clone()).collect();
        // Departed endpoints go last, so that a key that moves to another endpoint is never without one; only where the new ones would
        // find no slot do they go first.
        if !self.endpoints.has_room_for(&kept) {
            applied.endpoints_removed = self.endpoints.retain(&kept)?;
        }
        let mut admitted = Vec::new();
        for endpoint in all() {
            match self.realize(endpoint, &desired.names, &mut admitted) {
                Ok(true) => applied.endpoints_changed += 1,
                Ok(false) => {}
                Err(error) => applied.problem(endpoint, &error),
            }
        }
        // Everybody who is known is known as such before the others are held.
        let known = self.endpoints.set_free(if new_pods.is_some() { &desired.free } else { &[] });
        applied.tables_built = self.tables.len() - tables_before;
        // Every table already says what the ids mean that replies are learned under from now on.
        names::set_names(&self.pins, &desired.names.entries)?;
        self.attach(desired, &mut applied)?;
        if let (Some(hold), Some(new_pods)) = (&desired.hold, &new_pods) {
            known.and_then(|()| self.hold(hold)).unwrap_or_else(|error| applied.problem(new_pods, &error));
        }
        // Once more for clients that came between the first look and the attachment.
        for (endpoint, id) in admitted {
            self.remember_accepted(endpoint, id).unwrap_or_else(|error| applied.problem(endpoint, &error));
        }
        applied.endpoints_removed += self.endpoints.retain(&kept)?;
        applied.enforced = started.elapsed();
        self.describe(desired, &mut applied);
        applied.retired = self.tables.retire(&self.endpoints.tables())?;
        applied.tables_freed = applied.retired.len();
        applied.endpoints = self.endpoints.len();
        applied.tables = self.tables.len();
        Ok(applied)
    }

    /// Publishes the endpoint's table. `true` if anything changed. Pods that are new to the kernel are added to `admitted`.
    fn realize<'a>(
        &mut self,
        endpoint: &'a DesiredEndpoint,
        names: &DesiredNames,
        admitted: &mut Vec<(&'a DesiredEndpoint, u32)>,
    ) -> Result<bool, DatapathError> {
        let before = self.endpoints.table_of(&endpoint.name);
        let (table, refused) = match (self.tables.realize(&endpoint.table, names, before), &endpoint.fallback) {
            (Ok(table), _) => (table, None),
            // An endpoint that has a table keeps it; a new one is held rather than left open.
            (Err(error), Some(fallback)) if !self.endpoints.has(&endpoint.name) => {
                (self.tables.realize(fallback, names, None)?, Some(error))
            }
            (Err(error), _) => return Err(error),
        };
        if let Some(id) = self.endpoints.admit(endpoint)? {
            // The look after the attachment reports what fails here; the pod's table must not wait for it.
            let _ = self.remember_accepted(endpoint, id);
            admitted.push((endpoint, id));
        }
        let changed = self.endpoints.publish(endpoint, table)?;
        refused.map_or(Ok(changed), Err)
    }

    /// Pins the texts of the tables that are new.
    fn describe(&mut self, desired: &Desired, applied: &mut Applied) {
        for (reference, error) in self.tables.describe() {
            let judged =
                desired.endpoints.iter().filter(|found| self.endpoints.table_of(&found.name) == Some(reference));
            judged.for_each(|endpoint| applied.problem(endpoint, &error));
        }
    }

    fn remember_accepted(&self, endpoint: &DesiredEndpoint, id: u32) -> Result<(), DatapathError> {
        let Some(namespace) = &endpoint.namespace else { return Ok(()) };
        seed::accepted_connections(&self.pins, id, namespace).map(|_| ())
    }

    fn configure(&mut self, desired: &Desired) -> Result<(), DatapathError> {
        let mut configs: maps::Configs = maps::open(&self.pins, map::CONFIG)?;
        let before: Config = zerocopy::transmute!(configs.get(&0, 0).map_err(DatapathError::map(map::CONFIG))?);
        let cgroups = desired.endpoints.iter().filter_map(|endpoint| endpoint.cgroup.as_ref());
        let levels = cgroups.chain(desired.free.iter().filter_map(|pod| pod.cgroup.as_ref())).filter_map(cgroup_level);
        let config = Config {
            abi: abi::VERSION,
            cgroup_levels: levels.fold(0, |levels, level| levels | 1 << level),
            events_per_second: desired.events_per_second,
            next_endpoint: self.endpoints.next_id(desired.endpoints.len()),
            min_ttl: seconds(desired.dns.lifetimes.min_ttl),
            max_ttl: seconds(desired.dns.lifetimes.max_ttl),
            grace: seconds(desired.dns.lifetimes.grace),
            flags: if desired.dns.lifetimes.allow_internal { config_flag::LEARN_INTERNAL } else { 0 },
            // Queries under way stand under the present one.
            secret: if before.secret == [0; 2] { rand::random() } else { before.secret },
            ..if desired.hold.is_some() { before } else { Config::default() }
        };
        store_config(&mut configs, config)
    }

    /// Holds new pods from now on.
    fn hold(&self, hold: &DesiredHold) -> Result<(), DatapathError> {
        let failed =
            |what: &str| DatapathError::Syscall { call: "holding new pods", source: std::io::Error::other(what) };
        let level =
            cgroup_level(&hold.cgroup).ok_or_else(|| failed("their cgroup is not 1 to 15 levels below the root"))?;
        let slot = self.endpoints.judged_slot(NEW_PODS).ok_or_else(|| failed("there is no table for them"))?;
        let mut configs: maps::Configs = maps::open(&self.pins, map::CONFIG)?;
        let before: Config = zerocopy::transmute!(configs.get(&0, 0).map_err(DatapathError::map(map::CONFIG))?);
        let config =
            Config { host: hold.host, hold_cgroup: hold.cgroup.id, hold: Hold { level, slot }.to_bits(), ..before };
        if config == before { Ok(()) } else { store_config(&mut configs, config) }
    }

    fn attach(&mut self, desired: &Desired, applied: &mut Applied) -> Result<(), DatapathError> {
        if !self.attached {
            links::attach_sockets(&self.pins, &mut self.programs, &self.cgroup_root)?;
        }
        let (mut interfaces, mut cgroups) = (Vec::new(), Vec::new());
        let mut spent = Duration::ZERO;
        for endpoint in &desired.endpoints {
            let result = match (&endpoint.interface, &endpoint.cgroup) {
                (Some(interface), _) => {
                    interfaces.push(interface.index);
                    let (is_new, started) = (!links::is_attached(&self.pins, interface), Instant::now());
                    if is_new && self.attached && spent > ATTACH_TURN {
                        applied.unattached.insert(endpoint.name.clone());
                        continue;
                    }
                    let result = links::attach_interface(&self.pins, &mut self.programs, interface);
                    spent += if is_new { started.elapsed() } else { Duration::ZERO };
                    result
                }
                (None, Some(cgroup)) => {
                    cgroups.push(cgroup.id);
                    links::attach_cgroup(&self.pins, &mut self.programs, cgroup)
                }
                (None, None) => Ok(()),
            };
            if let Err(error) = result {
                applied.problem(endpoint, &error);
            }
        }
        links::detach_others(&self.pins, &interfaces, &cgroups)?;
        if !self.attached {
            programs::remove_other_versions(&self.pins)?;
            self.attached = true;
        }
        Ok(())
    }

    /// The ring of [`Event`](egress_common::event::Event)s. One reader at a time.
    pub fn take_events(&mut self) -> Result<RingBuf<MapData>, DatapathError> {
        maps::open(&self.pins, map::EVENTS)
    }

    /// The maps of names and addresses.
    pub fn name_maps(&self) -> Result<NameMaps, DatapathError> {
        Ok(NameMaps::new(&self.pins, self.programs.learn()?))
    }

    /// The DNS lifetimes that the kernel works with: (least TTL, greatest TTL, grace), in seconds.
    pub fn lifetimes(&self) -> Result<[u32; 3], DatapathError> {
        let configs: maps::Configs = maps::open(&self.pins, map::CONFIG)?;
        let bytes = configs.get(&0, 0).map_err(DatapathError::map(map::CONFIG))?;
        let config: Config = zerocopy::transmute!(bytes);
        Ok([config.min_ttl, config.max_ttl, config.grace])
    }

    /// Lets the first packet of every allowed connection be told from now on, or not.
    pub fn tell_allowed(&mut self, tell: bool) -> Result<(), DatapathError> {
        self.tables.tell_allowed(tell)
    }

    /// The rules of a table version, while the kernel holds it.
    pub fn description(&self, generation: u32) -> Option<Arc<TableDescription>> {
        self.tables.of_generation(generation).map(|table| Arc::clone(&**table.description))
    }

    /// What the tables in the kernel have counted so far.
    pub fn counted(&self) -> Vec<Counted> {
        self.tables.all_counted()
    }

    /// The table that the kernel has for an endpoint.
    pub fn table_of(&self, endpoint: &str) -> Option<TableRef> {
        self.endpoints.table_of(endpoint)
    }

    /// `namespace/name` of an endpoint's number.
    pub fn endpoint_name(&self, id: u32) -> Option<String> {
        self.endpoints.name_of(id)
    }

    /// The loaded programs.
    pub fn programs_mut(&mut self) -> &mut Programs {
        &mut self.programs
    }
}

fn store_config(configs: &mut maps::Configs, config: Config) -> Result<(), DatapathError> {
    let bytes: [u8; size_of::<Config>()] = zerocopy::transmute!(config);
    configs.set(0, bytes, 0).map_err(DatapathError::map(map::CONFIG))
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// Depth of a cgroup below the cgroup v2 root, as `bpf_skb_ancestor_cgroup_id` counts.
fn cgroup_level(cgroup: &Cgroup) -> Option<u32> {
    use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
    let is_cgroup =
        |path: &std::path::Path| statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC);
    let level = cgroup.path.ancestors().skip(1).take_while(|path| is_cgroup(path)).count();
    u32::try_from(level).ok().filter(|level| (1..16).contains(level))
}

/// What [`cleanup`] removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Removed {
    /// Links and filters.
    pub links: usize,
    /// Maps and descriptions.
    pub pins: usize,
}

/// Detaches everything and removes every pin. Nothing is enforced afterwards.
pub fn cleanup(options: &Options) -> Result<Removed, DatapathError> {
    let pins = Pins::new(&options.bpffs);
    let links = links::detach_all(&pins)?;
    let removed = pins::remove_all(pins.root())?;
    Ok(Removed { links, pins: removed })
}
