//! The Kubernetes API: the client, what is watched, and the index of what was seen.
//!
//! A thread of its own runs everything that speaks to the API server. One task owns the [`index`]; each watched kind has a task that
//! feeds it. What follows from the index is left in a [`Feed`] for the reconciler, first when everything was listed once: before that
//! nothing is changed in the kernel.

mod client;
mod compat;
mod demand;
mod health;
mod index;
mod resource;
#[cfg(test)]
mod simulation;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kube::Client;
use tokio::runtime::Builder;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::info;

use crate::report::{self, Clock, Reporter, Round};
use crate::sources::cluster::Feed;

use compat::Compat;
use demand::Demand;
use index::Index;
use resource::Kind;

pub(crate) use client::{ConnectError, connect};
pub(crate) use compat::names as compat_names;
pub(crate) use health::{Figures, Health};
pub(crate) use index::{Internal, Pod, Reference, Version, View};
pub(crate) use resource::Slices;

/// Changes that come this soon after each other are one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Pace {
    /// How long nothing must change.
    quiet: Duration,
    /// Longest wait while changes go on.
    longest: Duration,
}

/// For what somebody waits for: policies, pods.
const PROMPT: Pace = Pace { quiet: Duration::from_millis(15), longest: Duration::from_millis(150) };
/// For what changes all the time in a large cluster, and seldom matters.
const CALM: Pace = Pace { quiet: Duration::from_millis(250), longest: Duration::from_secs(1) };

fn pace(kind: &Kind) -> Pace {
    match kind {
        Kind::Node | Kind::Service | Kind::EndpointSlice | Kind::NamedSlice => CALM,
        Kind::Policy
        | Kind::ClusterPolicy
        | Kind::Config
        | Kind::Namespace
        | Kind::Pod
        | Kind::ServiceCidr
        | Kind::KubeadmConfig
        | Kind::Definition
        | Kind::Foreign(_) => PROMPT,
    }
}

/// Changes on their way to the index.
const QUEUE: usize = 1024;

/// What the service needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Whose pods are watched.
    pub(crate) node: String,
    /// Foreign kinds to watch, as `import` calls them.
    pub(crate) compat: Vec<String>,
    pub(crate) slices: Slices,
    /// Whether a taint is taken off the node when the kernel enforces.
    pub(crate) remove_taint: bool,
}

/// The thread that speaks to the API server; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Service {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    health: Arc<Health>,
}

impl Service {
    /// Connects and begins to watch. `changed` is called when another view is in `feed`.
    pub(crate) fn start(
        settings: Settings,
        feed: Feed,
        rounds: tokio::sync::watch::Receiver<Option<Round>>,
        changed: impl Fn() + Send + 'static,
    ) -> Result<Self, ConnectError> {
        let health = Arc::new(Health::default());
        let (stop, stopped) = oneshot::channel();
        let (told, connected) = std_mpsc::channel();
        let figures = Arc::clone(&health);
        let thread = thread::Builder::new().name("kube".into()).spawn(move || {
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(told.send(Err(ConnectError::Runtime(error)))),
            };
            runtime.block_on(async {
                let client = match connect(settings.kubeconfig.as_deref()).await {
                    Ok(client) => client,
                    Err(error) => return drop(told.send(Err(error))),
                };
                let _ = told.send(Ok(()));
                let reporter = Reporter {
                    node: settings.node.clone(),
                    namespace: client.default_namespace().to_owned(),
                    clock: Clock::System,
                    remove_taint: settings.remove_taint,
                };
                let stopped = async { drop(stopped.await) };
                tokio::select! {
                    // Ends when the agent does, after its last word.
                    () = report::run(client.clone(), reporter, rounds, stopped) => {}
                    () = follow(client, &settings, &feed, &figures, changed) => {}
                }
            });
            runtime.shutdown_background();
        });
        let thread = thread.map_err(ConnectError::Runtime)?;
        connected.recv().unwrap_or_else(|_| Err(ConnectError::Runtime(std::io::Error::other("its thread died"))))?;
        Ok(Self { stop: Some(stop), thread: Some(thread), health })
    }

    /// How the watching goes.
    pub(crate) fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Owns the index, for ever.
async fn follow(client: Client, settings: &Settings, feed: &Feed, health: &Arc<Health>, changed: impl Fn()) {
    let (told, mut news) = mpsc::channel(QUEUE);
    let mut needed: Vec<Kind> = Vec::new();
    for watched in resource::watched(&settings.node, settings.slices) {
        needed.push(watched.kind.clone());
        tokio::spawn(watch::follow(client.clone(), watched, told.clone(), Arc::clone(health)));
    }
    let mut demand = Demand::new(client.clone(), settings.slices, told.clone(), Arc::clone(health));
    let mut compat = Compat::new(client, &settings.compat, told, Arc::clone(health));
    needed.extend(compat.start());
    let mut index = Index::default();
    let mut published: Option<View> = None;
    let mut dirty = false;
    let counted = demand.counted();
    while let Some(batch) = batch(&mut news, &counted, published.is_some()).await {
        for (kind, change) in batch {
            dirty |= compat.wants(&kind) && demand.wants(&kind) && index.apply(&kind, change);
        }
        for kind in compat.follow(index.definitions()) {
            dirty |= index.apply(&kind, index::Change::Closed);
        }
        let is_known = published.is_some() || (index.has_listed(&needed) && index.has_listed(compat.watched()));
        if let Some((kind, change)) = is_known.then(|| demand.follow(&index)).flatten() {
            dirty |= index.apply(&kind, change);
        }
        if !is_known || !demand.is_met(&index) || !std::mem::take(&mut dirty) {
            continue;
        }
        let mut view = index.view();
        view.node_count = demand.count().unwrap_or(view.node_count);
        if published.is_none() {
            info!(pods = view.pods.len(), policies = view.texts.len(), nodes = view.node_count, "the cluster is known");
        }
        if published.as_ref() != Some(&view) {
            feed.put(view.clone());
            published = Some(view);
            changed();
        }
    }
}

/// The next changes that are to be one, or none of them when the nodes were `counted`; `None` when nobody tells any more. `calm`: whether
/// some changes have time.
async fn batch(news: &mut mpsc::Receiver<watch::Told>, counted: &Notify, calm: bool) -> Option<Vec<watch::Told>> {
    let first = tokio::select! {
        first = news.recv() => first?,
        () = counted.notified() => return Some(Vec::new()),
    };
    let begun = Instant::now();
    let mut pace = if calm { self::pace(&first.0) } else { PROMPT };
    let mut batch = vec![first];
    while let Ok(Some(next)) = timeout_at((begun + pace.longest).min(Instant::now() + pace.quiet), news.recv()).await {
        pace = pace.min(self::pace(&next.0));
        batch.push(next);
    }
    Some(batch)
}
