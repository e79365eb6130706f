//! Order, tiers, Pass, `except`, port edges, and the rules that are always there, through the kernel.

use std::net::IpAddr;

use egress_packets::{Expect, Frame, Hooks, Lab, is_root};

use crate::sides::{DEFAULT, INTERNAL};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn config(spec: &str) -> String {
    format!("apiVersion: egress.rs/v1alpha1\nkind: EgressConfig\nmetadata: {{name: default}}\nspec: {{{spec}}}\n---\n")
}

fn policy(name: &str, more: &str, rules: &[&str]) -> String {
    let rules = rules.iter().map(|rule| format!("{{{rule}}}")).collect::<Vec<_>>().join(", ");
    format!(
        "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: {name}}}\nspec:\n{more}  egress: [{rules}]\n---\n"
    )
}

fn cluster(name: &str, tier: &str, rules: &[&str]) -> String {
    let text = policy(name, &format!("  tier: {tier}\n"), rules);
    text.replace("EgressNetworkPolicy", "ClusterEgressPolicy")
}

const INSIDE: &str = r#"internalCIDRs: [10.0.0.0/8, "fd00::/8"]"#;

/// One row: what is sent, and what must become of it.
type Row<'a> = (&'a str, Frame, Expect<'a>);

fn check(lab: &mut Lab, rows: &[Row<'_>]) {
    for (name, frame, expect) in rows {
        lab.check(name, Hooks::Both, &frame.bytes(), *expect);
    }
}

fn tcp(to: &str, port: u16) -> Frame {
    Frame::syn(ip(to), port)
}

#[test]
fn order_decides_and_never_the_length_of_a_prefix() {
    if !is_root() {
        return;
    }
    let wide_first = [
        "type: Deny, to: {cidrSelector: 20.0.0.0/8}",
        "type: Allow, to: {cidrSelector: 20.1.0.0/16}",
        "type: Deny, to: {cidrSelector: \"2001:db8::/32\"}",
        "type: Allow, to: {cidrSelector: \"2001:db8:1::/48\"}",
    ];
    let narrow_first = [wide_first[1], wide_first[0], wide_first[3], wide_first[2]];
    let mut lab = Lab::new(&(config("defaultAction: Allow") + &policy("p", "", &wide_first)));
    check(
        &mut lab,
        &[
            ("inside both", tcp("20.1.2.3", 80), Expect::Deny("rule 1 of default/p")),
            ("inside the wide one", tcp("20.2.2.3", 80), Expect::Deny("rule 1 of default/p")),
            ("outside", tcp("21.1.2.3", 80), Expect::Allow(DEFAULT)),
            ("inside both", tcp("2001:db8:1::1", 80), Expect::Deny("rule 3 of default/p")),
            ("inside the wide one", tcp("2001:db8:2::1", 80), Expect::Deny("rule 3 of default/p")),
            ("outside", tcp("2001:db9::1", 80), Expect::Allow(DEFAULT)),
        ],
    );
    lab.apply(&(config("defaultAction: Allow") + &policy("p", "", &narrow_first)));
    check(
        &mut lab,
        &[
            ("inside both", tcp("20.1.2.3", 80), Expect::Allow("rule 1 of default/p")),
            ("inside the wide one", tcp("20.2.2.3", 80), Expect::Deny("rule 2 of default/p")),
            ("inside both", tcp("2001:db8:1::1", 80), Expect::Allow("rule 3 of default/p")),
            ("inside the wide one", tcp("2001:db8:2::1", 80), Expect::Deny("rule 4 of default/p")),
        ],
    );
}

#[test]
fn prefixes_end_where_they_say() {
    if !is_root() {
        return;
    }
    let rules = [
        "type: Allow, to: {cidrSelector: 20.1.2.128/25}",
        "type: Allow, to: {cidrSelector: 30.0.0.1/32}",
        "type: Allow, to: {cidrSelector: \"2001:db8:1:1:8000::/65\"}",
        "type: Allow, to: {cidrSelector: \"2001:db8:2::1/128\"}",
    ];
    let mut lab = Lab::new(&(config(&format!("defaultAction: Deny, {INSIDE}")) + &policy("p", "", &rules)));
    check(
        &mut lab,
        &[
            ("first", tcp("20.1.2.128", 1), Expect::Allow("rule 1 of default/p")),
            ("last", tcp("20.1.2.255", 1), Expect::Allow("rule 1 of default/p")),
            ("before", tcp("20.1.2.127", 1), Expect::Deny(DEFAULT)),
            ("behind", tcp("20.1.3.0", 1), Expect::Deny(DEFAULT)),
            ("host", tcp("30.0.0.1", 1), Expect::Allow("rule 2 of default/p")),
            ("before", tcp("30.0.0.0", 1), Expect::Deny(DEFAULT)),
            ("behind", tcp("30.0.0.2", 1), Expect::Deny(DEFAULT)),
            ("first", tcp("2001:db8:1:1:8000::", 1), Expect::Allow("rule 3 of default/p")),
            ("last", tcp("2001:db8:1:1:ffff:ffff:ffff:ffff", 1), Expect::Allow("rule 3 of default/p")),
            ("before", tcp("2001:db8:1:1:7fff:ffff:ffff:ffff", 1), Expect::Deny(DEFAULT)),
            ("behind", tcp("2001:db8:1:2::", 1), Expect::Deny(DEFAULT)),
            ("host", tcp("2001:db8:2::1", 1), Expect::Allow("rule 4 of default/p")),
            ("before", tcp("2001:db8:2::", 1), Expect::Deny(DEFAULT)),
            ("behind", tcp("2001:db8:2::2", 1), Expect::Deny(DEFAULT)),
            ("0.0.0.0", tcp("0.0.0.0", 1), Expect::Deny(DEFAULT)),
            ("the last IPv4 address", tcp("255.255.255.255", 1), Expect::Deny(DEFAULT)),
            ("::", tcp("::", 1), Expect::Deny(DEFAULT)),
            ("the last IPv6 address", tcp("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1), Expect::Deny(DEFAULT)),
        ],
    );
}

#[test]
fn tiers_are_asked_in_their_order_and_pass_skips_the_rest_of_one() {
    if !is_root() {
        return;
    }
    let text = config("defaultAction: Allow")
        + &cluster(
            "admin",
            "Admin",
            &[
                "type: Allow, to: {cidrSelector: 20.0.0.0/16}",
                "type: Pass, to: {cidrSelector: 20.1.0.0/16}",
                "type: Pass, to: {cidrSelector: 20.4.0.0/16}, ports: [{protocol: TCP, port: 443}]",
                "type: Deny, to: {cidrSelector: 20.0.0.0/8}",
                "type: Pass, to: {cidrSelector: \"2001:db8:1::/48\"}",
                "type: Deny, to: {cidrSelector: \"2001:db8::/32\"}",
            ],
        )
        + &policy(
            "p",
            "",
            &[
                "type: Deny, to: {cidrSelector: 20.0.0.0/15}",
                "type: Deny, to: {cidrSelector: 30.0.0.0/8}",
                "type: Allow, to: {cidrSelector: 20.4.0.0/16}",
                "type: Allow, to: {cidrSelector: \"2001:db8::/32\"}",
            ],
        )
        + &cluster(
            "base",
            "Baseline",
            &["type: Allow, to: {cidrSelector: 30.0.0.0/8}", "type: Deny, to: {cidrSelector: 40.0.0.0/8}"],
        );
    let mut lab = Lab::new(&text);
    check(
        &mut lab,
        &[
            ("admin allows before the namespace denies", tcp("20.0.0.1", 1), Expect::Allow("rule 1 of admin")),
            ("admin passes, the namespace denies", tcp("20.1.0.1", 1), Expect::Deny("rule 1 of default/p")),
            ("admin denies", tcp("20.2.0.1", 1), Expect::Deny("rule 4 of admin")),
            (
                "admin passes this port, the namespace allows",
                tcp("20.4.0.1", 443),
                Expect::Allow("rule 3 of default/p"),
            ),
            ("admin denies other ports", tcp("20.4.0.1", 444), Expect::Deny("rule 4 of admin")),
            ("admin denies other protocols", Frame::udp(ip("20.4.0.1"), 443), Expect::Deny("rule 4 of admin")),
            ("the namespace denies before baseline allows", tcp("30.0.0.1", 1), Expect::Deny("rule 2 of default/p")),
            ("baseline denies", tcp("40.0.0.1", 1), Expect::Deny("rule 2 of base")),
            ("nobody", tcp("50.0.0.1", 1), Expect::Allow(DEFAULT)),
            ("admin passes, the namespace allows", tcp("2001:db8:1::1", 1), Expect::Allow("rule 4 of default/p")),
            ("admin denies", tcp("2001:db8:2::1", 1), Expect::Deny("rule 6 of admin")),
        ],
    );
}

#[test]
fn a_rule_does_not_match_its_exceptions() {
    if !is_root() {
        return;
    }
    let rules = [
        "type: Deny, to: {cidrSelector: 0.0.0.0/0, except: [20.0.0.0/8, 30.0.0.1/32]}, ports: [{protocol: TCP}]",
        "type: Allow, to: {cidrSelector: 20.1.0.0/16, except: [20.1.1.0/24]}",
        "type: Deny, to: {cidrSelector: 20.0.0.0/8}",
        "type: Deny, to: {cidrSelector: \"::/0\", except: [\"2001:db8::/32\"]}",
    ];
    let mut lab = Lab::new(&(config("defaultAction: Allow") + &policy("p", "", &rules)));
    check(
        &mut lab,
        &[
            ("excepted, next allows", tcp("20.1.0.1", 1), Expect::Allow("rule 2 of default/p")),
            ("excepted twice", tcp("20.1.1.1", 1), Expect::Deny("rule 3 of default/p")),
            ("excepted host", tcp("30.0.0.1", 1), Expect::Allow(DEFAULT)),
            ("beside it", tcp("30.0.0.2", 1), Expect::Deny("rule 1 of default/p")),
            ("beside it, other protocol", Frame::udp(ip("30.0.0.2"), 1), Expect::Allow(DEFAULT)),
            ("excepted", tcp("2001:db8::1", 1), Expect::Allow(DEFAULT)),
            ("beside it", tcp("2001:db9::1", 1), Expect::Deny("rule 4 of default/p")),
        ],
    );
}

#[test]
fn port_ranges_end_where_they_say() {
    if !is_root() {
        return;
    }
    let ports = "ports: [{protocol: TCP, port: 1000, endPort: 2000}, {protocol: TCP, port: 1}, {protocol: TCP, port: 65535}, \
                 {protocol: UDP, port: 1, endPort: 65535}, {protocol: SCTP, port: 3000, endPort: 3000}]";
    let rules = [
        format!("type: Allow, to: {{cidrSelector: 20.0.0.0/8}}, {ports}"),
        format!("type: Allow, to: {{cidrSelector: \"2001:db8::/32\"}}, {ports}"),
    ];
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let mut lab = Lab::new(&(config(&format!("defaultAction: Deny, {INSIDE}")) + &policy("p", "", &rules)));
    for (to, rule) in [("20.0.0.1", "rule 1 of default/p"), ("2001:db8::1", "rule 2 of default/p")] {
        let to = ip(to);
        for port in [1, 1000, 1001, 1999, 2000, 65535] {
            lab.check(&format!("TCP {port}"), Hooks::Both, &Frame::syn(to, port).bytes(), Expect::Allow(rule));
        }
        for port in [0, 2, 999, 2001, 65534] {
            lab.check(&format!("TCP {port}"), Hooks::Both, &Frame::syn(to, port).bytes(), Expect::Deny(DEFAULT));
        }
        for (port, expect) in [(0, Expect::Deny(DEFAULT)), (1, Expect::Allow(rule)), (65535, Expect::Allow(rule))] {
            lab.check(&format!("UDP {port}"), Hooks::Both, &Frame::udp(to, port).bytes(), expect);
        }
        for (port, expect) in
            [(2999, Expect::Deny(DEFAULT)), (3000, Expect::Allow(rule)), (3001, Expect::Deny(DEFAULT))]
        {
            lab.check(&format!("SCTP {port}"), Hooks::Both, &Frame::sctp(to, port, 1).bytes(), expect);
        }
    }
}

#[test]
fn the_link_and_loopback_are_always_open_and_no_wider_than_they_must_be() {
    const ND: &str = "link control (neighbour discovery)";
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(crate::sides::DENY_ALL);
    for kind in [130, 131, 132, 133, 134, 135, 136, 137, 143] {
        for to in ["fe80::1", "febf:ffff::1", "ff02::1", "ff02::16", "2001:db8:9::1"] {
            let frame = Frame::icmp(ip(to), kind).bytes();
            lab.check(&format!("type {kind} to {to}"), Hooks::Both, &frame, Expect::Allow(ND));
        }
        for to in ["fec0::1", "ff05::1", "ff03::1", "2001:db8:9::2", "2001:db8::1"] {
            let frame = Frame::icmp(ip(to), kind).bytes();
            lab.check(&format!("type {kind} to {to}"), Hooks::Both, &frame, Expect::Deny(DEFAULT));
        }
    }
    for kind in [0, 1, 2, 3, 4, 128, 129, 138, 142, 144, 255] {
        let frame = Frame::icmp(ip("fe80::1"), kind).bytes();
        lab.check(&format!("type {kind} to fe80::1"), Hooks::Both, &frame, Expect::Deny(DEFAULT));
    }
    let denied = Expect::Deny(DEFAULT);
    check(
        &mut lab,
        &[
            ("127.0.0.1", tcp("127.0.0.1", 1), Expect::Allow(INTERNAL)),
            ("127.255.255.255", tcp("127.255.255.255", 1), Expect::Allow(INTERNAL)),
            ("126.255.255.255", tcp("126.255.255.255", 1), denied),
            ("128.0.0.0", tcp("128.0.0.0", 1), denied),
            ("::1", tcp("::1", 1), Expect::Allow(INTERNAL)),
            ("::2", tcp("::2", 1), denied),
            ("internal", tcp("10.255.255.255", 1), Expect::Allow(INTERNAL)),
            ("not internal", tcp("11.0.0.0", 1), denied),
            ("internal", tcp("fdff::1", 1), Expect::Allow(INTERNAL)),
            ("not internal", tcp("fe00::1", 1), denied),
            ("link-local metadata server", tcp("169.254.169.254", 80), denied),
            ("DHCPv6", Frame::udp(ip("ff02::1:2"), 547), Expect::Allow("link control (DHCPv6)")),
            ("DHCPv6 on the link", Frame::udp(ip("fe80::1"), 547), Expect::Allow("link control (DHCPv6)")),
            ("DHCPv6 elsewhere", Frame::udp(ip("ff05::1:3"), 547), denied),
            ("other port on the link", Frame::udp(ip("ff02::1:2"), 546), denied),
            ("mDNS", Frame::udp(ip("ff02::fb"), 5353), denied),
            ("TCP 547", tcp("fe80::1", 547), denied),
            ("IGMP", Frame::protocol(ip("224.0.0.22"), 2), Expect::Allow("link control (IGMP)")),
            ("IGMP elsewhere", Frame::protocol(ip("224.0.1.22"), 2), denied),
            ("UDP to the IGMP group", Frame::udp(ip("224.0.0.22"), 2), denied),
            ("DHCP", Frame::udp(ip("255.255.255.255"), 67), Expect::Allow("link control (DHCPv4)")),
            ("other broadcast", Frame::udp(ip("255.255.255.255"), 68), denied),
            ("DHCP to one server", Frame::udp(ip("20.0.0.1"), 67), denied),
        ],
    );
}

#[test]
fn dns_goes_to_the_resolvers_and_the_node_unless_switched_off() {
    const DNS: &str = "DNS to trusted resolvers";
    if !is_root() {
        return;
    }
    // The laboratory's resolvers are 10.96.0.10 and fd00:96::10, its node 192.0.2.1 and 2001:db8:9::1.
    let servers = ["10.96.0.10", "fd00:96::10", "192.0.2.1", "2001:db8:9::1"];
    let mut lab = Lab::new(&config("defaultAction: Deny, internalCIDRs: []"));
    for server in servers {
        let rows = [
            (server, Frame::udp(ip(server), 53), Expect::Allow(DNS)),
            (server, tcp(server, 53), Expect::Allow(DNS)),
            (server, Frame::udp(ip(server), 54), Expect::Deny(DEFAULT)),
            (server, tcp(server, 52), Expect::Deny(DEFAULT)),
            (server, Frame::sctp(ip(server), 53, 1), Expect::Deny(DEFAULT)),
            (server, Frame::echo(ip(server)), Expect::Deny(DEFAULT)),
        ];
        check(&mut lab, &rows);
    }
    check(&mut lab, &[("another", Frame::udp(ip("10.96.0.11"), 53), Expect::Deny(DEFAULT))]);
    check(&mut lab, &[("another", Frame::udp(ip("fd00:96::11"), 53), Expect::Deny(DEFAULT))]);
    lab.apply(&config("defaultAction: Deny, internalCIDRs: [], dns: {allowResolvers: false}"));
    for server in servers {
        check(&mut lab, &[(server, Frame::udp(ip(server), 53), Expect::Deny(DEFAULT))]);
    }
    lab.apply(&config("defaultAction: Deny, internalCIDRs: [], resolvers: [20.0.0.53, \"2001:db8::53\"]"));
    check(
        &mut lab,
        &[
            ("configured", Frame::udp(ip("20.0.0.53"), 53), Expect::Allow(DNS)),
            ("configured", Frame::udp(ip("2001:db8::53"), 53), Expect::Allow(DNS)),
            ("discovered", Frame::udp(ip("10.96.0.10"), 53), Expect::Deny(DEFAULT)),
            ("the node", Frame::udp(ip("192.0.2.1"), 53), Expect::Allow(DNS)),
        ],
    );
}

#[test]
fn excluded_prefixes_are_allowed_before_any_policy() {
    if !is_root() {
        return;
    }
    let text = config(&format!("defaultAction: Deny, {INSIDE}, excludedCIDRs: [20.0.0.0/24, \"2001:db8:1::/64\"]"))
        + &cluster(
            "admin",
            "Admin",
            &["type: Deny, to: {cidrSelector: 0.0.0.0/0}", "type: Deny, to: {cidrSelector: \"::/0\"}"],
        );
    let mut lab = Lab::new(&text);
    check(
        &mut lab,
        &[
            ("excluded", tcp("20.0.0.255", 1), Expect::Allow("excluded CIDRs")),
            ("excluded, GRE", Frame::protocol(ip("20.0.0.1"), 47), Expect::Allow("excluded CIDRs")),
            ("beside", tcp("20.0.1.0", 1), Expect::Deny("rule 1 of admin")),
            ("excluded", tcp("2001:db8:1::1", 1), Expect::Allow("excluded CIDRs")),
            ("beside", tcp("2001:db8:1:1::1", 1), Expect::Deny("rule 2 of admin")),
            ("internal comes first", tcp("10.0.0.1", 1), Expect::Allow(INTERNAL)),
        ],
    );
    lab.apply(&config(&format!("defaultAction: Deny, {INSIDE}")));
    check(&mut lab, &[("no longer excluded", tcp("20.0.0.1", 1), Expect::Deny(DEFAULT))]);
}
