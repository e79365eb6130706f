//! DNS messages written and read by hand (RFC 1035 §4), so that a test can send what no honest server would. Shares nothing with the
//! parsers under test.

use std::net::IpAddr;

/// Record types.
pub mod kind {
    /// IPv4 address.
    pub const A: u16 = 1;
    /// Canonical name.
    pub const CNAME: u16 = 5;
    /// IPv6 address.
    pub const AAAA: u16 = 28;
}

/// Bits of the second word of the header.
pub mod flag {
    /// A reply.
    pub const REPLY: u16 = 0x8000;
    /// Truncated.
    pub const TRUNCATED: u16 = 0x0200;
    /// The name does not exist.
    pub const NXDOMAIN: u16 = 3;
    /// The server failed.
    pub const SERVFAIL: u16 = 2;
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Number of the message.
    pub id: u16,
    /// The name, in lower case, without the last dot.
    pub name: String,
    /// The name as it was written, encoded.
    pub encoded: Vec<u8>,
    /// The type of record.
    pub kind: u16,
}

impl Question {
    /// A question of ours.
    pub fn new(id: u16, name: &str, kind: u16) -> Self {
        Self { id, name: name.to_ascii_lowercase(), encoded: encode(name), kind }
    }

    /// Reads a query with one question. `None` for anything else.
    pub fn read(message: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
        let (mut at, mut labels) = (12, Vec::new());
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_ascii_lowercase());
            at += length;
        }
        let one = word(2)? & flag::REPLY == 0 && word(4)? == 1;
        let encoded = message.get(12..at)?.to_vec();
        one.then_some(Self { id: word(0)?, name: labels.join("."), encoded, kind: word(at)? })
    }

    /// The query, asking for recursion.
    pub fn query(&self) -> Vec<u8> {
        let mut bytes = header(self.id, 0x0100, 0);
        self.write(&mut bytes);
        bytes
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(&self.encoded);
        bytes.extend(self.kind.to_be_bytes());
        bytes.extend([0, 1]);
    }

    /// A reply with no answer in it yet.
    pub fn reply(&self) -> Reply {
        Reply { question: self.clone(), flags: flag::REPLY | 0x0180, answers: Vec::new(), count: 0 }
    }

    /// The reply with those of the addresses that are of the type that is asked for.
    pub fn answered(&self, ttl: u32, addresses: &[IpAddr]) -> Reply {
        let wanted = if self.kind == kind::A { IpAddr::is_ipv4 } else { IpAddr::is_ipv6 };
        let fitting = addresses.iter().filter(|address| wanted(address));
        fitting.fold(self.reply(), |reply, address| reply.address(&self.name, ttl, *address))
    }
}

/// A reply, true or not.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The question that stands in it, with the id of the message.
    pub question: Question,
    flags: u16,
    answers: Vec<u8>,
    count: u16,
}

impl Reply {
    /// Sets bits of [`flag`].
    #[must_use]
    pub fn with(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
    }

    /// Adds an address of `owner`.
    #[must_use]
    pub fn address(self, owner: &str, ttl: u32, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.record(owner, kind::A, ttl, &address.octets()),
            IpAddr::V6(address) => self.record(owner, kind::AAAA, ttl, &address.octets()),
        }
    }

    /// Adds an alias.
    #[must_use]
    pub fn alias(self, owner: &str, ttl: u32, target: &str) -> Self {
        self.record(owner, kind::CNAME, ttl, &encode(target))
    }

    fn record(mut self, owner: &str, kind: u16, ttl: u32, data: &[u8]) -> Self {
        // A pointer to the question's name where it is the same, as servers write it.
        let owner = if owner.eq_ignore_ascii_case(&self.question.name) { vec![0xc0, 12] } else { encode(owner) };
        self.answers.extend(owner);
        self.answers.extend(kind.to_be_bytes());
        self.answers.extend([0, 1]);
        self.answers.extend(ttl.to_be_bytes());
        self.answers.extend(u16::try_from(data.len()).expect("a short record").to_be_bytes());
        self.answers.extend(data);
        self.count += 1;
        self
    }

    /// The message.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = header(self.question.id, self.flags, self.count);
        self.question.write(&mut bytes);
        bytes.extend(&self.answers);
        bytes
    }
}

fn header(id: u16, flags: u16, answers: u16) -> Vec<u8> {
    [id, flags, 1, answers, 0, 0].iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn encode(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> = labels
        .flat_map(|label| {
            let length = u8::try_from(label.len()).expect("a short label");
            std::iter::once(length).chain(label.bytes())
        })
        .collect();
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_that_was_written_is_read_again() {
        let question = Question::new(7, "WWW.foo.com", kind::AAAA);
        assert_eq!(Question::read(&question.query()).unwrap(), question);
        assert_eq!(question.name, "www.foo.com");
        assert_eq!(Question::read(&question.reply().bytes()), None, "a reply asks nothing");
    }

    #[test]
    fn a_reply_holds_the_addresses_of_its_type() {
        let question = Question::new(1, "foo.com", kind::A);
        let reply = question.answered(60, &["1.2.3.4".parse().unwrap(), "2001:db8::1".parse().unwrap()]).bytes();
        assert_eq!(reply[6..8], [0, 1]);
        assert_eq!(reply[reply.len() - 16..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4]);
    }
}
