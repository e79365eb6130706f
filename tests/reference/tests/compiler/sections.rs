//! Hand-written examples of single sections of the semantics, with the answer written down. The oracle and the compiler must both
//! give it: the oracle's own reading is tested here too.

use egress_reference::{
    Action, AnyPort, Builtin, Decider, Expression, Kind, Mode, NodeAddresses, Operator, Oracle, Packet, Peer, Policy,
    PolicyId, Ports, Prefix, Protocol, Rule, Selector, Tier, World,
};

use crate::bridge::{Compiled, compile_world, expected, shadowed};

const TCP: u8 = 6;
const UDP: u8 = 17;

fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').expect("a prefix");
    Prefix::new(address.parse().expect("an address"), length.parse().expect("a length"))
}

fn allow(text: &str) -> Rule {
    Rule::cidr(Action::Allow, prefix(text))
}

fn deny(text: &str) -> Rule {
    Rule::cidr(Action::Deny, prefix(text))
}

fn pass(text: &str) -> Rule {
    Rule::cidr(Action::Pass, prefix(text))
}

fn on(rule: Rule, ports: &[Ports]) -> Rule {
    Rule { ports: Some(ports.to_vec()), ..rule }
}

fn namespaced(name: &str, rules: Vec<Rule>) -> Policy {
    Policy::namespaced("default", name, rules)
}

fn world(policies: Vec<Policy>) -> World {
    World { policies, ..World::empty() }
}

fn packet(destination: &str, protocol: u8, port: u16) -> Packet {
    Packet { destination: destination.parse().expect("an address"), protocol, port }
}

fn web(destination: &str) -> Packet {
    packet(destination, TCP, 443)
}

fn rule(name: &str, number: usize) -> Decider {
    Decider::Rule {
        policy: PolicyId {
            kind: Kind::EgressNetworkPolicy,
            namespace: Some("default".to_owned()),
            name: name.to_owned(),
        },
        number,
    }
}

fn cluster_rule(name: &str, number: usize) -> Decider {
    Decider::Rule {
        policy: PolicyId { kind: Kind::ClusterEgressPolicy, namespace: None, name: name.to_owned() },
        number,
    }
}

/// Both sides, for the first pod.
struct Sides<'w> {
    world: &'w World,
    compiled: Compiled,
}

fn sides(world: &World) -> Sides<'_> {
    let compiled = compile_world(world).expect("valid").remove(0);
    Sides { world, compiled }
}

impl Sides<'_> {
    #[track_caller]
    fn decide(&self, packet: Packet, allow: bool, decider: &Decider) {
        let outcome = Oracle::new(self.world).evaluate(&self.world.pods[0], &packet);
        assert_eq!((outcome.verdict.allow, &outcome.verdict.decider), (allow, decider), "the oracle, {packet}");
        assert_eq!(self.compiled.answer(&packet), expected(&outcome), "the compiler, {packet}");
    }
}

#[test]
fn section_1_2_internal_destinations_are_allowed_before_any_policy() {
    let mut world = world(vec![Policy::cluster(Tier::Admin, "no", vec![deny("0.0.0.0/0"), deny("::/0")])]);
    world.config.internal = Some(vec![prefix("10.0.0.0/8"), prefix("fd00::/8")]);
    let sides = sides(&world);
    let internal = Decider::Builtin(Builtin::Internal);
    for inside in ["10.0.0.0", "10.255.255.255", "127.0.0.1", "fd00::1", "::1"] {
        sides.decide(web(inside), true, &internal);
    }
    for (outside, number) in [("11.0.0.0", 1), ("9.255.255.255", 1), ("128.0.0.0", 1), ("fe00::", 2), ("::2", 2)] {
        sides.decide(web(outside), false, &cluster_rule("no", number));
    }
}

#[test]
fn section_1_2_link_control_is_allowed_and_nothing_beside_it() {
    let mut world = world(vec![namespaced("no", vec![deny("0.0.0.0/0"), deny("::/0")])]);
    world.node.addresses = vec!["2001:db8::5".parse().expect("an address"), "192.0.2.5".parse().expect("an address")];
    let sides = sides(&world);
    let control = Decider::Builtin(Builtin::LinkControl);
    for (destination, protocol, port) in [
        ("fe80::1", 58, 135),
        ("febf:ffff::1", 58, 130),
        ("ff02::1:ff00:1", 58, 137),
        ("ff02::16", 58, 143),
        ("2001:db8::5", 58, 136),
        ("ff02::1:2", UDP, 547),
        ("fe80::1", UDP, 547),
        ("224.0.0.22", 2, 0),
        ("255.255.255.255", UDP, 67),
    ] {
        sides.decide(packet(destination, protocol, port), true, &control);
    }
    for (destination, protocol, port) in [
        ("fec0::1", 58, 135),
        ("fe80::1", 58, 129),
        ("fe80::1", 58, 138),
        ("fe80::1", 58, 142),
        ("fe80::1", 58, 144),
        ("fe80::1", 58, 128),
        ("ff05::2", 58, 143),
        ("2001:db8::6", 58, 136),
        ("2001:db8::5", UDP, 547),
        ("ff02::1:2", TCP, 547),
        ("fe80::1", UDP, 546),
    ] {
        sides.decide(packet(destination, protocol, port), false, &rule("no", 2));
    }
    for (destination, protocol, port) in
        [("224.0.1.0", 2, 0), ("224.0.0.22", UDP, 2), ("255.255.255.255", UDP, 68), ("255.255.255.254", UDP, 67)]
    {
        sides.decide(packet(destination, protocol, port), false, &rule("no", 1));
    }
}

#[test]
fn section_1_3_dns_to_trusted_resolvers_and_the_own_node_is_allowed_unless_switched_off() {
    let mut world = world(vec![namespaced("no", vec![deny("0.0.0.0/0"), deny("::/0")])]);
    world.node.resolvers = vec!["192.0.2.53".parse().expect("an address"), "2001:db8::53".parse().expect("an address")];
    world.node.addresses = vec!["192.0.2.1".parse().expect("an address"), "2001:db8::1".parse().expect("an address")];
    let dns = Decider::Builtin(Builtin::Dns);
    let on = sides(&world);
    for destination in ["192.0.2.53", "192.0.2.1", "2001:db8::53", "2001:db8::1"] {
        let number = if destination.contains(':') { 2 } else { 1 };
        on.decide(packet(destination, UDP, 53), true, &dns);
        on.decide(packet(destination, TCP, 53), true, &dns);
        on.decide(packet(destination, 132, 53), false, &rule("no", number));
        on.decide(packet(destination, TCP, 54), false, &rule("no", number));
        on.decide(packet(destination, UDP, 52), false, &rule("no", number));
    }
    on.decide(packet("192.0.2.54", UDP, 53), false, &rule("no", 1));
    on.decide(packet("2001:db8::54", UDP, 53), false, &rule("no", 2));
    let mut switched_off = world.clone();
    switched_off.config.allow_resolvers = false;
    let off = sides(&switched_off);
    off.decide(packet("192.0.2.53", UDP, 53), false, &rule("no", 1));
    off.decide(packet("2001:db8::1", UDP, 53), false, &rule("no", 2));
}

#[test]
fn section_5_2_a_configured_list_of_resolvers_takes_the_place_of_the_discovered_ones() {
    let mut world = world(vec![namespaced("no", vec![deny("0.0.0.0/0"), deny("::/0")])]);
    world.node.resolvers = vec!["192.0.2.53".parse().expect("an address"), "2001:db8::53".parse().expect("an address")];
    world.config.resolvers =
        Some(vec!["192.0.2.99".parse().expect("an address"), "2001:db8::99".parse().expect("an address")]);
    let sides = sides(&world);
    let dns = Decider::Builtin(Builtin::Dns);
    sides.decide(packet("192.0.2.99", UDP, 53), true, &dns);
    sides.decide(packet("2001:db8::99", UDP, 53), true, &dns);
    sides.decide(packet("192.0.2.53", UDP, 53), false, &rule("no", 1));
    sides.decide(packet("2001:db8::53", UDP, 53), false, &rule("no", 2));
}

#[test]
fn section_2_1_tiers_are_asked_in_order_whatever_their_priorities() {
    let mut admin = Policy::cluster(Tier::Admin, "admin", vec![deny("1.0.0.0/8"), deny("2001:1::/32")]);
    admin.priority = 1000;
    let mut own = namespaced("own", vec![allow("1.0.0.0/7"), allow("2001::/31")]);
    own.priority = 500;
    let mut base = Policy::cluster(Tier::Baseline, "base", vec![deny("0.0.0.0/0"), deny("::/0")]);
    base.priority = 0;
    let world = world(vec![base, own, admin]);
    let sides = sides(&world);
    sides.decide(web("1.2.3.4"), false, &cluster_rule("admin", 1));
    sides.decide(web("2001:1::1"), false, &cluster_rule("admin", 2));
    sides.decide(web("0.2.3.4"), true, &rule("own", 1));
    sides.decide(web("2001::1"), true, &rule("own", 2));
    sides.decide(web("9.2.3.4"), false, &cluster_rule("base", 1));
    sides.decide(web("3001::1"), false, &cluster_rule("base", 2));
}

#[test]
fn section_2_2_policies_follow_by_priority_and_then_by_name() {
    let mut late = namespaced("a", vec![deny("0.0.0.0/0"), deny("::/0")]);
    late.priority = 101;
    let first = namespaced("b-a", vec![allow("1.0.0.0/8"), allow("2001::/16")]);
    let second = namespaced("b.a", vec![deny("1.0.0.0/7"), deny("2000::/15")]);
    let world = world(vec![late, second, first]);
    let sides = sides(&world);
    sides.decide(web("1.2.3.4"), true, &rule("b-a", 1));
    sides.decide(web("2001::1"), true, &rule("b-a", 2));
    sides.decide(web("0.2.3.4"), false, &rule("b.a", 1));
    sides.decide(web("3.2.3.4"), false, &rule("a", 1));
    sides.decide(web("3000::1"), false, &rule("a", 2));
}

#[test]
fn section_2_3_pass_skips_the_rest_of_the_admin_tier_and_nothing_else() {
    let mut first = Policy::cluster(Tier::Admin, "first", vec![pass("1.2.0.0/16"), pass("2001:1:2::/48")]);
    first.priority = 1;
    let second = Policy::cluster(Tier::Admin, "second", vec![deny("1.0.0.0/8"), deny("2001:1::/32")]);
    let own = namespaced("own", vec![allow("1.2.3.0/24"), allow("2001:1:2:3::/64")]);
    let base = Policy::cluster(Tier::Baseline, "base", vec![deny("1.2.4.0/24"), deny("2001:1:2:4::/64")]);
    let world = world(vec![first, second, own, base]);
    let sides = sides(&world);
    sides.decide(web("1.2.3.4"), true, &rule("own", 1));
    sides.decide(web("2001:1:2:3::4"), true, &rule("own", 2));
    sides.decide(web("1.2.4.4"), false, &cluster_rule("base", 1));
    sides.decide(web("2001:1:2:4::4"), false, &cluster_rule("base", 2));
    sides.decide(web("1.2.5.4"), true, &Decider::Default);
    sides.decide(web("2001:1:2:5::4"), true, &Decider::Default);
    sides.decide(web("1.3.3.4"), false, &cluster_rule("second", 1));
    sides.decide(web("2001:1:3:3::4"), false, &cluster_rule("second", 2));
}

#[test]
fn section_2_3_pass_for_some_ports_skips_the_tier_only_for_them() {
    let ports = [Ports::range(Protocol::Tcp, 443, 444)];
    let first = Policy::cluster(
        Tier::Admin,
        "a",
        vec![on(pass("1.2.0.0/16"), &ports), deny("1.0.0.0/8"), on(pass("::/0"), &ports), deny("::/0")],
    );
    let world = world(vec![first, namespaced("own", vec![allow("0.0.0.0/0"), allow("::/0")])]);
    let sides = sides(&world);
    for port in [443, 444] {
        sides.decide(packet("1.2.3.4", TCP, port), true, &rule("own", 1));
        sides.decide(packet("2001::1", TCP, port), true, &rule("own", 2));
    }
    for port in [442, 445] {
        sides.decide(packet("1.2.3.4", TCP, port), false, &cluster_rule("a", 2));
        sides.decide(packet("2001::1", TCP, port), false, &cluster_rule("a", 4));
    }
    sides.decide(packet("1.2.3.4", UDP, 443), false, &cluster_rule("a", 2));
}

#[test]
fn section_2_5_an_audited_pass_is_followed_only_by_the_audit_verdict() {
    let mut first = Policy::cluster(Tier::Admin, "first", vec![pass("0.0.0.0/0"), pass("::/0")]);
    first.mode = Mode::Audit;
    let second = Policy::cluster(Tier::Admin, "second", vec![deny("1.0.0.0/8"), deny("2001::/16")]);
    let world = world(vec![first, second]);
    let sides = sides(&world);
    for (destination, number) in [("1.2.3.4", 1), ("2001::1", 2)] {
        sides.decide(web(destination), false, &cluster_rule("second", number));
        let audit = sides.compiled.answer(&web(destination)).1.expect("an audit verdict");
        assert_eq!((audit.allow, audit.decider), (true, Decider::Default));
    }
    for destination in ["9.2.3.4", "3001::1"] {
        sides.decide(web(destination), true, &Decider::Default);
        assert_eq!(sides.compiled.answer(&web(destination)).1, None);
    }
}

#[test]
fn section_2_6_a_policy_applies_only_in_its_namespace_and_to_the_pods_it_selects() {
    let everything = || vec![deny("0.0.0.0/0"), deny("::/0")];
    let of = |change: &dyn Fn(&mut Policy)| {
        let mut policy = namespaced("p", everything());
        change(&mut policy);
        policy
    };
    let label = |key: &str, value: &str| Selector {
        labels: [(key.to_owned(), value.to_owned())].into(),
        expressions: Vec::new(),
    };
    let expression = |operator, values: &[&str]| Selector {
        labels: [].into(),
        expressions: vec![Expression {
            key: "app".to_owned(),
            operator,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        }],
    };
    let cases: Vec<(Policy, bool)> = vec![
        (of(&|_| {}), true),
        (of(&|policy| policy.pod_selector = Some(Selector::default())), true),
        (of(&|policy| policy.pod_selector = Some(label("app", "web"))), true),
        (of(&|policy| policy.pod_selector = Some(label("app", "db"))), false),
        (of(&|policy| policy.pod_selector = Some(label("other", "web"))), false),
        (of(&|policy| policy.pod_selector = Some(expression(Operator::In, &["db", "web"]))), true),
        (of(&|policy| policy.pod_selector = Some(expression(Operator::In, &["db"]))), false),
        (of(&|policy| policy.pod_selector = Some(expression(Operator::NotIn, &["db"]))), true),
        (of(&|policy| policy.pod_selector = Some(expression(Operator::NotIn, &["web"]))), false),
        (of(&|policy| policy.pod_selector = Some(expression(Operator::Exists, &[]))), true),
        (of(&|policy| policy.pod_selector = Some(expression(Operator::DoesNotExist, &[]))), false),
        (of(&|policy| policy.service_accounts = Some(vec!["builder".to_owned()])), true),
        (of(&|policy| policy.service_accounts = Some(vec!["reader".to_owned()])), false),
        (of(&|policy| policy.service_accounts = Some(Vec::new())), false),
        (Policy::namespaced("shop", "p", everything()), false),
    ];
    for (policy, selected) in cases {
        let mut world = world(vec![policy]);
        world.pods[0].labels.insert("app".to_owned(), "web".to_owned());
        world.pods[0].service_account = Some("builder".to_owned());
        let decider = if selected { rule("p", 1) } else { Decider::Default };
        sides(&world).decide(web("1.2.3.4"), !selected, &decider);
        let decider = if selected { rule("p", 2) } else { Decider::Default };
        sides(&world).decide(web("2001:db8::1"), !selected, &decider);
    }
}

#[test]
fn section_2_6_a_cluster_policy_applies_by_the_labels_of_the_namespace() {
    let name_label = "kubernetes.io/metadata.name";
    for (key, value, selected) in
        [("team", "blue", true), ("team", "red", false), (name_label, "default", true), (name_label, "shop", false)]
    {
        let mut policy = Policy::cluster(Tier::Baseline, "p", vec![deny("0.0.0.0/0"), deny("::/0")]);
        policy.namespace_selector =
            Some(Selector { labels: [(key.to_owned(), value.to_owned())].into(), expressions: Vec::new() });
        let mut world = world(vec![policy]);
        world.namespaces.insert("default".to_owned(), [("team".to_owned(), "blue".to_owned())].into());
        world.namespaces.insert("shop".to_owned(), [("team".to_owned(), "red".to_owned())].into());
        let decider = |number| {
            if selected { cluster_rule("p", number) } else { Decider::Default }
        };
        sides(&world).decide(web("1.2.3.4"), !selected, &decider(1));
        sides(&world).decide(web("2001:db8::1"), !selected, &decider(2));
    }
}

#[test]
fn section_3_4_a_port_entry_matches_its_protocol_and_its_ports_to_both_ends() {
    let ports = [
        Ports::range(Protocol::Tcp, 100, 200),
        Ports { protocol: Protocol::Udp, port: Some(53), end: None },
        Ports::all(Protocol::Sctp),
        Ports::all(Protocol::Icmp),
        Ports::all(Protocol::Icmpv6),
    ];
    let world = world(vec![namespaced("p", vec![on(deny("0.0.0.0/0"), &ports), on(deny("::/0"), &ports)])]);
    let sides = sides(&world);
    for (destination, number) in [("1.2.3.4", 1), ("2001:db8::1", 2)] {
        for (protocol, port) in [
            (TCP, 100),
            (TCP, 150),
            (TCP, 200),
            (UDP, 53),
            (132, 0),
            (132, 65535),
            (1, 0),
            (1, 8),
            (1, 255),
            (58, 1),
            (58, 128),
        ] {
            sides.decide(packet(destination, protocol, port), false, &rule("p", number));
        }
        for (protocol, port) in
            [(TCP, 99), (TCP, 201), (UDP, 52), (UDP, 54), (UDP, 100), (47, 0), (0, 0), (255, 0), (2, 0)]
        {
            sides.decide(packet(destination, protocol, port), true, &Decider::Default);
        }
    }
}

#[test]
fn section_3_5_any_and_no_ports_cover_every_protocol() {
    for rules in [
        vec![deny("0.0.0.0/0"), deny("::/0")],
        vec![on(deny("0.0.0.0/0"), &[Ports::all(Protocol::Any)]), on(deny("::/0"), &[Ports::all(Protocol::Any)])],
    ] {
        let world = world(vec![namespaced("p", rules)]);
        let sides = sides(&world);
        for protocol in 0..=255 {
            sides.decide(packet("1.2.3.4", protocol, 0), false, &rule("p", 1));
            sides.decide(packet("2001:db8::1", protocol, 0), false, &rule("p", 2));
        }
    }
}

#[test]
fn section_3_6_an_unknown_port_is_judged_only_where_no_port_matters() {
    let ports = [Ports::range(Protocol::Tcp, 1, 65535)];
    let world = world(vec![namespaced(
        "p",
        vec![
            on(deny("1.0.0.0/8"), &ports),
            on(deny("2001:db8::/32"), &ports),
            deny("2.0.0.0/8"),
            deny("2001:db9::/32"),
        ],
    )]);
    let sides = sides(&world);
    let oracle = Oracle::new(&world);
    let pod = &world.pods[0];
    for destination in ["1.2.3.4", "2001:db8::1"] {
        let destination = destination.parse().expect("an address");
        // Port 0 is not covered by 1–65535.
        assert_eq!(oracle.evaluate_any_port(pod, destination, TCP), AnyPort::Depends);
        assert_eq!(sides.compiled.answer_any_port(destination, TCP), None);
        assert!(
            matches!(oracle.evaluate_any_port(pod, destination, UDP), AnyPort::Same(outcome) if outcome.verdict.allow)
        );
        assert!(sides.compiled.answer_any_port(destination, UDP).is_some_and(|(verdict, _)| verdict.allow));
    }
    for destination in ["2.2.3.4", "2001:db9::1"] {
        let destination = destination.parse().expect("an address");
        assert!(
            matches!(oracle.evaluate_any_port(pod, destination, TCP), AnyPort::Same(outcome) if !outcome.verdict.allow)
        );
        assert!(sides.compiled.answer_any_port(destination, TCP).is_some_and(|(verdict, _)| !verdict.allow));
    }
}

#[test]
fn section_4_1_order_decides_and_not_prefix_length() {
    let forward = world(vec![namespaced(
        "p",
        vec![deny("10.0.0.0/8"), allow("10.1.0.0/16"), deny("2001:db8::/32"), allow("2001:db8:1::/48")],
    )]);
    sides(&forward).decide(web("10.1.2.3"), false, &rule("p", 1));
    sides(&forward).decide(web("2001:db8:1::3"), false, &rule("p", 3));
    let reverse = world(vec![namespaced(
        "p",
        vec![allow("10.1.0.0/16"), deny("10.0.0.0/8"), allow("2001:db8:1::/48"), deny("2001:db8::/32")],
    )]);
    sides(&reverse).decide(web("10.1.2.3"), true, &rule("p", 1));
    sides(&reverse).decide(web("10.2.2.3"), false, &rule("p", 2));
    sides(&reverse).decide(web("2001:db8:1::3"), true, &rule("p", 3));
    sides(&reverse).decide(web("2001:db8:2::3"), false, &rule("p", 4));
}

#[test]
fn section_4_3_rules_that_earlier_ones_cover_together_are_reported_and_the_others_are_not() {
    for (low, high, whole) in [
        ("10.0.0.0/25", "10.0.0.128/25", "10.0.0.0/24"),
        ("0.0.0.0/1", "128.0.0.0/1", "0.0.0.0/0"),
        ("2001:db8::/33", "2001:db8:8000::/33", "2001:db8::/32"),
        ("::/1", "8000::/1", "::/0"),
    ] {
        let covered = world(vec![namespaced("p", vec![deny(low), allow(high), deny(whole)])]);
        assert_eq!(shadowed(&sides(&covered).compiled.rules), [rule("p", 3)], "{whole}");
        let half = world(vec![namespaced("p", vec![deny(low), deny(whole), allow(high)])]);
        assert_eq!(shadowed(&sides(&half).compiled.rules), [rule("p", 3)], "{whole}");
        let open =
            world(vec![namespaced("p", vec![deny(low), on(allow(high), &[Ports::all(Protocol::Tcp)]), deny(whole)])]);
        assert_eq!(shadowed(&sides(&open).compiled.rules), [], "{whole}");
    }
}

#[test]
fn a_node_selector_matches_the_addresses_of_the_nodes_it_selects() {
    let selector = Selector { labels: [("zone".to_owned(), "a".to_owned())].into(), expressions: Vec::new() };
    let nodes = Rule { peer: Peer::Nodes(selector), ..deny("0.0.0.0/0") };
    let mut world = world(vec![namespaced("p", vec![nodes])]);
    for (zone, last) in [("a", 1), ("b", 2)] {
        world.node.nodes.push(NodeAddresses {
            labels: [("zone".to_owned(), zone.to_owned())].into(),
            addresses: vec![[192, 0, 2, last].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()].into()],
        });
    }
    let sides = sides(&world);
    sides.decide(web("192.0.2.1"), false, &rule("p", 1));
    sides.decide(web("2001:db8::1"), false, &rule("p", 1));
    sides.decide(web("192.0.2.2"), true, &Decider::Default);
    sides.decide(web("2001:db8::2"), true, &Decider::Default);
}

#[test]
fn excluded_prefixes_come_after_the_internal_ones_and_before_every_policy() {
    let mut world = world(vec![Policy::cluster(Tier::Admin, "no", vec![deny("0.0.0.0/0"), deny("::/0")])]);
    world.config.excluded = vec![prefix("10.0.0.0/8"), prefix("fd00::/8")];
    world.config.internal = Some(vec![prefix("10.1.0.0/16"), prefix("fd01::/16")]);
    let sides = sides(&world);
    for (excluded, internal, denied, number) in
        [("10.2.0.1", "10.1.0.1", "11.0.0.1", 1), ("fd02::1", "fd01::1", "fc00::1", 2)]
    {
        sides.decide(web(excluded), true, &Decider::Builtin(Builtin::Excluded));
        sides.decide(web(internal), true, &Decider::Builtin(Builtin::Internal));
        sides.decide(web(denied), false, &cluster_rule("no", number));
    }
}
