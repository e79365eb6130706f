//! A compiled list whose rules are exchanged one by one: only what lies inside the prefixes of those rules is compiled again.
//!
//! What a table says of an address depends on the rules whose prefixes contain it. So of a rule that changes, the prefixes of its old and
//! its new form and everything inside them are visited, with the folds of what lies around them; the rest of the table stays. Classes that
//! nothing leads to any more remain in the class array until all of it is compiled again. Rules about names, about everything and Pass
//! reach further: they stay where they are.

use std::sync::Arc;

use egress_common::table::Leaf;
use ipnet::IpNet;

use super::classes::Classes;
use super::coverage::Coverage;
use super::table::Table;
use super::verdicts::Verdicts;
use super::walk::{FAMILIES, Family, Mention, Prefix, Walk, inside, mentions};
use super::{CompileError, Limits, Whole, whole};
use crate::model::Action;
use crate::rules::{RankedPeer, RankedRule, RuleList};

/// Where more than one in so many mentions would be visited again, all of them are: that costs less.
const SHARE: usize = 4;
/// Exchanged mentions from which on the list of them is sorted anew.
const SORTED: usize = 16;
/// Class entries beside twice those of the first compilation.
const CLASSES: usize = 1 << 16;

/// A list, its table, and what it takes to change both.
#[derive(Debug)]
pub struct Editable {
    list: Arc<RuleList>,
    limits: Limits,
    verdicts: Verdicts,
    mentions: [Vec<Mention>; 2],
    classes: Classes,
    /// Class entries after which nothing is left but to compile everything.
    most_entries: usize,
    /// Without its classes.
    table: Table,
}

/// A rule that stands at a rank from now on.
pub type Exchange = (u32, RankedRule);

impl Editable {
    /// Compiles `list`.
    pub fn new(list: Arc<RuleList>, limits: &Limits) -> Result<(Self, Coverage), CompileError> {
        let (Whole { mentions, verdicts, mut classes, table }, coverage) = whole(&list, limits)?;
        classes.settle();
        let most_entries = (classes.entries().len() * 2 + CLASSES).min(limits.class_entries);
        Ok((Self { list, limits: *limits, verdicts, mentions, classes, most_entries, table }, coverage))
    }

    /// The rules.
    pub fn list(&self) -> &Arc<RuleList> {
        &self.list
    }

    /// What they say.
    pub fn table(&self) -> Table {
        Table { classes: self.classes.entries().clone(), ..self.table.clone() }
    }

    /// Exchanges rules. `None`: that is not local, or does not fit, and everything is to be compiled.
    #[must_use]
    pub fn exchange(mut self, exchanges: Vec<Exchange>) -> Option<Self> {
        let removed = mentions_of(exchanges.iter().map(|(rank, _)| (*rank, self.rule(*rank))));
        let added = mentions_of(exchanges.iter().map(|(rank, rule)| (*rank, Some(rule))));
        let parts = FAMILIES.map(|family| parts(&removed, &added, family));
        let list = Arc::make_mut(&mut self.list);
        for (rank, rule) in exchanges {
            let place = list.rules.get_mut(usize::try_from(rank).ok()?)?;
            if !is_local(place) || !is_local(&rule) || place.is_head() != rule.is_head() {
                return None;
            }
            self.verdicts.exchange(rank, &rule);
            *place = rule;
        }
        let mut visited = 0;
        for (family, (mentions, parts)) in self.mentions.iter_mut().zip(&parts).enumerate() {
            replace(mentions, removed.get(family)?, added.get(family)?);
            visited += parts.iter().map(|part| inside(mentions, *part).len()).sum::<usize>();
        }
        if visited > self.mentions.iter().map(Vec::len).sum::<usize>() / SHARE + SORTED {
            return None;
        }
        self.visit(&parts)?;
        Some(self)
    }

    /// The rules, for what nothing in the table depends on.
    pub(crate) fn list_mut(&mut self) -> &mut RuleList {
        Arc::make_mut(&mut self.list)
    }

    /// The rule at a rank.
    pub(crate) fn rule(&self, rank: u32) -> Option<&RankedRule> {
        self.list.rules.get(usize::try_from(rank).ok()?)
    }

    /// How many mentions of prefixes lie inside those of `rule`: what is compiled again when it changes. `None`: everything.
    pub(crate) fn reach(&self, rule: &RankedRule) -> Option<usize> {
        let families = || FAMILIES.iter().zip(&self.mentions);
        let prefixes = rule.networks().iter().flat_map(|network| {
            families().filter_map(move |(family, mentions)| Some(inside(mentions, Prefix::of(network, *family)?).len()))
        });
        is_local(rule).then(|| prefixes.sum())
    }

    /// Compiles parts of both families again.
    fn visit(&mut self, parts: &[Vec<Prefix>; 2]) -> Option<()> {
        let limit = self.limits.prefixes;
        let mut walk = Walk::new(&self.list.rules, limit, &self.verdicts, &mut self.classes, None, None);
        for ((mentions, parts), family) in self.mentions.iter().zip(parts).zip(FAMILIES) {
            parts.iter().try_for_each(|part| walk.part(mentions, *part, family)).ok()?;
        }
        let (prefixes4, prefixes6) = walk.finish().ok()?;
        let [parts4, parts6] = parts;
        let table = &mut self.table;
        splice(&mut table.prefixes4, prefixes4, parts4, |net| Prefix::of(&IpNet::V4(*net), Family::V4));
        splice(&mut table.prefixes6, prefixes6, parts6, |net| Prefix::of(&IpNet::V6(*net), Family::V6));
        (table.prefixes() <= limit && self.classes.entries().len() <= self.most_entries).then_some(())
    }
}

/// Whether a rule decides about nothing but what lies inside its prefixes, and these are not everything.
fn is_local(rule: &RankedRule) -> bool {
    let is_everywhere = || rule.networks().iter().any(|network| network.prefix_len() == 0);
    rule.action != Action::Pass && !matches!(rule.peer, RankedPeer::DnsName(_)) && !is_everywhere()
}

/// The mentions in rules, by family.
fn mentions_of<'r>(rules: impl Iterator<Item = (u32, Option<&'r RankedRule>)> + Clone) -> [Vec<Mention>; 2] {
    let there = rules.filter_map(|(rank, rule)| Some((rank, rule?)));
    FAMILIES.map(|family| mentions(there.clone(), family))
}

/// The prefixes of exchanged rules, without those inside others, sorted.
fn parts(removed: &[Vec<Mention>; 2], added: &[Vec<Mention>; 2], family: Family) -> Vec<Prefix> {
    let of_family = |mentions: &[Vec<Mention>; 2]| {
        let [v4, v6] = mentions;
        let mentions = if family == Family::V4 { v4 } else { v6 };
        mentions.iter().map(|mention| mention.prefix).collect::<Vec<_>>()
    };
    let mut prefixes = [of_family(removed), of_family(added)].concat();
    prefixes.sort_unstable();
    let mut parts: Vec<Prefix> = Vec::new();
    for prefix in prefixes {
        if parts.last().is_none_or(|last| !last.contains(prefix)) {
            parts.push(prefix);
        }
    }
    parts
}

/// Takes mentions out of a sorted list and puts others in.
fn replace(mentions: &mut Vec<Mention>, removed: &[Mention], added: &[Mention]) {
    if removed.len() + added.len() >= SORTED {
        mentions.retain(|mention| removed.binary_search(mention).is_err());
        mentions.extend_from_slice(added);
        mentions.sort();
        return;
    }
    for mention in removed {
        if let Ok(index) = mentions.binary_search(mention) {
            mentions.remove(index);
        }
    }
    for mention in added {
        if let Err(index) = mentions.binary_search(mention) {
            mentions.insert(index, *mention);
        }
    }
}

/// Replaces the entries inside of `parts` by those of `new`. All are sorted.
fn splice<N: Copy>(
    entries: &mut Arc<Vec<(N, Leaf)>>,
    new: Vec<(N, Leaf)>,
    parts: &[Prefix],
    prefix: impl Fn(&N) -> Option<Prefix>,
) {
    if parts.is_empty() {
        return;
    }
    let mut spliced = Vec::with_capacity(entries.len() + new.len());
    let (mut rest, mut new) = (entries.as_slice(), new.into_iter().peekable());
    for part in parts {
        let is_inside = |(net, _): &(N, Leaf)| prefix(net).is_some_and(|prefix| part.contains(prefix));
        let before = rest.partition_point(|(net, _)| prefix(net).is_some_and(|prefix| prefix < *part));
        spliced.extend_from_slice(rest.get(..before).unwrap_or_default());
        rest = rest.get(before..).unwrap_or_default();
        rest = rest.get(rest.partition_point(is_inside)..).unwrap_or_default();
        spliced.extend(std::iter::from_fn(|| new.next_if(is_inside)));
    }
    spliced.extend_from_slice(rest);
    *entries = Arc::new(spliced);
}

#[cfg(test)]
mod tests;
