//! What the agent knows of names, in one place, shared by those who change policies, ask resolvers, read replies and name events.
//!
//! Locked for moments only, never while something is waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use egress_common::names::{Slot, is_special};
use egress_policy::places::{Depth, Place, Places};
use ipnet::IpNet;
use prometheus_client::metrics::histogram::Histogram;

use super::answer::{Family, Found};
use super::figures::{Figures, SECONDS};
use super::known::{Known, Name, Question};
use super::lifetime::{Lifetimes, Moment};
use super::registry::{Registry, Update};
use crate::datapath::bytes;
use crate::sources::Problem;

/// A name whose lookups fail is a problem after so many failures in a row, if it still has addresses.
const PATIENCE: u32 = 3;

/// Settings of the node that names depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) lifetimes: Lifetimes,
    /// Prefixes whose addresses are not stored for a name, beside those that are special everywhere (§5.6); none if the configuration
    /// lets names have internal addresses.
    pub(crate) internal: Option<Vec<IpNet>>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { lifetimes: Lifetimes::default(), internal: Some(Vec::new()) }
    }
}

/// All that is known.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) registry: Registry,
    pub(crate) known: Known,
    pub(crate) bounds: Bounds,
    pub(crate) figures: Figures,
    /// From a pod's query to the reply, in seconds.
    pub(crate) reply_latency: Histogram,
    /// Places for which the trie or the ids had no room.
    left_out: Vec<Place>,
    /// What is probably not meant: names that share addresses.
    pub(crate) warnings: BTreeSet<String>,
}

/// The directory, shared.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<Directory>>);

impl Shared {
    pub(crate) fn new(registry: Registry) -> Self {
        Self(Arc::new(Mutex::new(Directory {
            registry,
            known: Known::default(),
            bounds: Bounds::default(),
            figures: Figures::default(),
            reply_latency: Histogram::new(SECONDS),
            left_out: Vec::new(),
            warnings: BTreeSet::new(),
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Directory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory {
    /// Makes the places of `patterns` those that have ids. What has no room is a problem from now on.
    pub(crate) fn update(&mut self, patterns: &Places, lifetimes: Lifetimes, now: Moment) -> Update {
        let update = self.registry.update(patterns, lifetimes, now);
        self.left_out.clone_from(&update.left_out);
        update
    }

    /// Takes over what the kernel holds for exact names from an earlier agent, whose names of wildcards are not known any more.
    pub(crate) fn recover(&mut self, addresses: &[(IpAddr, Vec<Slot>)], now: Moment) {
        let Self { registry, known, .. } = self;
        for (address, slots) in addresses {
            for slot in slots {
                let place = registry.place(slot.id).filter(|place| place.depth == Depth::Exact);
                let end = Moment::from_secs(slot.expiry.into());
                if let Some(place) = place.filter(|_| end > now) {
                    known.recover(&place.suffix, slot.id, *address, end, now);
                }
            }
        }
    }

    /// Those of the addresses that may be stored; the others are counted.
    pub(crate) fn external(&mut self, found: &[Found]) -> Vec<Found> {
        let is_internal = |address: IpAddr| {
            let prefixes = self.bounds.internal.as_ref();
            prefixes
                .is_some_and(|all| is_special(&bytes(address)) || all.iter().any(|prefix| prefix.contains(&address)))
        };
        let external: Vec<Found> = found.iter().filter(|found| !is_internal(found.address)).copied().collect();
        self.figures.internal += u64::try_from(found.len() - external.len()).unwrap_or(0);
        external
    }

    /// What to call an address that was met with a name id in an event: the concrete names if they are known, else the pattern of a
    /// rule. `None` without an id, or if nobody remembers what it meant.
    pub(crate) fn name_of(&self, address: IpAddr, id: u32) -> Option<String> {
        if id == 0 {
            return None;
        }
        self.concrete_name(address, id).or_else(|| self.registry.pattern(id))
    }

    /// The name, the latest one, that an address was learned for under an id.
    pub(crate) fn concrete_name(&self, address: IpAddr, id: u32) -> Option<String> {
        let of_id =
            self.known.names_of(address).filter(|(text, name)| name.id == id || self.registry.id_of(text) == Some(id));
        of_id.max_by_key(|(_, name)| name.seen).map(|(text, _)| text.to_string())
    }

    /// Names that have no address, or whose lookups fail, and limits that are reached (§5.10).
    pub(crate) fn problems(&self, now: Moment) -> Vec<Problem> {
        let names = self.known.iter().filter_map(|(text, name)| problem(text, name, now));
        let left_out = self.left_out.iter().map(|place| self.no_room(place));
        left_out.chain(self.nearly_full()).chain(names).collect()
    }

    /// How many of the names that the agent asks for are in which state, and how many it knows from replies alone.
    pub(crate) fn states(&self, now: Moment) -> BTreeMap<&'static str, u64> {
        let mut states =
            BTreeMap::from(["resolved", "failing", "absent", "waiting", "learned"].map(|state| (state, 0)));
        for (_, name) in self.known.iter() {
            *states.entry(name.state(now)).or_default() += 1;
        }
        states
    }

    fn no_room(&self, place: &Place) -> Problem {
        let [(suffixes, suffix_limit), (ids, id_limit)] = self.registry.usage();
        let message = format!(
            "there is no room for this name: {suffixes} of {suffix_limit} suffixes and {ids} of {id_limit} name ids are taken"
        );
        Problem::new("dns", message)
            .of(place.to_string())
            .hint("rules about it match nothing; use fewer different names, or wildcards, in the policies of this node")
    }

    fn nearly_full(&self) -> Option<Problem> {
        let (used, limit) = (self.figures.addresses, self.figures.addresses_limit);
        (limit > 0 && used.saturating_mul(10) >= limit.saturating_mul(9)).then(|| {
            Problem::new("dns", format!("the map of addresses is nearly full or full ({limit} fit)"))
                .hint("new addresses of names are not stored when it is full; use narrower wildcards")
        })
    }
}

fn problem(text: &str, name: &Name, now: Moment) -> Option<Problem> {
    let questions = Family::ALL.map(|family| name.question(family).map(|question| (family, question)));
    let [Some(v4), Some(v6)] = questions else { return None };
    let resolved = name.live(now).next().is_some();
    let failing = [v4, v6].into_iter().filter(|(_, question)| question.failures >= if resolved { PATIENCE } else { 1 });
    let failing: Vec<String> = failing.filter_map(|(family, question)| failure(family, question)).collect();
    let of_name = |message: String| Problem::new("dns", message).of(text);
    if !failing.is_empty() {
        let hint = if resolved {
            "its last addresses stay in force, and the agent goes on asking"
        } else {
            "it has no address, so rules about it match nothing; the agent goes on asking"
        };
        return Some(of_name(failing.join("; ")).hint(hint));
    }
    let absences = [v4.1.absence, v6.1.absence];
    (!resolved && absences.iter().all(Option::is_some)).then(|| {
        let message = if absences[0] == absences[1] { absences[0] } else { None };
        let message = message.map_or_else(|| "the name has no addresses".to_owned(), |absence| absence.to_string());
        of_name(message).hint("rules about it match nothing; correct the name, or remove the rule")
    })
}

fn failure(family: Family, question: &Question) -> Option<String> {
    question.error.as_ref().map(|error| format!("the lookup of its {family} records fails: {error}"))
}

#[cfg(test)]
mod tests;
