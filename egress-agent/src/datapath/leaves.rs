//! What each table says of name ids: an array beside the table, the one part of it that changes while it is published.
//!
//! Every store is one aligned word, so a packet sees the old leaf of a name or the new one. The arrays have room for names to come;
//! where it runs out, a larger one takes the place of the old.

use std::os::fd::AsFd as _;

use aya::maps::MapData;
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY;
use egress_common::abi::{capacity, map};
use egress_common::names::NameLeaf;
use egress_policy::compile::Table;

use super::error::DatapathError;
use super::maps;
use super::names::DesiredNames;
use super::outer::Outer;
use super::pins::Pins;
use super::syscall;

const BPF_F_INNER_MAP: u32 = 0x1000;
/// Shortest array.
const SHORTEST: usize = 1024;

/// The arrays of all tables.
pub(super) struct NameLeaves {
    outer: Outer,
}

impl NameLeaves {
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self { outer: Outer::open(pins, map::NAME_LEAVES)? })
    }

    /// Makes the array of the table in `slot` say what `table` says of `names`. `before`: what it holds. Returns what it holds then.
    pub(super) fn update(
        &self,
        slot: u32,
        before: Option<Vec<NameLeaf>>,
        table: &Table,
        names: &DesiredNames,
    ) -> Result<Vec<NameLeaf>, DatapathError> {
        let wanted = wanted(before.as_ref().map_or(0, Vec::len), table, names);
        match before {
            Some(before) if before.len() == wanted.len() => self.store(slot, &before, &wanted)?,
            _ => {
                let array = array(u32::try_from(wanted.len()).unwrap_or(u32::MAX))?;
                let indices: Vec<u32> = (0..).take(wanted.len()).collect();
                syscall::update_batch(array.fd().as_fd(), &indices, &wanted)?;
                self.outer.set(slot, &array)?;
            }
        }
        Ok(wanted)
    }

    /// Takes the array out of a slot.
    pub(super) fn remove(&self, slot: u32) -> Result<(), DatapathError> {
        self.outer.remove(slot)
    }

    fn store(&self, slot: u32, before: &[NameLeaf], wanted: &[NameLeaf]) -> Result<(), DatapathError> {
        let changes = (0_u32..).zip(before.iter().zip(wanted)).filter(|(_, (before, wanted))| before != wanted);
        let (indices, leaves): (Vec<u32>, Vec<NameLeaf>) = changes.map(|(index, (_, leaf))| (index, *leaf)).unzip();
        if indices.is_empty() {
            return Ok(());
        }
        let array = self.outer.get(slot)?.ok_or(DatapathError::Missing(map::NAME_LEAVES))?;
        syscall::update_batch(array.fd().as_fd(), &indices, &leaves)
    }
}

fn wanted(room: usize, table: &Table, names: &DesiredNames) -> Vec<NameLeaf> {
    let needed = usize::try_from(names.length).unwrap_or(usize::MAX);
    let most = usize::try_from(capacity::NAMES).unwrap_or(usize::MAX);
    let length = if room >= needed.max(1) { room } else { (needed * 2).next_power_of_two().clamp(SHORTEST, most) };
    let mut leaves = vec![NameLeaf::NOTHING; length];
    for (id, place) in &names.places {
        if let Some(leaf) = usize::try_from(*id).ok().and_then(|id| leaves.get_mut(id)) {
            *leaf = table.name_leaf(place);
        }
    }
    leaves
}

/// An array of leaves.
pub(super) fn array(entries: u32) -> Result<MapData, DatapathError> {
    let sizes = (size_of::<u32>(), size_of::<NameLeaf>());
    maps::create(BPF_MAP_TYPE_ARRAY, map::NAME_LEAVES, sizes, entries, BPF_F_INNER_MAP)
}
