//! Who and which rule the numbers of an event mean. Both never change their meaning while the pins live, so they are remembered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use egress_common::event::Event;
use egress_policy::describe::{RuleDescription, TableDescription};

use crate::datapath::Datapath;

/// Table versions remembered; a denial may be read after its table was replaced.
const MOST_TABLES: usize = 64;
/// Endpoint numbers remembered.
const MOST_ENDPOINTS: usize = 16_384;

/// What an event is about, in words.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    /// `namespace/name`.
    pub(super) pod: Option<String>,
    pub(super) rule: Option<RuleDescription>,
}

/// Asks the datapath once per number.
pub(super) struct Names {
    datapath: Arc<Mutex<Datapath>>,
    pods: HashMap<u32, String>,
    tables: HashMap<u32, Arc<TableDescription>>,
}

impl Names {
    pub(super) fn new(datapath: Arc<Mutex<Datapath>>) -> Self {
        Self { datapath, pods: HashMap::new(), tables: HashMap::new() }
    }

    pub(super) async fn of(&mut self, event: &Event) -> Named {
        let known = self.pods.contains_key(&event.endpoint) && self.tables.contains_key(&event.generation);
        if !known {
            self.ask(event.endpoint, event.generation).await;
        }
        let rule = self.tables.get(&event.generation).and_then(|table| table.rule(event.rank));
        Named { pod: self.pods.get(&event.endpoint).cloned(), rule: rule.cloned() }
    }

    /// The datapath may be busy with an apply, so it is waited for elsewhere.
    async fn ask(&mut self, endpoint: u32, generation: u32) {
        let datapath = Arc::clone(&self.datapath);
        let answer = tokio::task::spawn_blocking(move || {
            let datapath = datapath.lock().unwrap_or_else(PoisonError::into_inner);
            (datapath.endpoint_name(endpoint), datapath.description(generation))
        });
        let Ok((pod, table)) = answer.await else { return };
        if self.pods.len() >= MOST_ENDPOINTS {
            self.pods.clear();
        }
        if self.tables.len() >= MOST_TABLES {
            self.tables.clear();
        }
        self.pods.extend(pod.map(|pod| (endpoint, pod)));
        self.tables.extend(table.map(|table| (generation, table)));
    }
}
