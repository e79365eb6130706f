//! Takes the taint [`TAINT`] off the own node when the kernel enforces there (`--remove-taint`), so that a node that joins the cluster
//! gets pods only then. Whoever makes the nodes puts it there: kubelet's `--register-with-taints`, a machine pool.
//!
//! Invariant: a taint that somebody else adds or takes off meanwhile is never lost. The write names the resource version that was read;
//! if that is no longer the newest the API server refuses it (409), and it is tried again with what is there then.

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Error, ResourceExt as _};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::Round;
use super::api::{Backoff, MANAGER};
use super::patient::patient;

/// Key of the taint; its value and effect are for whoever puts it there.
pub const TAINT: &str = "egress.rs/agent-not-ready";
/// A failure is told in the log when it has lasted this many tries.
const TOLD: u32 = 4;

/// Takes the taint off after the first round, and again if it comes back: with a Node that was deleted and registered anew.
pub(super) async fn remove(client: Client, node: &str, mut rounds: watch::Receiver<Option<Round>>) {
    if rounds.wait_for(Option::is_some).await.is_err() {
        return;
    }
    let nodes: Api<Node> = Api::all(client);
    let own = watcher::Config::default().any_semantic().fields(&format!("metadata.name={node}"));
    let mut events = std::pin::pin!(patient(watcher(nodes.clone(), own), "the own node, for its taint"));
    while let Some(event) = events.next().await {
        match event {
            Event::InitApply(node) | Event::Apply(node) => take_off(&nodes, node).await,
            Event::Init | Event::InitDone | Event::Delete(_) => {}
        }
    }
}

/// Tries until the node is without it.
async fn take_off(nodes: &Api<Node>, mut node: Node) {
    let mut backoff = Backoff::default();
    let mut failures = 0_u32;
    while let Some(others) = others(&node) {
        match replace(nodes, &node, &others).await {
            Ok(_) => {
                info!(taint = TAINT, "taken off this node: its kernel enforces");
                return;
            }
            Err(Error::Api(status)) if status.code == 409 => debug!("the node is another one by now"),
            Err(error) => {
                failures = failures.saturating_add(1);
                if failures == TOLD {
                    warn!(%error, taint = TAINT, "cannot be taken off this node; the agent tries again");
                }
                sleep(backoff.failed()).await;
            }
        }
        match nodes.get_opt(&node.name_any()).await {
            Ok(Some(newest)) => node = newest,
            Ok(None) => return,
            Err(error) => {
                debug!(%error, "the own node cannot be read");
                sleep(backoff.failed()).await;
            }
        }
    }
}

/// The node's other taints; none if it does not have ours.
fn others(node: &Node) -> Option<Vec<Taint>> {
    let taints = node.spec.as_ref()?.taints.as_ref()?;
    let others: Vec<Taint> = taints.iter().filter(|taint| taint.key != TAINT).cloned().collect();
    (others.len() < taints.len()).then_some(others)
}

/// Gives the node, if it is still the one that was read, these taints.
async fn replace(nodes: &Api<Node>, node: &Node, taints: &[Taint]) -> Result<Node, Error> {
    let patch = json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": taints}});
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    nodes.patch(&node.name_any(), &params, &Patch::Merge(patch)).await
}
