//! Builds the array tries that the kernel walks (`egress_common::trie`): all tables in one pool of units.
//!
//! Equal parts are stored once, whichever table they belong to (`blocks`). So the next version of a table takes, of what it has in
//! common with the last one, nothing: a rule that changes in place rewrites the units on the way to its prefixes. Units that a root
//! leads to are never written; new ones are taken from what is free, and nothing leads to them before the caller publishes the root. A
//! writer that stops anywhere has therefore changed nothing, and [`Pool::adopt`] finds what is in use from the roots alone.
//!
//! Writes through [`Store`], which is mapped kernel memory in the agent and a vector in tests. Costs: time near-linear in the prefixes,
//! 40 bytes of the caller's memory per unit.

mod blocks;
mod build;
mod changed;
mod prefixes;

use std::collections::BTreeMap;

use egress_common::table::Leaf;
use egress_common::trie::{CHUNK_UNITS, MAX_UNITS, Unit, Units};

use self::blocks::{Blocks, Reference};
use self::build::Like;
pub use self::changed::Changed;
pub use self::prefixes::prefixes;
use crate::compile::Table;

/// Where units are kept.
pub trait Store: Units {
    /// Number of units, at most [`MAX_UNITS`].
    fn length(&self) -> u32;

    /// Writes `units` from `index` on, which is inside; all into one chunk of [`CHUNK_UNITS`]. `None`: there is no memory for the chunk.
    fn write(&mut self, index: u32, units: &[Unit]) -> Option<()>;

    /// Nothing leads to the units of a chunk any more: its memory is not needed until one of them is written again.
    fn vacate(&mut self, _chunk: u32) {}
}

/// Units in the caller's memory, as many as are written: to see how large a pool must be.
#[derive(Clone, Debug, Default)]
pub struct Growing(pub Vec<Unit>);

impl Units for Growing {
    fn unit(&self, index: u32) -> Option<&Unit> {
        self.0.as_slice().unit(index)
    }
}

impl Store for Growing {
    fn length(&self) -> u32 {
        MAX_UNITS
    }

    fn write(&mut self, index: u32, units: &[Unit]) -> Option<()> {
        let start = usize::try_from(index).ok()?;
        let end = start.checked_add(units.len())?;
        if self.0.len() < end {
            self.0.resize(end, Unit::default());
        }
        self.0.get_mut(start..end)?.copy_from_slice(units);
        Some(())
    }
}

/// A prefix of either family, its address at the top of 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    /// The address; zero behind the length.
    pub bits: u128,
    /// Length in bits.
    pub length: u8,
    /// What it leads to.
    pub leaf: u32,
}

impl From<&Self> for Item {
    fn from(item: &Self) -> Self {
        *item
    }
}

impl From<&(ipnet::Ipv4Net, Leaf)> for Item {
    fn from((net, leaf): &(ipnet::Ipv4Net, Leaf)) -> Self {
        Self { bits: u128::from(net.network().to_bits()) << 96, length: net.prefix_len(), leaf: leaf.0 }
    }
}

impl From<&(ipnet::Ipv6Net, Leaf)> for Item {
    fn from((net, leaf): &(ipnet::Ipv6Net, Leaf)) -> Self {
        Self { bits: net.network().to_bits(), length: net.prefix_len(), leaf: leaf.0 }
    }
}

/// The IPv4 prefixes of a table, as a pool takes them.
pub fn items4(table: &Table) -> Vec<Item> {
    table.prefixes4.iter().map(Item::from).collect()
}

/// The IPv6 prefixes of a table, as a pool takes them.
pub fn items6(table: &Table) -> Vec<Item> {
    table.prefixes6.iter().map(Item::from).collect()
}

/// The pool has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pool of {length} units has no room for the table")]
pub struct Full {
    /// Units in the pool.
    pub length: u32,
}

/// What a root leads to makes no sense: the units were not written by this code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the trie at unit {root} is damaged")]
pub struct Damaged {
    /// The root.
    pub root: u32,
}

/// A pool of units, and the tables in it.
#[derive(Debug)]
pub struct Pool<S> {
    store: S,
    blocks: Blocks,
    /// How often each root is held.
    roots: BTreeMap<u32, u32>,
}

impl<S: Store> Pool<S> {
    /// A pool without tables.
    pub fn new(store: S) -> Self {
        let blocks = Blocks::new(store.length());
        Self { store, blocks, roots: BTreeMap::new() }
    }

    /// Takes over the tables that begin at `roots`, once for each time that one is held; everything else is free. Returns the roots that
    /// are damaged: before the next table is stored nothing may lead to them any more.
    pub fn adopt(&mut self, roots: &[u32]) -> Vec<Damaged> {
        for root in roots {
            *self.roots.entry(*root).or_default() += 1;
        }
        let mut damaged = Vec::new();
        while let Err(found) = self.recount() {
            self.roots.remove(&found.root);
            damaged.push(found);
        }
        damaged
    }

    /// Stores the trie of sorted `items`, which begin with the /0, and returns its root: nothing leads to it yet. If there is no room,
    /// everything is as before.
    pub fn insert(&mut self, items: &[Item]) -> Result<u32, Full> {
        self.store_items(items, None)
    }

    /// [`insert`](Self::insert) of the next version of a table that is in the pool: at `root`, from which it differs where `changed`
    /// says. Gives the same trie; only the page and what leads to a difference are built.
    pub fn insert_like(&mut self, items: &[Item], root: u32, changed: Changed) -> Result<u32, Full> {
        let like = self.roots.contains_key(&root).then_some(Like { root, changed });
        self.store_items(items, like.as_ref())
    }

    fn store_items(&mut self, items: &[Item], like: Option<&Like>) -> Result<u32, Full> {
        let Some(root) = build::build(&mut self.blocks, &mut self.store, items, like) else {
            // The tables that are held were whole before, so they are now.
            let _ = self.recount();
            return Err(Full { length: self.store.length() });
        };
        *self.roots.entry(root).or_default() += 1;
        Ok(root)
    }

    /// Frees what only the table at `root` needed. No packet may be on its way through it any more.
    pub fn remove(&mut self, root: u32) {
        if let Some(held) = self.roots.get_mut(&root) {
            *held -= 1;
            if *held == 0 {
                self.roots.remove(&root);
            }
            self.blocks.release(&self.store, Reference::Page(root));
            for chunk in self.blocks.take_vacant() {
                self.store.vacate(chunk);
            }
        }
    }

    fn recount(&mut self) -> Result<(), Damaged> {
        self.blocks = Blocks::new(self.store.length());
        for (root, held) in &self.roots {
            for _ in 0..*held {
                self.blocks.hold(&self.store, Reference::Page(*root), 0).ok_or(Damaged { root: *root })?;
            }
        }
        self.blocks.close_gaps();
        for chunk in (0..self.store.length().div_ceil(CHUNK_UNITS)).filter(|chunk| !self.blocks.is_needed(*chunk)) {
            self.store.vacate(chunk);
        }
        Ok(())
    }

    /// Units in use.
    pub fn used(&self) -> u32 {
        self.blocks.used()
    }

    /// Units written so far.
    pub fn written(&self) -> u64 {
        self.blocks.written()
    }

    /// Whether no table is left.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// The units.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The units, for a caller that changes how they are written.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// Gives the units back.
    pub fn into_store(self) -> S {
        self.store
    }
}

#[cfg(test)]
mod tests;
