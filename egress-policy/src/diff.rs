//! The exact difference of two tables: for which addresses, protocols and ports the verdict changes.
//!
//! Both tables are walked together over the union of their prefixes. A prefix of the union stands for the addresses that no longer prefix
//! of the union holds; where there are none, nothing is reported. Ranks are of different lists and are not compared: a rule that
//! moves without changing a verdict is no difference, unless the caller maps the ranks ([`diff_by`]).

use std::collections::HashMap;
use std::fmt;

/// Ranges of keys at which two tables differ, with what each says.
type Changes = Vec<(KeyRange, Lookup, Lookup)>;

use egress_common::names::NameLeaf;
use egress_common::table::{Decision, Leaf};
use ipnet::IpNet;

use crate::compile::{Lookup, Table};
use crate::ports::{KeyRange, LAST_KEY};

/// A verdict that changes, for the addresses of `prefix` that are in no longer prefix of either table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// The prefix.
    pub prefix: IpNet,
    /// The protocols and ports.
    pub keys: KeyRange,
    /// What the old table says.
    pub old: Lookup,
    /// What the new table says.
    pub new: Lookup,
}

/// `1.2.3.0/24 TCP/443: allow → deny`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {} → {}", self.prefix, self.keys, Words(self.old), Words(self.new))
    }
}

struct Words(Lookup);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(verdict(self.0.decision))?;
        match self.0.audit {
            Some(audit) => write!(f, " (audit: {})", verdict(audit)),
            None => Ok(()),
        }
    }
}

const fn verdict(decision: Decision) -> &'static str {
    if decision.is_deny() {
        "deny"
    } else if decision.is_internal() {
        "internal"
    } else {
        "allow"
    }
}

/// How many prefixes of the tables themselves differ: what an update of the maps has to touch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Summary {
    /// Only in the new table.
    pub added: usize,
    /// Only in the old table.
    pub removed: usize,
    /// In both, saying something else (rank included).
    pub changed: usize,
    /// In both, saying the same.
    pub kept: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { added, removed, changed, kept } = self;
        write!(f, "{added} prefixes added, {removed} removed, {changed} changed, {kept} kept")
    }
}

/// Every difference between the verdicts of `old` and `new`, in the order of prefixes, IPv4 first. For addresses without names, or with
/// names that no rule of either is about.
pub fn diff(old: &Table, new: &Table) -> Vec<Change> {
    diff_by(old, new, says_the_same)
}

/// [`diff`] for the addresses of a name, of which the old table says `before` and the new one `after`.
pub fn diff_named(old: &Table, new: &Table, before: NameLeaf, after: NameLeaf) -> Vec<Change> {
    changes(old, new, before, after, says_the_same)
}

fn says_the_same(old: &Lookup, new: &Lookup) -> bool {
    let action = |decision: Decision| (decision.is_deny(), decision.is_internal());
    let said = |lookup: &Lookup| (action(lookup.decision), lookup.audit.map(action));
    said(old) == said(new)
}

/// Every region where `same` does not hold between what the tables say. With `same` comparing the rules behind the ranks, also changes
/// of the deciding rule are found.
pub fn diff_by(old: &Table, new: &Table, same: impl Fn(&Lookup, &Lookup) -> bool) -> Vec<Change> {
    changes(old, new, NameLeaf::NOTHING, NameLeaf::NOTHING, same)
}

fn changes(
    old: &Table,
    new: &Table,
    before: NameLeaf,
    after: NameLeaf,
    same: impl Fn(&Lookup, &Lookup) -> bool,
) -> Vec<Change> {
    let mut changes = Vec::new();
    // Few pairs of leaves stand for many regions.
    let mut known: HashMap<(Leaf, Leaf), Changes> = HashMap::new();
    for region in regions(old, new).into_iter().filter(|region| !region.is_empty) {
        let differences = known.entry((region.old, region.new)).or_insert_with(|| {
            let said = (old.intervals_with(region.old, &[before]), new.intervals_with(region.new, &[after]));
            let mut joined = joined(&said.0, &said.1);
            joined.retain(|(_, before, after)| !same(before, after));
            joined
        });
        for (keys, before, after) in differences {
            push(&mut changes, Change { prefix: region.prefix, keys: *keys, old: *before, new: *after });
        }
    }
    changes
}

/// Adds a change, to the one before it if it only continues it.
fn push(changes: &mut Vec<Change>, change: Change) {
    if let Some(last) = changes.last_mut()
        && (last.prefix, last.old, last.new) == (change.prefix, change.old, change.new)
        && last.keys.last.checked_add(1) == Some(change.keys.first)
    {
        last.keys.last = change.keys.last;
        return;
    }
    changes.push(change);
}

/// Compares the tables prefix by prefix.
pub fn summary(old: &Table, new: &Table) -> Summary {
    let mut summary = Summary::default();
    for (_, before, after) in merged(old, new) {
        match (before, after) {
            (Some(before), Some(after)) if old.intervals(before) == new.intervals(after) => summary.kept += 1,
            (Some(_), Some(_)) => summary.changed += 1,
            (Some(_), None) => summary.removed += 1,
            (None, _) => summary.added += 1,
        }
    }
    summary
}

/// The prefixes of both tables in order, each once, with the leaf that each table has there.
fn merged(old: &Table, new: &Table) -> Vec<(IpNet, Option<Leaf>, Option<Leaf>)> {
    let (mut old, mut new) = (old.entries().peekable(), new.entries().peekable());
    let mut merged = Vec::new();
    while let Some(prefix) =
        [old.peek().map(|entry| entry.0), new.peek().map(|entry| entry.0)].into_iter().flatten().min()
    {
        let before = old.next_if(|entry| entry.0 == prefix).map(|entry| entry.1);
        let after = new.next_if(|entry| entry.0 == prefix).map(|entry| entry.1);
        merged.push((prefix, before, after));
    }
    merged
}

/// The addresses of a prefix that no longer prefix holds.
struct Region {
    prefix: IpNet,
    old: Leaf,
    new: Leaf,
    is_empty: bool,
}

fn regions(old: &Table, new: &Table) -> Vec<Region> {
    let mut regions: Vec<Region> = Vec::new();
    // Indexes of the regions around the current one, each with the number of addresses that its children hold, minus one.
    let mut around: Vec<(usize, Option<u128>)> = Vec::new();
    let close = |regions: &mut Vec<Region>, around: &mut Vec<(usize, Option<u128>)>, next: Option<&IpNet>| {
        while let Some((index, held)) = around.pop_if(|(index, _)| {
            regions.get(*index).is_none_or(|region| next.is_none_or(|next| !region.prefix.contains(next)))
        }) {
            let Some(region) = regions.get_mut(index) else { continue };
            let size = size_minus_one(&region.prefix);
            region.is_empty = held == Some(size);
            if let Some((_, held)) = around.last_mut() {
                *held = Some(held.map_or(size, |held| held.wrapping_add(size).wrapping_add(1)));
            }
        }
    };
    for (prefix, before, after) in merged(old, new) {
        close(&mut regions, &mut around, Some(&prefix));
        let outer = around.last().and_then(|(index, _)| regions.get(*index));
        let inherited = |leaf: Option<Leaf>, pick: fn(&Region) -> Leaf| leaf.or_else(|| outer.map(pick));
        // A table without a /0 is damaged; both sides are then unknown there and nothing can be said.
        let (Some(old), Some(new)) = (inherited(before, |region| region.old), inherited(after, |region| region.new))
        else {
            continue;
        };
        around.push((regions.len(), None));
        regions.push(Region { prefix, old, new, is_empty: false });
    }
    close(&mut regions, &mut around, None);
    regions
}

/// Number of addresses, minus one, because all of IPv6 has one more than a `u128` holds.
fn size_minus_one(prefix: &IpNet) -> u128 {
    let network_bits = 128 - u32::from(prefix.max_prefix_len() - prefix.prefix_len());
    u128::MAX.checked_shr(network_bits).unwrap_or(0)
}

/// The intervals of both lists together.
fn joined(old: &[(u32, Lookup)], new: &[(u32, Lookup)]) -> Vec<(KeyRange, Lookup, Lookup)> {
    let mut starts: Vec<u32> = old.iter().chain(new).map(|(from, _)| *from).collect();
    starts.sort_unstable();
    starts.dedup();
    let at = |intervals: &[(u32, Lookup)], key: u32| {
        let after = intervals.partition_point(|(from, _)| *from <= key);
        intervals.get(after.checked_sub(1)?).map(|(_, lookup)| *lookup)
    };
    let ends = starts.iter().skip(1).map(|start| start - 1).chain([LAST_KEY]);
    let ranges = starts.iter().zip(ends).map(|(first, last)| KeyRange { first: *first, last });
    ranges.filter_map(|keys| Some((keys, at(old, keys.first)?, at(new, keys.first)?))).collect()
}

#[cfg(test)]
mod tests;
