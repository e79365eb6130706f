//! Keeps the kernel in step with the files or the cluster: one thread owns every input, what is desired and what is realized.
//!
//! wake ▶ read ▶ discover ▶ plan ▶ apply ▶ record. Invariant: realized changes only after the kernel confirmed it, and a round
//! that fails leaves everything in force as it was. Started by [`agent`](crate::agent).

mod inputs;
mod plan;
mod round;
mod status;

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tracing::error;

use crate::cli::chain;
use crate::datapath::DatapathError;

pub(crate) use inputs::{Origin, Sources};
pub(crate) use plan::Planner;
pub(crate) use round::{Kernel, Outcome, Reconciler};
pub(crate) use status::{LastStatus, Status, StatusFile};

/// How soon something that is missing is looked for again, should no link change tell of it.
const RETRY: Duration = Duration::from_secs(2);
/// How soon everything is compared again although nothing seems to have changed.
const REVIEW: Duration = Duration::from_secs(30);

/// Why the reconciler should look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Files or objects of the cluster changed.
    Files,
    /// Files should be read again; nobody said that they changed.
    Rescan,
    /// Links or addresses changed, or pods of this machine.
    Links,
    /// DNS names began or ended to fail.
    Names,
    /// The agent ends.
    Stop,
}

/// What a round has to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Read the files.
    pub(crate) files: bool,
    /// Somebody said that they changed: the round counts as a new generation even if they turn out to be the same.
    pub(crate) told: bool,
    /// Look for the endpoints on the machine.
    pub(crate) discover: bool,
}

impl Work {
    /// Everything, as at the start.
    pub(crate) const ALL: Self = Self { files: true, told: true, discover: true };

    fn add(&mut self, wake: Wake) {
        match wake {
            Wake::Files => (self.files, self.told) = (true, true),
            Wake::Rescan => (self.files, self.discover) = (true, true),
            Wake::Links => self.discover = true,
            Wake::Names | Wake::Stop => {}
        }
    }
}

/// Runs rounds until told to stop, or until everybody who could wake it is gone. `told` hears how each round went.
pub(crate) fn follow<K: Kernel>(
    reconciler: &mut Reconciler<K>,
    wakes: &Receiver<Wake>,
    mut told: impl FnMut(&Result<Outcome, DatapathError>),
) {
    let mut waited = false;
    loop {
        let taken = if reconciler.has_more() {
            take(wakes, Work::default())
        } else {
            next(wakes, if reconciler.is_complete() { REVIEW } else { RETRY })
        };
        let Some(mut work) = taken else { return };
        if !reconciler.is_ready() {
            waited = true;
            continue;
        }
        if std::mem::take(&mut waited) {
            work = Work::ALL;
        }
        let result = reconciler.round(work);
        told(&result);
        if let Err(failure) = result {
            error!(error = chain(&failure), "could not apply; what was in force stays so, and the agent tries again");
        }
    }
}

/// Waits for work, for as long as `review`, and takes all of it that there is; `None` when it is time to stop.
fn next(wakes: &Receiver<Wake>, review: Duration) -> Option<Work> {
    let mut work = Work::default();
    match wakes.recv_timeout(review) {
        Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
        Ok(wake) => work.add(wake),
        Err(RecvTimeoutError::Timeout) => work.discover = true,
    }
    take(wakes, work)
}

/// Adds what there is to `work`, without waiting; `None` when it is time to stop.
fn take(wakes: &Receiver<Wake>, mut work: Work) -> Option<Work> {
    for wake in wakes.try_iter() {
        if wake == Wake::Stop {
            return None;
        }
        work.add(wake);
    }
    Some(work)
}

#[cfg(test)]
mod tests;
