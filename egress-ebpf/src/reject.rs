//! `denyResponse: Reject`: a refused packet is turned round and goes back to the pod as a TCP reset or as an ICMP error with code
//! "administratively prohibited" (RFC 1812 §5.2.7.1, RFC 4443 §3.1), from the address that the pod wanted to reach.
//!
//! Never an answer to an ICMP error, to a reset, to a multicast destination or to a header with options; those are only dropped.

use aya_ebpf::bindings::{BPF_F_ADJ_ROOM_FIXED_GSO, TC_ACT_SHOT, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_store_bytes};
use egress_common::event::Stat;
use egress_common::packet::{PacketBytes as _, protocol};

use crate::report;
use crate::skb::Skb;

const ETHERNET: u32 = 14;
const TTL: u8 = 64;
/// Bytes of the refused packet's transport header that an ICMP error quotes.
const QUOTED: u32 = 8;

/// Sends the refusal to the pod instead of the packet. Returns the TC action.
#[inline(always)]
pub fn answer(skb: Skb) -> i32 {
    let sent = match skb.bytes(12) {
        Some([0x08, 0x00]) => answer4(skb),
        Some([0x86, 0xdd]) => answer6(skb),
        _ => None,
    };
    if sent.is_none() {
        report::stat(Stat::RejectsFailed);
        return TC_ACT_SHOT;
    }
    report::stat(Stat::Rejected);
    // SAFETY: the helper takes any interface index.
    unsafe { bpf_redirect(skb.interface(), 0) as i32 }
}

#[inline(never)]
fn answer4(skb: Skb) -> Option<()> {
    let header: [u8; 20] = skb.bytes(ETHERNET)?;
    let is_multicast = header[16] >= 224;
    if header[0] != 0x45 || is_multicast {
        return None;
    }
    match header[9] {
        protocol::TCP => reset4(skb, &header),
        protocol::ICMP if !is_request(skb, ETHERNET + 20, &[8, 13, 15, 17, 42]) => None,
        _ => prohibited4(skb, &header),
    }
}

#[inline(never)]
fn answer6(skb: Skb) -> Option<()> {
    let header: [u8; 40] = skb.bytes(ETHERNET)?;
    let is_multicast = header[24] == 0xff;
    if is_multicast {
        return None;
    }
    match header[6] {
        protocol::TCP => reset6(skb, &header),
        protocol::ICMPV6 if !is_request(skb, ETHERNET + 40, &[128, 160]) => None,
        _ => prohibited6(skb, &header),
    }
}

#[inline(always)]
fn is_request(skb: Skb, offset: u32, requests: &[u8]) -> bool {
    match skb.bytes(offset) {
        Some([kind]) => requests.contains(&kind),
        None => false,
    }
}

/// The 20 bytes of a reset that answers the segment whose header starts at `offset` (RFC 9293 §3.10.7.1), without its checksum.
#[inline(always)]
fn reset(skb: Skb, offset: u32, payload_end: u32) -> Option<[u8; 20]> {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;
    let tcp: [u8; 20] = skb.bytes(offset)?;
    let flags = tcp[13];
    if flags & RST != 0 {
        return None;
    }
    let mut answer = [0; 20];
    (answer[0], answer[1], answer[2], answer[3]) = (tcp[2], tcp[3], tcp[0], tcp[1]);
    answer[12] = 5 << 4;
    if flags & ACK != 0 {
        (answer[4], answer[5], answer[6], answer[7]) = (tcp[8], tcp[9], tcp[10], tcp[11]);
        answer[13] = RST;
    } else {
        let data = payload_end.saturating_sub(offset + u32::from(tcp[12] >> 4) * 4);
        let consumed = data + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        let next = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add(consumed).to_be_bytes();
        (answer[8], answer[9], answer[10], answer[11]) = (next[0], next[1], next[2], next[3]);
        answer[13] = RST | ACK;
    }
    Some(answer)
}

#[inline(never)]
fn reset4(skb: Skb, header: &[u8; 20]) -> Option<()> {
    let end = ETHERNET + u32::from(u16::from_be_bytes([header[2], header[3]]));
    let mut tcp = reset(skb, ETHERNET + 20, end)?;
    let ip = header4(header, 20, protocol::TCP);
    let pseudo = sum(&[ip[12], ip[13], ip[14], ip[15], ip[16], ip[17], ip[18], ip[19]]);
    [tcp[16], tcp[17]] = fold(pseudo + u32::from(protocol::TCP) + 20 + sum(&tcp));
    trim(skb, ETHERNET + 40)?;
    turn_round(skb)?;
    store(skb, ETHERNET, &ip)?;
    store(skb, ETHERNET + 20, &tcp)
}

#[inline(never)]
fn reset6(skb: Skb, header: &[u8; 40]) -> Option<()> {
    let end = ETHERNET + 40 + u32::from(u16::from_be_bytes([header[4], header[5]]));
    let mut tcp = reset(skb, ETHERNET + 40, end)?;
    let ip = header6(header, 20, protocol::TCP);
    [tcp[16], tcp[17]] = fold(addresses6(&ip) + u32::from(protocol::TCP) + 20 + sum(&tcp));
    trim(skb, ETHERNET + 60)?;
    turn_round(skb)?;
    store(skb, ETHERNET, &ip)?;
    store(skb, ETHERNET + 40, &tcp)
}

#[inline(never)]
fn prohibited4(skb: Skb, header: &[u8; 20]) -> Option<()> {
    const UNREACHABLE: u8 = 3;
    const PROHIBITED: u8 = 13;
    let quoted: [u8; QUOTED as usize] = skb.bytes(ETHERNET + 20)?;
    let ip = header4(header, 8 + 20 + QUOTED as u16, protocol::ICMP);
    let mut icmp = [UNREACHABLE, PROHIBITED, 0, 0, 0, 0, 0, 0];
    [icmp[2], icmp[3]] = fold(sum(&icmp) + sum(header) + sum(&quoted));
    trim(skb, ETHERNET + 20 + QUOTED)?;
    make_room(skb, 28)?;
    turn_round(skb)?;
    store(skb, ETHERNET, &ip)?;
    store(skb, ETHERNET + 20, &icmp)
}

#[inline(never)]
fn prohibited6(skb: Skb, header: &[u8; 40]) -> Option<()> {
    const UNREACHABLE: u8 = 1;
    const PROHIBITED: u8 = 1;
    let quoted: [u8; QUOTED as usize] = skb.bytes(ETHERNET + 40)?;
    let length = 8 + 40 + QUOTED as u16;
    let ip = header6(header, length, protocol::ICMPV6);
    let mut icmp = [UNREACHABLE, PROHIBITED, 0, 0, 0, 0, 0, 0];
    let pseudo = addresses6(&ip) + u32::from(protocol::ICMPV6) + u32::from(length);
    [icmp[2], icmp[3]] = fold(pseudo + sum(&icmp) + sum(header) + sum(&quoted));
    trim(skb, ETHERNET + 40 + QUOTED)?;
    make_room(skb, 48)?;
    turn_round(skb)?;
    store(skb, ETHERNET, &ip)?;
    store(skb, ETHERNET + 40, &icmp)
}

/// The IPv4 header of an answer with `payload` bytes.
#[inline(always)]
fn header4(refused: &[u8; 20], payload: u16, protocol: u8) -> [u8; 20] {
    let [high, low] = (20 + payload).to_be_bytes();
    let r = refused;
    let mut ip =
        [0x45, 0, high, low, 0, 0, 0, 0, TTL, protocol, 0, 0, r[16], r[17], r[18], r[19], r[12], r[13], r[14], r[15]];
    [ip[10], ip[11]] = fold(sum(&ip));
    ip
}

/// The IPv6 header of an answer with `payload` bytes.
#[inline(always)]
fn header6(refused: &[u8; 40], payload: u16, protocol: u8) -> [u8; 40] {
    let [high, low] = payload.to_be_bytes();
    let mut ip = [0; 40];
    (ip[0], ip[4], ip[5], ip[6], ip[7]) = (0x60, high, low, protocol, TTL);
    #[expect(clippy::manual_memcpy, reason = "a copy of slices takes stack that Linux 6.1 does not give")]
    for index in 0..16 {
        ip[8 + index] = refused[24 + index];
        ip[24 + index] = refused[8 + index];
    }
    ip
}

#[inline(always)]
fn addresses6(ip: &[u8; 40]) -> u32 {
    // The whole header's sum less its first eight bytes: the addresses.
    sum(ip) - sum(&[ip[0], ip[1], ip[2], ip[3], ip[4], ip[5], ip[6], ip[7]])
}

/// Sum of big-endian 16-bit words (RFC 1071), not folded; `N` is even and below 2^16 words.
#[inline(always)]
fn sum<const N: usize>(bytes: &[u8; N]) -> u32 {
    let mut total = 0;
    let mut index = 0;
    while index < N {
        total += u32::from(u16::from_be_bytes([bytes[index], bytes[index + 1]]));
        index += 2;
    }
    total
}

#[inline(always)]
fn fold(mut total: u32) -> [u8; 2] {
    total = (total & 0xffff) + (total >> 16);
    total = (total & 0xffff) + (total >> 16);
    (!(total as u16)).to_be_bytes()
}

/// Swaps the Ethernet addresses.
#[inline(always)]
fn turn_round(skb: Skb) -> Option<()> {
    let a: [u8; 12] = skb.bytes(0)?;
    store(skb, 0, &[a[6], a[7], a[8], a[9], a[10], a[11], a[0], a[1], a[2], a[3], a[4], a[5]])
}

#[inline(always)]
fn trim(skb: Skb, length: u32) -> Option<()> {
    // SAFETY: the context is valid while the program runs; the helper checks the length.
    done(unsafe { bpf_skb_change_tail(skb.raw(), length, 0) })
}

/// Makes room for `bytes` between the Ethernet and the IP header.
#[inline(always)]
fn make_room(skb: Skb, bytes: i32) -> Option<()> {
    // SAFETY: as in `trim`.
    done(unsafe { bpf_skb_adjust_room(skb.raw(), bytes, BPF_ADJ_ROOM_MAC, u64::from(BPF_F_ADJ_ROOM_FIXED_GSO)) })
}

#[inline(always)]
fn store<const N: usize>(skb: Skb, offset: u32, bytes: &[u8; N]) -> Option<()> {
    // SAFETY: the buffer has the N bytes that are named; the helper checks the packet's end.
    done(unsafe { bpf_skb_store_bytes(skb.raw().cast(), offset, bytes.as_ptr().cast(), N as u32, 0) })
}

#[inline(always)]
fn done(status: i64) -> Option<()> {
    if status == 0 { Some(()) } else { None }
}
