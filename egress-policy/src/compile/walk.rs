//! Visits the prefixes of a rule list as a nested tree, parents before children, and emits a leaf for each one that says something else
//! than its nearest ancestor.
//!
//! The stack holds the prefixes that contain the current one. A child's fold is its parent's with its own rules merged in. Only where an
//! `except` takes away a rule that is a first match in the parent, the fold is made anew from the rules on the stack.

use std::ops::Range;

use egress_common::table::Leaf;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::classes::Classes;
use super::coverage::{Coverage, Open};
use super::fold::{Fold, Own, State};
use super::table::{unspecified4, unspecified6};
use super::verdicts::Verdicts;
use super::{CompileError, Resource};
use crate::rules::RankedRule;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

pub(super) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A prefix of either family, its address at the top of 128 bits; the order is (address, length).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    bits: u128,
    length: u8,
}

impl Prefix {
    pub(super) fn of(network: &IpNet, family: Family) -> Option<Self> {
        match (network, family) {
            (IpNet::V4(net), Family::V4) => {
                Some(Self { bits: u128::from(net.network().to_bits()) << 96, length: net.prefix_len() })
            }
            (IpNet::V6(net), Family::V6) => Some(Self { bits: net.network().to_bits(), length: net.prefix_len() }),
            (IpNet::V4(_), Family::V6) | (IpNet::V6(_), Family::V4) => None,
        }
    }

    pub(super) fn contains(self, other: Self) -> bool {
        let outside = u128::MAX.checked_shr(u32::from(self.length)).unwrap_or(0);
        self.length <= other.length && (self.bits ^ other.bits) & !outside == 0
    }

    /// The prefixes around it, the longest last.
    fn around(self) -> impl Iterator<Item = Self> {
        (0..self.length).map(move |length| {
            let outside = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
            Self { bits: self.bits & !outside, length }
        })
    }

    /// Number of addresses in 128-bit terms, minus one; /0 has no representable count.
    fn size_minus_one(self) -> u128 {
        u128::MAX.checked_shr(u32::from(self.length)).unwrap_or(0)
    }
}

/// One mention of a prefix in the rule list. Sorted, the mentions of a prefix lie together: rules by rank, then exceptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mention {
    pub(super) prefix: Prefix,
    except: bool,
    rank: u32,
}

/// Where the mentions of `prefix` and of everything inside it lie.
pub(super) fn inside(mentions: &[Mention], prefix: Prefix) -> Range<usize> {
    let start = mentions.partition_point(|mention| mention.prefix < prefix);
    let within = mentions.get(start..).unwrap_or_default();
    start..start + within.partition_point(|mention| prefix.contains(mention.prefix))
}

/// A prefix on the way from /0 to the current one.
struct Frame {
    prefix: Prefix,
    /// Mentions by rules.
    own: Range<usize>,
    /// Mentions by exceptions.
    except: Range<usize>,
    fold: Fold,
    leaf: Leaf,
    /// Addresses that children hold, minus one; `None` while there are none.
    children: Option<u128>,
    /// The last fold made anew for a child without rules, and the exceptions that it was made for: siblings often have the same.
    recent: Option<(Range<usize>, Fold)>,
}

pub(super) struct Walk<'l> {
    rules: &'l [RankedRule],
    verdicts: &'l Verdicts,
    classes: &'l mut Classes,
    /// Where the rules that decide are noted, if anybody wants to know them.
    coverage: Option<&'l mut Coverage>,
    /// What is left for names, where there are any.
    open: Option<&'l mut Open>,
    prefix_limit: usize,
    /// Prefixes counted, beyond the limit too.
    prefixes: usize,
    prefixes4: Vec<(Ipv4Net, Leaf)>,
    prefixes6: Vec<(Ipv6Net, Leaf)>,
    /// For each rank, how many exceptions hold at the current prefix.
    excepted: Vec<u32>,
    stack: Vec<Frame>,
    /// Whether leaves are wanted: not of what lies around the part that is visited.
    emits: bool,
}

/// The prefixes of both families, each sorted.
pub(super) type Prefixes = (Vec<(Ipv4Net, Leaf)>, Vec<(Ipv6Net, Leaf)>);

impl<'l> Walk<'l> {
    pub(super) fn new(
        rules: &'l [RankedRule],
        prefix_limit: usize,
        verdicts: &'l Verdicts,
        classes: &'l mut Classes,
        coverage: Option<&'l mut Coverage>,
        open: Option<&'l mut Open>,
    ) -> Self {
        Self {
            rules,
            verdicts,
            classes,
            coverage,
            open: open.filter(|_| verdicts.names.is_some()),
            prefix_limit,
            prefixes: 0,
            prefixes4: Vec::new(),
            prefixes6: Vec::new(),
            excepted: vec![0; rules.len()],
            stack: Vec::new(),
            emits: true,
        }
    }

    /// Visits every prefix of `mentions`.
    pub(super) fn run(&mut self, mentions: &[Mention], family: Family) -> Result<(), CompileError> {
        self.visit(mentions, 0..mentions.len(), family)
    }

    /// Visits `prefix` and everything inside it, after what lies around it.
    pub(super) fn part(&mut self, mentions: &[Mention], prefix: Prefix, family: Family) -> Result<(), CompileError> {
        self.emits = false;
        for around in prefix.around() {
            let start = mentions.partition_point(|mention| mention.prefix < around);
            if mentions.get(start).is_some_and(|mention| mention.prefix == around) {
                self.group(mentions, start, family)?;
            }
        }
        self.emits = true;
        self.visit(mentions, inside(mentions, prefix), family)
    }

    fn visit(&mut self, mentions: &[Mention], range: Range<usize>, family: Family) -> Result<(), CompileError> {
        let mut start = range.start;
        while let Some(first) = mentions.get(start).filter(|_| start < range.end) {
            self.leave_until(first.prefix, mentions);
            start = self.group(mentions, start, family)?;
        }
        while let Some(frame) = self.stack.pop() {
            self.leave(&frame, mentions);
        }
        Ok(())
    }

    /// Enters the prefix whose mentions begin at `start`. Returns where they end.
    fn group(&mut self, mentions: &[Mention], start: usize, family: Family) -> Result<usize, CompileError> {
        let group = mentions.get(start..).unwrap_or_default();
        let Some(first) = group.first() else { return Ok(start) };
        let length = group.partition_point(|mention| mention.prefix == first.prefix);
        let rules = group.get(..length).unwrap_or_default().partition_point(|mention| !mention.except);
        let (own, except) = (start..start + rules, start + rules..start + length);
        self.enter(first.prefix, own, except, mentions, family)?;
        Ok(start + length)
    }

    pub(super) fn finish(self) -> Result<Prefixes, CompileError> {
        if self.prefixes > self.prefix_limit {
            let (needed, limit) = (self.prefixes, self.prefix_limit);
            return Err(CompileError::Capacity { what: Resource::Prefixes, needed, limit });
        }
        Ok((self.prefixes4, self.prefixes6))
    }

    fn enter(
        &mut self,
        prefix: Prefix,
        own: Range<usize>,
        except: Range<usize>,
        mentions: &[Mention],
        family: Family,
    ) -> Result<(), CompileError> {
        for mention in slice(mentions, &except) {
            change(&mut self.excepted, mention.rank, |count| *count += 1);
        }
        let fold = self.fold(&own, &except, mentions);
        let leaf = self.leaf(&fold)?;
        if self.emits && self.stack.last().is_none_or(|parent| parent.leaf != leaf) {
            self.emit(prefix, family, leaf);
        }
        self.stack.push(Frame { prefix, own, except, fold, leaf, children: None, recent: None });
        Ok(())
    }

    fn fold(&mut self, own: &Range<usize>, except: &Range<usize>, mentions: &[Mention]) -> Fold {
        let excepted = slice(mentions, except);
        let Some(parent) = self.stack.last() else {
            return self.anew(own, mentions);
        };
        if !excepted.iter().any(|mention| parent.fold.mentions(mention.rank)) {
            return parent.fold.with(&self.collect(std::iter::once(own), mentions));
        }
        if let Some((range, fold)) = &parent.recent
            && own.is_empty()
            && slice(mentions, range).iter().map(|mention| mention.rank).eq(excepted.iter().map(|mention| mention.rank))
        {
            return fold.clone();
        }
        let fold = self.anew(own, mentions);
        if own.is_empty()
            && let Some(parent) = self.stack.last_mut()
        {
            parent.recent = Some((except.clone(), fold.clone()));
        }
        fold
    }

    /// The fold from all rules on the stack and `own`, without those that are excepted here.
    fn anew(&self, own: &Range<usize>, mentions: &[Mention]) -> Fold {
        let ranges = self.stack.iter().map(|frame| &frame.own).chain([own]);
        Fold::Flat(State::EMPTY).with(&self.collect(ranges, mentions))
    }

    fn collect<'a>(&self, ranges: impl Iterator<Item = &'a Range<usize>>, mentions: &[Mention]) -> Own<'l> {
        let mut collected = Own::new();
        for range in ranges {
            for mention in slice(mentions, range) {
                let Some(rule) = at(self.rules, mention.rank) else {
                    continue;
                };
                if at(&self.excepted, mention.rank).is_none_or(|count| *count == 0) {
                    collected.add(rule, mention.rank);
                }
            }
        }
        collected
    }

    fn leaf(&mut self, fold: &Fold) -> Result<Leaf, CompileError> {
        match fold {
            Fold::Flat(state) => match self.verdicts.flat_leaf(*state) {
                Some(leaf) => Ok(leaf),
                None => self.verdicts.leaf(&[(0, *state)], self.classes),
            },
            Fold::Split(split) => match split.leaf.get() {
                Some(leaf) => Ok(leaf),
                None => self.verdicts.leaf(&split.steps, self.classes).inspect(|leaf| split.leaf.set(Some(*leaf))),
            },
        }
    }

    /// Beyond the limit prefixes are only counted, so that the error can say how many there are.
    fn emit(&mut self, prefix: Prefix, family: Family, leaf: Leaf) {
        self.prefixes += 1;
        if self.prefixes > self.prefix_limit {
            return;
        }
        match family {
            Family::V4 => {
                let address = u32::try_from(prefix.bits >> 96).unwrap_or_default();
                let net = Ipv4Net::new(address.into(), prefix.length).unwrap_or(unspecified4());
                self.prefixes4.push((net, leaf));
            }
            Family::V6 => {
                let net = Ipv6Net::new(prefix.bits.into(), prefix.length).unwrap_or(unspecified6());
                self.prefixes6.push((net, leaf));
            }
        }
    }

    fn leave_until(&mut self, next: Prefix, mentions: &[Mention]) {
        while let Some(frame) = self.stack.pop_if(|frame| !frame.prefix.contains(next)) {
            self.leave(&frame, mentions);
        }
    }

    fn leave(&mut self, frame: &Frame, mentions: &[Mention]) {
        for mention in slice(mentions, &frame.except) {
            change(&mut self.excepted, mention.rank, |count| *count -= 1);
        }
        let size = frame.prefix.size_minus_one();
        // Where the children hold every address, the prefix itself decides nothing.
        if frame.children != Some(size) {
            self.mark(&frame.fold);
        }
        if let Some(parent) = self.stack.last_mut() {
            parent.children =
                Some(parent.children.map_or(size, |children| children.wrapping_add(size).wrapping_add(1)));
        }
    }

    /// Notes the rules that decide somewhere in `fold`.
    fn mark(&mut self, fold: &Fold) {
        let Some(coverage) = &mut self.coverage else { return };
        match fold {
            Fold::Flat(state) => coverage.mark_state(self.verdicts, *state),
            Fold::Split(split) if split.marked.replace(true) => return,
            Fold::Split(split) => {
                split.steps.iter().for_each(|(_, state)| coverage.mark_state(self.verdicts, *state));
            }
        }
        if let Some(open) = &mut self.open {
            open.add(self.verdicts, fold);
        }
    }
}

/// Every mention of a prefix of `family`, sorted.
pub(super) fn mentions<'r>(ranked: impl IntoIterator<Item = (u32, &'r RankedRule)>, family: Family) -> Vec<Mention> {
    let mut mentions = Vec::new();
    for (rank, rule) in ranked {
        for (networks, except) in [(rule.networks(), false), (rule.except(), true)] {
            let prefixes = networks.iter().filter_map(|network| Prefix::of(network, family));
            mentions.extend(prefixes.map(|prefix| Mention { prefix, except, rank }));
        }
    }
    mentions.sort_unstable();
    mentions.dedup();
    mentions
}

fn at<T>(items: &[T], rank: u32) -> Option<&T> {
    items.get(usize::try_from(rank).ok()?)
}

fn change(counts: &mut [u32], rank: u32, change: impl Fn(&mut u32)) {
    if let Some(count) = usize::try_from(rank).ok().and_then(|rank| counts.get_mut(rank)) {
        change(count);
    }
}

fn slice<'m>(mentions: &'m [Mention], range: &Range<usize>) -> &'m [Mention] {
    mentions.get(range.clone()).unwrap_or_default()
}
