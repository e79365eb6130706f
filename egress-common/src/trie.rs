//! The array trie: longest prefix of an address → [`Leaf`], in an array of 32-byte units. Same answers as the kernel's LPM trie.
//!
//! A table's root is a page of 512 entries for the first 9 bits. An entry is a leaf, a node, or a fan: eight entries more for the next 3
//! bits, where so many prefixes follow that nodes are fullest behind 12 bits. A node is a step of 6 bits (two bitmaps say which of its 64
//! slots lead to a node, which to a twig, and where a run of equal leaves begins) or a skip over up to 63 bits that everything below has
//! in common. A twig is half a unit: one prefix, and what holds beside it. What belongs to a node lies side by side: the nodes that it leads
//! to, its twigs, and its leaves unless three are enough.
//! Written by the agent (`egress-policy`'s `trie`) into units that nobody can reach yet; read by the kernel and by tests with this code.
//! Invariant: what a published root leads to never changes while it is published.

#![expect(
    clippy::inline_always,
    reason = "the verifier follows one program; calls between the steps of a walk cost it more states"
)]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::table::Leaf;

/// Bits that a page decides by.
pub const PAGE_BITS: u32 = 9;
/// Units of a page, eight entries each.
pub const PAGE_UNITS: u32 = 64;
/// Bits that a fan decides by: it is one unit.
pub const FAN_BITS: u32 = 3;
/// Bits that a node decides by.
pub const NODE_BITS: u32 = 6;
/// Most bits that a skip goes over.
pub const SKIP_BITS: u32 = 63;
/// Leaves that stand in the node itself.
pub const OWN_LEAVES: usize = 3;
/// Greatest index of a unit, plus one: 16 GiB.
pub const MAX_UNITS: u32 = 1 << 29;
/// Units of a chunk, 128 KiB: all arrays of units have this length, so that the JIT compiles a lookup to a few instructions
/// (`array_map_gen_lookup`, which leaves arrays of different lengths to a call). No page, and no children of a node, are in two chunks.
pub const CHUNK_UNITS: u32 = 4096;
/// The root of no trie: whoever walks from here finds nothing.
pub const NOWHERE: u32 = MAX_UNITS;

/// 32 bytes of a trie: a node, a fan, two twigs, or eight words of a page or of leaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Unit {
    /// Node: bit `s` set: slot `s` leads to a node, or to a twig if its bit in `runs` is set too. Skip: the common bits, from the top.
    pub children: u64,
    /// Node: bit `s` set, and that of `children` not: slot `s` has a leaf, another one than the last slot with a leaf before it. Skip: how
    /// many bits, 1 to [`SKIP_BITS`].
    pub runs: u64,
    /// [`Base`] bits.
    pub base: u32,
    /// Node with at most three leaves: these. Skip: the leaf where the bits differ, and where they do not if that is all.
    pub leaves: [u32; OWN_LEAVES],
}
const _: () = assert!(size_of::<Unit>() == 32);

impl Unit {
    /// Eight words of a page, a fan, or of leaves.
    #[inline]
    pub const fn of_words(words: [u32; 8]) -> Self {
        zerocopy::transmute!(words)
    }

    /// One of the eight words of a page, a fan, or of leaves.
    #[inline(always)]
    pub fn word(&self, index: u32) -> u32 {
        let words: &[u32; 8] = zerocopy::transmute_ref!(self);
        words.get((index & 7) as usize).copied().unwrap_or_default()
    }

    /// Two twigs.
    #[inline]
    pub const fn of_twigs(twigs: [Twig; 2]) -> Self {
        zerocopy::transmute!(twigs)
    }

    /// One of two twigs. By its index: which of them it is no processor can foretell, so there must be no jump.
    #[inline(always)]
    pub fn twig(&self, index: u32) -> Twig {
        let twigs: &[Twig; 2] = zerocopy::transmute_ref!(self);
        twigs.get((index & 1) as usize).copied().unwrap_or_default()
    }

    /// One of the leaves that stand in a node; likewise.
    #[inline(always)]
    fn own_leaf(&self, run: u32) -> Leaf {
        const FIRST: u32 = 5;
        const { assert!(FIRST as usize + OWN_LEAVES == 8) };
        Leaf(self.word(FIRST.wrapping_add(run)))
    }

    /// Slots of a node that lead to nodes.
    #[inline(always)]
    pub const fn nodes(&self) -> u64 {
        self.children & !self.runs
    }

    /// Slots of a node that lead to twigs.
    #[inline(always)]
    pub const fn twigs(&self) -> u64 {
        self.children & self.runs
    }

    /// Units that the twigs of a node take, two in each.
    #[inline(always)]
    pub const fn twig_units(&self) -> u32 {
        self.twigs().count_ones().div_ceil(2)
    }
}

/// One prefix and nothing else below a slot of a node: 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Twig {
    /// The bits of the prefix behind the slot, from the top, 1 to [`SKIP_BITS`] of them; then a one, then zeros.
    pub path: u64,
    /// The leaf where the bits differ.
    pub elsewhere: u32,
    /// The leaf where they do not.
    pub here: u32,
}
const _: () = assert!(size_of::<[Twig; 2]>() == size_of::<Unit>());

impl Twig {
    /// The twig whose prefix is the first `bits` of `path`, which has no others.
    #[inline]
    pub const fn new(path: u64, bits: u32, elsewhere: Leaf, here: Leaf) -> Self {
        Self { path: path | 1 << ((SKIP_BITS - bits) & SKIP_BITS), elsewhere: elsewhere.0, here: here.0 }
    }

    /// How many bits its prefix has, and they themselves, from the top. `None` if it makes no sense.
    #[inline]
    pub const fn prefix(self) -> Option<(u32, u64)> {
        match self.path.trailing_zeros() {
            zeros @ 0..SKIP_BITS => Some((SKIP_BITS - zeros, self.path & (self.path - 1))),
            _ => None,
        }
    }

    /// The leaf of an address that goes on with `rest`.
    #[inline(always)]
    pub const fn leaf(self, rest: u64) -> Leaf {
        // All from the last one on, which is not of the prefix.
        let behind = self.path ^ self.path.wrapping_sub(1);
        Leaf(if (self.path ^ rest) & !behind == 0 { self.here } else { self.elsewhere })
    }
}

/// What belongs to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base(pub u32);

impl Base {
    /// Node: its leaves stand behind its twigs. Skip: the leaf is all.
    pub const OUTSIDE: u32 = 1 << 31;
    /// The unit is a skip.
    pub const SKIP: u32 = 1 << 30;

    /// Node: index of its first twig, or of its leaves if it has none; the nodes that it leads to end before it. So one count of bits leads to
    /// either. Skip: index of the node behind it.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0 & (MAX_UNITS - 1)
    }

    /// Whether a bit is set.
    #[inline(always)]
    pub const fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }
}

/// An entry of a page or a fan: bit 31, or neither bit 31 nor bit 30: a [`Leaf`]; otherwise the index of a fan (bit 29 set) or a node. Class
/// indexes stay below 2^30: see `abi::capacity::TABLE_CLASS_ENTRIES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(pub u32);

impl Entry {
    const INLINE: u32 = 1 << 31;
    const POINTER: u32 = 1 << 30;
    const FAN: u32 = 1 << 29;

    /// The entry of a leaf.
    #[inline]
    pub const fn leaf(leaf: Leaf) -> Self {
        Self(leaf.0)
    }

    /// The entry of the node at `index`.
    #[inline]
    pub const fn node(index: u32) -> Self {
        Self(Self::POINTER | index & (MAX_UNITS - 1))
    }

    /// The entry of the fan at `index`.
    #[inline]
    pub const fn fan(index: u32) -> Self {
        Self(Self::POINTER | Self::FAN | index & (MAX_UNITS - 1))
    }

    /// The leaf, if it is one.
    #[inline(always)]
    pub const fn as_leaf(self) -> Option<Leaf> {
        if self.0 & Self::INLINE != 0 || self.0 & Self::POINTER == 0 { Some(Leaf(self.0)) } else { None }
    }

    /// Whether it leads to a fan, given that it is no leaf.
    #[inline(always)]
    pub const fn is_fan(self) -> bool {
        self.0 & Self::FAN != 0
    }

    /// Where it leads to, given that it is no leaf.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0 & (Self::FAN - 1)
    }
}

/// Where units are read from: a map in the kernel, memory in the agent.
pub trait Units {
    /// The unit at `index`, or `None` outside of the array.
    fn unit(&self, index: u32) -> Option<&Unit>;
}

impl Units for [Unit] {
    fn unit(&self, index: u32) -> Option<&Unit> {
        self.get(index as usize)
    }
}

/// The leaf of the longest prefix of an IPv4 address. `None` only where the trie is damaged; the caller then denies.
#[inline(always)]
pub fn lookup4<U: Units + ?Sized>(units: &U, root: u32, address: [u8; 4]) -> Option<Leaf> {
    let rest = Rest { high: u64::from(u32::from_be_bytes(address)) << 32, low: 0 };
    // 9 bits by the root, the other 23 by six or more at a time.
    walk(units, root, rest, 4)
}

/// The leaf of the longest prefix of an IPv6 address, whose halves are in host order. `None` as with [`lookup4`].
#[inline(always)]
pub fn lookup6<U: Units + ?Sized>(units: &U, root: u32, high: u64, low: u64) -> Option<Leaf> {
    // 9 bits by the root, the other 119 by six or more at a time.
    walk(units, root, Rest { high, low }, 20)
}

/// The bits of an address that are not decided by yet, at the top.
#[derive(Clone, Copy)]
struct Rest {
    high: u64,
    low: u64,
}

impl Rest {
    /// The first `bits`, 1 to 63.
    #[inline(always)]
    const fn first(self, bits: u32) -> u64 {
        self.high >> (64 - bits)
    }

    /// What is left behind the first `bits`, up to 63.
    #[inline(always)]
    const fn behind(self, bits: u32) -> Self {
        let bits = bits & 63;
        Self { high: self.high << bits | (self.low >> 1) >> (63 - bits), low: self.low << bits }
    }
}

/// Goes over the root, the fan behind it if there is one, and at most `nodes` nodes.
///
/// A loop, which the build does not unroll, and one count of bits for both ways: less code to load, to verify and to keep in caches.
#[inline(always)]
fn walk<U: Units + ?Sized>(units: &U, root: u32, rest: Rest, nodes: u32) -> Option<Leaf> {
    let (mut entry, mut rest) = turn(units, root, rest, PAGE_BITS)?;
    if entry.as_leaf().is_none() && entry.is_fan() {
        (entry, rest) = turn(units, entry.index(), rest, FAN_BITS)?;
    }
    if let Some(leaf) = entry.as_leaf() {
        return Some(leaf);
    }
    let mut index = entry.index();
    for _ in 0..nodes {
        let unit = units.unit(index)?;
        let base = Base(unit.base);
        if base.has(Base::SKIP) {
            let [elsewhere, here, _] = unit.leaves;
            let bits = (unit.runs & 63) as u32;
            if (rest.high ^ unit.children) >> 1 >> (63 - bits) != 0 {
                return Some(Leaf(elsewhere));
            }
            if base.has(Base::OUTSIDE) {
                return Some(Leaf(here));
            }
            (index, rest) = (base.index(), rest.behind(bits));
            continue;
        }
        let slot = 1_u64 << rest.first(NODE_BITS);
        let (below, here) = (slot - 1, rest.behind(NODE_BITS));
        if unit.children & slot == 0 {
            let run = (unit.runs & !unit.children & (slot | below)).count_ones();
            return leaf_of(units, unit, run.wrapping_sub(1));
        }
        if unit.runs & slot != 0 {
            let twig = (unit.twigs() & below).count_ones();
            return Some(units.unit(base.index() + (twig >> 1))?.twig(twig).leaf(here.high));
        }
        (index, rest) = (base.index().wrapping_sub((unit.nodes() & !below).count_ones()), here);
    }
    None
}

/// The leaf of a node's `run`.
#[inline(always)]
fn leaf_of<U: Units + ?Sized>(units: &U, unit: &Unit, run: u32) -> Option<Leaf> {
    let base = Base(unit.base);
    if !base.has(Base::OUTSIDE) {
        return Some(unit.own_leaf(run));
    }
    let leaves = units.unit(base.index() + unit.twig_units() + (run >> 3))?;
    Some(Leaf(leaves.word(run)))
}

/// Reads the entry of a page or a fan, which decides by `bits`.
#[inline(always)]
fn turn<U: Units + ?Sized>(units: &U, first: u32, rest: Rest, bits: u32) -> Option<(Entry, Rest)> {
    #[expect(clippy::cast_possible_truncation, reason = "nine bits at most")]
    let slot = rest.first(bits) as u32;
    let unit = units.unit(first + (slot >> 3))?;
    Some((Entry(unit.word(slot)), rest.behind(bits)))
}
