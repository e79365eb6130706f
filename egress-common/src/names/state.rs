//! First matches: what the rules of a list say of one packet, in parts that can be merged where an address has names (§4.2).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::NameLeaf;
use crate::class::{self, COMPARED, ClassEntries, ClassEntry, ClassVerdict, key};
use crate::table::{Decision, Leaf, MAX_RANK};

/// What the first matching rule of one part of the list does: [`Decision`] bits, and two more.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Effect(pub u32);

impl Effect {
    /// No rule matches. Its rank is above every rank.
    pub const NONE: Self = Self(u32::MAX);
    const PASS: u32 = 1 << 28;
    const AUDIT: u32 = 1 << 27;

    /// The rule gives this verdict.
    #[inline]
    pub const fn decide(decision: Decision) -> Self {
        Self(decision.0)
    }

    /// The rule of `rank` is a Pass: the rest of the head is skipped.
    #[inline]
    pub const fn pass(rank: u32) -> Self {
        Self(Decision::allow(rank).0 | Self::PASS)
    }

    /// The same, of a policy under Audit.
    #[inline]
    #[must_use]
    pub const fn audited(self) -> Self {
        Self(self.0 | Self::AUDIT)
    }

    /// Rank of the rule; above every rank if there is none.
    #[inline]
    pub const fn rank(self) -> u32 {
        self.0 & MAX_RANK
    }

    /// Whether no rule matches.
    #[inline]
    pub const fn is_none(self) -> bool {
        self.rank() == MAX_RANK
    }

    /// Whether the rule is a Pass.
    #[inline]
    pub const fn is_pass(self) -> bool {
        self.0 & Self::PASS != 0
    }

    /// Whether the rule's policy is under Audit.
    #[inline]
    pub const fn is_audited(self) -> bool {
        self.0 & Self::AUDIT != 0
    }

    /// The verdict, without the bits that are only for merging.
    #[inline]
    pub const fn decision(self) -> Decision {
        Decision(self.0 & !(Self::PASS | Self::AUDIT))
    }

    #[inline]
    const fn first(self, other: Self) -> Self {
        if other.rank() < self.rank() { other } else { self }
    }

    #[inline]
    const fn last(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }
}

/// First matches on one interval. The *head* of a list is its builtin rules and the Admin tier, the *tail* everything behind; Pass goes
/// from the one to the other. Both once for the rules in force and once with those of policies under Audit among them. Lies in the class
/// array in the place of two [`ClassEntry`]s, the first of them at an even index.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct State {
    /// In force, head.
    pub head: Effect,
    /// In force, tail.
    pub tail: Effect,
    /// With Audit, head.
    pub audit_head: Effect,
    /// With Audit, tail.
    pub audit_tail: Effect,
}
const _: () = assert!(size_of::<State>() == size_of::<[ClassEntry; 2]>());

impl State {
    /// No rule matches.
    pub const EMPTY: Self =
        Self { head: Effect::NONE, tail: Effect::NONE, audit_head: Effect::NONE, audit_tail: Effect::NONE };

    /// A rule in force of a list whose head has `head_rules` rules, and nothing else that matters: what a leaf or an interval without a
    /// state of its own stands for.
    #[inline]
    pub const fn simple(effect: Effect, head_rules: u32) -> Self {
        if effect.rank() < head_rules {
            Self { head: effect, audit_head: effect, ..Self::EMPTY }
        } else {
            Self { tail: effect, audit_tail: effect, ..Self::EMPTY }
        }
    }

    /// What holds where both hold.
    #[inline]
    #[must_use]
    pub const fn merge(self, other: Self) -> Self {
        Self {
            head: self.head.first(other.head),
            tail: self.tail.first(other.tail),
            audit_head: self.audit_head.first(other.audit_head),
            audit_tail: self.audit_tail.first(other.audit_tail),
        }
    }

    /// Whether merging `other` changes which rule in force decides.
    #[inline]
    pub const fn is_changed_by(self, other: Self) -> bool {
        let head = self.head.first(other.head);
        if head.0 != self.head.0 {
            return true;
        }
        (head.is_none() || head.is_pass()) && other.tail.rank() < self.tail.rank()
    }

    /// Element-wise the later match of both, see [`Bounds`].
    #[inline]
    const fn last(self, other: Self) -> Self {
        Self {
            head: self.head.last(other.head),
            tail: self.tail.last(other.tail),
            audit_head: self.audit_head.last(other.audit_head),
            audit_tail: self.audit_tail.last(other.audit_tail),
        }
    }

    /// Whether the rule of `rank` is among the first matches: with the rank of a verdict, whether this state gave it.
    #[inline]
    pub const fn mentions(self, rank: u32) -> bool {
        self.head.rank() == rank
            || self.tail.rank() == rank
            || self.audit_head.rank() == rank
            || self.audit_tail.rank() == rank
    }

    /// A rule in force, and another one with Audit, for which nothing else matters either.
    #[inline]
    #[must_use]
    pub const fn audited(self, audit: Effect, head_rules: u32) -> Self {
        let audit = Self::simple(audit.audited(), head_rules);
        Self { audit_head: audit.audit_head, audit_tail: audit.audit_tail, ..self }
    }

    /// As it lies in the class array.
    #[inline]
    pub const fn to_entries(self) -> [ClassEntry; 2] {
        zerocopy::transmute!(self)
    }

    /// The state at `index` of the class array; `None` if none can be there.
    #[inline]
    pub fn read<E: ClassEntries + ?Sized>(entries: &E, index: u32) -> Option<Self> {
        entries.pair(index).map(|pair| zerocopy::transmute!(pair))
    }

    /// The verdict; `None` only where the table is damaged, because the default action matches everything.
    #[inline]
    pub fn verdict(self) -> Option<ClassVerdict> {
        let real = decide(self.head, self.tail)?;
        let audit = decide(self.audit_head, self.audit_tail)?;
        let differs = audit.is_audited() || audit.decision().is_deny() != real.decision().is_deny();
        Some(ClassVerdict { decision: real.decision(), audit: differs.then(|| audit.decision()), index: 0 })
    }
}

#[inline]
fn decide(head: Effect, tail: Effect) -> Option<Effect> {
    let effect = if head.is_none() || head.is_pass() { tail } else { head };
    if effect.is_none() { None } else { Some(effect) }
}

/// First matches of the longest prefix, whose leaf is `leaf`. `None` only where the table is damaged; the caller then denies.
#[inline]
pub fn prefix_state<E: ClassEntries + ?Sized>(entries: &E, leaf: Leaf, key: u32, head_rules: u32) -> Option<State> {
    match leaf.open() {
        Ok(decision) => Some(State::simple(Effect::decide(decision), head_rules)),
        Err(base) => state_of(entries, class::interval(entries, base, key)?.1, head_rules),
    }
}

/// First matches among the rules about a name, whose leaf is `leaf`. `None` as with [`prefix_state`].
#[inline]
pub fn name_state<E: ClassEntries + ?Sized>(entries: &E, leaf: NameLeaf, key: u32, head_rules: u32) -> Option<State> {
    match leaf.open() {
        None => Some(State::EMPTY),
        Some(Ok(effect)) => Some(State::simple(effect, head_rules)),
        Some(Err(base)) => state_of(entries, class::interval(entries, base, key)?.1, head_rules),
    }
}

#[inline]
fn state_of<E: ClassEntries + ?Sized>(entries: &E, interval: ClassEntry, head_rules: u32) -> Option<State> {
    match interval.open() {
        // A name class has intervals that no rule is about.
        None => Some(State::EMPTY),
        Some(Ok(effect)) => Some(State::simple(effect, head_rules)),
        Some(Err(index)) => State::read(entries, index),
    }
}

/// First matches where the port is not known (§3.6): on every port they lie between these two, element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Earliest matches.
    pub first: State,
    /// Latest matches.
    pub last: State,
}

impl Bounds {
    /// The same on every port.
    #[inline]
    pub const fn of(state: State) -> Self {
        Self { first: state, last: state }
    }

    /// What holds where both hold.
    #[inline]
    #[must_use]
    pub const fn merge(self, other: Self) -> Self {
        Self { first: self.first.merge(other.first), last: self.last.merge(other.last) }
    }

    /// The verdict, if the same rule gives it on every port. What Audit policies would do decides nothing (§2.5), so where only that
    /// depends on the port there is a verdict without it.
    #[inline]
    pub fn verdict(self) -> Option<ClassVerdict> {
        let Self { first, last } = self;
        let real = decide_between((first.head, last.head), (first.tail, last.tail))?;
        let audit = decide_between((first.audit_head, last.audit_head), (first.audit_tail, last.audit_tail));
        let differs = |audit: Effect| audit.is_audited() || audit.decision().is_deny() != real.decision().is_deny();
        let audit = match audit {
            Some(audit) if differs(audit) => Some(audit.decision()),
            Some(_) | None => None,
        };
        Some(ClassVerdict { decision: real.decision(), audit, index: 0 })
    }
}

#[inline]
fn decide_between(head: (Effect, Effect), tail: (Effect, Effect)) -> Option<Effect> {
    if head.0.0 != head.1.0 {
        return None;
    }
    let effect = decide(head.0, tail.0)?;
    if effect.0 == head.0.0 || tail.0.0 == tail.1.0 { Some(effect) } else { None }
}

/// [`prefix_state`] whatever the port of `protocol`; with no `protocol`, whatever that too. `None` where that cannot be told.
#[inline]
pub fn prefix_bounds<E: ClassEntries + ?Sized>(
    entries: &E,
    leaf: Leaf,
    protocol: Option<u8>,
    head_rules: u32,
) -> Option<Bounds> {
    match leaf.open() {
        Ok(decision) => Some(Bounds::of(State::simple(Effect::decide(decision), head_rules))),
        Err(base) => bounds_of(entries, base, protocol?, head_rules),
    }
}

/// [`name_state`] whatever the port, like [`prefix_bounds`].
#[inline]
pub fn name_bounds<E: ClassEntries + ?Sized>(
    entries: &E,
    leaf: NameLeaf,
    protocol: Option<u8>,
    head_rules: u32,
) -> Option<Bounds> {
    match leaf.open() {
        None => Some(Bounds::of(State::EMPTY)),
        Some(Ok(effect)) => Some(Bounds::of(State::simple(effect, head_rules))),
        Some(Err(base)) => bounds_of(entries, base, protocol?, head_rules),
    }
}

#[inline]
fn bounds_of<E: ClassEntries + ?Sized>(entries: &E, base: u32, protocol: u8, head_rules: u32) -> Option<Bounds> {
    let (index, interval) = class::interval(entries, base, key(protocol, 0))?;
    let (last, _) = class::interval(entries, base, key(protocol, u16::MAX))?;
    let mut bounds = Bounds::of(state_of(entries, interval, head_rules)?);
    for step in 1..=COMPARED {
        if index + step > last {
            return Some(bounds);
        }
        let state = state_of(entries, entries.entry(index + step)?, head_rules)?;
        bounds = Bounds { first: bounds.first.merge(state), last: bounds.last.last(state) };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_match_wins_wherever_it_comes_from() {
        let of = |effect| State::simple(effect, 10);
        let allow = of(Effect::decide(Decision::allow(20)));
        let deny = of(Effect::decide(Decision::deny(30)));
        let head_deny = of(Effect::decide(Decision::deny(5)));
        let pass = of(Effect::pass(3));
        let verdict = |state: State| state.verdict().unwrap().decision;
        assert_eq!(verdict(allow.merge(deny)), Decision::allow(20));
        assert_eq!(verdict(deny.merge(allow)), Decision::allow(20));
        assert_eq!(verdict(allow.merge(head_deny)), Decision::deny(5));
        assert_eq!(verdict(allow.merge(head_deny).merge(pass)), Decision::allow(20));
        assert_eq!(pass.verdict(), None);
    }

    #[test]
    fn an_audited_rule_changes_only_the_audit_verdict() {
        let deny = State::simple(Effect::decide(Decision::deny(30)), 0);
        let audited = Effect::decide(Decision::allow(20)).audited();
        let state = State { audit_tail: audited, ..State::EMPTY }.merge(deny);
        let verdict = state.verdict().unwrap();
        assert_eq!((verdict.decision, verdict.audit), (Decision::deny(30), Some(Decision::allow(20))));
    }

    /// Where the states of [`array`] are.
    const FIRST: u32 = 2;
    const SECOND: u32 = 4;

    /// A class array: two empty headers, then two states, then the class that `intervals` make, whose index is returned.
    fn array(states: [State; 2], intervals: &[ClassEntry]) -> (std::vec::Vec<ClassEntry>, u32) {
        let mut entries = std::vec![ClassEntry::default(); 2];
        entries.extend(states.map(State::to_entries).as_flattened());
        entries.push(ClassEntry::header(u32::try_from(intervals.len()).unwrap()));
        entries.extend_from_slice(intervals);
        (entries, 6)
    }

    fn interval(from: u32, says: u32) -> ClassEntry {
        ClassEntry { from, says }
    }

    #[test]
    fn a_leaf_says_the_same_inline_and_as_a_class() {
        let allow = Effect::decide(Decision::allow(20));
        let (pass, deny) = (Effect::pass(3), Effect::decide(Decision::deny(30)));
        let state = State { head: pass, tail: allow, audit_head: pass.audited(), audit_tail: deny };
        let intervals = [interval(0, 0), interval(key(6, 80), allow.0), interval(key(6, 443), FIRST)];
        let (entries, base) = array([state, State::EMPTY], &intervals);
        let entries = entries.as_slice();
        let at = |port| name_state(entries, NameLeaf::class(base), key(6, port), 10);
        assert_eq!(name_state(entries, NameLeaf::NOTHING, 0, 10), Some(State::EMPTY));
        assert_eq!(name_state(entries, NameLeaf::effect(pass), 0, 10), Some(State::simple(pass, 10)));
        assert_eq!([at(79), at(80), at(443)], [Some(State::EMPTY), Some(State::simple(allow, 10)), Some(state)]);
        assert_eq!(prefix_state(entries, Leaf::class(base), key(6, 500), 10), Some(state));
        let inline = Leaf::decision(Decision::allow(20));
        assert_eq!(prefix_state(entries, inline, 0, 10), Some(State::simple(allow, 10)));
    }

    #[test]
    fn a_damaged_array_has_no_state() {
        let (entries, base) = array([State::EMPTY; 2], &[interval(0, 98)]);
        let entries = entries.as_slice();
        assert_eq!(name_state(entries, NameLeaf::class(base), 0, 10), None);
        assert_eq!(name_state(entries, NameLeaf::class(0), 0, 10), None, "an empty class");
        assert_eq!(prefix_state(entries, Leaf::class(77), 0, 10), None);
        assert_eq!(prefix_bounds(entries, Leaf::class(77), Some(6), 10), None);
        assert_eq!(name_bounds(entries, NameLeaf::class(base), Some(6), 10), None);
    }

    #[test]
    fn an_unknown_port_is_judged_where_one_rule_decides_on_every_port() {
        let allow = Effect::decide(Decision::allow(20));
        let intervals = [interval(0, 0), interval(key(6, 443), allow.0), interval(key(6, 444), 0)];
        let (entries, base) = array([State::EMPTY; 2], &intervals);
        let name = |protocol| name_bounds(entries.as_slice(), NameLeaf::class(base), protocol, 10);
        let leaf = |decision| prefix_bounds(entries.as_slice(), Leaf::decision(decision), None, 10).unwrap();
        let verdict = |decision, protocol| leaf(decision).merge(name(Some(protocol)).unwrap()).verdict();
        // The name allows port 443 only, before the default action.
        assert_eq!(verdict(Decision::deny(30), 6), None);
        assert_eq!(verdict(Decision::deny(30), 17).unwrap().decision, Decision::deny(30));
        // An earlier rule decides whatever the port is.
        assert_eq!(verdict(Decision::allow(15), 6).unwrap().decision, Decision::allow(15));
        assert_eq!(verdict(Decision::deny(5), 6).unwrap().decision, Decision::deny(5));
        // Without the protocol only leaves without classes can be told.
        assert_eq!(name(None), None);
        assert_eq!(leaf(Decision::deny(30)).verdict().unwrap().decision, Decision::deny(30));
    }

    #[test]
    fn audit_that_depends_on_the_port_does_not_take_the_verdict_away() {
        let deny = State::simple(Effect::decide(Decision::deny(30)), 10);
        let audited = State { audit_tail: Effect::decide(Decision::allow(20)).audited(), ..deny };
        let (entries, base) = array([audited, deny], &[interval(0, FIRST), interval(key(6, 443), SECOND)]);
        let bounds = |protocol| prefix_bounds(entries.as_slice(), Leaf::class(base), Some(protocol), 10).unwrap();
        let verdict = |protocol| bounds(protocol).verdict().map(|verdict| (verdict.decision, verdict.audit));
        assert_eq!(verdict(6), Some((Decision::deny(30), None)));
        assert_eq!(verdict(1), Some((Decision::deny(30), Some(Decision::allow(20)))));
        // Unless an earlier match hides it on every port.
        let name = Bounds::of(State::simple(Effect::decide(Decision::allow(12)), 10));
        assert_eq!(bounds(6).merge(name).verdict().unwrap().decision, Decision::allow(12));
    }

    #[test]
    fn a_class_of_too_many_intervals_is_not_gone_over() {
        let many: std::vec::Vec<ClassEntry> =
            (0..20).map(|port| interval(key(6, port) * u32::from(port > 0), 0)).collect();
        let (entries, base) = array([State::EMPTY; 2], &many);
        let bounds = |protocol| name_bounds(entries.as_slice(), NameLeaf::class(base), Some(protocol), 10);
        assert_eq!(bounds(6), None);
        assert_eq!(bounds(17), Some(Bounds::of(State::EMPTY)));
    }
}
