//! How a packet or a socket call is tied to a pod, and which table judges it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What an endpoint is known by. Numbers are part of the ABI.
pub mod key_kind {
    /// Index of the host-side interface, in the agent's network namespace.
    pub const INTERFACE: u32 = 1;
    /// Network namespace cookie (`SO_NETNS_COOKIE`).
    pub const NETNS: u32 = 2;
    /// Cgroup v2 id of the pod's cgroup.
    pub const CGROUP: u32 = 3;
}

/// In the place of a slot: a pod that is known and that no policy is about. Only keys of namespaces and cgroups lead there.
pub const FREE: u32 = u32::MAX;

/// Key of the endpoint index.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EndpointKey {
    /// Interface index, namespace cookie or cgroup id.
    pub id: u64,
    /// One of [`key_kind`].
    pub kind: u32,
    /// Padding.
    pub padding: u32,
}
const _: () = assert!(size_of::<EndpointKey>() == 16);

impl EndpointKey {
    /// A key of `kind` (one of [`key_kind`]).
    #[inline]
    pub const fn new(kind: u32, id: u64) -> Self {
        Self { id, kind, padding: 0 }
    }
}

/// An interface and the slot of its endpoint, in one word at [`InterfaceSlot::place`] of the `interfaces` map: found without a hash.
/// Only a shorter way: where another interface stands at the place, or none (no interface has the index 0), [`EndpointKey`] decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceSlot {
    /// Index of the interface.
    pub interface: u32,
    /// Slot in the `endpoints` map.
    pub slot: u32,
}

impl InterfaceSlot {
    /// Index in the map of what is known of `interface`.
    #[inline]
    pub const fn place(interface: u32) -> u32 {
        interface & (crate::abi::capacity::INTERFACES - 1)
    }

    /// The word that stands there.
    #[inline]
    pub const fn to_bits(self) -> u64 {
        ((self.slot as u64) << 32) | self.interface as u64
    }

    /// Reads the word.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "takes the two halves apart")]
    pub const fn from_bits(bits: u64) -> Self {
        Self { interface: bits as u32, slot: (bits >> 32) as u32 }
    }
}

/// One pod. `table` is the only word that changes while the endpoint lives, by one aligned 64-bit store.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Endpoint {
    /// [`TableRef`] bits: which table judges this pod now.
    pub table: u64,
    /// Number of this endpoint, never used for another one while the pins live; 0 marks a free slot.
    pub id: u32,
    /// Bits of [`flag`].
    pub flags: u32,
}
const _: () = assert!(size_of::<Endpoint>() == 16);

/// Endpoint flags; part of the ABI.
pub mod flag {
    /// The pod is a trusted resolver: it may send from a resolver's address.
    pub const RESOLVER: u32 = 1;
}

/// A published table: its slot, and its generation, which no other table version ever had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TableRef {
    /// Index in the `tables4`, `tables6`, `classes` and `table_info` maps.
    pub slot: u32,
    /// Number of the table version; 0 means "no table": everything passes.
    pub generation: u32,
}

impl TableRef {
    /// The word that is stored in [`Endpoint::table`].
    #[inline]
    pub const fn to_bits(self) -> u64 {
        ((self.generation as u64) << 32) | self.slot as u64
    }

    /// Reads [`Endpoint::table`].
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "takes the two halves apart")]
    pub const fn from_bits(bits: u64) -> Self {
        Self { slot: bits as u32, generation: (bits >> 32) as u32 }
    }
}
