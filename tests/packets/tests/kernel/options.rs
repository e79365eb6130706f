//! IPv4 options: harmless ones are walked over, source routes and whatever could hide one are dropped.

use egress_common::reason::DropReason;
use egress_packets::{Expect, Frame, Hooks, Lab, is_root};

use crate::sides::{DEFAULT, POLICY, SIDES};

const SOURCE_ROUTE: Expect<'_> = Expect::Drop(DropReason::Ipv4SourceRoute);
const BAD: Expect<'_> = Expect::Drop(DropReason::BadIpv4Options);

/// An option with a length byte, filled with zeros.
fn option(kind: u8, length: u8) -> Vec<u8> {
    [kind, length].into_iter().chain(std::iter::repeat_n(0, usize::from(length) - 2)).collect()
}

#[test]
fn options_that_do_not_change_the_destination_are_walked_over() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let rows: [(&str, Vec<u8>); 12] = [
        ("NOP", vec![1; 4]),
        ("12 NOPs", vec![1; 12]),
        ("end at once", vec![0; 4]),
        ("end, then what looks like a source route", vec![0, 131, 7, 4]),
        ("record route", option(7, 39)),
        ("timestamp", option(68, 36)),
        ("router alert", option(148, 4)),
        ("security", option(130, 11)),
        ("stream identifier", option(136, 4)),
        ("an unknown one of two bytes", vec![222, 2, 1, 1]),
        ("as long as the header", option(222, 40)),
        ("a length that ends with the header", [vec![1, 1], option(7, 38)].concat()),
    ];
    let side = SIDES[0];
    for (name, options) in rows {
        let frame = |port| Frame::syn(side.ports, port).options(&options).bytes();
        lab.check(name, Hooks::Both, &frame(443), Expect::Allow(side.ports_rule));
        lab.check(name, Hooks::Both, &frame(444), Expect::Deny(DEFAULT));
    }
}

#[test]
fn source_routes_are_dropped_wherever_they_stand() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for kind in [131, 137] {
        let route = [kind, 7, 4, 9, 9, 9, 9];
        let rows = [
            route.to_vec(),
            [&[1][..], &route].concat(),
            [&[1; 11][..], &route].concat(),
            [option(7, 7), route.to_vec()].concat(),
            [option(68, 8), option(148, 4), route.to_vec()].concat(),
            // Too short, too long or without its length: it is not asked for them.
            vec![kind, 0, 0, 0],
            vec![kind, 255, 0, 0],
            vec![1, 1, 1, kind],
            [vec![1; 3], option(7, 36), vec![kind]].concat(),
        ];
        for options in rows {
            let frame = Frame::syn(SIDES[0].open, 80).options(&options).bytes();
            lab.check(&format!("{options:?}"), Hooks::Both, &frame, SOURCE_ROUTE);
        }
    }
    let frame = Frame::syn(SIDES[0].open, 80).options(&option(7, 7)).bytes();
    lab.check("the twin with record route", Hooks::Both, &frame, Expect::Allow(SIDES[0].open_rule));
}

#[test]
fn malformed_options_are_dropped() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let rows: [(&str, Vec<u8>); 9] = [
        ("length 0", vec![7, 0, 1, 1]),
        ("length 1", vec![7, 1, 1, 1]),
        ("one byte too long", vec![7, 5, 0, 0]),
        ("much too long", vec![7, 255, 0, 0]),
        ("too long at the end", vec![1, 1, 7, 3]),
        ("13 NOPs", vec![1; 16]),
        ("40 NOPs", vec![1; 40]),
        ("13 options, then a source route", [[222, 2].repeat(13), vec![131, 7, 4, 9, 9, 9, 9]].concat()),
        ("13 options of two bytes", [222, 2].repeat(14)),
    ];
    for (name, options) in rows {
        let frame = Frame::syn(SIDES[0].open, 80).options(&options).bytes();
        lab.check(name, Hooks::Both, &frame, BAD);
    }
}

#[test]
fn an_option_whose_length_byte_is_in_the_transport_header_is_dropped() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    // The length byte would be the first byte of the source port: 2, which is a length, but one that leaves the header.
    let frame = Frame::syn(SIDES[0].open, 80).from_port(0x0202).options(&[1, 1, 1, 7]).bytes();
    lab.check("length in the ports", Hooks::Both, &frame, BAD);
    let frame = Frame::syn(SIDES[0].open, 80).from_port(0x0202).options(&[1, 1, 7, 2]).bytes();
    lab.check("length in the header", Hooks::Both, &frame, Expect::Allow(SIDES[0].open_rule));
}
