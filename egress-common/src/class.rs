//! Classes: disjoint intervals over (protocol, port), each with the decision of the first matching rule.
//!
//! A class lies in the table's class array as one header entry (`from` = number of intervals) followed by its intervals, sorted by
//! `from`, the first of them 0. An interval ends where the next begins. The search is the same code in the kernel and in the agent.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::names::{Effect, State};
use crate::table::{Decision, Leaf};

/// Intervals in one class; 2^16 with the header still fit [`SEARCH_STEPS`].
pub const MAX_INTERVALS: u32 = 1 << 16;
/// Halvings that find an interval among [`MAX_INTERVALS`].
const SEARCH_STEPS: u32 = 17;

/// One interval of a class, its header, or half a [`State`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct ClassEntry {
    /// First [`key`] of the interval; in a header, the number of intervals that follow.
    pub from: u32,
    /// What is said from there on: the bits of an [`Effect`]; the index of a [`State`] in the class array, where that is more than one rule
    /// in force; 0 if no rule is about it, which is so in classes of names only. In a header 0.
    pub says: u32,
}
const _: () = assert!(size_of::<ClassEntry>() == 8);

impl ClassEntry {
    /// The header of so many intervals.
    #[inline]
    pub const fn header(intervals: u32) -> Self {
        Self { from: intervals, says: 0 }
    }

    /// What an interval says: an effect, or the index of a state.
    #[inline]
    pub const fn open(self) -> Option<Result<Effect, u32>> {
        match Leaf(self.says).open() {
            Ok(_) => Some(Ok(Effect(self.says))),
            Err(0) => None,
            Err(index) => Some(Err(index)),
        }
    }
}

/// Entries that lie side by side in one element of the table's class array, so that a short class is read with one lookup of the map.
/// A class that fits into a block lies in one.
pub const BLOCK: u32 = 32;
/// One element of the map: [`BLOCK`] entries.
pub type Block = [ClassEntry; BLOCK as usize];
/// Halvings that find an interval in a block.
const BLOCK_STEPS: u32 = BLOCK.ilog2();

/// Orders (protocol, port) pairs: the protocol number above, the port below. ICMP and ICMPv6 use their type as the port;
/// protocols without ports use 0.
#[inline]
pub const fn key(protocol: u8, port: u16) -> u32 {
    ((protocol as u32) << 16) | port as u32
}

/// What a class says of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassVerdict {
    /// The decision in force.
    pub decision: Decision,
    /// The decision with Audit policies enforced, if it is another one.
    pub audit: Option<Decision>,
    /// Index of the interval, to tell whether two packets met the same one.
    pub index: u32,
}

/// Where class entries are read from: a map in the kernel, a slice in the agent.
pub trait ClassEntries {
    /// The entry at `index`, or `None` outside of the array.
    fn entry(&self, index: u32) -> Option<ClassEntry>;

    /// The entry at `index`, which is even, and the next one. They are in one block.
    #[inline]
    fn pair(&self, index: u32) -> Option<[ClassEntry; 2]> {
        Some([self.entry(index)?, self.entry(index | 1)?])
    }

    /// The verdict of the [`State`] at `index`.
    #[inline]
    fn state_verdict(&self, index: u32) -> Option<ClassVerdict> {
        State::read(self, index)?.verdict()
    }

    /// Index of the interval of `key` in the class at `base`, as [`interval_index`] finds it.
    #[inline]
    fn interval(&self, base: u32, key: u32) -> Option<u32> {
        interval_index(self, base, key)
    }
}

impl ClassEntries for [ClassEntry] {
    fn entry(&self, index: u32) -> Option<ClassEntry> {
        self.get(index as usize).copied()
    }
}

/// Finds the interval of `key` in the class at `base`. `None` only where the array is damaged; the caller then denies.
#[inline]
pub fn search<E: ClassEntries + ?Sized>(entries: &E, base: u32, key: u32) -> Option<ClassVerdict> {
    let (index, entry) = interval(entries, base, key)?;
    Some(ClassVerdict { index, ..verdict(entries, entry)? })
}

/// The verdict of an interval of a prefix, whose index is left to the caller. `None` as with [`search`].
#[inline]
pub fn verdict<E: ClassEntries + ?Sized>(entries: &E, interval: ClassEntry) -> Option<ClassVerdict> {
    match interval.open()? {
        Ok(effect) => Some(ClassVerdict { decision: effect.decision(), audit: None, index: 0 }),
        Err(index) => entries.state_verdict(index),
    }
}

/// The interval of `key` in the class at `base`, with its index in the array.
#[inline]
pub(crate) fn interval<E: ClassEntries + ?Sized>(entries: &E, base: u32, key: u32) -> Option<(u32, ClassEntry)> {
    let index = entries.interval(base, key)?;
    Some((index, entries.entry(index)?))
}

/// Searches the class at `base` for the interval of `key`.
#[inline]
pub fn interval_index<E: ClassEntries + ?Sized>(entries: &E, base: u32, key: u32) -> Option<u32> {
    let count = entries.entry(base)?.from;
    if count == 0 || count > MAX_INTERVALS {
        return None;
    }
    // Invariant: the interval of `low` starts at or below the key, that of `high` above it.
    let (mut low, mut high) = (0, count);
    for _ in 0..SEARCH_STEPS {
        if high - low <= 1 {
            break;
        }
        let middle = low.midpoint(high);
        if entries.entry(base + 1 + middle)?.from <= key {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(base + 1 + low)
}

/// What [`search`] finds, for a class whose header stands at `at` of a block and that ends in it. `None`: it does not, or is damaged.
#[inline]
#[expect(
    clippy::indexing_slicing,
    reason = "the index is masked; a check that can fail would be followed by the verifier"
)]
pub fn search_block(block: &Block, at: u32, key: u32) -> Option<&ClassEntry> {
    let entry = |index: u32| &block[(index & (BLOCK - 1)) as usize];
    let count = entry(at).from;
    if count == 0 || count >= BLOCK - (at & (BLOCK - 1)) {
        return None;
    }
    // Invariant: as in `interval_index`.
    let (mut low, mut high) = (at + 1, at + 1 + count);
    for _ in 0..BLOCK_STEPS {
        if high - low <= 1 {
            break;
        }
        let middle = low.midpoint(high);
        if entry(middle).from <= key {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(entry(low))
}

/// Intervals of a class that [`search_few`] looks through.
const FEW: u32 = 8;

/// [`search_block`] of a class of few intervals, as nearly all are: one after the other. `None` of another one too.
#[inline]
#[expect(clippy::indexing_slicing, reason = "as in `search_block`")]
pub fn search_few(block: &Block, at: u32, key: u32) -> Option<&ClassEntry> {
    let entry = |index: u32| &block[(index & (BLOCK - 1)) as usize];
    let count = entry(at).from;
    if count == 0 || count > FEW || count >= BLOCK - (at & (BLOCK - 1)) {
        return None;
    }
    let mut found = at + 1;
    for step in 1..FEW {
        let next = at + 1 + step;
        if step >= count || entry(next).from > key {
            break;
        }
        found = next;
    }
    Some(entry(found))
}

/// Intervals of one protocol that are compared before the port counts as decisive.
pub(crate) const COMPARED: u32 = 16;

/// Judges a packet whose port is not known (§3.6): the decision, if it is the same on every port of `protocol`. Intervals that differ
/// only in what Audit policies would do count as the same, since those decide nothing (§2.5); `audit` is then `None`. For addresses with
/// names see [`Bounds`](crate::names::Bounds).
#[inline]
pub fn search_any_port<E: ClassEntries + ?Sized>(entries: &E, base: u32, protocol: u8) -> Option<ClassVerdict> {
    let first = search(entries, base, key(protocol, 0))?;
    let last = search(entries, base, key(protocol, u16::MAX))?;
    if first.index == last.index {
        return Some(first);
    }
    let mut audit = first.audit;
    for step in 1..COMPARED {
        let index = first.index + step;
        if index > last.index {
            return Some(ClassVerdict { audit, ..first });
        }
        let next = verdict(entries, entries.entry(index)?)?;
        if next.decision != first.decision {
            return None;
        }
        // Intervals may also differ in nothing but what merging with names needs.
        audit = audit.filter(|audit| next.audit == Some(*audit));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn class(starts: &[u32]) -> Vec<ClassEntry> {
        let header = ClassEntry::header(u32::try_from(starts.len()).unwrap());
        let interval = |(&from, rank)| ClassEntry { from, says: Decision::allow(rank).0 };
        core::iter::once(header).chain(starts.iter().zip(0..).map(interval)).collect()
    }

    #[test]
    fn search_finds_the_interval_that_a_linear_scan_finds() {
        for len in 1..40_u32 {
            let starts: Vec<u32> = (0..len).map(|i| i * i * 7).collect();
            let entries = class(&starts);
            for key in 0..12_000 {
                let linear = starts.iter().rposition(|&start| start <= key).unwrap();
                let found = search(entries.as_slice(), 0, key).unwrap();
                assert_eq!(found.decision.rank() as usize, linear, "len {len} key {key}");
            }
        }
    }

    #[test]
    fn a_block_is_searched_as_the_array_is() {
        for (at, len) in (0..BLOCK).flat_map(|at| (0..=BLOCK).map(move |len| (at, len))) {
            let starts: Vec<u32> = (0..len).map(|i| i * i * 7).collect();
            let mut entries = std::vec![ClassEntry::default(); at as usize];
            entries.extend(class(&starts));
            let ends_in_it = len > 0 && entries.len() <= BLOCK as usize;
            entries.resize(3 * BLOCK as usize, ClassEntry::default());
            let block: &Block = entries.first_chunk().unwrap();
            for key in 0..8_000 {
                let decision = |entry: &ClassEntry| entry.open().unwrap().unwrap().decision();
                let expected = search(entries.as_slice(), at, key).filter(|_| ends_in_it);
                let expected = expected.map(|verdict| verdict.decision);
                assert_eq!(search_block(block, at, key).map(decision), expected, "{at} {len}");
                let few = expected.filter(|_| len <= FEW);
                assert_eq!(search_few(block, at, key).map(decision), few, "{at} {len}");
            }
        }
    }

    #[test]
    fn the_largest_class_is_searched_to_its_ends() {
        let starts: Vec<u32> = (0..MAX_INTERVALS).collect();
        let entries = class(&starts);
        for key in [0, 1, MAX_INTERVALS / 2, MAX_INTERVALS - 2, MAX_INTERVALS - 1, u32::MAX] {
            let rank = search(entries.as_slice(), 0, key).unwrap().decision.rank();
            assert_eq!(rank, key.min(MAX_INTERVALS - 1));
        }
    }

    #[test]
    fn a_damaged_class_has_no_verdict() {
        let entries = class(&[0, 5]);
        assert_eq!(search(&entries[..2], 0, 9), None);
        assert_eq!(search(entries.as_slice(), 7, 9), None);
        assert_eq!(search(&[ClassEntry::default()][..], 0, 0), None);
    }

    #[test]
    fn intervals_that_differ_only_in_audit_judge_an_unknown_port() {
        let (real, audit) = (Effect::decide(Decision::allow(9)), Effect::decide(Decision::deny(5)).audited());
        let plain = State { head: real, tail: Effect::pass(20), audit_head: real, ..State::EMPTY };
        let audited = State { audit_head: audit, ..plain };
        // Of four intervals those of TCP are the first three.
        let judge = |says: [u32; 4]| {
            let mut entries = [State::EMPTY, plain, audited].map(State::to_entries).as_flattened().to_vec();
            entries.push(ClassEntry::header(4));
            let starts = [0, key(6, 443), key(6, 444), key(7, 0)];
            entries.extend(starts.iter().zip(says).map(|(&from, says)| ClassEntry { from, says }));
            search_any_port(entries.as_slice(), 6, 6).map(|verdict| (verdict.decision, verdict.audit))
        };
        let (allow, plain, audited) = (real.0, 2, 4);
        let verdict = |audit| Some((Decision::allow(9), audit));
        assert_eq!(judge([allow, audited, allow, plain]), verdict(None));
        assert_eq!(judge([audited, audited, audited, allow]), verdict(Some(Decision::deny(5))));
        assert_eq!(judge([audited, plain, audited, allow]), verdict(None));
        assert_eq!(judge([allow, plain, allow, Decision::deny(9).0]), verdict(None));
        assert_eq!(judge([allow, plain, Decision::deny(9).0, allow]), None);
        assert_eq!(judge([allow, 0, allow, allow]), None, "says nothing");
        assert_eq!(judge([allow, 100, allow, allow]), None, "no state is there");
    }

    #[test]
    fn an_unknown_port_is_judged_only_where_ports_do_not_matter() {
        let entries = class(&[0, key(6, 443), key(6, 444), key(17, 0), key(18, 0)]);
        assert_eq!(search_any_port(entries.as_slice(), 0, 6), None);
        assert_eq!(search_any_port(entries.as_slice(), 0, 17).unwrap().decision.rank(), 3);
    }
}
