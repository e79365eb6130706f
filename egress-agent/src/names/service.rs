//! Joins names with applies: gives ids to the names of what is about to be enforced, and has the poller follow them once it is.
//!
//! Started by [`agent`](crate::agent); called around each apply by whoever owns the datapath.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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
use super::shared::Differs;
use crate::datapath::{Datapath, DatapathError, Desired, DesiredNames, DesiredTable};
use crate::sources::Problem;

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
        let addresses = maps.addresses()?;
        let held = addresses.iter().flat_map(|(_, slots)| slots.iter().copied());
        let [min, max, grace] = datapath.lifetimes()?.map(|seconds| Duration::from_secs(seconds.into()));
        let registry =
            Registry::recover(Limits::default(), maps.entries()?, held, Lifetimes { min, max, grace }, now());
        let directory = Shared::new(registry);
        directory.lock().recover(&addresses, now());
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

    /// Gives every name of `desired` its id.
    pub(crate) fn number(&self, desired: &mut Desired) {
        let patterns: Places = patterns(desired).iter().map(Arc::as_ref).collect();
        let mut directory = self.directory.lock();
        let update = directory.update(&patterns, Lifetimes::from(&desired.dns.lifetimes), now());
        desired.names = DesiredNames {
            places: directory.registry.meanings().collect(),
            length: directory.registry.length(),
            entries: directory.registry.entries(),
            reused: update.reused,
        };
    }

    /// Follows the names of `desired`, which the kernel now knows.
    pub(crate) fn follow(&self, desired: &Desired) {
        let exact = patterns(desired).into_iter().filter(|pattern| pattern.wildcard == Wildcard::Exact);
        self.poller.follow(Follow {
            names: exact.map(|pattern| pattern.name.as_str().into()).collect(),
            resolvers: desired.dns.resolvers.iter().map(|address| SocketAddr::new(*address, PORT)).collect(),
            bounds: Bounds {
                lifetimes: Lifetimes::from(&desired.dns.lifetimes),
                internal: (!desired.dns.lifetimes.allow_internal).then(|| desired.dns.internal.clone()),
            },
            differs: Some(differs(desired)),
        });
    }

    /// What is wrong with names, for the status.
    pub(crate) fn report(&self) -> NameReport {
        let directory = self.directory.lock();
        NameReport { problems: directory.problems(now()), warnings: directory.warnings.clone() }
    }
}

/// What there is to say of names.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameReport {
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: BTreeSet<String>,
}

/// Whose table, if any, allows one name and refuses another.
fn differs(desired: &Desired) -> Arc<Differs> {
    let tables: BTreeMap<[u8; 32], (String, Arc<DesiredTable>)> = desired
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.table.table.has_names())
        .map(|endpoint| (endpoint.table.fingerprint, (endpoint.name.clone(), Arc::clone(&endpoint.table))))
        .collect();
    let places: HashMap<u32, Place> = desired.names.places.iter().cloned().collect();
    Arc::new(move |allowed, refused| {
        let (allowed, refused) = (places.get(&allowed)?, places.get(&refused)?);
        let (name, _) = tables.values().find(|(_, table)| table.table.tells_apart(allowed, refused))?;
        Some(name.clone())
    })
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
