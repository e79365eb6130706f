//! Fragments: the first one is judged by its ports, the others by the first (§3.6).

use std::net::IpAddr;

use egress_common::event::Hook;
use egress_common::flow::{Fragment, timeout};
use egress_common::reason::DropReason;
use egress_packets::{Expect, Extension, Frame, Hooks, Lab, is_root};

use crate::sides::{DEFAULT, DENY_ALL, POLICY, SIDES, Side, raw};

const UNKNOWN: Expect<'_> = Expect::Drop(DropReason::UnknownFragment);
const OVERLAPPING: Expect<'_> = Expect::Drop(DropReason::OverlappingFragment);
const DENIED: Expect<'_> = Expect::DropWith(DropReason::DeniedFragment, DEFAULT);

/// One that allows a single UDP port everywhere.
const ONE_PORT: &str = r#"
apiVersion: egress.rs/v1alpha1
kind: EgressConfig
metadata: {name: default}
spec: {defaultAction: Deny, internalCIDRs: [10.0.0.0/8, "fd00::/8"]}
---
apiVersion: egress.rs/v1alpha1
kind: EgressNetworkPolicy
metadata: {name: p}
spec:
  egress:
  - {type: Deny, to: {cidrSelector: 1.2.3.0/24}}
  - {type: Deny, to: {cidrSelector: "2001:db8:1::/64"}}
  - {type: Allow, to: {cidrSelector: 5.5.5.0/24}, ports: [{protocol: UDP, port: 99}]}
  - {type: Allow, to: {cidrSelector: "2001:db8:5::/64"}, ports: [{protocol: UDP, port: 99}]}
"#;

fn first(destination: IpAddr, port: u16, id: u16) -> Frame {
    Frame::udp(destination, port).fragment(id, 0, true)
}

fn later(destination: IpAddr, id: u16, offset: u16) -> Frame {
    Frame::later(destination, 17, id, offset)
}

#[test]
fn a_first_fragment_is_judged_by_its_ports_and_the_others_follow_it() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        let (ports, allowed) = (side.ports, Expect::Allow(side.ports_rule));
        let rows = [
            ("later before first", later(ports, 1, 3), UNKNOWN),
            ("last before first", later(ports, 1, 185), UNKNOWN),
            ("first, allowed", first(ports, 53, 1), allowed),
            ("later", later(ports, 1, 3), allowed),
            ("in the middle", raw(ports, 17, &[1; 8]).fragment(1, 9, true), allowed),
            ("later, again", later(ports, 1, 3), allowed),
            ("right behind the UDP header", later(ports, 1, 1), allowed),
            ("another datagram", later(ports, 2, 3), UNKNOWN),
            ("another protocol", Frame::later(ports, 132, 1, 3), UNKNOWN),
            ("first, denied", first(ports, 54, 3), Expect::Deny(DEFAULT)),
            ("later of the denied", later(ports, 3, 3), DENIED),
            ("first of TCP", Frame::syn(ports, 443).data(&[1; 12]).fragment(4, 0, true), allowed),
            ("later of TCP", Frame::later(ports, 6, 4, 4), allowed),
            ("first of TCP, denied", Frame::syn(ports, 444).data(&[1; 12]).fragment(5, 0, true), Expect::Deny(DEFAULT)),
            ("later of TCP, denied", Frame::later(ports, 6, 5, 4), DENIED),
            ("first of SCTP", Frame::sctp(ports, 5000, 0).fragment(6, 0, true), allowed),
            ("later of SCTP", Frame::later(ports, 132, 6, 4), allowed),
            ("first of SCTP, denied", Frame::sctp(ports, 5001, 0).fragment(7, 0, true), Expect::Deny(DEFAULT)),
            ("later of SCTP, denied", Frame::later(ports, 132, 7, 4), DENIED),
            (
                "first of a denied datagram whose number was an allowed one's",
                first(ports, 54, 1),
                Expect::Deny(DEFAULT),
            ),
            ("later of it", later(ports, 1, 3), DENIED),
            ("and allowed again", first(ports, 53, 1), allowed),
            ("later of that", later(ports, 1, 3), allowed),
        ];
        for (name, frame, expect) in rows {
            lab.check(&side.row(name), Hooks::Both, &frame.bytes(), expect);
        }
        for hook in Hooks::Both.from_pod() {
            assert_eq!(lab.fragments(*hook).len(), 6, "{} {:?}", hook.name(), lab.fragments(*hook));
        }
        lab.forget();
    }
}

#[test]
fn where_ports_do_not_matter_later_fragments_are_judged_alone() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        let (open, shut) = (side.open, side.shut);
        let icmp = side.pick(1, 58);
        let rows = [
            ("open", later(open, 1, 3), Expect::Allow(side.open_rule)),
            ("shut", later(shut, 1, 3), Expect::Deny(DEFAULT)),
            ("first of shut", first(shut, 53, 2), Expect::Deny(DEFAULT)),
            ("later of shut", later(shut, 2, 3), DENIED),
            ("TCP, open", Frame::later(open, 6, 1, 4), Expect::Allow(side.open_rule)),
            ("TCP, shut", Frame::later(shut, 6, 1, 4), Expect::Deny(DEFAULT)),
            ("GRE, open", Frame::later(open, 47, 1, 4), Expect::Allow(side.open_rule)),
            ("GRE, shut", Frame::later(shut, 47, 1, 4), Expect::Deny(DEFAULT)),
            ("GRE where only other protocols have ports", Frame::later(side.ports, 47, 1, 4), Expect::Deny(DEFAULT)),
            ("a whole protocol is allowed", Frame::later(side.ports, icmp, 1, 4), Expect::Allow(side.ports_rule)),
            ("internal", later(side.inside, 1, 3), Expect::Allow(crate::sides::INTERNAL)),
        ];
        for (name, frame, expect) in rows {
            lab.check(&side.row(name), Hooks::Both, &frame.bytes(), expect);
        }
        lab.forget();
    }
}

#[test]
fn a_fragment_that_could_rewrite_the_tcp_header_is_dropped_everywhere() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        lab.check(
            "first",
            Hooks::Both,
            &Frame::syn(side.ports, 443).fragment(1, 0, true).bytes(),
            Expect::Allow(side.ports_rule),
        );
        for destination in [side.open, side.ports, side.shut, side.inside] {
            for more in [false, true] {
                let frame = raw(destination, 6, &[0xff; 16]).fragment(1, 1, more);
                lab.check(&side.row("offset 8"), Hooks::Both, &frame.bytes(), OVERLAPPING);
            }
        }
        // Offset 16 would rewrite the checksum, where the first fragment is known.
        let overlapped = Expect::DropWith(DropReason::OverlappingFragment, side.ports_rule);
        lab.check(&side.row("offset 16"), Hooks::Both, &Frame::later(side.ports, 6, 1, 2).bytes(), overlapped);
        // The twins: offset 24, and the same offset of a protocol whose header is over by then.
        lab.check(
            &side.row("offset 24"),
            Hooks::Both,
            &Frame::later(side.ports, 6, 1, 3).bytes(),
            Expect::Allow(side.ports_rule),
        );
        lab.check(
            &side.row("UDP"),
            Hooks::Both,
            &Frame::later(side.open, 17, 1, 1).bytes(),
            Expect::Allow(side.open_rule),
        );
    }
}

#[test]
fn a_first_fragment_too_short_for_its_transport_header_is_dropped() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        for (protocol, minimum) in [(6, 20), (17, 8), (132, 12), (side.pick(1, 58), 8)] {
            for length in [0, 1, 4, 8, 12, 16, 19] {
                let frame = raw(side.open, protocol, &vec![0; length]).fragment(1, 0, true);
                let expect = if length < minimum {
                    Expect::Drop(DropReason::TruncatedTransport)
                } else {
                    Expect::Allow(side.open_rule)
                };
                lab.check(&side.row(&format!("{length} bytes of {protocol}")), Hooks::Both, &frame.bytes(), expect);
            }
        }
    }
}

#[test]
fn fragments_do_not_outlive_the_table_that_judged_the_first() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        lab.check(&side.row("first"), Hooks::Both, &first(side.ports, 53, 1).bytes(), Expect::Allow(side.ports_rule));
        lab.check(&side.row("later"), Hooks::Both, &later(side.ports, 1, 3).bytes(), Expect::Allow(side.ports_rule));
        lab.apply(ONE_PORT);
        lab.check(&side.row("later, new table"), Hooks::Both, &later(side.ports, 1, 3).bytes(), UNKNOWN);
        lab.apply(DENY_ALL);
        lab.check(&side.row("later, deny all"), Hooks::Both, &later(side.ports, 1, 3).bytes(), Expect::Deny(DEFAULT));
        // The same rules again are another version.
        lab.apply(POLICY);
        lab.check(&side.row("later, old rules"), Hooks::Both, &later(side.ports, 1, 3).bytes(), UNKNOWN);
        lab.check(
            &side.row("first again"),
            Hooks::Both,
            &first(side.ports, 53, 1).bytes(),
            Expect::Allow(side.ports_rule),
        );
        lab.check(
            &side.row("later again"),
            Hooks::Both,
            &later(side.ports, 1, 3).bytes(),
            Expect::Allow(side.ports_rule),
        );
    }
}

#[test]
fn an_old_first_fragment_is_forgotten() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let now = crate::replies::monotonic();
    let limit = (timeout::FRAGMENT_SECONDS + 1) * 1_000_000_000;
    if now < limit {
        println!("SKIPPED: the machine is up for less than {} s", timeout::FRAGMENT_SECONDS + 1);
        return;
    }
    for side in SIDES {
        lab.check(&side.row("first"), Hooks::Both, &first(side.ports, 53, 1).bytes(), Expect::Allow(side.ports_rule));
        for hook in Hooks::Both.from_pod() {
            for (key, fragment) in lab.fragments(*hook) {
                lab.seed_fragment(key, Fragment { seen: now - limit, ..fragment });
            }
        }
        lab.check(&side.row("later"), Hooks::Both, &later(side.ports, 1, 3).bytes(), UNKNOWN);
        for hook in Hooks::Both.from_pod() {
            for (key, fragment) in lab.fragments(*hook) {
                lab.seed_fragment(key, Fragment { seen: now, ..fragment });
            }
        }
        lab.check(&side.row("the twin"), Hooks::Both, &later(side.ports, 1, 3).bytes(), Expect::Allow(side.ports_rule));
        lab.forget();
    }
}

#[test]
fn fragments_of_one_pod_do_not_open_the_way_for_another() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        let bytes = first(side.ports, 53, 1).bytes();
        let seen = lab.send(Hook::TcFromPod, &bytes);
        lab.compare("first", Hook::TcFromPod, &bytes, Expect::Allow(side.ports_rule), &seen);
        let bytes = later(side.ports, 1, 3).bytes();
        let seen = lab.send(Hook::CgroupEgress, &bytes);
        lab.compare("later of the other pod", Hook::CgroupEgress, &bytes, UNKNOWN, &seen);
        let seen = lab.send(Hook::TcFromPod, &bytes);
        lab.compare("later of the same pod", Hook::TcFromPod, &bytes, Expect::Allow(side.ports_rule), &seen);
        // Another source or destination is another datagram.
        let other = side.pick("10.0.0.6", "fd00::6").parse().expect("an address");
        lab.check(&side.row("other source"), Hooks::Tc, &later(side.ports, 1, 3).from(other).bytes(), UNKNOWN);
        let other = side.pick("5.5.5.6", "2001:db8:5::6").parse().expect("an address");
        lab.check(&side.row("other destination"), Hooks::Tc, &later(other, 1, 3).bytes(), UNKNOWN);
    }
}

#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let side = SIDES[1];
    let atomic = |port| Frame::udp(side.ports, port).extension(Extension::Fragment(7, 0, false)).bytes();
    lab.check("atomic", Hooks::Both, &atomic(53), Expect::Allow(side.ports_rule));
    lab.check("atomic, denied", Hooks::Both, &atomic(54), Expect::Deny(DEFAULT));
    lab.check("a later one does not follow it", Hooks::Both, &later(side.ports, 7, 3).bytes(), UNKNOWN);
    assert!(lab.fragments(Hook::TcFromPod).is_empty());
}

/// The transport stands behind extension headers of the first fragment, so later ones say only that one follows.
#[test]
fn later_ipv6_fragments_whose_transport_is_hidden_follow_the_first() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let side = SIDES[1];
    let hidden = |destination, port, id| {
        let frame = Frame::udp(destination, port).extension(Extension::Fragment(id, 0, true));
        frame.extension(Extension::Common(Extension::DESTINATION, 16)).bytes()
    };
    let later = |destination, id| Frame::later(destination, Extension::DESTINATION, id, 5).bytes();
    let allowed = Expect::Allow(side.ports_rule);
    lab.check("later before first", Hooks::Both, &later(side.ports, 1), UNKNOWN);
    lab.check("first", Hooks::Both, &hidden(side.ports, 53, 1), allowed);
    lab.check("later", Hooks::Both, &later(side.ports, 1), allowed);
    lab.check("first, denied", Hooks::Both, &hidden(side.ports, 54, 2), Expect::Deny(DEFAULT));
    lab.check("later, denied", Hooks::Both, &later(side.ports, 2), DENIED);
    lab.check("where nothing matters", Hooks::Both, &later(side.open, 3), Expect::Allow(side.open_rule));
    lab.check("where nothing matters, shut", Hooks::Both, &later(side.shut, 3), Expect::Deny(DEFAULT));
    let behind = |last| Frame::later(side.ports, last, 1, 5).bytes();
    lab.check("another next header", Hooks::Both, &behind(Extension::HOP_BY_HOP), UNKNOWN);
    lab.check("ESP", Hooks::Both, &Frame::later(side.open, 50, 1, 5).bytes(), Expect::Allow(side.open_rule));
}

/// Where the transport header of the first fragment ends at byte 24, a later one at byte 8 or 16 would rewrite its ports for a
/// receiver that lets later fragments win.
#[test]
fn a_later_fragment_cannot_overlap_a_hidden_transport_header() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let side = SIDES[1];
    let first = Frame::udp(side.ports, 53).extension(Extension::Fragment(1, 0, true));
    let first = first.extension(Extension::Common(Extension::DESTINATION, 16));
    lab.check("first", Hooks::Both, &first.bytes(), Expect::Allow(side.ports_rule));
    let later = |offset| Frame::later(side.ports, Extension::DESTINATION, 1, offset).bytes();
    for offset in [1, 2] {
        let overlapping = Expect::DropWith(DropReason::OverlappingFragment, side.ports_rule);
        lab.check(&format!("offset {}", offset * 8), Hooks::Both, &later(offset), overlapping);
    }
    lab.check("behind it", Hooks::Both, &later(3), Expect::Allow(side.ports_rule));
}

/// A fragment inside a fragment is a later one, whatever the outer header says.
#[test]
fn a_fragment_header_inside_a_first_fragment_does_not_open_the_way() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let side: Side = SIDES[1];
    let nested = |outer: u32, inner: u32| {
        let frame = raw(side.ports, 17, &[1; 16]).extension(Extension::Fragment(outer, 0, true));
        frame.extension(Extension::Fragment(inner, 4, false)).bytes()
    };
    lab.check("nothing seen", Hooks::Both, &nested(1, 2), UNKNOWN);
    lab.check("the outer one did not count as a first one", Hooks::Both, &later(side.ports, 1, 3).bytes(), UNKNOWN);
    lab.check("denied first", Hooks::Both, &first(side.ports, 54, 2).bytes(), Expect::Deny(DEFAULT));
    lab.check("inside of that", Hooks::Both, &nested(1, 2), DENIED);
    lab.check("outer is that", Hooks::Both, &nested(2, 1), UNKNOWN);
}
