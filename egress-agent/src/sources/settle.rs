//! When a burst of changes is over: pure, time is an argument.
//!
//! A change is acted on once nothing else changed for [`QUIET`] and no file is still open after a write; but never later than
//! [`LONGEST`] after the first one, so that a writer that never stops cannot hold a policy back.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Silence that ends a burst.
pub(super) const QUIET: Duration = Duration::from_millis(30);
/// Longest wait while changes go on.
pub(super) const LONGEST: Duration = Duration::from_millis(500);
/// Longest wait for a writer that keeps its file open.
pub(super) const LONGEST_WRITE: Duration = Duration::from_secs(2);

/// One thing that happened to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Bytes were written and the file is still open.
    Writing(PathBuf),
    /// A file that was written is closed.
    Closed(PathBuf),
    /// Anything else: created, removed, renamed, attributes.
    Other,
}

/// The burst that is going on, if any.
#[derive(Debug, Default)]
pub(super) struct Settle {
    burst: Option<(Instant, Instant)>,
    open: BTreeSet<PathBuf>,
}

impl Settle {
    /// Notes a change at `now`.
    pub(super) fn note(&mut self, now: Instant, change: Change) {
        let first = self.burst.map_or(now, |(first, _)| first);
        self.burst = Some((first, now));
        match change {
            Change::Writing(path) => drop(self.open.insert(path)),
            Change::Closed(path) => drop(self.open.remove(&path)),
            Change::Other => {}
        }
    }

    /// When to act, if nothing else happens; `None` while there is nothing to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let (first, last) = self.burst?;
        Some(if self.open.is_empty() { (last + QUIET).min(first + LONGEST) } else { first + LONGEST_WRITE })
    }

    /// Whether to act at `now`; if so, the burst is over.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let due = self.due().is_some_and(|due| due <= now);
        if due {
            *self = Self::default();
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_due_before_something_changes() {
        assert_eq!(Settle::default().due(), None);
    }

    #[test]
    fn a_burst_is_one_change_and_ends_with_silence() {
        let start = Instant::now();
        let mut settle = Settle::default();
        for step in 0..5 {
            settle.note(start + QUIET / 2 * step, Change::Other);
            assert!(!settle.take(start + QUIET / 2 * step));
        }
        assert!(settle.take(start + QUIET * 3));
        assert!(!settle.take(start + QUIET * 9));
    }

    #[test]
    fn a_stream_of_changes_is_acted_on_after_the_longest_wait() {
        let start = Instant::now();
        let mut settle = Settle::default();
        for step in 0..100 {
            settle.note(start + QUIET / 3 * step, Change::Other);
        }
        assert_eq!(settle.due(), Some(start + LONGEST));
    }

    #[test]
    fn a_file_that_is_still_being_written_is_waited_for_but_not_for_ever() {
        let start = Instant::now();
        let mut settle = Settle::default();
        settle.note(start, Change::Writing("a.yaml".into()));
        assert!(!settle.take(start + QUIET * 2));
        assert_eq!(settle.due(), Some(start + LONGEST_WRITE));
        settle.note(start + QUIET * 4, Change::Closed("a.yaml".into()));
        assert!(settle.take(start + QUIET * 5));
    }
}
