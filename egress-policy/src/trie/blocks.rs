//! Blocks of units: which are in use, how often each is led to, and which has which content.
//!
//! Invariant: two blocks in use never have the same content and shape, and the units of a block in use are never written. No block is in two
//! chunks.

use std::collections::BTreeSet;
use std::hash::BuildHasher as _;
use std::ops::Range;

use egress_common::trie::{Base, CHUNK_UNITS, Entry, PAGE_UNITS, Unit};
use hashbrown::{DefaultHashBuilder, HashTable};

use super::Store;

/// Longest block: 64 children, or 63 and the leaves of a node beside them.
const LONGEST: usize = 72;
/// [`Block::nodes`] of a page and of a fan, whose words are entries.
const ENTRIES: u8 = u8::MAX;
/// Deepest way from a root, in blocks.
const DEEPEST: u32 = 24;

/// What leads to a block says how to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    Page(u32),
    Fan(u32),
    /// First unit, number of nodes, and of units with twigs and leaves behind them.
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
    /// First units of free blocks, by length. The lowest are taken first, so that chunks far up fall vacant.
    free: Vec<BTreeSet<u32>>,
    /// What new blocks are taken from: the rest of a chunk.
    fresh: Range<u32>,
    /// Units in use, by chunk. Chunks of which none is in use are not in `free`.
    live: Vec<u32>,
    /// Chunks that may have been in use and no longer are.
    vacant: Vec<u32>,
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
            free: vec![BTreeSet::new(); LONGEST + 1],
            fresh: 0..0,
            live: Vec::new(),
            vacant: Vec::new(),
            length,
            used: 0,
            written: 0,
        }
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
        let nodes = nodes.unwrap_or(ENTRIES);
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
        store.write(start, units)?;
        self.written += u64::try_from(units.len()).unwrap_or(0);
        self.register(store, start, Block { references: 1, units: u8::try_from(units.len()).ok()?, nodes }, hash);
        Some(start)
    }

    /// Holds a block in use once more.
    pub(super) fn retain(&mut self, reference: Reference) {
        let (Reference::Page(start) | Reference::Fan(start) | Reference::Nodes(start, _, _)) = reference;
        if let Some(block) = at(&mut self.starts, start) {
            block.references += 1;
        }
    }

    /// Lets go of a block once; frees it, and lets go of what it leads to, if nobody else holds it.
    pub(super) fn release<S: Store>(&mut self, store: &S, reference: Reference) {
        let (Reference::Page(start) | Reference::Fan(start) | Reference::Nodes(start, _, _)) = reference;
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
        if let Some(live) = at(&mut self.live, chunk(start)) {
            *live -= u32::from(length);
            if *live == 0 {
                self.vacant.push(chunk(start));
            }
        }
        self.give(start, usize::from(length));
        for reference in references(&units, nodes) {
            self.release(store, reference);
        }
    }

    /// Takes note of a block that is there, and of what it leads to. `None` if it makes no sense.
    pub(super) fn hold<S: Store>(&mut self, store: &S, reference: Reference, depth: u32) -> Option<()> {
        let (start, length, nodes) = match reference {
            Reference::Page(start) => (start, u8::try_from(PAGE_UNITS).ok()?, ENTRIES),
            Reference::Fan(start) => (start, 1, ENTRIES),
            Reference::Nodes(start, nodes, behind) => (start, nodes + behind, nodes),
        };
        let end = start.checked_add(u32::from(length))?;
        if depth > DEEPEST || end > self.length || end > chunk_end(start) {
            return None;
        }
        if let Some(block) = at(&mut self.starts, start).filter(|block| block.references > 0) {
            block.references += 1;
            return (block.units == length && block.nodes == nodes).then_some(());
        }
        let units = content(store, start, length);
        if units.len() != usize::from(length) {
            return None;
        }
        let hash = self.hasher.hash_one((nodes, units.as_slice()));
        self.register(store, start, Block { references: 1, units: length, nodes }, hash);
        let is_fan = matches!(reference, Reference::Fan(_));
        references(&units, nodes).into_iter().try_for_each(|below| {
            // Who walks looks for one fan only.
            if is_fan && matches!(below, Reference::Fan(_)) { None } else { self.hold(store, below, depth + 1) }
        })
    }

    /// After [`hold`](Self::hold): what lies between the blocks of a chunk is free.
    pub(super) fn close_gaps(&mut self) {
        for chunk in (0..).zip(self.live.clone()).filter(|(_, live)| *live > 0).map(|(chunk, _)| chunk) {
            let Range { start, end } = self.units_of(chunk);
            let (mut unit, mut gap) = (start, start);
            while unit < end {
                let block = at(&mut self.starts, unit).filter(|block| block.references > 0);
                let length = block.map_or(0, |block| u32::from(block.units));
                if length > 0 {
                    self.give_all(gap..unit);
                    gap = unit + length;
                }
                unit += length.max(1);
            }
            self.give_all(gap..end);
        }
    }

    /// Whether units of a chunk are in use.
    pub(super) fn is_needed(&self, chunk: u32) -> bool {
        usize::try_from(chunk).ok().and_then(|chunk| self.live.get(chunk)).is_some_and(|live| *live > 0)
    }

    /// Chunks of which nothing is in use any more, since this was last asked. Their units are fresh again.
    pub(super) fn take_vacant(&mut self) -> Vec<u32> {
        let mut vacant = std::mem::take(&mut self.vacant);
        vacant.retain(|chunk| !self.is_needed(*chunk));
        vacant.sort_unstable();
        vacant.dedup();
        if !vacant.is_empty() {
            let is_vacant = |start: u32| vacant.binary_search(&chunk(start)).is_ok();
            self.free.iter_mut().for_each(|free| free.retain(|start| !is_vacant(*start)));
            if is_vacant(self.fresh.start) {
                self.fresh = 0..0;
            }
        }
        vacant
    }

    fn units_of(&self, chunk: u32) -> Range<u32> {
        let start = chunk * CHUNK_UNITS;
        start..chunk_end(start).min(self.length)
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
        let in_chunk = usize::try_from(chunk(start)).unwrap_or(usize::MAX);
        if self.live.len() <= in_chunk {
            self.live.resize(in_chunk + 1, 0);
        }
        if let Some(live) = self.live.get_mut(in_chunk) {
            *live += u32::from(block.units);
        }
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

    /// The first unit of `length` free ones: what was freed, else of a chunk that is begun, else a piece of what was freed, else of another
    /// chunk.
    fn take(&mut self, length: usize) -> Option<u32> {
        if let Some(start) = self.free.get_mut(length)?.pop_first() {
            return Some(start);
        }
        let needed = u32::try_from(length).ok()?;
        if self.fresh.end - self.fresh.start < needed {
            let is_there = |longer: &usize| self.free.get(*longer).is_some_and(|free| !free.is_empty());
            if let Some(longer) = (length + 1..=LONGEST).find(is_there) {
                let start = self.free.get_mut(longer)?.pop_first()?;
                self.give(start + needed, longer - length);
                return Some(start);
            }
            let rest = std::mem::take(&mut self.fresh);
            self.fresh = self.fresh_chunk(&rest).filter(|fresh| fresh.end - fresh.start >= needed)?;
            self.give_all(rest);
        }
        let start = self.fresh.start;
        self.fresh.start += needed;
        Some(start)
    }

    /// The first chunk of which nothing is in use, and that `begun` is not the rest of.
    fn fresh_chunk(&self, begun: &Range<u32>) -> Option<Range<u32>> {
        let is_free =
            |chunk: &u32| !self.is_needed(*chunk) && (begun.is_empty() || *chunk != begun.start / CHUNK_UNITS);
        (0..self.length.div_ceil(CHUNK_UNITS)).find(is_free).map(|chunk| self.units_of(chunk))
    }

    fn give(&mut self, start: u32, length: usize) {
        if let Some(free) = self.free.get_mut(length) {
            free.insert(start);
        }
    }

    fn give_all(&mut self, Range { mut start, end }: Range<u32>) {
        while start < end {
            let length = usize::try_from(end - start).unwrap_or(LONGEST).min(LONGEST);
            self.give(start, length);
            start += u32::try_from(length).unwrap_or(u32::MAX);
        }
    }
}

fn at<T>(all: &mut [T], index: u32) -> Option<&mut T> {
    all.get_mut(usize::try_from(index).ok()?)
}

/// The chunk that a unit is in.
fn chunk(unit: u32) -> u32 {
    unit / CHUNK_UNITS
}

/// Where the chunk of a unit ends.
fn chunk_end(unit: u32) -> u32 {
    unit - unit % CHUNK_UNITS + CHUNK_UNITS
}

fn content<S: Store>(store: &S, start: u32, length: u8) -> Vec<Unit> {
    (start..start + u32::from(length)).filter_map(|index| store.unit(index)).copied().collect()
}

fn equal<S: Store>(store: &S, start: u32, units: &[Unit]) -> bool {
    (start..).zip(units).all(|(index, unit)| store.unit(index) == Some(unit))
}

/// What a block leads to.
fn references(units: &[Unit], nodes: u8) -> Vec<Reference> {
    if nodes == ENTRIES {
        return units.iter().flat_map(|unit| (0..8).filter_map(|word| of_entry(Entry(unit.word(word))))).collect();
    }
    units.iter().take(usize::from(nodes)).filter_map(of_node).collect()
}

pub(super) fn of_entry(entry: Entry) -> Option<Reference> {
    match entry.as_leaf() {
        Some(_) => None,
        None if entry.is_fan() => Some(Reference::Fan(entry.index())),
        None => Some(Reference::Nodes(entry.index(), 1, 0)),
    }
}

fn of_node(unit: &Unit) -> Option<Reference> {
    let base = Base(unit.base);
    if base.has(Base::SKIP) {
        return (!base.has(Base::OUTSIDE)).then_some(Reference::Nodes(base.index(), 1, 0));
    }
    let nodes = unit.nodes().count_ones();
    let runs = (unit.runs & !unit.children).count_ones();
    let behind = unit.twig_units() + if base.has(Base::OUTSIDE) { runs.div_ceil(8) } else { 0 };
    // Before the first unit of all stands nothing: `hold` refuses what would lie there, because it ends beyond the last one.
    let start = base.index().wrapping_sub(nodes);
    let small = |count: u32| u8::try_from(count).unwrap_or(u8::MAX);
    (nodes > 0 || behind > 0).then_some(Reference::Nodes(start, small(nodes), small(behind)))
}
