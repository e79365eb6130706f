//! Gives ranks to rules that are added: vacant ones, and where none is at hand, the rules on the way to the nearest one move by one.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Splice;
use crate::compile::{Editable, Exchange};
use crate::rules::RankedRule;

/// Rules that may move for one that is added. Where no vacant rank is nearer, the list is better laid out anew.
const FARTHEST: usize = 512;

/// A list that is being changed.
pub(super) struct Places<'l> {
    before: &'l Editable,
    /// Ranks of the rules of policies, in order.
    ranks: Vec<u32>,
    /// The ranks that rules of policies may have.
    bounds: Range<u32>,
    /// What stands at a rank now, where that is another rule than in the list.
    changed: BTreeMap<u32, RankedRule>,
}

/// A way to a vacant rank.
struct Way {
    vacant: u32,
    /// Places of the rules that move.
    moved: Range<usize>,
    /// How much of the table lies inside their prefixes.
    reach: usize,
}

impl<'l> Places<'l> {
    pub(super) fn new(before: &'l Editable, ranks: Vec<u32>, bounds: Range<u32>) -> Self {
        Self { before, ranks, bounds, changed: BTreeMap::new() }
    }

    /// Makes the changes, which are in order. `None`: there is no room, or too much moves.
    pub(super) fn splice(&mut self, splices: Vec<Splice>) -> Option<()> {
        // Every rule that goes leaves its rank before others look for one.
        let (mut added, mut taken) = (Vec::new(), 0);
        for Splice { old, new } in splices {
            let (start, end) = (old.start - taken, old.end - taken);
            taken += old.len();
            let ranks: Vec<u32> = self.ranks.splice(start..end, []).collect();
            for rank in ranks {
                let tier = self.at(rank)?.tier;
                self.changed.insert(rank, RankedRule::vacant(tier));
            }
            added.push((start, new));
        }
        // From the end, so that the places before stay what they are.
        for (start, rules) in added.into_iter().rev() {
            (start..).zip(rules).try_for_each(|(place, rule)| self.insert(place, rule))?;
        }
        Some(())
    }

    /// The ranks of the rules of policies, and every rank with another rule than before.
    pub(super) fn finish(self) -> (Vec<u32>, Vec<Exchange>) {
        let Self { before, ranks, changed, .. } = self;
        let differs = |(rank, rule): &Exchange| before.rule(*rank) != Some(rule);
        (ranks, changed.into_iter().filter(differs).collect())
    }

    fn at(&self, rank: u32) -> Option<&RankedRule> {
        self.changed.get(&rank).or_else(|| self.before.rule(rank))
    }

    /// Lets `rule` stand before the rule at `place`.
    fn insert(&mut self, place: usize, rule: RankedRule) -> Option<()> {
        let ways = [self.behind(place, &rule), self.before(place, &rule)];
        let Way { vacant, moved, .. } = ways.into_iter().flatten().min_by_key(|way| way.reach)?;
        let mut rules: Vec<RankedRule> = Vec::with_capacity(moved.len() + 1);
        for rank in self.ranks.get(moved.clone())? {
            rules.push(self.at(*rank)?.clone());
        }
        rules.insert(place - moved.start, rule);
        let there = if moved.start < place { moved.start } else { moved.end };
        self.ranks.insert(there, vacant);
        for (rank, rule) in self.ranks.get(moved.start..=moved.end)?.iter().zip(rules) {
            self.changed.insert(*rank, rule);
        }
        Some(())
    }

    /// The way to the next vacant rank for rules of the same part of the list.
    fn behind(&self, place: usize, rule: &RankedRule) -> Option<Way> {
        let mut first = self.first_after(place);
        let mut reach = 0;
        for end in place..=place + FARTHEST {
            let next = self.ranks.get(end).copied().unwrap_or(self.bounds.end);
            if first < next {
                // In front of all rules, the rank next to the first one, so that there is room for more.
                let vacant = self.vacant(first..next, rule, end == 0)?;
                return Some(Way { vacant, moved: place..end, reach });
            }
            reach += self.reach(next)?;
            first = next + 1;
        }
        None
    }

    /// The same in the other direction.
    fn before(&self, place: usize, rule: &RankedRule) -> Option<Way> {
        let mut next = self.ranks.get(place).copied().unwrap_or(self.bounds.end);
        let mut reach = 0;
        for start in (place.saturating_sub(FARTHEST)..=place).rev() {
            let first = self.first_after(start);
            if first < next {
                let vacant = self.vacant(first..next, rule, true)?;
                return Some(Way { vacant, moved: start..place, reach });
            }
            next = first.checked_sub(1)?;
            reach += self.reach(next)?;
        }
        None
    }

    /// The first rank behind the rule that stands before `place`.
    fn first_after(&self, place: usize) -> u32 {
        let last = place.checked_sub(1).and_then(|place| self.ranks.get(place));
        last.map_or(self.bounds.start, |last| last + 1)
    }

    /// A rank of a gap that `rule` may have (head and tail of a list do not mix): one that was just left, or else one at its end or start.
    fn vacant(&self, gap: Range<u32>, rule: &RankedRule, at_end: bool) -> Option<u32> {
        let fits = |rank: &u32| self.at(*rank).is_some_and(|vacant| vacant.is_head() == rule.is_head());
        let left = self.changed.range(gap.clone()).map(|(rank, _)| *rank).find(fits);
        left.or_else(|| if at_end { gap.rev().find(fits) } else { gap.into_iter().find(fits) })
    }

    /// How much of the table lies inside the prefixes of the rule at `rank`. `None`: it has to stay there.
    fn reach(&self, rank: u32) -> Option<usize> {
        self.bounds.contains(&rank).then_some(())?;
        self.before.reach(self.at(rank)?)
    }
}
