//! IPv6 extension headers: walked over, up to eight; a routing header that is still in use is not.

use std::net::IpAddr;

use egress_common::reason::DropReason;
use egress_packets::{Expect, Extension, Frame, Hooks, Lab, is_root};

use crate::sides::{DEFAULT, POLICY, SIDES};

fn chain(port: u16, extensions: &[Extension]) -> Vec<u8> {
    extensions.iter().cloned().fold(Frame::syn(SIDES[1].ports, port), Frame::extension).bytes()
}

#[test]
fn each_extension_header_is_walked_over() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let common = |kind| [8, 16, 64, 264, 2048].map(|length| Extension::Common(kind, length));
    let kinds = [Extension::HOP_BY_HOP, Extension::DESTINATION, Extension::MOBILITY, Extension::HIP, Extension::SHIM6];
    let mut headers: Vec<Extension> = kinds.into_iter().flat_map(common).collect();
    headers.push(Extension::Routing(0));
    headers.extend([16, 24, 1024].map(Extension::Authentication));
    headers.push(Extension::Fragment(7, 0, false));
    for header in headers {
        let row = format!("{header:?}");
        let one = std::slice::from_ref(&header);
        if chain(443, one).len() > 3000 {
            continue;
        }
        lab.check(&row, Hooks::Both, &chain(443, one), Expect::Allow(SIDES[1].ports_rule));
        lab.check(&row, Hooks::Both, &chain(444, one), Expect::Deny(DEFAULT));
    }
}

#[test]
fn eight_extension_headers_are_walked_over_and_nine_are_not() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let all = [
        Extension::Common(Extension::HOP_BY_HOP, 8),
        Extension::Common(Extension::DESTINATION, 24),
        Extension::Routing(0),
        Extension::Fragment(9, 0, false),
        Extension::Authentication(24),
        Extension::Common(Extension::DESTINATION, 8),
        Extension::Common(Extension::MOBILITY, 8),
        Extension::Common(Extension::SHIM6, 16),
        Extension::Common(Extension::HIP, 40),
        Extension::Common(Extension::DESTINATION, 8),
    ];
    for count in 0..=8 {
        lab.check(&format!("{count}"), Hooks::Both, &chain(443, &all[..count]), Expect::Allow(SIDES[1].ports_rule));
        lab.check(&format!("{count}"), Hooks::Both, &chain(444, &all[..count]), Expect::Deny(DEFAULT));
    }
    for count in 9..=10 {
        let too_many = Expect::Drop(DropReason::TooManyExtensionHeaders);
        lab.check(&format!("{count}"), Hooks::Both, &chain(443, &all[..count]), too_many);
    }
    for kind in [Extension::HOP_BY_HOP, Extension::DESTINATION] {
        let same = vec![Extension::Common(kind, 8); 9];
        lab.check("nine of a kind", Hooks::Both, &chain(443, &same), Expect::Drop(DropReason::TooManyExtensionHeaders));
        lab.check("eight of a kind", Hooks::Both, &chain(443, &same[1..]), Expect::Allow(SIDES[1].ports_rule));
    }
}

#[test]
fn a_routing_header_passes_only_with_no_segments_left() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let before = [
        vec![],
        vec![Extension::Common(Extension::HOP_BY_HOP, 8)],
        vec![Extension::Fragment(1, 0, false), Extension::Common(Extension::DESTINATION, 16)],
    ];
    for before in before {
        let with = |left| [before.clone(), vec![Extension::Routing(left)]].concat();
        lab.check("0 left", Hooks::Both, &chain(443, &with(0)), Expect::Allow(SIDES[1].ports_rule));
        lab.check("0 left", Hooks::Both, &chain(444, &with(0)), Expect::Deny(DEFAULT));
        for left in [1, 2, 255] {
            let routed = Expect::Drop(DropReason::Ipv6RoutingHeader);
            lab.check(&format!("{left} left"), Hooks::Both, &chain(443, &with(left)), routed);
        }
    }
}

#[test]
fn protocols_behind_extension_headers_are_judged_as_themselves() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let side = SIDES[1];
    let behind = |frame: Frame| {
        frame.extension(Extension::Common(Extension::HOP_BY_HOP, 8)).extension(Extension::Authentication(24)).bytes()
    };
    let (open, ports, shut): (IpAddr, IpAddr, IpAddr) = (side.open, side.ports, side.shut);
    let rows = [
        ("UDP", behind(Frame::udp(ports, 53)), Expect::Allow(side.ports_rule)),
        ("UDP, other port", behind(Frame::udp(ports, 54)), Expect::Deny(DEFAULT)),
        ("SCTP", behind(Frame::sctp(ports, 5000, 1)), Expect::Allow(side.ports_rule)),
        ("SCTP, other port", behind(Frame::sctp(ports, 5001, 1)), Expect::Deny(DEFAULT)),
        ("ICMPv6", behind(Frame::echo(ports)), Expect::Allow(side.ports_rule)),
        ("ICMPv6, shut", behind(Frame::echo(shut)), Expect::Deny(DEFAULT)),
        ("ESP", behind(Frame::protocol(open, 50)), Expect::Allow(side.open_rule)),
        ("ESP, shut", behind(Frame::protocol(shut, 50)), Expect::Deny(DEFAULT)),
        ("no next header", behind(Frame::protocol(open, 59).data(&[])), Expect::Allow(side.open_rule)),
        ("no next header, shut", behind(Frame::protocol(shut, 59).data(&[])), Expect::Deny(DEFAULT)),
        (
            "nothing of a protocol without ports",
            behind(Frame::protocol(open, 47).data(&[])),
            Expect::Allow(side.open_rule),
        ),
        ("nothing of TCP", behind(Frame::protocol(open, 6).data(&[])), Expect::Drop(DropReason::TruncatedTransport)),
    ];
    for (name, frame, expect) in rows {
        lab.check(name, Hooks::Both, &frame, expect);
    }
}

#[test]
fn an_extension_header_behind_the_end_of_the_packet_is_not_read() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    // The payload ends inside the second header; what follows is padding, which says "GRE" or "TCP 443".
    for end in [8, 10, 15] {
        let frame = |last: Frame| {
            let first = last.extension(Extension::Common(Extension::DESTINATION, 8));
            first.extension(Extension::Common(Extension::DESTINATION, 8)).length(end).bytes()
        };
        for (name, last) in [("GRE", Frame::protocol(SIDES[1].open, 47)), ("TCP", Frame::syn(SIDES[1].ports, 443))] {
            let row = format!("{name}, payload of {end}");
            lab.check(&row, Hooks::Both, &frame(last), Expect::Drop(DropReason::TruncatedIpv6));
        }
    }
}
