//! Fragments (§3.6): the first decides, later ones follow it, in both families; what cannot be known is dropped, never allowed.

use egress_e2e::{ALLOWED, DENIED, Evidence as _, Lab, OFFICE, PORT, ip, policy, world};
use egress_world::Pod;
use egress_world::packet::{Ip, protocol};
use egress_world::probe::{self, Outcome};

/// Bytes of the first fragment; the rest of the datagram is the second.
const CUT: u16 = 40;

/// No offset.
const NOTHING: [u16; 0] = [];

/// A UDP datagram in two frames, the first and the later fragment.
fn fragments(pod: &Pod, remote: &str, port: u16, identification: u16) -> [Vec<u8>; 2] {
    let header = Ip::new(pod.address_like(ip(remote)), ip(remote), protocol::UDP);
    let datagram = header.udp(4000, port, &[7; 64]);
    let (first, later) = datagram.split_at(usize::from(CUT));
    [
        pod.frame(&[], &header.fragment(identification, 0, true).packet(first)),
        pod.frame(&[], &header.fragment(identification, CUT, false).packet(later)),
    ]
}

/// Sends frames and returns the offsets of those that arrived.
fn offsets(lab: &mut Lab<'_>, pod: &Pod, remote: &str, frames: &[Vec<u8>]) -> Vec<u16> {
    lab.wire.forget();
    assert_eq!(pod.run(|| probe::frame(frames, false)).outcome, Outcome::Silence);
    let arrived = lab.wire.arrived(ip(remote));
    // A whole datagram is echoed, and the pod says by ICMP that nobody there has asked.
    let ours = arrived.iter().filter(|seen| matches!(seen.protocol, protocol::UDP | protocol::TCP));
    ours.map(|seen| seen.offset).collect()
}

const BY_PORT: [&str; 4] = ["Allow 1.2.3.0/24 UDP/443", "Allow 2001:db8:1::/48 UDP/443", "Deny 0.0.0.0/0", "Deny ::/0"];

#[test]
fn later_fragments_follow_the_first_one() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&BY_PORT));
    let pod = world.pod("client");
    for remote in ALLOWED {
        let allowed = fragments(pod, remote, PORT, 1);
        assert_eq!(offsets(&mut lab, pod, remote, &allowed), [0, CUT]);
        let before = lab.agent.dropped("denied-fragment");
        let denied = fragments(pod, remote, 80, 2);
        assert_eq!(offsets(&mut lab, pod, remote, &denied), NOTHING);
        assert_eq!(lab.agent.dropped("denied-fragment"), before + 1);
    }
}

#[test]
fn a_later_fragment_without_its_first_is_dropped_where_ports_matter() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&BY_PORT));
    let pod = world.pod("client");
    for remote in ALLOWED {
        let before = lab.agent.dropped("unknown-fragment");
        let [first, later] = fragments(pod, remote, PORT, 3);
        assert_eq!(offsets(&mut lab, pod, remote, std::slice::from_ref(&later)), NOTHING);
        assert_eq!(lab.agent.dropped("unknown-fragment"), before + 1);
        // Out of order: the early bird is lost, the rest is judged as ever.
        assert_eq!(offsets(&mut lab, pod, remote, &[first, later]), [0, CUT]);
    }
}

#[test]
fn fragments_are_judged_by_their_address_where_ports_do_not_matter() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    for family in [0, 1] {
        let [_, later] = fragments(pod, ALLOWED[family], PORT, 4);
        assert_eq!(offsets(&mut lab, pod, ALLOWED[family], &[later]), [CUT]);
        let [first, later] = fragments(pod, DENIED[family], PORT, 5);
        assert_eq!(offsets(&mut lab, pod, DENIED[family], &[later.clone(), first, later]), NOTHING);
    }
}

#[test]
fn a_new_version_judges_the_rest_of_a_datagram_anew() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&BY_PORT));
    let pod = world.pod("client");
    let frames = ALLOWED.map(|remote| fragments(pod, remote, PORT, 6));
    for (remote, [first, _]) in ALLOWED.into_iter().zip(&frames) {
        assert_eq!(offsets(&mut lab, pod, remote, std::slice::from_ref(first)), [0]);
    }
    lab.agent.apply(&policy(&["Deny 0.0.0.0/0", "Deny ::/0"]));
    for (remote, [_, later]) in ALLOWED.into_iter().zip(&frames) {
        assert_eq!(offsets(&mut lab, pod, remote, std::slice::from_ref(later)), NOTHING);
    }
}

#[test]
fn large_datagrams_of_a_socket_are_fragmented_and_answered_or_refused() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&BY_PORT));
    let pod = world.pod("client");
    for family in [0, 1] {
        let large = |remote: &'static str, port| pod.run(|| probe::udp_large(egress_e2e::at(remote, port), 3000));
        let answered = large(ALLOWED[family], PORT);
        assert!(answered.is_answered(), "{answered:?}");
        assert!(large(ALLOWED[family], 80).is_refused());
        assert!(large(DENIED[family], PORT).is_refused());
        assert!(lab.wire.arrived(ip(DENIED[family])).is_empty());
    }
}

#[test]
fn a_fragment_that_could_rewrite_a_tcp_header_is_dropped() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    for remote in ALLOWED {
        let header = Ip::new(pod.address_like(ip(remote)), ip(remote), protocol::TCP);
        let overlap = pod.frame(&[], &header.fragment(7, 8, false).packet(&[0; 16]));
        let before = lab.agent.dropped("overlapping-fragment");
        assert_eq!(offsets(&mut lab, pod, remote, &[overlap]), NOTHING);
        assert_eq!(lab.agent.dropped("overlapping-fragment"), before + 1);
        let beyond = pod.frame(&[], &header.fragment(7, 24, false).packet(&[0; 16]));
        assert_eq!(offsets(&mut lab, pod, remote, &[beyond]), [24]);
    }
}
