//! DNS on its way through the pod's interface: remembers queries for names that rules are about, and reads the replies to them before
//! the pod does (§5.2). Never stops a packet. What is not understood is counted under its own reason and teaches nothing.
//!
//! Where in a packet the messages are: [`payload`]. What a message says: [`message`].

mod message;
mod payload;

use aya_ebpf::bindings::__sk_buff;
use egress_common::dns::{Outcome, PORT, Stream, StreamKey};
use egress_common::event::Hook;
use egress_common::packet::{Packet, PacketBytes as _, protocol};
use egress_common::table::flag;

use self::message::{CUT, dns_query, dns_reply};
use self::payload::Payload;
use crate::endpoint::Judged;
use crate::maps::{DNS_COUNTERS, RESOLVERS, STREAMS};
use crate::skb::Skb;

/// Number of the memory that the `learn` program uses; hooks use their own numbers.
pub const LEARN_SCRATCH: u32 = 0;
/// Length of the array of them.
pub const SCRATCHES: u32 = Hook::CgroupIngress as u32 + 1;

/// Messages that are read in one TCP segment. The C library sends its two questions in one.
const MESSAGES: u32 = 4;
/// Shortest message: its header (RFC 1035 §4.1.1).
const HEADER: u32 = 12;
/// TCP flags.
const SYN: u8 = 2;

/// Adds one to an outcome's counter.
#[inline(always)]
pub fn count(outcome: Outcome) {
    if let Some(value) = DNS_COUNTERS.get_ptr_mut(outcome as u32) {
        // SAFETY: a per-CPU element; only this CPU writes it.
        unsafe { *value += 1 };
    }
}

/// Whether the packet may be a DNS message between the pod and a trusted resolver at `resolver`.
#[inline(always)]
fn concerns(endpoint: &Judged, packet: &Packet, resolver: &[u8; 16], port: [u8; 2]) -> bool {
    port == PORT
        && endpoint.info.flags & flag::NAMES != 0
        && matches!(packet.protocol, protocol::UDP | protocol::TCP)
        && is_resolver(resolver)
}

/// Whether an address is that of a trusted resolver.
#[inline(always)]
pub fn is_resolver(address: &[u8; 16]) -> bool {
    // SAFETY: only the presence is asked for.
    unsafe { RESOLVERS.get(address) }.is_some()
}

/// Looks at a packet that the pod was allowed to send.
#[inline(always)]
pub fn sent(skb: Skb, endpoint: &Judged, packet: &Packet, start: u32, hook: Hook) {
    if concerns(endpoint, packet, &packet.destination, packet.destination_port) {
        dns_sent(skb.raw(), endpoint, packet, start, hook as u32);
    }
}

/// Looks at a packet that reaches the pod, on the host's side of its interface: inside, it could be one of the pod's own.
#[inline(always)]
pub fn received(skb: Skb, endpoint: &Judged, packet: &Packet, start: u32) {
    if concerns(endpoint, packet, &packet.source, packet.source_port) {
        dns_received(skb.raw(), endpoint, packet, start);
    }
}

/// Reads queries. The verifier checks such a function by itself: once, not for every kind of packet.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dns_sent(
    skb: *mut __sk_buff,
    endpoint: *const Judged,
    packet: *const Packet,
    start: u32,
    hook: u32,
) -> u32 {
    // SAFETY: the verifier lets only whole values in, or null.
    if let (Some(endpoint), Some(packet)) = unsafe { (endpoint.as_ref(), packet.as_ref()) }
        && let Err(outcome) = queries(Skb::new(skb), endpoint, packet, start, hook)
    {
        count(outcome);
    }
    0
}

/// Reads replies.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dns_received(skb: *mut __sk_buff, endpoint: *const Judged, packet: *const Packet, start: u32) -> u32 {
    // SAFETY: as in `dns_sent`.
    if let (Some(endpoint), Some(packet)) = unsafe { (endpoint.as_ref(), packet.as_ref()) }
        && let Err(outcome) = replies(Skb::new(skb), endpoint, packet, start)
    {
        count(outcome);
    }
    0
}

/// Queries may be anywhere, and a pod may claim what it likes: it is the reply that must be true.
#[inline(always)]
fn queries(skb: Skb, endpoint: &Judged, packet: &Packet, start: u32, hook: u32) -> Result<(), Outcome> {
    let payload = Payload::find(skb, packet, start)?;
    let Payload { mut offset, end, .. } = payload;
    if packet.protocol == protocol::UDP {
        dns_query(skb.raw(), endpoint, packet, offset, (end - offset) << 8 | hook);
        return Ok(());
    }
    for _ in 0..MESSAGES {
        // Less is a handshake, or a length that was sent by itself.
        if offset + HEADER > end {
            break;
        }
        let length = match skb.bytes(offset).map(u16::from_be_bytes).map(u32::from) {
            Some(length) if offset + 2 + length <= end => {
                offset += 2;
                length
            }
            _ => end - offset,
        };
        dns_query(skb.raw(), endpoint, packet, offset, length << 8 | hook);
        offset += length;
    }
    Ok(())
}

#[inline(always)]
fn replies(skb: Skb, endpoint: &Judged, packet: &Packet, start: u32) -> Result<(), Outcome> {
    let payload = Payload::find(skb, packet, start)?;
    if packet.protocol == protocol::UDP {
        dns_reply(skb.raw(), endpoint, packet, payload.offset, payload.end - payload.offset);
        return Ok(());
    }
    let sequence = skb.bytes(payload.transport + 4).map(u32::from_be_bytes).ok_or(Outcome::Malformed)?;
    let [_, flags] = skb.bytes(payload.transport + 12).ok_or(Outcome::Malformed)?;
    let key = StreamKey {
        resolver: packet.source,
        endpoint: endpoint.id,
        local_port: packet.destination_port,
        padding: [0; 2],
    };
    if flags & SYN != 0 {
        let stream = Stream { next: sequence.wrapping_add(1), pending: 0 };
        return STREAMS.insert(key, stream, 0).map_err(|_| Outcome::QueriesFailed);
    }
    if payload.offset >= payload.end {
        return Ok(());
    }
    let stream = STREAMS.get_ptr_mut(key).ok_or(Outcome::Misplaced)?;
    // SAFETY: a live map element. Two packets of one connection at once may spoil it; what is then at no message's start has no
    // question that was asked, and the rest of the stream is misplaced.
    follow(skb, endpoint, packet, &payload, sequence, unsafe { &mut *stream })
}

/// Reads the messages that begin in a segment, and moves the stream's mark.
#[inline(always)]
fn follow(
    skb: Skb,
    endpoint: &Judged,
    packet: &Packet,
    payload: &Payload,
    sequence: u32,
    stream: &mut Stream,
) -> Result<(), Outcome> {
    let end = payload.end;
    let known = stream.next.wrapping_sub(sequence);
    if known > i32::MAX as u32 {
        return Err(Outcome::Misplaced);
    }
    // The rest of a message whose start was cut, or something sent again.
    if known >= end - payload.offset {
        return Ok(());
    }
    let mut offset = payload.offset + known;
    for _ in 0..MESSAGES {
        let mut length = stream.pending;
        if length == 0 {
            // RFC 1035 §4.2.2: the length stands before the message.
            if offset + 2 > end {
                break;
            }
            length = skb.bytes(offset).map_or(0, |bytes| u32::from(u16::from_be_bytes(bytes)));
            offset += 2;
        }
        stream.pending = if offset == end { length } else { 0 };
        let here = if offset == end { 0 } else { length };
        if offset + here > end {
            dns_reply(skb.raw(), endpoint, packet, offset, (end - offset) | CUT);
        } else if here != 0 {
            dns_reply(skb.raw(), endpoint, packet, offset, here);
        }
        offset += here;
        stream.next = sequence.wrapping_add(offset - payload.offset);
    }
    Ok(())
}
