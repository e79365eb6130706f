//! DNS replies: what the kernel remembers of queries, what it tells of replies, and the parser ([`parse`]) that both sides run.
//!
//! A reply counts only if it answers a query of the same endpoint: same resolver, ports, protocol, id and question (§5.2). Bounds: a
//! message of [`MAX_MESSAGE`] bytes, names of 255 bytes (RFC 1035 §2.3.4), [`MAX_ANSWERS`] addresses, [`parse::MAX_STEPS`] steps. Whatever
//! goes beyond, or cannot be read, is counted under its own [`Outcome`] and teaches nothing; the packet goes on to the pod in any case.

mod hash;
pub mod parse;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Longest message that is read, in bytes. RFC 6891 §6.2.5 recommends 4096 to requestors.
pub const MAX_MESSAGE: usize = 4096;
/// Most addresses that are learned from one reply; an A record takes 16 bytes or more.
pub const MAX_ANSWERS: usize = 256;
/// Port of DNS servers.
pub const PORT: [u8; 2] = 53_u16.to_be_bytes();
/// A reply later than this after its query is not waited for; resolvers' clients give up long before (`RES_MAXRETRANS`).
pub const QUERY_SECONDS: u64 = 30;

/// A query under way.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct QueryKey {
    /// Address of the resolver; IPv4 as `::ffff:a.b.c.d`.
    pub resolver: [u8; 16],
    /// Number of the endpoint that asked.
    pub endpoint: u32,
    /// The pod's port, network order.
    pub local_port: [u8; 2],
    /// Id of the message, network order.
    pub id: [u8; 2],
    /// IP protocol number, UDP or TCP.
    pub protocol: u32,
}
const _: () = assert!(size_of::<QueryKey>() == 28);

/// A connection of a pod to a resolver over TCP.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct StreamKey {
    /// Address of the resolver; IPv4 as `::ffff:a.b.c.d`.
    pub resolver: [u8; 16],
    /// Number of the endpoint that connected.
    pub endpoint: u32,
    /// The pod's port, network order.
    pub local_port: [u8; 2],
    /// Padding.
    pub padding: [u8; 2],
}
const _: () = assert!(size_of::<StreamKey>() == 24);

/// Where the next message of a resolver's stream begins. Known from its SYN on, so that a piece in the middle of a message, which may
/// have been made to look like one, is never read as one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Stream {
    /// TCP sequence number of its first byte.
    pub next: u32,
    /// Its length if the two bytes that tell it came already, else 0.
    pub pending: u32,
}
const _: () = assert!(size_of::<Stream>() == 8);

/// What is remembered of a query. Only queries for names that rules are about are.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Query {
    /// Hash of the question, name in lower case and type, under [`Scratch::secret`].
    pub question: u64,
    /// `CLOCK_MONOTONIC` nanoseconds when it was sent.
    pub sent: u64,
    /// [Name id](crate::names) of the question.
    pub name: u32,
    /// Padding.
    pub padding: u32,
}
const _: () = assert!(size_of::<Query>() == 24);

/// Head of a record in the ring of replies; the message follows.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Reply {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// Nanoseconds since the query.
    pub latency: u64,
    /// Address of the resolver.
    pub resolver: [u8; 16],
    /// Number of the endpoint that asked.
    pub endpoint: u32,
    /// Name id of the question.
    pub name: u32,
    /// Addresses that were stored, new and renewed ones.
    pub learned: u32,
    /// [`Outcome`] number.
    pub outcome: u8,
    /// IP protocol number, UDP or TCP.
    pub protocol: u8,
    /// Bytes of the message that follow. 0 if they could not be copied.
    pub length: u16,
}
const _: () = assert!(size_of::<Reply>() == 48);

/// An address of an answer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Answer {
    /// The address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// Its TTL in seconds as the record has it; 0 if the top bit is set (RFC 2181 §8).
    pub ttl: u32,
    /// Padding.
    pub padding: u32,
}
const _: () = assert!(size_of::<Answer>() == 24);

/// Head of what the agent hands to the `learn` program, which stores the [`Answer`]s behind it as if they had been learned.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Lesson {
    /// An Ethernet header of which nothing is used; its type is none that the kernel looks into.
    pub ethernet: [u8; 14],
    /// Padding.
    pub padding: [u8; 2],
    /// Name id.
    pub name: u32,
    /// Number of answers, at most [`Lesson::MAX_ANSWERS`].
    pub count: u32,
}
const _: () = assert!(size_of::<Lesson>() == 24);

impl Lesson {
    /// Answers in one call: the whole fits the smallest page that `BPF_PROG_TEST_RUN` gives.
    pub const MAX_ANSWERS: usize = 128;

    /// For `count` answers of a name id.
    pub const fn new(name: u32, count: u32) -> Self {
        // 0x88b5: local experimental, IEEE 802.
        Self { ethernet: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x88, 0xb5], padding: [0; 2], name, count }
    }
}

macro_rules! outcomes {
    ($($name:ident = $number:literal, $text:literal, $doc:literal;)*) => {
        /// What became of a DNS message or of an address in it. Part of the ABI; never reused.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Outcome { $(#[doc = $doc] $name = $number,)* }

        impl Outcome {
            /// Every outcome, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What the CLI, the metrics and the events print.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it means, for people.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$name => $doc,)* }
            }
        }
    };
}

outcomes! {
    Learned = 1, "learned", "A reply was read to its end and its addresses stored.";
    Queries = 2, "queries", "A query for a name that a rule is about was remembered.";
    Addresses = 3, "addresses", "An address was stored, new or renewed.";
    Negative = 4, "negative", "The reply says that the name does not exist, or that the resolver failed (an RCODE other than NOERROR).";
    Truncated = 5, "truncated", "The reply has the TC bit: the pod will ask again over TCP, and the agent does too.";
    Unasked = 6, "unasked", "A reply to no query that this pod sent to that resolver: nothing is learned.";
    WrongQuestion = 7, "wrong-question", "The id and ports fit a query, the question does not: nothing is learned.";
    Late = 8, "late", "The reply came more than 30 s after its query.";
    NotAReply = 9, "not-a-reply", "A message from the resolver's port without the QR bit, or of another kind than a standard query.";
    ManyQuestions = 10, "many-questions", "The message has another number of questions than one.";
    OtherClass = 11, "other-class", "The question's class is not IN.";
    Malformed = 12, "malformed", "The message ends in the middle of something, or its lengths contradict each other.";
    BadName = 13, "bad-name", "A name with an unknown label type, a zero byte in a label, or a pointer in the question.";
    BadPointer = 14, "bad-pointer", "A compression pointer that does not point backwards (RFC 1035 §4.1.4): forward, to itself, or out of the message.";
    NameTooLong = 15, "name-too-long", "A name of more than 255 bytes.";
    TooManySteps = 16, "too-many-steps", "More records or longer names than are read.";
    TooLong = 17, "too-long", "The message is longer than 4096 bytes.";
    Segmented = 18, "segmented", "A DNS message over TCP that does not begin and end in one segment.";
    Fragmented = 19, "fragmented", "A message in several IP fragments.";
    OtherHeaders = 20, "other-headers", "A message behind IPv6 extension headers.";
    Internal = 21, "internal-address", "An internal, loopback, link-local, multicast or unspecified address in an answer: not stored (DNS rebinding).";
    AddressesFull = 22, "addresses-full", "The map of addresses is full: not stored.";
    Evicted = 23, "evicted", "An address has more names than fit; the one that would have ended first gave way.";
    QueriesFailed = 24, "queries-failed", "A query could not be remembered.";
    EventsLost = 25, "events-lost", "The ring of replies was full: the agent did not see one.";
    Misplaced = 26, "misplaced", "A piece of a TCP stream of which it is not known where in it a message begins: nothing is learned.";
    AskedInside = 27, "asked-inside", "A query of a pod without an interface on the host's side, where a reply may be the pod's own: the agent asks for the name itself.";
}

impl Outcome {
    /// Length of an array indexed by number.
    pub const COUNT: u32 = 28;

    /// The outcome of a number in an event or counter.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|outcome| *outcome as u8 == number)
    }
}

/// Bytes of the buffer in which a name's key is built, backwards.
pub const KEY_BUFFER: usize = KEY_END + crate::names::KEY_BYTES + 8;
/// Where the key ends in its buffer.
pub const KEY_END: usize = 512;

/// A slot that is to be written, and what stood in it. In memory, so that the verifier does not follow every slot by itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Choice {
    /// [`Slot`](crate::names::Slot) bits.
    pub found: u64,
    /// Number of the slot.
    pub index: u32,
    /// When it ends.
    pub ends: u32,
}

/// The parser's memory: too large for a program's stack. Whoever runs the parser owns one.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Scratch {
    /// Head of the record for the ring, directly before the message.
    pub reply: Reply,
    /// The message; what lies behind its end is never used.
    pub message: [u8; MAX_MESSAGE + 16],
    /// Where the parser stands.
    pub state: parse::State,
    /// The addresses that were found.
    pub answers: [Answer; MAX_ANSWERS],
    /// What a new address begins with: one slot.
    pub fresh: crate::names::AddressNames,
    /// Key of the hash of names, [`Config::secret`](crate::abi::Config::secret): a pod that could find two names of one hash could
    /// have the answers of its own name learned for another one.
    pub secret: [u64; 2],
    /// The slot that is to be written at a known address.
    pub choice: Choice,
    /// What is being stored; its count is of what was.
    pub lesson: Lesson,
    /// The question's key; see [`NameKey`](crate::names::NameKey).
    pub key: [u8; KEY_BUFFER],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_distinct_and_below_the_count() {
        for (index, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, index + 1);
            assert!(u32::from(*outcome as u8) < Outcome::COUNT);
            assert_eq!(Outcome::from_number(*outcome as u8), Some(*outcome));
        }
    }

    #[test]
    fn the_scratch_fits_a_per_cpu_value() {
        // PCPU_MIN_UNIT_SIZE of Linux.
        assert!(size_of::<Scratch>() <= 32 << 10);
    }
}
