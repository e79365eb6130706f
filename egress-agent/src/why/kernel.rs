//! The question, put to the pinned maps in the steps that the programs take: endpoint ▶ table ▶ prefix ▶ class ▶ counter.

use egress_common::table::{Counter, Leaf};
use egress_policy::compile::Lookup;
use egress_policy::ports::KeyRange;
use ipnet::IpNet;

use crate::datapath::DatapathError;
use crate::datapath::inspect::{EndpointView, Inspector, TableView};
use crate::destination::Destination;
use crate::pods::PodName;

/// How often the question is put again while tables are replaced under it.
const ATTEMPTS: usize = 10;

/// What the maps say.
#[derive(Debug)]
pub(super) enum Found {
    /// No endpoint has this name; some that there are.
    Unknown { known: Vec<String> },
    /// The endpoint has no table: everything passes.
    NoTable(EndpointView),
    /// Its table says this.
    Judged(Judged),
}

/// An endpoint's table, as far as one destination needs it.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) endpoint: EndpointView,
    pub(super) table: TableView,
    /// The prefixes that contain the destination, the longest, which decides, first.
    pub(super) prefixes: Vec<PrefixSays>,
    /// Counters of the deciding ranks.
    pub(super) counters: Vec<(u32, Counter)>,
}

/// What a prefix leads to.
#[derive(Clone, Debug)]
pub(super) struct PrefixSays {
    pub(super) prefix: IpNet,
    pub(super) says: Vec<(KeyRange, Lookup)>,
}

/// Asks; an answer is of one table version.
pub(super) fn ask(inspector: &Inspector, pod: &PodName, to: Destination) -> Result<Found, DatapathError> {
    let name = pod.to_string();
    let mut last = attempt(inspector, &name, to);
    for _ in 1..ATTEMPTS {
        match &last {
            Ok(Some(_)) => break,
            Ok(None) | Err(_) => last = attempt(inspector, &name, to),
        }
    }
    last?.ok_or(DatapathError::Syscall {
        call: "reading the pod's table",
        source: std::io::Error::other(
            "the table was replaced again and again, or its description is missing; try again",
        ),
    })
}

/// `None` if the table was replaced meanwhile.
fn attempt(inspector: &Inspector, name: &str, to: Destination) -> Result<Option<Found>, DatapathError> {
    let endpoints = inspector.endpoints()?;
    let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.name == name) else {
        let known = endpoints.into_iter().map(|endpoint| endpoint.name).collect();
        return Ok(Some(Found::Unknown { known }));
    };
    if endpoint.table.generation == 0 {
        return Ok(Some(Found::NoTable(endpoint.clone())));
    }
    let Some(table) = inspector.table(endpoint.table)? else { return Ok(None) };
    let says = |(prefix, leaf): (IpNet, Leaf)| {
        inspector.said(endpoint.table.slot, leaf, to.keys()).map(|says| PrefixSays { prefix, says })
    };
    let prefixes = inspector.containing(endpoint.table.slot, to.address)?;
    let prefixes = prefixes.into_iter().map(says).collect::<Result<Vec<_>, _>>()?;
    let mut counters = Vec::new();
    for (_, lookup) in prefixes.first().iter().flat_map(|deciding| &deciding.says) {
        let rank = lookup.decision.rank();
        let counter = inspector.rule_counter(&table.info, rank)?;
        counters.extend(counter.map(|counter| (rank, counter)));
    }
    let unchanged = inspector.table_of(endpoint)? == endpoint.table;
    Ok(unchanged.then(|| Found::Judged(Judged { endpoint: endpoint.clone(), table, prefixes, counters })))
}
