//! The kernel is held to the independent oracle: random worlds through the production path, random packets through the programs;
//! verdict, counted rule, audit and events must be the oracle's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use egress_common::event::Hook;
use egress_common::reason::DropReason;
use egress_packets::{Expect, Frame, Lab, Policies, Transport, is_root};
use egress_policy::model::{NodeContext, NodeInfo, PodIdentity};
use egress_reference::{AnyPort, Builtin, Decider, Oracle, Outcome, Packet, Pod, Random, Verdict, World};

/// Worlds after which what was not reached is missed.
const MOST: u64 = 1000;
/// Worlds that must be asked at least, packets in each, and how long more worlds are asked.
const LEAST: u64 = 12;
const PACKETS: usize = 150;
const TIME: Duration = Duration::from_secs(15);

fn identity(pod: &Pod) -> PodIdentity {
    PodIdentity {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        labels: pod.labels.clone(),
        service_account: pod.service_account.clone(),
    }
}

fn node(world: &World) -> NodeContext {
    let info = |node: &egress_reference::NodeAddresses| NodeInfo {
        labels: node.labels.clone(),
        addresses: node.addresses.clone(),
    };
    NodeContext {
        resolvers: world.node.resolvers.clone(),
        node_addresses: world.node.addresses.clone(),
        nodes: world.node.nodes.iter().map(info).collect(),
        services: Vec::new(),
    }
}

fn policies(world: &World, pod: &Pod) -> Policies {
    let files = world.files(world.seed);
    Policies::compile(files.iter().map(|file| file.text.as_str()), &identity(pod), &node(world))
}

/// What messages call the rule that the oracle names.
fn origin(verdict: &Verdict, packet: &Packet) -> String {
    match &verdict.decider {
        Decider::Builtin(Builtin::Internal) => "internal CIDRs".to_owned(),
        Decider::Builtin(Builtin::Dns) => "DNS to trusted resolvers".to_owned(),
        Decider::Builtin(Builtin::Excluded) => "excluded CIDRs".to_owned(),
        Decider::Builtin(Builtin::LinkControl) => match packet.protocol {
            58 => "link control (neighbour discovery)".to_owned(),
            2 => "link control (IGMP)".to_owned(),
            _ if packet.destination.is_ipv4() => "link control (DHCPv4)".to_owned(),
            _ => "link control (DHCPv6)".to_owned(),
        },
        Decider::Rule { policy, number } => format!("rule {number} of {policy}"),
        Decider::Service { service, endpoint, .. } => format!("Service {service}, which leads to {endpoint}"),
        Decider::Default => "default action".to_owned(),
    }
}

/// The frame of a packet; none where the protocol number means an extension header.
fn frame(packet: &Packet) -> Option<Frame> {
    let destination = packet.destination.to_canonical();
    let port = packet.port;
    let transport = match packet.protocol {
        6 => return Some(Frame::syn(destination, port)),
        17 => return Some(Frame::udp(destination, port)),
        132 => return Some(Frame::sctp(destination, port, 1)),
        0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 if destination.is_ipv6() => return None,
        1 | 58 => {
            Transport::Raw { protocol: packet.protocol, data: vec![u8::try_from(port).ok()?, 0, 0, 0, 0, 0, 0, 0] }
        }
        protocol => Transport::Raw { protocol, data: vec![9; 12] },
    };
    Some(Frame::new(destination, transport))
}

fn expect<'a>(outcome: &Outcome, real: &'a str, audit: &'a str) -> Expect<'a> {
    match (outcome.verdict.allow, outcome.audit.as_ref().map(|audit| audit.allow)) {
        (true, None) => Expect::Allow(real),
        (false, None) => Expect::Deny(real),
        (true, Some(true)) => Expect::AllowAudited(real, audit),
        (true, Some(false)) => Expect::WouldDeny(real, audit),
        (false, Some(true)) => Expect::WouldAllow(real, audit),
        (false, Some(false)) => Expect::DenyAudited(real, audit),
    }
}

/// Outcomes seen, to show that the test is not vacuous.
type Counts = BTreeMap<String, u64>;

fn count(counts: &mut Counts, what: &str) {
    *counts.entry(what.to_owned()).or_default() += 1;
}

fn observe(counts: &mut Counts, packet: &Packet, outcome: &Outcome) {
    count(counts, if packet.destination.to_canonical().is_ipv4() { "IPv4" } else { "IPv6" });
    count(
        counts,
        &format!("allow {}, audit {:?}", outcome.verdict.allow, outcome.audit.as_ref().map(|audit| audit.allow)),
    );
    count(
        counts,
        match &outcome.verdict.decider {
            Decider::Builtin(Builtin::Internal) => "internal",
            Decider::Builtin(Builtin::LinkControl) => "link control",
            Decider::Builtin(Builtin::Dns) => "DNS",
            Decider::Builtin(Builtin::Excluded) => "excluded",
            Decider::Rule { .. } => "a rule",
            Decider::Service { .. } => "a service",
            Decider::Default => "default",
        },
    );
    let trace = &outcome.trace;
    for (what, is) in [
        ("Pass", trace.passed.is_some()),
        ("except", trace.excepted),
        ("ports differed", trace.ports_differed),
        ("by port", trace.by_port),
        ("by node", trace.by_node),
    ] {
        if is {
            count(counts, what);
        }
    }
}

/// A later fragment whose first one nobody saw.
fn ask_fragment(lab: &mut Lab, world: &World, pod: &Pod, packet: &Packet, id: u16, counts: &mut Counts) {
    let destination: IpAddr = packet.destination.to_canonical();
    if frame(packet).is_none() {
        return;
    }
    let frame = Frame::later(destination, packet.protocol, id, 5).bytes();
    let row = format!("seed {} pod {}/{} {packet}, a later fragment", world.seed, pod.namespace, pod.name);
    match Oracle::new(world).evaluate_any_port(pod, destination, packet.protocol) {
        AnyPort::Depends => {
            count(counts, "fragment: depends");
            lab.check(&row, egress_packets::Hooks::Both, &frame, Expect::Drop(DropReason::UnknownFragment));
        }
        AnyPort::Same(outcome) => {
            let real = origin(&outcome.verdict, packet);
            count(counts, if outcome.verdict.allow { "fragment: allowed" } else { "fragment: denied" });
            let expect = if outcome.verdict.allow { Expect::Allow(&real) } else { Expect::Deny(&real) };
            lab.check(&row, egress_packets::Hooks::Both, &frame, expect);
        }
        AnyPort::SameButAudit(verdict) => {
            let real = origin(&verdict, packet);
            count(counts, "fragment: only audit depends");
            lab.check(
                &row,
                egress_packets::Hooks::Both,
                &frame,
                if verdict.allow { Expect::Allow(&real) } else { Expect::Deny(&real) },
            );
        }
    }
}

fn ask_world(lab: &mut Lab, world: &World, counts: &mut Counts) {
    let random = &mut Random::new(world.seed ^ 0x0007_ac4e);
    let pod = random.pick(&world.pods);
    let applied = lab.apply_policies(policies(world, pod));
    assert!(applied.problems.is_empty(), "seed {}: {applied:?}", world.seed);
    lab.forget();
    let oracle = Oracle::new(world);
    for number in 0..PACKETS {
        let packet = world.packet(pod, random);
        let Some(frame) = frame(&packet) else {
            continue;
        };
        let outcome = oracle.evaluate(pod, &packet);
        let real = origin(&outcome.verdict, &packet);
        let audit = outcome.audit.as_ref().map(|audit| origin(audit, &packet)).unwrap_or_default();
        let row = format!("seed {} pod {}/{} {packet}", world.seed, pod.namespace, pod.name);
        let bytes = frame.bytes();
        let hook = if number % 2 == 0 { Hook::TcFromPod } else { Hook::CgroupEgress };
        let seen = lab.send(hook, &bytes);
        lab.compare(&row, hook, &bytes, expect(&outcome, &real, &audit), &seen);
        observe(counts, &packet, &outcome);
        if number % 8 == 0 {
            ask_fragment(lab, world, pod, &packet, u16::try_from(number).expect("few"), counts);
        }
    }
}

/// What the worlds must have reached; an emulated machine may need many more seconds than [`TIME`] for that.
const WANTED: [&str; 18] = [
    "IPv4",
    "IPv6",
    "allow true, audit None",
    "allow false, audit None",
    "allow true, audit Some(true)",
    "allow true, audit Some(false)",
    "allow false, audit Some(true)",
    "allow false, audit Some(false)",
    "internal",
    "a rule",
    "default",
    "Pass",
    "except",
    "ports differed",
    "by port",
    "fragment: allowed",
    "fragment: denied",
    "fragment: depends",
];

#[test]
fn the_kernel_agrees_with_the_oracle_on_random_worlds() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(crate::sides::DENY_ALL);
    let mut counts = Counts::new();
    let started = Instant::now();
    let first: u64 = std::env::var("EGRESS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut worlds = 0;
    let reached = |counts: &Counts| WANTED.iter().all(|what| counts.contains_key(*what));
    while worlds < LEAST || started.elapsed() < TIME || (worlds < MOST && !reached(&counts)) {
        ask_world(&mut lab, &World::generate(first + worlds), &mut counts);
        worlds += 1;
    }
    println!("{worlds} worlds: {counts:#?}");
    for what in WANTED {
        assert!(counts.contains_key(what), "no {what} in {counts:#?}");
    }
}
