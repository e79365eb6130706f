//! How the watching of the API server goes, for metrics and for `status`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Of one kind of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Whether the last thing that happened was no error.
    pub(crate) up: bool,
    /// Whether a whole listing was read at least once.
    pub(crate) synced: bool,
    /// Objects that were told of, in listings and changes.
    pub(crate) events: u64,
    /// Errors: broken connections, refusals, listings that took too long.
    pub(crate) errors: u64,
    /// Listings; after the first, each was begun because the watch could not be continued.
    pub(crate) listings: u64,
    /// Objects that could not be read.
    pub(crate) unreadable: u64,
    /// When the API server last said something.
    pub(crate) heard: Option<SystemTime>,
    /// What the last error was.
    pub(crate) last_error: Option<String>,
}

impl Figures {
    const NONE: Self = Self {
        up: false,
        synced: false,
        events: 0,
        errors: 0,
        listings: 0,
        unreadable: 0,
        heard: None,
        last_error: None,
    };
}

/// Of every kind, by resource.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<BTreeMap<String, Figures>>);

impl Health {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Figures>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, resource: &str, change: impl FnOnce(&mut Figures)) {
        change(self.lock().entry(resource.to_owned()).or_insert(Figures::NONE));
    }

    pub(super) fn heard(&self, resource: &str) {
        self.note(resource, |figures| {
            figures.up = true;
            figures.heard = Some(SystemTime::now());
        });
    }

    pub(super) fn told(&self, resource: &str, readable: bool) {
        self.heard(resource);
        self.note(resource, |figures| {
            figures.events += 1;
            figures.unreadable += u64::from(!readable);
        });
    }

    pub(super) fn listing(&self, resource: &str) {
        self.note(resource, |figures| figures.listings += 1);
    }

    pub(super) fn listed(&self, resource: &str) {
        self.heard(resource);
        self.note(resource, |figures| figures.synced = true);
    }

    pub(super) fn failed(&self, resource: &str, error: &str) {
        self.note(resource, |figures| {
            figures.up = false;
            figures.errors += 1;
            figures.last_error = Some(error.to_owned());
        });
    }

    pub(super) fn ended(&self, resource: &str) {
        self.lock().remove(resource);
    }

    /// As it is now.
    pub(crate) fn figures(&self) -> BTreeMap<String, Figures> {
        self.lock().clone()
    }
}
