//! From first matches to what stands in the table: verdicts, and the [`State`](names::State)s behind them where names may join in.
//!
//! Where a list has rules about names, a verdict alone is not enough: the rule of a name may come before it. What is left of the first
//! matches must then be exactly what merging needs, and no more, so that most leaves stay decisions: a tail behind a head that decides
//! matters only if a Pass can come before that head, and a Pass only if it can hide a rule of the head.

use egress_common::class::{ClassEntry, ClassVerdict};
use egress_common::names::{self, Effect, NameLeaf};
use egress_common::table::{Decision, Leaf};

use super::CompileError;
use super::classes::Classes;
use super::fold::{NONE, State};
use crate::model::Mode;
use crate::rules::{RankedPeer, RankedRule};

/// What every rank does when it is the first match.
#[derive(Debug)]
pub(super) struct Verdicts {
    effects: Vec<Effect>,
    /// Rules before the Namespace tier.
    pub(super) head_rules: u32,
    /// Of the rules about names; `None` if there are none.
    pub(super) names: Option<Head>,
    /// Of all rules.
    pub(super) all: Head,
}

/// What some rules of the head can do to first matches that they are merged with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// Rank of the first Pass; [`NONE`] if there is none.
    first_pass: u32,
    /// Rank of the last rule, plus one; 0 if there is none.
    end: u32,
}

impl Head {
    fn of<'r>(rules: impl Iterator<Item = (&'r RankedRule, u32)>) -> Self {
        let mut head = Self { first_pass: NONE, end: 0 };
        for (rule, rank) in rules.take_while(|(rule, _)| rule.is_head()) {
            head.end = rank + 1;
            if rule.decision(rank).is_none() {
                head.first_pass = head.first_pass.min(rank);
            }
        }
        head
    }

    /// Whether a Pass may come before the rule of `rank`.
    pub(super) const fn may_skip(self, rank: u32) -> bool {
        self.first_pass < rank
    }

    /// `state` without what makes no difference, whatever the rules of this head add.
    fn reduced(self, state: names::State) -> names::State {
        let side = |head: Effect, tail: Effect| {
            if head.is_none() {
                (head, tail)
            } else if head.is_pass() {
                // With no rule behind it left to hide.
                if self.end <= head.rank() && !tail.is_none() { (Effect::NONE, tail) } else { (head, tail) }
            } else if self.may_skip(head.rank()) {
                (head, tail)
            } else {
                (head, Effect::NONE)
            }
        };
        let (head, tail) = side(state.head, state.tail);
        let (audit_head, audit_tail) = side(state.audit_head, state.audit_tail);
        names::State { head, tail, audit_head, audit_tail }
    }
}

fn effect(rule: &RankedRule, rank: u32) -> Effect {
    let effect = rule.decision(rank).map_or(Effect::pass(rank), Effect::decide);
    if rule.mode == Mode::Audit { effect.audited() } else { effect }
}

impl Verdicts {
    pub(super) fn of(rules: &[RankedRule]) -> Self {
        let ranked = || rules.iter().zip(0_u32..);
        let named = || ranked().filter(|(rule, _)| matches!(rule.peer, RankedPeer::DnsName(_)));
        Self {
            effects: ranked().map(|(rule, rank)| effect(rule, rank)).collect(),
            head_rules: u32::try_from(rules.iter().take_while(|rule| rule.is_head()).count()).unwrap_or(u32::MAX),
            names: named().next().is_some().then(|| Head::of(named())),
            all: Head::of(ranked()),
        }
    }

    /// Lets another rule stand at `rank`, on which nothing depends but what that rank does.
    pub(super) fn exchange(&mut self, rank: u32, rule: &RankedRule) {
        if let Some(known) = usize::try_from(rank).ok().and_then(|rank| self.effects.get_mut(rank)) {
            *known = effect(rule, rank);
        }
    }

    /// What the rule of `rank` does; nothing for [`NONE`].
    pub(super) fn effect(&self, rank: u32) -> Effect {
        usize::try_from(rank).ok().and_then(|index| self.effects.get(index)).copied().unwrap_or(Effect::NONE)
    }

    fn first_matches(&self, state: State) -> names::State {
        let [head, tail, audit_head, audit_tail] = state.ranks.map(|rank| self.effect(rank));
        names::State { head, tail, audit_head, audit_tail }
    }

    /// The leaf for the same state on every key, if it needs no class; the common case, without allocation.
    pub(super) fn flat_leaf(&self, state: State) -> Option<Leaf> {
        let entry = self.prefix_entry(0, self.first_matches(state), |_| Ok(1)).ok()??;
        flat(entry)
    }

    /// The leaf of a prefix.
    pub(super) fn leaf(&self, steps: &[(u32, State)], classes: &mut Classes) -> Result<Leaf, CompileError> {
        let mut entries: Vec<ClassEntry> = Vec::with_capacity(steps.len());
        for (from, state) in steps {
            // A table always has a default action, so every state has a verdict.
            if let Some(entry) = self.prefix_entry(*from, self.first_matches(*state), |state| classes.state(state))? {
                push(&mut entries, entry);
            }
        }
        let flat = if let [only] = entries.as_slice() { flat(*only) } else { None };
        flat.map_or_else(|| classes.class(&entries).map(Leaf::class), Ok)
    }

    fn prefix_entry(
        &self,
        from: u32,
        state: names::State,
        index: impl FnOnce(names::State) -> Result<u32, CompileError>,
    ) -> Result<Option<ClassEntry>, CompileError> {
        let Some(ClassVerdict { decision, audit, .. }) = state.verdict() else {
            return Ok(None);
        };
        let kept = match (self.names, audit) {
            (Some(names), _) => names.reduced(state),
            // Nothing is ever merged with it.
            (None, Some(audit)) => self.alone(decision).audited(Effect::decide(audit), self.head_rules),
            (None, None) => self.alone(decision),
        };
        let says = self.simple(kept).map_or_else(|| index(kept), |effect| Ok(effect.0))?;
        Ok(Some(ClassEntry { from, says }))
    }

    fn alone(&self, decision: Decision) -> names::State {
        names::State::simple(Effect::decide(decision), self.head_rules)
    }

    /// The leaf of a name.
    pub(super) fn name_leaf(&self, steps: &[(u32, State)], classes: &mut Classes) -> Result<NameLeaf, CompileError> {
        let mut entries: Vec<ClassEntry> = Vec::with_capacity(steps.len());
        for (from, state) in steps {
            let state = self.all.reduced(self.first_matches(*state));
            let says = match self.simple(state) {
                _ if state == names::State::EMPTY => 0,
                Some(effect) => effect.0,
                None => classes.state(state)?,
            };
            push(&mut entries, ClassEntry { from: *from, says });
        }
        match entries.as_slice() {
            [only] => match only.open() {
                None => Ok(NameLeaf::NOTHING),
                Some(Ok(effect)) => Ok(NameLeaf::effect(effect)),
                Some(Err(_)) => classes.class(&entries).map(NameLeaf::class),
            },
            entries => classes.class(entries).map(NameLeaf::class),
        }
    }

    /// The one effect that stands for the state, if one does.
    fn simple(&self, state: names::State) -> Option<Effect> {
        let effect = if state.head.is_none() { state.tail } else { state.head };
        (names::State::simple(effect, self.head_rules) == state).then_some(effect)
    }
}

/// The leaf of a prefix whose only interval this is, if it needs no class.
fn flat(entry: ClassEntry) -> Option<Leaf> {
    entry.open()?.ok().map(|effect| Leaf::decision(effect.decision()))
}

/// Adds an interval, unless it says what the one before it says.
fn push(entries: &mut Vec<ClassEntry>, entry: ClassEntry) {
    if entries.last().is_none_or(|last| last.says != entry.says) {
        entries.push(entry);
    }
}
