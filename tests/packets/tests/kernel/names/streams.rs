//! DNS over TCP: messages are found where the stream says that they begin, and nowhere else.

use std::net::IpAddr;

use egress_common::dns::Outcome;
use egress_packets::{Expect, Frame, Hooks, Lab, Pooled, is_root, tcp_flag};

use super::message::Message;
use super::{DEFAULT, EXACT, FAMILIES, Family, INTERNAL, POLICY, check, deliver};

/// Where the resolver's numbers begin: they wrap in the middle of what is sent.
const START: u32 = u32::MAX - 40;

/// A connection of the pod to the resolver.
struct Stream<'a> {
    family: &'a Family,
    port: u16,
    /// The resolver's next number.
    next: u32,
}

impl<'a> Stream<'a> {
    /// The handshake is seen.
    fn open(lab: &mut Pooled, family: &'a Family, port: u16) -> Self {
        let shake = Frame::tcp(family.resolver(), 53, tcp_flag::SYN | tcp_flag::ACK).from_port(port);
        deliver(lab, &shake.sequence(START).turned());
        Self { family, port, next: START.wrapping_add(1) }
    }

    /// The pod sends a segment.
    fn ask(&self, lab: &mut Pooled, bytes: &[u8]) {
        let frame = Frame::tcp(self.family.resolver(), 53, tcp_flag::ACK).from_port(self.port).data(bytes);
        lab.check(&self.family.row("query"), Hooks::Tc, &frame.bytes(), Expect::Allow(INTERNAL));
    }

    /// The resolver sends a segment.
    fn send(&mut self, lab: &mut Pooled, bytes: &[u8]) {
        self.send_at(lab, self.next, bytes);
        self.next = self.next.wrapping_add(u32::try_from(bytes.len()).expect("short"));
    }

    fn send_at(&self, lab: &mut Pooled, sequence: u32, bytes: &[u8]) {
        let frame = Frame::tcp(self.family.resolver(), 53, tcp_flag::ACK).from_port(self.port);
        deliver(lab, &frame.sequence(sequence).turned().data(bytes));
    }
}

/// A message with its length before it (RFC 1035 §4.2.2).
fn prefixed(message: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(message.len()).expect("short").to_be_bytes().to_vec();
    bytes.extend(message);
    bytes
}

fn answer(id: u16, to: IpAddr) -> Message {
    Message { id, ..Message::new("www.foo.test").answers(&[to], 300) }
}

#[test]
fn whole_replies_are_read_and_cut_ones_are_told() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for family in FAMILIES {
        let mut stream = Stream::open(&mut lab, &family, 41_000);
        let [whole, cut, last] =
            [70, 71, 72].map(|number| (family.address(number), answer(number.into(), family.address(number))));
        for (_, message) in [&whole, &cut, &last] {
            stream.ask(&mut lab, &prefixed(&message.query()));
        }
        stream.send(&mut lab, &prefixed(&whole.1.reply()));
        check(&mut lab, &family.row("whole"), whole.0, 443, Expect::Allow(EXACT));
        let before = lab.dns(Outcome::Segmented);
        let bytes = prefixed(&cut.1.reply());
        let (head, tail) = bytes.split_at(30);
        stream.send(&mut lab, head);
        stream.send(&mut lab, tail);
        assert_eq!(lab.dns(Outcome::Segmented), before + 1, "{}", family.name);
        check(&mut lab, &family.row("cut"), cut.0, 443, Expect::Deny(DEFAULT));
        // The place is not lost by it.
        stream.send(&mut lab, &prefixed(&last.1.reply()));
        check(&mut lab, &family.row("after it"), last.0, 443, Expect::Allow(EXACT));
    }
}

#[test]
fn several_messages_in_one_segment_are_read() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for family in FAMILIES {
        let mut stream = Stream::open(&mut lab, &family, 41_001);
        let numbers = [80_u8, 81, 82, 83];
        let messages = numbers.map(|number| answer(number.into(), family.address(number)));
        // glibc asks for both families in one segment.
        let queries: Vec<u8> = messages.iter().flat_map(|message| prefixed(&message.query())).collect();
        stream.ask(&mut lab, &queries);
        let replies: Vec<u8> = messages.iter().flat_map(|message| prefixed(&message.reply())).collect();
        stream.send(&mut lab, &replies);
        for number in numbers {
            check(&mut lab, &family.row("one of four"), family.address(number), 443, Expect::Allow(EXACT));
        }
    }
}

#[test]
fn a_length_that_is_sent_by_itself_is_read_with_its_message() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for family in FAMILIES {
        let mut stream = Stream::open(&mut lab, &family, 41_002);
        for number in [90, 91] {
            let message = answer(number.into(), family.address(number));
            let (query, reply) = (prefixed(&message.query()), prefixed(&message.reply()));
            for part in [&query[..2], &query[2..]] {
                stream.ask(&mut lab, part);
            }
            for part in [&reply[..2], &reply[2..]] {
                stream.send(&mut lab, part);
            }
            check(&mut lab, &family.row("two parts"), family.address(number), 443, Expect::Allow(EXACT));
        }
    }
}

/// The attack: a pod asks for text of its own making over TCP, cut so that a segment begins with what looks like the reply to another
/// question that it also asked.
#[test]
fn what_looks_like_a_message_inside_another_one_teaches_nothing() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for family in FAMILIES {
        let mut stream = Stream::open(&mut lab, &family, 41_003);
        let forged = answer(7, family.address(99));
        stream.ask(&mut lab, &prefixed(&forged.query()));
        let inner = prefixed(&forged.reply());
        let mut text = vec![0; 200];
        text.extend(&inner);
        let outer = prefixed(&text);
        let (head, tail) = outer.split_at(outer.len() - inner.len());
        stream.send(&mut lab, head);
        stream.send(&mut lab, tail);
        check(&mut lab, &family.row("in the middle"), family.address(99), 443, Expect::Deny(DEFAULT));
        // The same bytes where a message begins are its reply: only the place was wrong.
        stream.send(&mut lab, &inner);
        check(&mut lab, &family.row("at its place"), family.address(99), 443, Expect::Allow(EXACT));
    }
}

#[test]
fn a_segment_whose_place_is_not_known_teaches_nothing() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for family in FAMILIES {
        let message = answer(8, family.address(60));
        let segment = prefixed(&message.reply());
        let before = lab.dns(Outcome::Misplaced);
        let unseen = Stream { family: &family, port: 41_004, next: 1 };
        unseen.ask(&mut lab, &prefixed(&message.query()));
        unseen.send_at(&mut lab, 1, &segment);
        let mut seen = Stream::open(&mut lab, &family, 41_005);
        seen.ask(&mut lab, &prefixed(&message.query()));
        seen.send_at(&mut lab, seen.next.wrapping_add(1), &segment);
        assert_eq!(lab.dns(Outcome::Misplaced), before + 2, "{}", family.name);
        check(&mut lab, &family.row("misplaced"), family.address(60), 443, Expect::Deny(DEFAULT));
        // What was sent before is not read again, and what comes at its place is.
        seen.send_at(&mut lab, seen.next.wrapping_sub(u32::try_from(segment.len()).expect("short")), &segment);
        check(&mut lab, &family.row("sent again"), family.address(60), 443, Expect::Deny(DEFAULT));
        seen.send(&mut lab, &segment);
        check(&mut lab, &family.row("at its place"), family.address(60), 443, Expect::Allow(EXACT));
    }
}
