//! What the agent reads out of the replies that the kernel hands it.

use std::str::FromStr as _;

use egress_policy::name::NamePattern;
use hickory_resolver::proto::op::{MessageType, OpCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_resolver::proto::rr::{RData, Record};
use zerocopy::IntoBytes as _;

use crate::names::lifetime::Lifetimes;
use crate::names::registry::{Limits, Registry};

use super::*;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn directory() -> Shared {
    let mut registry = Registry::new(Limits::default());
    let patterns = ["a.com", "*.foo.com"].map(|text| NamePattern::parse(text).unwrap());
    registry.update(&patterns.iter().collect(), Lifetimes::default(), at(0));
    Shared::new(registry)
}

fn message(question: &str, kind: RecordType, answers: &[(&str, RData)]) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.queries.push(Query::query(Name::from_str(question).unwrap(), kind));
    let record = |(owner, data): &(&str, RData)| Record::from_rdata(Name::from_str(owner).unwrap(), 60, data.clone());
    message.answers.extend(answers.iter().map(record));
    message.to_vec().unwrap()
}

fn record(outcome: Outcome, id: u32, message: &[u8]) -> Vec<u8> {
    let reply = Reply {
        time: 5_000_000_000,
        latency: 1_500_000,
        resolver: [0; 16],
        endpoint: 1,
        name: id,
        learned: 0,
        outcome: outcome as u8,
        protocol: 17,
        length: u16::try_from(message.len()).unwrap(),
    };
    [reply.as_bytes(), message].concat()
}

fn a(text: &str) -> RData {
    RData::A(A(text.parse().unwrap()))
}

#[test]
fn a_reply_gives_its_question_the_addresses_at_the_end_of_the_chain() {
    let shared = directory();
    let mut directory = shared.lock();
    let id = directory.registry.id_of("x.foo.com").unwrap();
    let cname = RData::CNAME(CNAME(Name::from_str("cdn.test.").unwrap()));
    let v4 = message("X.foo.COM.", RecordType::A, &[("x.Foo.com.", cname.clone()), ("cdn.test.", a("192.0.2.1"))]);
    let v6 = RData::AAAA(AAAA("2001:db8::1".parse().unwrap()));
    let v6 = message("X.foo.COM.", RecordType::AAAA, &[("x.Foo.com.", cname), ("cdn.test.", v6)]);
    assert_eq!(take(&mut directory, &record(Outcome::Learned, id, &v4)), []);
    assert_eq!(take(&mut directory, &record(Outcome::Learned, id, &v6)), []);

    let name = directory.known.name("x.foo.com").unwrap();
    let ends: Vec<_> = name.live(at(0)).map(|(address, held)| (address.to_string(), held.end, held.learned)).collect();
    // From the time of the reply: 60 s and the grace.
    assert_eq!(ends, [("192.0.2.1".to_owned(), at(95), true), ("2001:db8::1".to_owned(), at(95), true)]);
    assert!(directory.known.name("cdn.test").is_none());
    assert_eq!(directory.name_of("192.0.2.1".parse().unwrap(), id).as_deref(), Some("x.foo.com"));
    // An address that nobody remembers is called by the pattern.
    assert_eq!(directory.name_of("192.0.2.9".parse().unwrap(), id).as_deref(), Some("*.foo.com"));
    assert_eq!(directory.figures.replies["learned"], 2);
}

#[test]
fn what_the_kernel_could_not_read_whole_is_asked_for() {
    let shared = directory();
    let mut directory = shared.lock();
    let job = |name: &str, family| Job { name: name.into(), family };
    let truncated = record(Outcome::Truncated, 1, &message("a.com.", RecordType::A, &[]));
    assert_eq!(take(&mut directory, &truncated), [job("a.com", Family::V4)]);
    // The first segment of a long message: the answers break off.
    let answers: Vec<(&str, RData)> = (0..50).map(|last| ("y.foo.com.", a(&format!("192.0.2.{last}")))).collect();
    let whole = message("Y.foo.com.", RecordType::AAAA, &answers);
    let segmented = record(Outcome::Segmented, 1, &whole[..100]);
    assert_eq!(take(&mut directory, &segmented), [job("y.foo.com", Family::V6)]);
    // A query: of a pod whose replies may be its own.
    let inside = record(Outcome::AskedInside, 1, &message("a.com.", RecordType::AAAA, &[]));
    assert_eq!(take(&mut directory, &inside), [job("a.com", Family::V6)]);
    let https = record(Outcome::Segmented, 1, &message("a.com.", RecordType::HTTPS, &[]));
    assert_eq!(take(&mut directory, &https), [job("a.com", Family::V4), job("a.com", Family::V6)]);
    assert_eq!(directory.figures.unreadable, 0);
}

#[test]
fn a_name_that_no_rule_is_about_is_not_asked_for() {
    let shared = directory();
    let mut directory = shared.lock();
    for name in ["b.com.", "x.y.foo.com.", "foo.com.", "."] {
        let truncated = record(Outcome::Truncated, 1, &message(name, RecordType::A, &[]));
        assert_eq!(take(&mut directory, &truncated), [], "{name}");
    }
}

#[test]
fn other_outcomes_teach_nothing() {
    let shared = directory();
    let mut directory = shared.lock();
    let reply = message("a.com.", RecordType::A, &[("a.com.", a("192.0.2.1"))]);
    let meaning = [Outcome::Learned, Outcome::Truncated, Outcome::Segmented, Outcome::AskedInside];
    for outcome in Outcome::ALL.iter().filter(|outcome| !meaning.contains(outcome)) {
        assert_eq!(take(&mut directory, &record(*outcome, 1, &reply)), []);
    }
    assert_eq!(directory.known.iter().count(), 0);
    take(&mut directory, &record(Outcome::Learned, 1, &reply));
    assert_eq!(directory.known.iter().count(), 1);
}

#[test]
fn internal_addresses_are_not_remembered_as_the_kernel_does_not_store_them() {
    let shared = directory();
    let mut directory = shared.lock();
    directory.bounds.internal = Some(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
    let reply = message("a.com.", RecordType::A, &[("a.com.", a("10.1.2.3")), ("a.com.", a("192.0.2.1"))]);
    take(&mut directory, &record(Outcome::Learned, 1, &reply));
    let held: Vec<String> = directory.known.name("a.com").unwrap().addresses.keys().map(ToString::to_string).collect();
    assert_eq!((held, directory.figures.internal), (vec!["192.0.2.1".to_owned()], 1));
}

#[test]
fn broken_records_are_counted() {
    let shared = directory();
    let mut directory = shared.lock();
    let reply = message("a.com.", RecordType::A, &[("a.com.", a("192.0.2.1"))]);
    let short = &record(Outcome::Learned, 1, &reply)[..40];
    let cut = record(Outcome::Learned, 1, &reply[..reply.len() - 1]);
    for broken in [short, &cut, &record(Outcome::Truncated, 1, &reply[..5]), &record(Outcome::Learned, 1, b"nonsense")]
    {
        assert_eq!(take(&mut directory, broken), []);
    }
    assert_eq!(directory.figures.unreadable, 4);
    // The message was not copied: nothing is wrong with that.
    take(&mut directory, &record(Outcome::Learned, 1, b""));
    assert_eq!(directory.figures.unreadable, 4);
}
