//! The question, put to the pinned maps in the steps that the programs take: endpoint ▶ table ▶ prefix ▶ class ▶ counter.

use std::net::IpAddr;

use egress_common::names::{NameLeaf, Slot};
use egress_common::table::{Counter, Leaf, flag};
use egress_policy::compile::Lookup;
use egress_policy::ports::KeyRange;
use ipnet::IpNet;

use crate::datapath::DatapathError;
use crate::datapath::inspect::{EndpointView, Inspector, TableView};
use crate::destination::Destination;
use crate::names as directory;
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
    /// Live names of the destination.
    pub(super) names: Vec<NameHeld>,
    /// What prefix and names say together.
    pub(super) says: Vec<(KeyRange, Lookup)>,
    /// Counters of the deciding ranks.
    pub(super) counters: Vec<(u32, Counter)>,
}

/// What a prefix leads to.
#[derive(Clone, Debug)]
pub(super) struct PrefixSays {
    pub(super) prefix: IpNet,
    pub(super) says: Vec<(KeyRange, Lookup)>,
}

/// A name id that the destination has.
#[derive(Clone, Debug)]
pub(super) struct NameHeld {
    pub(super) id: u32,
    /// Second of `CLOCK_MONOTONIC` at which the address ends to be the name's.
    pub(super) expiry: u32,
    /// What the id stands for; none if no rule of the node is about it any more.
    pub(super) place: Option<String>,
    /// Whether rules of the pod are about it.
    pub(super) counts: bool,
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
    let said = |(prefix, leaf): (IpNet, Leaf)| {
        inspector.said(endpoint.table.slot, leaf, to.keys()).map(|says| PrefixSays { prefix, says })
    };
    let containing = inspector.containing(&table, to.address)?;
    let longest = containing.first().map(|(_, leaf)| *leaf);
    let prefixes = containing.into_iter().map(said).collect::<Result<Vec<_>, _>>()?;
    let (names, leaves) = names(inspector, &table, to.address)?;
    let says = match longest.filter(|_| names.iter().any(|name| name.counts)) {
        Some(leaf) => inspector.said_with(&table, (leaf, &leaves), to.keys())?,
        None => prefixes.first().map(|first| first.says.clone()).unwrap_or_default(),
    };
    let mut counters = Vec::new();
    for (_, lookup) in &says {
        let rank = lookup.decision.rank();
        let counter = inspector.rule_counter(&table.info, rank)?;
        counters.extend(counter.map(|counter| (rank, counter)));
    }
    let unchanged = inspector.table_of(endpoint)? == endpoint.table;
    Ok(unchanged.then(|| Found::Judged(Judged { endpoint: endpoint.clone(), table, prefixes, names, says, counters })))
}

/// The live names of an address, and what the table says of each.
fn names(
    inspector: &Inspector,
    table: &TableView,
    address: IpAddr,
) -> Result<(Vec<NameHeld>, Vec<NameLeaf>), DatapathError> {
    if table.info.flags & flag::NAMES == 0 {
        return Ok((Vec::new(), Vec::new()));
    }
    let now = directory::now().as_secs();
    let live: Vec<Slot> =
        inspector.names_of(address)?.into_iter().filter(|slot| u64::from(slot.expiry) > now).collect();
    if live.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let ids: Vec<u32> = live.iter().map(|slot| slot.id).collect();
    let leaves = inspector.name_leaves(table.reference.slot, &ids)?;
    let places = directory::places(&inspector.names()?);
    let held = |(slot, leaf): (&Slot, &NameLeaf)| NameHeld {
        id: slot.id,
        expiry: slot.expiry,
        place: places.get(&slot.id).cloned(),
        counts: *leaf != NameLeaf::NOTHING,
    };
    Ok((live.iter().zip(&leaves).map(held).collect(), leaves))
}
