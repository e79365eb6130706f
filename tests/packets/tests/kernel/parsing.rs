//! Ethernet, VLAN tags, the fixed IP headers, protocols: what is read, and what is dropped because it cannot be.

use egress_common::reason::DropReason;
use egress_packets::{Expect, Frame, Hooks, Lab, is_root};

use crate::sides::{DEFAULT, INTERNAL, POLICY, SIDES};

/// A frame of this `EtherType` with bytes behind it.
fn ethertype(kind: u16, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(kind.to_be_bytes());
    frame.extend(bytes);
    frame
}

#[test]
fn every_protocol_is_judged_by_its_destination_and_port() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        let (open, ports, shut) = (side.open, side.ports, side.shut);
        let (by_open, by_ports) = (Expect::Allow(side.open_rule), Expect::Allow(side.ports_rule));
        let denied = Expect::Deny(DEFAULT);
        let rows = [
            ("TCP, open", Frame::syn(open, 80), by_open),
            ("TCP, shut", Frame::syn(shut, 80), denied),
            ("TCP 443", Frame::syn(ports, 443), by_ports),
            ("TCP 442", Frame::syn(ports, 442), denied),
            ("TCP 444", Frame::syn(ports, 444), denied),
            ("TCP 443, not an opening", Frame::tcp(ports, 443, 0x10), by_ports),
            ("TCP 442, not an opening", Frame::tcp(ports, 442, 0x10), denied),
            ("TCP from 443 to 442", Frame::syn(ports, 442).from_port(443), denied),
            ("UDP 53", Frame::udp(ports, 53), by_ports),
            ("UDP 443", Frame::udp(ports, 443), denied),
            ("SCTP 5000 INIT", Frame::sctp(ports, 5000, 1), by_ports),
            ("SCTP 5000 DATA", Frame::sctp(ports, 5000, 0), by_ports),
            ("SCTP 5001 INIT", Frame::sctp(ports, 5001, 1), denied),
            ("SCTP 5001 DATA", Frame::sctp(ports, 5001, 0), denied),
            ("echo request", Frame::echo(ports), by_ports),
            ("echo request, shut", Frame::echo(shut), denied),
            ("other ICMP type", Frame::icmp(ports, 200), by_ports),
            ("other ICMP type, shut", Frame::icmp(shut, 200), denied),
            ("the other family's ICMP", Frame::protocol(ports, side.pick(58, 1)), denied),
            ("GRE, open", Frame::protocol(open, 47), by_open),
            ("GRE, ports", Frame::protocol(ports, 47), denied),
            ("GRE, shut", Frame::protocol(shut, 47), denied),
            ("ESP, open", Frame::protocol(open, 50), by_open),
            ("ESP, shut", Frame::protocol(shut, 50), denied),
            ("OSPF, open", Frame::protocol(open, 89), by_open),
            ("OSPF, shut", Frame::protocol(shut, 89), denied),
            ("IPIP, open", Frame::protocol(open, 4), by_open),
            ("IPIP, shut", Frame::protocol(shut, 4), denied),
            ("UDP-Lite has no ports here", Frame::protocol(ports, 136), denied),
            ("protocol 255, open", Frame::protocol(open, 255), by_open),
            ("protocol 255, shut", Frame::protocol(shut, 255), denied),
            ("no next header, open", Frame::protocol(open, 59).data(&[]), by_open),
            ("no next header, shut", Frame::protocol(shut, 59).data(&[]), denied),
            ("port 0", Frame::syn(ports, 0), denied),
            ("port 65535", Frame::udp(ports, 65535), denied),
            ("internal TCP", Frame::syn(side.inside, 1), Expect::Allow(INTERNAL)),
            ("internal GRE", Frame::protocol(side.inside, 47), Expect::Allow(INTERNAL)),
        ];
        for (name, frame, expect) in rows {
            lab.check(&side.row(name), Hooks::Both, &frame.bytes(), expect);
        }
    }
}

#[test]
fn two_vlan_tags_are_read_and_three_are_not() {
    const Q: u16 = 0x8100;
    const AD: u16 = 0x88a8;
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let too_many = Expect::Drop(DropReason::TooManyVlanTags);
    for side in SIDES {
        let tagged = |tags: &[u16], shut: bool| {
            let frame = Frame::syn(if shut { side.shut } else { side.open }, 80);
            tags.iter().rev().fold(frame, |frame, tag| frame.tag(*tag)).bytes()
        };
        for tags in [&[Q][..], &[AD], &[Q, Q], &[AD, Q], &[Q, AD], &[AD, AD]] {
            let row = side.row(&format!("{tags:x?}"));
            lab.check(&row, Hooks::Tc, &tagged(tags, false), Expect::Allow(side.open_rule));
            lab.check(&row, Hooks::Tc, &tagged(tags, true), Expect::Deny(DEFAULT));
        }
        for tags in [&[Q, Q, Q][..], &[AD, Q, Q], &[AD, AD, AD, AD], &[Q, Q, Q, Q, Q, Q, Q, Q]] {
            lab.check(&side.row(&format!("{tags:x?}")), Hooks::Tc, &tagged(tags, false), too_many);
        }
    }
}

#[test]
fn frames_that_carry_no_ip_are_dropped_except_arp() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let unknown = Expect::Drop(DropReason::UnknownEthertype);
    let packet = Frame::syn(SIDES[0].open, 80).packet();
    let rows = [
        ("ARP", ethertype(0x0806, &[0; 28]), Expect::Untouched),
        ("ARP, cut", ethertype(0x0806, &[]), Expect::Untouched),
        ("ARP behind a tag", ethertype(0x8100, &[0, 5, 8, 6, 0, 1]), Expect::Untouched),
        ("RARP", ethertype(0x8035, &[0; 28]), unknown),
        ("LLDP", ethertype(0x88cc, &[0; 46]), unknown),
        ("LLDP behind a tag", ethertype(0x8100, &[0, 5, 0x88, 0xcc, 0, 1]), unknown),
        ("EAPOL", ethertype(0x888e, &[0; 46]), unknown),
        ("MPLS", ethertype(0x8847, &[&[0, 1, 1, 64], packet.as_slice()].concat()), unknown),
        ("MPLS multicast", ethertype(0x8848, &[&[0, 1, 1, 64], packet.as_slice()].concat()), unknown),
        ("PPPoE session", ethertype(0x8864, &[&[0x11, 0, 0, 1, 0, 42, 0, 0x21], packet.as_slice()].concat()), unknown),
        ("MACsec", ethertype(0x88e5, &packet), unknown),
        ("old QinQ", ethertype(0x9100, &[&[0, 5, 8, 0], packet.as_slice()].concat()), unknown),
        ("batman", ethertype(0x4305, &packet), unknown),
        ("TIPC", ethertype(0x88ca, &packet), unknown),
        ("trailer encapsulation", ethertype(0x0801, &packet), unknown),
        ("802.3 length", ethertype(46, &[&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], packet.as_slice()].concat()), unknown),
        ("802.3 length 1500", ethertype(1500, &[0xff; 100]), unknown),
        ("EtherType 0", ethertype(0, &packet), unknown),
        ("EtherType ffff", ethertype(0xffff, &packet), unknown),
    ];
    for (name, frame, expect) in rows {
        lab.check(name, Hooks::Tc, &frame, expect);
    }
}

#[test]
fn an_ip_header_of_another_version_is_dropped() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for version in (0..16).filter(|version| *version != 4) {
        let mut frame = Frame::syn(SIDES[0].open, 80).bytes();
        frame[14] = version << 4 | 5;
        let row = format!("IPv4 with version {version}");
        lab.check(&row, Hooks::Tc, &frame, Expect::Drop(DropReason::BadIpv4Header));
    }
    for version in (0..16).filter(|version| *version != 6) {
        let mut frame = Frame::syn(SIDES[1].open, 80).bytes();
        frame[14] = version << 4;
        let row = format!("IPv6 with version {version}");
        lab.check(&row, Hooks::Tc, &frame, Expect::Drop(DropReason::BadIpv6Header));
    }
}

#[test]
fn an_ipv4_header_shorter_than_20_bytes_is_dropped() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for words in 0..5 {
        let mut frame = Frame::syn(SIDES[0].open, 80).bytes();
        frame[14] = 0x40 | words;
        lab.check(&format!("{words} words"), Hooks::Both, &frame, Expect::Drop(DropReason::BadIpv4Header));
    }
    // The twin: five words are fine.
    let frame = Frame::syn(SIDES[0].open, 80).bytes();
    lab.check("5 words", Hooks::Both, &frame, Expect::Allow(SIDES[0].open_rule));
}

#[test]
fn padding_is_never_read_as_a_transport_header() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let truncated = Expect::Drop(DropReason::TruncatedTransport);
    for side in SIDES {
        let header = side.pick(20, 0);
        // The transport header of an allowed packet, behind the end that the IP header names.
        let transports = [
            ("TCP", Frame::syn(side.ports, 443), 20),
            ("UDP", Frame::udp(side.ports, 53).data(&[]), 8),
            ("SCTP", Frame::sctp(side.ports, 5000, 1), 12),
            ("ICMP", Frame::echo(side.ports).data(&[]), 8),
        ];
        for (name, frame, minimum) in transports {
            // Payload length 0 of IPv6 is a jumbogram: the packet ends where the frame ends. In IPv4 only a total length of 0 is that.
            let first = side.pick(0, 1);
            for present in first..minimum {
                let row = side.row(&format!("{name}, {present} bytes before the end"));
                lab.check(&row, Hooks::Both, &frame.clone().length(header + present).bytes(), truncated);
            }
            let whole = frame.clone().length(header + minimum);
            lab.check(&side.row(name), Hooks::Both, &whole.bytes(), Expect::Allow(side.ports_rule));
            let padded = frame.clone().padding(&[0xee; 22]);
            lab.check(&side.row(name), Hooks::Both, &padded.bytes(), Expect::Allow(side.ports_rule));
        }
    }
}

#[test]
fn a_total_length_shorter_than_its_header_is_dropped() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for length in 1..20 {
        let frame = Frame::protocol(SIDES[0].open, 47).length(length).bytes();
        lab.check(&format!("total length {length}"), Hooks::Both, &frame, Expect::Drop(DropReason::TruncatedIpv4));
    }
    for length in 20..28 {
        let frame = Frame::protocol(SIDES[0].open, 47).options(&[1, 1, 1, 1, 1, 1, 1, 0]).length(length).bytes();
        lab.check(&format!("total length {length}"), Hooks::Both, &frame, Expect::Drop(DropReason::TruncatedIpv4));
    }
    let frame = Frame::protocol(SIDES[0].open, 47).options(&[1; 8]).length(28).bytes();
    lab.check("total length 28", Hooks::Both, &frame, Expect::Allow(SIDES[0].open_rule));
}

#[test]
fn a_length_of_zero_means_up_to_the_end_of_the_frame() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        let frame = |port| Frame::syn(side.ports, port).length(0).bytes();
        lab.check(&side.row("allowed"), Hooks::Both, &frame(443), Expect::Allow(side.ports_rule));
        lab.check(&side.row("denied"), Hooks::Both, &frame(444), Expect::Deny(DEFAULT));
    }
}

#[test]
fn an_interface_or_cgroup_without_endpoint_passes_everything() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let frames =
        [Frame::syn(SIDES[0].shut, 80).bytes(), Frame::syn(SIDES[1].shut, 80).bytes(), ethertype(0x88cc, &[0; 46])];
    for frame in frames.iter().take(2) {
        lab.check("with endpoint", Hooks::Both, frame, Expect::Deny(DEFAULT));
    }
    let applied = lab.apply_desired(&egress_agent::datapath::Desired::default());
    assert_eq!((applied.endpoints, applied.endpoints_removed), (0, 2), "{applied:?}");
    for frame in &frames {
        for hook in Hooks::Both.from_pod() {
            let (action, _) = lab.run(*hook, frame).expect("a run");
            let passes = if *hook == egress_common::event::Hook::TcFromPod { u32::MAX } else { 1 };
            assert_eq!(action, passes, "{}", hook.name());
        }
    }
    assert!(lab.events().is_empty());
}

/// They would pass for IPv4 addresses wherever both families are kept in one form: connections, fragments, events.
#[test]
fn ipv6_packets_with_ipv4_mapped_addresses_are_dropped() {
    if !is_root() {
        return;
    }
    // IPv6 is allowed, IPv4 is not.
    let text = POLICY.replace("\"2001:db8:1::/64\"", "\"::/0\"");
    let mut lab = Lab::new(&text);
    let (pod, remote) = ("::ffff:10.0.0.5".parse().expect("an address"), "::ffff:5.5.5.5".parse().expect("an address"));
    let dropped = Expect::Drop(DropReason::BadIpv6Header);
    let first = Frame::udp(remote, 9).fragment(7, 0, true);
    lab.check("destination", Hooks::Both, &Frame::syn(remote, 80).bytes(), dropped);
    lab.check("source", Hooks::Both, &Frame::syn(SIDES[1].shut, 80).from(pod).bytes(), dropped);
    lab.check("both, a first fragment", Hooks::Both, &first.from(pod).bytes(), dropped);
    let later = Frame::later(SIDES[0].ports, 17, 7, 3).bytes();
    lab.check("an IPv4 fragment of that name", Hooks::Both, &later, Expect::Drop(DropReason::UnknownFragment));
    // The twins: addresses next to the mapped ones.
    for near in ["::fffe:5.5.5.5", "::1:ffff:5.5.5.5", "::ffff:0:5.5.5.5", "1::ffff:5.5.5.5", "::5.5.5.5"] {
        let frame = Frame::syn(near.parse().expect("an address"), 80).bytes();
        lab.check(near, Hooks::Both, &frame, Expect::Allow("rule 2 of default/p"));
    }
}

/// A raw socket may write any version into the header; what counts is what the wire will call it.
#[test]
fn cgroup_hooks_go_by_the_ethertype_and_not_by_the_version() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let swapped = |frame: Frame, kind: [u8; 2]| {
        let mut bytes = frame.bytes();
        bytes[12..14].copy_from_slice(&kind);
        bytes
    };
    let hook = egress_common::event::Hook::CgroupEgress;
    let rows = [
        (swapped(Frame::syn(SIDES[1].open, 80), [8, 0]), Expect::Drop(DropReason::BadIpv4Header)),
        (swapped(Frame::syn(SIDES[0].open, 80).data(&[0; 40]), [0x86, 0xdd]), Expect::Drop(DropReason::BadIpv6Header)),
        (swapped(Frame::syn(SIDES[0].open, 80), [0x88, 0xcc]), Expect::Drop(DropReason::UnknownEthertype)),
        (Frame::syn(SIDES[0].open, 80).bytes(), Expect::Allow(SIDES[0].open_rule)),
        (Frame::syn(SIDES[1].open, 80).bytes(), Expect::Allow(SIDES[1].open_rule)),
    ];
    for (frame, expect) in rows {
        let seen = lab.send(hook, &frame);
        lab.compare("version", hook, &frame, expect, &seen);
    }
}
