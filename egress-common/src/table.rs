//! What a prefix of a table leads to, and what the kernel knows about a table beside its prefixes.
//!
//! A table is a list of rules with ranks 0, 1, 2… (evaluation order, first match wins), compiled to prefixes. Its leaves name the
//! winning rule by rank; the agent's description of the table turns the rank into a policy and a rule number.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Longest rank, 24 bits.
pub const MAX_RANK: u32 = (1 << 24) - 1;

/// Which rule decided, and what it says: the 32 bits that a verdict fits in.
///
/// Bit 31 is always set, so that a decision can stand in a [`Leaf`]. Bit 30 is Deny, bit 29 marks internal destinations (§1.2),
/// for which no connection is ever remembered. The low 24 bits are the rank of the deciding rule.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Decision(pub u32);

impl Decision {
    const INLINE: u32 = 1 << 31;
    const DENY: u32 = 1 << 30;
    const INTERNAL: u32 = 1 << 29;

    /// The rule of `rank` allows.
    #[inline]
    pub const fn allow(rank: u32) -> Self {
        Self(Self::INLINE | (rank & MAX_RANK))
    }

    /// The rule of `rank` denies.
    #[inline]
    pub const fn deny(rank: u32) -> Self {
        Self(Self::INLINE | Self::DENY | (rank & MAX_RANK))
    }

    /// The rule of `rank` allows because the destination is internal.
    #[inline]
    pub const fn internal(rank: u32) -> Self {
        Self(Self::INLINE | Self::INTERNAL | (rank & MAX_RANK))
    }

    /// Whether the rule denies.
    #[inline]
    pub const fn is_deny(self) -> bool {
        self.0 & Self::DENY != 0
    }

    /// Whether the destination is internal.
    #[inline]
    pub const fn is_internal(self) -> bool {
        self.0 & Self::INTERNAL != 0
    }

    /// Rank of the deciding rule.
    #[inline]
    pub const fn rank(self) -> u32 {
        self.0 & MAX_RANK
    }
}

/// Value of a prefix: a [`Decision`] where ports do not matter, otherwise the index of a class (§ [`class`](crate::class)).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Leaf(pub u32);

impl Leaf {
    /// A leaf that decides for every protocol and port.
    #[inline]
    pub const fn decision(decision: Decision) -> Self {
        Self(decision.0)
    }

    /// A leaf whose class starts at `index` (31 bits) of the table's class array.
    #[inline]
    pub const fn class(index: u32) -> Self {
        Self(index & !Decision::INLINE)
    }

    /// The decision, or the class index.
    #[inline]
    pub const fn open(self) -> Result<Decision, u32> {
        if self.0 & Decision::INLINE != 0 { Ok(Decision(self.0)) } else { Err(self.0) }
    }
}

/// Table flags; part of the ABI.
pub mod flag {
    /// Refused packets at the pod's interface are answered (TCP RST, ICMP administratively prohibited) and not only dropped.
    pub const REJECT: u32 = 1;
    /// There was no room for a counter per rule: rank 0 counts everything allowed, rank 1 everything denied.
    pub const SHARED_COUNTERS: u32 = 2;
    /// Rules of the table name DNS names: destinations are looked up among the learned addresses, and replies of resolvers are read.
    pub const NAMES: u32 = 4;
    /// The first packet of every connection that passes is told.
    pub const TELL_ALLOWED: u32 = 8;
    /// The IPv4 prefixes are an array trie ([`trie`](crate::trie)), not an LPM trie.
    pub const TRIE4: u32 = 16;
    /// The IPv6 prefixes are one.
    pub const TRIE6: u32 = 32;
    /// Never in a map: the programs' own mark, alone, for an endpoint whose table is gone, so that nothing is allowed.
    pub const GONE: u32 = 64;
    /// Lowest of the five bits of [`TableInfo::counters_shift`](super::TableInfo::counters_shift).
    pub const COUNTERS_SHIFT: u32 = 24;
    /// Never set. The verifier cannot know that: see `forget` in the programs.
    pub const NEVER: u32 = 1 << 31;
}

/// What the kernel knows about a table beside its prefixes. Constant while the table is published.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct TableInfo {
    /// Number of this table version.
    pub generation: u32,
    /// Index of the counter of rank 0.
    pub counter_base: u32,
    /// Number of rules; ranks are below it.
    pub rules: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Rules before the Namespace tier; ranks below are the head of the list (see [`names`](crate::names)).
    pub head_rules: u32,
    /// Root of the IPv4 trie, with [`flag::TRIE4`].
    pub root4: u32,
    /// Root of the IPv6 trie, with [`flag::TRIE6`].
    pub root6: u32,
    /// Prefixes, both families together.
    pub prefixes: u32,
}
const _: () = assert!(size_of::<TableInfo>() == 32);

impl TableInfo {
    /// Binary logarithm of the number of rule counters that each processor has.
    #[inline]
    pub const fn counters_shift(flags: u32) -> u32 {
        flags >> flag::COUNTERS_SHIFT & 31
    }
}

/// Packets and bytes, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Counter {
    /// Packets, or refused socket calls.
    pub packets: u64,
    /// Bytes from the IP header on; 0 for socket calls.
    pub bytes: u64,
}
const _: () = assert!(size_of::<Counter>() == 16);
