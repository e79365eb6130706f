//! Which rules decide anything (§4.3).
//!
//! A rule about prefixes decides where it gives the verdict of some packet to an address without names. A rule about names decides
//! where it does so for an address that a name of its own belongs to, whatever other rules say of that address: any name may have any
//! address. Exact as long as the list has no Pass; behind a Pass, rules may count as deciding that never do, but never the reverse.

use std::collections::BTreeMap;

use super::fold::{Fold, NONE, State};
use super::verdicts::Verdicts;
use crate::ports::LAST_KEY;

/// Which ranks decide anything; see [`shadowed`](crate::warnings::shadowed).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage(Vec<bool>);

impl Coverage {
    pub(super) fn new(rules: usize) -> Self {
        Self(vec![false; rules])
    }

    /// Whether at least one packet exists that the rule of `rank` decides (for Pass: sends past its tier). Rules of policies under
    /// Audit are looked for in the audit verdicts, others in the real ones.
    pub fn decides(&self, rank: u32) -> bool {
        usize::try_from(rank).ok().and_then(|index| self.0.get(index)).copied().unwrap_or(false)
    }

    fn mark(&mut self, rank: u32) {
        if let Some(decides) = usize::try_from(rank).ok().and_then(|index| self.0.get_mut(index)) {
            *decides = true;
        }
    }

    /// Marks the ranks that matter to the verdicts of `state`: enforced rules in the real one, audited rules in the audit one.
    pub(super) fn mark_state(&mut self, verdicts: &Verdicts, state: State) {
        let [head, tail, audit_head, audit_tail] = state.ranks;
        for (head, tail, audit) in [(head, tail, false), (audit_head, audit_tail, true)] {
            let passes = head == NONE || verdicts.effect(head).is_pass();
            let named = verdicts.names.is_some_and(|names| names.may_skip(head));
            for (rank, reached) in [(head, true), (tail, passes || named)] {
                if reached && verdicts.effect(rank).is_audited() == audit {
                    self.mark(rank);
                }
            }
        }
    }

    /// Marks the rules about names that decide somewhere in `fold`, which is what a place says.
    pub(super) fn mark_names(&mut self, verdicts: &Verdicts, open: &Open, fold: &Fold) {
        let steps = match fold {
            Fold::Flat(state) => &[(0, *state)][..],
            Fold::Split(split) => &split.steps[..],
        };
        let ends = steps.iter().skip(1).map(|(from, _)| *from).chain([LAST_KEY + 1]);
        for ((from, state), end) in steps.iter().zip(ends) {
            let [head, tail, audit_head, audit_tail] = state.ranks;
            for (index, rank, before) in
                [(0, head, NONE), (1, tail, head), (2, audit_head, NONE), (3, audit_tail, audit_head)]
            {
                let blocked = before != NONE && !verdicts.effect(before).is_pass() && !verdicts.all.may_skip(before);
                let counts = rank != NONE && verdicts.effect(rank).is_audited() == (index >= 2) && !blocked;
                if counts && !self.decides(rank) && open.exceeds(*from..end, index, rank) {
                    self.mark(rank);
                }
            }
        }
    }
}

/// How late a rule about names can be and still decide, by key: the latest first matches of any address. The tail counts where the head
/// lets it through.
pub(super) struct Open {
    /// On every key.
    flat: State,
    /// On some, as (first key, end, state).
    ranges: Vec<(u32, u32, State)>,
    /// The maximum of both, after [`Open::finish`]: each from its key to the next.
    steps: Vec<(u32, State)>,
}

impl Open {
    pub(super) const fn new() -> Self {
        Self { flat: State { ranks: [0; 4] }, ranges: Vec::new(), steps: Vec::new() }
    }

    /// Adds what the addresses of a prefix say.
    pub(super) fn add(&mut self, verdicts: &Verdicts, fold: &Fold) {
        let seen = |state: State| {
            let [head, tail, audit_head, audit_tail] = state.ranks;
            let through = |head: u32, tail: u32| {
                let skipped = verdicts.names.is_some_and(|names| names.may_skip(head));
                if head == NONE || verdicts.effect(head).is_pass() || skipped { tail } else { 0 }
            };
            State { ranks: [head, through(head, tail), audit_head, through(audit_head, audit_tail)] }
        };
        match fold {
            Fold::Flat(state) => self.flat = self.flat.max(seen(*state)),
            Fold::Split(split) => {
                let ends = split.steps.iter().skip(1).map(|(from, _)| *from).chain([LAST_KEY + 1]);
                self.ranges.extend(split.steps.iter().zip(ends).map(|((from, state), end)| (*from, end, seen(*state))));
            }
        }
    }

    /// Joins what was added.
    pub(super) fn finish(&mut self) {
        let flat = self.flat;
        let mut events: Vec<(u32, bool, State)> = Vec::new();
        for (from, end, state) in std::mem::take(&mut self.ranges) {
            if state.max(flat) != flat {
                events.extend([(from, true, state), (end, false, state)]);
            }
        }
        events.sort_unstable_by_key(|(key, begins, _)| (*key, *begins));
        let mut active: [BTreeMap<u32, usize>; 4] = Default::default();
        self.steps.push((0, flat));
        let mut events = events.into_iter().peekable();
        while let Some(key) = events.peek().map(|event| event.0) {
            while let Some((_, begins, state)) = events.next_if(|event| event.0 == key) {
                for (counts, rank) in active.iter_mut().zip(state.ranks) {
                    count(counts, rank, begins);
                }
            }
            let [a, b, c, d] = &active;
            let ranks = [a, b, c, d].map(|counts| counts.last_key_value().map_or(0, |(rank, _)| *rank));
            let state = flat.max(State { ranks });
            match self.steps.last_mut() {
                Some((from, last)) if *from == key => *last = state,
                Some((_, last)) if *last == state => {}
                _ => self.steps.push((key, state)),
            }
        }
    }

    /// Whether the element `index` is above `rank` on some of `keys`.
    fn exceeds(&self, keys: std::ops::Range<u32>, index: usize, rank: u32) -> bool {
        let first = self.steps.partition_point(|(from, _)| *from <= keys.start).saturating_sub(1);
        let steps = self.steps.iter().skip(first).take_while(|(from, _)| *from < keys.end);
        steps.into_iter().any(|(_, state)| state.ranks.get(index).is_some_and(|latest| *latest > rank))
    }
}

/// Counts how often a rank is active.
fn count(counts: &mut BTreeMap<u32, usize>, rank: u32, begins: bool) {
    let held = counts.entry(rank).or_default();
    *held = if begins { held.saturating_add(1) } else { held.saturating_sub(1) };
    if *held == 0 {
        counts.remove(&rank);
    }
}
