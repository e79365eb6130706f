//! Which replies teach anything (§5.2, §5.5, §5.6): every other one passes untouched, is counted under its own reason, and teaches nothing.

use std::net::IpAddr;

use egress_common::dns::Outcome;
use egress_common::event::Hook;
use egress_common::reason::DropReason;
use egress_packets::{Expect, Extension, Frame, Hooks, Lab, Pooled, Transport, is_root};

use super::message::{Message, wire};
use super::{DEFAULT, EXACT, FAMILIES, Family, INTERNAL, POLICY, ask, check, deliver, look_up, reply};

/// Delivers something else in place of the right reply, and insists that nothing was learned, and why.
fn poison(lab: &mut Pooled, family: &Family, row: &str, why: Outcome, change: impl FnOnce(&Family, &Message) -> Frame) {
    let to = family.address(99);
    let message = Message::new("www.foo.test").answers(&[to], 300);
    lab.forget();
    ask(lab, family, &message, 40_000);
    let before = lab.dns(why);
    deliver(lab, &change(family, &message));
    assert_eq!(lab.dns(why), before + 1, "{}", family.row(row));
    check(lab, &family.row(row), to, 443, Expect::Deny(DEFAULT));
}

fn answer(family: &Family, message: &Message) -> Frame {
    Frame::udp(family.resolver(), 53).from_port(40_000).turned().data(&message.reply())
}

#[test]
fn a_reply_that_answers_no_query_of_the_pod_teaches_nothing() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for family in FAMILIES {
        let lab = &mut lab;
        poison(lab, &family, "wrong id", Outcome::Unasked, |family, message| {
            answer(family, &Message { id: 0x1235, ..message.clone() })
        });
        poison(lab, &family, "another port", Outcome::Unasked, |family, message| {
            Frame::udp(family.resolver(), 53).from_port(40_001).turned().data(&message.reply())
        });
        poison(lab, &family, "wrong question", Outcome::WrongQuestion, |family, message| {
            answer(family, &Message { name: wire("www.fop.test"), ..message.clone() })
        });
        poison(lab, &family, "another class", Outcome::OtherClass, |family, message| {
            answer(family, &Message { class: 3, ..message.clone() })
        });
        poison(lab, &family, "two questions", Outcome::ManyQuestions, |family, message| {
            answer(family, &Message { questions: 2, ..message.clone() })
        });
        poison(lab, &family, "truncated", Outcome::Truncated, |family, message| {
            answer(family, &Message { flags: 0x8380, ..message.clone() })
        });
        poison(lab, &family, "no such name", Outcome::Negative, |family, message| {
            answer(family, &Message { flags: 0x8183, ..message.clone() })
        });
        poison(lab, &family, "a query", Outcome::NotAReply, |family, message| {
            answer(family, &Message { flags: 0x0100, ..message.clone() })
        });
        poison(lab, &family, "cut short", Outcome::Malformed, |family, message| {
            let bytes = message.reply();
            Frame::udp(family.resolver(), 53).from_port(40_000).turned().data(&bytes[..bytes.len() - 1])
        });
        poison(lab, &family, "a pointer to itself", Outcome::BadPointer, |family, message| {
            let at = u8::try_from(12 + message.name.len() + 4).expect("short");
            answer(family, &Message::new("www.foo.test").record(&[0xc0, at], 1, 300, &[1, 2, 3, 99]))
        });
    }
}

#[test]
fn a_reply_from_another_address_is_not_even_looked_at() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for family in FAMILIES {
        let to = family.address(98);
        let message = Message::new("www.foo.test").answers(&[to], 300);
        ask(&mut lab, &family, &message, 40_000);
        deliver(&mut lab, &answer(&family, &message).from(family.address(53)));
        check(&mut lab, &family.row("another source"), to, 443, Expect::Deny(DEFAULT));
        reply(&mut lab, &family, &message.reply(), 40_000);
        check(&mut lab, &family.row("the right one"), to, 443, Expect::Allow(EXACT));
    }
}

#[test]
fn only_the_first_reply_counts() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for family in FAMILIES {
        look_up(&mut lab, &family, "www.foo.test", &[family.address(1)]);
        let second = Message::new("www.foo.test").answers(&[family.address(2)], 300);
        reply(&mut lab, &family, &second.reply(), 40_000);
        check(&mut lab, &family.row("first"), family.address(1), 443, Expect::Allow(EXACT));
        check(&mut lab, &family.row("second"), family.address(2), 443, Expect::Deny(DEFAULT));
    }
}

#[test]
fn addresses_belong_to_the_end_of_the_chain_of_the_question() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for family in FAMILIES {
        let record = |message: Message, owner: &[u8], to: IpAddr| match to {
            IpAddr::V4(to) => message.record(owner, 1, 300, &to.octets()),
            IpAddr::V6(to) => message.record(owner, 28, 300, &to.octets()),
        };
        let message = Message::new("www.foo.test").record(&[0xc0, 12], 5, 300, &wire("Edge.cdn.test"));
        let message = record(message, &wire("edge.CDN.test"), family.address(1));
        let message = record(message, &wire("other.test"), family.address(2));
        ask(&mut lab, &family, &message, 40_000);
        reply(&mut lab, &family, &message.reply(), 40_000);
        check(&mut lab, &family.row("on the chain"), family.address(1), 443, Expect::Allow(EXACT));
        check(&mut lab, &family.row("off the chain"), family.address(2), 443, Expect::Deny(DEFAULT));
    }
}

#[test]
fn internal_and_special_addresses_are_not_learned() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let family = &FAMILIES[0];
    let inside: Vec<IpAddr> = [
        "10.1.2.3",
        "127.0.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "0.0.0.0",
        "::1",
        "fe80::1",
        "ff02::1",
        "::",
        "fd00::1",
        "::ffff:169.254.169.254",
    ]
    .map(|text| text.parse().expect("an address"))
    .to_vec();
    let before = lab.dns(Outcome::Internal);
    look_up(&mut lab, family, "www.foo.test", &inside);
    assert_eq!(lab.dns(Outcome::Internal), before + inside.len() as u64);
    assert_eq!(lab.names().addresses().expect("addresses"), []);
    check(&mut lab, "metadata", "169.254.169.254".parse().expect("an address"), 80, Expect::Deny(DEFAULT));
}

#[test]
fn a_pod_cannot_be_its_own_resolver() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for family in FAMILIES {
        let message = Message::new("www.foo.test").answers(&[family.address(80)], 300);
        let spoofed = Frame::new(family.address(7), Transport::Udp { from: 53, to: 40_000, data: message.reply() })
            .from(family.resolver());
        let row = family.row("from the resolver's address");
        lab.check(&row, Hooks::Tc, &spoofed.bytes(), Expect::Drop(DropReason::SpoofedResolver));
        let own = Frame::new(family.resolver(), Transport::Udp { from: 53, to: 40_000, data: message.reply() });
        lab.check(&family.row("from its own address"), Hooks::Tc, &own.bytes(), Expect::Allow(INTERNAL));
    }
}

#[test]
fn a_pod_without_an_interface_on_the_host_teaches_nothing_but_what_the_agent_looks_up() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for family in FAMILIES {
        let to = family.address(90);
        let message = Message::new("www.foo.test").answers(&[to], 300);
        let (asked, queries) = (lab.dns(Outcome::AskedInside), lab.dns(Outcome::Queries));
        let query = Frame::udp(family.resolver(), 53).from_port(42_000).data(&message.query()).bytes();
        lab.check(&family.row("query"), Hooks::Both, &query, Expect::Allow(INTERNAL));
        // One hook for the pod with an interface, and one for that without.
        assert_eq!(lab.dns(Outcome::Queries), queries + 1, "{}", family.name);
        assert_eq!(lab.dns(Outcome::AskedInside), asked + 1, "{}", family.name);
        // Whatever reaches its sockets may be its own: over loopback, by AF_PACKET, from a namespace inside.
        let bytes = Frame::udp(family.resolver(), 53).from_port(42_000).turned().data(&message.reply()).bytes();
        let seen = lab.send(Hook::CgroupIngress, &bytes);
        lab.compare("reply", Hook::CgroupIngress, &bytes, Expect::Untouched, &seen);
        check(&mut lab, &family.row("by itself"), to, 443, Expect::Deny(DEFAULT));
        deliver(&mut lab, &Frame::udp(family.resolver(), 53).from_port(42_000).turned().data(&message.reply()));
        check(&mut lab, &family.row("at the interface"), to, 443, Expect::Allow(EXACT));
    }
}

#[test]
fn a_reply_in_fragments_or_behind_extension_headers_is_delivered_and_teaches_nothing() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for family in FAMILIES {
        poison(&mut lab, &family, "the first fragment", Outcome::Fragmented, |family, message| {
            answer(family, message).fragment(7, 0, true)
        });
        if family.resolver().is_ipv6() {
            poison(&mut lab, &family, "destination options", Outcome::OtherHeaders, |family, message| {
                answer(family, message).extension(Extension::Common(Extension::DESTINATION, 8))
            });
        }
        // The same reply, whole, does.
        let to = family.address(99);
        look_up(&mut lab, &family, "www.foo.test", &[to]);
        check(&mut lab, &family.row("whole"), to, 443, Expect::Allow(EXACT));
    }
}
