//! What is told to the API server: the state of this node, and, by the one agent that leads, the status of every policy.
//!
//! ```text
//! reconcile ─▶ Round ─▶ node ─▶ writer ─▶ EgressNodeState of this node
//!                                             │ watched by the agent that holds the Lease
//!                     leader ─▶ board ◀───────┘ ─▶ tally ─▶ fold ─▶ status of policies, Events
//! first Round ─▶ taint ─▶ the own Node, without its taint (where asked for)
//! ```
//! Pure: [`node`], [`board`], [`tally`], [`fold`], [`lease`]'s decisions. The rest only carries. Nothing here can change what the kernel
//! does, and no failure here is one of enforcement.

mod announce;
mod api;
mod board;
mod clock;
mod compose;
mod fold;
mod leader;
mod lease;
mod node;
mod patient;
pub mod rbac;
mod seen;
mod taint;
mod tally;
mod writer;

#[cfg(test)]
mod tests;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use kube::Client;
use tokio::sync::watch;

pub(crate) use clock::Clock;
pub(crate) use compose::{InForce, Parts, Selected};
#[cfg(test)]
use node::PolicyRound;
pub(crate) use node::{ForeignRound, Round};

/// Name of the Lease that decides who leads.
pub(crate) const LEASE: &str = "egress-status-leader";

/// Who reports.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    /// Name of the node.
    pub(crate) node: String,
    /// Namespace of the agents, where the Lease is.
    pub(crate) namespace: String,
    pub(crate) clock: Clock,
    /// Whether a taint is taken off the node when the kernel enforces.
    pub(crate) remove_taint: bool,
}

impl Reporter {
    /// A number from 0 to 1 that follows from the node's name: nodes spread by it what all of them do.
    fn place(&self) -> f64 {
        let mut hasher = DefaultHasher::new();
        self.node.hash(&mut hasher);
        // 16 bits are enough, and exact.
        f64::from(u16::try_from(hasher.finish() >> 48).unwrap_or(0)) / f64::from(u16::MAX)
    }
}

/// Writes the state of the node and stands for leader until `stopped`, and then gives the Lease up. `rounds` has what was last in force;
/// none before the first round.
pub(crate) async fn run(
    client: Client,
    reporter: Reporter,
    rounds: watch::Receiver<Option<Round>>,
    stopped: impl Future<Output = ()>,
) {
    let latest = rounds.clone();
    let writing = writer::Writer::new(client.clone(), reporter.clone()).run(rounds.clone());
    let (node, taints) = (reporter.node.clone(), rounds.clone());
    let untainting = async {
        if reporter.remove_taint {
            taint::remove(client.clone(), &node, taints).await;
        }
    };
    let mut begun = rounds;
    let leading = async {
        let mut stopped = std::pin::pin!(stopped);
        // An agent that cannot do its own work leads nobody, and before its first round it does not know how many there are.
        let has_begun = tokio::select! {
            begun = begun.wait_for(Option::is_some) => begun.is_ok(),
            () = &mut stopped => false,
        };
        if has_begun {
            Box::pin(leader::run(client.clone(), reporter.clone(), latest, stopped)).await;
        }
    };
    tokio::select! {
        () = leading => {}
        () = async { tokio::join!(writing, untainting); std::future::pending().await } => {}
    }
}
