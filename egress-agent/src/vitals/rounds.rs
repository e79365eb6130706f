//! How the rounds of the reconciler went.

use std::time::{Duration, Instant, SystemTime};

use prometheus_client::metrics::histogram::Histogram;

use crate::cli::chain;
use crate::datapath::DatapathError;
use crate::reconcile::{Outcome, Status};

/// Upper bounds of the apply time, seconds: one pod takes milliseconds, a million prefixes take some seconds.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0];

/// The last round and counts of all.
#[derive(Debug)]
pub(crate) struct Rounds {
    /// The last one that succeeded.
    pub(crate) last: Option<Last>,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    /// Why the last one failed, if it did.
    pub(crate) error: Option<String>,
    /// Time that rounds took in which something had changed.
    pub(crate) took: Histogram,
    ended: Instant,
}

/// A round that succeeded.
#[derive(Clone, Debug)]
pub(crate) struct Last {
    pub(crate) generation: u64,
    pub(crate) status: Status,
    /// When something had changed last.
    pub(crate) applied: SystemTime,
    /// And how long that took.
    pub(crate) took: Duration,
}

impl Default for Rounds {
    fn default() -> Self {
        let took = Histogram::new(SECONDS);
        Self { last: None, succeeded: 0, failed: 0, error: None, took, ended: Instant::now() }
    }
}

impl Rounds {
    pub(super) fn note(&mut self, round: &Result<Outcome, DatapathError>) {
        self.ended = Instant::now();
        let outcome = match round {
            Ok(outcome) => outcome,
            Err(error) => {
                self.failed += 1;
                self.error = Some(chain(error));
                return;
            }
        };
        self.succeeded += 1;
        self.error = None;
        if outcome.changed {
            self.took.observe(outcome.took.as_secs_f64());
        }
        let before = self.last.as_ref().filter(|_| !outcome.changed).map(|last| (last.applied, last.took));
        let (applied, took) = before.unwrap_or((SystemTime::now(), outcome.took));
        self.last = Some(Last { generation: outcome.generation, status: outcome.status.clone(), applied, took });
    }

    /// Time since a round ended, well or not.
    pub(crate) fn idle(&self) -> Duration {
        self.ended.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(changed: bool) -> Outcome {
        let took = Duration::from_millis(if changed { 7 } else { 1 });
        Outcome { generation: 3, status: Status::default(), changed, took, report: None }
    }

    #[test]
    fn a_round_without_a_change_does_not_count_as_an_apply() {
        let mut rounds = Rounds::default();
        rounds.note(&Ok(round(true)));
        let applied = rounds.last.clone().unwrap();
        rounds.note(&Ok(round(false)));
        let last = rounds.last.clone().unwrap();
        assert_eq!((last.applied, last.took), (applied.applied, Duration::from_millis(7)));
        assert_eq!((rounds.succeeded, rounds.failed), (2, 0));
    }

    #[test]
    fn a_failure_is_told_until_a_round_succeeds() {
        let mut rounds = Rounds::default();
        rounds.note(&Err(DatapathError::Missing("anything")));
        assert!(rounds.error.as_ref().unwrap().contains("anything"));
        assert_eq!((rounds.succeeded, rounds.failed), (0, 1));
        rounds.note(&Ok(round(true)));
        assert_eq!(rounds.error, None);
    }
}
