//! The thread that asks for names, hands the answers to the kernel, keeps what failing lookups cannot renew, and says what is known.
//!
//! It has a runtime of its own, so that no lookup ever waits for an apply, nor an apply for a lookup. Invariant: a name is registered
//! before its first lookup, and every lookup ends in the schedule, however it ends.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use super::answer::Answered;
use super::directory::{Bounds, Directory, Shared};
use super::known::{Source, ToStore};
use super::lifetime::Moment;
use super::maps::{NameMaps, answers};
use super::poll::{Failure, Job, Resolvers, Schedule, TIMEOUT};
use super::shared::{self, Differs};
use super::snapshot::{Snapshot, SnapshotFile};
use super::{now, replies};
use crate::sources::Problem;

/// Lookups in flight at a time.
const MOST: usize = 64;
/// How often what may end is looked at.
const REVIEW: Duration = Duration::from_secs(1);
/// Reviews between two sweeps of the kernel's addresses.
const SWEEP: u32 = 30;
/// Reviews between two searches for names that share addresses.
const COMPARE: u32 = 10;
/// Reviews between two writings of the snapshot, and names for each more of them.
const WRITE: (u32, usize) = (5, 1000);

/// What is to be followed.
#[derive(Clone, Default)]
pub(crate) struct Follow {
    /// Every exact name of the rules, registered in the directory and the kernel already.
    pub(crate) names: BTreeSet<Arc<str>>,
    /// Who is asked, in this order.
    pub(crate) resolvers: Vec<SocketAddr>,
    pub(crate) bounds: Bounds,
    /// Which names a table treats differently; `None` if nobody can say.
    pub(crate) differs: Option<Arc<Differs>>,
}

enum Order {
    Follow(Follow),
    Ask(Job),
}

/// The running thread. It ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Poller {
    orders: UnboundedSender<Order>,
}

/// Everything that the thread needs.
pub(crate) struct Setup<M> {
    pub(crate) directory: Shared,
    pub(crate) maps: M,
    /// The ring of replies; none in tests.
    pub(crate) ring: Option<RingBuf<MapData>>,
    /// Where `names.json` is written.
    pub(crate) state_dir: PathBuf,
    /// Called when [`Directory::problems`] are others than before.
    pub(crate) problems_changed: Box<dyn Fn() + Send>,
    /// How long each server is waited for.
    pub(crate) timeout: Duration,
}

impl<M> Setup<M> {
    /// With the usual patience.
    pub(crate) fn new(directory: Shared, maps: M, ring: Option<RingBuf<MapData>>, state_dir: PathBuf) -> Self {
        Self { directory, maps, ring, state_dir, problems_changed: Box::new(|| ()), timeout: TIMEOUT }
    }
}

impl Poller {
    /// Starts the thread.
    pub(crate) fn start<M: NameMaps + Send + 'static>(mut setup: Setup<M>) -> io::Result<(Self, JoinHandle<()>)> {
        let (orders, received) = unbounded_channel();
        let poller = Self { orders };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        // A handle of the reader's own would keep the thread running for ever.
        let asks = poller.orders.downgrade();
        let ring = setup.ring.take();
        let thread = thread::Builder::new().name("names".into()).spawn(move || {
            let directory = setup.directory.clone();
            let work = Work::new(setup);
            runtime.block_on(async {
                if let Some(ring) = ring {
                    task::spawn(async move {
                        let ask = |job| asks.upgrade().is_some_and(|orders| orders.send(Order::Ask(job)).is_ok());
                        if let Err(error) = replies::read(ring, directory, ask).await {
                            error!(%error, "replies to pods are not read any more; enforcement and learning go on");
                        }
                    });
                }
                work.run(received).await;
            });
        })?;
        Ok((poller, thread))
    }

    /// Follows exactly these names from now on.
    pub(crate) fn follow(&self, follow: Follow) {
        let _ = self.orders.send(Order::Follow(follow));
    }
}

type Looked = Result<Answered, Failure>;

/// The state of the thread.
struct Work<M> {
    setup: Setup<M>,
    schedule: Schedule,
    addresses: Vec<SocketAddr>,
    resolvers: Arc<Resolvers>,
    lookups: JoinSet<Looked>,
    in_flight: HashMap<task::Id, Job>,
    snapshot: SnapshotFile,
    problems: Vec<Problem>,
    differs: Option<Arc<Differs>>,
    reviews: u32,
    next_write: u32,
}

impl<M: NameMaps> Work<M> {
    fn new(setup: Setup<M>) -> Self {
        Self {
            schedule: Schedule::default(),
            addresses: Vec::new(),
            resolvers: Arc::new(Resolvers::new(&[], setup.timeout)),
            lookups: JoinSet::new(),
            in_flight: HashMap::new(),
            snapshot: SnapshotFile::new(&setup.state_dir),
            problems: Vec::new(),
            differs: None,
            reviews: 0,
            next_write: 0,
            setup,
        }
    }

    async fn run(mut self, mut orders: UnboundedReceiver<Order>) {
        let mut reviews = reviews();
        loop {
            self.begin();
            let wake = self.wake();
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Follow(follow)) => self.follow(follow),
                    Some(Order::Ask(job)) => self.schedule.ask(&job, now()),
                    None => return,
                },
                Some(looked) = self.lookups.join_next_with_id() => self.end(looked),
                () = sleep_until(wake) => {}
                _ = reviews.tick() => self.review(),
            }
        }
    }

    /// When the next lookup can begin.
    fn wake(&self) -> Instant {
        let free = self.in_flight.len() < MOST;
        let wait = self.schedule.next_due().filter(|_| free).map(|due| due.saturating_sub(now()));
        Instant::now() + wait.unwrap_or(REVIEW)
    }

    fn follow(&mut self, follow: Follow) {
        let shared = self.setup.directory.clone();
        let mut directory = shared.lock();
        // After the wait for the lock: what others have noted meanwhile is not in the future.
        let now = now();
        if self.addresses != follow.resolvers {
            info!(resolvers = ?follow.resolvers, "names are asked of");
            self.resolvers = Arc::new(Resolvers::new(&follow.resolvers, self.setup.timeout));
            self.addresses = follow.resolvers;
            self.schedule.hurry(now);
        }
        self.schedule.set_lifetimes(follow.bounds.lifetimes);
        self.schedule.follow(&follow.names, now);
        self.differs = follow.differs;
        directory.bounds = follow.bounds;
        directory.known.poll(&follow.names, now);
        let Directory { registry, known, bounds, .. } = &mut *directory;
        let moved = known.moved(registry, bounds.lifetimes, now);
        self.store(&mut directory, &moved);
    }

    fn begin(&mut self) {
        let now = now();
        for job in self.schedule.take(now, MOST - self.in_flight.len()) {
            let (resolvers, asked) = (Arc::clone(&self.resolvers), job.clone());
            // hickory ends by itself long before; this is for the day that it does not.
            let longest =
                (self.setup.timeout * 4).saturating_mul(u32::try_from(self.addresses.len()).unwrap_or(1).max(1));
            let lookup =
                async move { timeout(longest, resolvers.look_up(&asked, now)).await.unwrap_or(Err(Failure::Endless)) };
            let id = self.lookups.spawn(lookup).id();
            self.in_flight.insert(id, job);
        }
    }

    fn end(&mut self, looked: Result<(task::Id, Looked), JoinError>) {
        let (id, looked) = match looked {
            Ok(done) => done,
            Err(error) => (error.id(), Err(Failure::Bug(error.to_string()))),
        };
        let Some(job) = self.in_flight.remove(&id) else { return };
        let now = now();
        let shared = self.setup.directory.clone();
        let mut directory = shared.lock();
        let answer = looked.and_then(|answer| self.take(&mut directory, &job, answer, now));
        match &answer {
            Ok(_) => directory.figures.lookups_answered += 1,
            Err(failure) => {
                debug!(name = %job.name, records = %job.family, %failure, "lookup failed");
                directory.figures.lookups_failed += 1;
                directory.known.lookup_failed(&job.name, job.family, failure.to_string());
            }
        }
        if let Some(due) = self.schedule.done(&job, answer.ok().as_ref(), now, rand::random()) {
            directory.known.lookup_due(&job.name, job.family, due);
        }
    }

    /// Hands an answer to the kernel, then remembers it.
    fn take(&mut self, directory: &mut Directory, job: &Job, answer: Answered, now: Moment) -> Looked {
        let Some(id) = directory.registry.id_of(&job.name) else { return Ok(answer) };
        let absence = match &answer {
            Answered::Nothing { absence, .. } => Some(*absence),
            Answered::Addresses { found, .. } => {
                let found = directory.external(found);
                let stored = self.setup.maps.learn(id, &answers(&found));
                let missing = found.len().saturating_sub(*stored.as_ref().unwrap_or(&0));
                directory.figures.not_stored += u64::try_from(missing).unwrap_or(0);
                stored.map_err(|error| Failure::Kernel(error.to_string()))?;
                let lifetimes = directory.bounds.lifetimes;
                directory.known.answered(&job.name, (id, Source::Polled), &found, lifetimes, now);
                None
            }
        };
        directory.known.lookup_answered(&job.name, job.family, absence, now);
        Ok(answer)
    }

    /// What is to be done every second.
    fn review(&mut self) {
        let now = now();
        self.reviews = self.reviews.saturating_add(1);
        let shared = self.setup.directory.clone();
        let mut directory = shared.lock();
        let Directory { registry, known, bounds, .. } = &mut *directory;
        let renewed = known.renew(registry, bounds.lifetimes, now);
        self.store(&mut directory, &renewed);
        if self.reviews.is_multiple_of(SWEEP) {
            self.sweep(&mut directory, now);
        }
        directory.figures.lookups_refused = self.schedule.refused;
        directory.figures.evicted = directory.known.evicted;
        let told = self.tell(&mut directory, now);
        let snapshot = self.snapshot(&directory, now);
        drop(directory);
        if let Some(Err(error)) = snapshot.map(|snapshot| self.snapshot.write(snapshot)) {
            warn!(%error, "names.json cannot be written; is the state folder full or gone?");
        }
        if told {
            (self.setup.problems_changed)();
        }
    }

    /// Notes problems and warnings; whether they are others than before.
    fn tell(&mut self, directory: &mut Directory, now: Moment) -> bool {
        let problems = directory.problems(now);
        let mut changed = problems != self.problems;
        self.problems = problems;
        if self.reviews.is_multiple_of(COMPARE) {
            let warnings = self.differs.as_deref().map(|differs| shared::warnings(directory, differs, now));
            let warnings = warnings.unwrap_or_default();
            changed |= warnings != directory.warnings;
            directory.warnings = warnings;
        }
        changed
    }

    /// What is known, when it is time to write it.
    fn snapshot(&mut self, directory: &Directory, now: Moment) -> Option<Snapshot> {
        let snapshot = (self.reviews >= self.next_write).then(|| Snapshot::new(directory, now))?;
        let more = u32::try_from(snapshot.names.len() / WRITE.1).unwrap_or(u32::MAX);
        self.next_write = self.reviews.saturating_add(WRITE.0).saturating_add(more);
        Some(snapshot)
    }

    fn sweep(&mut self, directory: &mut Directory, now: Moment) {
        directory.known.sweep(now);
        match self.setup.maps.sweep(now) {
            Ok(swept) => {
                directory.figures.swept += swept.removed;
                directory.figures.addresses = swept.left;
                directory.figures.addresses_limit = swept.limit;
            }
            Err(error) => warn!(%error, "addresses that have ended cannot be removed from the kernel"),
        }
    }

    fn store(&mut self, directory: &mut Directory, all: &[ToStore]) {
        for ToStore { id, answers: found } in all {
            if let Err(error) = self.setup.maps.learn(*id, &answers(found)) {
                directory.figures.not_stored += u64::try_from(found.len()).unwrap_or(0);
                warn!(id, addresses = found.len(), %error, "addresses of a name cannot be stored");
            }
        }
    }
}

fn reviews() -> Interval {
    let mut reviews = interval(REVIEW);
    reviews.set_missed_tick_behavior(MissedTickBehavior::Delay);
    reviews
}

#[cfg(test)]
mod tests;
