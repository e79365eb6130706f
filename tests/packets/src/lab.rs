//! One laboratory: two pods under the same policies, one known by its interface and one by its cgroup, and what packets do to them.

use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::os::unix::fs::MetadataExt as _;

use anyhow::Context as _;
use aya::programs::Program;
use egress_agent::datapath::{Applied, Capacity, Cgroup, Datapath, Desired, DesiredEndpoint, Interface, NameMaps};
use egress_common::abi::Config;
use egress_common::dns::{Answer, Outcome};
use egress_common::endpoint::TableRef;
use egress_common::event::Hook;
use egress_common::flow::{Flow, FlowKey, Fragment, FragmentKey, RecentFlows};
use egress_common::reason::DropReason;
use egress_policy::model::{NodeContext, PodIdentity};

use crate::expect::Expect;
use crate::frame::Frame;
use crate::host;
use crate::observe::{Maps, Seen};
use crate::place::Place;
use crate::policy::Policies;
use crate::pool::Pooled;
use crate::runner::{Member, run_at, run_here};
use crate::storm::{self, Storm};

/// The pod that is known by its interface.
pub const TC_POD: &str = "default/by-interface";
/// The pod that is known by its cgroup.
pub const CGROUP_POD: &str = "default/by-cgroup";

/// Which hooks a packet goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hooks {
    /// TC only: Ethernet is part of the question.
    Tc,
    /// TC, then `cgroup_skb`.
    Both,
}

impl Hooks {
    /// The hooks for packets that a pod sends.
    pub const fn from_pod(self) -> &'static [Hook] {
        match self {
            Self::Tc => &[Hook::TcFromPod],
            Self::Both => &[Hook::TcFromPod, Hook::CgroupEgress],
        }
    }
}

/// How a laboratory is made.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Sizes of the maps.
    pub capacity: Capacity,
    /// Limit of events; high unless it is what is tested.
    pub events_per_second: u32,
    /// The pod as policies see it.
    pub pod: PodIdentity,
    /// The node as policies see it.
    pub node: NodeContext,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            // Small maps: many laboratories are open at once.
            capacity: Capacity { endpoints: 16, tables: 16, rule_counters: 4096, flows: 4096, trie_from: trie_from() },
            events_per_second: 1_000_000,
            pod: PodIdentity {
                namespace: "default".to_owned(),
                name: "client".to_owned(),
                labels: [("app".to_owned(), "client".to_owned())].into(),
                service_account: Some("default".to_owned()),
            },
            node: NodeContext {
                resolvers: vec!["10.96.0.10".parse().expect("an address"), "fd00:96::10".parse().expect("an address")],
                node_addresses: vec![
                    "192.0.2.1".parse().expect("an address"),
                    "2001:db8:9::1".parse().expect("an address"),
                ],
                nodes: Vec::new(),
                services: Vec::new(),
            },
        }
    }
}

/// Prefixes from which on tables are array tries: any in the test binary `tries`, which runs every test a second time.
pub fn trie_from() -> usize {
    let name = std::env::current_exe().ok().and_then(|path| path.file_name().map(std::ffi::OsStr::to_os_string));
    if name.is_some_and(|name| name.to_string_lossy().starts_with("tries")) { 0 } else { usize::MAX }
}

/// Programs, maps and pods. The order of the fields is the order in which they are taken down.
pub struct Lab {
    member: Option<Member>,
    maps: Maps,
    datapath: Datapath,
    policies: Policies,
    setup: Setup,
    place: Place,
}

impl Lab {
    /// A laboratory under the objects in `text`, from the pool.
    #[expect(clippy::new_ret_no_self, reason = "the laboratory goes back to the pool")]
    pub fn new(text: &str) -> Pooled {
        Pooled::take(text)
    }

    /// A laboratory of its own under the objects in `text`, made as `setup` says.
    pub fn with(setup: Setup, text: &str) -> Self {
        let policies = Policies::compile([text], &setup.pod, &setup.node);
        Self::of(setup, policies).expect("a laboratory")
    }

    /// A laboratory under `policies`.
    pub fn of(setup: Setup, policies: Policies) -> anyhow::Result<Self> {
        let place = Place::make(setup.capacity)?;
        let mut datapath = Datapath::open(&place.options)?;
        let maps = Maps::open(&place.options.bpffs, datapath.take_events()?)?;
        let applied = datapath.apply(&desired(&place, &policies, setup.events_per_second)?)?;
        anyhow::ensure!(applied.problems.is_empty(), "{applied:?}");
        let member = Some(Member::start(&place.container)?);
        Ok(Self { member, maps, datapath, policies, setup, place })
    }

    /// Makes a laboratory that another test has used ready for this thread.
    pub(crate) fn reuse(&mut self, text: &str) -> anyhow::Result<()> {
        self.place.enter()?;
        let applied = self.apply(text);
        anyhow::ensure!(applied.problems.is_empty(), "{applied:?}");
        self.forget();
        self.maps.events();
        self.member = Some(Member::start(&self.place.container)?);
        Ok(())
    }

    /// Ends what belongs to this thread.
    pub(crate) fn leave(&mut self) {
        self.member = None;
    }

    /// Lets both pods be judged by the objects in `text`.
    pub fn apply(&mut self, text: &str) -> Applied {
        let policies = Policies::compile([text], &self.setup.pod, &self.setup.node);
        self.apply_policies(policies)
    }

    /// Lets both pods be judged by `policies`. If the datapath has problems, expectations still speak of the former ones.
    pub fn apply_policies(&mut self, policies: Policies) -> Applied {
        let mut desired = desired(&self.place, &policies, self.setup.events_per_second).expect("a cgroup");
        // Ids are given anew for each policy here, so those of other names are another one's now.
        let former = self.policies.names().places;
        desired.names.reused =
            former.iter().filter(|known| !desired.names.places.contains(known)).map(|(id, _)| *id).collect();
        let applied = self.datapath.apply(&desired).expect("applied");
        if applied.problems.is_empty() {
            self.policies = policies;
        }
        applied
    }

    /// Applies anything.
    pub fn apply_desired(&mut self, desired: &Desired) -> Applied {
        self.datapath.apply(desired).expect("applied")
    }

    /// Opens the datapath anew from what is pinned, as the next agent would.
    pub fn reopen(&mut self) {
        self.datapath = Datapath::open(&self.place.options).expect("a datapath");
        self.member = Some(Member::start(&self.place.container).expect("a process that knows the new programs"));
    }

    /// What applies to the pods.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// The datapath itself.
    pub fn datapath(&mut self) -> &mut Datapath {
        &mut self.datapath
    }

    /// The folder of pins.
    pub fn bpffs(&self) -> &std::path::Path {
        &self.place.options.bpffs
    }

    /// Opens a pinned map.
    pub fn map<M>(&self, name: &str) -> M
    where
        M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
    {
        crate::observe::pinned(self.bpffs(), name).expect("a map")
    }

    /// The table of the pods.
    pub fn table(&self) -> TableRef {
        self.datapath.table_of(TC_POD).expect("a table")
    }

    /// The number of the pod that `hook` is for.
    pub fn endpoint(&self, hook: Hook) -> u32 {
        let name = pod_of(hook);
        (1..10_000).find(|id| self.datapath.endpoint_name(*id).as_deref() == Some(name)).expect("an endpoint")
    }

    /// Runs `frame` through the program of `hook`, and nothing else.
    pub fn run(&mut self, hook: Hook, frame: &[u8]) -> std::io::Result<(u32, Vec<u8>)> {
        let program = self.program(hook);
        let ran = match hook {
            Hook::CgroupEgress | Hook::CgroupIngress => {
                self.member.as_ref().expect("a process in the cgroup").run(program, frame)
            }
            _ => run_here(program, frame),
        }?;
        Ok((ran.action, ran.output))
    }

    /// Whether `frame` passes the program for what pods send at the interface of this index.
    pub fn passes_at(&mut self, interface: u32, frame: &[u8]) -> bool {
        let program = self.program(Hook::TcFromPod);
        let ran = run_at(program, frame, interface).expect("an interface");
        ran.action.cast_signed() == crate::expect::pass(Hook::TcFromPod)
    }

    /// Forgets one connection of the map of flows, and nothing else.
    pub fn forget_flow(&mut self, key: FlowKey) {
        let key: [u8; size_of::<FlowKey>()] = zerocopy::transmute!(key);
        self.maps.flows.remove(&key).expect("a connection");
    }

    /// Lets what is noted of a connection that was just found be older by as many periods, see [`RecentFlows::PERIOD`].
    pub fn age_recent(&mut self, key: FlowKey, periods: u32) {
        let configs: aya::maps::Array<aya::maps::MapData, [u8; size_of::<Config>()]> =
            self.map(egress_common::abi::map::CONFIG);
        let config: Config = zerocopy::transmute!(configs.get(&0, 0).expect("settings"));
        let ports = (key.remote_port, key.local_port);
        let hash = RecentFlows::hash(config.secret, &key.remote, ports, key.endpoint, key.protocol);
        let mut recent: aya::maps::Array<aya::maps::MapData, [u32; RecentFlows::WAYS as usize]> =
            self.map(egress_common::abi::map::RECENT_FLOWS);
        let place = RecentFlows::place(hash);
        let halves = recent.get(&place, 0).expect("a place");
        recent.set(place, halves.map(|half| half.wrapping_sub(periods << 24)), 0).expect("written");
    }

    /// Runs each of `frames` through the TC program again and again while `meanwhile` goes on, and counts how many met another
    /// action than the one beside it.
    pub fn storm(&mut self, frames: &[(Vec<u8>, u32)], meanwhile: impl FnOnce(&mut Self)) -> Vec<Storm> {
        let program = self.program(Hook::TcFromPod);
        storm::rage(program, frames, || meanwhile(self))
    }

    /// Packets that were dropped for `reason` since the laboratory was made.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.maps.dropped(reason)
    }

    /// Runs `frame` through the program of `hook` and says what moved.
    pub fn send(&mut self, hook: Hook, frame: &[u8]) -> Seen {
        self.try_send(hook, frame).unwrap_or_else(|error| panic!("{error}: {frame:02x?}"))
    }

    fn try_send(&mut self, hook: Hook, frame: &[u8]) -> std::io::Result<Seen> {
        let table = self.table();
        let before = self.maps.figures(table);
        let stale = self.maps.events();
        assert!(stale.is_empty(), "events of nobody: {stale:?}");
        let (action, output) = self.run(hook, frame)?;
        let mut seen = Seen::between(&before, &self.maps.figures(table));
        seen.action = action.cast_signed();
        seen.events = self.maps.events();
        seen.output = output;
        Ok(seen)
    }

    /// Like [`check`](Self::check) for a frame that the kernel may refuse to make a packet of: newer ones, also of older series, want a
    /// whole IP header. Returns whether it was asked.
    #[track_caller]
    pub fn check_if_possible(&mut self, row: &str, hook: Hook, frame: &[u8], expect: Expect<'_>) -> bool {
        match self.try_send(hook, frame) {
            Ok(seen) => self.compare(row, hook, frame, expect, &seen),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return false,
            Err(error) => panic!("{row}: {error}"),
        }
        true
    }

    /// Sends `frame` from the pod through each of `hooks`, and asks for `expect` each time.
    #[track_caller]
    pub fn check(&mut self, row: &str, hooks: Hooks, frame: &[u8], expect: Expect<'_>) {
        for hook in hooks.from_pod() {
            let seen = self.send(*hook, frame);
            self.compare(row, *hook, frame, expect, &seen);
        }
    }

    /// Compares what a packet did with what it should have done.
    #[track_caller]
    pub fn compare(&self, row: &str, hook: Hook, frame: &[u8], expect: Expect<'_>, seen: &Seen) {
        if let Err(complaint) = self.differs(hook, frame, expect, seen) {
            let reading = host::read(hook, frame);
            panic!("{row} ({}): {complaint}\nread {reading:?}\nframe {frame:02x?}", hook.name());
        }
    }

    fn differs(&self, hook: Hook, frame: &[u8], expect: Expect<'_>, seen: &Seen) -> Result<(), String> {
        let reading = host::read(hook, frame);
        expect.compare(&self.policies, self.table(), self.endpoint(hook), hook, &reading, seen)
    }

    /// Sends a packet to the pod through both kinds of hook. It must pass, and move nothing.
    #[track_caller]
    pub fn receive(&mut self, frame: &Frame) {
        for hook in [Hook::TcToPod, Hook::CgroupIngress] {
            let bytes = frame.bytes();
            let seen = self.send(hook, &bytes);
            self.compare("received", hook, &bytes, Expect::Untouched, &seen);
        }
    }

    /// What is in the ring.
    pub fn events(&mut self) -> Vec<egress_common::event::Event> {
        self.maps.events()
    }

    /// A figure, summed over CPUs, since the laboratory was made.
    pub fn stat(&self, stat: egress_common::event::Stat) -> u64 {
        let stats: aya::maps::PerCpuArray<aya::maps::MapData, u64> = self.map(egress_common::abi::map::STATS);
        stats.get(&(stat as u32), 0).expect("a figure").iter().sum()
    }

    /// The constants of the pods' table.
    pub fn table_info(&self) -> egress_common::table::TableInfo {
        self.maps.info(self.table())
    }

    /// The connections that are remembered of the pod that `hook` is for.
    pub fn flows(&self, hook: Hook) -> Vec<(FlowKey, Flow)> {
        let endpoint = self.endpoint(hook);
        let entries = self.maps.flows.iter().map(|entry| {
            let (key, flow) = entry.expect("an entry");
            (zerocopy::transmute!(key), zerocopy::transmute!(flow))
        });
        entries.filter(|(key, _): &(FlowKey, Flow)| key.endpoint == endpoint).collect()
    }

    /// Writes a connection.
    pub fn seed_flow(&mut self, key: FlowKey, flow: Flow) {
        let (key, flow): ([u8; size_of::<FlowKey>()], [u8; size_of::<Flow>()]) =
            (zerocopy::transmute!(key), zerocopy::transmute!(flow));
        self.maps.flows.insert(key, flow, 0).expect("inserted");
    }

    /// Stores addresses of a name, as the agent does with what it has looked up. Returns how many were stored.
    pub fn learn(&mut self, name: &str, addresses: &[IpAddr], ttl: u32) -> usize {
        let address = |address: &IpAddr| match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        let answers: Vec<Answer> =
            addresses.iter().map(|found| Answer { address: address(found), ttl, padding: 0 }).collect();
        let id = self.policies.name_id(name);
        self.names().learn(id, &answers).expect("the program runs")
    }

    /// The maps of names.
    pub fn names(&self) -> NameMaps {
        self.datapath.name_maps().expect("pinned maps")
    }

    /// How often an outcome of DNS messages was counted since the laboratory was made.
    pub fn dns(&self, outcome: Outcome) -> u64 {
        let counters = self.names().counters().expect("counters");
        counters.iter().find(|(counted, _)| *counted == outcome).map_or(0, |(_, count)| *count)
    }

    /// Forgets every connection, fragment, query and learned address.
    pub fn forget(&mut self) {
        self.names().sweep(u32::MAX).expect("a sweep");
        let mut queries: aya::maps::HashMap<aya::maps::MapData, [u8; 28], [u8; 24]> =
            self.map(egress_common::abi::map::QUERIES);
        for key in queries.keys().flatten().collect::<Vec<_>>() {
            let _ = queries.remove(&key);
        }
        let flows: Vec<_> = self.maps.flows.keys().flatten().collect();
        for key in flows {
            let _ = self.maps.flows.remove(&key);
        }
        // Recent connections are known by hashes, which are others under another secret.
        let mut configs: aya::maps::Array<aya::maps::MapData, [u8; size_of::<Config>()]> =
            self.map(egress_common::abi::map::CONFIG);
        let mut config: Config = zerocopy::transmute!(configs.get(&0, 0).expect("settings"));
        config.secret = config.secret.map(|word| word.wrapping_add(0x9e37_79b9_7f4a_7c15));
        let bytes: [u8; size_of::<Config>()] = zerocopy::transmute!(config);
        configs.set(0, bytes, 0).expect("written");
        let fragments: Vec<_> = self.maps.fragments.keys().flatten().collect();
        for key in fragments {
            let _ = self.maps.fragments.remove(&key);
        }
    }

    /// The first fragments that are remembered of the pod that `hook` is for.
    pub fn fragments(&self, hook: Hook) -> Vec<(FragmentKey, Fragment)> {
        let endpoint = self.endpoint(hook);
        let entries = self.maps.fragments.iter().map(|entry| {
            let (key, fragment) = entry.expect("an entry");
            (zerocopy::transmute!(key), zerocopy::transmute!(fragment))
        });
        entries.filter(|(key, _): &(FragmentKey, Fragment)| key.endpoint == endpoint).collect()
    }

    /// Writes a first fragment.
    pub fn seed_fragment(&mut self, key: FragmentKey, fragment: Fragment) {
        let (key, fragment): ([u8; size_of::<FragmentKey>()], [u8; size_of::<Fragment>()]) =
            (zerocopy::transmute!(key), zerocopy::transmute!(fragment));
        self.maps.fragments.insert(key, fragment, 0).expect("inserted");
    }

    fn program(&mut self, hook: Hook) -> RawFd {
        let name = match hook {
            Hook::TcFromPod => "tc_from_pod",
            Hook::TcToPod => "tc_to_pod",
            Hook::CgroupEgress => "cg_egress",
            Hook::CgroupIngress => "cg_ingress",
            Hook::Connect4 | Hook::Connect6 | Hook::Sendmsg4 | Hook::Sendmsg6 => unreachable!("not for packets"),
        };
        let program: &Program = self.datapath.programs_mut().ebpf_mut().program(name).expect("a program");
        program.fd().expect("loaded").as_fd().as_raw_fd()
    }
}

const fn pod_of(hook: Hook) -> &'static str {
    match hook {
        Hook::CgroupEgress | Hook::CgroupIngress => CGROUP_POD,
        _ => TC_POD,
    }
}

fn desired(place: &Place, policies: &Policies, events_per_second: u32) -> anyhow::Result<Desired> {
    let id = std::fs::metadata(&place.pod).context("the pod's cgroup")?.ino();
    let endpoint = |name: &str, interface, cgroup| DesiredEndpoint {
        name: name.to_owned(),
        interface,
        netns: None,
        namespace: None,
        cgroup,
        is_resolver: false,
        table: std::sync::Arc::clone(&policies.table),
        fallback: None,
    };
    let interface = Interface { name: "lo".to_owned(), index: 1 };
    let cgroup = Cgroup { path: place.pod.clone(), id };
    Ok(Desired {
        endpoints: vec![endpoint(TC_POD, Some(interface), None), endpoint(CGROUP_POD, None, Some(cgroup))],
        events_per_second,
        dns: policies.dns.clone(),
        names: policies.names(),
        ..Desired::default()
    })
}
