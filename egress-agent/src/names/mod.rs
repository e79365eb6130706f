//! The agent's half of DNS names (§5): which numbers stand for which places, which names are asked for and when, and what is known of
//! each.
//!
//! [`registry`] gives ids, [`poller`] asks, [`replies`] listens, [`known`] remembers, [`directory`] joins them. Everything that decides
//! is in the kernel: the agent hands it the trie of names and the answers that it polled.

mod answer;
mod directory;
mod figures;
mod known;
mod lifetime;
mod maps;
mod place;
mod poll;
mod poller;
mod registry;
mod replies;
mod service;
mod shared;
#[cfg(test)]
mod simulation;
mod snapshot;

use std::time::Duration;

use crate::events::monotonic_now;

pub(crate) use directory::Shared;
pub(crate) use lifetime::Moment;
pub(crate) use place::places;
pub(crate) use replies::LOOK as REPLIES_LOOK;
pub(crate) use service::{NameReport, Service};
pub(crate) use snapshot::{LookupRow, NameRow, Snapshot};

/// This moment.
pub(crate) fn now() -> Moment {
    Duration::from_nanos(monotonic_now().unwrap_or(0))
}
