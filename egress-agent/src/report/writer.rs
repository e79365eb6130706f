//! Keeps the state of this node on the API server: one write for many rounds, a sign of life where nothing changes.
//!
//! Invariant: at most one write in [`LEAST`], and after a change that concerns every node at once each node waits for a time of its
//! own, so that all together write no more than [`RATE`] times a second however many there are.

use std::time::Duration;

use egress_policy::status::NodeState;
use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

use super::api::{Backoff, NodeStates, is_missing};
use super::{Clock, Reporter, Round, node};

/// Writes of all nodes in a second.
pub(super) const RATE: usize = 200;
/// Changes within this time are one.
const SETTLE: Duration = Duration::from_secs(1);
/// Longest wait before a change is written.
const LONGEST: Duration = Duration::from_mins(1);
/// Least time between two writes.
const LEAST: Duration = Duration::from_secs(5);
/// The state is renewed at least so often; less for some, so that not all do it at once.
const RENEW: Duration = Duration::from_mins(10);
/// A failure is told in the log when it has lasted this many tries.
const TOLD: u32 = 4;

/// How long a change takes at most until every node of a cluster has written it, if its agents and the API server do their work.
pub(super) fn spread(nodes: usize) -> Duration {
    SETTLE + share(nodes)
}

/// The time over which the nodes spread their writes.
fn share(nodes: usize) -> Duration {
    Duration::from_millis((nodes.saturating_mul(1000) / RATE).try_into().unwrap_or(u64::MAX)).min(LONGEST)
}

/// Writes the state of one node.
pub(super) struct Writer {
    states: NodeStates,
    clock: Clock,
    /// Where in the time that nodes share this one has its place, 0 to 1.
    place: f64,
    written: Option<NodeState>,
    backoff: Backoff,
    failures: u32,
}

impl Writer {
    pub(super) fn new(client: Client, reporter: Reporter) -> Self {
        Self {
            states: NodeStates::new(client, &reporter.node),
            place: reporter.place(),
            clock: reporter.clock,
            written: None,
            backoff: Backoff::default(),
            failures: 0,
        }
    }

    /// Follows `rounds` until nobody makes any more.
    pub(super) async fn run(mut self, mut rounds: watch::Receiver<Option<Round>>) {
        loop {
            let renewal = sleep(RENEW.mul_f64(0.8 + 0.2 * self.place));
            let changed = async {
                loop {
                    let round = rounds.wait_for(Option::is_some).await.map_err(drop)?.clone().unwrap_or_default();
                    if self.written != Some(round.state()) {
                        return Ok(round.nodes);
                    }
                    rounds.changed().await.map_err(drop)?;
                }
            };
            let nodes: Option<usize> = tokio::select! {
                changed = changed => match changed {
                    Ok(nodes) => Some(nodes),
                    Err(()) => return,
                },
                () = renewal => None,
            };
            if let Some(nodes) = nodes {
                sleep(SETTLE + share(nodes).mul_f64(self.place)).await;
            }
            let Some(state) = rounds.borrow_and_update().as_ref().map(Round::state) else { continue };
            let next = Instant::now() + LEAST;
            let renewed = nodes.is_none() && self.written.as_ref() == Some(&state);
            self.write(state, renewed).await;
            sleep_until(next).await;
        }
    }

    /// Writes, and waits after a failure.
    async fn write(&mut self, state: NodeState, renewed: bool) {
        let dated = node::at(&state, self.clock.now());
        let time = dated.renewed_at.clone().unwrap_or_default();
        let mut result = if renewed { self.states.renew(&time).await } else { self.states.write(&dated).await };
        if result.as_ref().is_err_and(is_missing) {
            result = match self.states.create().await {
                Ok(()) => self.states.write(&dated).await,
                Err(error) => Err(error),
            };
        }
        match result {
            Ok(()) => {
                self.written = Some(state);
                self.backoff.succeeded();
                self.failures = 0;
            }
            Err(error) => {
                // Whatever is there now, it is not known.
                self.written = None;
                self.failures = self.failures.saturating_add(1);
                if self.failures == TOLD {
                    warn!(%error, "the state of this node cannot be written; enforcement goes on, its status does not");
                } else {
                    debug!(%error, "the state of this node is not written");
                }
                sleep(self.backoff.failed()).await;
            }
        }
    }
}
