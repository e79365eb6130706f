//! Sets of (protocol, port) pairs, as sorted intervals of [`class::key`] (§3.4, §3.5).
//!
//! Invariant of [`Ports::Listed`]: not empty, sorted, and between two intervals there is a gap.

use std::fmt;
use std::sync::Arc;

use egress_common::class;
use egress_common::packet::protocol;

/// The last key there is: protocol 255, port 65535.
pub const LAST_KEY: u32 = (1 << 24) - 1;

/// A closed interval of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyRange {
    /// First key.
    pub first: u32,
    /// Last key, not below `first`.
    pub last: u32,
}

impl KeyRange {
    /// Every protocol and port.
    pub const ALL: Self = Self { first: 0, last: LAST_KEY };

    /// Every port of `protocol`.
    pub const fn protocol(protocol: u8) -> Self {
        Self::ports(protocol, 0, u16::MAX)
    }

    /// The ports `first..=last` of `protocol`; for ICMP and ICMPv6 the types.
    pub const fn ports(protocol: u8, first: u16, last: u16) -> Self {
        Self { first: class::key(protocol, first), last: class::key(protocol, last) }
    }

    /// Whether `key` lies in the interval.
    pub const fn contains(self, key: u32) -> bool {
        self.first <= key && key <= self.last
    }
}

/// The protocols and ports that a rule matches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ports {
    /// Every protocol and port.
    Any,
    /// These and no others.
    Listed(Arc<[KeyRange]>),
}

impl Ports {
    /// The union of `ranges`; [`Ports::Any`] if they cover everything.
    pub fn new(mut ranges: Vec<KeyRange>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<KeyRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.first <= last.last.saturating_add(1) => last.last = last.last.max(range.last),
                _ => merged.push(range),
            }
        }
        if merged.first() == Some(&KeyRange::ALL) { Self::Any } else { Self::Listed(merged.into()) }
    }

    /// The intervals.
    pub fn ranges(&self) -> &[KeyRange] {
        const ALL: &[KeyRange] = &[KeyRange::ALL];
        match self {
            Self::Any => ALL,
            Self::Listed(ranges) => ranges,
        }
    }

    /// For sentences: "every protocol" or the intervals.
    pub fn words(&self) -> String {
        match self {
            Self::Any => "every protocol".to_owned(),
            Self::Listed(_) => self.to_string(),
        }
    }

    /// Whether the pair with this key is in the set.
    pub fn contains(&self, key: u32) -> bool {
        self.ranges().iter().any(|range| range.contains(key))
    }
}

/// The name of an IP protocol, where people use one, or its number.
pub fn protocol_name(number: u8) -> String {
    match number {
        protocol::ICMP => "ICMP".to_owned(),
        2 => "IGMP".to_owned(),
        protocol::TCP => "TCP".to_owned(),
        protocol::UDP => "UDP".to_owned(),
        47 => "GRE".to_owned(),
        50 => "ESP".to_owned(),
        protocol::ICMPV6 => "ICMPv6".to_owned(),
        protocol::SCTP => "SCTP".to_owned(),
        number => format!("protocol {number}"),
    }
}

/// Whether the key of `protocol` carries a port or an ICMP type; otherwise it is 0.
pub const fn has_ports(number: u8) -> bool {
    matches!(number, protocol::ICMP | protocol::TCP | protocol::UDP | protocol::ICMPV6 | protocol::SCTP)
}

/// `TCP`, `TCP/443`, `UDP/1000-2000`, `any protocol`.
impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first_protocol, last_protocol) = (protocol_of(self.first), protocol_of(self.last));
        let (first, last) = (self.first & 0xffff, self.last & 0xffff);
        if *self == Self::ALL {
            return f.write_str("any protocol");
        }
        if first_protocol != last_protocol {
            let end = |protocol: u8, port: u32, whole: u32| {
                let name = protocol_name(protocol);
                if port == whole { name } else { format!("{name}/{port}") }
            };
            return write!(f, "{} to {}", end(first_protocol, first, 0), end(last_protocol, last, 0xffff));
        }
        f.write_str(&protocol_name(first_protocol))?;
        match (first, last) {
            (0, 0xffff) => Ok(()),
            _ if !has_ports(first_protocol) && first == 0 => Ok(()),
            _ if first == last => write!(f, "/{first}"),
            _ => write!(f, "/{first}-{last}"),
        }
    }
}

/// Nothing for [`Ports::Any`], otherwise the intervals with commas between.
impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Listed(ranges) => {
                let texts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join(","))
            }
        }
    }
}

/// The protocol number in a key.
pub fn protocol_of(key: u32) -> u8 {
    u8::try_from(key >> 16 & 0xff).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_and_touching_ranges_become_one() {
        let ports = Ports::new(vec![
            KeyRange::ports(6, 90, 95),
            KeyRange::ports(6, 80, 85),
            KeyRange::ports(6, 84, 89),
            KeyRange::ports(17, 53, 53),
        ]);
        assert_eq!(ports.ranges(), [KeyRange::ports(6, 80, 95), KeyRange::ports(17, 53, 53)]);
        assert_eq!(ports.to_string(), "TCP/80-95,UDP/53");
    }

    #[test]
    fn a_range_of_everything_is_any() {
        assert_eq!(Ports::new(vec![KeyRange::ports(6, 1, 2), KeyRange::ALL]), Ports::Any);
    }

    #[test]
    fn every_port_of_a_protocol_is_written_as_the_protocol() {
        assert_eq!(Ports::new(vec![KeyRange::protocol(58)]).to_string(), "ICMPv6");
        assert_eq!(KeyRange { first: 0, last: class::key(6, 79) }.to_string(), "protocol 0 to TCP/79");
    }
}
