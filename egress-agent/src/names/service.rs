//! Joins names with applies: gives ids to the names of what is about to be enforced, and has the poller follow them once it is.
//!
//! Started by [`agent`](crate::agent); called around each apply by whoever owns the datapath.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use egress_policy::name::{NamePattern, Wildcard};
use egress_policy::places::{Place, Places};

use super::directory::{Bounds, Shared};
use super::lifetime::Lifetimes;
use super::now;
use super::poll::PORT;
use super::poller::{Follow, Poller, Setup};
use super::registry::{Limits, Registry};
use crate::datapath::{Datapath, DatapathError, Desired, DesiredNames};

/// The agent's half of names, running.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    directory: Shared,
    poller: Poller,
}

impl Service {
    /// Goes on with the ids that an earlier agent left in the kernel. `problems_changed` is called when names begin or end to fail.
    pub(crate) fn start(
        datapath: &Datapath,
        state_dir: &Path,
        problems_changed: Box<dyn Fn() + Send>,
    ) -> Result<(Self, JoinHandle<()>), StartError> {
        let maps = datapath.name_maps()?;
        let held = maps.addresses()?.into_iter().flat_map(|(_, slots)| slots);
        let [min, max, grace] = datapath.lifetimes()?.map(|seconds| Duration::from_secs(seconds.into()));
        let registry =
            Registry::recover(Limits::default(), maps.entries()?, held, Lifetimes { min, max, grace }, now());
        let directory = Shared::new(registry);
        let ring = maps.take_replies()?;
        let mut setup = Setup::new(directory.clone(), maps, Some(ring), state_dir.to_path_buf());
        setup.problems_changed = problems_changed;
        let (poller, thread) = Poller::start(setup)?;
        Ok((Self { directory, poller }, thread))
    }

    /// What is known of names.
    pub(crate) fn directory(&self) -> &Shared {
        &self.directory
    }

    /// Gives every name of `desired` its id. Returns the places for which there is no room.
    pub(crate) fn number(&self, desired: &mut Desired) -> Vec<Place> {
        let patterns: Places = patterns(desired).iter().map(Arc::as_ref).collect();
        let mut directory = self.directory.lock();
        let update = directory.registry.update(&patterns, Lifetimes::from(&desired.dns.lifetimes), now());
        desired.names = DesiredNames {
            places: directory.registry.meanings().collect(),
            length: directory.registry.length(),
            entries: directory.registry.entries(),
            reused: update.reused,
        };
        update.left_out
    }

    /// Follows the names of `desired`, which the kernel now knows.
    pub(crate) fn follow(&self, desired: &Desired) {
        let exact = patterns(desired).into_iter().filter(|pattern| pattern.wildcard == Wildcard::Exact);
        self.poller.follow(Follow {
            names: exact.map(|pattern| pattern.name.as_str().into()).collect(),
            resolvers: desired.dns.resolvers.iter().map(|address| SocketAddr::new(*address, PORT)).collect(),
            bounds: Bounds {
                lifetimes: Lifetimes::from(&desired.dns.lifetimes),
                internal: desired.dns.internal.clone(),
            },
        });
    }
}

fn patterns(desired: &Desired) -> BTreeSet<Arc<NamePattern>> {
    desired.endpoints.iter().flat_map(|endpoint| endpoint.table.patterns.iter().cloned()).collect()
}

/// Why names cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The kernel's maps.
    #[error(transparent)]
    Kernel(#[from] DatapathError),
    /// The thread.
    #[error("the thread that asks for names cannot be started: {0}")]
    Thread(#[from] io::Error),
}
