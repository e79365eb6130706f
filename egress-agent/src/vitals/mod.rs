//! What the running agent knows of its own work: rounds, totals, events as they come. Written by the reconciler and the event reader;
//! asked by the [`api`](crate::api) and the [`metrics`](crate::metrics).

mod observations;
mod rounds;
mod tallies;
mod totals;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::SystemTime;

use tokio::sync::broadcast;
use tracing::warn;

use crate::datapath::inspect::Inspector;
use crate::datapath::{Applied, Datapath, DatapathError};
use crate::events::Record;
use crate::kube;
use crate::names::Shared;
use crate::reconcile::Outcome;
use crate::sources::watch::Health;

pub(crate) use observations::{Asked, Observation, Observations, Observed, now};
#[cfg(test)]
pub(crate) use observations::{Attempt, Times};
pub(crate) use rounds::Rounds;
pub(crate) use tallies::{Bounded, Tallies};
pub(crate) use totals::{ByRule, OTHER, RuleKey, Tally, Totals};

/// Events that a reader of the feed may be behind before it misses some.
const FEED: usize = 4096;

/// Everything that can be asked of the agent.
pub(crate) struct Vitals {
    node: String,
    bpffs: PathBuf,
    started: SystemTime,
    datapath: Arc<Mutex<Datapath>>,
    totals: Mutex<Totals>,
    /// The totals as they were last read, for whoever asks while the datapath is busy.
    latest: Mutex<ByRule>,
    rounds: Mutex<Rounds>,
    tallies: Mutex<Tallies>,
    observations: Mutex<Observations>,
    feed: broadcast::Sender<Arc<Record>>,
    watched: Arc<Health>,
    names: OnceLock<Shared>,
    cluster: OnceLock<Arc<kube::Health>>,
}

/// Where the agent works.
#[derive(Clone, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) node: &'a str,
    pub(crate) bpffs: &'a Path,
    pub(crate) state_dir: &'a Path,
}

impl Vitals {
    pub(crate) fn new(place: &Place<'_>, datapath: Arc<Mutex<Datapath>>, watched: Arc<Health>) -> Self {
        Self {
            node: place.node.to_owned(),
            bpffs: place.bpffs.to_path_buf(),
            started: SystemTime::now(),
            datapath,
            totals: Mutex::new(Totals::load(place.state_dir)),
            latest: Mutex::default(),
            rounds: Mutex::default(),
            tallies: Mutex::default(),
            observations: Mutex::new(Observations::load(place.state_dir)),
            feed: broadcast::Sender::new(FEED),
            watched,
            names: OnceLock::new(),
            cluster: OnceLock::new(),
        }
    }

    /// Name of the node.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// When the agent started.
    pub(crate) fn started(&self) -> SystemTime {
        self.started
    }

    /// The pins.
    pub(crate) fn inspector(&self) -> Result<Inspector, DatapathError> {
        Inspector::open(&self.bpffs)
    }

    /// How the files are watched.
    pub(crate) fn watched(&self) -> &Health {
        &self.watched
    }

    /// Says where names are known.
    pub(crate) fn know_names(&self, names: &Shared) {
        let _ = self.names.set(names.clone());
    }

    /// What is known of names, once they are followed.
    pub(crate) fn names(&self) -> Option<&Shared> {
        self.names.get()
    }

    /// Says how the API server is watched, where it is.
    pub(crate) fn know_cluster(&self, health: Option<Arc<kube::Health>>) {
        if let Some(health) = health {
            let _ = self.cluster.set(health);
        }
    }

    /// How the API server is watched, where it is.
    pub(crate) fn cluster(&self) -> Option<&kube::Health> {
        self.cluster.get().map(AsRef::as_ref)
    }

    /// Notes how a round of the reconciler went.
    pub(crate) fn ended(&self, round: &Result<Outcome, DatapathError>) {
        lock(&self.rounds).note(round);
    }

    /// Keeps what the tables had counted that an apply freed. Called while the datapath is held, so that nobody counts them twice.
    pub(crate) fn applied(&self, applied: &Applied) {
        if let Err(error) = lock(&self.totals).retire(&applied.retired) {
            warn!(%error, "totals.json cannot be written; a restarted agent will count from less");
        }
    }

    /// Rounds of the reconciler so far.
    pub(crate) fn rounds(&self) -> MutexGuard<'_, Rounds> {
        lock(&self.rounds)
    }

    /// Counts an event and passes it on.
    pub(crate) fn saw(&self, record: Record) {
        lock(&self.tallies).saw(&record);
        lock(&self.observations).saw(&record);
        // Fails where nobody listens.
        let _ = self.feed.send(Arc::new(record));
    }

    /// Counts lines that were written to the flow log, or could not be.
    pub(crate) fn logged(&self, lines: usize, written: bool) {
        lock(&self.tallies).logged(lines, written);
    }

    /// Events by what they are about.
    pub(crate) fn tallies(&self) -> MutexGuard<'_, Tallies> {
        lock(&self.tallies)
    }

    /// What policies under Audit would have refused.
    pub(crate) fn observed(&self, since: &Asked) -> Observed {
        lock(&self.observations).all().only(since)
    }

    /// Stores what was observed, if anything is new. Called now and then, and at the end.
    pub(crate) fn save(&self) {
        let Some((path, observed)) = lock(&self.observations).unsaved() else { return };
        if let Err(error) = observations::save(&path, &observed) {
            warn!(%error, "observed.json cannot be written; a restarted agent will suggest from less");
        }
    }

    /// Events from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Arc<Record>> {
        self.feed.subscribe()
    }

    /// What every rule has counted. While the datapath is busy with an apply, what it had counted when it was last asked.
    pub(crate) fn rules(&self) -> ByRule {
        let datapath = match self.datapath.try_lock() {
            Ok(datapath) => datapath,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return lock(&self.latest).clone(),
        };
        let all = lock(&self.totals).with(&datapath.counted());
        lock(&self.latest).clone_from(&all);
        all
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
