//! DNS names in the kernel: the trie of names, the resolvers, and the addresses, which only kernel code writes.
//!
//! [`NameMaps`] is a handle of its own, so that storing an answer never waits for an apply. Used by the agent's names, and by tests.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap as KernelHash, LpmTrie, MapData, MapError, RingBuf};
use egress_common::abi::map;
use egress_common::dns::{Answer, Lesson, Outcome};
use egress_common::flow::{Flow, origin};
use egress_common::names::{AddressNames, KEY_BYTES, NameEntry, NameKey, Slot};
use egress_policy::places::Place;
use zerocopy::IntoBytes as _;

use super::error::DatapathError;
use super::maps::{self, Flows};
use super::pins::Pins;
use super::syscall;

type Trie = LpmTrie<MapData, [u8; KEY_BYTES], [u8; size_of::<NameEntry>()]>;
type Addresses = KernelHash<MapData, [u8; 16], [u8; size_of::<AddressNames>()]>;
type Resolvers = KernelHash<MapData, [u8; 16], u32>;

/// Addresses are removed so many seconds after their last name ended: whoever looks a name up again meanwhile finds its slot.
const LINGER: u32 = 600;

/// What names mean now: the numbers are the agent's.
#[derive(Clone, Debug, Default)]
pub struct DesiredNames {
    /// What each id means, also of ids that only addresses still hold.
    pub places: Vec<(u32, Place)>,
    /// One above the highest id.
    pub length: u32,
    /// What the trie shall hold.
    pub entries: Vec<(NameKey, NameEntry)>,
    /// Ids that meant something else before: connections that were allowed by it are forgotten.
    pub reused: Vec<u32>,
}

/// What a sweep of the addresses did and left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Addresses removed.
    pub removed: u64,
    /// Addresses left,
    pub left: u64,
    /// of so many that there may be.
    pub limit: u64,
}

/// The maps of names and addresses, and the program that stores.
pub struct NameMaps {
    pins: Pins,
    learn: OwnedFd,
}

impl NameMaps {
    pub(super) fn new(pins: &Pins, learn: OwnedFd) -> Self {
        Self { pins: pins.clone(), learn }
    }

    /// Stores answers under a name id. The kernel's program does it, with the lifetimes that the kernel has. Returns how many it stored:
    /// fewer where the map of addresses is full, or where an address is none of an external destination (§5.6).
    pub fn learn(&self, id: u32, answers: &[Answer]) -> Result<usize, DatapathError> {
        let mut stored = 0;
        for part in answers.chunks(Lesson::MAX_ANSWERS) {
            let mut data = Lesson::new(id, u32::try_from(part.len()).unwrap_or(0)).as_bytes().to_vec();
            data.extend(part.as_bytes());
            let result = syscall::test_run(self.learn.as_fd(), &data)?;
            stored += usize::try_from(result).ok().filter(|count| *count <= part.len()).unwrap_or(0);
        }
        Ok(stored)
    }

    /// Removes the addresses of which every name ended [`LINGER`] seconds ago, or ended at all where the map is more than four fifths
    /// full. `now` in seconds of `CLOCK_MONOTONIC`.
    pub fn sweep(&self, now: u32) -> Result<Swept, DatapathError> {
        let failed = DatapathError::map(map::ADDRESSES);
        let limit = u64::from(maps::entries(&self.pins, map::ADDRESSES)?);
        let mut addresses: Addresses = maps::open(&self.pins, map::ADDRESSES)?;
        let mut ends = Vec::new();
        for (address, slots) in read_addresses(&self.pins)? {
            ends.push((bytes(address), slots.iter().map(|slot| slot.expiry).max().unwrap_or(0)));
        }
        let held = ends.len() as u64;
        let linger = if held * 5 > limit * 4 { 0 } else { LINGER };
        let mut swept = Swept { removed: 0, left: held, limit };
        for (address, _) in ends.iter().filter(|(_, end)| end.saturating_add(linger) <= now) {
            match addresses.remove(address) {
                Ok(()) => swept.removed += 1,
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        swept.left -= swept.removed;
        Ok(swept)
    }

    /// Every address with its names, live or not.
    pub fn addresses(&self) -> Result<Vec<(IpAddr, Vec<Slot>)>, DatapathError> {
        read_addresses(&self.pins)
    }

    /// The trie of names.
    pub fn entries(&self) -> Result<Vec<(NameKey, NameEntry)>, DatapathError> {
        read_entries(&self.pins)
    }

    /// The ring of [`Reply`](egress_common::dns::Reply)s with their messages. One reader at a time.
    pub fn take_replies(&self) -> Result<RingBuf<MapData>, DatapathError> {
        maps::open(&self.pins, map::DNS_EVENTS)
    }

    /// How often each outcome of a message was counted.
    pub fn counters(&self) -> Result<Vec<(Outcome, u64)>, DatapathError> {
        read_counters(&self.pins)
    }
}

fn slots(bytes: &[u8; size_of::<AddressNames>()]) -> impl Iterator<Item = Slot> {
    let names: AddressNames = zerocopy::transmute!(*bytes);
    names.slots.into_iter().map_while(Slot::from_bits)
}

pub(super) fn read_addresses(pins: &Pins) -> Result<Vec<(IpAddr, Vec<Slot>)>, DatapathError> {
    let addresses: Addresses = maps::open(pins, map::ADDRESSES)?;
    let mut found = Vec::new();
    for entry in &addresses {
        match entry {
            Ok((address, names)) => found.push((IpAddr::from(address).to_canonical(), slots(&names).collect())),
            // Removed between its key and its value.
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(DatapathError::map(map::ADDRESSES)(error)),
        }
    }
    Ok(found)
}

/// The names of one address, live or not.
pub(super) fn read_address(pins: &Pins, address: IpAddr) -> Result<Vec<Slot>, DatapathError> {
    let addresses: Addresses = maps::open(pins, map::ADDRESSES)?;
    match addresses.get(&bytes(address), 0) {
        Ok(names) => Ok(slots(&names).collect()),
        Err(MapError::KeyNotFound) => Ok(Vec::new()),
        Err(error) => Err(DatapathError::map(map::ADDRESSES)(error)),
    }
}

pub(super) fn read_entries(pins: &Pins) -> Result<Vec<(NameKey, NameEntry)>, DatapathError> {
    let trie: Trie = maps::open(pins, map::NAMES)?;
    let read = |entry: Result<(Key<[u8; KEY_BYTES]>, [u8; size_of::<NameEntry>()]), MapError>| {
        let (key, entry) = entry.map_err(DatapathError::map(map::NAMES))?;
        Ok((NameKey { length: key.prefix_len(), bytes: key.data() }, zerocopy::transmute!(entry)))
    };
    trie.iter().map(read).collect()
}

pub(super) fn read_counters(pins: &Pins) -> Result<Vec<(Outcome, u64)>, DatapathError> {
    let counters: maps::Stats = maps::open(pins, map::DNS_COUNTERS)?;
    let read = |outcome: &Outcome| {
        let values = counters.get(&u32::from(*outcome as u8), 0).map_err(DatapathError::map(map::DNS_COUNTERS))?;
        Ok((*outcome, values.iter().sum()))
    };
    Outcome::ALL.iter().map(read).collect()
}

/// Makes the trie hold exactly `desired`: additions first, so that no name is ever missing that stays.
pub(super) fn set_names(pins: &Pins, desired: &[(NameKey, NameEntry)]) -> Result<(), DatapathError> {
    let failed = DatapathError::map(map::NAMES);
    let current: HashMap<(u32, [u8; KEY_BYTES]), NameEntry> =
        read_entries(pins)?.into_iter().map(|(key, entry)| ((key.length, key.bytes), entry)).collect();
    let mut trie: Trie = maps::open(pins, map::NAMES)?;
    let mut kept = BTreeSet::new();
    for (key, entry) in desired {
        kept.insert((key.length, key.bytes));
        if current.get(&(key.length, key.bytes)) != Some(entry) {
            let value: [u8; size_of::<NameEntry>()] = zerocopy::transmute!(*entry);
            trie.insert(&Key::new(key.length, key.bytes), value, 0).map_err(&failed)?;
        }
    }
    for (length, bytes) in current.into_keys().filter(|key| !kept.contains(key)) {
        trie.remove(&Key::new(length, bytes)).map_err(&failed)?;
    }
    Ok(())
}

/// Makes the trusted resolvers exactly these.
pub(super) fn set_resolvers(pins: &Pins, desired: &[IpAddr]) -> Result<(), DatapathError> {
    let failed = DatapathError::map(map::RESOLVERS);
    let mut resolvers: Resolvers = maps::open(pins, map::RESOLVERS)?;
    let wanted: BTreeSet<[u8; 16]> = desired.iter().map(|address| bytes(*address)).collect();
    let current: BTreeSet<[u8; 16]> = resolvers.keys().collect::<Result<_, _>>().map_err(&failed)?;
    for address in wanted.difference(&current) {
        resolvers.insert(address, 1, 0).map_err(&failed)?;
    }
    for address in current.difference(&wanted) {
        resolvers.remove(address).map_err(&failed)?;
    }
    Ok(())
}

/// An address as the kernel's maps have it.
pub(crate) fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Forgets connections that were allowed by a name whose id means another one from now on.
pub(super) fn forget_flows(pins: &Pins, reused: &[u32]) -> Result<(), DatapathError> {
    if reused.is_empty() {
        return Ok(());
    }
    let failed = DatapathError::map(map::FLOWS);
    let mut flows: Flows = maps::open(pins, map::FLOWS)?;
    let mut gone = Vec::new();
    for entry in &flows {
        let (key, bytes) = entry.map_err(&failed)?;
        let flow: Flow = zerocopy::transmute!(bytes);
        if flow.origin == origin::NAME && reused.contains(&flow.name) {
            gone.push(key);
        }
    }
    for key in gone {
        match flows.remove(&key) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}
