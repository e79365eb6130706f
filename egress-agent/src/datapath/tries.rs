//! The array tries of large tables, in pools that the kernel walks and this process has mapped.
//!
//! A pool is an array of its own length in the map of maps `tries`; tables share what they have in common while they fit into one. What is
//! in use is known from the roots of the tables alone, so an agent that died at any point has only left units that nobody leads to.
//! Units are freed after a grace period: [`Tables::retire`](super::tables::Tables::retire) has waited.

use std::collections::BTreeMap;

use aya::maps::MapData;
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY;
use egress_common::abi::{capacity, map};
use egress_common::table::{TableInfo, flag};
use egress_common::trie::Unit;
use egress_policy::compile::Table;
use egress_policy::trie::{self, Growing, Item, Pool, Store};

use super::error::DatapathError;
use super::maps;
use super::outer::Outer;
use super::pins::Pins;
use super::syscall::UnitArray;

const BPF_F_INNER_MAP: u32 = 0x1000;
const BPF_F_MMAPABLE: u32 = 0x400;
/// Units that a pool has beside a quarter of its first table, for the changes to come.
const SPARE: u32 = 512;

/// Where the tries of a table are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Placed {
    pool: u32,
    roots: [Option<u32>; 2],
}

impl Placed {
    /// Writes it into the constants of a table.
    pub(super) fn note(self, info: &mut TableInfo) {
        let [root4, root6] = self.roots;
        info.pool = self.pool;
        info.flags |= root4.map_or(0, |_| flag::TRIE4) | root6.map_or(0, |_| flag::TRIE6);
        (info.root4, info.root6) = (root4.unwrap_or(0), root6.unwrap_or(0));
    }

    /// Reads [`note`](Self::note). `None` if the table has no trie.
    fn of(info: &TableInfo) -> Option<Self> {
        let root = |bit, root| (info.flags & bit != 0).then_some(root);
        let roots = [root(flag::TRIE4, info.root4), root(flag::TRIE6, info.root6)];
        roots.iter().any(Option::is_some).then_some(Self { pool: info.pool, roots })
    }
}

/// A table that has tries already, of which another one is the next version.
pub(super) struct Like<'t> {
    placed: Placed,
    table: &'t Table,
}

impl<'t> Like<'t> {
    /// `None` if it has no trie.
    pub(super) fn new(info: &TableInfo, table: &'t Table) -> Option<Self> {
        Placed::of(info).map(|placed| Self { placed, table })
    }
}

/// A pool, and how many tables are in it.
struct Slot {
    /// `None`: it is missing, or what is in it makes no sense; nothing is added, and it goes with its last table.
    pool: Option<Pool<UnitArray>>,
    length: u32,
    tables: usize,
}

/// Every pool.
pub(super) struct Tries {
    outer: Outer,
    /// Slots of the map of maps.
    entries: u32,
    slots: BTreeMap<u32, Slot>,
}

impl Tries {
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        let (outer, entries) = (Outer::open(pins, map::TRIES)?, maps::entries(pins, map::TRIES)?);
        Ok(Self { outer, entries, slots: BTreeMap::new() })
    }

    /// Takes over the pools of the tables that the kernel holds, and takes out the others.
    pub(super) fn adopt<'i>(&mut self, tables: impl Iterator<Item = &'i TableInfo>) -> Result<(), DatapathError> {
        let mut roots: BTreeMap<u32, (Vec<u32>, usize)> = BTreeMap::new();
        for placed in tables.filter_map(Placed::of) {
            let (found, tables) = roots.entry(placed.pool).or_default();
            found.extend(placed.roots.iter().flatten());
            *tables += 1;
        }
        for slot in 0..self.entries {
            let Some((roots, tables)) = roots.get(&slot) else {
                self.outer.remove(slot)?;
                continue;
            };
            let Some(data) = self.outer.get(slot)? else {
                tracing::error!(
                    pool = slot,
                    "a pool of tries is missing; its tables drop what they judge until they are replaced"
                );
                self.slots.insert(slot, Slot { pool: None, length: 0, tables: *tables });
                continue;
            };
            let units = units(&data)?;
            let (length, pool) = (units.length(), Pool::adopt(units, roots));
            if let Err(damaged) = &pool {
                tracing::error!(pool = slot, error = %damaged, "the tables of this pool drop what they judge until they are replaced");
            }
            self.slots.insert(slot, Slot { pool: pool.ok(), length, tables: *tables });
        }
        Ok(())
    }

    /// Stores the tries of a table, where there are any. Nothing leads to them yet. What they have in common with `like` is not built again.
    pub(super) fn place(
        &mut self,
        items: &[Option<Vec<Item>>; 2],
        like: Option<&Like<'_>>,
    ) -> Result<Placed, DatapathError> {
        let count: usize = items.iter().flatten().map(Vec::len).sum();
        if count == 0 {
            return Ok(Placed::default());
        }
        if let Some(like) = like
            && let Some(Slot { pool: Some(pool), tables, .. }) = self.slots.get_mut(&like.placed.pool)
            && let Some(roots) = insert(pool, items, Some(like))
        {
            *tables += 1;
            return Ok(Placed { pool: like.placed.pool, roots });
        }
        for (index, slot) in &mut self.slots {
            let Some(pool) = &mut slot.pool else { continue };
            // A pool without room for an eighth of it would have to have nearly the same table already.
            let free = usize::try_from(slot.length - pool.used()).unwrap_or(0);
            if free.saturating_mul(8) < count {
                continue;
            }
            if let Some(roots) = insert(pool, items, None) {
                slot.tables += 1;
                return Ok(Placed { pool: *index, roots });
            }
        }
        self.place_apart(items)
    }

    /// Makes a pool for a table.
    fn place_apart(&mut self, items: &[Option<Vec<Item>>; 2]) -> Result<Placed, DatapathError> {
        let full = |needed: u64, limit: u32| DatapathError::Full {
            what: "the pool of prefix tries",
            needed,
            limit: limit.into(),
            advice: "fewer distinct rule lists, or fewer prefixes",
        };
        let index = (0..capacity::POOLS).find(|index| !self.slots.contains_key(index));
        let index = index.ok_or(full(u64::from(capacity::POOLS) + 1, capacity::POOLS))?;
        let mut pool = Pool::new(Growing::default());
        let roots = insert(&mut pool, items, None).ok_or(full(u64::from(u32::MAX), capacity::UNITS))?;
        let length = pool.used().saturating_add(pool.used() / 4).saturating_add(SPARE);
        let taken: u64 = self.slots.values().map(|slot| u64::from(slot.length)).sum();
        if taken + u64::from(length) > u64::from(capacity::UNITS) {
            return Err(full(taken + u64::from(length), capacity::UNITS));
        }
        let array = array(length)?;
        let pool = pool.move_to(units(&array)?);
        self.outer.set(index, &array)?;
        self.slots.insert(index, Slot { pool: Some(pool), length, tables: 1 });
        Ok(Placed { pool: index, roots })
    }

    /// Frees the tries of a table that no packet is judged by any more.
    pub(super) fn free(&mut self, info: &TableInfo) -> Result<(), DatapathError> {
        let Some(placed) = Placed::of(info) else { return Ok(()) };
        let Some(slot) = self.slots.get_mut(&placed.pool) else { return Ok(()) };
        slot.tables = slot.tables.saturating_sub(1);
        if slot.tables == 0 {
            self.slots.remove(&placed.pool);
            return self.outer.remove(placed.pool);
        }
        if let Some(pool) = &mut slot.pool {
            placed.roots.iter().flatten().for_each(|root| pool.remove(*root));
        }
        Ok(())
    }
}

/// Inserts what is there of both families, or nothing.
fn insert<S: Store>(
    pool: &mut Pool<S>,
    items: &[Option<Vec<Item>>; 2],
    like: Option<&Like<'_>>,
) -> Option<[Option<u32>; 2]> {
    let mut insert =
        |items: &Option<Vec<Item>>, family: fn([Option<u32>; 2]) -> Option<u32>, of: fn(&Table) -> Vec<Item>| {
            let Some(items) = items else { return Ok(None) };
            match like.and_then(|like| Some((family(like.placed.roots)?, of(like.table)))) {
                Some((root, before)) => pool.insert_like(items, root, &before),
                None => pool.insert(items),
            }
            .map(Some)
        };
    let [items4, items6] = items;
    let root4 = insert(items4, |[root4, _]| root4, trie::items4).ok()?;
    let root6 = insert(items6, |[_, root6]| root6, trie::items6);
    if let (Err(_), Some(root4)) = (&root6, root4) {
        pool.remove(root4);
    }
    Some([root4, root6.ok()?])
}

/// An array for a pool of `length` units.
pub(super) fn array(length: u32) -> Result<MapData, DatapathError> {
    let sizes = (size_of::<u32>(), size_of::<Unit>());
    maps::create(BPF_MAP_TYPE_ARRAY, map::TRIES, sizes, length, BPF_F_INNER_MAP | BPF_F_MMAPABLE)
}

/// The units of a pool, mapped.
pub(super) fn units(array: &MapData) -> Result<UnitArray, DatapathError> {
    let length = array.info().map_err(DatapathError::map(map::TRIES))?.max_entries();
    UnitArray::map(array.fd(), length)
}
