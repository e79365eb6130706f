//! Joins names with applies: gives ids to the names of what is about to be enforced, and has the poller follow them once it is.
//!
//! Started by [`agent`](crate::agent); called around each apply by whoever owns the datapath.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use egress_common::class;
use egress_common::names::{Slot, name_state};
use egress_common::packet::protocol;
use egress_policy::name::{NamePattern, Wildcard};
use egress_policy::places::{Depth, Place, Places};

use super::directory::{Bounds, Directory, Shared};
use super::lifetime::Lifetimes;
use super::now;
use super::poll::PORT;
use super::poller::{Follow, Poller, Setup};
use super::registry::{Limits, Registry};
use super::shared::Differs;
use crate::datapath::{Datapath, DatapathError, Desired, DesiredNames, DesiredTable};

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
        let held = addresses.iter().flat_map(|(_, slots)| slots).copied();
        let [min, max, grace] = datapath.lifetimes()?.map(|seconds| Duration::from_secs(seconds.into()));
        let registry =
            Registry::recover(Limits::default(), maps.entries()?, held, Lifetimes { min, max, grace }, now());
        let directory = Shared::new(registry);
        recover(&directory, &addresses);
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
}

/// Exact names keep the addresses that an earlier agent found: a resolver may be down now.
fn recover(directory: &Shared, addresses: &[(IpAddr, Vec<Slot>)]) {
    let now = now();
    let mut directory = directory.lock();
    let Directory { registry, known, .. } = &mut *directory;
    for (address, slot) in addresses.iter().flat_map(|(address, slots)| slots.iter().map(|slot| (*address, *slot))) {
        let end = Duration::from_secs(slot.expiry.into());
        if let Some(place) = registry.place(slot.id).filter(|place| place.depth == Depth::Exact && now < end) {
            known.recover(&place.suffix, slot.id, address, end, now);
        }
    }
}

/// Which tables allow the one name and refuse the other, each by the name of a pod that has it.
fn differs(desired: &Desired) -> Arc<Differs> {
    /// (protocol, port) pairs at which names are compared: what people open most, and a protocol without ports.
    const KEYS: [u32; 4] =
        [class::key(protocol::TCP, 443), class::key(protocol::TCP, 80), class::key(protocol::UDP, 443), 0];
    let mut tables = BTreeMap::new();
    for endpoint in desired.endpoints.iter().filter(|endpoint| endpoint.table.table.has_names()) {
        tables
            .entry(endpoint.table.fingerprint)
            .or_insert_with(|| (endpoint.name.clone(), Arc::clone(&endpoint.table)));
    }
    let places: HashMap<u32, Place> = desired.names.places.iter().cloned().collect();
    Arc::new(move |one, other| {
        let (one, other) = (places.get(&one)?, places.get(&other)?);
        let refuses = |table: &DesiredTable, place: &Place, key| {
            let leaf = table.table.name_leaf(place);
            let state = name_state(table.table.classes.as_slice(), leaf, key, table.table.head_rules)?;
            state.verdict().map(|verdict| verdict.decision.is_deny())
        };
        let differs = |table: &DesiredTable| {
            KEYS.iter().any(|key| refuses(table, one, *key) == Some(false) && refuses(table, other, *key) == Some(true))
        };
        tables.values().find(|(_, table)| differs(table)).map(|(pod, _)| pod.clone())
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
