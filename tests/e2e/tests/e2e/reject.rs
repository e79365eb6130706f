//! `denyResponse`: what a sender gets whose packets are stopped at the interface (§7.2).

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};

use egress_e2e::{ALLOWED, DENIED, Evidence as _, Lab, OFFICE, PORT, Way, at, config, document, ip, policy, world};
use egress_world::packet::{Seen, flag, protocol};
use egress_world::probe::{self, Outcome, PATIENCE};

fn rejecting(rules: &[&str]) -> String {
    config(&["denyResponse: Reject"]) + &document("office", &[], rules)
}

fn is_reset(seen: &Seen, remote: IpAddr) -> bool {
    let from_remote = !seen.outgoing && seen.source == remote && seen.source_port == PORT;
    from_remote && seen.protocol == protocol::TCP && seen.kind & flag::RST != 0
}

/// "Communication administratively prohibited": RFC 1812 §5.2.7.1, RFC 4443 §3.1.
fn is_prohibited(seen: &Seen) -> bool {
    !seen.outgoing
        && matches!((seen.protocol, seen.kind, seen.code), (protocol::ICMP, 3, 13) | (protocol::ICMPV6, 1, 1))
}

#[test]
fn a_rejected_syn_is_answered_with_a_reset() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &rejecting(&OFFICE));
    let pod = world.pod("client");
    for remote in DENIED {
        let mut own = pod.sniff();
        assert_eq!(Way::Frame.attempt(pod, ip(remote), false).outcome, Outcome::Silence);
        assert!(own.wait_for(|seen| is_reset(seen, ip(remote))), "{:?}", own.seen());
        assert!(lab.wire.arrived(ip(remote)).is_empty());
    }
    assert_eq!(lab.agent.stat("rejected"), 2);
}

#[test]
fn a_rejected_datagram_is_answered_as_administratively_prohibited() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &rejecting(&OFFICE));
    let pod = world.pod("client");
    for remote in DENIED {
        let mut own = pod.sniff();
        assert_eq!(Way::RawUdp.attempt(pod, ip(remote), false).outcome, Outcome::Silence);
        assert!(own.wait_for(is_prohibited), "{:?}", own.seen());
        assert!(lab.wire.arrived(ip(remote)).is_empty());
    }
}

#[test]
fn a_live_connection_is_reset_when_its_policy_turns_to_reject() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = Lab::new(&world, &rejecting(&OFFICE));
    let pod = world.pod("client");
    let mut streams = ALLOWED.map(|remote| {
        let connect = || Ok(TcpStream::connect_timeout(&at(remote, PORT), PATIENCE)?.into());
        TcpStream::from(pod.socket(connect).unwrap())
    });
    lab.agent.apply(&rejecting(&["Deny 0.0.0.0/0", "Deny ::/0"]));
    for stream in &mut streams {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"hello").unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_dropped_packet_is_answered_by_nothing() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let _lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    for family in [0, 1] {
        let mut own = pod.sniff();
        assert_eq!(Way::Frame.attempt(pod, ip(DENIED[family]), false).outcome, Outcome::Silence);
        assert_eq!(Way::RawUdp.attempt(pod, ip(DENIED[family]), false).outcome, Outcome::Silence);
        // An answer would have come before this one.
        assert!(pod.run(|| probe::ping(ip(ALLOWED[family]), PATIENCE)).is_answered());
        assert!(own.wait_for(|seen| !seen.outgoing && matches!(seen.kind, 0 | 129)));
        let remote = ip(DENIED[family]);
        assert!(!own.seen().iter().any(|seen| is_reset(seen, remote) || is_prohibited(seen)), "{:?}", own.seen());
    }
}
