//! What is told to the API server: the state of this node, and, by the one agent that leads, the status of every policy.
//!
//! ```text
//! reconcile ─▶ Round ─▶ node ─▶ writer ─▶ EgressNodeState of this node
//!                                             │ watched by the agent that holds the Lease
//!                               leader ◀──────┘ ─▶ fold ─▶ status of policies, Events
//! ```
//! Pure: [`node`], [`fold`], [`lease`]'s decisions. The rest only carries. Nothing here can change what the kernel does, and no failure
//! here is one of enforcement.

mod announce;
mod api;
mod clock;
mod compose;
mod fold;
mod leader;
mod lease;
mod node;
pub mod rbac;
mod writer;

#[cfg(test)]
mod tests;

use kube::Client;
use tokio::sync::watch;

pub(crate) use clock::Clock;
pub(crate) use compose::{InForce, Parts, Selected};
#[cfg(test)]
use node::PolicyRound;
pub(crate) use node::Round;

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
}

/// Writes the state of the node and stands for leader, for ever. `rounds` has what was last in force; none before the first round.
pub(crate) async fn run(client: Client, reporter: Reporter, rounds: watch::Receiver<Option<Round>>) {
    let nodes = rounds.clone();
    let cluster = move || nodes.borrow().as_ref().map_or(1, |round| round.nodes);
    let writing = writer::Writer::new(client.clone(), reporter.clone()).run(rounds.clone());
    let mut begun = rounds.clone();
    let leading = async {
        // An agent that cannot do its own work leads nobody, and before its first round it does not know how many there are.
        if begun.wait_for(Option::is_some).await.is_ok() {
            Box::pin(leader::run(client, reporter, cluster)).await;
        }
    };
    tokio::join!(writing, leading);
}
