//! Watches one kind of objects for ever: list, watch, and again with growing pauses whatever goes wrong.
//!
//! An expired resource version (410), a broken connection and an expired token lead to another attempt; refusals with Retry-After are
//! waited out by the client. While nothing can be heard, what was heard stays in force. Objects are decoded one by one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::core::DynamicObject;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::health::Health;
use super::index::{Change, decode};
use super::resource::{Kind, Watched};

/// A listing that says nothing for this long is begun again.
const PATIENCE: Duration = Duration::from_mins(1);
/// How soon a kind that the cluster does not have is asked for again.
const ABSENT: Duration = Duration::from_mins(1);

/// How often a refusal is heard before it is believed.
const FORBIDDEN: u32 = 3;

/// A change of one kind.
pub(super) type Told = (Kind, Change);

/// Watches until nobody listens.
pub(super) async fn follow(client: Client, watched: Watched, told: Sender<Told>, health: Arc<Health>) {
    let api: Api<DynamicObject> = match watched.namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &watched.api),
        None => Api::all_with(client, &watched.api),
    };
    let mut watch = Watch { watched, told, health, complaint: None, listing: true, forbidden: 0 };
    let mut pauses = DefaultBackoff::default();
    loop {
        let Err(trouble) = watch.run(&api, &mut pauses).await else { return };
        let pause = match trouble {
            Trouble::Gone => return,
            Trouble::Absent => {
                if watch.tell(Change::Absent).await.is_err() {
                    return;
                }
                ABSENT
            }
            Trouble::Error => pauses.next().unwrap_or(ABSENT),
        };
        sleep(pause).await;
    }
}

/// Why a watch has to be begun again.
enum Trouble {
    /// Nobody listens.
    Gone,
    /// The cluster has no such kind, or keeps it from the agent, and that is fine.
    Absent,
    /// Anything else.
    Error,
}

struct Watch {
    watched: Watched,
    told: Sender<Told>,
    health: Arc<Health>,
    /// The error that was last logged: each is said once until it is over.
    complaint: Option<String>,
    /// Whether a listing is under way.
    listing: bool,
    /// How often in a row the API server said that the agent may not.
    forbidden: u32,
}

impl Watch {
    async fn run(&mut self, api: &Api<DynamicObject>, pauses: &mut DefaultBackoff) -> Result<(), Trouble> {
        let mut events = watcher(api.clone(), self.watched.settings.clone()).boxed();
        self.listing = true;
        loop {
            let next = events.next();
            let event = if self.listing {
                let Ok(event) = timeout(PATIENCE, next).await else {
                    self.complain("the listing says nothing");
                    return Err(Trouble::Error);
                };
                event
            } else {
                next.await
            };
            match event {
                None => return Err(Trouble::Error),
                Some(Ok(event)) => {
                    if matches!(event, Event::InitDone | Event::Apply(_) | Event::Delete(_)) {
                        kube::runtime::utils::Backoff::reset(pauses);
                    }
                    self.take(event).await?;
                }
                Some(Err(error)) if self.watched.optional && self.is_absent(&error) => {
                    debug!(resource = self.watched.kind.resource(), %error, "is not there, or not for the agent");
                    return Err(Trouble::Absent);
                }
                Some(Err(error)) => {
                    self.complain(&crate::cli::chain(&error));
                    // The watcher goes on from where it was if it can, and lists again if it cannot.
                    sleep(pauses.next().unwrap_or(ABSENT)).await;
                }
            }
        }
    }

    async fn take(&mut self, event: Event<DynamicObject>) -> Result<(), Trouble> {
        let resource = self.watched.kind.resource();
        let change = match event {
            Event::Init => {
                self.listing = true;
                self.health.listing(resource);
                Change::Begin
            }
            Event::InitApply(object) => {
                let (key, decoded) = decode(&self.watched, object);
                self.health.told(resource, decoded.is_ok());
                Change::Listed(key, decoded)
            }
            Event::InitDone => {
                self.listing = false;
                self.health.listed(resource);
                Change::Done
            }
            Event::Apply(object) => {
                let (key, decoded) = decode(&self.watched, object);
                self.health.told(resource, decoded.is_ok());
                Change::Put(key, decoded)
            }
            Event::Delete(object) => {
                self.health.told(resource, true);
                Change::Gone(super::index::key(&object.metadata))
            }
        };
        if !matches!(change, Change::Begin) && self.complaint.take().is_some() {
            info!(resource = self.watched.kind.resource(), "is watched again");
        }
        self.tell(change).await
    }

    async fn tell(&self, change: Change) -> Result<(), Trouble> {
        self.told.send((self.watched.kind.clone(), change)).await.map_err(|_| Trouble::Gone)
    }

    /// Not found: there is no such kind. Forbidden again and again: the agent has not been given the right; an API server that has just
    /// started says so too, for a moment.
    fn is_absent(&mut self, error: &watcher::Error) -> bool {
        match code(error) {
            Some(404) => true,
            Some(403) => {
                self.forbidden += 1;
                self.forbidden >= FORBIDDEN
            }
            _ => {
                self.forbidden = 0;
                false
            }
        }
    }

    fn complain(&mut self, error: &str) {
        let resource = self.watched.kind.resource();
        self.health.failed(resource, error);
        if self.complaint.as_deref() != Some(error) {
            warn!(resource, error, "cannot be watched; what is known of it stays in force, and the agent tries again");
            self.complaint = Some(error.to_owned());
        }
    }
}

/// The code of an answer that is an error.
fn code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status.code),
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => None,
    }
}

#[cfg(test)]
mod tests;
