//! Prefixes of IPv4 and IPv6 addresses, as numbers. Host bits may be set, as in the objects of users (§3.2).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// The address, with host bits as the user wrote them.
    pub address: IpAddr,
    /// Leading bits that count, 0–32 or 0–128.
    pub length: u8,
}

impl Prefix {
    /// A prefix of `length` bits of `address`.
    pub const fn new(address: IpAddr, length: u8) -> Self {
        Self { address, length }
    }

    /// The prefix of one address.
    pub const fn host(address: IpAddr) -> Self {
        let length = if address.is_ipv4() { 32 } else { 128 };
        Self { address, length }
    }

    /// Bits of an address of this family.
    pub const fn width(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// Whether the leading bits of `address` are this prefix (§3.2). An address of the other family never is inside.
    /// IPv4-mapped IPv6 addresses and prefixes are the IPv4 ones inside them: that is what such a destination is on the wire.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.canonical().contains_canonical(address.to_canonical())
    }

    fn contains_canonical(&self, address: IpAddr) -> bool {
        if self.address.is_ipv4() != address.is_ipv4() {
            return false;
        }
        (bits_of(self.address) ^ bits_of(address)) & !self.host_mask() == 0
    }

    /// Whether every address of `other` is inside this prefix.
    pub fn covers(&self, other: &Self) -> bool {
        self.length <= other.length && self.contains(other.address)
    }

    /// The lowest address inside.
    pub fn first(&self) -> IpAddr {
        from_bits(self.width(), bits_of(self.address) & !self.host_mask())
    }

    /// The highest address inside.
    pub fn last(&self) -> IpAddr {
        from_bits(self.width(), bits_of(self.address) | self.host_mask())
    }

    /// The same prefix with its host bits cleared.
    #[must_use]
    pub fn masked(&self) -> Self {
        Self::new(self.first(), self.length)
    }

    fn canonical(&self) -> Self {
        match self.address.to_canonical() {
            IpAddr::V4(address) if self.width() == 128 && self.length >= 96 => {
                Self::new(address.into(), self.length - 96)
            }
            _ => *self,
        }
    }

    fn host_mask(&self) -> u128 {
        match self.width() - self.length {
            128 => u128::MAX,
            host_bits => (1 << host_bits) - 1,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// The address as a number.
pub(crate) fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address of a number; the number is cut to `width` bits.
pub(crate) fn from_bits(width: u8, bits: u128) -> IpAddr {
    if width == 32 {
        let low = u32::try_from(bits & u128::from(u32::MAX)).expect("cut to 32 bits");
        IpAddr::V4(Ipv4Addr::from_bits(low))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(bits))
    }
}

/// The address `offset` (-1 or 1) away from `address`, around the ends of its family.
pub(crate) fn neighbour(address: IpAddr, up: bool) -> IpAddr {
    let (width, bits) = (if address.is_ipv4() { 32 } else { 128 }, bits_of(address));
    from_bits(width, if up { bits.wrapping_add(1) } else { bits.wrapping_sub(1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix::new(address.parse().unwrap(), length.parse().unwrap())
    }

    #[test]
    fn a_prefix_contains_its_first_and_last_address_and_not_their_neighbours() {
        for text in
            ["1.2.3.0/24", "1.2.3.77/24", "10.0.0.0/8", "1.2.3.4/32", "2001:db8::/32", "2001:db8::1/128", "fe80::/10"]
        {
            let prefix = prefix(text);
            assert!(prefix.contains(prefix.first()) && prefix.contains(prefix.last()), "{text}");
            assert!(!prefix.contains(neighbour(prefix.first(), false)), "{text}");
            assert!(!prefix.contains(neighbour(prefix.last(), true)), "{text}");
        }
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address_inside_it() {
        let mapped = "::ffff:1.2.3.4".parse().unwrap();
        assert!(prefix("1.2.3.0/24").contains(mapped) && prefix("::ffff:1.2.3.0/120").contains(mapped));
        assert!(prefix("::ffff:1.2.3.0/120").contains("1.2.3.4".parse().unwrap()));
        assert!(!prefix("::/0").contains(mapped) && !prefix("::ffff:1.2.4.0/120").contains(mapped));
    }

    #[test]
    fn the_empty_prefix_contains_its_family_and_nothing_of_the_other() {
        let (v4, v6) = (prefix("0.0.0.0/0"), prefix("::/0"));
        for address in ["0.0.0.0", "255.255.255.255", "1.2.3.4"] {
            let address = address.parse().unwrap();
            assert!(v4.contains(address) && !v6.contains(address));
        }
        for address in ["::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            let address = address.parse().unwrap();
            assert!(v6.contains(address) && !v4.contains(address));
        }
    }
}
