//! Every map of the datapath. Who writes and reads each, and its capacity, stands in `egress_common::abi`.

use aya_ebpf::bindings::{BPF_F_INNER_MAP, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use egress_common::abi::{Config, capacity};
use egress_common::class::Block;
use egress_common::dns::{Outcome, Query, QueryKey, Reply, Scratch, Stream, StreamKey};
use egress_common::endpoint::{Endpoint, EndpointKey};
use egress_common::event::{Event, Limit, LimitKey, Stat};
use egress_common::flow::{Flow, FlowKey, Fragment, FragmentKey, RecentFlows};
use egress_common::names::{AddressNames, KEY_BYTES, NameEntry, NameLeaf};
use egress_common::reason::DropReason;
use egress_common::table::{Counter, Leaf, TableInfo};
use egress_common::trie::{CHUNK_UNITS, Unit};

/// Inner map of a table: prefixes of one family.
pub type Prefixes<const BYTES: usize> = LpmTrie<[u8; BYTES], Leaf, 1>;
/// Inner map of a table: its classes. `BPF_F_INNER_MAP` lets every table bring an array of its own length.
pub type Classes = Array<Block, 1, { BPF_F_INNER_MAP as usize }>;
/// Inner map of a table: what it says of name ids.
pub type NameLeaves = Array<NameLeaf, 1, { BPF_F_INNER_MAP as usize }>;

/// Inner map of the tries: all of one length, see [`CHUNK_UNITS`].
pub type Chunk = Array<Unit, { CHUNK_UNITS as usize }, { BPF_F_MMAPABLE as usize }>;

/// Interface, namespace or cgroup → slot in [`ENDPOINTS`].
#[btf_map(name = "endpoint_ids")]
pub static ENDPOINT_IDS: HashMap<EndpointKey, u32, { capacity::ENDPOINT_IDS as usize }> = HashMap::new();

/// Interface → slot, without a hash.
#[btf_map(name = "interfaces")]
pub static INTERFACES: Array<u64, { capacity::INTERFACES as usize }, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Slot → endpoint. Mapped by the agent, which publishes a table with one 64-bit store.
#[btf_map(name = "endpoints")]
pub static ENDPOINTS: Array<Endpoint, { capacity::ENDPOINTS as usize }, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Table slot → constants of the table.
#[btf_map(name = "table_info")]
pub static TABLE_INFO: Array<TableInfo, { capacity::TABLES as usize }> = Array::new();

/// Table slot → IPv4 prefixes.
#[btf_map(name = "tables4")]
pub static TABLES4: ArrayOfMaps<Prefixes<4>, { capacity::TABLES as usize }> = ArrayOfMaps::new();

/// Table slot → IPv6 prefixes.
#[btf_map(name = "tables6")]
pub static TABLES6: ArrayOfMaps<Prefixes<16>, { capacity::TABLES as usize }> = ArrayOfMaps::new();

/// Chunk → units of tries.
#[btf_map(name = "tries")]
pub static TRIES: ArrayOfMaps<Chunk, { capacity::CHUNKS as usize }> = ArrayOfMaps::new();

/// Table slot → classes.
#[btf_map(name = "classes")]
pub static CLASSES: ArrayOfMaps<Classes, { capacity::TABLES as usize }> = ArrayOfMaps::new();

/// Processor, counter base of a table + rank → counter. The agent makes it as long as there are processors.
#[btf_map(name = "rule_counters")]
pub static RULE_COUNTERS: Array<Counter, { capacity::RULE_COUNTERS as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

/// Drop reason → counter.
#[btf_map(name = "drop_counters")]
pub static DROP_COUNTERS: PerCpuArray<Counter, { DropReason::COUNT as usize }> = PerCpuArray::new();

/// Figure → value.
#[btf_map(name = "stats")]
pub static STATS: PerCpuArray<u64, { Stat::ALL.len() }> = PerCpuArray::new();

/// Connections; least recently used first out.
#[btf_map(name = "flows")]
pub static FLOWS: LruHashMap<FlowKey, Flow, { capacity::FLOWS as usize }> = LruHashMap::new();

/// Connections that were just found in [`FLOWS`].
#[btf_map(name = "recent_flows")]
pub static RECENT_FLOWS: Array<RecentFlows, { (capacity::RECENT_FLOWS / RecentFlows::WAYS) as usize }> = Array::new();

/// First fragments; least recently used first out.
#[btf_map(name = "fragments")]
pub static FRAGMENTS: LruHashMap<FragmentKey, Fragment, { capacity::FRAGMENTS as usize }> = LruHashMap::new();

/// Records for people.
#[btf_map(name = "events")]
pub static EVENTS: RingBuf<Event, { capacity::EVENT_RING_BYTES as usize }> = RingBuf::new();

/// How many records each rule wrote lately; least recently used first out.
#[btf_map(name = "event_limits")]
pub static EVENT_LIMITS: LruHashMap<LimitKey, Limit, { capacity::EVENT_LIMITS as usize }> = LruHashMap::new();

/// Settings of the node.
#[btf_map(name = "config")]
pub static CONFIG: Array<Config, 1> = Array::new();

/// Table slot → what the table says of name ids.
#[btf_map(name = "name_leaves")]
pub static NAME_LEAVES: ArrayOfMaps<NameLeaves, { capacity::TABLES as usize }> = ArrayOfMaps::new();

/// Suffix of names → name ids.
#[btf_map(name = "names")]
pub static NAMES: LpmTrie<[u8; KEY_BYTES], NameEntry, { capacity::NAMES as usize }> = LpmTrie::new();

/// Address → its names.
#[btf_map(name = "addresses")]
pub static ADDRESSES: HashMap<
    [u8; 16],
    AddressNames,
    { capacity::ADDRESSES as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// Addresses of trusted resolvers.
#[btf_map(name = "resolvers")]
pub static RESOLVERS: HashMap<[u8; 16], u32, { capacity::RESOLVERS as usize }> = HashMap::new();

/// Queries, under way or answered; least recently used first out.
#[btf_map(name = "queries")]
pub static QUERIES: LruHashMap<QueryKey, Query, { capacity::QUERIES as usize }> = LruHashMap::new();

/// Connections to resolvers over TCP; least recently used first out.
#[btf_map(name = "streams")]
pub static STREAMS: LruHashMap<StreamKey, Stream, { capacity::STREAMS as usize }> = LruHashMap::new();

/// Outcome → how often.
#[btf_map(name = "dns_counters")]
pub static DNS_COUNTERS: PerCpuArray<u64, { Outcome::COUNT as usize }> = PerCpuArray::new();

/// Replies, for the agent.
#[btf_map(name = "dns_events")]
pub static DNS_EVENTS: RingBuf<Reply, { capacity::DNS_RING_BYTES as usize }> = RingBuf::new();

/// Hook → memory of the parser. One for each, because a hook may interrupt another one on its CPU.
#[btf_map(name = "dns_scratch")]
pub static DNS_SCRATCH: PerCpuArray<Scratch, { crate::dns::SCRATCHES as usize }> = PerCpuArray::new();
