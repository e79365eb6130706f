//! Map names, capacities and the version that names the layout of every shared byte.
//!
//! Invariant: any change of a shared layout or of a map's meaning raises [`VERSION`]; the agent never uses a pinned map of another
//! version. Read by the kernel programs (map statics) and by the agent (pins, dumps).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of every layout in this crate. Pins live in a folder of this number.
pub const VERSION: u32 = 10;

/// Map names, as pinned and as `bpftool` shows them; at most 15 characters.
pub mod map {
    /// `HASH` [`EndpointKey`](crate::endpoint::EndpointKey) → slot in [`ENDPOINTS`], or [`FREE`](crate::endpoint::FREE). Written by the agent.
    pub const ENDPOINT_IDS: &str = "endpoint_ids";
    /// `ARRAY`, mapped, interface index modulo its length → [`InterfaceSlot`](crate::endpoint::InterfaceSlot). Written by the agent.
    pub const INTERFACES: &str = "interfaces";
    /// `ARRAY`, mapped, slot → [`Endpoint`](crate::endpoint::Endpoint). Written by the agent, one 64-bit store publishes a table.
    pub const ENDPOINTS: &str = "endpoints";
    /// `ARRAY` table slot → [`TableInfo`](crate::table::TableInfo). Written by the agent before a table is published.
    pub const TABLE_INFO: &str = "table_info";
    /// `ARRAY_OF_MAPS` table slot → LPM trie of IPv4 prefixes → [`Leaf`](crate::table::Leaf).
    pub const TABLES4: &str = "tables4";
    /// `ARRAY_OF_MAPS` table slot → LPM trie of IPv6 prefixes → [`Leaf`](crate::table::Leaf).
    pub const TABLES6: &str = "tables6";
    /// `ARRAY_OF_MAPS` table slot → array of [`Block`](crate::class::Block)s of class entries.
    pub const CLASSES: &str = "classes";
    /// `ARRAY`, mapped, processor << [`counters_shift`](crate::table::TableInfo::counters_shift) | table's counter base + rank →
    /// [`Counter`](crate::table::Counter). Written by the kernel, cleared by the agent.
    ///
    /// Not `PERCPU_ARRAY`, which allocates each of its elements: 70 ms for 65,536 of them, and a pointer more to read for each packet.
    pub const RULE_COUNTERS: &str = "rule_counters";
    /// `PERCPU_ARRAY` [`DropReason`](crate::reason::DropReason) → [`Counter`](crate::table::Counter). Written by the kernel.
    pub const DROP_COUNTERS: &str = "drop_counters";
    /// `PERCPU_ARRAY` [`Stat`](crate::event::Stat) → `u64`. Written by the kernel.
    pub const STATS: &str = "stats";
    /// `LRU_HASH` [`FlowKey`](crate::flow::FlowKey) → [`Flow`](crate::flow::Flow). Written by the kernel; the agent seeds it.
    pub const FLOWS: &str = "flows";
    /// `ARRAY` [`RecentFlows::place`](crate::flow::RecentFlows::place) → [`RecentFlows`](crate::flow::RecentFlows). The kernel's own.
    pub const RECENT_FLOWS: &str = "recent_flows";
    /// `LRU_HASH` [`FragmentKey`](crate::flow::FragmentKey) → [`Fragment`](crate::flow::Fragment). Written by the kernel.
    pub const FRAGMENTS: &str = "fragments";
    /// `RINGBUF` of [`Event`](crate::event::Event). Written by the kernel, read by the agent.
    pub const EVENTS: &str = "events";
    /// `LRU_HASH` [`LimitKey`](crate::event::LimitKey) → [`Limit`](crate::event::Limit). Written by the kernel.
    pub const EVENT_LIMITS: &str = "event_limits";
    /// `ARRAY` of one [`Config`](super::Config). Written by the agent.
    pub const CONFIG: &str = "config";
    /// `ARRAY_OF_MAPS` table slot → array name id → [`NameLeaf`](crate::names::NameLeaf), for tables with names. Written by the agent.
    pub const NAME_LEAVES: &str = "name_leaves";
    /// `LPM_TRIE` [`NameKey`](crate::names::NameKey) → [`NameEntry`](crate::names::NameEntry). Written by the agent.
    pub const NAMES: &str = "names";
    /// `HASH` address (IPv4 as `::ffff:a.b.c.d`) → [`AddressNames`](crate::names::AddressNames). Written by the kernel, also for the agent;
    /// entries whose names have all expired are removed by the agent.
    pub const ADDRESSES: &str = "addresses";
    /// `HASH` address of a trusted resolver → 1. Written by the agent.
    pub const RESOLVERS: &str = "resolvers";
    /// `LRU_HASH` [`QueryKey`](crate::dns::QueryKey) → [`Query`](crate::dns::Query). Written by the kernel.
    pub const QUERIES: &str = "queries";
    /// `LRU_HASH` [`StreamKey`](crate::dns::StreamKey) → [`Stream`](crate::dns::Stream). Written by the kernel.
    pub const STREAMS: &str = "streams";
    /// `PERCPU_ARRAY` [`Outcome`](crate::dns::Outcome) → `u64`. Written by the kernel.
    pub const DNS_COUNTERS: &str = "dns_counters";
    /// `RINGBUF` of [`Reply`](crate::dns::Reply) with the message behind it. Written by the kernel, read by the agent.
    pub const DNS_EVENTS: &str = "dns_events";
    /// `PERCPU_ARRAY` of [`Scratch`](crate::dns::Scratch), one for each hook. The kernel's own.
    pub const DNS_SCRATCH: &str = "dns_scratch";

    /// `ARRAY_OF_MAPS` chunk → mapped array of [`CHUNK_UNITS`](crate::trie::CHUNK_UNITS) [`Unit`](crate::trie::Unit)s, the tries of large
    /// tables. Written by the agent; what a published table leads to never changes.
    pub const TRIES: &str = "tries";

    /// Every map that is pinned.
    pub const ALL: [&str; 26] = [
        ENDPOINT_IDS,
        INTERFACES,
        ENDPOINTS,
        TABLE_INFO,
        TABLES4,
        TABLES6,
        CLASSES,
        RULE_COUNTERS,
        DROP_COUNTERS,
        STATS,
        FLOWS,
        RECENT_FLOWS,
        FRAGMENTS,
        EVENTS,
        EVENT_LIMITS,
        CONFIG,
        NAME_LEAVES,
        NAMES,
        ADDRESSES,
        RESOLVERS,
        QUERIES,
        STREAMS,
        DNS_COUNTERS,
        DNS_EVENTS,
        DNS_SCRATCH,
        TRIES,
    ];
}

/// Default capacities, in entries unless said otherwise. The agent may set larger ones when it creates the maps.
pub mod capacity {
    /// Endpoints on a node. The kubelet's own default limit is 110 pods.
    pub const ENDPOINTS: u32 = 4096;
    /// Keys that lead to endpoints: interface, network namespace and cgroup of each.
    pub const ENDPOINT_IDS: u32 = 4 * ENDPOINTS;
    /// Places of interfaces, a power of two: 128 KiB. Two interfaces of one place cost one of them a hash lookup per packet.
    pub const INTERFACES: u32 = 16_384;
    /// Table versions alive at once: one per distinct rule list, and the next one while it is built.
    pub const TABLES: u32 = 4096;
    /// Rule counters of each CPU, a power of two: 1 MiB.
    pub const RULE_COUNTERS: u32 = 65_536;
    /// Connections remembered, 112 bytes each; least recently used first out. As many as kube-proxy's least connection tracking table has.
    pub const FLOWS: u32 = 131_072;
    /// Connections that were just asked about, a power of two: 1 MiB. With half as many as [`FLOWS`] to remember, one in fifty of them is in a
    /// place where more than four meet; with room for no more than [`FLOWS`] it would be one in seven.
    pub const RECENT_FLOWS: u32 = 2 * FLOWS;
    /// Fragmented datagrams in flight; least recently used first out.
    pub const FRAGMENTS: u32 = 8192;
    /// Bytes of the event ring.
    pub const EVENT_RING_BYTES: u32 = 1 << 20;
    /// (endpoint, rule) pairs whose events are limited; least recently used first out.
    pub const EVENT_LIMITS: u32 = 16_384;
    /// Suffixes in the trie of names.
    pub const NAMES: u32 = 65_536;
    /// Addresses with live names. 280 bytes each, not allocated before they are used.
    pub const ADDRESSES: u32 = 131_072;
    /// Trusted resolvers.
    pub const RESOLVERS: u32 = 256;
    /// DNS queries, also those that were answered; least recently used first out.
    pub const QUERIES: u32 = 32_768;
    /// Connections to resolvers over TCP; least recently used first out.
    pub const STREAMS: u32 = 4096;
    /// Bytes of the ring of DNS replies.
    pub const DNS_RING_BYTES: u32 = 1 << 20;
    /// Units (32 bytes) of all tries together: 2 GiB.
    pub const UNITS: u32 = 1 << 26;
    /// Arrays that the units are in, each there while it is needed.
    pub const CHUNKS: u32 = UNITS / crate::trie::CHUNK_UNITS;
    /// Prefixes of one family from which on they are an array trie: nearly always. Fewer, a kernel LPM trie, are not worth a page.
    pub const TRIE_FROM: usize = 4;
    /// Prefixes in one table, both families together.
    pub const TABLE_PREFIXES: usize = 1_000_000;
    /// Class entries in one table (8 bytes each).
    pub const TABLE_CLASS_ENTRIES: usize = 1 << 22;
    /// Rules in one table; ranks have 24 bits.
    pub const TABLE_RULES: usize = 1 << 21;
}

/// Settings that the programs read, one for the whole node.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Config {
    /// [`VERSION`] of whoever wrote this.
    pub abi: u32,
    /// Bit `n` set: endpoints are known by their cgroup at depth `n` below the cgroup v2 root. Depths 1–15 count.
    pub cgroup_levels: u32,
    /// Events per second and (endpoint, rule); more are counted as repeats.
    pub events_per_second: u32,
    /// Number of the next endpoint, so that none is ever used twice. Only the agent reads it.
    pub next_endpoint: u32,
    /// Lifetimes of learned addresses, in seconds (§5.3): shorter TTLs are raised to this,
    pub min_ttl: u32,
    /// longer ones lowered to this,
    pub max_ttl: u32,
    /// and this is added.
    pub grace: u32,
    /// Bits of [`config_flag`].
    pub flags: u32,
    /// Random, the same as long as the maps live: key of the hashes of questions and of connections.
    pub secret: [u64; 2],
    /// Cookie of the host's network namespace, whose processes are never held.
    pub host: u64,
    /// Id of the cgroup whose processes are held that no key of an endpoint is about: new pods, while nobody knows them (§6.6).
    pub hold_cgroup: u64,
    /// [`Hold`] bits. Behind what it depends on, as the kernel copies a value from its start to its end.
    pub hold: u64,
}
const _: () = assert!(size_of::<Config>() == 72);

/// How new pods are held, in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// Depth of [`Config::hold_cgroup`] below the cgroup v2 root; 0: nobody is held.
    pub level: u32,
    /// Slot of the endpoint that they are taken for.
    pub slot: u32,
}

impl Hold {
    /// The word.
    #[inline]
    pub const fn to_bits(self) -> u64 {
        ((self.slot as u64) << 32) | self.level as u64
    }

    /// Reads the word.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "takes the two halves apart")]
    pub const fn from_bits(bits: u64) -> Self {
        Self { level: bits as u32, slot: (bits >> 32) as u32 }
    }
}

/// Bits of [`Config::flags`]; part of the ABI.
pub mod config_flag {
    /// Names may have internal, link-local and multicast addresses (§5.6 is switched off).
    pub const LEARN_INTERNAL: u32 = 1;
}
