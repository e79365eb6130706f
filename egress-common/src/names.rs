//! DNS names as the kernel knows them: numbers for the places in the tree of names, and how what they say joins what prefixes say.
//!
//! A **name id** stands for a *place*: the exact name `N`, any name with one label in front of `N`, or with two and more, as far as no
//! longer suffix of the node's rules fits. An address that was learned for a question is stored under the id of the question's place;
//! which rules that means is said by each table for itself ([`NameLeaf`] by id). So policies may come and go without touching what
//! was learned. Order is kept by merging [`State`]s: first matches are smallest ranks, wherever they come from.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

mod state;

pub use self::state::{Bounds, Effect, State, name_bounds, name_state, prefix_bounds, prefix_state};

/// Longest key in bytes: a name of 255 bytes on the wire (RFC 1035 §2.3.4) without its root label.
pub const KEY_BYTES: usize = 256;
/// Name ids that one address can hold at a time.
pub const IDS_PER_ADDRESS: usize = 32;

/// Key of the LPM trie of names: the wire form without the root label, byte-reversed, each length byte replaced by 0. `foo.com` is
/// `moc\0oof\0`, so a suffix is a prefix, and it ends between labels because no label of a rule holds a zero byte.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NameKey {
    /// Length in bits.
    pub length: u32,
    /// The bytes; zero behind the length.
    pub bytes: [u8; KEY_BYTES],
}
const _: () = assert!(size_of::<NameKey>() == 260);

impl NameKey {
    /// The key of a dotted name in lower case (a trailing dot is fine). `None` if it is longer than a name can be.
    pub fn new(name: &str) -> Option<Self> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let mut key = Self { length: 0, bytes: [0; KEY_BYTES] };
        let mut at = 0;
        for label in name.as_bytes().rsplit(|byte| *byte == b'.') {
            for byte in label.iter().rev() {
                *key.bytes.get_mut(at)? = byte.to_ascii_lowercase();
                at += 1;
            }
            // The place of the length byte, which is already zero.
            at += 1;
        }
        if at > KEY_BYTES - 2 {
            return None;
        }
        key.length = u32::try_from(at * 8).ok()?;
        Some(key)
    }
}

/// What the trie says of a suffix `N`. An id of 0: no rule of the node is about such names.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NameEntry {
    /// Id of `N` itself.
    pub exact: u32,
    /// Id of the names with one label in front of `N`.
    pub one: u32,
    /// Id of the names with two labels and more in front of `N`.
    pub more: u32,
    /// Labels of `N`.
    pub labels: u32,
}
const _: () = assert!(size_of::<NameEntry>() == 16);

impl NameEntry {
    /// The id of a name of `labels` labels that this entry is the longest suffix of.
    #[inline]
    pub const fn id(&self, labels: u32) -> u32 {
        match labels.wrapping_sub(self.labels) {
            0 => self.exact,
            1 => self.one,
            _ => self.more,
        }
    }
}

/// One id of an address, and until when: 0 is a free slot. Written by single 64-bit stores, so that readers see both or neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Name id, not 0.
    pub id: u32,
    /// Second of `CLOCK_MONOTONIC` at which it ends; it lives while now is below.
    pub expiry: u32,
}

impl Slot {
    /// As it stands in [`AddressNames`].
    #[inline]
    pub const fn to_bits(self) -> u64 {
        (self.id as u64) << 32 | self.expiry as u64
    }

    /// Reads a word of [`AddressNames`]; `None` if it is free.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "takes the two halves apart")]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        if bits == 0 { None } else { Some(Self { id: (bits >> 32) as u32, expiry: bits as u32 }) }
    }
}

/// The names of one address (§5.9). Slots are taken from the front, so the first free one ends the list.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct AddressNames {
    /// [`Slot`] bits.
    pub slots: [u64; IDS_PER_ADDRESS],
}

impl AddressNames {
    /// No name.
    pub const EMPTY: Self = Self { slots: [0; IDS_PER_ADDRESS] };
}

/// Addresses that are never an external destination: unspecified, loopback, link-local, multicast and broadcast ones (§5.6; RFC 6890).
#[inline]
pub const fn is_special(address: &[u8; 16]) -> bool {
    match *address {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, first, second, ..] => {
            first == 0 || first == 127 || first >= 224 || (first == 169 && second == 254)
        }
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last] => last <= 1,
        [first, second, ..] => first == 0xff || (first == 0xfe && second & 0xc0 == 0x80),
    }
}

/// What a table says of a name id, in the table's `name_leaves` array: 0 nothing, otherwise an [`Effect`] for every protocol and port
/// (bit 31 set) or the index of a class, plus one, whose intervals hold effects or states.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NameLeaf(pub u32);

impl NameLeaf {
    /// No rule of the table is about the name.
    pub const NOTHING: Self = Self(0);
    const INLINE: u32 = 1 << 31;

    /// The same effect on every protocol and port.
    #[inline]
    pub const fn effect(effect: Effect) -> Self {
        Self(effect.0)
    }

    /// By the class at `base` (below 2³¹ - 1).
    #[inline]
    pub const fn class(base: u32) -> Self {
        Self((base + 1) & !Self::INLINE)
    }

    /// `None`: nothing. Otherwise the effect, or the class.
    #[inline]
    pub const fn open(self) -> Option<Result<Effect, u32>> {
        match self.0 {
            0 => None,
            bits if bits & Self::INLINE != 0 => Some(Ok(Effect(bits))),
            bits => Some(Err(bits - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> std::vec::Vec<u8> {
        let key = NameKey::new(name).unwrap();
        key.bytes[..key.length as usize / 8].to_vec()
    }

    #[test]
    fn a_suffix_is_a_prefix_that_ends_between_labels() {
        assert_eq!(text("Foo.COM."), b"moc\0oof\0");
        assert!(text("www.foo.com").starts_with(&text("foo.com")));
        assert!(!text("afoo.com").starts_with(&text("foo.com")));
        let longest = std::format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
        assert_eq!(NameKey::new(&longest).unwrap().length, 254 * 8);
        assert_eq!(NameKey::new(&std::format!("x{longest}")), None);
    }

    #[test]
    fn special_addresses_are_told_from_others() {
        use std::net::{IpAddr, Ipv6Addr};
        let bytes = |text: &str| match text.parse().unwrap() {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => Ipv6Addr::octets(&address),
        };
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "ff02::1",
        ] {
            assert!(is_special(&bytes(text)), "{text}");
        }
        for text in
            ["1.2.3.4", "169.253.1.1", "223.255.255.255", "10.0.0.1", "2001:db8::1", "::2", "fec0::1", "fd00::1"]
        {
            assert!(!is_special(&bytes(text)), "{text}");
        }
    }

    #[test]
    fn an_entry_tells_names_by_the_labels_in_front() {
        let entry = NameEntry { exact: 1, one: 2, more: 3, labels: 2 };
        assert_eq!([2, 3, 4, 9].map(|labels| entry.id(labels)), [1, 2, 3, 3]);
    }
}
