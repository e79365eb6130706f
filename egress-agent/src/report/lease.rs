//! Who leads: a Lease of `coordination.k8s.io`, held by one agent.
//!
//! No clock of another machine is trusted: a Lease has run out when this agent has seen it unchanged for its whole duration, by its own
//! monotonic time, so agents whose clocks differ still agree. The holder stops before that (`LEAD`), whatever the API server does, and
//! each update carries the resource version that was read, so of two that try one fails (409).

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, GetParams, PostParams};
use kube::{Client, Error};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::{LEASE, Reporter};

/// A Lease that has not changed for this long is free.
pub(super) const DURATION: Duration = Duration::from_mins(1);
/// The holder leads for this long after it began a renewal that succeeded.
pub(super) const LEAD: Duration = Duration::from_secs(40);
/// How often the holder renews.
pub(super) const RENEW: Duration = Duration::from_secs(15);
/// And how soon it tries again where that failed.
const AGAIN: Duration = Duration::from_secs(2);
/// A request that takes longer has failed.
const REQUEST: Duration = Duration::from_secs(10);
/// Longest time that is spent on giving the Lease up.
const FAREWELL: Duration = Duration::from_secs(5);
/// So many of those that wait ask often, so that the Lease is not free for long however many there are: by the hash of the node's name, so
/// that nobody has to agree on who they are.
const CHOSEN: u32 = 10;
/// How often each of them asks.
const ASK: Duration = Duration::from_secs(10);
/// The others ask at least this seldom, in case that none of the chosen lives, and all of them together no more often than [`ASKED`] times a
/// second.
const ASK_SELDOM: Duration = Duration::from_mins(1);
const ASKED: usize = 10;

/// What there is to do about the Lease.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Write this; it is the first.
    Create(Lease),
    /// Write this in place of what was read.
    Replace(Lease),
    /// Somebody else leads.
    Wait,
}

/// One that wants to lead.
#[derive(Debug)]
pub(super) struct Candidate {
    identity: String,
    namespace: String,
    /// The version that was seen, and when first.
    seen: Option<(Option<String>, Instant)>,
}

impl Candidate {
    pub(super) fn new(identity: &str, namespace: &str) -> Self {
        Self { identity: identity.to_owned(), namespace: namespace.to_owned(), seen: None }
    }

    /// What to do, now that the Lease is `found`.
    pub(super) fn step(&mut self, found: Option<Lease>, now: Instant, time: Timestamp) -> Step {
        let Some(lease) = found else {
            self.seen = None;
            return Step::Create(self.lease(None, time));
        };
        let version = lease.metadata.resource_version.clone();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            Some(_) | None => now,
        };
        self.seen = Some((version, since));
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        let free = holder.is_empty() || holder == self.identity || now.duration_since(since) >= DURATION;
        if free { Step::Replace(self.lease(Some(lease), time)) } else { Step::Wait }
    }

    fn lease(&self, before: Option<Lease>, time: Timestamp) -> Lease {
        let (metadata, before) = before.map_or_else(
            || {
                let (name, namespace) = (Some(LEASE.to_owned()), Some(self.namespace.clone()));
                (ObjectMeta { name, namespace, ..ObjectMeta::default() }, LeaseSpec::default())
            },
            |lease| (lease.metadata, lease.spec.unwrap_or_default()),
        );
        let same = before.holder_identity.as_ref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or(0).saturating_add(i32::from(!same));
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: if same { before.acquire_time } else { Some(MicroTime(time)) },
                renew_time: Some(MicroTime(time)),
                lease_transitions: Some(transitions),
                ..before
            }),
        }
    }
}

/// The Lease on the API server.
pub(super) struct Election {
    api: Api<Lease>,
    candidate: Candidate,
    reporter: Reporter,
    /// Whether this agent may have the Lease: its last write was not known to fail.
    mine: bool,
}

impl Election {
    pub(super) fn new(client: Client, reporter: &Reporter) -> Self {
        Self {
            api: Api::namespaced(client, &reporter.namespace),
            candidate: Candidate::new(&reporter.node, &reporter.namespace),
            reporter: reporter.clone(),
            mine: false,
        }
    }

    /// Waits until this agent leads; until when, unless it is renewed. `nodes`: how many agents there may be.
    pub(super) async fn won(&mut self, nodes: impl Fn() -> usize) -> Instant {
        // Thousands that start together do not ask together; the chosen are first.
        let place = self.reporter.place();
        let first = if is_chosen(nodes(), place) { share(nodes().min(ASKED)) } else { pause(nodes(), place) };
        sleep(first.mul_f64(rand::random_range(0.0..1.0))).await;
        loop {
            match self.attempt().await {
                Ok(Some(until)) => {
                    info!(lease = LEASE, "this agent writes the status of policies now");
                    return until;
                }
                Ok(None) => {}
                Err(error) => debug!(%error, "the Lease cannot be had"),
            }
            sleep(pause(nodes(), place).mul_f64(rand::random_range(0.8..1.2))).await;
        }
    }

    /// Renews for as long as it can; returns when this agent must not lead any more.
    pub(super) async fn keep(&mut self, mut until: Instant) {
        let mut pause = RENEW;
        loop {
            tokio::time::sleep_until((Instant::now() + pause).min(until)).await;
            if Instant::now() >= until {
                warn!(lease = LEASE, "the Lease could not be renewed; another agent will write the status of policies");
                return;
            }
            let left = until.duration_since(Instant::now());
            match timeout(left, self.attempt()).await {
                Ok(Ok(Some(later))) => (until, pause) = (later, RENEW),
                Ok(Ok(None)) => {
                    warn!(lease = LEASE, "another agent has the Lease");
                    return;
                }
                Ok(Err(error)) => {
                    debug!(%error, "the Lease is not renewed yet");
                    pause = AGAIN;
                }
                Err(_) => {}
            }
        }
    }

    /// One try; until when this agent leads if it went well, none if another one does.
    async fn attempt(&mut self) -> Result<Option<Instant>, Error> {
        let began = Instant::now();
        let time = self.reporter.clock.now();
        // Who only waits asks the API server's memory, and what is stored only if the Lease looks free.
        let mut step = Step::Wait;
        if !self.mine {
            step = self.candidate.step(self.read(&GetParams::any()).await?, Instant::now(), time);
        }
        if self.mine || step != Step::Wait {
            step = self.candidate.step(self.read(&GetParams::default()).await?, Instant::now(), time);
        }
        self.mine = step != Step::Wait;
        let written = match step {
            Step::Wait => return Ok(None),
            Step::Create(lease) => in_time(self.api.create(&PostParams::default(), &lease)).await,
            Step::Replace(lease) => in_time(self.api.replace(LEASE, &PostParams::default(), &lease)).await,
        };
        match written {
            Ok(_) => Ok(Some(began + LEAD)),
            // Another one was faster.
            Err(Error::Api(status)) if status.code == 409 => {
                self.mine = false;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn read(&self, params: &GetParams) -> Result<Option<Lease>, Error> {
        match in_time(self.api.get_with(LEASE, params)).await {
            Err(Error::Api(status)) if status.code == 404 => Ok(None),
            found => found.map(Some),
        }
    }

    /// Leaves the Lease to whoever asks next, if this agent has it. Where that fails it runs out by itself.
    pub(super) async fn give_up(self) {
        if !self.mine {
            return;
        }
        match timeout(FAREWELL, self.empty()).await {
            Ok(Ok(true)) => info!(lease = LEASE, "given up: another agent writes the status of policies from now on"),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => debug!(%error, "the Lease is not given up, and will run out"),
            Err(_) => debug!("the Lease is not given up, and will run out: no answer"),
        }
    }

    /// Takes this agent's name out of the Lease; whether it was in there.
    async fn empty(&self) -> Result<bool, Error> {
        let Some(mut lease) = self.api.get_opt(LEASE).await? else { return Ok(false) };
        let Some(spec) = lease.spec.as_mut() else { return Ok(false) };
        if spec.holder_identity.as_ref() != Some(&self.candidate.identity) {
            return Ok(false);
        }
        spec.holder_identity = Some(String::new());
        spec.renew_time = Some(MicroTime(self.reporter.clock.now()));
        self.api.replace(LEASE, &PostParams::default(), &lease).await.map(|_| true)
    }
}

/// Whether the agent with this place (0 to 1) is one of those that ask often.
fn is_chosen(nodes: usize, place: f64) -> bool {
    u32::try_from(nodes).is_ok_and(|nodes| place * f64::from(nodes) <= f64::from(CHOSEN))
}

/// How long one that waits does so before it asks again.
fn pause(nodes: usize, place: f64) -> Duration {
    if is_chosen(nodes, place) { ASK } else { ASK_SELDOM.max(share(nodes)) }
}

/// The time in which as many as there are may ask once each.
fn share(nodes: usize) -> Duration {
    Duration::from_millis((nodes.saturating_mul(1000) / ASKED).try_into().unwrap_or(u64::MAX))
}

async fn in_time<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = |_| Error::Service(format!("no answer within {} s", REQUEST.as_secs()).into());
    timeout(REQUEST, request).await.map_err(late)?
}
