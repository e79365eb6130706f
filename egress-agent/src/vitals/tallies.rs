//! Events by what they are about, in label sets that cannot grow without bound.

use std::collections::{BTreeMap, BTreeSet};

use crate::events::Record;

use super::OTHER;

/// Namespaces with a count of their own.
const MOST_NAMESPACES: usize = 256;

/// Names up to a number; every further one is `other`. What was admitted once stays, so that no series changes its meaning.
#[derive(Debug)]
pub(crate) struct Bounded<K> {
    most: usize,
    known: BTreeSet<K>,
}

impl<K: Ord + Clone> Bounded<K> {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, known: BTreeSet::new() }
    }

    /// Whether `key` has, or gets, a place of its own.
    pub(crate) fn admits(&mut self, key: &K) -> bool {
        self.known.contains(key) || (self.known.len() < self.most && self.known.insert(key.clone()))
    }
}

/// Counts of events since the agent started.
#[derive(Debug)]
pub(crate) struct Tallies {
    namespaces: Bounded<String>,
    events: BTreeMap<(String, String), u64>,
    pub(crate) lines_written: u64,
    pub(crate) lines_failed: u64,
}

impl Default for Tallies {
    fn default() -> Self {
        let namespaces = Bounded::new(MOST_NAMESPACES);
        Self { namespaces, events: BTreeMap::new(), lines_written: 0, lines_failed: 0 }
    }
}

impl Tallies {
    pub(super) fn saw(&mut self, record: &Record) {
        let namespace = record.namespace.clone().unwrap_or_default();
        let namespace = if self.namespaces.admits(&namespace) { namespace } else { OTHER.to_owned() };
        *self.events.entry((namespace, record.outcome.clone().into_owned())).or_default() += record.times();
    }

    pub(super) fn logged(&mut self, lines: usize, written: bool) {
        let count = if written { &mut self.lines_written } else { &mut self.lines_failed };
        *count += u64::try_from(lines).unwrap_or(u64::MAX);
    }

    /// By namespace and outcome, repeats included.
    pub(crate) fn events(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.events.iter().map(|((namespace, outcome), count)| (namespace.as_str(), outcome.as_str(), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::sample;

    #[test]
    fn namespaces_beyond_the_bound_are_counted_as_other_and_none_is_lost() {
        let mut tallies = Tallies::default();
        for number in 0..MOST_NAMESPACES + 10 {
            let namespace = Some(format!("n{number}"));
            tallies.saw(&Record { namespace, repeats: 2, ..sample() });
        }
        assert_eq!(tallies.events().count(), MOST_NAMESPACES + 1);
        let other = tallies.events().find(|(namespace, ..)| *namespace == OTHER);
        assert_eq!(other, Some((OTHER, "denied", 30)));
        tallies.saw(&Record { namespace: Some("n0".into()), repeats: 0, ..sample() });
        assert!(tallies.events().any(|row| row == ("n0", "denied", 4)));
    }
}
