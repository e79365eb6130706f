//! Figures about replies and lookups, for the metrics and for `names.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Upper bounds of the buckets of the latency of replies, in seconds.
pub(crate) const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// What happened since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Figures {
    /// Replies to pods that the kernel told of, by what became of them.
    pub(crate) replies: BTreeMap<String, u64>,
    /// Records of the ring that no message could be read from.
    pub(crate) unreadable: u64,
    /// Lookups of the agent that were answered, also that there is nothing.
    pub(crate) lookups_answered: u64,
    /// Lookups that failed.
    pub(crate) lookups_failed: u64,
    /// Lookups that were not begun because too many were wanted at once.
    pub(crate) lookups_refused: u64,
    /// Internal addresses in answers: not stored (§5.6).
    pub(crate) internal: u64,
    /// Addresses in answers that the kernel did not take.
    pub(crate) not_stored: u64,
    /// Names and addresses that gave way to others in the agent's memory.
    pub(crate) evicted: u64,
    /// Addresses that the agent removed from the kernel after their end.
    pub(crate) swept: u64,
    /// Addresses in the kernel, and how many there may be.
    pub(crate) addresses: u64,
    /// See `addresses`.
    pub(crate) addresses_limit: u64,
}
