//! What names need of the kernel.

use egress_common::dns::Answer;
use egress_common::names::{NameEntry, NameKey};

use super::answer::{Found, bytes};
use super::lifetime::Moment;
use crate::datapath::DatapathError;

/// The kernel's maps of names and addresses, as the agent changes them.
pub(crate) trait NameMaps {
    /// Stores answers under a name id, any number of them. A longer life that an address already has under the id is kept.
    fn learn(&mut self, id: u32, answers: &[Answer]) -> Result<(), DatapathError>;

    /// Makes `entries` what the trie holds.
    fn set_names(&mut self, entries: &[(NameKey, NameEntry)]) -> Result<(), DatapathError>;

    /// Removes addresses of which every name ended a while ago.
    fn sweep(&mut self, now: Moment) -> Result<Swept, DatapathError>;
}

/// What a sweep did and left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) removed: u64,
    /// Addresses that are left,
    pub(crate) left: u64,
    /// of so many that there may be.
    pub(crate) limit: u64,
}

/// Answers in the kernel's form.
pub(super) fn answers(found: &[Found]) -> Vec<Answer> {
    found.iter().map(|found| Answer { address: bytes(found.address), ttl: found.ttl, padding: 0 }).collect()
}
