//! Names and their addresses, as the kernel has them.

use std::net::IpAddr;

use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, LpmTrie, MapData, MapError};
use egress_common::abi::map;
use egress_common::names::{AddressNames, KEY_BYTES, NameEntry, NameKey, Slot};

use super::super::error::DatapathError;
use super::super::maps;
use super::Inspector;
use crate::events::address;

type Trie = LpmTrie<MapData, [u8; KEY_BYTES], [u8; size_of::<NameEntry>()]>;
type Addresses = HashMap<MapData, [u8; 16], [u8; size_of::<AddressNames>()]>;

impl Inspector {
    /// Every suffix of the node's names with the ids of its places.
    pub fn names(&self) -> Result<Vec<(NameKey, NameEntry)>, DatapathError> {
        let trie: Trie = maps::open(&self.pins, map::NAMES)?;
        let mut found = Vec::new();
        for entry in &trie {
            let (key, value): (Key<[u8; KEY_BYTES]>, _) = entry.map_err(DatapathError::map(map::NAMES))?;
            found.push((NameKey { length: key.prefix_len(), bytes: key.data() }, zerocopy::transmute!(value)));
        }
        Ok(found)
    }

    /// Every address that has names, with all of them, ended ones too.
    pub fn name_addresses(&self) -> Result<Vec<(IpAddr, Vec<Slot>)>, DatapathError> {
        let addresses: Addresses = maps::open(&self.pins, map::ADDRESSES)?;
        let mut found = Vec::new();
        for entry in &addresses {
            match entry {
                Ok((key, value)) => found.push((address(key), slots(value))),
                // Removed between its key and its value.
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(DatapathError::map(map::ADDRESSES)(error)),
            }
        }
        Ok(found)
    }

    /// The names of one address, ended ones too.
    pub fn names_of(&self, address: IpAddr) -> Result<Vec<Slot>, DatapathError> {
        let addresses: Addresses = maps::open(&self.pins, map::ADDRESSES)?;
        match addresses.get(&crate::names::bytes(address), 0) {
            Ok(value) => Ok(slots(value)),
            Err(MapError::KeyNotFound) => Ok(Vec::new()),
            Err(error) => Err(DatapathError::map(map::ADDRESSES)(error)),
        }
    }
}

fn slots(value: [u8; size_of::<AddressNames>()]) -> Vec<Slot> {
    let names: AddressNames = zerocopy::transmute!(value);
    names.slots.into_iter().map_while(Slot::from_bits).collect()
}
