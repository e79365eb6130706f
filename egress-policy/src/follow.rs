//! The rules of one selection of policies, and their table, kept so that the next version of the policies costs what is new in it.
//!
//! Rules that are written in the place of others are exchanged ([`Editable`]); policies that are the same object as before are not looked
//! into. Where the ranks of rules shift, because one is added or taken away, or where anything else than rules is another, everything is
//! ordered and compiled again.

use std::sync::Arc;

use crate::compile::{CompileError, Coverage, Editable, Exchange, Limits, Table};
use crate::model::{Mode, NodeContext, Policy, PolicySet, Rule};
use crate::rules::{Digests, RuleList, SelectedPolicy, ranked};

/// A policy as it was ordered.
#[derive(Debug)]
struct Ordered {
    policy: SelectedPolicy,
    rules: Arc<[Rule]>,
    /// Rank of its first rule.
    first: u32,
}

/// The rules of a selection, compiled.
#[derive(Debug)]
pub struct Followed {
    policies: Vec<Ordered>,
    digests: Digests,
    editable: Editable,
}

/// What became of a followed list.
#[derive(Debug)]
pub enum Next {
    /// It says what it said.
    Same(Followed),
    /// Some rules were exchanged.
    Changed(Followed),
    /// Everything is to be compiled.
    Whole,
}

impl Followed {
    /// Orders and compiles the rules of a selection.
    pub fn new(
        list: RuleList,
        set: &PolicySet,
        selection: &[&Policy],
        limits: &Limits,
    ) -> Result<(Self, Coverage), CompileError> {
        let digests = Digests::of(&list);
        // Policies stand together, behind what the firewall adds in front.
        let first = list.first_of_policies();
        let ordered = selection.iter().scan(first, |next, policy| {
            let first = *next;
            *next = first.saturating_add(u32::try_from(policy.rules.len()).unwrap_or(u32::MAX));
            Some(Ordered { policy: set.selected_policy(policy), rules: Arc::clone(&policy.rules), first })
        });
        let policies = ordered.collect();
        let (editable, coverage) = Editable::new(Arc::new(list), limits)?;
        Ok((Self { policies, digests, editable }, coverage))
    }

    /// Takes over the rules that are new in `selection`, whose configuration and `node` are as they were.
    #[must_use]
    pub fn follow(mut self, set: &PolicySet, selection: &[&Policy], node: &NodeContext) -> Next {
        // What is said of services follows from all rules.
        if !node.services.is_empty() || self.policies.len() != selection.len() {
            return Next::Whole;
        }
        let mut exchanges: Vec<Exchange> = Vec::new();
        for (ordered, policy) in self.policies.iter_mut().zip(selection) {
            if ordered.policy != set.selected_policy(policy) || ordered.rules.len() != policy.rules.len() {
                return Next::Whole;
            }
            if Arc::ptr_eq(&ordered.rules, &policy.rules) {
                continue;
            }
            let rules = (ordered.first..).zip(1..).zip(ordered.rules.iter().zip(policy.rules.iter()));
            let others = rules.filter(|(_, (before, after))| before != after);
            let mode: Mode = ordered.policy.mode;
            exchanges
                .extend(others.map(|((rank, number), (_, rule))| (rank, ranked(policy, mode, rule, number, node))));
            ordered.rules = Arc::clone(&policy.rules);
        }
        if exchanges.is_empty() {
            return Next::Same(self);
        }
        let ranks: Vec<u32> = exchanges.iter().map(|(rank, _)| *rank).collect();
        let Some(editable) = self.editable.exchange(exchanges) else { return Next::Whole };
        self.digests.follow(editable.list(), ranks.into_iter());
        Next::Changed(Self { editable, ..self })
    }

    /// The rules.
    pub fn list(&self) -> &Arc<RuleList> {
        self.editable.list()
    }

    /// What they say.
    pub fn table(&self) -> Table {
        self.editable.table()
    }

    /// [`RuleList::fingerprint`] of the rules.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.digests.fingerprint()
    }
}

#[cfg(test)]
mod tests;
