//! Kubernetes Events for policies that are refused or fail: what `kubectl describe` shows. Once per version and reason, and never many:
//! a cluster full of broken policies makes no storm.

use std::collections::HashMap;
use std::time::Duration;

use egress_policy::status::{Condition, ConditionKind, Truth};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::time::Instant;
use tracing::debug;

/// Events at once.
const BURST: u32 = 25;
/// One more after this time.
const REFILL: Duration = Duration::from_secs(5);
/// What was announced is remembered for this many objects.
const MOST: usize = 10_000;

/// What there is to announce about an object: its conditions that say that something does not work.
pub(super) fn troubles(conditions: &[Condition]) -> impl Iterator<Item = &Condition> {
    conditions.iter().filter(|condition| {
        condition.status == Truth::False
            && condition.reason != "Waiting"
            // Told by Accepted.
            && condition.reason != "NotAccepted"
            && matches!(condition.kind, ConditionKind::Accepted | ConditionKind::Enforced | ConditionKind::DnsResolved)
    })
}

/// What there is to do about an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is written.
    New,
    /// It was said before.
    Said,
    /// There were too many; later.
    Full,
}

/// Says it once, and not too often.
#[derive(Debug)]
pub(super) struct Limiter {
    tokens: u32,
    refilled: Instant,
    /// By UID and kind of condition: generation and reason.
    said: HashMap<(String, ConditionKind), (i64, String)>,
}

impl Limiter {
    pub(super) fn new(now: Instant) -> Self {
        Self { tokens: BURST, refilled: now, said: HashMap::new() }
    }

    /// Whether this is new, and whether there is room for it.
    pub(super) fn admits(&mut self, uid: &str, condition: &Condition, now: Instant) -> Admission {
        let key = (uid.to_owned(), condition.kind);
        let what = (condition.observed_generation.unwrap_or_default(), condition.reason.clone());
        if self.said.get(&key) == Some(&what) {
            return Admission::Said;
        }
        while self.tokens < BURST && now.duration_since(self.refilled) >= REFILL {
            self.tokens += 1;
            self.refilled += REFILL;
        }
        if self.tokens == BURST {
            self.refilled = now;
        }
        if self.tokens == 0 {
            return Admission::Full;
        }
        self.tokens -= 1;
        if self.said.len() >= MOST {
            self.said.clear();
        }
        self.said.insert(key, what);
        Admission::New
    }

    /// Forgets what is solved, so that it is said again if it comes back.
    pub(super) fn solved(&mut self, uid: &str, conditions: &[Condition]) {
        for kind in ConditionKind::ALL {
            if troubles(conditions).all(|trouble| trouble.kind != kind) {
                self.said.remove(&(uid.to_owned(), kind));
            }
        }
    }
}

/// Where Events go.
pub(super) struct Announcer {
    recorder: Recorder,
    limiter: Limiter,
}

impl Announcer {
    pub(super) fn new(client: Client, node: &str) -> Self {
        let reporter = Reporter { controller: "egress.rs/agent".to_owned(), instance: Some(node.to_owned()) };
        Self { recorder: Recorder::new(client, reporter), limiter: Limiter::new(Instant::now()) }
    }

    /// Tells of what does not work with `object`; whether nothing of it is left for later.
    pub(super) async fn announce(&mut self, object: &ObjectReference, conditions: &[Condition]) -> bool {
        let mut whole = true;
        let uid = object.uid.clone().unwrap_or_default();
        self.limiter.solved(&uid, conditions);
        for trouble in troubles(conditions) {
            match self.limiter.admits(&uid, trouble, Instant::now()) {
                Admission::New => {}
                Admission::Said => continue,
                Admission::Full => {
                    whole = false;
                    continue;
                }
            }
            let event = Event {
                type_: EventType::Warning,
                reason: trouble.reason.clone(),
                note: Some(trouble.message.clone()),
                action: trouble.kind.name().to_owned(),
                secondary: None,
            };
            if let Err(error) = self.recorder.publish(&event, object).await {
                debug!(%error, "an Event is not written");
            }
        }
        whole
    }
}
