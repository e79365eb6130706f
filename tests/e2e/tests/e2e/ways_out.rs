//! Every way out of a pod, allowed and denied, IPv4 and IPv6 (§7.1, §7.2).

use egress_e2e::{ALLOWED, DENIED, Evidence as _, Lab, OFFICE, RULES, Way, at, ip, policy, world};
use egress_world::packet::{Ip, ipv6_destination_options, protocol};
use egress_world::probe::{self, Outcome, PATIENCE};

/// Both verdicts in both families, for one way.
fn is_judged(way: Way) {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    for family in [0, 1] {
        let (allowing, denying) = RULES[family];
        lab.insist_allowed(pod, way, ALLOWED[family], allowing);
        lab.insist_denied(pod, way, DENIED[family], denying);
    }
}

#[test]
fn tcp_connections_are_judged() {
    is_judged(Way::Tcp);
}

#[test]
fn long_tcp_streams_pass_with_their_large_segments() {
    let Some(world) = world(&["default/client"]) else { return };
    let lab = Lab::new(
        &world,
        &policy(&["Allow 1.2.3.0/24 TCP/443", "Allow 2001:db8:1::/48 TCP/443", "Deny 0.0.0.0/0", "Deny ::/0"]),
    );
    let pod = world.pod("client");
    let drops = lab.agent.dropped("policy");
    for remote in ALLOWED {
        let stream = pod.run(|| probe::tcp_bulk(at(remote, 443), 4 << 20));
        assert!(stream.is_answered(), "{stream:?}");
        assert!(pod.run(|| probe::tcp_bulk(at(remote, 80), 4 << 20)).is_refused());
    }
    assert_eq!(lab.agent.dropped("policy"), drops + 2, "only the two calls were refused");
}

#[test]
fn multipath_tcp_connections_are_judged() {
    is_judged(Way::Mptcp);
}

#[test]
fn tcp_fast_open_is_judged() {
    is_judged(Way::TcpFastOpen);
}

#[test]
fn connected_udp_is_judged() {
    is_judged(Way::UdpConnected);
}

#[test]
fn unconnected_udp_is_judged() {
    is_judged(Way::UdpUnconnected);
}

#[test]
fn echo_requests_of_a_ping_socket_are_judged() {
    is_judged(Way::Ping);
}

#[test]
fn echo_requests_of_a_raw_socket_are_judged() {
    is_judged(Way::RawPing);
}

#[test]
fn packets_of_a_raw_socket_are_judged() {
    is_judged(Way::RawUdp);
}

#[test]
fn frames_of_a_packet_socket_are_judged() {
    is_judged(Way::Frame);
}

#[test]
fn frames_that_bypass_the_queueing_discipline_are_judged() {
    is_judged(Way::FrameBypass);
}

#[test]
fn frames_with_a_priority_tag_are_judged() {
    is_judged(Way::TaggedFrame);
}

#[test]
fn frames_with_two_tags_are_judged() {
    is_judged(Way::DoubleTaggedFrame);
}

#[test]
fn unknown_protocols_are_judged() {
    is_judged(Way::UnknownProtocol);
}

#[test]
fn sctp_packets_of_a_raw_socket_are_judged() {
    is_judged(Way::RawSctp);
}

#[test]
fn sctp_associations_are_judged() {
    is_judged(Way::Sctp);
}

#[test]
fn ipv4_mapped_addresses_are_judged_as_ipv4() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    let (allowed, denied) = (at("::ffff:1.2.3.4", 443), at("::ffff:5.6.7.8", 443));
    for try_it in [probe::tcp_echo, |to| probe::udp_connected(to, PATIENCE), |to| probe::udp_unconnected(to, PATIENCE)]
    {
        assert!(pod.run(|| try_it(allowed)).is_answered());
        let before = lab.agent.charged("Deny 0.0.0.0/0");
        assert!(pod.run(|| try_it(denied)).is_refused());
        assert!(lab.agent.charged("Deny 0.0.0.0/0") > before);
    }
    assert!(lab.wire.arrived(ip("5.6.7.8")).is_empty());
    lab.agent.denied(pod, ip("5.6.7.8"), protocol::TCP);
    lab.agent.denied(pod, ip("5.6.7.8"), protocol::UDP);
}

#[test]
fn a_mapped_address_is_not_judged_by_ipv6_rules() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let _lab = Lab::new(&world, &policy(&["Deny ::/0"]));
    let pod = world.pod("client");
    assert!(pod.run(|| probe::tcp_echo(at("::ffff:5.6.7.8", 443))).is_answered());
    assert!(pod.run(|| probe::tcp_echo(at("2001:db8:2::8", 443))).is_refused());
}

/// How many UDP packets arrived. They are echoed, and the pod may say by ICMP that nobody there has asked.
fn datagrams(lab: &mut Lab<'_>, remote: &str) -> usize {
    lab.wire.arrived(ip(remote)).iter().filter(|seen| seen.protocol == protocol::UDP).count()
}

#[test]
fn ipv6_extension_headers_do_not_hide_the_destination() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&["Allow 2001:db8:1::/48 UDP/443", "Deny ::/0"]));
    let pod = world.pod("client");
    let send = |remote: &str, port| {
        let udp = Ip::new(pod.address6(), ip(remote), protocol::UDP).udp(4000, port, b"hidden");
        let payload = [&ipv6_destination_options(protocol::UDP)[..], &udp].concat();
        let packet = Ip::new(pod.address6(), ip(remote), protocol::DESTINATION_OPTIONS).packet(&payload);
        let frame = pod.frame(&[], &packet);
        assert_eq!(pod.run(|| probe::frame(&[frame], false)).outcome, Outcome::Silence);
    };
    send("2001:db8:1::4", 443);
    assert_eq!(datagrams(&mut lab, "2001:db8:1::4"), 1);
    lab.wire.forget();
    send("2001:db8:1::4", 80);
    assert!(lab.wire.arrived(ip("2001:db8:1::4")).is_empty());
    send("2001:db8:2::8", 443);
    assert!(lab.wire.arrived(ip("2001:db8:2::8")).is_empty());
}

#[test]
fn a_routing_header_with_segments_left_is_dropped_with_its_own_reason() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    let send = |segments_left| {
        let udp = Ip::new(pod.address6(), ip("2001:db8:1::4"), protocol::UDP).udp(4000, 443, b"detour");
        let payload = [&[protocol::UDP, 0, 253, segments_left, 0, 0, 0, 0][..], &udp].concat();
        let packet = Ip::new(pod.address6(), ip("2001:db8:1::4"), protocol::ROUTING).packet(&payload);
        let frame = pod.frame(&[], &packet);
        assert_eq!(pod.run(|| probe::frame(&[frame], false)).outcome, Outcome::Silence);
    };
    send(0);
    assert_eq!(datagrams(&mut lab, "2001:db8:1::4"), 1);
    lab.wire.forget();
    send(1);
    assert!(lab.wire.arrived(ip("2001:db8:1::4")).is_empty());
    assert_eq!(lab.agent.dropped("ipv6-routing-header"), 1);
}
