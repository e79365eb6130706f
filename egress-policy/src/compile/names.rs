//! What the rules about DNS names say of each place: one leaf for every place whose names some rule means.
//!
//! A place's fold starts from that of the rules about any depth (`**.`) above it, so that each rule is gone over once for every suffix
//! that it is written for, and not once for every name below it.

use std::collections::{BTreeMap, HashMap};

use egress_common::names::NameLeaf;

use super::classes::Classes;
use super::coverage::{Coverage, Open};
use super::fold::{Fold, Own, State};
use super::verdicts::Verdicts;
use super::{CompileError, Limits, Resource};
use crate::name::Wildcard;
use crate::places::{Depth, Place, suffixes};
use crate::rules::{RankedPeer, RankedRule};

/// The rules about one suffix.
#[derive(Default)]
struct Suffix<'r> {
    exact: Vec<(&'r RankedRule, u32)>,
    one_label: Vec<(&'r RankedRule, u32)>,
    any_depth: Vec<(&'r RankedRule, u32)>,
}

pub(super) struct Names<'r> {
    suffixes: BTreeMap<&'r str, Suffix<'r>>,
}

impl<'r> Names<'r> {
    pub(super) fn of(rules: &'r [RankedRule], limits: &Limits) -> Result<Self, CompileError> {
        let mut suffixes: BTreeMap<&str, Suffix<'_>> = BTreeMap::new();
        for (rule, rank) in rules.iter().zip(0..) {
            let RankedPeer::DnsName(pattern) = &rule.peer else { continue };
            let suffix = suffixes.entry(&pattern.name).or_default();
            let list = match pattern.wildcard {
                Wildcard::Exact => &mut suffix.exact,
                Wildcard::OneLabel => &mut suffix.one_label,
                Wildcard::AnyDepth => &mut suffix.any_depth,
            };
            list.push((rule, rank));
        }
        if suffixes.len() > limits.names {
            let (needed, limit) = (suffixes.len(), limits.names);
            return Err(CompileError::Capacity { what: Resource::Names, needed, limit });
        }
        Ok(Self { suffixes })
    }

    /// The leaf of every place that a rule is about, in the order of places; notes in `coverage` which rules decide there.
    pub(super) fn leaves(
        &self,
        verdicts: &Verdicts,
        classes: &mut Classes,
        open: &Open,
        coverage: &mut Coverage,
    ) -> Result<Vec<(Place, NameLeaf)>, CompileError> {
        let below = self.below();
        let nothing = Fold::Flat(State::EMPTY);
        let mut leaves = Vec::new();
        for (name, suffix) in &self.suffixes {
            let above = self.above(name).and_then(|above| below.get(above)).unwrap_or(&nothing);
            let parent = name.split_once('.').and_then(|(_, parent)| self.suffixes.get(parent));
            let more = below.get(name).unwrap_or(&nothing);
            let exact = parent.iter().flat_map(|parent| &parent.one_label).chain(&suffix.exact);
            let folds = [
                (Depth::Exact, above.with(&own(exact))),
                (Depth::One, more.with(&own(&suffix.one_label))),
                (Depth::More, more.clone()),
            ];
            for (depth, fold) in folds {
                let leaf = match &fold {
                    Fold::Flat(state) => verdicts.name_leaf(&[(0, *state)], classes)?,
                    Fold::Split(split) => verdicts.name_leaf(&split.steps, classes)?,
                };
                if leaf != NameLeaf::NOTHING {
                    coverage.mark_names(verdicts, open, &fold);
                    leaves.push((Place { suffix: (*name).to_owned(), depth }, leaf));
                }
            }
        }
        Ok(leaves)
    }

    /// For each suffix, what the rules about any depth say of everything below it.
    fn below(&self) -> HashMap<&'r str, Fold> {
        let mut shortest_first: Vec<(&&'r str, &Suffix<'r>)> = self.suffixes.iter().collect();
        shortest_first.sort_by_key(|(name, _)| name.len());
        let mut below: HashMap<&str, Fold> = HashMap::with_capacity(shortest_first.len());
        for (name, suffix) in shortest_first {
            let above = self.above(name).and_then(|above| below.get(above));
            let fold = above.unwrap_or(&Fold::Flat(State::EMPTY)).with(&own(&suffix.any_depth));
            below.insert(name, fold);
        }
        below
    }

    /// The longest suffix above `name`.
    fn above<'n>(&self, name: &'n str) -> Option<&'n str> {
        suffixes(name).skip(1).find(|suffix| self.suffixes.contains_key(suffix))
    }
}

fn own<'r, 'a>(rules: impl IntoIterator<Item = &'a (&'r RankedRule, u32)>) -> Own<'r>
where
    'r: 'a,
{
    let mut own = Own::new();
    for (rule, rank) in rules {
        own.add(rule, *rank);
    }
    own
}

#[cfg(test)]
mod tests;
