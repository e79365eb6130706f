//! Names and their addresses, as the kernel has them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use aya::maps::{Array, MapData, MapError};
use egress_common::abi::map;
use egress_common::class::ClassEntries;
use egress_common::dns::Outcome;
use egress_common::names::{self as kernel, NameEntry, NameKey, NameLeaf, Slot, State};
use egress_common::table::Leaf;
use egress_policy::compile::Lookup;
use egress_policy::ports::KeyRange;

use super::super::error::DatapathError;
use super::super::names;
use super::{ClassMap, Inspector, TableView};

impl Inspector {
    /// Every suffix of the node's names with the ids of its places.
    pub fn names(&self) -> Result<Vec<(NameKey, NameEntry)>, DatapathError> {
        names::read_entries(&self.pins)
    }

    /// Every address that has names, with all of them, ended ones too.
    pub fn name_addresses(&self) -> Result<Vec<(IpAddr, Vec<Slot>)>, DatapathError> {
        names::read_addresses(&self.pins)
    }

    /// The names of one address, ended ones too.
    pub fn names_of(&self, address: IpAddr) -> Result<Vec<Slot>, DatapathError> {
        names::read_address(&self.pins, address)
    }

    /// What the table in `slot` says of name ids, as the kernel asks it.
    pub fn name_leaves(&self, slot: u32, ids: &[u32]) -> Result<Vec<NameLeaf>, DatapathError> {
        let leaves: Array<MapData, u32> = self.inner(map::NAME_LEAVES, slot)?;
        let read = |id: &u32| match leaves.get(id, 0) {
            Ok(leaf) => Ok(NameLeaf(leaf)),
            // An id that is younger than the array: no rule of the table is about it.
            Err(MapError::OutOfBounds { .. } | MapError::KeyNotFound) => Ok(NameLeaf::NOTHING),
            Err(error) => Err(DatapathError::map(map::NAME_LEAVES)(error)),
        };
        ids.iter().map(read).collect()
    }

    /// [`Inspector::said`] for an address that has names, of which the table says `leaves`: the first match wins, wherever it comes from
    /// (§4.2). Empty where the table is damaged.
    pub fn said_with(
        &self,
        table: &TableView,
        (leaf, leaves): (Leaf, &[NameLeaf]),
        keys: KeyRange,
    ) -> Result<Vec<(KeyRange, Lookup)>, DatapathError> {
        let classes = ClassMap(self.inner(map::CLASSES, table.reference.slot)?);
        let head_rules = table.info.head_rules;
        let bases = leaves.iter().filter_map(|leaf| leaf.open()?.err()).chain(leaf.open().err());
        let starts: BTreeSet<u32> = bases.flat_map(|base| starts(&classes, base)).chain([keys.first]).collect();
        let starts: Vec<u32> = starts.range(keys.first..=keys.last).copied().collect();
        let mut found: Vec<(KeyRange, Lookup)> = Vec::new();
        for (index, first) in starts.iter().enumerate() {
            let last = starts.get(index + 1).map_or(keys.last, |next| next - 1);
            let own = kernel::prefix_state(&classes, leaf, *first, head_rules);
            let merge = |state: State, leaf: &NameLeaf| {
                Some(state.merge(kernel::name_state(&classes, *leaf, *first, head_rules)?))
            };
            let verdict = own.and_then(|own| leaves.iter().try_fold(own, merge)).and_then(State::verdict);
            let Some(lookup) = verdict.map(Lookup::from) else { return Ok(Vec::new()) };
            match found.last_mut() {
                Some((range, same)) if *same == lookup => range.last = last,
                Some(_) | None => found.push((KeyRange { first: *first, last }, lookup)),
            }
        }
        Ok(found)
    }

    /// How often each outcome of a DNS message was counted.
    pub fn dns_counters(&self) -> Result<Vec<(Outcome, u64)>, DatapathError> {
        names::read_counters(&self.pins)
    }
}

/// The keys at which what a class says may change.
fn starts(classes: &ClassMap, base: u32) -> Vec<u32> {
    let count = classes.entry(base).map_or(0, |header| header.from);
    let indices = (1..=count).map_while(|index| base.checked_add(index));
    indices.map_while(|index| classes.entry(index)).map(|entry| entry.from).collect()
}
