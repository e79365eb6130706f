//! The rules of one selection of policies, and their table, kept so that the next version of the policies costs what is new in it.
//!
//! What differs between two versions is found first (`splices`): policies that are the same object as before are not looked into. A rule
//! that is added gets a rank that no rule has (`places`), and what stands at other ranks than before is compiled again ([`Editable`]).
//! Where that is not local, or anything else than policies is another, everything is ordered and compiled again.

mod places;
mod splices;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use self::places::Places;
use self::splices::{Splice, splices};
use crate::compile::{CompileError, Coverage, Editable, Limits, Table};
use crate::model::{NodeContext, Policy, PolicySet, Rule};
use crate::rules::{Digests, RuleList, RuleOrigin, SelectedPolicy};

/// A policy as it was ordered.
#[derive(Debug)]
struct Ordered {
    policy: SelectedPolicy,
    rules: Arc<[Rule]>,
}

/// The rules of a selection, compiled.
#[derive(Debug)]
pub struct Followed {
    policies: Vec<Ordered>,
    /// Ranks of the rules of `policies`, one policy after the other.
    ranks: Vec<u32>,
    /// The ranks that rules of policies may have.
    bounds: Range<u32>,
    digests: Digests,
    fingerprint: [u8; 32],
    /// Whether rules are about names.
    named: bool,
    editable: Editable,
}

/// What became of a followed list.
#[derive(Debug)]
pub enum Next {
    /// It says what it said.
    Same(Followed),
    /// Some rules are others.
    Changed(Followed),
    /// Everything is to be compiled.
    Whole,
}

impl Followed {
    /// Compiles the rules of a selection. Rules can be added to it where `list` has [vacant ranks](RuleList::with_vacancies).
    pub fn new(
        list: RuleList,
        set: &PolicySet,
        selection: &[&Policy],
        limits: &Limits,
    ) -> Result<(Self, Coverage), CompileError> {
        let digests = Digests::of(&list);
        let ranks_of = |is: fn(&RuleOrigin) -> bool| {
            (0..).zip(&list.rules).filter(move |(_, rule)| is(&rule.origin)).map(|(rank, _): (u32, _)| rank)
        };
        let ranks = ranks_of(|origin| matches!(origin, RuleOrigin::Policy { .. })).collect();
        // Policies stand together, behind what the firewall adds in front and before the default action.
        let before = ranks_of(|origin| matches!(origin, RuleOrigin::Builtin(_) | RuleOrigin::Service(_))).last();
        let behind = ranks_of(|origin| *origin == RuleOrigin::Default).next();
        let bounds = before.map_or(0, |last| last + 1)..behind.unwrap_or(0);
        let (policies, named) = (ordered(set, selection), list.has_names());
        let (editable, coverage) = Editable::new(Arc::new(list), limits)?;
        let fingerprint = digests.fingerprint();
        Ok((Self { policies, ranks, bounds, digests, fingerprint, named, editable }, coverage))
    }

    /// Takes over what is new in `selection`, whose configuration and `node` are as they were.
    #[must_use]
    pub fn follow(mut self, set: &PolicySet, selection: &[&Policy], node: &NodeContext) -> Next {
        // What is said of services follows from all rules.
        if !node.services.is_empty() {
            return Next::Whole;
        }
        let splices = splices(&self.policies, set, selection, node);
        let policies = ordered(set, selection);
        let is_same = splices.is_empty()
            && self.policies.iter().map(|old| &old.policy).eq(policies.iter().map(|new| &new.policy));
        if is_same {
            return Next::Same(Self { policies, ..self });
        }
        let mut places = Places::new(&self.editable, std::mem::take(&mut self.ranks), self.bounds.clone());
        if places.splice(splices).is_none() {
            return Next::Whole;
        }
        let (ranks, exchanges) = places.finish();
        let changed: Vec<u32> = exchanges.iter().map(|(rank, _)| *rank).collect();
        let Some(mut editable) = self.editable.exchange(exchanges) else { return Next::Whole };
        number(editable.list_mut(), &ranks, &self.policies, &policies);
        self.digests.follow(editable.list(), changed.into_iter());
        let mut fingerprint = self.digests.fingerprint();
        if self.named {
            // What names lead to goes by the class array of the table, which depends on how it came about.
            let history = Sha256::new_with_prefix(self.fingerprint);
            fingerprint = history.chain_update(fingerprint).finalize().into();
        }
        Next::Changed(Self { policies, ranks, fingerprint, editable, ..self })
    }

    /// The rules.
    pub fn list(&self) -> &Arc<RuleList> {
        self.editable.list()
    }

    /// What they say.
    pub fn table(&self) -> Table {
        self.editable.table()
    }

    /// The name of the table: [`RuleList::fingerprint`], or where there are names, of all versions that led to it.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

fn ordered(set: &PolicySet, selection: &[&Policy]) -> Vec<Ordered> {
    let ordered = |policy: &&Policy| Ordered { policy: set.selected_policy(policy), rules: Arc::clone(&policy.rules) };
    selection.iter().map(ordered).collect()
}

/// Writes the numbers of the rules of policies that changed, and which policies there are.
fn number(list: &mut RuleList, ranks: &[u32], before: &[Ordered], after: &[Ordered]) {
    list.policies = after.iter().map(|ordered| ordered.policy.clone()).collect();
    let known: HashSet<*const Rule> = before.iter().map(|ordered| ordered.rules.as_ptr()).collect();
    let mut ranks = ranks;
    for ordered in after {
        let Some((own, rest)) = ranks.split_at_checked(ordered.rules.len()) else { return };
        ranks = rest;
        if known.contains(&ordered.rules.as_ptr()) {
            continue;
        }
        for (rank, place) in own.iter().zip(1..) {
            let rule = usize::try_from(*rank).ok().and_then(|rank| list.rules.get_mut(rank));
            if let Some(RuleOrigin::Policy { number, .. }) = rule.map(|rule| &mut rule.origin) {
                *number = place;
            }
        }
    }
}

#[cfg(test)]
mod tests;
