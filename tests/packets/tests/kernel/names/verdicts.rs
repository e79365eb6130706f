//! What a learned name does to verdicts (§4.2, §5.1, §5.3, §5.7, §5.9).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use egress_common::dns::Outcome;
use egress_common::event::Hook;
use egress_packets::{Expect, Frame, Hooks, Lab, is_root, tcp_flag};

use super::{ANY_DEPTH, BAD, DEFAULT, EXACT, FAMILIES, Family, ONE_LABEL, POLICY, ask, check, look_up, parse, reply};
use crate::names::message::Message;

#[test]
fn a_name_is_allowed_from_its_reply_on() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for family in FAMILIES {
        let to = family.address(1);
        check(&mut lab, &family.row("before"), to, 443, Expect::Deny(DEFAULT));
        let before = lab.dns(Outcome::Addresses);
        look_up(&mut lab, &family, "WWW.foo.TEST", &[to]);
        assert_eq!(lab.dns(Outcome::Addresses), before + 1);
        check(&mut lab, &family.row("after"), to, 443, Expect::Allow(EXACT));
        check(&mut lab, &family.row("its neighbour"), family.address(2), 443, Expect::Deny(DEFAULT));
    }
}

#[test]
fn wildcards_match_one_label_or_more() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for family in FAMILIES {
        for (number, name, expect) in [
            (10, "a.one.test", Expect::Allow(ONE_LABEL)),
            (11, "a.b.one.test", Expect::Deny(DEFAULT)),
            (12, "one.test", Expect::Deny(DEFAULT)),
            (13, "a.any.test", Expect::Allow(ANY_DEPTH)),
            (14, "a.b.c.any.test", Expect::Allow(ANY_DEPTH)),
            (15, "any.test", Expect::Deny(DEFAULT)),
            (16, "x.www.foo.test", Expect::Deny(DEFAULT)),
            (17, "aone.test", Expect::Deny(DEFAULT)),
            (18, "foo.test", Expect::Deny(DEFAULT)),
        ] {
            look_up(&mut lab, &family, name, &[family.address(number)]);
            check(&mut lab, &family.row(name), family.address(number), 443, expect);
        }
    }
}

#[test]
fn names_and_prefixes_compete_by_rule_number() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for family in FAMILIES {
        let (shut, open) = (parse(family.shut), parse(family.open));
        let shut_rule = if shut.is_ipv4() { "rule 1 of default/p" } else { "rule 2 of default/p" };
        look_up(&mut lab, &family, "www.foo.test", &[shut]);
        check(&mut lab, &family.row("a Deny prefix before an Allow name"), shut, 443, Expect::Deny(shut_rule));
        check(&mut lab, &family.row("an Allow prefix alone"), open, 443, Expect::Allow(family.open_rule));
        look_up(&mut lab, &family, "bad.test", &[open]);
        check(&mut lab, &family.row("a Deny name before an Allow prefix"), open, 443, Expect::Deny(BAD));
        // Two names: the earlier rule decides.
        look_up(&mut lab, &family, "www.foo.test", &[open]);
        check(&mut lab, &family.row("an Allow name before a Deny name"), open, 443, Expect::Allow(EXACT));
    }
}

#[test]
fn ports_of_a_name_rule_are_judged_and_events_say_the_name() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for family in FAMILIES {
        let to = family.address(20);
        look_up(&mut lab, &family, "a.one.test", &[to]);
        check(&mut lab, &family.row("its port"), to, 443, Expect::Allow(ONE_LABEL));
        check(&mut lab, &family.row("another port"), to, 80, Expect::Deny(DEFAULT));
        lab.check(&family.row("UDP"), Hooks::Both, &Frame::udp(to, 443).bytes(), Expect::Deny(DEFAULT));
        let seen = lab.send(Hook::TcFromPod, &Frame::syn(to, 81).bytes());
        let id = lab.policies().name_id("a.one.test");
        assert_eq!(seen.events.iter().map(|event| event.name).collect::<Vec<_>>(), [id], "{}", family.name);
        let seen = lab.send(Hook::TcFromPod, &Frame::syn(family.address(21), 81).bytes());
        assert_eq!(seen.events.iter().map(|event| event.name).collect::<Vec<_>>(), [0], "{}", family.name);
    }
}

/// [`POLICY`] with lives of a second, and `egress` in place of its rules.
fn short(egress: &str) -> String {
    let config = "spec: {defaultAction: Deny, dns: {minTTL: 1s, maxTTL: 1s, grace: 0s}, internalCIDRs:";
    let (head, _) = POLICY.split_once("  egress:").expect("rules");
    head.replace("spec: {defaultAction: Deny, internalCIDRs:", config) + "  egress:\n" + egress
}

const BY_NAME: &str = "  - {type: Allow, to: {dnsName: www.foo.test}}\n";
const BY_NOTHING: &str = "  - {type: Allow, to: {dnsName: other.test}}\n";

#[test]
fn a_connection_outlives_its_address_and_not_its_rule() {
    if !is_root() {
        return;
    }
    for family in FAMILIES {
        let mut lab = Lab::new(&short(BY_NAME));
        let rule = "rule 1 of default/p";
        let to = family.address(30);
        look_up(&mut lab, &family, "www.foo.test", &[to]);
        let opened = |port| Frame::syn(to, 443).from_port(port).bytes();
        let going = |port| Frame::tcp(to, 443, tcp_flag::ACK).from_port(port).bytes();
        lab.check(&family.row("opens"), Hooks::Tc, &opened(50_000), Expect::Allow(rule));
        lab.check(
            &family.row("UDP opens"),
            Hooks::Tc,
            &Frame::udp(to, 9).from_port(50_000).bytes(),
            Expect::Allow(rule),
        );
        wait_for_the_end(&mut lab, &family, to);
        lab.check(&family.row("goes on"), Hooks::Tc, &going(50_000), Expect::Reply);
        lab.check(&family.row("UDP goes on"), Hooks::Tc, &Frame::udp(to, 9).from_port(50_000).bytes(), Expect::Reply);
        lab.check(&family.row("another connection"), Hooks::Tc, &going(50_001), Expect::Deny(DEFAULT));
        lab.check(&family.row("opens once more"), Hooks::Tc, &opened(50_000), Expect::Deny(DEFAULT));
        lab.apply(&short(BY_NOTHING));
        lab.check(&family.row("the rule is gone"), Hooks::Tc, &going(50_000), Expect::Deny(DEFAULT));
        lab.check(
            &family.row("for UDP too"),
            Hooks::Tc,
            &Frame::udp(to, 9).from_port(50_000).bytes(),
            Expect::Deny(DEFAULT),
        );
    }
}

fn wait_for_the_end(lab: &mut egress_packets::Pooled, family: &Family, to: IpAddr) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let probe = Frame::syn(to, 443).from_port(60_000).bytes();
    while lab.send(Hook::TcFromPod, &probe).drops.is_empty() {
        assert!(Instant::now() < deadline, "{}: the address does not end", family.name);
    }
}

#[test]
fn an_address_ends_when_its_time_is_up_and_another_answer_prolongs_it() {
    if !is_root() {
        return;
    }
    for family in FAMILIES {
        let mut lab = Lab::new(&short(BY_NAME));
        let to = family.address(40);
        for _ in 0..2 {
            look_up(&mut lab, &family, "www.foo.test", &[to]);
            check(&mut lab, &family.row("lives"), to, 443, Expect::Allow("rule 1 of default/p"));
            wait_for_the_end(&mut lab, &family, to);
            check(&mut lab, &family.row("ended"), to, 443, Expect::Deny(DEFAULT));
        }
    }
}

#[test]
fn a_thousand_addresses_belong_to_one_name() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let v4 = |n: u32| IpAddr::V4(Ipv4Addr::from(0x0909_0000 + n));
    let v6 = |n: u32| IpAddr::V6(Ipv6Addr::from(0x2001_0db8_0009_0000_0000_0000_0000_0000 + u128::from(n)));
    let addresses: Vec<IpAddr> = (1..=700).flat_map(|n| [v4(n), v6(n)]).collect();
    assert_eq!(lab.learn("www.foo.test", &addresses, 300), addresses.len());
    for address in addresses.iter().step_by(97) {
        check(&mut lab, "one of many", *address, 443, Expect::Allow(EXACT));
    }
    check(&mut lab, "not among them", v4(701), 443, Expect::Deny(DEFAULT));
    check(&mut lab, "not among them", v6(701), 443, Expect::Deny(DEFAULT));
}

#[test]
fn an_address_holds_thirty_two_names_and_the_one_that_ends_first_gives_way() {
    if !is_root() {
        return;
    }
    let rules: Vec<String> = (0..40).map(|n| format!("  - {{type: Allow, to: {{dnsName: n{n}.test}}}}\n")).collect();
    let (head, _) = POLICY.split_once("  egress:").expect("rules");
    let mut lab = Lab::new(&(head.to_owned() + "  egress:\n" + &rules.concat()));
    for family in FAMILIES {
        let to = family.address(50);
        let before = lab.dns(Outcome::Evicted);
        for n in 0..32 {
            lab.learn(&format!("n{n}.test"), &[to], 300 + n);
        }
        assert_eq!(lab.dns(Outcome::Evicted), before, "{}", family.name);
        check(&mut lab, &family.row("all fit"), to, 443, Expect::Allow("rule 1 of default/p"));
        lab.learn("n32.test", &[to], 900);
        assert_eq!(lab.dns(Outcome::Evicted), before + 1, "{}", family.name);
        check(&mut lab, &family.row("the first gave way"), to, 443, Expect::Allow("rule 2 of default/p"));
    }
}

#[test]
fn a_policy_without_names_reads_no_dns() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(crate::sides::POLICY);
    for family in FAMILIES {
        let before = egress_common::dns::Outcome::ALL.iter().map(|outcome| lab.dns(*outcome)).sum::<u64>();
        let message = Message::new("www.foo.test").answers(&[family.address(60)], 300);
        ask(&mut lab, &family, &message, 40_000);
        reply(&mut lab, &family, &message.reply(), 40_000);
        let after = egress_common::dns::Outcome::ALL.iter().map(|outcome| lab.dns(*outcome)).sum::<u64>();
        assert_eq!(before, after, "{}", family.name);
    }
}
