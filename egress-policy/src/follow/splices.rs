//! What is different between two versions of the policies of a list: rules taken away, and rules put in their place.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use super::Ordered;
use crate::model::{NodeContext, Policy, PolicySet, Rule};
use crate::rules::{RankedRule, SelectedPolicy, ranked};

/// How many rules are looked through for the place from which on two versions go on alike.
const AHEAD: usize = 64;

/// Rules of the old version, by their places among all rules of policies, and what stands there in the new one.
#[derive(Debug)]
pub(super) struct Splice {
    pub(super) old: Range<usize>,
    pub(super) new: Vec<RankedRule>,
}

/// The differences, in order. Policies whose rules are the same object are not looked into.
pub(super) fn splices(old: &[Ordered], set: &PolicySet, selection: &[&Policy], node: &NodeContext) -> Vec<Splice> {
    let mut splices = Vec::new();
    let mut at = 0;
    let mut old = old.iter().peekable();
    let mut new = selection.iter().map(|policy| (set.selected_policy(policy), *policy)).peekable();
    loop {
        let order = match (old.peek(), new.peek()) {
            (Some(old), Some((new, _))) => order(&old.policy).cmp(&order(new)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return splices,
        };
        let before = old.next_if(|_| order.is_le());
        let after = new.next_if(|_| order.is_ge());
        let there = before.map_or(0, |before| before.rules.len());
        let differences = match (before, &after) {
            // Under another mode, every rule is another one.
            (Some(before), Some((selected, policy))) if before.policy.mode == selected.mode => {
                differences(&before.rules, &policy.rules)
            }
            (_, after) => vec![(0..there, 0..after.as_ref().map_or(0, |(_, policy)| policy.rules.len()))],
        };
        for (old, new) in differences {
            let new = after.iter().flat_map(|(selected, policy)| {
                let rules = (1..).zip(policy.rules.iter()).skip(new.start).take(new.len());
                rules.map(|(number, rule)| ranked(policy, selected.mode, rule, number, node))
            });
            splices.push(Splice { old: at + old.start..at + old.end, new: new.collect() });
        }
        at += there;
    }
}

/// §2.2.
fn order(policy: &SelectedPolicy) -> impl Ord + '_ {
    (policy.tier, policy.priority, policy.key.name.as_str(), &*policy.key)
}

/// Where two lists differ. Where they do not go on alike soon, all up to what they end with is one difference.
fn differences(old: &Arc<[Rule]>, new: &Arc<[Rule]>) -> Vec<(Range<usize>, Range<usize>)> {
    let mut differences = Vec::new();
    if Arc::ptr_eq(old, new) {
        return differences;
    }
    let start = alike(old.iter(), new.iter());
    let (old, new) = (old.get(start..).unwrap_or_default(), new.get(start..).unwrap_or_default());
    let end = alike(old.iter().rev(), new.iter().rev());
    let mut old = old.get(..old.len() - end).unwrap_or_default();
    let mut new = new.get(..new.len() - end).unwrap_or_default();
    let (mut i, mut j) = (start, start);
    while !(old.is_empty() && new.is_empty()) {
        let (less, more) = meeting(old, new).unwrap_or((old.len(), new.len()));
        if (less, more) != (0, 0) {
            differences.push((i..i + less, j..j + more));
        }
        (old, new) = (old.get(less..).unwrap_or_default(), new.get(more..).unwrap_or_default());
        let same = alike(old.iter(), new.iter());
        (old, new) = (old.get(same..).unwrap_or_default(), new.get(same..).unwrap_or_default());
        (i, j) = (i + less + same, j + more + same);
    }
    differences
}

/// How many rules two lists begin with in common.
fn alike<'r>(old: impl Iterator<Item = &'r Rule>, new: impl Iterator<Item = &'r Rule>) -> usize {
    old.zip(new).take_while(|(old, new)| old == new).count()
}

/// The nearest place, in rules of both lists, from which on they go on alike or end.
fn meeting(old: &[Rule], new: &[Rule]) -> Option<(usize, usize)> {
    let places = (0..=AHEAD).flat_map(|total| (0..=total).map(move |less| (less, total - less)));
    let mut places = places.filter(|(less, more)| *less <= old.len() && *more <= new.len());
    places.find(|(less, more)| old.get(*less) == new.get(*more))
}
