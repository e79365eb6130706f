//! The shorter ways of frequent packets, where they end: interfaces that share a place, classes that are longer than a block, connections that
//! were found a moment ago.

use std::process::Command;

use egress_agent::datapath::{Desired, DesiredEndpoint, Interface};
use egress_common::abi::capacity;
use egress_common::event::{Hook, outcome};
use egress_common::flow::FlowKey;
use egress_common::reason::DropReason;
use egress_packets::{Expect, Frame, Hooks, Lab, Policies, Setup, is_root, tcp_flag};
use egress_policy::model::{NodeContext, PodIdentity};

use crate::sides::{DEFAULT, DENY_ALL, INTERNAL, POLICY, SIDES, Side};

/// An interface whose place is that of the loopback.
const TWIN: u32 = 1 + capacity::INTERFACES;

/// An endpoint that is known by an interface, under the policy of `text`.
pub(crate) fn endpoint(name: &str, interface: &str, index: u32, text: &str) -> DesiredEndpoint {
    let policies = Policies::compile(
        [text],
        &PodIdentity { namespace: "default".to_owned(), ..PodIdentity::default() },
        &NodeContext::default(),
    );
    DesiredEndpoint {
        name: name.to_owned(),
        interface: Some(Interface { name: interface.to_owned(), index }),
        netns: None,
        namespace: None,
        cgroup: None,
        is_resolver: false,
        table: policies.table,
        fallback: None,
    }
}

fn apply(lab: &mut Lab, endpoints: Vec<DesiredEndpoint>) {
    let applied = lab.apply_desired(&Desired { endpoints, ..Desired::default() });
    assert!(applied.problems.is_empty(), "{applied:?}");
}

/// Both families: what is open under [`POLICY`].
fn open() -> [Vec<u8>; 2] {
    SIDES.map(|side| Frame::tcp(side.open, 443, tcp_flag::ACK).bytes())
}

#[test]
fn two_interfaces_of_one_place_are_each_judged_by_their_own_table() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::with(Setup::default(), DENY_ALL);
    let index = TWIN.to_string();
    let made = Command::new("ip").args(["link", "add", "twin", "index", &index, "type", "veth"]).status();
    assert!(made.expect("ip runs").success());
    let (first, twin) =
        (|text| endpoint("default/first", "lo", 1, text), |text| endpoint("default/twin", "twin", TWIN, text));
    // Whoever comes last has the place; the other one is found by its key.
    for (at_first, at_twin) in [(POLICY, DENY_ALL), (DENY_ALL, POLICY)] {
        for order in [[0, 1], [1, 0]] {
            apply(&mut lab, Vec::new());
            let both = [first(at_first), twin(at_twin)];
            apply(&mut lab, vec![both[order[0]].clone()]);
            apply(&mut lab, both.to_vec());
            for frame in open() {
                assert_eq!(lab.passes_at(1, &frame), at_first == POLICY, "{order:?}");
                assert_eq!(lab.passes_at(TWIN, &frame), at_twin == POLICY, "{order:?}");
            }
            // The one that stays is judged whether or not it had the place; the other one is nobody's.
            apply(&mut lab, vec![both[1].clone()]);
            for frame in open() {
                assert!(lab.passes_at(1, &frame), "{order:?}");
                assert_eq!(lab.passes_at(TWIN, &frame), at_twin == POLICY, "{order:?}");
            }
        }
    }
}

#[test]
fn a_class_longer_than_a_block_is_searched_to_its_ends() {
    if !is_root() {
        return;
    }
    // Every second port: more intervals than a block has entries. Beside it a class of one port.
    let ports: Vec<String> = (0..40).map(|number| format!("{{protocol: TCP, port: {}}}", 1000 + 2 * number)).collect();
    let rule =
        |cidr: &str, ports: &str| format!("  - {{type: Allow, to: {{cidrSelector: '{cidr}'}}, ports: [{ports}]}}\n");
    let text = format!(
        "{DENY_ALL}---\napiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: p}}\nspec:\n  egress:\n{}{}{}{}",
        rule("1.2.3.0/24", &ports.join(", ")),
        rule("2001:db8:1::/64", &ports.join(", ")),
        rule("5.5.5.0/24", "{protocol: TCP, port: 1000}"),
        rule("2001:db8:5::/64", "{protocol: TCP, port: 1000}"),
    );
    let mut lab = Lab::new(&text);
    for (side, number) in SIDES.iter().zip(1..) {
        let (long, short) = (format!("rule {number} of default/p"), format!("rule {} of default/p", number + 2));
        for port in 995..1085 {
            let in_long = (1000..1080).contains(&port) && port % 2 == 0;
            let row = side.row(&port.to_string());
            let expect = |allowed, rule| if allowed { Expect::Allow(rule) } else { Expect::Deny(DEFAULT) };
            lab.check(&row, Hooks::Both, &Frame::syn(side.open, port).bytes(), expect(in_long, &long));
            lab.check(&row, Hooks::Both, &Frame::syn(side.ports, port).bytes(), expect(port == 1000, &short));
            lab.check(&row, Hooks::Both, &Frame::udp(side.open, port).bytes(), Expect::Deny(DEFAULT));
        }
    }
}

fn flow(lab: &Lab, hook: Hook) -> Option<FlowKey> {
    let flows = lab.flows(hook);
    assert!(flows.len() < 2, "{flows:?}");
    flows.first().map(|(key, _)| *key)
}

/// Sends, forgets the connection, lets `periods` pass, sends again: whether it was remembered anew.
fn is_remembered_anew(lab: &mut Lab, side: &Side, hook: Hook, periods: u32) -> bool {
    let frame = Frame::udp(side.open, 5000).bytes();
    let expect = Expect::Allow(side.open_rule);
    lab.forget();
    let seen = lab.send(hook, &frame);
    lab.compare(&side.row("first"), hook, &frame, expect, &seen);
    let key = flow(lab, hook).expect("remembered");
    lab.forget_flow(key);
    lab.age_recent(key, periods);
    let seen = lab.send(hook, &frame);
    lab.compare(&side.row("second"), hook, &frame, expect, &seen);
    flow(lab, hook).is_some()
}

#[test]
fn a_connection_that_was_just_found_is_not_asked_for_again_and_two_periods_later_it_is() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for (side, hook) in SIDES.into_iter().flat_map(|side| [(side, Hook::TcFromPod), (side, Hook::CgroupEgress)]) {
        let mut anew = |periods| is_remembered_anew(&mut lab, &side, hook, periods);
        // A period may end between two packets, so the second attempt may be needed.
        assert!((0..2).any(|_| !anew(0)), "{hook:?}, {}: not left alone", side.row("now"));
        assert!((0..2).any(|_| !anew(1)), "{hook:?}, {}: not left alone", side.row("a period later"));
        assert!(anew(2), "{hook:?}, {}: not asked for", side.row("two periods later"));
        assert!(anew(200), "{hook:?}, {}: not asked for", side.row("long after"));
    }
}

#[test]
fn a_connection_that_was_just_found_is_judged_like_any_other() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        let frame = Frame::udp(side.open, 5000);
        for _ in 0..2 {
            lab.apply(POLICY);
            lab.check(&side.row("allowed"), Hooks::Both, &frame.bytes(), Expect::Allow(side.open_rule));
            lab.receive(&frame.clone().turned());
            lab.apply(DENY_ALL);
            lab.receive(&frame.clone().turned());
            lab.check(&side.row("denied"), Hooks::Both, &frame.bytes(), Expect::Deny(DEFAULT));
        }
        lab.forget();
    }
}

#[test]
fn what_is_told_of_allowed_connections_is_told_of_whole_packets_too() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::with(Setup::default(), POLICY);
    for tells in [true, false] {
        lab.datapath().tell_allowed(tells).expect("told");
        for side in SIDES {
            let first = usize::from(tells);
            let told = [
                ("SYN", Frame::syn(side.open, 443), first),
                ("ACK", Frame::tcp(side.open, 443, tcp_flag::ACK), 0),
                ("first datagram", Frame::udp(side.open, 5000), first),
                ("second datagram", Frame::udp(side.open, 5000), 0),
                ("SYN to the inside", Frame::syn(side.inside, 443), 0),
            ];
            for (what, frame, times) in told {
                let seen = lab.send(Hook::TcFromPod, &frame.bytes());
                let outcomes: Vec<u8> = seen.events.iter().map(|event| event.outcome).collect();
                let row = side.row(what);
                assert_eq!(outcomes, vec![outcome::ALLOWED; times], "{row}, tells: {tells}");
                assert_eq!(seen.counted.len(), 1, "{row}: {seen:?}");
            }
            lab.forget();
        }
    }
}

#[test]
fn no_resolver_can_be_feigned_under_rules_without_names() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let resolvers = Setup::default().node.resolvers;
    for (side, resolver) in SIDES.into_iter().zip(resolvers) {
        for (to, rule) in [(side.open, side.open_rule), (side.inside, INTERNAL)] {
            let datagram = |port| Frame::udp(to, 40_000).from_port(port);
            let allowed = Expect::Allow(rule);
            // First the pod's own, so that the connection is known: it has the same ports.
            lab.check(&side.row("from an address of its own"), Hooks::Tc, &datagram(53).bytes(), allowed);
            let spoofed = datagram(53).from(resolver).bytes();
            let dropped = Expect::Drop(DropReason::SpoofedResolver);
            lab.check(&side.row("from the resolver's port"), Hooks::Tc, &spoofed, dropped);
            let other = datagram(54).from(resolver).bytes();
            lab.check(&side.row("from another port"), Hooks::Tc, &other, allowed);
        }
    }
}
