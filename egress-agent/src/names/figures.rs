//! Figures about replies and lookups, for the metrics and for `dump names`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Upper bounds of the buckets of [`Histogram`], in seconds.
pub(crate) const BOUNDS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// How long something took, how often.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Histogram {
    /// One for each of [`BOUNDS`], and one for what is longer than all of them; not cumulative.
    counts: [u64; BOUNDS.len() + 1],
    seconds: f64,
}

impl Histogram {
    pub(crate) fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.seconds += seconds;
    }

    /// How many were counted.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Bounds with the number of those up to each, as Prometheus wants them; the last bound is infinite.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let sums = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        bounds.zip(sums)
    }

    /// All durations together, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.seconds
    }
}

/// What happened since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Figures {
    /// Replies to pods, by what became of them.
    pub(crate) replies: BTreeMap<String, u64>,
    /// From a pod's query to the reply.
    pub(crate) reply_latency: Histogram,
    /// Records of the ring that no message could be read from.
    pub(crate) unreadable: u64,
    /// Lookups of the agent that were answered, also that there is nothing.
    pub(crate) lookups_answered: u64,
    /// Lookups that failed.
    pub(crate) lookups_failed: u64,
    /// Lookups that were not begun because too many were wanted at once.
    pub(crate) lookups_refused: u64,
    /// Internal addresses in answers to the agent: not stored (§5.6).
    pub(crate) internal: u64,
    /// Answers that the kernel did not take.
    pub(crate) not_stored: u64,
    /// Names and addresses that gave way to others in the agent's memory.
    pub(crate) evicted: u64,
    /// Addresses that the agent removed from the kernel after their end.
    pub(crate) swept: u64,
    /// Addresses in the kernel, and how many there may be.
    pub(crate) addresses: u64,
    /// See `addresses`.
    pub(crate) addresses_limit: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_bucket_that_they_fit() {
        let mut histogram = Histogram::default();
        for micros in [0, 500, 501, 10_000_000, 10_000_001] {
            histogram.add(Duration::from_micros(micros));
        }
        let cumulative: Vec<(f64, u64)> = histogram.cumulative().collect();
        assert_eq!(cumulative[..2], [(0.0005, 2), (0.001, 3)]);
        assert_eq!(cumulative[13..], [(10.0, 4), (f64::INFINITY, 5)]);
        assert_eq!(histogram.count(), 5);
        assert!((histogram.seconds() - 20.001_002).abs() < 1e-9);
    }
}
