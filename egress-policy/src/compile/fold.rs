//! What the ordered rules that contain a prefix say there: per (protocol, port) interval, the first matching rule of each part of
//! the list.
//!
//! Pass skips the rest of the Admin tier only, so two first matches are enough: of the *head* (builtin rules and Admin tier) and of the
//! *tail* (Namespace tier, Baseline tier, default action). Both are kept once for the rules in force and once with the rules of policies
//! under Audit among them. First matches are smallest ranks, so folds merge by element-wise minimum, whatever the order of merging.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use egress_common::table::Leaf;

use crate::model::Mode;
use crate::ports::{KeyRange, LAST_KEY, Ports};
use crate::rules::RankedRule;

/// No rule: larger than every rank.
pub(super) const NONE: u32 = u32::MAX;

/// First matches on one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Ranks: head and tail in force, head and tail with Audit.
    pub(super) ranks: [u32; 4],
}

impl State {
    /// No rule matches.
    pub(super) const EMPTY: Self = Self { ranks: [NONE; 4] };

    /// What the rule of `rank` adds where it matches.
    pub(super) fn of(rule: &RankedRule, rank: u32) -> Self {
        let head = rule.is_head();
        let enforced = rule.mode == Mode::Enforce;
        let at = |present: bool| if present { rank } else { NONE };
        Self { ranks: [at(head && enforced), at(!head && enforced), at(head), at(!head)] }
    }

    pub(super) fn min(self, other: Self) -> Self {
        self.zip(other, u32::min)
    }

    pub(super) fn max(self, other: Self) -> Self {
        self.zip(other, u32::max)
    }

    fn zip(self, other: Self, pick: fn(u32, u32) -> u32) -> Self {
        let mut ranks = self.ranks;
        for (rank, other) in ranks.iter_mut().zip(other.ranks) {
            *rank = pick(*rank, other);
        }
        Self { ranks }
    }

    pub(super) const fn mentions(&self, rank: u32) -> bool {
        let [a, b, c, d] = self.ranks;
        a == rank || b == rank || c == rank || d == rank
    }

    fn each(self, sets: &mut [BTreeSet<u32>; 4], change: fn(&mut BTreeSet<u32>, u32)) {
        for (set, rank) in sets.iter_mut().zip(self.ranks) {
            if rank != NONE {
                change(set, rank);
            }
        }
    }
}

/// What is said at a prefix.
#[derive(Clone, Debug)]
pub(super) enum Fold {
    /// The same for every protocol and port; the common case, without allocation.
    Flat(State),
    /// By interval.
    Split(Rc<Split>),
}

/// Intervals, each ending where the next begins, the first at 0. Adjacent ones differ.
#[derive(Debug)]
pub(super) struct Split {
    pub(super) steps: Vec<(u32, State)>,
    /// Element-wise maximum over the steps: what is not below it cannot change any of them.
    worst: State,
    /// Whether its steps were already looked through for the rules that decide.
    pub(super) marked: Cell<bool>,
    /// The leaf that was made of it, because prefixes share folds.
    pub(super) leaf: Cell<Option<Leaf>>,
}

impl Fold {
    /// Whether the rule of `rank` is a first match anywhere.
    pub(super) fn mentions(&self, rank: u32) -> bool {
        match self {
            Self::Flat(state) => state.mentions(rank),
            Self::Split(split) => split.steps.iter().any(|(_, state)| state.mentions(rank)),
        }
    }

    /// This fold with `own` merged in.
    pub(super) fn with(&self, own: &Own<'_>) -> Self {
        let (worst, steps) = match self {
            Self::Flat(state) => (*state, &[(0, *state)][..]),
            Self::Split(split) => (split.worst, &split.steps[..]),
        };
        // Most rules behind a rule for everything change nothing; then nothing is gone over.
        let matters = |state: State| worst.min(state) != worst;
        let listed_matter = own.listed.iter().any(|(state, _)| matters(*state));
        match self {
            _ if listed_matter => own.sweep(steps),
            Self::Flat(state) => Self::Flat(state.min(own.flat)),
            Self::Split(_) if matters(own.flat) => own.sweep(steps),
            Self::Split(split) => Self::Split(Rc::clone(split)),
        }
    }

    fn from_steps(steps: Vec<(u32, State)>) -> Self {
        if let [(_, state)] = steps.as_slice() {
            return Self::Flat(*state);
        }
        let worst = steps.iter().map(|(_, state)| *state).reduce(State::max).unwrap_or(State::EMPTY);
        Self::Split(Rc::new(Split { steps, worst, marked: Cell::new(false), leaf: Cell::new(None) }))
    }
}

/// Rules that are merged into a fold.
pub(super) struct Own<'r> {
    /// The rules without ports, already merged.
    flat: State,
    /// The rules with ports.
    listed: Vec<(State, &'r [KeyRange])>,
}

impl<'r> Own<'r> {
    pub(super) const fn new() -> Self {
        Self { flat: State::EMPTY, listed: Vec::new() }
    }

    pub(super) fn add(&mut self, rule: &'r RankedRule, rank: u32) {
        let state = State::of(rule, rank);
        match &rule.ports {
            Ports::Any => self.flat = self.flat.min(state),
            // Behind rules for all ports it is never a first match.
            Ports::Listed(_) if self.covers(state) => {}
            Ports::Listed(ranges) => self.listed.push((state, ranges)),
        }
    }

    /// Whether no rank of `state` is below the merged rules without ports.
    pub(super) fn covers(&self, state: State) -> bool {
        self.flat.min(state) == self.flat
    }

    /// Merges everything into `base`, going over the keys once with the ranks that are active there.
    fn sweep(&self, base: &[(u32, State)]) -> Fold {
        let mut events: Vec<(u32, bool, State)> = Vec::new();
        for (state, ranges) in &self.listed {
            for range in *ranges {
                events.push((range.first, true, *state));
                if range.last < LAST_KEY {
                    events.push((range.last + 1, false, *state));
                }
            }
        }
        events.sort_unstable_by_key(|(key, begins, _)| (*key, *begins));
        let mut active: [BTreeSet<u32>; 4] = Default::default();
        let mut steps: Vec<(u32, State)> = Vec::with_capacity(base.len() + events.len());
        let mut events = events.into_iter().peekable();
        let mut base = base.iter().copied().peekable();
        let mut inherited = State::EMPTY;
        while let Some(key) =
            [base.peek().map(|step| step.0), events.peek().map(|event| event.0)].into_iter().flatten().min()
        {
            while let Some((_, state)) = base.next_if(|step| step.0 == key) {
                inherited = state;
            }
            while let Some((_, begins, state)) = events.next_if(|event| event.0 == key) {
                state.each(
                    &mut active,
                    if begins {
                        |set, rank| {
                            set.insert(rank);
                        }
                    } else {
                        |set, rank| {
                            set.remove(&rank);
                        }
                    },
                );
            }
            let [a, b, c, d] = &active;
            let ranks = [a, b, c, d].map(|set| set.first().copied().unwrap_or(NONE));
            let state = inherited.min(self.flat).min(State { ranks });
            if steps.last().is_none_or(|(_, last)| *last != state) {
                steps.push((key, state));
            }
        }
        Fold::from_steps(steps)
    }
}
