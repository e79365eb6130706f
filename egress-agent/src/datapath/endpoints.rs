//! Endpoints in the kernel: slots, numbers, the keys that lead to them, and their published tables.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::MapData;
use egress_common::abi::{Config, map};
use egress_common::endpoint::{EndpointKey, FREE, TableRef, flag, key_kind};

use super::error::DatapathError;
use super::mapped::{EndpointArray, InterfaceArray};
use super::maps::{self, EndpointIds, EndpointNames, NAME_BYTES};
use super::pins::Pins;
use super::{DesiredEndpoint, FreePod, NEW_PODS};

/// One endpoint as the kernel has it.
#[derive(Clone, Debug)]
struct RealizedEndpoint {
    slot: u32,
    id: u32,
    table: TableRef,
    keys: BTreeSet<EndpointKey>,
}

/// Every endpoint that the kernel has.
pub(super) struct Endpoints {
    array: EndpointArray,
    ids: EndpointIds,
    interfaces: InterfaceArray,
    names: EndpointNames,
    realized: BTreeMap<String, RealizedEndpoint>,
    free: BTreeSet<u32>,
    /// Keys that lead to [`FREE`].
    free_keys: BTreeSet<EndpointKey>,
    next_id: u32,
}

impl Endpoints {
    /// Reads what an earlier agent left.
    pub(super) fn adopt(pins: &Pins) -> Result<Self, DatapathError> {
        let data: MapData = maps::data(pins, map::ENDPOINTS)?;
        let entries = maps::entries(pins, map::ENDPOINTS)?;
        let array = EndpointArray::map(data.fd(), entries)?;
        let configs: maps::Configs = maps::open(pins, map::CONFIG)?;
        let config: Config = zerocopy::transmute!(configs.get(&0, 0).map_err(DatapathError::map(map::CONFIG))?);
        let mut endpoints = Self {
            free: (0..array.len()).collect(),
            array,
            ids: maps::open(pins, map::ENDPOINT_IDS)?,
            interfaces: InterfaceArray::map(
                maps::data(pins, map::INTERFACES)?.fd(),
                maps::entries(pins, map::INTERFACES)?,
            )?,
            names: maps::endpoint_names(pins, entries)?,
            realized: BTreeMap::new(),
            free_keys: BTreeSet::new(),
            next_id: config.next_endpoint.max(1),
        };
        endpoints.read_slots()?;
        endpoints.read_keys()?;
        Ok(endpoints)
    }

    fn read_slots(&mut self) -> Result<(), DatapathError> {
        for slot in 0..self.array.len() {
            let Some(endpoint) = self.array.get(slot).filter(|endpoint| endpoint.id != 0) else {
                continue;
            };
            let name = self.names.get(&slot, 0).map_err(DatapathError::map(maps::ENDPOINT_NAMES))?;
            let name = read_name(&name);
            self.next_id = self.next_id.max(endpoint.id.saturating_add(1));
            self.free.remove(&slot);
            let table = TableRef::from_bits(endpoint.table);
            self.realized.insert(name, RealizedEndpoint { slot, id: endpoint.id, table, keys: BTreeSet::new() });
        }
        Ok(())
    }

    fn read_keys(&mut self) -> Result<(), DatapathError> {
        let mut stale = Vec::new();
        for entry in &self.ids {
            let (bytes, slot) = entry.map_err(DatapathError::map(map::ENDPOINT_IDS))?;
            let key: EndpointKey = zerocopy::transmute!(bytes);
            if slot == FREE {
                self.free_keys.insert(key);
                continue;
            }
            match self.realized.values_mut().find(|endpoint| endpoint.slot == slot) {
                Some(endpoint) => {
                    if let Some(interface) = interface_of(key) {
                        self.interfaces.set(interface, slot);
                    }
                    endpoint.keys.insert(key);
                }
                None => stale.push(key),
            }
        }
        stale.into_iter().try_for_each(|key| self.remove_key(key))
    }

    /// Makes sure that `endpoint` has a slot. Returns its number if this is a pod that the kernel does not know yet, also where a
    /// new pod has the name of an old one: what is remembered of the old pod's connections is not the new one's.
    pub(super) fn admit(&mut self, endpoint: &DesiredEndpoint) -> Result<Option<u32>, DatapathError> {
        let Some(known) = self.realized.get_mut(&endpoint.name) else {
            let allocated = self.allocate(&endpoint.name)?;
            let id = allocated.id;
            self.realized.insert(endpoint.name.clone(), allocated);
            return Ok(Some(id));
        };
        let before = known.keys.iter().find(|key| key.kind == key_kind::NETNS).map(|key| key.id);
        if before.is_none() || endpoint.netns.is_none() || before == endpoint.netns {
            return Ok(None);
        }
        known.id = self.next_id;
        self.next_id += 1;
        self.array.store_id(known.slot, known.id);
        Ok(Some(known.id))
    }

    /// Lets an admitted `endpoint` be judged by `table` from its next packet on. `true` if anything changed.
    pub(super) fn publish(&mut self, endpoint: &DesiredEndpoint, table: TableRef) -> Result<bool, DatapathError> {
        let keys = keys(endpoint);
        let Some(known) = self.realized.get(&endpoint.name).cloned() else { return Ok(false) };
        self.array.store_flags(known.slot, if endpoint.is_resolver { flag::RESOLVER } else { 0 });
        let changed = known.table != table || known.keys != keys;
        if known.table != table {
            self.array.store_table(known.slot, table.to_bits());
        }
        let mut realized = RealizedEndpoint { table, ..known };
        let (added, removed): (Vec<_>, Vec<_>) =
            (keys.difference(&realized.keys).copied().collect(), realized.keys.difference(&keys).copied().collect());
        let mut outcome = Ok(());
        for key in added {
            let bytes: [u8; size_of::<EndpointKey>()] = zerocopy::transmute!(key);
            match self.ids.insert(bytes, realized.slot, 0) {
                Ok(()) => {
                    if let Some(interface) = interface_of(key) {
                        self.interfaces.set(interface, realized.slot);
                    }
                    realized.keys.insert(key);
                }
                Err(error) => outcome = Err(DatapathError::map(map::ENDPOINT_IDS)(error)),
            }
        }
        for key in removed {
            // A key that moved to another endpoint is that one's now.
            if self.slot_of(key)? == Some(realized.slot) {
                self.remove_key(key)?;
            }
            realized.keys.remove(&key);
        }
        self.realized.insert(endpoint.name.clone(), realized);
        outcome.map(|()| changed)
    }

    fn allocate(&mut self, name: &str) -> Result<RealizedEndpoint, DatapathError> {
        let slot = self.free.pop_first().ok_or(DatapathError::Full {
            what: "the endpoint map",
            needed: self.realized.len() as u64 + 1,
            limit: u64::from(self.array.len()),
            advice: "start the agent with a larger --max-endpoints after `egress-agent run --cleanup`",
        })?;
        let id = self.next_id;
        self.next_id += 1;
        self.names.set(slot, write_name(name), 0).map_err(DatapathError::map(maps::ENDPOINT_NAMES))?;
        self.array.store_id(slot, id);
        Ok(RealizedEndpoint { slot, id, table: TableRef::default(), keys: BTreeSet::new() })
    }

    fn slot_of(&self, key: EndpointKey) -> Result<Option<u32>, DatapathError> {
        let bytes: [u8; size_of::<EndpointKey>()] = zerocopy::transmute!(key);
        match self.ids.get(&bytes, 0) {
            Ok(slot) => Ok(Some(slot)),
            Err(aya::maps::MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(DatapathError::map(map::ENDPOINT_IDS)(error)),
        }
    }

    fn remove_key(&mut self, key: EndpointKey) -> Result<(), DatapathError> {
        // First, so that the shorter way never leads where the key does not.
        if let Some(interface) = interface_of(key) {
            self.interfaces.remove(interface);
        }
        let bytes: [u8; size_of::<EndpointKey>()] = zerocopy::transmute!(key);
        match self.ids.remove(&bytes) {
            Ok(()) | Err(aya::maps::MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(DatapathError::map(map::ENDPOINT_IDS)(error)),
        }
    }

    /// Removes the endpoints that are not in `kept`. Returns how many.
    pub(super) fn retain(&mut self, kept: &BTreeSet<String>) -> Result<usize, DatapathError> {
        let gone: Vec<String> = self.realized.keys().filter(|name| !kept.contains(*name)).cloned().collect();
        for name in &gone {
            let Some(endpoint) = self.realized.remove(name) else {
                continue;
            };
            for key in endpoint.keys {
                if self.slot_of(key)? == Some(endpoint.slot) {
                    self.remove_key(key)?;
                }
            }
            self.array.store_table(endpoint.slot, 0);
            self.array.store_id(endpoint.slot, 0);
            self.free.insert(endpoint.slot);
        }
        Ok(gone.len())
    }

    /// Makes exactly these pods known as such that no policy is about. Called when all others are published.
    pub(super) fn set_free(&mut self, pods: &[FreePod]) -> Result<(), DatapathError> {
        let netns = pods.iter().filter_map(|pod| pod.netns).map(|cookie| EndpointKey::new(key_kind::NETNS, cookie));
        let cgroups = pods.iter().filter_map(|pod| pod.cgroup.as_ref());
        let cgroups = cgroups.map(|cgroup| EndpointKey::new(key_kind::CGROUP, cgroup.id));
        let wanted: BTreeSet<EndpointKey> = netns.chain(cgroups).collect();
        for key in &wanted {
            // Also where it was one of another pod's, which no policy is about any more.
            if self.slot_of(*key)? != Some(FREE) {
                let bytes: [u8; size_of::<EndpointKey>()] = zerocopy::transmute!(*key);
                self.ids.insert(bytes, FREE, 0).map_err(DatapathError::map(map::ENDPOINT_IDS))?;
            }
        }
        for key in std::mem::replace(&mut self.free_keys, wanted.clone()).difference(&wanted) {
            // A key that moved to an endpoint is that one's now.
            if self.slot_of(*key)? == Some(FREE) {
                self.remove_key(*key)?;
            }
        }
        Ok(())
    }

    /// The slot of an endpoint that has a table.
    pub(super) fn judged_slot(&self, name: &str) -> Option<u32> {
        self.realized.get(name).filter(|endpoint| endpoint.table.generation != 0).map(|endpoint| endpoint.slot)
    }

    /// Whether every endpoint of `names` that is new finds a free slot.
    pub(super) fn has_room_for(&self, names: &BTreeSet<String>) -> bool {
        names.iter().filter(|name| !self.realized.contains_key(*name)).count() <= self.free.len()
    }

    /// Whether the kernel has a table for the endpoint.
    pub(super) fn has(&self, name: &str) -> bool {
        self.realized.get(name).is_some_and(|endpoint| endpoint.table.generation != 0)
    }

    /// Tables in use, as (slot, generation).
    pub(super) fn tables(&self) -> BTreeSet<super::tables::SlotGeneration> {
        self.realized.values().map(|endpoint| (endpoint.table.slot, endpoint.table.generation)).collect()
    }

    /// Number of endpoints that are pods.
    pub(super) fn len(&self) -> usize {
        self.realized.keys().filter(|name| *name != NEW_PODS).count()
    }

    /// A number that is above every endpoint's, also after `more` endpoints are added.
    pub(super) fn next_id(&self, more: usize) -> u32 {
        self.next_id.saturating_add(u32::try_from(more).unwrap_or(u32::MAX))
    }

    /// The table of an endpoint.
    pub(super) fn table_of(&self, name: &str) -> Option<TableRef> {
        self.realized.get(name).map(|endpoint| endpoint.table)
    }

    /// `namespace/name` of an endpoint's number.
    pub(super) fn name_of(&self, id: u32) -> Option<String> {
        self.realized.iter().find(|(_, endpoint)| endpoint.id == id).map(|(name, _)| name.clone())
    }
}

/// The interface that a key is about.
fn interface_of(key: EndpointKey) -> Option<u32> {
    (key.kind == key_kind::INTERFACE).then(|| u32::try_from(key.id).ok()).flatten()
}

/// The keys that lead to an endpoint. Its cgroup only where it has no network namespace of its own or no interface: a process
/// that enters another pod's namespace is judged by where it is.
fn keys(endpoint: &DesiredEndpoint) -> BTreeSet<EndpointKey> {
    let interface =
        endpoint.interface.as_ref().map(|found| EndpointKey::new(key_kind::INTERFACE, u64::from(found.index)));
    let netns = endpoint.netns.map(|cookie| EndpointKey::new(key_kind::NETNS, cookie));
    let cgroup = endpoint.cgroup.as_ref().filter(|_| endpoint.interface.is_none() || endpoint.netns.is_none());
    let cgroup = cgroup.map(|found| EndpointKey::new(key_kind::CGROUP, found.id));
    [interface, netns, cgroup].into_iter().flatten().collect()
}

fn write_name(name: &str) -> [u8; NAME_BYTES] {
    let mut bytes = [0; NAME_BYTES];
    bytes.iter_mut().zip(name.bytes().take(NAME_BYTES - 1)).for_each(|(to, from)| *to = from);
    bytes
}

pub(super) fn read_name(bytes: &[u8; NAME_BYTES]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES);
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}
