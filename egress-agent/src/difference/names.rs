//! Names for whose addresses something else changes than for addresses without names.
//!
//! Every place of the names of both sides is compared, so nothing is left out: a name in no line changes as its addresses do without names.
//! Inside a wildcard that is told, every name that the rules tell apart from it is told too, so that the wildcard means the others. An
//! address of several names at once is judged by all of them (§5.9) and may change in yet another way.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use egress_common::names::NameLeaf;
use egress_common::table::Decision;
use egress_policy::compile::Lookup;
use egress_policy::diff::{Change, diff_named};
use egress_policy::places::{Depth, Place, Places};
use egress_policy::ports::KeyRange;
use egress_policy::rules::RuleList;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Side;

/// Addresses that no name can have (§5.6).
const SPECIAL: [IpNet; 7] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 127)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)),
];

/// The names with what changes for their addresses, where that is not `plain`, which is what changes for the others.
pub(super) fn changes(old: &Side, new: &Side, plain: &[Change]) -> Vec<(Vec<String>, Vec<Change>)> {
    let patterns = [&old.list, &new.list].map(RuleList::patterns);
    let places: Places = patterns.iter().flatten().map(AsRef::as_ref).collect();
    let possible = |change: &Change| !SPECIAL.iter().any(|special| special.contains(&change.prefix));
    let plain = meaning(plain.iter().filter(|change| possible(change)));
    let mut by_leaves: HashMap<(NameLeaf, NameLeaf), usize> = HashMap::new();
    let mut groups: Vec<(Vec<Place>, Vec<Change>)> = Vec::new();
    for place in places.iter() {
        let leaves = (old.table.name_leaf(&place), new.table.name_leaf(&place));
        let next = groups.len();
        let group = *by_leaves.entry(leaves).or_insert(next);
        if let Some((places, _)) = groups.get_mut(group) {
            places.push(place);
        } else {
            let changes = diff_named(&old.table, &new.table, leaves.0, leaves.1);
            groups.push((vec![place], changes.into_iter().filter(possible).collect()));
        }
    }
    let (differing, alike): (Vec<_>, Vec<_>) =
        groups.into_iter().partition(|(_, changes)| meaning(changes.iter()) != plain);
    let told: Vec<&Place> = differing.iter().flat_map(|(places, _)| places).collect();
    let inside = |place: &Place| told.iter().any(|wildcard| seems_to_mean(wildcard, place));
    let alike = alike.into_iter().filter_map(|(mut places, changes)| {
        places.retain(inside);
        (!places.is_empty()).then_some((places, changes))
    });
    let alike: Vec<_> = alike.collect();
    joined(differing.into_iter().chain(alike))
}

/// Whether the text of `wildcard` would be read as meaning the names of `place` too, which belong to a longer suffix.
fn seems_to_mean(wildcard: &Place, place: &Place) -> bool {
    let front = place.suffix.strip_suffix(&wildcard.suffix).and_then(|front| front.strip_suffix('.'));
    match (front, wildcard.depth) {
        (None, _) | (_, Depth::Exact) => false,
        (Some(front), Depth::One) => place.depth == Depth::Exact && !front.contains('.'),
        (Some(front), Depth::More) => place.depth != Depth::Exact || front.contains('.'),
    }
}

/// Names for which nothing changes are said together, and last.
fn joined(groups: impl Iterator<Item = (Vec<Place>, Vec<Change>)>) -> Vec<(Vec<String>, Vec<Change>)> {
    let (same, changed): (Vec<_>, Vec<_>) = groups.partition(|(_, changes)| changes.is_empty());
    let mut same: Vec<Place> = same.into_iter().flat_map(|(places, _)| places).collect();
    same.sort();
    let same = (!same.is_empty()).then(|| (same, Vec::new()));
    let text = |(places, changes): (Vec<Place>, _)| (places.iter().map(ToString::to_string).collect(), changes);
    changed.into_iter().chain(same).map(text).collect()
}

/// What a verdict says, whichever rule gives it.
type Words = ((bool, bool), Option<(bool, bool)>);

/// What changes mean, whichever rules do it and however they are cut.
fn meaning<'c>(changes: impl Iterator<Item = &'c Change>) -> Vec<(IpNet, KeyRange, Words, Words)> {
    let action = |decision: Decision| (decision.is_deny(), decision.is_internal());
    let words = |lookup: Lookup| (action(lookup.decision), lookup.audit.map(action));
    let mut meaning: Vec<(IpNet, KeyRange, Words, Words)> = Vec::new();
    for Change { prefix, keys, old, new } in changes {
        let (old, new) = (words(*old), words(*new));
        match meaning.last_mut() {
            Some((before, range, was, is))
                if (*before, *was, *is) == (*prefix, old, new) && range.last.checked_add(1) == Some(keys.first) =>
            {
                range.last = keys.last;
            }
            _ => meaning.push((*prefix, *keys, old, new)),
        }
    }
    meaning
}
