//! Destinations as people write them: `ADDRESS[:PORT][/PROTOCOL]`, an IPv6 address with a port in brackets.
//!
//! Without a protocol TCP is meant; without a port every port is. For ICMP the port is the ICMP type. Read from command lines and
//! from files of cases; written in every answer. Where names are possible too, see [`Asked`].

mod named;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use egress_common::packet::protocol;
use egress_policy::ports::{KeyRange, has_ports, protocol_name};
use serde::{Serialize, Serializer};

pub(crate) use self::named::{Asked, NamedDestination};

/// Where a connection would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    /// IPv4-mapped IPv6 addresses are IPv4.
    pub(crate) address: IpAddr,
    pub(crate) protocol: u8,
    /// None: every port, or a protocol without ports.
    pub(crate) port: Option<u16>,
}

/// Why a text is no destination.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DestinationError {
    #[error(
        "{0:?} is a prefix; a destination is one address, such as 1.2.3.4:443/TCP, so choose an address inside the prefix"
    )]
    Prefix(String),
    #[error(
        "{0:?} is not an address; names are not resolved here, so write an address such as 1.2.3.4:443/TCP or [2001:db8::1]:443/TCP"
    )]
    Address(String),
    #[error(
        "{0:?} is neither an address nor a name; write one such as 1.2.3.4:443/TCP, [2001:db8::1]:443/TCP or www.example.com:443/TCP"
    )]
    Place(String),
    #[error("{0:?} is not a port; write a number from 1 to 65535")]
    Port(String),
    #[error("{0:?} is not an ICMP type; write a number from 0 to 255 where the port would stand, or nothing for any")]
    IcmpType(String),
    #[error("{0:?} is not a protocol; write TCP, UDP, SCTP, ICMP, ICMPv6, IGMP, GRE, ESP, or proto-N for a number N")]
    Protocol(String),
    #[error("{0} has no ports; leave the port out")]
    Portless(String),
    #[error("{0} does not exist in IPv{1}; write {2}")]
    Family(&'static str, u8, &'static str),
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let (place, protocol) = protocol_and_rest(text)?;
        let (address, port) = split(place)?;
        let address = address.to_canonical();
        match (protocol, address) {
            (protocol::ICMP, IpAddr::V6(_)) => return Err(DestinationError::Family("ICMP", 6, "ICMPv6")),
            (protocol::ICMPV6, IpAddr::V4(_)) => return Err(DestinationError::Family("ICMPv6", 4, "ICMP")),
            _ => {}
        }
        let port = port.map(|port| port_number(port, protocol)).transpose()?;
        Ok(Self { address, protocol, port })
    }
}

/// Takes the protocol off the end.
fn protocol_and_rest(text: &str) -> Result<(&str, u8), DestinationError> {
    match text.rsplit_once('/') {
        Some((_, length)) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(DestinationError::Prefix(text.to_owned()))
        }
        Some((place, name)) => Ok((place, protocol_number(name)?)),
        None => Ok((text, protocol::TCP)),
    }
}

/// Takes the address and the port apart. An IPv6 address without brackets has no port.
fn split(place: &str) -> Result<(IpAddr, Option<&str>), DestinationError> {
    let wrong = || DestinationError::Address(place.to_owned());
    if let Ok(address) = place.parse() {
        return Ok((address, None));
    }
    if let Some((address, rest)) = place.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        let address: Ipv6Addr = address.parse().map_err(|_| wrong())?;
        let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(wrong)?) };
        return Ok((address.into(), port));
    }
    let (address, port) = place.split_once(':').ok_or_else(wrong)?;
    let address: std::net::Ipv4Addr = address.parse().map_err(|_| wrong())?;
    Ok((address.into(), Some(port)))
}

fn port_number(text: &str, number: u8) -> Result<u16, DestinationError> {
    if is_icmp(number) {
        return text.parse::<u8>().map(u16::from).map_err(|_| DestinationError::IcmpType(text.to_owned()));
    }
    if !has_ports(number) {
        return Err(DestinationError::Portless(protocol_name(number)));
    }
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| DestinationError::Port(text.to_owned()))
}

fn protocol_number(name: &str) -> Result<u8, DestinationError> {
    const NAMES: [(&str, u8); 8] = [
        ("TCP", protocol::TCP),
        ("UDP", protocol::UDP),
        ("SCTP", protocol::SCTP),
        ("ICMP", protocol::ICMP),
        ("ICMPv6", protocol::ICMPV6),
        ("IGMP", 2),
        ("GRE", 47),
        ("ESP", 50),
    ];
    let known = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, number)| *number);
    let number = || name.to_ascii_lowercase().strip_prefix("proto-")?.parse().ok();
    known.or_else(number).ok_or_else(|| DestinationError::Protocol(name.to_owned()))
}

const fn is_icmp(number: u8) -> bool {
    matches!(number, protocol::ICMP | protocol::ICMPV6)
}

impl Destination {
    /// The (protocol, port) pairs that are meant, as keys of a class.
    pub(crate) fn keys(self) -> KeyRange {
        match self.port {
            Some(port) => KeyRange::ports(self.protocol, port, port),
            None if has_ports(self.protocol) => KeyRange::protocol(self.protocol),
            None => KeyRange::ports(self.protocol, 0, 0),
        }
    }
}

/// Reads back as itself: `1.2.3.4:443/TCP`, `[2001:db8::1]:443/UDP`, `2001:db8::1/TCP`.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.port) {
            (IpAddr::V6(address), Some(port)) => write!(f, "[{address}]:{port}")?,
            (IpAddr::V4(address), Some(port)) => write!(f, "{address}:{port}")?,
            (address, None) => write!(f, "{address}")?,
        }
        write_protocol(self.protocol, f)
    }
}

/// `/TCP`, `/proto-99`.
fn write_protocol(number: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match protocol_name(number) {
        name if name.contains(' ') => write!(f, "/proto-{number}"),
        name => write!(f, "/{name}"),
    }
}

impl Serialize for Destination {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Destination, DestinationError> {
        text.parse()
    }

    #[test]
    fn destinations_are_written_as_they_are_read() {
        for (text, written) in [
            ("1.2.3.4", "1.2.3.4/TCP"),
            ("1.2.3.4:443", "1.2.3.4:443/TCP"),
            ("1.2.3.4:53/udp", "1.2.3.4:53/UDP"),
            ("1.2.3.4/icmp", "1.2.3.4/ICMP"),
            ("1.2.3.4:8/ICMP", "1.2.3.4:8/ICMP"),
            ("2001:db8::1", "2001:db8::1/TCP"),
            ("[2001:db8::1]", "2001:db8::1/TCP"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443/TCP"),
            ("[2001:db8::1]:443/SCTP", "[2001:db8::1]:443/SCTP"),
            ("2001:db8::1/ICMPV6", "2001:db8::1/ICMPv6"),
            ("::ffff:1.2.3.4", "1.2.3.4/TCP"),
            ("1.2.3.4/gre", "1.2.3.4/GRE"),
            ("1.2.3.4/proto-99", "1.2.3.4/proto-99"),
        ] {
            let destination = read(text).unwrap();
            assert_eq!(destination.to_string(), written, "{text}");
            assert_eq!(read(written).unwrap(), destination, "{written}");
        }
    }

    #[test]
    fn what_is_no_destination_is_told_what_to_write() {
        for (text, said) in [
            ("1.2.3.0/24", "is a prefix"),
            ("2001:db8::/32", "is a prefix"),
            ("www.foo.com:443", "names are not resolved here"),
            ("2001:db8::1]:443", "is not an address"),
            ("[1.2.3.4]:443", "is not an address"),
            ("1.2.3.4:0", "from 1 to 65535"),
            ("1.2.3.4:65536", "from 1 to 65535"),
            ("1.2.3.4:443/HTTP", "is not a protocol"),
            ("1.2.3.4:443/GRE", "has no ports"),
            ("1.2.3.4:256/ICMP", "is not an ICMP type"),
            ("2001:db8::1/ICMP", "write ICMPv6"),
            ("1.2.3.4/ICMPv6", "write ICMP"),
            ("", "is not an address"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
