//! The host build of the parser: it never panics, reads back what was built, and passes nothing that it has not understood. Needs
//! neither root nor a kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;

use egress_common::event::Hook;
use egress_common::packet::{self, Packet, flag, mapped};
use egress_common::reason::DropReason;
use egress_packets::{Frame, Transport, read};
use egress_reference::Random;

use crate::fuzz::{any_bytes, any_frame, mutate};

const HOOKS: [Hook; 2] = [Hook::TcFromPod, Hook::CgroupEgress];

fn address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => mapped(address.octets()),
        IpAddr::V6(address) => address.octets(),
    }
}

/// What the parser must read in a frame that [`any_frame`] built.
fn expected(frame: &Frame) -> Packet {
    use egress_packets::Extension;
    let number = frame.protocol_number();
    let fragment = frame.extensions.iter().enumerate().find_map(|(at, extension)| match extension {
        Extension::Fragment(id, units, more) => Some((at, *id, *units, *more)),
        Extension::Common(..) | Extension::Routing(_) | Extension::Authentication(_) => None,
    });
    let (id, units, more) = match (frame.fragment, fragment) {
        (Some((id, units, more)), _) => (u32::from(id), units, more),
        (None, Some((_, id, units, more))) => (id, units, more),
        (None, None) => (0, 0, false),
    };
    let mut packet = Packet {
        source: address(frame.source),
        destination: address(frame.destination),
        family: if frame.source.is_ipv4() { 4 } else { 6 },
        protocol: number,
        fragment_protocol: number,
        ..Packet::EMPTY
    };
    if more || units != 0 {
        packet.fragment_id = id.to_be_bytes();
        packet.flags |= if units == 0 { flag::FIRST_FRAGMENT } else { flag::LATER_FRAGMENT };
        if let Some((at, ..)) = fragment {
            packet.fragment_protocol = following(frame, at);
        }
    }
    if units != 0 {
        packet.fragment_units = units;
        return packet;
    }
    let (from, to) = frame.ports();
    let opens = match &frame.transport {
        Transport::Tcp { flags, .. } => flags & 0x12 == 2,
        Transport::Sctp { chunk, .. } => *chunk == Some(1),
        Transport::Icmp { kind, .. } => {
            packet.icmp_type = *kind;
            let (requests, answers): (&[u8], &[u8]) =
                if number == 1 { (&[8, 13, 15, 17, 42], &[0, 14, 16, 18, 43]) } else { (&[128, 160], &[129, 161]) };
            if requests.contains(kind) || answers.contains(kind) {
                (packet.source_port, packet.destination_port) = (from.to_be_bytes(), to.to_be_bytes());
            }
            requests.contains(kind)
        }
        Transport::Udp { .. } | Transport::Raw { .. } => false,
    };
    if !matches!(frame.transport, Transport::Icmp { .. }) {
        (packet.source_port, packet.destination_port) = (from.to_be_bytes(), to.to_be_bytes());
    }
    packet.flags |= if opens { flag::OPENS } else { 0 };
    if packet.has(flag::FIRST_FRAGMENT) {
        let minimum = match number {
            6 => 20,
            17 | 1 | 58 => 8,
            132 => 12,
            _ => 0,
        };
        let header = frame.transport_offset()
            - frame.network()
            - if frame.source.is_ipv4() { 20 + frame.options.len() } else { 48 };
        packet.fragment_units = u16::try_from((header + minimum).div_ceil(8)).expect("short headers");
    }
    packet
}

/// The next header of the extension header at `at`.
fn following(frame: &Frame, at: usize) -> u8 {
    let bytes = frame.packet();
    let mut next = bytes[6];
    let mut offset = 40;
    for _ in 0..=at {
        let length = match next {
            44 => 8,
            51 => (usize::from(bytes[offset + 1]) + 2) * 4,
            _ => (usize::from(bytes[offset + 1]) + 1) * 8,
        };
        next = bytes[offset];
        offset += length;
    }
    next
}

#[test]
fn what_was_built_is_read_back() {
    let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..40_000 {
        let frame = any_frame(&mut Random::new(seed));
        let bytes = frame.bytes();
        for hook in HOOKS {
            if hook == Hook::CgroupEgress && !frame.tags.is_empty() {
                continue;
            }
            let reading = read(hook, &bytes);
            assert_eq!(reading.result, Ok(Some(())), "seed {seed} {frame:?}");
            assert_eq!(reading.packet, expected(&frame), "seed {seed} {frame:?}");
            assert_eq!(reading.length as usize, bytes.len() - frame.network(), "seed {seed}");
        }
        let packet = expected(&frame);
        for (kind, is) in [
            ("tagged", !frame.tags.is_empty()),
            ("options", !frame.options.is_empty()),
            ("extensions", !frame.extensions.is_empty()),
            ("first fragment", packet.has(flag::FIRST_FRAGMENT)),
            ("later fragment", packet.has(flag::LATER_FRAGMENT)),
            ("opens", packet.has(flag::OPENS)),
            ("IPv4", packet.family == 4),
            ("IPv6", packet.family == 6),
            ("padded", !frame.padding.is_empty()),
        ] {
            *kinds.entry(kind).or_default() += u32::from(is);
        }
    }
    println!("{kinds:?}");
    assert!(kinds.values().all(|count| *count > 500), "{kinds:?}");
}

#[test]
fn no_bytes_make_the_parser_panic() {
    let mut reasons: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..200_000 {
        let random = &mut Random::new(seed);
        let bytes = if seed % 2 == 0 { any_bytes(random) } else { mutate(any_frame(random).bytes(), random) };
        for hook in HOOKS {
            let reading = read(hook, &bytes);
            let name = reading.result.map_or_else(DropReason::name, |found| found.map_or("ARP", |()| "read"));
            *reasons.entry(name).or_default() += 1;
            let start = match packet::ethernet(bytes.as_slice()) {
                Ok(packet::Network::V4(start) | packet::Network::V6(start)) => start,
                Ok(packet::Network::Arp) | Err(_) => 0,
            };
            // Whatever was read: quoted packets are looked into as well.
            let _ = packet::quoted(bytes.as_slice(), start, &reading.packet);
        }
    }
    println!("{reasons:?}");
    let parsers = DropReason::ALL.iter().filter(|reason| (2..=14).contains(&(**reason as u8)));
    for reason in parsers {
        assert!(reasons.contains_key(reason.name()), "no {} among {reasons:?}", reason.name());
    }
}

/// Bytes behind the end that the IP header names never change what is read.
#[test]
fn padding_changes_nothing() {
    let mut truncated = 0;
    for seed in 0..20_000 {
        let random = &mut Random::new(seed);
        let mut frame = any_frame(random);
        frame.padding = Vec::new();
        // A length that is too short, but not 0, which means "up to the end of the frame".
        let right = frame.packet().len() - if frame.source.is_ipv4() { 0 } else { 40 };
        let length = u16::try_from(random.between(1, right.max(1))).expect("a packet");
        frame.length = Some(length);
        let cut = frame.network() + usize::from(length) + if frame.source.is_ipv4() { 0 } else { 40 };
        let whole = read(Hook::TcFromPod, &frame.bytes());
        let padded = read(Hook::TcFromPod, &frame.clone().padding(&[0xa5; 40]).bytes());
        assert_eq!((padded.result, padded.packet), (whole.result, whole.packet), "seed {seed}");
        // What is read of the whole frame is read of its part before the end too, but for the first chunk of SCTP.
        let part = read(Hook::TcFromPod, &frame.bytes()[..cut.min(frame.bytes().len())]);
        if whole.result.is_ok() {
            let sctp = whole.packet.protocol == 132;
            let mask = if sctp { !flag::OPENS } else { !0 };
            let of = |packet: Packet| Packet { flags: packet.flags & mask, ..packet };
            assert_eq!((part.result, of(part.packet)), (whole.result, of(whole.packet)), "seed {seed} {frame:?}");
        } else {
            truncated += 1;
            assert!(part.result.is_err(), "seed {seed}");
        }
    }
    assert!(truncated > 1000, "{truncated}");
}

#[test]
fn every_prefix_of_a_frame_is_read_or_refused_and_nothing_in_between() {
    for seed in 0..2000 {
        let frame = any_frame(&mut Random::new(seed));
        let bytes = frame.bytes();
        let whole = read(Hook::TcFromPod, &bytes);
        let mut passed = false;
        for cut in 0..bytes.len() {
            let reading = read(Hook::TcFromPod, &bytes[..cut]);
            assert!(!passed || reading.result.is_ok(), "seed {seed} cut at {cut}: read, and longer not");
            passed = reading.result.is_ok();
            if passed {
                let of = |packet: Packet| Packet { flags: packet.flags & !flag::OPENS, ..packet };
                assert_eq!(of(reading.packet), of(whole.packet), "seed {seed} cut at {cut} {frame:?}");
            }
        }
    }
}
