//! Worlds chosen to hurt: every prefix length nested, a full /24 of host routes, nothing at all, the largest policy, a class of
//! many intervals, a hundred thousand prefixes. Each IPv4 case has its IPv6 twin.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use egress_policy::compile::{CompileError, Limits, compile};
use egress_reference::{
    Action, Config, Decider, Mode, Oracle, Packet, Peer, Pod, Policy, Ports, Prefix, Protocol, Random, Rule, Tier,
    World,
};

use crate::bridge::{Compiled, compile_world, expected, identity, node_context, read_world};

const TCP: u8 = 6;

fn client() -> Pod {
    Pod::new("default", "client")
}

/// A world with one enforced policy of these rules for the one pod.
fn world_of(rules: Vec<Rule>) -> World {
    World { policies: vec![Policy::namespaced("default", "rules", rules)], ..World::empty() }
}

fn compiled(world: &World) -> Compiled {
    compile_world(world).expect("a valid world").remove(0)
}

fn assert_agrees(world: &World, compiled: &Compiled, packet: Packet) {
    let outcome = Oracle::new(world).evaluate(&client(), &packet);
    assert_eq!(compiled.answer(&packet), expected(&outcome), "{packet}");
}

/// Asks about `destination` and its neighbours.
fn assert_agrees_around(world: &World, compiled: &Compiled, destination: IpAddr, port: u16) {
    let around = match destination {
        IpAddr::V4(address) => {
            [-1, 0, 1].map(|step| IpAddr::V4(Ipv4Addr::from_bits(address.to_bits().wrapping_add_signed(step))))
        }
        IpAddr::V6(address) => {
            [-1, 0, 1].map(|step| IpAddr::V6(Ipv6Addr::from_bits(address.to_bits().wrapping_add_signed(step))))
        }
    };
    for destination in around {
        assert_agrees(world, compiled, Packet { destination, protocol: TCP, port });
    }
}

fn alternating(number: usize) -> Action {
    if number.is_multiple_of(2) { Action::Deny } else { Action::Allow }
}

/// All lengths around `anchor`, in the order given; each with the ports below its length as well as without ports.
fn assert_chain_agrees(anchor: IpAddr, lengths: &[u8]) {
    let prefixes: Vec<Prefix> = lengths.iter().map(|length| Prefix::new(anchor, *length)).collect();
    let plain = prefixes.iter().enumerate().map(|(number, prefix)| Rule::cidr(alternating(number), *prefix));
    let with_ports = prefixes.iter().enumerate().map(|(number, prefix)| Rule {
        ports: Some(vec![Ports::range(Protocol::Tcp, 1, u16::from(prefix.length) + 1)]),
        ..Rule::cidr(alternating(number), *prefix)
    });
    for world in [world_of(plain.clone().collect()), world_of(with_ports.chain(plain).collect())] {
        let compiled = compiled(&world);
        for prefix in &prefixes {
            for port in [0, u16::from(prefix.length), u16::from(prefix.length) + 1, u16::from(prefix.length) + 2] {
                assert_agrees_around(&world, &compiled, prefix.first(), port);
                assert_agrees_around(&world, &compiled, prefix.last(), port);
            }
        }
    }
}

#[test]
fn a_chain_of_all_33_lengths_agrees_narrowest_first_and_widest_first() {
    let lengths: Vec<u8> = (0..=32).collect();
    let narrowest_first: Vec<u8> = lengths.iter().rev().copied().collect();
    for anchor in ["0.0.0.0", "203.0.113.77", "255.255.255.255"] {
        assert_chain_agrees(anchor.parse().unwrap(), &lengths);
        assert_chain_agrees(anchor.parse().unwrap(), &narrowest_first);
    }
}

#[test]
fn a_chain_of_all_129_lengths_agrees_narrowest_first_and_widest_first() {
    let lengths: Vec<u8> = (0..=128).collect();
    let narrowest_first: Vec<u8> = lengths.iter().rev().copied().collect();
    for anchor in ["::", "2001:db8:1:2:3:4:5:6", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
        assert_chain_agrees(anchor.parse().unwrap(), &lengths);
        assert_chain_agrees(anchor.parse().unwrap(), &narrowest_first);
    }
}

/// Every host of a 256-address net, some with ports, one in 16 missing, before a rule for the whole net.
fn assert_full_net_agrees(net: Prefix, host: impl Fn(u8) -> IpAddr) {
    let mut rules: Vec<Rule> = (0..=255_u8)
        .filter(|last| last % 16 != 7)
        .map(|last| Rule {
            ports: (last % 3 == 0).then(|| vec![Ports::range(Protocol::Tcp, 80, 80 + u16::from(last))]),
            ..Rule::cidr(alternating(last.into()), Prefix::host(host(last)))
        })
        .collect();
    rules.push(Rule::cidr(Action::Allow, net));
    rules.push(Rule::cidr(Action::Deny, Prefix::new(net.address, 0)));
    let world = world_of(rules);
    let compiled = compiled(&world);
    for last in 0..=255 {
        for port in [79, 80, 80 + u16::from(last), 81 + u16::from(last)] {
            assert_agrees_around(&world, &compiled, host(last), port);
        }
    }
}

#[test]
fn every_host_of_a_24_agrees() {
    let net: IpAddr = "1.2.3.0".parse().unwrap();
    assert_full_net_agrees(Prefix::new(net, 24), |last| IpAddr::from([1, 2, 3, last]));
}

#[test]
fn every_host_of_a_120_agrees() {
    let net: IpAddr = "2001:db8::".parse().unwrap();
    assert_full_net_agrees(Prefix::new(net, 120), |last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()]));
}

#[test]
fn without_policies_the_default_action_decides_both_families() {
    for default_allow in [true, false] {
        let mut world = World::empty();
        world.config = Config { default_allow, internal: Some(Vec::new()), ..Config::default() };
        let compiled = compiled(&world);
        for destination in ["1.2.3.4", "0.0.0.0", "255.255.255.255", "2001:db8::1", "::", "ffff::"] {
            let destination = destination.parse().unwrap();
            let packet = Packet { destination, protocol: TCP, port: 443 };
            let (verdict, audit) = compiled.answer(&packet);
            assert_eq!((verdict.allow, verdict.decider, audit), (default_allow, Decider::Default, None), "{packet}");
            assert_agrees(&world, &compiled, packet);
        }
        assert_eq!(compiled.rules.is_trivial(), default_allow);
    }
}

#[test]
fn the_openshift_example_and_its_reverse_differ_only_in_order() {
    let allow = Rule::cidr(Action::Allow, Prefix::new("1.2.3.0".parse().unwrap(), 24));
    let deny = Rule::cidr(Action::Deny, Prefix::new("0.0.0.0".parse().unwrap(), 0));
    let inside = Packet { destination: "1.2.3.4".parse().unwrap(), protocol: TCP, port: 443 };
    let outside = Packet { destination: "1.2.4.4".parse().unwrap(), protocol: TCP, port: 443 };
    let forward = compiled(&world_of(vec![allow.clone(), deny.clone()]));
    assert!(forward.answer(&inside).0.allow && !forward.answer(&outside).0.allow);
    let reversed = compiled(&world_of(vec![deny, allow]));
    assert!(!reversed.answer(&inside).0.allow && !reversed.answer(&outside).0.allow);
}

#[test]
fn the_openshift_example_and_its_reverse_differ_only_in_order_over_ipv6() {
    let allow = Rule::cidr(Action::Allow, Prefix::new("2001:db8::".parse().unwrap(), 64));
    let deny = Rule::cidr(Action::Deny, Prefix::new("::".parse().unwrap(), 0));
    let inside = Packet { destination: "2001:db8::4".parse().unwrap(), protocol: TCP, port: 443 };
    let outside = Packet { destination: "2001:db9::4".parse().unwrap(), protocol: TCP, port: 443 };
    let forward = compiled(&world_of(vec![allow.clone(), deny.clone()]));
    assert!(forward.answer(&inside).0.allow && !forward.answer(&outside).0.allow);
    let reversed = compiled(&world_of(vec![deny, allow]));
    assert!(!reversed.answer(&inside).0.allow && !reversed.answer(&outside).0.allow);
}

/// A rule for a random prefix, as a long list of a user's would have them.
fn listed_rule(number: usize, random: &mut Random) -> Rule {
    let prefix = if random.chance(60) {
        let length = *random.pick(&[32, 32, 24, 24, 28, 22, 16]);
        Prefix::new(IpAddr::V4(Ipv4Addr::from_bits(low32(random))), length).masked()
    } else {
        let length = *random.pick(&[128, 64, 48, 56, 32]);
        Prefix::new(IpAddr::V6(Ipv6Addr::from_bits((0x2001 << 112) | (random.wide() >> 16))), length).masked()
    };
    let port = u16::try_from(random.between(1, 1000)).unwrap();
    Rule {
        ports: random.chance(10).then(|| vec![Ports::range(Protocol::Tcp, port, port + 10)]),
        ..Rule::cidr(alternating(number), prefix)
    }
}

fn low32(random: &mut Random) -> u32 {
    u32::try_from(random.bits() >> 32).expect("32 bits")
}

fn sample_agrees(world: &World, compiled: &Compiled, packets: usize, random: &mut Random) {
    let pod = client();
    for _ in 0..packets {
        assert_agrees(world, compiled, world.packet(&pod, random));
    }
}

#[test]
fn a_policy_of_8000_rules_agrees() {
    let random = &mut Random::new(8_000);
    let world = world_of((0..8_000).map(|number| listed_rule(number, random)).collect());
    sample_agrees(&world, &compiled(&world), 400, random);
}

#[test]
fn a_list_of_100000_prefixes_agrees() {
    let random = &mut Random::new(100_000);
    let mut world = World::empty();
    for policy in 0..13 {
        let rules = (0..8_000).map(|number| listed_rule(number, random)).collect();
        let name = format!("list-{policy:02}");
        world.policies.push(match policy {
            0 => Policy::cluster(Tier::Admin, &name, rules),
            12 => Policy::cluster(Tier::Baseline, &name, rules),
            _ => Policy::namespaced("default", &name, rules),
        });
    }
    let compiled = compiled(&world);
    assert!(compiled.table.prefixes4.len() + compiled.table.prefixes6.len() > 90_000);
    sample_agrees(&world, &compiled, 300, random);
}

/// Rules for one destination, each for a port of its own with a gap behind it.
fn combs(protocols: &[Protocol], teeth: u16, destination: &str) -> World {
    let destination: IpAddr = destination.parse().unwrap();
    let mut world = World::empty();
    for (number, protocol) in protocols.iter().enumerate() {
        for part in 0..teeth.div_ceil(8_000) {
            let rules = (part * 8_000..teeth.min((part + 1) * 8_000)).map(|tooth| Rule {
                ports: Some(vec![Ports { protocol: *protocol, port: Some(1 + 2 * tooth), end: None }]),
                ..Rule::cidr(Action::Deny, Prefix::host(destination))
            });
            world.policies.push(Policy::namespaced("default", &format!("comb-{number}-{part}"), rules.collect()));
        }
    }
    world
}

#[test]
fn a_class_of_16001_intervals_agrees() {
    for destination in ["1.2.3.4", "2001:db8::1"] {
        let world = combs(&[Protocol::Tcp], 8_000, destination);
        let compiled = compiled(&world);
        for port in [0, 1, 2, 3, 7_999, 8_000, 15_997, 15_998, 15_999, 16_000, 16_001, 65_535] {
            for protocol in [5, 6, 7, 17] {
                let destination = destination.parse().unwrap();
                assert_agrees(&world, &compiled, Packet { destination, protocol, port });
            }
        }
    }
}

#[test]
fn a_class_of_more_intervals_than_the_kernel_searches_is_refused_with_numbers() {
    let world = combs(&[Protocol::Tcp, Protocol::Udp], 32_767, "1.2.3.4");
    let set = read_world(&world).unwrap();
    let rules = set.rule_list(&identity(&client()), &node_context(&world.node));
    let refusal = compile(&rules, &Limits::default()).map(|table| table.classes.len());
    let Err(CompileError::Capacity { needed, limit, .. }) = refusal else { panic!("{refusal:?}") };
    assert!(needed > limit, "{needed} {limit}");
}

#[test]
fn the_audit_verdict_of_a_policy_in_audit_mode_is_told_and_changes_nothing() {
    for (destination, net) in [("1.2.3.4", ("1.2.3.0", 24)), ("2001:db8::4", ("2001:db8::", 64))] {
        let mut world = world_of(vec![Rule::cidr(Action::Deny, Prefix::new(net.0.parse().unwrap(), net.1))]);
        let packet = Packet { destination: destination.parse().unwrap(), protocol: TCP, port: 443 };
        assert!(!compiled(&world).answer(&packet).0.allow);
        world.policies[0].mode = Mode::Audit;
        let (verdict, audit) = compiled(&world).answer(&packet);
        assert!(verdict.allow);
        assert!(audit.is_some_and(|audit| !audit.allow));
    }
}

#[test]
fn an_exception_falls_through_to_the_rule_behind() {
    for (inside, excepted, net, inner) in [
        ("10.2.0.1", "10.1.0.1", ("10.0.0.0", 8), ("10.1.0.0", 16)),
        ("2001:db8:2::1", "2001:db8:1::1", ("2001:db8::", 32), ("2001:db8:1::", 48)),
    ] {
        let mut rule = Rule::cidr(Action::Deny, Prefix::new(net.0.parse().unwrap(), net.1));
        if let Peer::Cidr { except, .. } = &mut rule.peer {
            except.push(Prefix::new(inner.0.parse().unwrap(), inner.1));
        }
        let compiled = compiled(&world_of(vec![rule]));
        let packet = |text: &str| Packet { destination: text.parse().unwrap(), protocol: TCP, port: 443 };
        assert!(!compiled.answer(&packet(inside)).0.allow);
        let (verdict, _) = compiled.answer(&packet(excepted));
        assert_eq!((verdict.allow, verdict.decider), (true, Decider::Default));
    }
}

#[test]
fn a_mapped_destination_or_prefix_is_the_ipv4_one_inside() {
    for net in [("1.2.3.0", 24), ("::ffff:1.2.3.0", 120)] {
        let world = world_of(vec![Rule::cidr(Action::Deny, Prefix::new(net.0.parse().unwrap(), net.1))]);
        let compiled = compiled(&world);
        for (destination, allow) in
            [("1.2.3.4", false), ("::ffff:1.2.3.4", false), ("1.2.4.4", true), ("::ffff:1.2.4.4", true)]
        {
            let packet = Packet { destination: destination.parse().unwrap(), protocol: TCP, port: 443 };
            assert_eq!(compiled.answer(&packet).0.allow, allow, "{packet}");
            assert_agrees(&world, &compiled, packet);
        }
    }
}
