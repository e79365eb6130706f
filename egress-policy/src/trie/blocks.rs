//! Blocks of units: which are in use, how often each is led to, and which has which content.
//!
//! Invariant: two blocks in use never have the same content and shape, and the units behind a block in use are never written.

use std::hash::BuildHasher as _;

use egress_common::trie::{Base, Entry, PAGE_UNITS, Unit};
use hashbrown::{DefaultHashBuilder, HashTable};

use super::Store;

/// Longest block: 64 children, or 63 and the leaves of a node beside them.
const LONGEST: usize = 72;
/// [`Block::nodes`] of a page.
const PAGE: u8 = u8::MAX;
/// Deepest way from a root, in blocks.
const DEEPEST: u32 = 24;

/// What leads to a block says how to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    Page(u32),
    /// First unit, number of nodes, and of units with leaves behind them.
    Nodes(u32, u8, u8),
}

/// A block in use, by its first unit.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    references: u32,
    units: u8,
    nodes: u8,
}

#[derive(Debug)]
pub(super) struct Blocks {
    /// By first unit; `references` is 0 everywhere else.
    starts: Vec<Block>,
    /// First units of the blocks in use, by content.
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// First units of free blocks, by length.
    free: Vec<Vec<u32>>,
    /// Everything from here on is free.
    top: u32,
    length: u32,
    used: u32,
    written: u64,
}

impl Blocks {
    pub(super) fn new(length: u32) -> Self {
        Self {
            starts: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            free: vec![Vec::new(); LONGEST + 1],
            top: 0,
            length,
            used: 0,
            written: 0,
        }
    }

    /// Everything from here on is free.
    pub(super) fn top(&self) -> u32 {
        self.top
    }

    /// The same blocks among `length` units.
    pub(super) fn of_length(self, length: u32) -> Self {
        Self { length, ..self }
    }

    pub(super) fn used(&self) -> u32 {
        self.used
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// A block with this content, of which the first `nodes` units are nodes; all of it is entries if that is `None`. Takes over the
    /// caller's hold on what the content leads to, and returns a hold on the block. `None`: no room.
    pub(super) fn intern<S: Store>(&mut self, store: &mut S, units: &[Unit], nodes: Option<u8>) -> Option<u32> {
        let nodes = nodes.unwrap_or(PAGE);
        let hash = self.hasher.hash_one((nodes, units));
        let same = |start: &u32| self.shape(*start) == (units.len(), nodes) && equal(store, *start, units);
        if let Some(start) = self.index.find(hash, same).copied() {
            if let Some(block) = at(&mut self.starts, start) {
                block.references += 1;
            }
            // The block that is there holds these itself.
            for reference in references(units, nodes) {
                self.release(store, reference);
            }
            return Some(start);
        }
        let start = self.take(units.len())?;
        store.write(start, units);
        self.written += u64::try_from(units.len()).unwrap_or(0);
        self.register(store, start, Block { references: 1, units: u8::try_from(units.len()).ok()?, nodes }, hash);
        Some(start)
    }

    /// Holds a block in use once more.
    pub(super) fn retain(&mut self, reference: Reference) {
        let (Reference::Page(start) | Reference::Nodes(start, _, _)) = reference;
        if let Some(block) = at(&mut self.starts, start) {
            block.references += 1;
        }
    }

    /// Lets go of a block once; frees it, and lets go of what it leads to, if nobody else holds it.
    pub(super) fn release<S: Store>(&mut self, store: &S, reference: Reference) {
        let (Reference::Page(start) | Reference::Nodes(start, _, _)) = reference;
        let Some(block) = at(&mut self.starts, start).filter(|block| block.references > 0) else { return };
        block.references -= 1;
        if block.references > 0 {
            return;
        }
        let (length, nodes) = (block.units, block.nodes);
        let units = content(store, start, length);
        let hash = self.hasher.hash_one((nodes, units.as_slice()));
        if let Ok(found) = self.index.find_entry(hash, |at| *at == start) {
            found.remove();
        }
        self.used -= u32::from(length);
        self.give(start, usize::from(length));
        for reference in references(&units, nodes) {
            self.release(store, reference);
        }
    }

    /// Takes note of a block that is there, and of what it leads to. `None` if it makes no sense.
    pub(super) fn hold<S: Store>(&mut self, store: &S, reference: Reference, depth: u32) -> Option<()> {
        let (start, length, nodes) = match reference {
            Reference::Page(start) => (start, u8::try_from(PAGE_UNITS).ok()?, PAGE),
            Reference::Nodes(start, nodes, leaves) => (start, nodes + leaves, nodes),
        };
        if depth > DEEPEST || start.checked_add(u32::from(length)).is_none_or(|end| end > self.length) {
            return None;
        }
        if let Some(block) = at(&mut self.starts, start).filter(|block| block.references > 0) {
            block.references += 1;
            return (block.units == length && block.nodes == nodes).then_some(());
        }
        let units = content(store, start, length);
        let hash = self.hasher.hash_one((nodes, units.as_slice()));
        self.top = self.top.max(start + u32::from(length));
        self.register(store, start, Block { references: 1, units: length, nodes }, hash);
        references(&units, nodes).into_iter().try_for_each(|reference| self.hold(store, reference, depth + 1))
    }

    /// After [`hold`](Self::hold): what lies between the blocks is free.
    pub(super) fn close_gaps(&mut self) {
        let (mut unit, mut gap) = (0, 0);
        while unit < self.top {
            let length = at(&mut self.starts, unit).filter(|block| block.references > 0).map_or(0, |block| block.units);
            if length == 0 {
                unit += 1;
                continue;
            }
            self.give_all(gap, unit);
            unit += u32::from(length);
            gap = unit;
        }
    }

    fn register<S: Store>(&mut self, store: &S, start: u32, block: Block, hash: u64) {
        let wanted = usize::try_from(start).unwrap_or(usize::MAX).saturating_add(1);
        if self.starts.len() < wanted {
            self.starts.resize(wanted, Block::default());
        }
        if let Some(place) = at(&mut self.starts, start) {
            *place = block;
        }
        self.used += u32::from(block.units);
        let Self { index, starts, hasher, .. } = self;
        index.insert_unique(hash, start, |start| {
            let block = usize::try_from(*start).ok().and_then(|start| starts.get(start)).copied().unwrap_or_default();
            hasher.hash_one((block.nodes, content(store, *start, block.units).as_slice()))
        });
    }

    fn shape(&self, start: u32) -> (usize, u8) {
        let block = usize::try_from(start).ok().and_then(|start| self.starts.get(start)).copied().unwrap_or_default();
        (usize::from(block.units), block.nodes)
    }

    /// The first unit of `length` free ones: what was freed before what was never used, and a piece of a longer block last.
    fn take(&mut self, length: usize) -> Option<u32> {
        if let Some(start) = self.free.get_mut(length)?.pop() {
            return Some(start);
        }
        let needed = u32::try_from(length).ok()?;
        if self.length - self.top >= needed {
            let start = self.top;
            self.top += needed;
            return Some(start);
        }
        let longer =
            (length + 1..=LONGEST).find(|longer| self.free.get(*longer).is_some_and(|free| !free.is_empty()))?;
        let start = self.free.get_mut(longer)?.pop()?;
        self.give(start + needed, longer - length);
        Some(start)
    }

    fn give(&mut self, start: u32, length: usize) {
        if let Some(free) = self.free.get_mut(length) {
            free.push(start);
        }
    }

    fn give_all(&mut self, mut start: u32, end: u32) {
        while start < end {
            let length = usize::try_from(end - start).unwrap_or(LONGEST).min(LONGEST);
            self.give(start, length);
            start += u32::try_from(length).unwrap_or(u32::MAX);
        }
    }
}

fn at(blocks: &mut [Block], start: u32) -> Option<&mut Block> {
    blocks.get_mut(usize::try_from(start).ok()?)
}

fn content<S: Store>(store: &S, start: u32, length: u8) -> Vec<Unit> {
    (start..start + u32::from(length)).filter_map(|index| store.unit(index)).copied().collect()
}

fn equal<S: Store>(store: &S, start: u32, units: &[Unit]) -> bool {
    (start..).zip(units).all(|(index, unit)| store.unit(index) == Some(unit))
}

/// What a block leads to.
fn references(units: &[Unit], nodes: u8) -> Vec<Reference> {
    if nodes == PAGE {
        return units.iter().flat_map(|unit| (0..8).filter_map(|word| of_entry(Entry(unit.word(word))))).collect();
    }
    units.iter().take(usize::from(nodes)).filter_map(of_node).collect()
}

pub(super) fn of_entry(entry: Entry) -> Option<Reference> {
    match entry.as_leaf() {
        Some(_) => None,
        None if entry.is_page() => Some(Reference::Page(entry.index())),
        None => Some(Reference::Nodes(entry.index(), 1, 0)),
    }
}

fn of_node(unit: &Unit) -> Option<Reference> {
    let base = Base(unit.base);
    if base.has(Base::SKIP) {
        return (!base.has(Base::OUTSIDE)).then_some(Reference::Nodes(base.index(), 1, 0));
    }
    let children = u8::try_from(unit.children.count_ones()).unwrap_or(u8::MAX);
    let leaves = if base.has(Base::OUTSIDE) { unit.runs.count_ones().div_ceil(8) } else { 0 };
    let leaves = u8::try_from(leaves).unwrap_or(u8::MAX);
    (children > 0 || leaves > 0).then_some(Reference::Nodes(base.index(), children, leaves))
}
