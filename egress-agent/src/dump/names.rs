//! What `dump names` shows: every place of the rules' names, the concrete names that the agent knows there, and the addresses that the
//! kernel holds for them. The addresses and their ends are the kernel's; `names.json` only says whose they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use egress_common::names::{NameEntry, NameKey, Slot};
use serde::Serialize;

use crate::columns::{Cell, Tone};
use crate::names::{LookupRow, NameRow, Snapshot, places};

/// A name, or what is known of a place beyond its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NameView {
    /// A concrete name, or the place if the agent knows no name for these addresses.
    pub(crate) name: String,
    /// Name id; 0 for a name that no rule is about any more.
    pub(crate) id: u32,
    /// Where the name belongs: `foo.com`, `*.foo.com`; none for an id that no rule is about any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<String>,
    /// Whether it is a concrete name.
    pub(crate) concrete: bool,
    pub(crate) addresses: Vec<AddressView>,
    /// How the agent's lookups went, if it asks for the name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) lookups: Vec<LookupView>,
}

/// An address of a name in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AddressView {
    pub(crate) address: IpAddr,
    pub(crate) seconds_left: u32,
    /// `polled`, `learned` or both; none if the agent has not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
}

/// The lookups of one type of records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LookupView {
    /// `A` or `AAAA`.
    pub(crate) records: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) answered_seconds_ago: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) absence: Option<String>,
    pub(crate) failures: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// What the maps hold.
pub(super) struct Held {
    pub(super) trie: Vec<(NameKey, NameEntry)>,
    pub(super) addresses: Vec<(IpAddr, Vec<Slot>)>,
}

/// Joins what the kernel has with what the agent last wrote; `now` is a second of `CLOCK_MONOTONIC`.
pub(super) fn view(held: &Held, snapshot: Option<&Snapshot>, now: u64) -> Vec<NameView> {
    let mut by_id: BTreeMap<u32, BTreeMap<IpAddr, u32>> = BTreeMap::new();
    for (address, slots) in &held.addresses {
        for slot in slots.iter().filter(|slot| u64::from(slot.expiry) > now) {
            let left = u32::try_from(u64::from(slot.expiry).saturating_sub(now)).unwrap_or(u32::MAX);
            by_id.entry(slot.id).or_default().insert(*address, left);
        }
    }
    let places = places(&held.trie);
    let names = snapshot.map_or(&[][..], |snapshot| &snapshot.names);
    let mut views: Vec<NameView> = names.iter().map(|row| named(row, &places, &by_id, now)).collect();
    let told: BTreeSet<(u32, IpAddr)> =
        views.iter().flat_map(|view| view.addresses.iter().map(|address| (view.id, address.address))).collect();
    let with_names: BTreeSet<u32> = views.iter().map(|view| view.id).collect();
    let ids: BTreeSet<u32> = places.keys().chain(by_id.keys()).copied().collect();
    for id in ids {
        let rest: Vec<AddressView> = by_id
            .get(&id)
            .into_iter()
            .flatten()
            .filter(|(address, _)| !told.contains(&(id, **address)))
            .map(|(address, left)| AddressView { address: *address, seconds_left: *left, source: None })
            .collect();
        if rest.is_empty() && with_names.contains(&id) {
            continue;
        }
        let place = places.get(&id).cloned();
        let name = place.clone().unwrap_or_else(|| format!("id {id}, which no rule is about any more"));
        views.push(NameView { name, id, place, concrete: false, addresses: rest, lookups: Vec::new() });
    }
    views.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    views
}

fn named(
    row: &NameRow,
    places: &BTreeMap<u32, String>,
    by_id: &BTreeMap<u32, BTreeMap<IpAddr, u32>>,
    now: u64,
) -> NameView {
    let id = row.id.unwrap_or(0);
    let in_kernel = by_id.get(&id);
    let addresses = row.addresses.iter().filter_map(|known| {
        let left = in_kernel?.get(&known.address)?;
        Some(AddressView { address: known.address, seconds_left: *left, source: Some(known.source.clone()) })
    });
    NameView {
        name: row.name.clone(),
        id,
        place: places.get(&id).cloned(),
        concrete: true,
        addresses: addresses.collect(),
        lookups: row.lookups.iter().map(|lookup| looked_up(lookup, now)).collect(),
    }
}

fn looked_up(row: &LookupRow, now: u64) -> LookupView {
    LookupView {
        records: row.records.clone(),
        answered_seconds_ago: row.last_success.map(|moment| now.saturating_sub(moment)),
        absence: row.absence.clone(),
        failures: row.failures,
        error: row.last_error.clone(),
    }
}

/// Headers of [`rows`].
pub(super) const HEADERS: [&str; 6] = ["name", "id", "address", "left s", "source", "lookups"];

/// A line per address; the name stands in the first one.
pub(super) fn rows(views: &[NameView]) -> impl Iterator<Item = Vec<Cell>> + '_ {
    views.iter().flat_map(lines)
}

fn lines(view: &NameView) -> Vec<Vec<Cell>> {
    let head = |first: bool| {
        let name = if first { view.name.as_str() } else { "" };
        let id = if first { Cell::number(&view.id) } else { Cell::text("") };
        [Cell::text(name).tone(if view.concrete { Tone::Plain } else { Tone::Faint }), id]
    };
    let tail = |first: bool| if first { trouble(view) } else { Cell::text("") };
    if view.addresses.is_empty() {
        let nothing = [Cell::optional(None::<u32>), Cell::optional(None::<u32>), Cell::optional(None::<u32>)];
        return vec![head(true).into_iter().chain(nothing).chain([tail(true)]).collect()];
    }
    let line = |(number, address): (usize, &AddressView)| {
        let cells = [
            Cell::text(address.address.to_string()),
            Cell::number(&address.seconds_left),
            address.source.as_ref().map_or_else(|| Cell::optional(None::<u32>), Cell::text),
        ];
        head(number == 0).into_iter().chain(cells).chain([tail(number == 0)]).collect()
    };
    view.addresses.iter().enumerate().map(line).collect()
}

/// What is wrong with the lookups; `well` if nothing is.
fn trouble(view: &NameView) -> Cell {
    if view.lookups.is_empty() {
        return Cell::optional(None::<u32>);
    }
    let errors = view.lookups.iter().filter_map(|lookup| {
        let error = lookup.error.as_ref()?;
        Some(format!("{}: {error} ({} in a row)", lookup.records, lookup.failures))
    });
    let errors: Vec<String> = errors.collect();
    if !errors.is_empty() {
        return Cell::text(errors.join("; ")).tone(Tone::Bad);
    }
    let absent = |lookup: &LookupView| lookup.absence.clone();
    let absences: Option<BTreeSet<String>> = view.lookups.iter().map(absent).collect();
    if let Some(absences) = absences {
        return Cell::text(absences.into_iter().collect::<Vec<_>>().join("; ")).tone(Tone::Bad);
    }
    let waiting = view.lookups.iter().all(|lookup| lookup.answered_seconds_ago.is_none());
    if waiting { Cell::text("not answered yet") } else { Cell::text("well").tone(Tone::Good) }
}
