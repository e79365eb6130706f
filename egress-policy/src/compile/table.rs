//! A compiled table, as the kernel gets it, and the lookup that the kernel does on it.
//!
//! Invariant: prefixes are sorted by (address, length), without duplicates, and begin with the /0 of their family; places are sorted too,
//! and each suffix has at least one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use egress_common::abi::capacity;
use egress_common::class::{self, ClassEntry, ClassVerdict};
use egress_common::names::{self, Bounds, NameLeaf, State};
use egress_common::table::{Decision, Leaf, MAX_RANK};
use egress_common::trie::{PAGE_UNITS, Unit};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::entries::Entries;
use crate::places::{Place, inside};

/// What one rule list says for every address, protocol and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// IPv4 prefixes, sorted.
    pub prefixes4: Arc<Vec<(Ipv4Net, Leaf)>>,
    /// IPv6 prefixes, sorted.
    pub prefixes6: Arc<Vec<(Ipv6Net, Leaf)>>,
    /// The class array that leaves point into.
    pub classes: Entries,
    /// The places that rules about DNS names tell apart, those that no rule is about left out, sorted.
    pub names: Vec<(Place, NameLeaf)>,
    /// Number of ranks.
    pub rules: u32,
    /// Ranks before the Namespace tier.
    pub head_rules: u32,
}

/// What a table says of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lookup {
    /// The decision in force.
    pub decision: Decision,
    /// The decision with policies under Audit enforced, where it is another action or a rule of such a policy gives it.
    pub audit: Option<Decision>,
}

impl From<ClassVerdict> for Lookup {
    fn from(verdict: ClassVerdict) -> Self {
        Self { decision: verdict.decision, audit: verdict.audit }
    }
}

/// What is said where the table is damaged.
const DAMAGED: Lookup = Lookup { decision: Decision::deny(MAX_RANK), audit: None };

/// Bytes of kernel memory that a prefix of an LPM trie takes: a node of 64 bytes, and up to one more that joins two branches.
const BYTES_PER_LPM_PREFIX: usize = 128;
/// The same of an array trie, its spare room included: more than lists that people have take.
const BYTES_PER_TRIE_PREFIX: usize = 48;
/// What an array trie takes beside: its root.
const BYTES_PER_TRIE: usize = PAGE_UNITS as usize * size_of::<Unit>();

impl Table {
    /// Number of prefixes, both families together.
    pub fn prefixes(&self) -> usize {
        self.prefixes4.len() + self.prefixes6.len()
    }

    /// Estimate of the kernel memory that the table's maps take, in bytes.
    pub fn kernel_memory(&self) -> usize {
        let of_family = |count: usize| match count {
            ..capacity::TRIE_FROM => count * BYTES_PER_LPM_PREFIX,
            _ => BYTES_PER_TRIE + count * BYTES_PER_TRIE_PREFIX,
        };
        of_family(self.prefixes4.len()) + of_family(self.prefixes6.len()) + self.classes.len() * size_of::<ClassEntry>()
    }

    /// What the kernel does: longest prefix, then the class. IPv4-mapped IPv6 addresses are IPv4. `port` is the ICMP type for ICMP and
    /// ICMPv6, and 0 for protocols without ports. A damaged table denies with rank [`MAX_RANK`].
    pub fn lookup(&self, address: IpAddr, protocol: u8, port: u16) -> Lookup {
        self.leaf(address).and_then(|leaf| self.open(leaf, class::key(protocol, port))).unwrap_or(DAMAGED)
    }

    /// [`Table::lookup`] for a packet whose port cannot be known: a verdict only where ports do not matter (§3.6).
    pub fn lookup_any_port(&self, address: IpAddr, protocol: u8) -> Option<Lookup> {
        match self.leaf(address)?.open() {
            Ok(decision) => Some(Lookup { decision, audit: None }),
            Err(base) => class::search_any_port(&self.classes, base, protocol).map(Lookup::from),
        }
    }

    /// Whether rules of the table are about DNS names.
    pub fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    /// What the table says of the names of `place`, which is one name's, or of a set of patterns that has this table's among its own.
    pub fn name_leaf(&self, place: &Place) -> NameLeaf {
        let own = inside(place, |suffix| {
            let first = self.names.partition_point(|(place, _)| place.suffix.as_str() < suffix);
            self.names.get(first).is_some_and(|(place, _)| place.suffix == suffix)
        });
        let found = own.and_then(|own| self.names.binary_search_by(|(place, _)| place.cmp(&own)).ok());
        found.and_then(|index| self.names.get(index)).map_or(NameLeaf::NOTHING, |(_, leaf)| *leaf)
    }

    /// Whether rules of the table allow something of the names of one place and refuse the same of another. As with
    /// [`Table::name_leaf`].
    pub fn tells_apart(&self, allowed: &Place, refused: &Place) -> bool {
        let (allowed, refused) = (self.name_leaf(allowed), self.name_leaf(refused));
        let starts = [allowed, refused].into_iter().flat_map(|leaf| self.starts(leaf));
        starts.chain([0]).any(|key| {
            let denies = |leaf| {
                let state = names::name_state(&self.classes, leaf, key, self.head_rules)?;
                state.verdict().map(|verdict| verdict.decision.is_deny())
            };
            denies(allowed) == Some(false) && denies(refused) == Some(true)
        })
    }

    /// The keys at which what a name leaf says may change.
    fn starts(&self, leaf: NameLeaf) -> Vec<u32> {
        let Some(Err(base)) = leaf.open() else { return Vec::new() };
        let base = usize::try_from(base).unwrap_or(usize::MAX);
        let count = self.classes.get(base).map_or(0, |header| usize::try_from(header.from).unwrap_or(0));
        self.classes.iter().skip(base.saturating_add(1)).take(count).map(|entry| entry.from).collect()
    }

    /// [`Table::lookup`] for an address that has names, of which the table says `leaves`: the first match wins, wherever it comes from
    /// (§4.2). Only tables with names keep what merging needs; for others names make no difference.
    pub fn lookup_with(&self, address: IpAddr, protocol: u8, port: u16, leaves: &[NameLeaf]) -> Lookup {
        if !self.has_names() {
            return self.lookup(address, protocol, port);
        }
        self.leaf(address).map_or(DAMAGED, |leaf| self.open_with(leaf, class::key(protocol, port), leaves))
    }

    fn open_with(&self, leaf: Leaf, key: u32, leaves: &[NameLeaf]) -> Lookup {
        let (classes, head_rules) = (&self.classes, self.head_rules);
        let merge =
            |state: State, leaf: &NameLeaf| Some(state.merge(names::name_state(classes, *leaf, key, head_rules)?));
        let own = names::prefix_state(classes, leaf, key, head_rules);
        let merged = own.and_then(|own| leaves.iter().try_fold(own, merge));
        merged.and_then(State::verdict).map_or(DAMAGED, Lookup::from)
    }

    /// [`Table::lookup_any_port`] for an address that has names: a verdict only where no port matters.
    pub fn lookup_any_port_with(&self, address: IpAddr, protocol: u8, leaves: &[NameLeaf]) -> Option<Lookup> {
        if leaves.iter().all(|leaf| *leaf == NameLeaf::NOTHING) {
            return self.lookup_any_port(address, protocol);
        }
        let (classes, head_rules) = (&self.classes, self.head_rules);
        let own = names::prefix_bounds(classes, self.leaf(address)?, Some(protocol), head_rules)?;
        let bounds = leaves.iter().try_fold(own, |bounds: Bounds, leaf| {
            Some(bounds.merge(names::name_bounds(classes, *leaf, Some(protocol), head_rules)?))
        })?;
        bounds.verdict().map(Lookup::from)
    }

    /// The leaf of the longest prefix that contains `address`.
    pub fn leaf(&self, address: IpAddr) -> Option<Leaf> {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                longest(&self.prefixes4, 32, |length| Ipv4Net::new(address, length).map(|net| net.trunc()))
            }
            IpAddr::V6(address) => {
                longest(&self.prefixes6, 128, |length| Ipv6Net::new(address, length).map(|net| net.trunc()))
            }
        }
    }

    /// What `leaf` says of the (protocol, port) of `key`.
    pub fn open(&self, leaf: Leaf, key: u32) -> Option<Lookup> {
        match leaf.open() {
            Ok(decision) => Some(Lookup { decision, audit: None }),
            Err(base) => class::search(&self.classes, base, key).map(Lookup::from),
        }
    }

    /// The intervals of `leaf`: first key and what is said from there on, sorted, the first one 0. Adjacent ones differ.
    pub fn intervals(&self, leaf: Leaf) -> Vec<(u32, Lookup)> {
        let base = match leaf.open() {
            Ok(decision) => return vec![(0, Lookup { decision, audit: None })],
            Err(base) => base,
        };
        let verdict = |entry| class::verdict(&self.classes, entry).map_or(DAMAGED, Lookup::from);
        let said = self.class(base).map(|entry| (entry.from, verdict(entry)));
        distinct(said)
    }

    /// [`Table::intervals`] for addresses that have names, of which the table says `leaves`.
    pub fn intervals_with(&self, leaf: Leaf, leaves: &[NameLeaf]) -> Vec<(u32, Lookup)> {
        if leaves.iter().all(|leaf| *leaf == NameLeaf::NOTHING) {
            return self.intervals(leaf);
        }
        let of_names = leaves.iter().filter_map(|leaf| leaf.open()?.err());
        let classes = leaf.open().err().into_iter().chain(of_names);
        let mut starts: Vec<u32> =
            classes.flat_map(|base| self.class(base).map(|entry| entry.from)).chain([0]).collect();
        starts.sort_unstable();
        starts.dedup();
        distinct(starts.into_iter().map(|key| (key, self.open_with(leaf, key, leaves))))
    }

    /// The intervals of the class at `base`.
    fn class(&self, base: u32) -> impl Iterator<Item = ClassEntry> + '_ {
        let base = usize::try_from(base).unwrap_or(usize::MAX);
        let count = self.classes.get(base).map_or(0, |header| usize::try_from(header.from).unwrap_or(0));
        self.classes.iter().skip(base.saturating_add(1)).take(count).copied()
    }

    /// Every prefix with its leaf, IPv4 first, sorted inside the family.
    pub fn entries(&self) -> impl Iterator<Item = (IpNet, Leaf)> + '_ {
        let entries4 = self.prefixes4.iter().map(|(prefix, leaf)| (IpNet::V4(*prefix), *leaf));
        entries4.chain(self.prefixes6.iter().map(|(prefix, leaf)| (IpNet::V6(*prefix), *leaf)))
    }
}

/// The intervals without those that say what the one before them says.
fn distinct(intervals: impl Iterator<Item = (u32, Lookup)>) -> Vec<(u32, Lookup)> {
    let mut distinct: Vec<(u32, Lookup)> = Vec::new();
    for (from, lookup) in intervals {
        if distinct.last().is_none_or(|(_, last)| *last != lookup) {
            distinct.push((from, lookup));
        }
    }
    distinct
}

/// Looks for the prefix of each length, longest first.
fn longest<N: Ord + Copy, E>(prefixes: &[(N, Leaf)], bits: u8, prefix: impl Fn(u8) -> Result<N, E>) -> Option<Leaf> {
    (0..=bits).rev().find_map(|length| {
        let wanted = prefix(length).ok()?;
        let index = prefixes.binary_search_by_key(&wanted, |(prefix, _)| *prefix).ok()?;
        prefixes.get(index).map(|(_, leaf)| *leaf)
    })
}

/// The /0 of IPv4 and of IPv6.
pub(super) const fn unspecified4() -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)
}

/// See [`unspecified4`].
pub(super) const fn unspecified6() -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)
}
