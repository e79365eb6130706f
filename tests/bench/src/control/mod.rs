//! The control path through the real agent, a process of its own: from a changed file to the first packet, many pods under several
//! policies, pods that start in a burst, and what the agent takes when nothing happens and when it follows names.
//!
//! Invariant: what is waited for is a packet that arrives outside of the node, or stops arriving; what the agent says of itself is shown
//! beside it and decides nothing.

mod arrivals;
mod burst;
mod cluster;
mod crowd;
mod files;
mod load;
mod names;

use std::path::Path;

use crate::progress::{self, step};
use crate::results::Control;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Pods that are known before they start.
    pods: usize,
    /// Pods that start before they are known.
    late: usize,
    /// Changes of one rule.
    changes: usize,
    /// Seconds over which the agent's processor time is counted.
    seconds: u64,
    /// Names that the agent follows.
    names: usize,
}

impl Effort {
    /// Of a quick run, or of a whole one.
    pub(crate) fn of(quick: bool) -> Self {
        if quick {
            Self { pods: 40, late: 10, changes: 3, seconds: 1, names: 1000 }
        } else {
            Self { pods: 1000, late: 200, changes: 5, seconds: 15, names: 1000 }
        }
    }
}

/// Measures. `memory`: the cgroup of this process, whose kernel memory is read.
pub(crate) fn measure(sizes: &[(String, usize)], effort: Effort, memory: &Path) -> anyhow::Result<Control> {
    progress::heading("the agent");
    let mut found = Control::default();
    crowd::measure(effort, memory, &mut found)?;
    found.loads.extend(step(&format!("{} names with a TTL of 5 s", effort.names), || names::measure(effort))?);
    found.files = files::measure(sizes, effort)?;
    Ok(found)
}
