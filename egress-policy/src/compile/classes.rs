//! The class array under construction: equal classes are stored once.
//!
//! Invariant: no two classes in the array have the same intervals, so leaves are equal if and only if they say the same.

use std::hash::BuildHasher;

use egress_common::class::{ClassEntry, MAX_INTERVALS};
use egress_common::table::Leaf;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::{CompileError, Resource};

pub(super) struct Classes {
    entries: Vec<ClassEntry>,
    /// Indexes of the headers, found by the content behind them.
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    limit: usize,
}

impl Classes {
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: Vec::new(), index: HashTable::new(), hasher: DefaultHashBuilder::default(), limit }
    }

    /// The leaf of the class with these intervals.
    pub(super) fn leaf(&mut self, intervals: &[ClassEntry]) -> Result<Leaf, CompileError> {
        let Self { entries, index, hasher, limit } = self;
        let hash = hasher.hash_one(intervals);
        if let Some(base) = index.find(hash, |base| class_at(entries, *base) == Some(intervals)) {
            return Ok(Leaf::class(*base));
        }
        let most = usize::try_from(MAX_INTERVALS).unwrap_or(usize::MAX);
        let header = u32::try_from(intervals.len())
            .ok()
            .filter(|count| *count <= MAX_INTERVALS)
            .ok_or(CompileError::Capacity { what: Resource::ClassIntervals, needed: intervals.len(), limit: most })?;
        let needed = entries.len() + 1 + intervals.len();
        let full = CompileError::Capacity { what: Resource::ClassEntries, needed, limit: *limit };
        if needed > *limit {
            return Err(full);
        }
        let base = u32::try_from(entries.len()).map_err(|_| full)?;
        entries.push(ClassEntry { from: header, ..ClassEntry::default() });
        entries.extend_from_slice(intervals);
        index.insert_unique(hash, base, |base| hasher.hash_one(class_at(entries, *base).unwrap_or_default()));
        Ok(Leaf::class(base))
    }

    pub(super) fn into_entries(self) -> Vec<ClassEntry> {
        self.entries
    }
}

fn class_at(entries: &[ClassEntry], base: u32) -> Option<&[ClassEntry]> {
    let (header, rest) = entries.get(usize::try_from(base).ok()?..)?.split_first()?;
    rest.get(..usize::try_from(header.from).ok()?)
}
