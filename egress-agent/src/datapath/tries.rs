//! The array tries of large tables, in one pool of units that the kernel walks and this process has mapped.
//!
//! Tables share what they have in common. What is in use is known from the roots of the tables alone, so an agent that died at any point has
//! only left units that nobody leads to. Units are freed after a grace period: [`Tables::retire`](super::tables::Tables::retire) has waited.

use std::collections::BTreeSet;

use egress_common::abi::capacity;
use egress_common::table::{TableInfo, flag};
use egress_common::trie::NOWHERE;
use egress_policy::compile::Table;
use egress_policy::trie::{Changed, Item, Pool};

use super::chunks::Chunks;
use super::error::DatapathError;
use super::pins::Pins;

/// Where the tries of a table are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Placed {
    roots: [Option<u32>; 2],
}

impl Placed {
    /// Writes it into the constants of a table.
    pub(super) fn note(self, info: &mut TableInfo) {
        let [root4, root6] = self.roots;
        info.flags |= root4.map_or(0, |_| flag::TRIE4) | root6.map_or(0, |_| flag::TRIE6);
        (info.root4, info.root6) = (root4.unwrap_or(0), root6.unwrap_or(0));
    }

    /// Reads [`note`](Self::note). `None` if the table has no trie.
    fn of(info: &TableInfo) -> Option<Self> {
        let root = |bit, root| (info.flags & bit != 0).then_some(root);
        let roots = [root(flag::TRIE4, info.root4), root(flag::TRIE6, info.root6)];
        roots.iter().any(Option::is_some).then_some(Self { roots })
    }
}

/// Takes a table's tries away that are among `damaged`: its packets are dropped until it is replaced. Whether there are any.
pub(super) fn withdraw(info: &mut TableInfo, damaged: &BTreeSet<u32>) -> bool {
    let Some(Placed { roots }) = Placed::of(info) else { return false };
    let whole = |root: Option<u32>| root.map(|root| if damaged.contains(&root) { NOWHERE } else { root });
    let left = roots.map(whole);
    Placed { roots: left }.note(info);
    left != roots
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

/// The tries of all tables.
pub(super) struct Tries(Pool<Chunks>);

impl Tries {
    /// Opens the pool, of which nothing is known yet: [`adopt`](Self::adopt) comes before the first table.
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self(Pool::new(Chunks::open(pins)?)))
    }

    /// Takes over the tries of the tables that the kernel holds; what else there is goes. Returns the roots of damaged ones, for
    /// [`withdraw`].
    pub(super) fn adopt<'i>(&mut self, tables: impl Iterator<Item = &'i TableInfo>) -> BTreeSet<u32> {
        let roots: Vec<u32> = tables.filter_map(Placed::of).flat_map(|placed| placed.roots).flatten().collect();
        let damaged = self.0.adopt(&roots).into_iter();
        damaged
            .inspect(|error| tracing::error!(%error, "its tables drop what they judge until they are replaced"))
            .map(|damaged| damaged.root)
            .collect()
    }

    /// Stores the tries of a table, where there are any. Nothing leads to them yet. What they have in common with `like` is not built again.
    pub(super) fn place(
        &mut self,
        items: &[Option<Vec<Item>>; 2],
        table: &Table,
        like: Option<&Like<'_>>,
    ) -> Result<Placed, DatapathError> {
        let roots = insert(&mut self.0, items, table, like).ok_or_else(|| {
            self.0.store_mut().take_error().unwrap_or(DatapathError::Full {
                what: "the pool of prefix tries",
                needed: u64::from(capacity::UNITS) + 1,
                limit: capacity::UNITS.into(),
                advice: "fewer distinct rule lists, or fewer prefixes",
            })
        })?;
        Ok(Placed { roots })
    }

    /// Frees the tries of a table that no packet is judged by any more.
    pub(super) fn free(&mut self, info: &TableInfo) {
        let roots = Placed::of(info).unwrap_or_default().roots;
        roots.into_iter().flatten().for_each(|root| self.0.remove(root));
    }
}

/// Inserts what is there of both families, or nothing.
fn insert(
    pool: &mut Pool<Chunks>,
    items: &[Option<Vec<Item>>; 2],
    table: &Table,
    like: Option<&Like<'_>>,
) -> Option<[Option<u32>; 2]> {
    let mut insert = |items: &Option<Vec<Item>>, root: Option<u32>, changed: fn(&Table, &Table) -> Changed| {
        let Some(items) = items else { return Ok(None) };
        match like.and_then(|like| Some((root?, changed(like.table, table)))) {
            Some((root, changed)) => pool.insert_like(items, root, changed),
            None => pool.insert(items),
        }
        .map(Some)
    };
    let [items4, items6] = items;
    let [like4, like6] = like.map_or([None; 2], |like| like.placed.roots);
    let changed4 = |before: &Table, after: &Table| Changed::between(&before.prefixes4, &after.prefixes4);
    let changed6 = |before: &Table, after: &Table| Changed::between(&before.prefixes6, &after.prefixes6);
    let root4 = insert(items4, like4, changed4).ok()?;
    let root6 = insert(items6, like6, changed6);
    if let (Err(_), Some(root4)) = (&root6, root4) {
        pool.remove(root4);
    }
    Some([root4, root6.ok()?])
}
