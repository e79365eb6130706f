//! DNS names (§5): learned from replies before they reach the pod, merged with prefixes by rule number, and gone when their time is up.

mod learning;
mod message;
mod streams;
mod verdicts;

use std::net::IpAddr;

use egress_common::event::Hook;
use egress_packets::{Expect, Frame, Hooks, Pooled};

use self::message::Message;

/// Names with one label, any depth and none in front, with and without ports, before and behind prefixes.
const POLICY: &str = r#"
apiVersion: egress.rs/v1alpha1
kind: EgressConfig
metadata: {name: default}
spec: {defaultAction: Deny, internalCIDRs: [10.0.0.0/8, "fd00::/8"]}
---
apiVersion: egress.rs/v1alpha1
kind: EgressNetworkPolicy
metadata: {name: p}
spec:
  egress:
  - {type: Deny, to: {cidrSelector: 1.2.3.9/32}}
  - {type: Deny, to: {cidrSelector: "2001:db8:1::9/128"}}
  - {type: Allow, to: {dnsName: www.foo.test}}
  - {type: Allow, to: {dnsName: '*.one.test'}, ports: [{protocol: TCP, port: 443}]}
  - {type: Allow, to: {dnsName: '**.any.test'}}
  - {type: Deny, to: {dnsName: bad.test}}
  - {type: Allow, to: {cidrSelector: 7.7.7.0/24}}
  - {type: Allow, to: {cidrSelector: "2001:db8:7::/64"}}
"#;

const EXACT: &str = "rule 3 of default/p";
const ONE_LABEL: &str = "rule 4 of default/p";
const ANY_DEPTH: &str = "rule 5 of default/p";
const BAD: &str = "rule 6 of default/p";
const DEFAULT: &str = "default action";
const INTERNAL: &str = "internal CIDRs";

/// One address family.
#[derive(Clone, Copy)]
struct Family {
    name: &'static str,
    resolver: &'static str,
    /// Free addresses, by number.
    network: &'static str,
    /// Denied by the first rules, whatever its name.
    shut: &'static str,
    /// Allowed by the last rules.
    open: &'static str,
    open_rule: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        name: "IPv4",
        resolver: "10.96.0.10",
        network: "1.2.3.",
        shut: "1.2.3.9",
        open: "7.7.7.7",
        open_rule: "rule 7 of default/p",
    },
    Family {
        name: "IPv6",
        resolver: "fd00:96::10",
        network: "2001:db8:1::",
        shut: "2001:db8:1::9",
        open: "2001:db8:7::7",
        open_rule: "rule 8 of default/p",
    },
];

impl Family {
    fn address(&self, number: u8) -> IpAddr {
        format!("{}{number}", self.network).parse().expect("an address")
    }

    fn resolver(&self) -> IpAddr {
        self.resolver.parse().expect("an address")
    }

    fn row(&self, text: &str) -> String {
        format!("{}: {text}", self.name)
    }
}

fn parse(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Sends the query from the pod; it must pass as internal traffic.
fn ask(lab: &mut Pooled, family: &Family, message: &Message, port: u16) {
    let frame = Frame::udp(family.resolver(), 53).from_port(port).data(&message.query());
    lab.check(&family.row("query"), Hooks::Tc, &frame.bytes(), Expect::Allow(INTERNAL));
}

/// The reply on its way to the pod; it must pass untouched, whatever is in it.
fn reply(lab: &mut Pooled, family: &Family, bytes: &[u8], port: u16) {
    deliver(lab, &Frame::udp(family.resolver(), 53).from_port(port).turned().data(bytes));
}

fn deliver(lab: &mut Pooled, frame: &Frame) {
    let bytes = frame.bytes();
    let seen = lab.send(Hook::TcToPod, &bytes);
    lab.compare("reply", Hook::TcToPod, &bytes, Expect::Untouched, &seen);
}

/// Looks a name up and gets addresses.
fn look_up(lab: &mut Pooled, family: &Family, name: &str, addresses: &[IpAddr]) {
    let message = Message::new(name).answers(addresses, 300);
    ask(lab, family, &message, 40_000);
    reply(lab, family, &message.reply(), 40_000);
}

fn check(lab: &mut Pooled, row: &str, to: IpAddr, port: u16, expect: Expect<'_>) {
    lab.check(row, Hooks::Both, &Frame::syn(to, port).bytes(), expect);
}
