//! What names need of the kernel, while the datapath belongs to somebody else.

use egress_common::dns::Answer;

use super::answer::Found;
use super::lifetime::Moment;
use crate::datapath::{self, DatapathError, Swept, bytes};

/// The kernel's map of addresses, as the agent changes it.
pub(crate) trait NameMaps {
    /// Stores answers under a name id, any number of them. A longer life that an address already has under the id is kept. Returns how
    /// many were stored.
    fn learn(&mut self, id: u32, answers: &[Answer]) -> Result<usize, DatapathError>;

    /// Removes addresses of which every name ended a while ago.
    fn sweep(&mut self, now: Moment) -> Result<Swept, DatapathError>;
}

impl NameMaps for datapath::NameMaps {
    fn learn(&mut self, id: u32, answers: &[Answer]) -> Result<usize, DatapathError> {
        Self::learn(self, id, answers)
    }

    fn sweep(&mut self, now: Moment) -> Result<Swept, DatapathError> {
        Self::sweep(self, u32::try_from(now.as_secs()).unwrap_or(u32::MAX))
    }
}

/// Answers in the kernel's form.
pub(super) fn answers(found: &[Found]) -> Vec<Answer> {
    found.iter().map(|found| Answer { address: bytes(found.address), ttl: found.ttl, padding: 0 }).collect()
}
