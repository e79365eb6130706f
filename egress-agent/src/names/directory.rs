//! What the agent knows of names, in one place, shared by those who change policies, ask resolvers, read replies and name events.
//!
//! Locked for moments only, never while something is waited for.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use super::answer::{Family, Found};
use super::figures::Figures;
use super::known::{Known, Name, Question};
use super::lifetime::{Lifetimes, Moment};
use super::registry::Registry;
use crate::sources::Problem;

/// A name whose lookups fail is a problem after so many failures in a row, if it still has addresses.
const PATIENCE: u32 = 3;

/// Settings of the node that names depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) lifetimes: Lifetimes,
    /// Prefixes whose addresses are not stored for a name (§5.6); empty if the configuration allows them.
    pub(crate) internal: Vec<IpNet>,
}

/// All that is known.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) registry: Registry,
    pub(crate) known: Known,
    pub(crate) bounds: Bounds,
    pub(crate) figures: Figures,
}

/// The directory, shared.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<Directory>>);

impl Shared {
    pub(crate) fn new(registry: Registry) -> Self {
        let (known, bounds, figures) = (Known::default(), Bounds::default(), Figures::default());
        Self(Arc::new(Mutex::new(Directory { registry, known, bounds, figures })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Directory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory {
    /// Those of the addresses that may be stored; the others are counted.
    pub(crate) fn external(&mut self, found: &[Found]) -> Vec<Found> {
        let is_internal = |address: IpAddr| self.bounds.internal.iter().any(|prefix| prefix.contains(&address));
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
        let of_id =
            self.known.names_of(address).filter(|(text, name)| name.id == id || self.registry.id_of(text) == Some(id));
        let latest = of_id.max_by_key(|(_, name)| name.seen).map(|(text, _)| text.to_string());
        latest.or_else(|| self.registry.pattern(id))
    }

    /// Names that have no address, or whose lookups fail.
    pub(crate) fn problems(&self, now: Moment) -> Vec<Problem> {
        self.known.iter().filter_map(|(text, name)| problem(text, name, now)).collect()
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
