//! The kernel's program and the host's parser agree on random and damaged frames: the same reasons, the same fields in the events.
//! Also the generator of frames that other tests use.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use egress_common::event::Hook;
use egress_common::packet::flag;
use egress_common::reason::DropReason;
use egress_packets::{Expect, Extension, Frame, Lab, Transport, is_root, read};
use egress_reference::Random;

use crate::sides::DENY_ALL;

/// Frames that must be asked at least, and how long more are asked.
const LEAST: u64 = 3000;
const TIME: Duration = Duration::from_secs(5);

fn byte(random: &mut Random) -> u8 {
    u8::try_from(random.below(256)).expect("below 256")
}

fn word(random: &mut Random) -> u16 {
    u16::try_from(random.below(0x1_0000)).expect("below 2^16")
}

fn half(random: &mut Random) -> u32 {
    u32::try_from(random.bits() >> 32).expect("32 bits")
}

fn some_bytes(random: &mut Random, most: usize) -> Vec<u8> {
    let length = random.below(most + 1);
    (0..length).map(|_| byte(random)).collect()
}

/// Any bytes, often with the `EtherType` of IP and the version in their place.
pub(crate) fn any_bytes(random: &mut Random) -> Vec<u8> {
    let mut bytes = some_bytes(random, 120);
    if random.chance(80) && bytes.len() > 14 {
        let v4 = random.chance(50);
        bytes[12..14].copy_from_slice(if v4 { &[8, 0] } else { &[0x86, 0xdd] });
        if random.chance(90) {
            bytes[14] = if v4 { 0x40 | byte(random) & 7 } else { 0x60 };
        }
    }
    bytes
}

/// A frame that the parser must understand.
pub(crate) fn any_frame(random: &mut Random) -> Frame {
    let v4 = random.chance(50);
    let remote = if v4 {
        IpAddr::V4(Ipv4Addr::from(half(random)))
    } else {
        // The first bits keep it from being IPv4-mapped.
        IpAddr::V6(Ipv6Addr::from(random.wide() | 1 << 125))
    };
    let mut frame = Frame::new(remote, any_transport(random));
    for _ in 0..random.below(4).saturating_sub(1) {
        frame = frame.tag(*random.pick(&[0x8100, 0x88a8]));
    }
    if v4 {
        if random.chance(25) {
            let kinds: [&[u8]; 6] = [&[1], &[7, 7, 4, 0, 0, 0, 0], &[68, 4, 5, 0], &[148, 4, 0, 0], &[222, 2], &[0]];
            let count = random.between(1, 5);
            let options: Vec<u8> = (0..count).flat_map(|_| random.pick(&kinds).to_vec()).collect();
            frame = frame.options(&options[..]);
        }
    } else {
        for _ in 0..random.below(8).saturating_sub(3) {
            let extension = match random.below(4) {
                0 => Extension::Routing(0),
                1 => Extension::Authentication(8 * random.between(2, 6)),
                _ => Extension::Common(*random.pick(&[0, 60, 135, 139, 140]), 8 * random.between(1, 5)),
            };
            frame = frame.extension(extension);
        }
    }
    if random.chance(30) {
        frame = any_fragment(frame, random);
    }
    if random.chance(20) {
        frame = frame.padding(&some_bytes(random, 46));
    }
    frame
}

fn any_fragment(frame: Frame, random: &mut Random) -> Frame {
    let id = word(random);
    if random.chance(50) {
        // A first or atomic one, its header somewhere among the others.
        let more = random.chance(80);
        let mut frame = frame.fragment(id, 0, more);
        let last = frame.extensions.len();
        if last > 1 {
            frame.extensions.swap(last - 1, random.below(last));
        }
        return frame;
    }
    // Bytes of a datagram; TCP's at offset 8 are refused.
    let protocol = *random.pick(&[6, 17, 132, 1, 47, 253]);
    let data = some_bytes(random, 64);
    let frame = Frame { transport: Transport::Raw { protocol, data }, ..frame };
    frame.fragment(id, u16::try_from(random.between(2, 8000)).expect("13 bits"), random.chance(50))
}

/// What a fragment at offset 8 would rewrite a TCP header with.
fn raw_tcp(random: &mut Random) -> Transport {
    Transport::Raw { protocol: 6, data: some_bytes(random, 64) }
}

fn any_transport(random: &mut Random) -> Transport {
    let (from, to) = (word(random), word(random));
    let data = some_bytes(random, 40);
    match random.below(6) {
        0 | 1 => Transport::Tcp {
            from,
            to,
            flags: byte(random),
            sequence: half(random),
            acknowledgement: half(random),
            options: vec![1; 4 * random.below(11)],
            data,
        },
        2 => Transport::Udp { from, to, data },
        3 => Transport::Sctp { from, to, chunk: random.chance(80).then(|| byte(random) % 4) },
        4 => Transport::Icmp { kind: byte(random), code: byte(random), rest: half(random).to_be_bytes(), data },
        _ => Transport::Raw { protocol: *random.pick(&[2, 4, 41, 47, 50, 59, 89, 103, 136, 255]), data },
    }
}

/// A frame with some bits flipped, bytes replaced or removed, or its end cut off.
pub(crate) fn mutate(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    for _ in 0..random.between(1, 3) {
        // Mostly in the headers.
        let reach = if random.chance(80) { bytes.len().min(12 + 60) } else { bytes.len() };
        let at = if reach > 12 { random.between(12, reach - 1) } else { 0 };
        match random.below(8) {
            _ if bytes.len() <= 14 => {}
            7 if bytes.len() > 54 && bytes[12..14] == [0x86, 0xdd] => {
                // A chain of them.
                for _ in 0..random.between(5, 9) {
                    let next = std::mem::replace(&mut bytes[20], 60);
                    bytes.splice(54..54, [next, 0, 1, 4, 0, 0, 0, 0]).for_each(drop);
                }
            }
            0 | 1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = byte(random),
            3 => bytes[at] = *random.pick(&[0, 1, 0xff, 0x80, 0x7f, 44, 43, 60, 131, 6, 17]),
            4 => bytes.truncate(at.max(14)),
            5 => drop(bytes.remove(at)),
            6 if random.chance(25) => {
                let tags = [0x81, 0, 0, 5].repeat(random.between(1, 4));
                bytes.splice(12..12, tags).for_each(drop);
            }
            6 if bytes.len() > 54 && bytes[12..14] == [0x86, 0xdd] => {
                // One more destination option header in front.
                let next = std::mem::replace(&mut bytes[20], 60);
                bytes.splice(54..54, [next, 0, 1, 4, 0, 0, 0, 0]).for_each(drop);
            }
            _ => bytes.insert(at, byte(random)),
        }
    }
    bytes
}

/// Sends one frame to a pod that may not send anything, and says what must have come of it.
fn ask(lab: &mut Lab, hook: Hook, bytes: &[u8]) -> &'static str {
    let reading = read(hook, bytes);
    let packet = &reading.packet;
    let table = std::sync::Arc::clone(&lab.policies().table);
    let destination = match egress_common::packet::unmapped(packet.destination) {
        Some(octets) => IpAddr::from(octets),
        None => IpAddr::from(packet.destination),
    };
    let later = packet.has(flag::LATER_FRAGMENT);
    let origin;
    let (name, expect) = match reading.result {
        Err(reason) => (reason.name(), Expect::Drop(reason)),
        Ok(None) => ("ARP", Expect::Untouched),
        Ok(Some(())) => {
            let key = packet.egress_key();
            let protocol = packet.protocol;
            let found = if !later {
                Some(table.table.lookup(destination, protocol, (key & 0xffff) as u16))
            } else if packet.has(flag::TRANSPORT_HIDDEN) {
                let leaf = table.table.leaf(destination).expect("a leaf");
                leaf.open().is_ok().then(|| table.table.lookup(destination, 0, 0))
            } else {
                table.table.lookup_any_port(destination, protocol)
            };
            match found {
                None => ("unknown fragment", Expect::Drop(DropReason::UnknownFragment)),
                Some(found) => {
                    origin = lab.policies().origin(found.decision.rank());
                    if found.decision.is_deny() {
                        ("denied", Expect::Deny(&origin))
                    } else {
                        ("internal", Expect::Allow(&origin))
                    }
                }
            }
        }
    };
    if lab.check_if_possible("random", hook, bytes, expect) { name } else { "refused by the kernel" }
}

#[test]
fn the_kernel_reads_what_the_host_reads_in_random_and_damaged_frames() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(DENY_ALL);
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let started = Instant::now();
    let mut seed = 0;
    while seed < LEAST || started.elapsed() < TIME {
        let random = &mut Random::new(0xf00d_0000 + seed);
        let bytes = match seed % 4 {
            0 if random.chance(5) => {
                Frame { transport: raw_tcp(random), ..any_frame(random) }.fragment(word(random), 1, true).bytes()
            }
            0 => any_frame(random).bytes(),
            1 => any_bytes(random),
            _ => mutate(any_frame(random).bytes(), random),
        };
        seed += 1;
        if bytes.len() < 14 {
            continue;
        }
        // First fragments are forgotten, so that later ones meet none by chance.
        let hook = if seed % 2 == 0 { Hook::TcFromPod } else { Hook::CgroupEgress };
        if hook == Hook::CgroupEgress && bytes.len() == 14 {
            continue;
        }
        *counts.entry(ask(&mut lab, hook, &bytes)).or_default() += 1;
        if seed % 64 == 0 {
            lab.forget();
        }
    }
    println!("{seed} frames: {counts:?}");
    let parsers = DropReason::ALL.iter().filter(|reason| (3..=14).contains(&(**reason as u8)));
    for name in parsers.map(|reason| reason.name()).chain(["denied", "internal", "unknown fragment"]) {
        // What only the link-control and IGMP rules make depend on ports is rare.
        assert!(counts.contains_key(name) || name == "unknown fragment", "no {name} in {counts:?}");
    }
    assert!(counts["denied"] > LEAST / 10);
}
