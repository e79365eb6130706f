//! The class array under construction: equal classes, and equal states, are stored once.
//!
//! Invariant: no two classes in the array have the same intervals, so leaves are equal if and only if they say the same. No state lies at
//! index 0, which stands for "none"; leaves lead only to headers and intervals only to states, so the two are never taken for each other.

use std::hash::BuildHasher;

use egress_common::class::{BLOCK, ClassEntries as _, ClassEntry, MAX_INTERVALS};
use egress_common::names::State;
use hashbrown::hash_map::Entry;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use super::{CompileError, Entries, Resource};

#[derive(Debug)]
pub(super) struct Classes {
    entries: Entries,
    /// Indexes of the headers, found by the content behind them.
    index: HashTable<u32>,
    /// Indexes of the states.
    states: HashMap<State, u32>,
    hasher: DefaultHashBuilder,
    limit: usize,
}

impl Classes {
    pub(super) fn new(limit: usize) -> Self {
        let (entries, index, states) = (Entries::default(), HashTable::new(), HashMap::new());
        Self { entries, index, states, hasher: DefaultHashBuilder::default(), limit }
    }

    /// The index of the class with these intervals.
    pub(super) fn class(&mut self, intervals: &[ClassEntry]) -> Result<u32, CompileError> {
        let Self { entries, index, hasher, limit, .. } = self;
        let hash = hasher.hash_one(intervals);
        if let Some(base) = index.find(hash, |base| class_at(entries, *base) == Some(intervals)) {
            return Ok(*base);
        }
        let most = usize::try_from(MAX_INTERVALS).unwrap_or(usize::MAX);
        let header = u32::try_from(intervals.len())
            .ok()
            .filter(|count| *count <= MAX_INTERVALS)
            .ok_or(CompileError::Capacity { what: Resource::ClassIntervals, needed: intervals.len(), limit: most })?;
        // A class that fits into a block lies in one.
        let block = usize::try_from(BLOCK).unwrap_or(1);
        let (used, length) = (entries.len() % block, 1 + intervals.len());
        let gap = if length <= block && used + length > block { block - used } else { 0 };
        let base = room(entries, gap + length, *limit)? + u32::try_from(gap).unwrap_or(0);
        fill(entries, gap);
        entries.push(ClassEntry::header(header));
        entries.extend(intervals);
        index.insert_unique(hash, base, |base| hasher.hash_one(class_at(entries, *base).unwrap_or_default()));
        Ok(base)
    }

    /// The index of the first of the two entries that hold `state`.
    pub(super) fn state(&mut self, state: State) -> Result<u32, CompileError> {
        let Self { entries, states, limit, .. } = self;
        let vacant = match states.entry(state) {
            Entry::Occupied(found) => return Ok(*found.get()),
            Entry::Vacant(vacant) => vacant,
        };
        let pair = state.to_entries();
        let gap = if entries.is_empty() { pair.len() } else { entries.len() % pair.len() };
        let at = room(entries, gap + pair.len(), *limit)? + u32::try_from(gap).unwrap_or(0);
        fill(entries, gap);
        entries.extend(&pair);
        Ok(*vacant.insert(at))
    }

    pub(super) fn entries(&self) -> &Entries {
        &self.entries
    }

    /// Shares what there is with the tables of all versions to come.
    pub(super) fn settle(&mut self) {
        self.entries.settle();
    }

    pub(super) fn into_entries(self) -> Entries {
        self.entries
    }
}

/// Adds classes without intervals, which say nothing.
fn fill(entries: &mut Entries, count: usize) {
    (0..count).for_each(|_| entries.push(ClassEntry::default()));
}

/// The index of the next entry, if `more` fit.
fn room(entries: &Entries, more: usize, limit: usize) -> Result<u32, CompileError> {
    let needed = entries.len() + more;
    let full = CompileError::Capacity { what: Resource::ClassEntries, needed, limit };
    if needed > limit {
        return Err(full);
    }
    u32::try_from(entries.len()).map_err(|_| full)
}

fn class_at(entries: &Entries, base: u32) -> Option<&[ClassEntry]> {
    let first = usize::try_from(base).ok()? + 1;
    entries.slice(first..first + usize::try_from(entries.entry(base)?.from).ok()?)
}
