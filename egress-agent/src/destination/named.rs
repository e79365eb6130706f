//! Destinations by name: `NAME[:PORT][/PROTOCOL]`. Which addresses that means is for the caller to know; nothing is resolved here.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use egress_common::packet::protocol;
use egress_policy::name::{NamePattern, Wildcard};
use serde::{Serialize, Serializer};

use super::{Destination, DestinationError, port_number, protocol_and_rest, write_protocol};

/// What a connection asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// An address.
    Address(Destination),
    /// A name.
    Name(NamedDestination),
}

/// A name in the place of the address of a [`Destination`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedDestination {
    /// Lower-case A-labels, without a trailing dot.
    pub(crate) name: String,
    pub(crate) protocol: u8,
    pub(crate) port: Option<u16>,
}

impl FromStr for Asked {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        match text.parse() {
            Ok(destination) => Ok(Self::Address(destination)),
            Err(DestinationError::Address(_)) => named(text).map(Self::Name),
            Err(error) => Err(error),
        }
    }
}

fn named(text: &str) -> Result<NamedDestination, DestinationError> {
    let (place, protocol) = protocol_and_rest(text)?;
    let (name, port) = match place.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (place, None),
    };
    let pattern = NamePattern::parse(name).ok().filter(|pattern| pattern.wildcard == Wildcard::Exact);
    let name = pattern.ok_or_else(|| DestinationError::Place(place.to_owned()))?.name;
    let port = port.map(|port| port_number(port, protocol)).transpose()?;
    Ok(NamedDestination { name, protocol, port })
}

impl NamedDestination {
    /// The destination at one address of the name; `None` if its family does not have the protocol.
    pub(crate) fn at(&self, address: IpAddr) -> Option<Destination> {
        let address = address.to_canonical();
        let exists = match self.protocol {
            protocol::ICMP => address.is_ipv4(),
            protocol::ICMPV6 => address.is_ipv6(),
            _ => true,
        };
        exists.then_some(Destination { address, protocol: self.protocol, port: self.port })
    }
}

/// Reads back as itself: `www.foo.com:443/TCP`.
impl fmt::Display for NamedDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write_protocol(self.protocol, f)
    }
}

impl Serialize for NamedDestination {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_they_are_read_and_addresses_stay_addresses() {
        for (text, written) in [
            ("WWW.foo.com.", "www.foo.com/TCP"),
            ("www.foo.com:443", "www.foo.com:443/TCP"),
            ("bücher.example:53/udp", "xn--bcher-kva.example:53/UDP"),
            ("foo.com/icmpv6", "foo.com/ICMPv6"),
            ("foo.com/proto-99", "foo.com/proto-99"),
        ] {
            let Ok(Asked::Name(named)) = text.parse() else { panic!("{text} is a name") };
            assert_eq!(named.to_string(), written, "{text}");
            assert_eq!(written.parse(), Ok(Asked::Name(named)), "{written}");
        }
        for text in ["1.2.3.4:443", "[2001:db8::1]:443", "2001:db8::1"] {
            assert!(matches!(text.parse(), Ok(Asked::Address(_))), "{text}");
        }
    }

    #[test]
    fn what_is_neither_is_told_what_to_write() {
        for (text, said) in [
            ("*.foo.com:443", "neither an address nor a name"),
            ("foo..com", "neither an address nor a name"),
            ("", "neither an address nor a name"),
            ("foo.com:0", "from 1 to 65535"),
            ("foo.com:443/HTTP", "is not a protocol"),
            ("1.2.3.0/24", "is a prefix"),
        ] {
            let error = text.parse::<Asked>().unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn a_protocol_of_one_family_is_for_the_addresses_of_that_family() {
        let at = |text: &str, address: &str| {
            let Ok(Asked::Name(named)) = text.parse() else { panic!("{text} is a name") };
            named.at(address.parse().unwrap()).map(|destination| destination.to_string())
        };
        assert_eq!(at("foo.com:443", "2001:db8::1").as_deref(), Some("[2001:db8::1]:443/TCP"));
        assert_eq!(at("foo.com:443", "::ffff:1.2.3.4").as_deref(), Some("1.2.3.4:443/TCP"));
        assert_eq!(at("foo.com/ICMP", "2001:db8::1"), None);
        assert_eq!(at("foo.com/ICMPv6", "1.2.3.4"), None);
    }
}
