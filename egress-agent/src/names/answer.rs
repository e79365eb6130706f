//! What a DNS message says about a name: the addresses at the end of its CNAME chain, or that there are none (§5.5).

use std::fmt;
use std::net::IpAddr;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// CNAMEs that are followed; resolvers follow 16 at most or fewer (BIND: 16, unbound: 11).
const MAX_CHAIN: usize = 16;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

impl Family {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub(crate) const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The type of its records.
    pub(crate) const fn record_type(self) -> RecordType {
        match self {
            Self::V4 => RecordType::A,
            Self::V6 => RecordType::AAAA,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record_type().fmt(f)
    }
}

/// An address and its TTL in seconds, as the record has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) address: IpAddr,
    pub(crate) ttl: u32,
}

/// Why there are no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absence {
    /// NXDOMAIN.
    NoName,
    /// The name has no records of this type.
    NoRecords,
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoName => "the name does not exist (NXDOMAIN)",
            Self::NoRecords => "the name has no such records",
        })
    }
}

/// A resolver's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// Addresses; `ttl` is the smallest of the chain and of them, in seconds: then the answer may be another one.
    Addresses { found: Vec<Found>, ttl: u32 },
    /// None; for so many seconds, if the resolver says (RFC 2308 §5).
    Nothing { absence: Absence, ttl: Option<u32> },
}

/// Reads the answer to the question for `name`. The message has no error but perhaps NXDOMAIN.
pub(crate) fn read(message: &Message, name: &Name, family: Family) -> Answered {
    let (end, mut ttl) = follow(message, name);
    let found: Vec<Found> = records(message, end).filter_map(|record| address(record, family)).collect();
    ttl = found.iter().map(|found| found.ttl).fold(ttl, u32::min);
    if found.is_empty() {
        let no_name = message.metadata.response_code == ResponseCode::NXDomain;
        let absence = if no_name { Absence::NoName } else { Absence::NoRecords };
        Answered::Nothing { absence, ttl: negative_ttl(message) }
    } else {
        Answered::Addresses { found, ttl }
    }
}

/// The last name of the chain that begins with `name`, and the smallest TTL on the way.
fn follow<'m>(message: &'m Message, name: &'m Name) -> (&'m Name, u32) {
    let (mut end, mut ttl) = (name, u32::MAX);
    for _ in 0..MAX_CHAIN {
        let next = records(message, end).find_map(|record| {
            let RData::CNAME(target) = &record.data else { return None };
            Some((&target.0, bounded(record.ttl)))
        });
        let Some((target, its_ttl)) = next else { break };
        (end, ttl) = (target, ttl.min(its_ttl));
    }
    (end, ttl)
}

fn records<'m>(message: &'m Message, owner: &'m Name) -> impl Iterator<Item = &'m Record> {
    message.answers.iter().filter(move |record| record.dns_class == DNSClass::IN && record.name == *owner)
}

fn address(record: &Record, family: Family) -> Option<Found> {
    let address: IpAddr = match (&record.data, family) {
        (RData::A(address), Family::V4) => address.0.into(),
        (RData::AAAA(address), Family::V6) => address.0.into(),
        _ => return None,
    };
    Some(Found { address, ttl: bounded(record.ttl) })
}

/// RFC 2181 §8: a TTL with the top bit set is zero.
const fn bounded(ttl: u32) -> u32 {
    if ttl > i32::MAX.cast_unsigned() { 0 } else { ttl }
}

fn negative_ttl(message: &Message) -> Option<u32> {
    message.authorities.iter().find_map(|record| {
        let RData::SOA(soa) = &record.data else { return None };
        Some(bounded(record.ttl).min(bounded(soa.minimum)))
    })
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use hickory_resolver::proto::op::{MessageType, OpCode};
    use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SOA};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_str(text).unwrap()
    }

    fn message(answers: &[(&str, u32, RData)]) -> Message {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        message
            .answers
            .extend(answers.iter().map(|(owner, ttl, data)| Record::from_rdata(name(owner), *ttl, data.clone())));
        message
    }

    fn a(text: &str) -> RData {
        RData::A(A(text.parse().unwrap()))
    }

    fn cname(text: &str) -> RData {
        RData::CNAME(CNAME(name(text)))
    }

    fn addresses(answered: &Answered) -> Vec<String> {
        match answered {
            Answered::Addresses { found, .. } => found.iter().map(|found| found.address.to_string()).collect(),
            Answered::Nothing { .. } => Vec::new(),
        }
    }

    #[test]
    fn the_chain_is_followed_in_any_order_and_case_and_nothing_beside_it_counts() {
        let message = message(&[
            ("c.test.", 40, a("192.0.2.1")),
            ("B.test.", 20, cname("C.test.")),
            ("other.test.", 5, a("192.0.2.66")),
            ("a.test.", 30, cname("b.test.")),
            ("c.test.", 50, a("192.0.2.2")),
            ("c.test.", 50, RData::AAAA(AAAA("2001:db8::1".parse().unwrap()))),
        ]);
        let answered = read(&message, &name("A.test."), Family::V4);
        assert_eq!(addresses(&answered), ["192.0.2.1", "192.0.2.2"]);
        assert!(matches!(answered, Answered::Addresses { ttl: 20, .. }));
        assert_eq!(addresses(&read(&message, &name("a.test."), Family::V6)), ["2001:db8::1"]);
        assert_eq!(addresses(&read(&message, &name("d.test."), Family::V4)), [""; 0]);
    }

    #[test]
    fn a_loop_of_cnames_ends_and_says_nothing() {
        let message = message(&[("a.test.", 1, cname("b.test.")), ("b.test.", 1, cname("a.test."))]);
        let nothing = Answered::Nothing { absence: Absence::NoRecords, ttl: None };
        assert_eq!(read(&message, &name("a.test."), Family::V4), nothing);
    }

    #[test]
    fn a_ttl_with_the_top_bit_is_zero() {
        let message = message(&[("a.test.", 1 << 31, a("192.0.2.1"))]);
        assert!(matches!(read(&message, &name("a.test."), Family::V4), Answered::Addresses { ttl: 0, .. }));
    }

    #[test]
    fn the_life_of_an_absence_is_the_smaller_number_of_the_soa() {
        let mut message = message(&[]);
        message.metadata.response_code = ResponseCode::NXDomain;
        let soa = SOA::new(name("ns.test."), name("root.test."), 1, 2, 3, 4, 60);
        message.authorities.push(Record::from_rdata(name("test."), 900, RData::SOA(soa)));
        let expected = Answered::Nothing { absence: Absence::NoName, ttl: Some(60) };
        assert_eq!(read(&message, &name("a.test."), Family::V4), expected);
    }
}
