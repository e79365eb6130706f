//! Who and which rule the numbers of an event mean. Both never change their meaning while the pins live, so they are remembered.
//!
//! Tables are noted when they come into force, so that a denial can still be named after its table was replaced. Called by the
//! event reader and, after each apply, by the reconciler.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use egress_common::event::Event;
use egress_policy::describe::{RuleDescription, TableDescription};

use super::address;
use crate::datapath::{Datapath, Desired};
use crate::names::Shared;

/// Table versions remembered beyond those in force.
const MOST_FORMER_TABLES: usize = 64;
/// Endpoint numbers remembered.
const MOST_ENDPOINTS: usize = 16_384;

/// What an event is about, in words.
#[derive(Clone, Debug, Default)]
pub(crate) struct Named {
    /// `namespace/name`.
    pub(crate) pod: Option<String>,
    pub(crate) rule: Option<RuleDescription>,
    /// What the address was looked up as: a concrete name, or the pattern of a rule.
    pub(crate) name: Option<String>,
}

/// The datapath, and what its numbers were found to mean.
#[derive(Clone)]
pub(crate) struct Names {
    datapath: Arc<Mutex<Datapath>>,
    directory: Shared,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    pods: HashMap<u32, String>,
    /// By generation; the highest are the youngest.
    tables: BTreeMap<u32, Arc<TableDescription>>,
}

impl Names {
    pub(crate) fn new(datapath: Arc<Mutex<Datapath>>, directory: Shared) -> Self {
        Self { datapath, directory, known: Arc::default() }
    }

    /// Notes the tables that are in force now.
    pub(crate) fn note(&self, datapath: &Datapath, desired: &Desired) {
        let table = |name: &str| datapath.table_of(name).map(|table| table.generation);
        let in_force: BTreeSet<u32> = desired.endpoints.iter().filter_map(|endpoint| table(&endpoint.name)).collect();
        let mut known = self.known();
        for generation in &in_force {
            if let Some(description) = datapath.description(*generation) {
                known.tables.insert(*generation, description);
            }
        }
        let former: Vec<u32> =
            known.tables.keys().filter(|generation| !in_force.contains(generation)).copied().collect();
        for generation in former.iter().take(former.len().saturating_sub(MOST_FORMER_TABLES)) {
            known.tables.remove(generation);
        }
    }

    /// Whether the reply that the event's address was learned from may not have been read yet.
    pub(super) fn waits_for_reply(&self, event: &Event) -> bool {
        event.name != 0 && self.directory.lock().concrete_name(address(event.remote), event.name).is_none()
    }

    pub(super) async fn of(&self, event: &Event) -> Named {
        let unknown = {
            let known = self.known();
            !known.pods.contains_key(&event.endpoint) || !known.tables.contains_key(&event.generation)
        };
        if unknown {
            self.ask(event.endpoint, event.generation).await;
        }
        let name = self.directory.lock().name_of(address(event.remote), event.name);
        let known = self.known();
        Named {
            name,
            pod: known.pods.get(&event.endpoint).cloned(),
            rule: known.tables.get(&event.generation).and_then(|table| table.rule(event.rank)).cloned(),
        }
    }

    /// The datapath may be busy with an apply, so it is waited for elsewhere.
    async fn ask(&self, endpoint: u32, generation: u32) {
        let datapath = Arc::clone(&self.datapath);
        let answer = tokio::task::spawn_blocking(move || {
            let datapath = datapath.lock().unwrap_or_else(PoisonError::into_inner);
            (datapath.endpoint_name(endpoint), datapath.description(generation))
        });
        let Ok((pod, table)) = answer.await else { return };
        let mut known = self.known();
        if known.pods.len() >= MOST_ENDPOINTS {
            known.pods.clear();
        }
        known.pods.extend(pod.map(|pod| (endpoint, pod)));
        known.tables.extend(table.map(|table| (generation, table)));
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
