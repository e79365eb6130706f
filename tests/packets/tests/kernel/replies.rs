//! Replies are never judged (§1.4): what began outside may be answered, and nothing else slips through on that ticket.

use std::net::IpAddr;

use egress_common::event::Hook;
use egress_common::flow::{Flow, FlowKey, origin, timeout};
use egress_common::packet::mapped;
use egress_packets::{Expect, Extension, Frame, Hooks, Lab, Transport, is_root, tcp_flag};

use crate::sides::{DEFAULT, DENY_ALL, INTERNAL, POLICY, SIDES, Side};

const SECOND: u64 = 1_000_000_000;
const DENIED: Expect<'_> = Expect::Deny(DEFAULT);

/// Allows everything.
const ALLOW_ALL: &str = r#"
apiVersion: egress.rs/v1alpha1
kind: EgressConfig
metadata: {name: default}
spec: {defaultAction: Allow, internalCIDRs: [10.0.0.0/8, "fd00::/8"]}
"#;

/// `CLOCK_MONOTONIC`, nanoseconds.
pub(crate) fn monotonic() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("a clock");
    u64::try_from(std::time::Duration::from(now).as_nanos()).expect("centuries")
}

fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => mapped(address.octets()),
        IpAddr::V6(address) => address.octets(),
    }
}

/// An ICMP error of the pod that quotes the packet it answers.
fn error(kind: u8, quoted: &Frame) -> Frame {
    let quote = quoted.packet();
    Frame::new(
        quoted.source,
        Transport::Icmp { kind, code: 3, rest: [0; 4], data: quote[..quote.len().min(64)].to_vec() },
    )
    .from(quoted.destination)
}

#[test]
fn a_tcp_connection_that_began_outside_is_answered() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        let answer = |flags| Frame::tcp(side.shut, 55_000, flags).from_port(8080).bytes();
        let (syn_ack, ack) = (answer(tcp_flag::SYN | tcp_flag::ACK), answer(tcp_flag::ACK));
        lab.check(&side.row("nothing seen"), Hooks::Both, &syn_ack, DENIED);
        lab.check(&side.row("nothing seen"), Hooks::Both, &ack, DENIED);
        lab.receive(&Frame::syn(side.shut, 55_000).from_port(8080).turned());
        for flags in [0, tcp_flag::ACK, tcp_flag::SYN | tcp_flag::ACK, tcp_flag::RST, tcp_flag::FIN | tcp_flag::ACK] {
            lab.check(&side.row(&format!("answer {flags:x}")), Hooks::Both, &answer(flags), Expect::Reply);
        }
        for flags in [tcp_flag::SYN, tcp_flag::SYN | tcp_flag::FIN, tcp_flag::SYN | 0xc0] {
            lab.check(&side.row(&format!("its own opening {flags:x}")), Hooks::Both, &answer(flags), DENIED);
        }
        let other = |from, to| Frame::tcp(side.shut, to, tcp_flag::ACK).from_port(from).bytes();
        lab.check(&side.row("another local port"), Hooks::Both, &other(8081, 55_000), DENIED);
        lab.check(&side.row("another remote port"), Hooks::Both, &other(8080, 55_001), DENIED);
        lab.check(&side.row("ports swapped"), Hooks::Both, &other(55_000, 8080), DENIED);
        let udp = Frame::udp(side.shut, 55_000).from_port(8080).bytes();
        lab.check(&side.row("another protocol"), Hooks::Both, &udp, DENIED);
        let address = side.pick("9.9.9.8", "2001:db8:9::8").parse().expect("an address");
        let elsewhere = Frame::tcp(address, 55_000, tcp_flag::ACK).from_port(8080).bytes();
        lab.check(&side.row("another remote"), Hooks::Both, &elsewhere, DENIED);
        lab.forget();
        lab.check(&side.row("forgotten"), Hooks::Both, &ack, DENIED);
    }
}

#[test]
fn only_an_opening_from_outside_opens_tcp_sctp_and_icmp() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        for flags in [0, 1, 4, 8, 0x10, 0x12, 0x11, 0x14, 0x18] {
            lab.receive(&Frame::tcp(side.shut, 55_000, flags).from_port(8080).turned());
        }
        for chunk in [0, 2, 3, 6, 10, 11, 14, 255] {
            lab.receive(&Frame::sctp(side.shut, 55_000, chunk).from_port(8080).turned());
        }
        lab.receive(&Frame::new(side.shut, Transport::Sctp { from: 8080, to: 55_000, chunk: None }).turned());
        for kind in (0..=255).filter(|kind| side.pick(![8, 13, 15, 17, 42].contains(kind), ![128, 160].contains(kind)))
        {
            lab.receive(&Frame::icmp(side.shut, kind).turned());
        }
        for hook in Hooks::Both.from_pod() {
            assert_eq!(lab.flows(*hook), [], "{}", hook.name());
        }
        lab.check(&side.row("TCP"), Hooks::Both, &Frame::tcp(side.shut, 55_000, 0x10).from_port(8080).bytes(), DENIED);
        lab.check(&side.row("SCTP"), Hooks::Both, &Frame::sctp(side.shut, 55_000, 0).from_port(8080).bytes(), DENIED);
        lab.check(&side.row("echo"), Hooks::Both, &Frame::icmp(side.shut, side.pick(0, 129)).bytes(), DENIED);
    }
}

#[test]
fn a_udp_server_answers_who_spoke_first() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        let answer = Frame::udp(side.shut, 55_000).from_port(5353);
        lab.check(&side.row("before"), Hooks::Both, &answer.bytes(), DENIED);
        lab.receive(&answer.clone().turned());
        lab.check(&side.row("answer"), Hooks::Both, &answer.bytes(), Expect::Reply);
        lab.check(&side.row("and again"), Hooks::Both, &answer.bytes(), Expect::Reply);
        let other = answer.clone().from_port(5354);
        lab.check(&side.row("from another port"), Hooks::Both, &other.bytes(), DENIED);
        lab.check(
            &side.row("to another port"),
            Hooks::Both,
            &Frame::udp(side.shut, 53).from_port(5353).bytes(),
            DENIED,
        );
        // A denied packet of the pod does not make the flow its own: the remote may still speak first.
        lab.receive(&other.clone().turned());
        lab.check(&side.row("answer from that port"), Hooks::Both, &other.bytes(), Expect::Reply);
    }
}

#[test]
fn echo_requests_from_outside_are_answered_by_identifier() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        let pairs: &[(u8, u8)] =
            side.pick(&[(8, 0), (13, 14), (15, 16), (17, 18), (42, 43)], &[(128, 129), (160, 161)]);
        for (request, answer) in pairs {
            let row = side.row(&format!("{request} and {answer}"));
            lab.check(&row, Hooks::Both, &Frame::icmp(side.shut, *answer).bytes(), DENIED);
            lab.receive(&Frame::icmp(side.shut, *request).turned());
            lab.check(&row, Hooks::Both, &Frame::icmp(side.shut, *answer).bytes(), Expect::Reply);
            lab.check(&row, Hooks::Both, &Frame::icmp(side.shut, *request).bytes(), DENIED);
            let other = Transport::Icmp { kind: *answer, code: 0, rest: [0x12, 0x35, 0, 1], data: vec![] };
            lab.check(&row, Hooks::Both, &Frame::new(side.shut, other).bytes(), DENIED);
            lab.forget();
        }
    }
}

/// Identifier 0 is an identifier like others; messages without one are no answers to it.
#[test]
fn an_echo_request_with_identifier_0_opens_the_way_for_its_answer_only() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        let message = |kind| Frame::new(side.shut, Transport::Icmp { kind, code: 0, rest: [0; 4], data: vec![0; 16] });
        lab.receive(&message(side.pick(8, 128)).turned());
        let answer = side.pick(0, 129);
        lab.check(&side.row("answer"), Hooks::Both, &message(answer).bytes(), Expect::Reply);
        for kind in [1, 3, 4, 5, 9, 11, 40, 100, 130, 133, 137, 200, 255] {
            lab.check(&side.row(&format!("type {kind}")), Hooks::Both, &message(kind).bytes(), DENIED);
        }
    }
}

#[test]
fn an_sctp_association_that_began_outside_is_answered() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        let answer = |chunk| Frame::sctp(side.shut, 55_000, chunk).from_port(5000).bytes();
        lab.check(&side.row("before"), Hooks::Both, &answer(2), DENIED);
        lab.receive(&Frame::sctp(side.shut, 55_000, 1).from_port(5000).turned());
        for chunk in [2, 0, 3, 10, 11] {
            lab.check(&side.row(&format!("chunk {chunk}")), Hooks::Both, &answer(chunk), Expect::Reply);
        }
        lab.check(&side.row("its own INIT"), Hooks::Both, &answer(1), DENIED);
        lab.check(
            &side.row("other port"),
            Hooks::Both,
            &Frame::sctp(side.shut, 55_001, 2).from_port(5000).bytes(),
            DENIED,
        );
    }
}

#[test]
fn protocols_without_ports_are_answered_by_address_and_protocol() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        for protocol in [47, 4, 99, 253] {
            let row = side.row(&format!("protocol {protocol}"));
            let frame = Frame::protocol(side.shut, protocol);
            lab.check(&row, Hooks::Both, &frame.bytes(), DENIED);
            lab.receive(&frame.clone().turned());
            lab.check(&row, Hooks::Both, &frame.bytes(), Expect::Reply);
            lab.check(&row, Hooks::Both, &Frame::protocol(side.shut, protocol + 1).bytes(), DENIED);
            lab.forget();
        }
    }
}

#[test]
fn what_the_pod_began_while_it_was_allowed_stays_its_own() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(ALLOW_ALL);
    for side in SIDES {
        for frame in [Frame::udp(side.shut, 55_000).from_port(5353), Frame::protocol(side.shut, 47)] {
            lab.apply(ALLOW_ALL);
            let row = side.row(&format!("protocol {}", frame.protocol_number()));
            lab.check(&row, Hooks::Both, &frame.bytes(), Expect::Allow(DEFAULT));
            for hook in Hooks::Both.from_pod() {
                let origins: Vec<u32> = lab.flows(*hook).iter().map(|(_, flow)| flow.origin).collect();
                assert_eq!(origins, [origin::INSIDE], "{row}");
            }
            lab.receive(&frame.clone().turned());
            lab.apply(DENY_ALL);
            lab.check(&row, Hooks::Both, &frame.bytes(), DENIED);
            lab.receive(&frame.clone().turned());
            lab.receive(&frame.clone().turned());
            lab.check(&row, Hooks::Both, &frame.bytes(), DENIED);
            lab.forget();
            // The twin: where the remote was first, it goes on.
            lab.apply(ALLOW_ALL);
            lab.receive(&frame.clone().turned());
            lab.check(&row, Hooks::Both, &frame.bytes(), Expect::Allow(DEFAULT));
            lab.apply(DENY_ALL);
            lab.check(&row, Hooks::Both, &frame.bytes(), Expect::Reply);
            lab.forget();
        }
    }
}

#[test]
fn a_live_tcp_connection_of_the_pod_is_cut_and_one_from_outside_is_not() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(ALLOW_ALL);
    for side in SIDES {
        lab.apply(ALLOW_ALL);
        let own = Frame::tcp(side.shut, 443, tcp_flag::ACK).bytes();
        let served = Frame::tcp(side.shut, 55_000, tcp_flag::ACK).from_port(80).bytes();
        lab.check(&side.row("own"), Hooks::Both, &Frame::syn(side.shut, 443).bytes(), Expect::Allow(DEFAULT));
        // The answer to the pod's own opening is none of outside.
        lab.receive(&Frame::tcp(side.shut, 443, tcp_flag::SYN | tcp_flag::ACK).turned());
        lab.receive(&Frame::syn(side.shut, 55_000).from_port(80).turned());
        lab.check(&side.row("own"), Hooks::Both, &own, Expect::Allow(DEFAULT));
        lab.check(&side.row("served"), Hooks::Both, &served, Expect::Allow(DEFAULT));
        lab.apply(DENY_ALL);
        lab.check(&side.row("own"), Hooks::Both, &own, DENIED);
        lab.check(&side.row("served"), Hooks::Both, &served, Expect::Reply);
    }
}

#[test]
fn internal_sources_are_not_remembered() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        for frame in [
            Frame::syn(side.inside, 80),
            Frame::udp(side.inside, 53),
            Frame::echo(side.inside),
            Frame::protocol(side.inside, 47),
        ] {
            lab.receive(&frame.clone().turned());
            lab.check(&side.row("internal"), Hooks::Both, &frame.bytes(), Expect::Allow(INTERNAL));
        }
        for hook in Hooks::Both.from_pod() {
            assert_eq!(lab.flows(*hook), [], "{}", hook.name());
        }
    }
    // The twin: an external one is.
    lab.receive(&Frame::syn(SIDES[0].open, 80).turned());
    assert_eq!(lab.flows(Hook::TcFromPod).len(), 1);
}

#[test]
fn a_pods_replies_are_its_own() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        let answer = Frame::udp(side.shut, 55_000).from_port(5353).bytes();
        let question = Frame::udp(side.shut, 55_000).from_port(5353).turned().bytes();
        lab.send(Hook::TcToPod, &question);
        let seen = lab.send(Hook::CgroupEgress, &answer);
        lab.compare("the other pod", Hook::CgroupEgress, &answer, DENIED, &seen);
        lab.check(&side.row("the pod itself"), Hooks::Tc, &answer, Expect::Reply);
    }
}

#[test]
fn icmp_errors_pass_where_they_quote_a_connection_that_began_outside() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        let opened = [
            Frame::syn(side.shut, 55_000).from_port(8080).turned(),
            Frame::udp(side.shut, 55_000).from_port(5353).turned(),
            Frame::sctp(side.shut, 55_000, 1).from_port(5000).turned(),
        ];
        for opening in opened {
            let protocol = opening.protocol_number();
            let kinds: &[u8] = side.pick(&[3, 11, 12], &[1, 2, 3, 4]);
            for kind in kinds {
                let row = side.row(&format!("type {kind} quoting {protocol}"));
                lab.check(&row, Hooks::Both, &error(*kind, &opening).bytes(), DENIED);
                lab.receive(&opening);
                lab.check(&row, Hooks::Both, &error(*kind, &opening).bytes(), Expect::Reply);
                let other = opening.clone().from_port(55_001);
                lab.check(&row, Hooks::Both, &error(*kind, &other).bytes(), DENIED);
                // Sent to somebody else than the quoted sender.
                let mut elsewhere = error(*kind, &opening);
                elsewhere.destination = side.pick("9.9.9.8", "2001:db8:9::8").parse().expect("an address");
                lab.check(&row, Hooks::Both, &elsewhere.bytes(), DENIED);
                // Quoting the pod's own packet.
                let mut own = error(*kind, &opening.clone().turned());
                (own.source, own.destination) = (opening.destination, opening.source);
                lab.check(&row, Hooks::Both, &own.bytes(), DENIED);
                // Cut before the quoted ports.
                let quote = side.pick(20, 40);
                let cut = error(*kind, &opening).data(&opening.packet()[..quote + 3]);
                lab.check(&row, Hooks::Both, &cut.bytes(), DENIED);
                lab.forget();
            }
            // Other types are no errors, whatever they carry.
            lab.receive(&opening);
            for kind in side.pick([4, 5, 13, 40], [0, 5, 127, 200]) {
                let row = side.row(&format!("type {kind} quoting {protocol}"));
                lab.check(&row, Hooks::Both, &error(kind, &opening).bytes(), DENIED);
            }
            lab.forget();
        }
    }
}

#[test]
fn an_icmp_error_with_ip_options_outside_and_inside_is_understood() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let opening = Frame::syn(SIDES[0].shut, 55_000).from_port(8080).turned().options(&[7, 7, 4, 0, 0, 0, 0]);
    let answer = error(3, &opening).options(&[148, 4, 0, 0]);
    lab.check("nothing seen", Hooks::Both, &answer.bytes(), DENIED);
    lab.receive(&opening);
    lab.check("outside and inside", Hooks::Both, &answer.bytes(), Expect::Reply);
}

#[test]
fn fragments_of_a_reply_follow_their_first() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        for remote in [side.shut, side.ports] {
            let answer = Frame::udp(remote, 55_000).from_port(5353);
            let later = Frame::later(remote, 17, 9, 3).bytes();
            lab.check(&side.row("later, nothing seen"), Hooks::Both, &later, unknown(&side, remote));
            lab.receive(&answer.clone().turned());
            lab.check(&side.row("later, before first"), Hooks::Both, &later, unknown(&side, remote));
            let first = answer.clone().fragment(9, 0, true).bytes();
            lab.check(&side.row("first"), Hooks::Both, &first, Expect::Reply);
            lab.check(&side.row("later"), Hooks::Both, &later, Expect::ReplyFragment);
            let other = Frame::later(remote, 17, 10, 3).bytes();
            lab.check(&side.row("later of another"), Hooks::Both, &other, unknown(&side, remote));
            lab.forget();
        }
    }
}

fn unknown(side: &Side, remote: IpAddr) -> Expect<'static> {
    if remote == side.shut { DENIED } else { Expect::Drop(egress_common::reason::DropReason::UnknownFragment) }
}

#[test]
fn fragments_and_options_from_outside_open_like_whole_packets() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in SIDES {
        let answer = Frame::udp(side.shut, 55_000).from_port(5353);
        lab.receive(&answer.clone().turned().fragment(3, 0, true));
        lab.check(&side.row("first fragment"), Hooks::Both, &answer.bytes(), Expect::Reply);
        lab.forget();
        lab.receive(&Frame::later(side.shut, 17, 3, 3).turned());
        assert_eq!(lab.flows(Hook::TcFromPod), [], "a later fragment has no ports");
        let dressed = answer.clone().turned();
        let dressed = side.pick(dressed.clone().options(&[148, 4, 0, 0]), dressed.extension(Extension::Common(0, 8)));
        lab.receive(&dressed);
        lab.check(&side.row("options"), Hooks::Both, &answer.bytes(), Expect::Reply);
        lab.forget();
    }
}

#[test]
fn a_connection_is_remembered_as_long_as_its_protocol_says() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let now = monotonic();
    let mut skipped = Vec::new();
    for (protocol, seconds) in [(6, timeout::TCP_SECONDS), (17, timeout::OTHER_SECONDS), (47, timeout::OTHER_SECONDS)] {
        for side in SIDES {
            let frame = match protocol {
                6 => Frame::tcp(side.shut, 55_000, tcp_flag::ACK),
                17 => Frame::udp(side.shut, 55_000),
                _ => Frame::protocol(side.shut, protocol),
            };
            let row = side.row(&format!("protocol {protocol}"));
            lab.receive(&if protocol == 6 { Frame::syn(side.shut, 55_000).turned() } else { frame.clone().turned() });
            let found: Vec<(FlowKey, Flow)> =
                [Hook::TcFromPod, Hook::CgroupEgress].into_iter().flat_map(|hook| lab.flows(hook)).collect();
            assert_eq!(found.len(), 2, "{row}");
            let (port, remote) =
                if protocol == 47 { ([0, 0], [0, 0]) } else { (40_000_u16.to_be_bytes(), 55_000_u16.to_be_bytes()) };
            for (key, flow) in &found {
                assert_eq!((key.remote, key.local_port, key.remote_port), (bytes(side.shut), port, remote), "{row}");
                assert_eq!(flow.origin, origin::OUTSIDE, "{row}");
                assert!(flow.last_seen <= monotonic() && flow.last_seen + SECOND > now, "{row}: {flow:?}");
            }
            let age = |lab: &mut Lab, seen: u64| {
                for (key, flow) in &found {
                    lab.seed_flow(*key, Flow { last_seen: seen, ..*flow });
                }
            };
            let margin = 5 * SECOND;
            age(&mut lab, now.saturating_sub(seconds * SECOND - margin.min(now)));
            lab.check(&row, Hooks::Both, &frame.bytes(), Expect::Reply);
            age(&mut lab, now + SECOND);
            lab.check(&format!("{row}, another CPU is ahead"), Hooks::Both, &frame.bytes(), Expect::Reply);
            let Some(long_ago) = now.checked_sub(seconds * SECOND + margin) else {
                skipped.push(seconds);
                lab.forget();
                continue;
            };
            age(&mut lab, long_ago);
            lab.check(&format!("{row}, too old"), Hooks::Both, &frame.bytes(), DENIED);
            lab.forget();
        }
    }
    if !skipped.is_empty() {
        println!("not asked, because the machine is not up for so long: timeouts of {skipped:?} s");
    }
}
