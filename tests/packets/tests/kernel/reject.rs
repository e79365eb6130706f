//! `denyResponse: Reject`: the packet that goes back, byte by byte (RFC 9293 §3.10.7.1, RFC 1812 §5.2.7.1, RFC 4443 §3.1).

use std::net::IpAddr;

use egress_common::event::Hook;
use egress_packets::{Expect, Extension, Frame, Hooks, Lab, Pooled, Transport, internet, is_root, pseudo, tcp_flag};

use crate::sides::{DEFAULT, DENY_ALL, SIDES, Side, raw};

fn rejecting() -> Pooled {
    Lab::new(&DENY_ALL.replace("defaultAction: Deny,", "defaultAction: Deny, denyResponse: Reject,"))
}

/// Sends a frame that must be answered, and returns the answer's IP packet after checking its Ethernet and IP headers.
fn answer(lab: &mut Lab, row: &str, frame: &Frame) -> Vec<u8> {
    let bytes = frame.bytes();
    let seen = lab.send(Hook::TcFromPod, &bytes);
    lab.compare(row, Hook::TcFromPod, &bytes, Expect::Answered(DEFAULT), &seen);
    let output = seen.output;
    assert_eq!((&output[..6], &output[6..12], &output[12..14]), (&bytes[6..12], &bytes[..6], &bytes[12..14]), "{row}");
    let packet = output[14..].to_vec();
    match (frame.source, frame.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            assert_eq!(packet[0], 0x45, "{row}");
            assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len(), "{row}");
            assert_eq!(packet[6..8], [0, 0], "{row}: not a fragment");
            assert_eq!((&packet[12..16], &packet[16..20]), (&destination.octets()[..], &source.octets()[..]), "{row}");
            assert_eq!(internet(&[&packet[..20]]), 0, "{row}: header checksum");
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            assert_eq!(packet[0] >> 4, 6, "{row}");
            assert_eq!(usize::from(u16::from_be_bytes([packet[4], packet[5]])) + 40, packet.len(), "{row}");
            assert_eq!((&packet[8..24], &packet[24..40]), (&destination.octets()[..], &source.octets()[..]), "{row}");
        }
        _ => unreachable!("one family"),
    }
    packet
}

/// The answer's transport part, after its checksum is checked.
fn transport<'a>(side: &Side, frame: &Frame, packet: &'a [u8], protocol: u8) -> &'a [u8] {
    let header = side.pick(20, 40);
    assert_eq!(packet[side.pick(9, 6)], protocol);
    assert!(packet[side.pick(8, 7)] >= 32, "time to live");
    let body = &packet[header..];
    let over = pseudo(frame.destination, frame.source, protocol, body.len());
    let over: &[u8] = if protocol == 1 { &[] } else { &over };
    assert_eq!(internet(&[over, body]), 0, "checksum of {body:02x?}");
    body
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[test]
fn tcp_is_answered_by_a_reset_with_the_right_numbers() {
    const SEQUENCE: u32 = 0x0102_0304;
    const ACKNOWLEDGEMENT: u32 = 0x0a0b_0c0d;
    use tcp_flag::{ACK, FIN, PSH, RST, SYN};
    if !is_root() {
        return;
    }
    let mut lab = rejecting();
    for side in SIDES {
        // Flags, length of data, and of the answer: sequence, acknowledgement, flags.
        let rows = [
            (SYN, 0, (0, SEQUENCE + 1, RST | ACK)),
            (SYN, 7, (0, SEQUENCE + 8, RST | ACK)),
            (SYN | FIN, 0, (0, SEQUENCE + 2, RST | ACK)),
            (0, 5, (0, SEQUENCE + 5, RST | ACK)),
            (FIN, 0, (0, SEQUENCE + 1, RST | ACK)),
            (ACK, 0, (ACKNOWLEDGEMENT, 0, RST)),
            (ACK | PSH, 100, (ACKNOWLEDGEMENT, 0, RST)),
            (SYN | ACK, 0, (ACKNOWLEDGEMENT, 0, RST)),
            (FIN | ACK, 0, (ACKNOWLEDGEMENT, 0, RST)),
        ];
        for (flags, data, expected) in rows {
            for options in [0, 20, 40] {
                let row = side.row(&format!("flags {flags:x}, {data} bytes, {options} of options"));
                let mut frame = Frame::tcp(side.shut, 443, flags).data(&vec![0xab; data]);
                if let Transport::Tcp { options: bytes, .. } = &mut frame.transport {
                    *bytes = vec![1; options];
                }
                let packet = answer(&mut lab, &row, &frame);
                let body = transport(&side, &frame, &packet, 6);
                assert_eq!(body.len(), 20, "{row}");
                assert_eq!(
                    (u16::from_be_bytes([body[0], body[1]]), u16::from_be_bytes([body[2], body[3]])),
                    (443, 40_000)
                );
                assert_eq!((word(body, 4), word(body, 8), body[13]), expected, "{row}");
                assert_eq!(body[12] >> 4, 5, "{row}: header length");
            }
        }
        // Sequence numbers wrap; padding is no data.
        let mut frame = Frame::syn(side.shut, 1).data(&[1; 4]).padding(&[9; 30]);
        if let Transport::Tcp { sequence, .. } = &mut frame.transport {
            *sequence = u32::MAX - 1;
        }
        let packet = answer(&mut lab, "wraps", &frame);
        assert_eq!(word(transport(&side, &frame, &packet, 6), 8), 3);
    }
}

#[test]
fn other_protocols_are_answered_by_administratively_prohibited() {
    if !is_root() {
        return;
    }
    let mut lab = rejecting();
    for side in SIDES {
        let frames = [
            Frame::udp(side.shut, 53),
            Frame::udp(side.shut, 53).data(&[]),
            Frame::udp(side.shut, 53).data(&[1]),
            Frame::udp(side.shut, 53).data(&[7; 1400]),
            Frame::udp(side.shut, 53).padding(&[9; 20]),
            Frame::echo(side.shut),
            Frame::icmp(side.shut, side.pick(13, 160)),
            Frame::sctp(side.shut, 5000, 1),
            Frame::protocol(side.shut, 47),
            Frame::udp(side.shut, 53).data(&[7; 64]).fragment(1, 0, true),
        ];
        for frame in frames {
            let row = side.row(&format!("protocol {}", frame.protocol_number()));
            let quoted = frame.packet();
            if !frame.extensions.is_empty() {
                continue;
            }
            let packet = answer(&mut lab, &row, &frame);
            let body = transport(&side, &frame, &packet, side.pick(1, 58));
            assert_eq!((body[0], body[1]), side.pick((3, 13), (1, 1)), "{row}");
            assert_eq!(body[4..8], [0; 4], "{row}");
            assert_eq!(body[8..], quoted[..side.pick(20, 40) + 8], "{row}: the quoted packet");
        }
    }
}

#[test]
fn some_packets_are_only_dropped() {
    if !is_root() {
        return;
    }
    let mut lab = rejecting();
    for side in SIDES {
        let mut frames = vec![
            ("RST", Frame::tcp(side.shut, 80, tcp_flag::RST)),
            ("RST and ACK", Frame::tcp(side.shut, 80, tcp_flag::RST | tcp_flag::ACK)),
            ("UDP to a group", Frame::udp(side.pick("224.0.1.1", "ff0e::1").parse().expect("an address"), 53)),
            ("TCP to a group", Frame::syn(side.pick("239.1.1.1", "ff05::1").parse().expect("an address"), 53)),
            ("behind a tag", Frame::syn(side.shut, 80).tag(0x8100)),
            ("GRE without eight bytes to quote", Frame::protocol(side.shut, 47).data(&[1; 7])),
        ];
        let errors: &[u8] = side.pick(&[0, 3, 4, 5, 11, 12, 14], &[1, 2, 3, 4, 129, 137, 161]);
        frames.extend(errors.iter().map(|kind| ("an ICMP message that is no request", Frame::icmp(side.shut, *kind))));
        if side.open.is_ipv4() {
            frames.push(("broadcast", Frame::udp("255.255.255.255".parse().expect("an address"), 9)));
            frames.push(("options", Frame::syn(side.shut, 80).options(&[1, 1, 1, 1])));
        }
        for (name, frame) in frames {
            let bytes = frame.bytes();
            let seen = lab.send(Hook::TcFromPod, &bytes);
            lab.compare(&side.row(name), Hook::TcFromPod, &bytes, Expect::Unanswered(DEFAULT), &seen);
        }
        // Later fragments, and what cannot be read, are no refusals by a rule.
        let later = Frame::later(side.shut, 17, 5, 3).bytes();
        let seen = lab.send(Hook::TcFromPod, &later);
        lab.compare(&side.row("later"), Hook::TcFromPod, &later, Expect::Deny(DEFAULT), &seen);
    }
    let behind = Frame::udp(SIDES[1].shut, 53).extension(Extension::Common(0, 8)).bytes();
    let seen = lab.send(Hook::TcFromPod, &behind);
    assert_eq!((seen.counted.len(), seen.drops.len(), seen.events.len()), (1, 1, 1), "{seen:?}");
    assert!(matches!(seen.action, 2 | 7), "{seen:?}");
}

/// A cgroup has no way back for an answer.
#[test]
fn a_cgroup_only_drops() {
    if !is_root() {
        return;
    }
    let mut lab = rejecting();
    for side in SIDES {
        for frame in [Frame::syn(side.shut, 80), Frame::udp(side.shut, 80), raw(side.shut, 47, &[0; 20])] {
            let bytes = frame.bytes();
            let seen = lab.send(Hook::CgroupEgress, &bytes);
            lab.compare(&side.row("cgroup"), Hook::CgroupEgress, &bytes, Expect::Deny(DEFAULT), &seen);
        }
    }
    // The twin: without Reject, TC only drops as well.
    let mut lab = Lab::new(DENY_ALL);
    lab.check("no Reject", Hooks::Both, &Frame::syn(SIDES[0].shut, 80).bytes(), Expect::Deny(DEFAULT));
}
