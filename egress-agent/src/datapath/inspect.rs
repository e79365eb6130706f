//! The pins, read without touching anything: what `egress-agent dump` and `why` show, with the agent alive or dead.

mod names;
mod raw;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, ArrayOfMaps, LpmTrie, Map, MapData, MapError};
use egress_common::abi::{Config, map};
use egress_common::class::{self, BLOCK, Block, ClassEntries, ClassEntry};
use egress_common::endpoint::{EndpointKey, TableRef, key_kind};
use egress_common::event::Stat;
use egress_common::flow::{Flow, FlowKey};
use egress_common::reason::DropReason;
use egress_common::table::{Counter, Leaf, TableInfo, flag};
use egress_policy::compile::Lookup;
use egress_policy::describe::TableDescription;
use egress_policy::ports::KeyRange;
use egress_policy::trie::{self, Item};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::chunks::Chunks;
use super::counters::RuleCounters;
use super::error::DatapathError;
use super::maps::{self, DropCounters, EndpointIds, Flows, Stats, TableInfos};
use super::pins::Pins;
use super::{NEW_PODS, descriptions, endpoints};

pub use raw::{RawEntry, RawMap};

/// An endpoint as the kernel has it.
#[derive(Clone, Debug)]
pub struct EndpointView {
    /// `namespace/name`.
    pub name: String,
    /// Its number, as in events and flows.
    pub id: u32,
    /// Its slot.
    pub slot: u32,
    /// Index of the host-side interface.
    pub interface: Option<u32>,
    /// Cookie of the network namespace.
    pub netns: Option<u64>,
    /// Cgroup id.
    pub cgroup: Option<u64>,
    /// The table that judges it.
    pub table: TableRef,
}

/// A table as the kernel has it.
#[derive(Clone, Debug)]
pub struct TableView {
    /// Slot and generation.
    pub reference: TableRef,
    /// Its constants.
    pub info: TableInfo,
    /// Its rules; `None` if they are not described: not yet, or by another version of the agent.
    pub description: Option<Arc<TableDescription>>,
    /// Its prefixes with what they lead to, sorted.
    pub prefixes: Vec<(IpNet, Leaf)>,
    /// Its classes.
    pub classes: Vec<ClassEntry>,
}

/// The pins of one installation.
pub struct Inspector {
    pins: Pins,
}

/// The versions of the layout, other than this program's, of which there are maps below `bpffs`, ascending.
pub fn other_versions(bpffs: &Path) -> Vec<u32> {
    Pins::new(bpffs).other_versions_with_maps()
}

impl Inspector {
    /// Opens the pins below `bpffs`.
    pub fn open(bpffs: &Path) -> Result<Self, DatapathError> {
        let pins = Pins::new(bpffs);
        maps::data(&pins, map::CONFIG)?;
        Ok(Self { pins })
    }

    /// Every endpoint that is a pod, sorted by name.
    pub fn endpoints(&self) -> Result<Vec<EndpointView>, DatapathError> {
        let entries = maps::entries(&self.pins, map::ENDPOINTS)?;
        let names = maps::endpoint_names(&self.pins, entries)?;
        let records: Array<MapData, [u8; 16]> = maps::open(&self.pins, map::ENDPOINTS)?;
        let mut found = Vec::new();
        for slot in 0..entries {
            let bytes = records.get(&slot, 0).map_err(DatapathError::map(map::ENDPOINTS))?;
            let record: egress_common::endpoint::Endpoint = zerocopy::transmute!(bytes);
            if record.id == 0 {
                continue;
            }
            let name = names.get(&slot, 0).map_err(DatapathError::map(maps::ENDPOINT_NAMES))?;
            let name = endpoints::read_name(&name);
            if name == NEW_PODS {
                continue;
            }
            found.push(EndpointView {
                name,
                id: record.id,
                slot,
                interface: None,
                netns: None,
                cgroup: None,
                table: TableRef::from_bits(record.table),
            });
        }
        self.add_keys(&mut found)?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn add_keys(&self, found: &mut [EndpointView]) -> Result<(), DatapathError> {
        let ids: EndpointIds = maps::open(&self.pins, map::ENDPOINT_IDS)?;
        let places: HashMap<u32, usize> = found.iter().enumerate().map(|(at, endpoint)| (endpoint.slot, at)).collect();
        for entry in &ids {
            let (bytes, slot) = entry.map_err(DatapathError::map(map::ENDPOINT_IDS))?;
            let key: EndpointKey = zerocopy::transmute!(bytes);
            let Some(endpoint) = places.get(&slot).and_then(|at| found.get_mut(*at)) else {
                continue;
            };
            match key.kind {
                key_kind::INTERFACE => endpoint.interface = u32::try_from(key.id).ok(),
                key_kind::NETNS => endpoint.netns = Some(key.id),
                key_kind::CGROUP => endpoint.cgroup = Some(key.id),
                _ => {}
            }
        }
        Ok(())
    }

    /// Every table, sorted by slot. `with_contents` reads prefixes and classes too.
    pub fn tables(&self, with_contents: bool) -> Result<Vec<TableView>, DatapathError> {
        let infos: TableInfos = maps::open(&self.pins, map::TABLE_INFO)?;
        let mut found = Vec::new();
        for slot in 0..infos.len() {
            let Some(mut view) = self.described(&infos, slot)? else {
                continue;
            };
            if with_contents {
                self.read_contents(&mut view)?;
            }
            found.push(view);
        }
        Ok(found)
    }

    /// Reads the prefixes and the classes of a table. What it says may be replaced meanwhile: [`Inspector::table`] tells.
    pub fn read_contents(&self, view: &mut TableView) -> Result<(), DatapathError> {
        let slot = view.reference.slot;
        view.prefixes = self.prefixes(slot, &view.info)?;
        view.classes = self.classes(slot)?;
        Ok(())
    }

    /// The table of one reference, without its contents. `None` if the slot holds another one by now.
    pub fn table(&self, reference: TableRef) -> Result<Option<TableView>, DatapathError> {
        let infos: TableInfos = maps::open(&self.pins, map::TABLE_INFO)?;
        let found = self.described(&infos, reference.slot)?;
        Ok(found.filter(|view| view.reference == reference))
    }

    /// The table that judges `endpoint` now, which may be another one than when the endpoint was read.
    pub fn table_of(&self, endpoint: &EndpointView) -> Result<TableRef, DatapathError> {
        let records: Array<MapData, [u8; 16]> = maps::open(&self.pins, map::ENDPOINTS)?;
        let bytes = records.get(&endpoint.slot, 0).map_err(DatapathError::map(map::ENDPOINTS))?;
        let record: egress_common::endpoint::Endpoint = zerocopy::transmute!(bytes);
        Ok(if record.id == endpoint.id { TableRef::from_bits(record.table) } else { TableRef::default() })
    }

    fn described(&self, infos: &TableInfos, slot: u32) -> Result<Option<TableView>, DatapathError> {
        let bytes = infos.get(&slot, 0).map_err(DatapathError::map(map::TABLE_INFO))?;
        let info: TableInfo = zerocopy::transmute!(bytes);
        // A table that is gone leaves its generation behind, but no rules; every table has some.
        if info.rules == 0 {
            return Ok(None);
        }
        let pinned = descriptions::read::<TableDescription>(&self.pins, slot)?;
        let pinned = pinned.filter(|pinned| pinned.generation == info.generation);
        Ok(Some(TableView {
            reference: TableRef { slot, generation: info.generation },
            info,
            description: pinned.map(|pinned| Arc::new(pinned.description)),
            prefixes: Vec::new(),
            classes: Vec::new(),
        }))
    }

    /// The prefixes of a table that contain `address`, the longest first, each with its leaf. The first one is what the kernel finds.
    /// Costs a lookup per bit of the address; where the prefixes are a trie, a walk through all of it.
    pub fn containing(&self, table: &TableView, address: IpAddr) -> Result<Vec<(IpNet, Leaf)>, DatapathError> {
        let (slot, info) = (table.reference.slot, &table.info);
        let address = address.to_canonical();
        let tried: Option<Vec<(IpNet, Leaf)>> = match address {
            IpAddr::V4(_) if info.flags & flag::TRIE4 != 0 => {
                Some(self.trie(info.root4, 32)?.iter().map(net4).collect())
            }
            IpAddr::V6(_) if info.flags & flag::TRIE6 != 0 => {
                Some(self.trie(info.root6, 128)?.iter().map(net6).collect())
            }
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        };
        if let Some(mut prefixes) = tried {
            prefixes.retain(|(prefix, _)| prefix.contains(&address));
            prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.prefix_len()));
            return Ok(prefixes);
        }
        let lengths = |bits: u8| (0..=bits).rev();
        let mut found: Vec<(IpNet, Leaf)> = Vec::new();
        let mut shorter = |prefix: IpNet, leaf: Option<u32>| {
            // A trie answers for a length with its longest prefix up to there. No prefix of a table has the leaf of the one around it,
            // so of equal answers the shortest length is that of the prefix.
            match (leaf, found.last_mut()) {
                (Some(leaf), Some((last, same))) if same.0 == leaf => *last = prefix,
                (Some(leaf), _) => found.push((prefix, Leaf(leaf))),
                (None, _) => {}
            }
        };
        match address {
            IpAddr::V4(address) => {
                let trie: LpmTrie<MapData, [u8; 4], u32> = self.inner(map::TABLES4, slot)?;
                for length in lengths(32) {
                    let leaf = present(trie.get(&Key::new(length.into(), address.octets()), 0), map::TABLES4)?;
                    shorter(Ipv4Net::new_assert(address, length).trunc().into(), leaf);
                }
            }
            IpAddr::V6(address) => {
                let trie: LpmTrie<MapData, [u8; 16], u32> = self.inner(map::TABLES6, slot)?;
                for length in lengths(128) {
                    let leaf = present(trie.get(&Key::new(length.into(), address.octets()), 0), map::TABLES6)?;
                    shorter(Ipv6Net::new_assert(address, length).trunc().into(), leaf);
                }
            }
        }
        Ok(found)
    }

    /// What `leaf` of the table in `slot` says of `keys`, as intervals; found as the kernel finds it, on the map's bytes. Empty where the
    /// table is damaged: the kernel then drops.
    pub fn said(&self, slot: u32, leaf: Leaf, keys: KeyRange) -> Result<Vec<(KeyRange, Lookup)>, DatapathError> {
        let base = match leaf.open() {
            Ok(decision) => return Ok(vec![(keys, Lookup { decision, audit: None })]),
            Err(base) => base,
        };
        let classes = ClassMap(self.inner(map::CLASSES, slot)?);
        let mut found = Vec::new();
        let mut first = keys.first;
        while let Some(verdict) = class::search(&classes, base, first) {
            let count = classes.entry(base).map_or(0, |header| header.from);
            let next = verdict.index.checked_add(1).filter(|next| *next <= base.saturating_add(count));
            let next = next.and_then(|next| classes.entry(next)).map(|entry| entry.from);
            let last = next.map_or(keys.last, |next| keys.last.min(next.saturating_sub(1)));
            let lookup = Lookup { decision: verdict.decision, audit: verdict.audit };
            found.push((KeyRange { first, last }, lookup));
            // A damaged class must not keep this going for ever.
            if last >= keys.last || last < first {
                break;
            }
            first = last + 1;
        }
        Ok(found)
    }

    pub(super) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Entries that the map in `slot` of `outer` was made for.
    pub(super) fn inner_entries(&self, outer: &'static str, slot: u32) -> Result<u64, DatapathError> {
        let failed = DatapathError::map(outer);
        let outer: ArrayOfMaps<MapData> = maps::open(&self.pins, outer)?;
        let data: MapData = outer.get(&slot, 0).map_err(&failed)?;
        data.info().map(|info| u64::from(info.max_entries())).map_err(&failed)
    }

    fn inner<M>(&self, outer: &'static str, slot: u32) -> Result<M, DatapathError>
    where
        M: TryFrom<Map, Error = MapError>,
    {
        let failed = DatapathError::map(outer);
        let outer: ArrayOfMaps<MapData> = maps::open(&self.pins, outer)?;
        let data: MapData = outer.get(&slot, 0).map_err(&failed)?;
        Map::from_map_data(data).and_then(M::try_from).map_err(&failed)
    }

    /// The prefixes of a table, sorted; of tries, the fewest that say the same.
    fn prefixes(&self, slot: u32, info: &TableInfo) -> Result<Vec<(IpNet, Leaf)>, DatapathError> {
        let mut prefixes = if info.flags & flag::TRIE4 != 0 {
            self.trie(info.root4, 32)?.iter().map(net4).collect()
        } else {
            self.prefixes4(slot)?
        };
        prefixes.extend(if info.flags & flag::TRIE6 != 0 {
            self.trie(info.root6, 128)?.iter().map(net6).collect()
        } else {
            self.prefixes6(slot)?
        });
        prefixes.sort_by_key(|(net, _)| *net);
        Ok(prefixes)
    }

    fn prefixes4(&self, slot: u32) -> Result<Vec<(IpNet, Leaf)>, DatapathError> {
        let mut prefixes = Vec::new();
        let trie: LpmTrie<MapData, [u8; 4], u32> = self.inner(map::TABLES4, slot)?;
        for entry in &trie {
            let (key, leaf) = entry.map_err(DatapathError::map(map::TABLES4))?;
            if let Ok(net) = Ipv4Net::new(key.data().into(), u8::try_from(key.prefix_len()).unwrap_or(u8::MAX)) {
                prefixes.push((IpNet::V4(net), Leaf(leaf)));
            }
        }
        Ok(prefixes)
    }

    fn prefixes6(&self, slot: u32) -> Result<Vec<(IpNet, Leaf)>, DatapathError> {
        let mut prefixes = Vec::new();
        let trie: LpmTrie<MapData, [u8; 16], u32> = self.inner(map::TABLES6, slot)?;
        for entry in &trie {
            let (key, leaf) = entry.map_err(DatapathError::map(map::TABLES6))?;
            if let Ok(net) = Ipv6Net::new(key.data().into(), u8::try_from(key.prefix_len()).unwrap_or(u8::MAX)) {
                prefixes.push((IpNet::V6(net), Leaf(leaf)));
            }
        }
        Ok(prefixes)
    }

    /// The fewest prefixes that say what the trie at `root` says.
    fn trie(&self, root: u32, bits: u8) -> Result<Vec<Item>, DatapathError> {
        trie::prefixes(&Chunks::open(&self.pins)?, root, bits).map_err(|damaged| DatapathError::Syscall {
            call: "reading a trie, which may be replaced meanwhile",
            source: std::io::Error::other(damaged),
        })
    }

    fn classes(&self, slot: u32) -> Result<Vec<ClassEntry>, DatapathError> {
        let array: Array<MapData, [u8; size_of::<Block>()]> = self.inner(map::CLASSES, slot)?;
        let block = |bytes: Result<[u8; size_of::<Block>()], MapError>| -> Result<Block, DatapathError> {
            bytes.map(|bytes| zerocopy::transmute!(bytes)).map_err(DatapathError::map(map::CLASSES))
        };
        Ok(array.iter().map(block).collect::<Result<Vec<Block>, _>>()?.into_flattened())
    }

    /// The counters of a table by rank, summed over CPUs; with shared counters, one for everything allowed and one for denied.
    pub fn rule_counters(&self, table: &TableInfo) -> Result<Vec<Counter>, DatapathError> {
        Ok(RuleCounters::open(&self.pins)?.read(table))
    }

    /// The counter of one rank, summed over CPUs; `None` if the table counts only allowed and denied.
    pub fn rule_counter(&self, table: &TableInfo, rank: u32) -> Result<Option<Counter>, DatapathError> {
        Ok(RuleCounters::open(&self.pins)?.of_rule(table, rank))
    }

    /// Drops by reason.
    pub fn drop_counters(&self) -> Result<Vec<(DropReason, Counter)>, DatapathError> {
        let counters: DropCounters = maps::open(&self.pins, map::DROP_COUNTERS)?;
        DropReason::ALL
            .iter()
            .map(|reason| maps::counter(&counters, u32::from(*reason as u8)).map(|counter| (*reason, counter)))
            .collect()
    }

    /// Figures of the programs.
    pub fn stats(&self) -> Result<Vec<(Stat, u64)>, DatapathError> {
        let stats: Stats = maps::open(&self.pins, map::STATS)?;
        Stat::ALL
            .into_iter()
            .map(|stat| {
                let values = stats.get(&(stat as u32), 0).map_err(DatapathError::map(map::STATS))?;
                Ok((stat, values.iter().sum()))
            })
            .collect()
    }

    /// Connections that are remembered.
    pub fn flows(&self) -> Result<Vec<(FlowKey, Flow)>, DatapathError> {
        let flows: Flows = maps::open(&self.pins, map::FLOWS)?;
        let mut found = Vec::new();
        for entry in &flows {
            match entry {
                Ok((key, flow)) => found.push((zerocopy::transmute!(key), zerocopy::transmute!(flow))),
                // Evicted between its key and its value.
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(DatapathError::map(map::FLOWS)(error)),
            }
        }
        Ok(found)
    }

    /// Settings of the node.
    pub fn config(&self) -> Result<Config, DatapathError> {
        let configs: maps::Configs = maps::open(&self.pins, map::CONFIG)?;
        let bytes = configs.get(&0, 0).map_err(DatapathError::map(map::CONFIG))?;
        Ok(zerocopy::transmute!(bytes))
    }

    /// Entries that each map can hold.
    pub fn capacities(&self) -> Result<Vec<(&'static str, u32)>, DatapathError> {
        map::ALL.into_iter().map(|name| maps::entries(&self.pins, name).map(|entries| (name, entries))).collect()
    }
}

fn net4(item: &Item) -> (IpNet, Leaf) {
    let address = u32::try_from(item.bits >> 96).unwrap_or_default();
    (Ipv4Net::new_assert(address.into(), item.length.min(32)).into(), Leaf(item.leaf))
}

fn net6(item: &Item) -> (IpNet, Leaf) {
    (Ipv6Net::new_assert(item.bits.into(), item.length.min(128)).into(), Leaf(item.leaf))
}

/// The classes of one table, block by block from the map.
struct ClassMap(Array<MapData, [u8; size_of::<Block>()]>);

impl ClassEntries for ClassMap {
    fn entry(&self, index: u32) -> Option<ClassEntry> {
        let block: Block = self.0.get(&(index / BLOCK), 0).ok().map(|bytes| zerocopy::transmute!(bytes))?;
        block.get((index % BLOCK) as usize).copied()
    }
}

/// A value that may be absent.
fn present<V>(result: Result<V, MapError>, name: &'static str) -> Result<Option<V>, DatapathError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(DatapathError::map(name)(error)),
    }
}
