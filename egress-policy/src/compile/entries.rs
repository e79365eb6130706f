//! The entries of a class array, whose beginning all versions of a table have in common.

use std::ops::Range;
use std::sync::Arc;

use egress_common::class::{ClassEntries, ClassEntry};

/// A class array that grows. Cheap to clone: what it held when it was last [settled](Entries::settle) is shared.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    shared: Arc<Vec<ClassEntry>>,
    own: Vec<ClassEntry>,
}

impl Entries {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.shared.len() + self.own.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry at `index`.
    pub fn get(&self, index: usize) -> Option<&ClassEntry> {
        self.slice(index..index.checked_add(1)?)?.first()
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = &ClassEntry> {
        self.shared.iter().chain(&self.own)
    }

    /// Whether these are `others`, and what came behind them.
    pub fn begins_with(&self, others: &Self) -> bool {
        if Arc::ptr_eq(&self.shared, &others.shared) {
            self.own.starts_with(&others.own)
        } else {
            self.len() >= others.len() && self.iter().zip(others.iter()).all(|(one, other)| one == other)
        }
    }

    /// Shares what there is with the clones to come.
    pub(super) fn settle(&mut self) {
        let entries = self.iter().copied().collect();
        *self = Self { shared: Arc::new(entries), own: Vec::new() };
    }

    pub(super) fn push(&mut self, entry: ClassEntry) {
        self.own.push(entry);
    }

    pub(super) fn extend(&mut self, entries: &[ClassEntry]) {
        self.own.extend_from_slice(entries);
    }

    /// Entries that were added together.
    pub(super) fn slice(&self, range: Range<usize>) -> Option<&[ClassEntry]> {
        match range.start.checked_sub(self.shared.len()) {
            None => self.shared.get(range),
            Some(start) => self.own.get(start..range.end.checked_sub(self.shared.len())?),
        }
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.begins_with(other)
    }
}

impl Eq for Entries {}

impl ClassEntries for Entries {
    fn entry(&self, index: u32) -> Option<ClassEntry> {
        self.get(usize::try_from(index).ok()?).copied()
    }
}
