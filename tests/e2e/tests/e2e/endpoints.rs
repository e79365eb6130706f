//! How pods are found: by interface, by network namespace, by cgroup, and what happens when one of them is not there.

use egress_e2e::{
    ALLOWED, DENIED, Evidence as _, Lab, OFFICE, PORT, RULES, Way, at, config, document, ip, policy, reaches, world,
};
use egress_world::probe::{self, Outcome};
use egress_world::{Agent, Endpoint, World, eventually};

/// `cgroup_skb` refuses a packet in the sender's own call, where the kernel passes that on: an IPv6 ping socket does not.
fn refusal(way: Way, remote: &str) -> Outcome {
    if way == Way::Ping && ip(remote).is_ipv6() { Outcome::Silence } else { Outcome::Failed(libc::EPERM) }
}

/// An agent whose endpoints file says of each pod what `change` leaves.
fn lab<'a>(world: &'a World, policies: &str, change: impl Fn(Endpoint) -> Endpoint) -> Lab<'a> {
    let mut agent = Agent::new(world);
    let endpoints: Vec<_> = world.pods().iter().map(|pod| change(pod.endpoint())).collect();
    agent.write_endpoints(&endpoints);
    agent.write("policies.yaml", policies);
    agent.start();
    Lab::with_agent(world, agent)
}

/// Whether a frame gets from the pod to the address.
fn frame_passes(lab: &mut Lab<'_>, pod: &str, remote: &str) -> bool {
    lab.wire.forget();
    assert_eq!(Way::Frame.attempt(lab.world.pod(pod), ip(remote), false).outcome, Outcome::Silence);
    // The outside's RST would come back to the pod, so what is asked for is the pod's own SYN.
    lab.wire.arrived(ip(remote)).iter().any(|seen| seen.source_port == 40_001)
}

/// Ways that a pod without an interface on the node has; whole frames are not among them, for no hook of a cgroup sees those.
const WAYS: [Way; 7] =
    [Way::Tcp, Way::TcpFastOpen, Way::UdpConnected, Way::UdpUnconnected, Way::Ping, Way::RawPing, Way::RawUdp];

#[test]
fn a_pod_without_an_interface_on_the_node_is_judged_by_its_cgroup() {
    let Some(mut world) = world(&[]) else { return };
    if world.add_macvlan_pod("default/macvlan").is_none() {
        eprintln!("SKIPPED: this kernel has no macvlan");
        return;
    }
    let mut lab = lab(&world, &policy(&OFFICE), |endpoint| Endpoint { interface: None, ..endpoint });
    assert_eq!(lab.agent.problems(), "[]");
    for way in WAYS {
        for family in [0, 1] {
            let (allowing, denying) = RULES[family];
            lab.insist_allowed(world.pod("macvlan"), way, ALLOWED[family], allowing);
            lab.insist_denied_with(world.pod("macvlan"), way, DENIED[family], denying, refusal(way, DENIED[family]));
        }
    }
}

#[test]
fn a_pod_known_by_its_namespace_alone_is_found_at_its_interface() {
    let Some(world) = world(&["default/client"]) else { return };
    let without = |endpoint| Endpoint { interface: None, cgroup: None, ..endpoint };
    let mut lab = lab(&world, &policy(&OFFICE), without);
    assert_eq!(lab.agent.problems(), "[]");
    for way in [Way::Tcp, Way::UdpUnconnected, Way::RawUdp, Way::FrameBypass] {
        for family in [0, 1] {
            let (allowing, denying) = RULES[family];
            lab.insist_allowed(world.pod("client"), way, ALLOWED[family], allowing);
            lab.insist_denied(world.pod("client"), way, DENIED[family], denying);
        }
    }
}

#[test]
fn a_pod_known_by_its_interface_alone_is_judged_at_the_interface() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let without = |endpoint| Endpoint { netns: None, cgroup: None, ..endpoint };
    let mut lab = lab(&world, &policy(&OFFICE), without);
    for family in [0, 1] {
        assert!(frame_passes(&mut lab, "client", ALLOWED[family]));
        assert!(!frame_passes(&mut lab, "client", DENIED[family]));
    }
}

#[test]
fn host_network_pods_are_judged_by_cgroup_when_asked_for() {
    let Some(mut world) = world(&[]) else { return };
    world.add_host_network_pod("default/hosted");
    let office = document("office", &[], &OFFICE);
    let mut lab = Lab::new(&world, &(config(&["hostNetworkPods: Enforce"]) + &office));
    let pod = world.pod("hosted");
    for family in [0, 1] {
        let (allowing, denying) = RULES[family];
        for way in WAYS.into_iter().filter(|&way| way != Way::RawUdp) {
            lab.insist_allowed(pod, way, ALLOWED[family], allowing);
            lab.insist_denied_with(pod, way, DENIED[family], denying, refusal(way, DENIED[family]));
        }
        // Other processes of the node are not the pod's.
        let other = world.node().enter(|| probe::tcp_echo(at(DENIED[family], PORT)));
        assert!(other.is_answered(), "{other:?}");
    }
}

#[test]
fn host_network_pods_are_left_alone_otherwise() {
    let Some(mut world) = world(&["default/client"]) else {
        return;
    };
    world.add_host_network_pod("default/hosted");
    let _lab = Lab::new(&world, &policy(&OFFICE));
    assert_eq!(DENIED.map(|remote| reaches(world.pod("hosted"), at(remote, PORT))), [true; 2]);
    assert_eq!(DENIED.map(|remote| reaches(world.pod("client"), at(remote, PORT))), [false; 2]);
}

#[test]
fn a_missing_interface_is_reported_and_does_not_harm_other_pods() {
    let Some(world) = world(&["default/client", "default/other"]) else {
        return;
    };
    let rename = |endpoint: Endpoint| match endpoint.name.as_str() {
        "client" => Endpoint { interface: Some("absent0".to_owned()), ..endpoint },
        _ => endpoint,
    };
    let mut lab = lab(&world, &policy(&OFFICE), rename);
    let problems = lab.agent.problems();
    assert!(problems.contains("absent0") && problems.contains("default/client"), "{problems}");
    for family in [0, 1] {
        let (allowing, denying) = RULES[family];
        lab.insist_denied(world.pod("other"), Way::Frame, DENIED[family], denying);
        lab.insist_allowed(world.pod("other"), Way::Tcp, ALLOWED[family], allowing);
        assert!(!reaches(world.pod("client"), at(DENIED[family], PORT)), "known by its namespace");
    }
}

#[test]
fn an_interface_that_comes_back_under_its_name_is_guarded_again() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    assert!(!frame_passes(&mut lab, "client", DENIED[0]));
    for _ in 0..3 {
        world.replug(world.pod("client"));
        for family in [0, 1] {
            assert!(
                eventually(|| !frame_passes(&mut lab, "client", DENIED[family])),
                "the new interface is not guarded"
            );
            assert!(frame_passes(&mut lab, "client", ALLOWED[family]));
        }
    }
}

/// The kernel gives indices of interfaces again, and what a map says of one must not outlive it.
#[test]
fn pods_that_get_each_others_interface_index_are_judged_by_their_own_rules() {
    let Some(world) = world(&["default/client", "default/other"]) else {
        return;
    };
    let selector = |name: &str| format!("podSelector: {{matchLabels: {{app: {name}}}}}");
    let policies = [
        config(&[]),
        document("office", &[&selector("client")], &OFFICE),
        document(
            "reverse",
            &[&selector("other")],
            &["Allow 5.6.7.0/24", "Allow 2001:db8:2::/48", "Deny 0.0.0.0/0", "Deny ::/0"],
        ),
    ];
    let mut lab = Lab::new(&world, &policies.concat());
    let is_right = |lab: &mut Lab<'_>| {
        [0, 1].iter().all(|&family| {
            frame_passes(lab, "client", ALLOWED[family])
                && !frame_passes(lab, "client", DENIED[family])
                && frame_passes(lab, "other", DENIED[family])
                && !frame_passes(lab, "other", ALLOWED[family])
        })
    };
    assert!(is_right(&mut lab));
    for _ in 0..3 {
        world.exchange_indices(world.pod("client"), world.pod("other"));
        assert!(eventually(|| is_right(&mut lab)), "{}", lab.agent.log());
    }
    // While nobody was there who could have noticed.
    lab.agent.kill();
    world.exchange_indices(world.pod("client"), world.pod("other"));
    lab.agent.start();
    assert!(is_right(&mut lab), "{}", lab.agent.log());
}

#[test]
fn a_pod_that_is_added_to_the_file_is_judged_and_one_that_leaves_it_is_not() {
    let Some(world) = world(&["default/client", "default/other"]) else {
        return;
    };
    let lab = Lab::new(&world, &policy(&OFFICE));
    let refused = |pod: &str| DENIED.map(|remote| !reaches(world.pod(pod), at(remote, PORT)));
    assert_eq!((refused("client"), refused("other")), ([true; 2], [true; 2]));
    lab.agent.change(|| lab.agent.write_endpoints(&[world.pod("other").endpoint()]));
    assert_eq!((refused("client"), refused("other")), ([false; 2], [true; 2]));
    lab.agent.change(|| {
        lab.agent.write_endpoints(&[world.pod("client").endpoint(), world.pod("other").endpoint()]);
    });
    assert_eq!((refused("client"), refused("other")), ([true; 2], [true; 2]));
    assert_eq!(lab.agent.stat("events_lost"), 0);
}
