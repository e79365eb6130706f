//! Watches that depend on what policies, settings and services say: of nodes, and of the slices of some services. In a large cluster they
//! would be most of what the API server has to send (docs/scale.md).
//!
//! Nodes are watched while somebody needs them: for their pod CIDRs, unless the settings list what is internal, or for their addresses, if a
//! rule selects nodes. Otherwise they are only counted, for the agents' sharing of time. Invariant: a view is published only when
//! everything that it needs was listed ([`Demand::is_met`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio::sync::mpsc::Sender;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tracing::{debug, info};

use super::health::Health;
use super::index::{Change, Index};
use super::resource::{Kind, Slices, Watched};
use super::watch::{self, Told};

/// Between two counts of the nodes, and after one that failed.
const COUNT: Duration = Duration::from_mins(15);
const AGAIN: Duration = Duration::from_secs(5);

/// What runs.
pub(super) struct Demand {
    client: Client,
    told: Sender<Told>,
    health: Arc<Health>,
    slices: Slices,
    nodes: Option<Nodes>,
    counted: Arc<Notify>,
    /// The services whose slices are asked for by name.
    named: Option<(BTreeSet<String>, AbortHandle)>,
}

enum Nodes {
    Watched(AbortHandle),
    Counted(AbortHandle, Arc<AtomicUsize>),
}

impl Demand {
    pub(super) fn new(client: Client, slices: Slices, told: Sender<Told>, health: Arc<Health>) -> Self {
        Self { client, told, health, slices, nodes: None, counted: Arc::default(), named: None }
    }

    /// Is told when the nodes were counted.
    pub(super) fn counted(&self) -> Arc<Notify> {
        Arc::clone(&self.counted)
    }

    /// Begins and ends watches as `index` asks for; what that means for it.
    pub(super) fn follow(&mut self, index: &Index) -> Option<Told> {
        let mut change = None;
        match (&self.nodes, index.needs_nodes()) {
            (Some(Nodes::Watched(_)), true) | (Some(Nodes::Counted(..)), false) => {}
            (before, true) => {
                if let Some(Nodes::Counted(task, _)) = before {
                    task.abort();
                }
                info!("nodes are watched");
                self.nodes = Some(Nodes::Watched(self.watch(Watched::nodes())));
                change = Some((Kind::Node, Change::Opened));
            }
            (before, false) => {
                if let Some(Nodes::Watched(task)) = before {
                    task.abort();
                    self.health.ended(Kind::Node.resource());
                }
                info!("nodes are counted and not watched: internalCIDRs are set, and no rule selects nodes");
                let count = Arc::default();
                let task = tokio::spawn(self::count(self.client.clone(), Arc::clone(&count), self.counted()));
                self.nodes = Some(Nodes::Counted(task.abort_handle(), count));
                change = Some((Kind::Node, Change::Closed));
            }
        }
        if self.slices == Slices::Unmanaged && index.has_listed(&[Kind::Service]) {
            self.follow_slices(index.services_to_look_at());
        }
        change
    }

    /// Whether changes of `kind` count: of a watch that ended, some may still be on their way.
    pub(super) fn wants(&self, kind: &Kind) -> bool {
        *kind != Kind::Node || matches!(self.nodes, Some(Nodes::Watched(_)))
    }

    fn follow_slices(&mut self, services: BTreeSet<String>) {
        if self.named.as_ref().is_some_and(|(known, _)| *known == services) {
            return;
        }
        if let Some((_, task)) = self.named.take() {
            task.abort();
        }
        debug!(services = services.len(), "the slices of these services are watched whoever keeps them");
        let task = self.watch(Watched::slices_of(&services));
        self.named = Some((services, task));
    }

    fn watch(&self, watched: Watched) -> AbortHandle {
        let watch = watch::follow(self.client.clone(), watched, self.told.clone(), Arc::clone(&self.health));
        tokio::spawn(watch).abort_handle()
    }

    /// Whether what is demanded is known.
    pub(super) fn is_met(&self, index: &Index) -> bool {
        let nodes = match &self.nodes {
            None => false,
            Some(Nodes::Watched(_)) => index.has_listed(&[Kind::Node]),
            Some(Nodes::Counted(_, count)) => count.load(Ordering::Relaxed) > 0,
        };
        nodes && (self.slices == Slices::All || index.has_listed(&[Kind::NamedSlice]))
    }

    /// How many nodes the cluster has, if they are only counted.
    pub(super) fn count(&self) -> Option<usize> {
        match &self.nodes {
            Some(Nodes::Counted(_, count)) => Some(count.load(Ordering::Relaxed)),
            Some(Nodes::Watched(_)) | None => None,
        }
    }
}

/// Counts the nodes now and then: one is listed, and how many there are beside it.
async fn count(client: Client, count: Arc<AtomicUsize>, counted: Arc<Notify>) {
    let nodes: Api<Node> = Api::all(client);
    loop {
        match nodes.list_metadata(&ListParams::default().limit(1)).await {
            Ok(list) => {
                let others = list.metadata.remaining_item_count.unwrap_or(0);
                count.store(list.items.len() + usize::try_from(others).unwrap_or(0), Ordering::Relaxed);
                counted.notify_one();
                sleep(COUNT.mul_f64(rand::random_range(0.8..1.2))).await;
            }
            Err(error) => {
                debug!(%error, "the nodes cannot be counted");
                sleep(AGAIN).await;
            }
        }
    }
}
