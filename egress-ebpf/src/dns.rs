//! DNS on its way through the pod's interface: remembers queries for names that rules are about, and reads the replies to them before
//! the pod does (§5.2). Never stops a packet. What is not understood is counted under its own reason and teaches nothing.

use core::ffi::c_void;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_ringbuf_output, bpf_skb_load_bytes};
use egress_common::dns::parse::MAX_STEPS;
use egress_common::dns::{KEY_END, MAX_MESSAGE, Outcome, PORT, QUERY_SECONDS, Query, QueryKey, Reply, Scratch};
use egress_common::event::Hook;
use egress_common::names::{KEY_BYTES, NameEntry};
use egress_common::packet::{self, Packet, PacketBytes as _, protocol};
use egress_common::table::flag;

use crate::addresses;
use crate::endpoint::Judged;
use crate::flow::now;
use crate::maps::{DNS_COUNTERS, DNS_EVENTS, DNS_SCRATCH, NAMES, QUERIES, RESOLVERS};
use crate::skb::Skb;

/// Number of the memory that the `learn` program uses; hooks use their own numbers.
pub const LEARN_SCRATCH: u32 = 0;
/// Length of the array of them.
pub const SCRATCHES: u32 = Hook::CgroupIngress as u32 + 1;

/// A message in a packet.
struct Message {
    /// Where it begins in the packet.
    offset: u32,
    /// Its length in bytes.
    length: u32,
}

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
pub fn sent(skb: &Skb, endpoint: &Judged, packet: &Packet, start: u32, hook: Hook) {
    if concerns(endpoint, packet, &packet.destination, packet.destination_port) {
        dns_query(skb.raw(), endpoint, packet, start, hook as u32);
    }
}

/// Looks at a packet that reaches the pod.
#[inline(always)]
pub fn received(skb: &Skb, endpoint: &Judged, packet: &Packet, start: u32, hook: Hook) {
    if concerns(endpoint, packet, &packet.source, packet.source_port) {
        dns_reply(skb.raw(), endpoint, packet, start, hook as u32);
    }
}

/// Reads a query. The verifier checks this function by itself, and [`dns_reply`] too: once, not for every kind of packet.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dns_query(
    skb: *mut __sk_buff,
    endpoint: *const Judged,
    packet: *const Packet,
    start: u32,
    hook: u32,
) -> u32 {
    // SAFETY: the verifier lets only whole values in, or null.
    if let (Some(endpoint), Some(packet)) = unsafe { (endpoint.as_ref(), packet.as_ref()) }
        && let Err(outcome) = query(&Skb::new(skb), endpoint, packet, start, hook)
    {
        count(outcome);
    }
    0
}

/// Reads a reply.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dns_reply(
    skb: *mut __sk_buff,
    endpoint: *const Judged,
    packet: *const Packet,
    start: u32,
    hook: u32,
) -> u32 {
    // SAFETY: as in `dns_query`.
    if let (Some(endpoint), Some(packet)) = unsafe { (endpoint.as_ref(), packet.as_ref()) }
        && let Err(outcome) = reply(&Skb::new(skb), endpoint, packet, start, hook)
    {
        count(outcome);
    }
    0
}

#[inline(always)]
fn query(skb: &Skb, endpoint: &Judged, packet: &Packet, start: u32, hook: u32) -> Result<(), Outcome> {
    let Some(message) = message(skb, packet, start)? else { return Ok(()) };
    let Some(scratch) = scratch(hook) else { return Ok(()) };
    load(skb, &message, scratch)?;
    scratch.open_query(message.length)?;
    read(scratch)?;
    let name = name(scratch);
    if name == 0 {
        return Ok(());
    }
    let key = key(endpoint, &packet.destination, packet.source_port, packet.protocol, scratch);
    let query = Query { question: scratch.state.question, sent: now(), name, padding: 0 };
    QUERIES.insert(key, query, 0).map_err(|_| Outcome::QueriesFailed)?;
    count(Outcome::Queries);
    Ok(())
}

#[inline(always)]
fn reply(skb: &Skb, endpoint: &Judged, packet: &Packet, start: u32, hook: u32) -> Result<(), Outcome> {
    let Some(message) = message(skb, packet, start)? else { return Ok(()) };
    let Some(scratch) = scratch(hook) else { return Ok(()) };
    load(skb, &message, scratch)?;
    let key = key(endpoint, &packet.source, packet.destination_port, packet.protocol, scratch);
    // SAFETY: read at once; an element reused meanwhile holds another question.
    let Some(query) = (unsafe { QUERIES.get(key) }) else { return Err(Outcome::Unasked) };
    let time = now();
    scratch.reply = Reply {
        time,
        latency: time.saturating_sub(query.sent),
        resolver: packet.source,
        endpoint: endpoint.id,
        name: query.name,
        learned: 0,
        outcome: 0,
        protocol: packet.protocol,
        length: message.length as u16,
    };
    let question = query.question;
    scratch.open_reply(message.length)?;
    let read = read(scratch);
    if scratch.state.question != question {
        return Err(read.err().unwrap_or(Outcome::WrongQuestion));
    }
    // One reply for each query: a second one is not asked for.
    let _ = QUERIES.remove(key);
    let outcome = match (read, scratch.failure()) {
        _ if scratch.reply.latency > QUERY_SECONDS * 1_000_000_000 => Outcome::Late,
        (Err(outcome), _) | (Ok(()), Some(outcome)) => outcome,
        (Ok(()), None) => {
            let name = scratch.reply.name;
            addresses::learn(endpoint, scratch, name);
            scratch.reply.learned = scratch.lesson.count;
            Outcome::Learned
        }
    };
    scratch.reply.outcome = outcome as u8;
    tell(scratch);
    count(outcome);
    Ok(())
}

/// Finds the message. `Ok(None)`: the packet carries none, as a TCP handshake.
#[inline(always)]
fn message(skb: &Skb, packet: &Packet, start: u32) -> Result<Option<Message>, Outcome> {
    if packet.has(packet::flag::FIRST_FRAGMENT | packet::flag::LATER_FRAGMENT) {
        return Err(Outcome::Fragmented);
    }
    let (transport, end) = transport(skb, packet, start).ok_or(Outcome::OtherHeaders)?;
    if packet.protocol == protocol::UDP {
        let [high, low] = skb.bytes(transport + 4).ok_or(Outcome::Malformed)?;
        let length = u32::from(u16::from_be_bytes([high, low]));
        return match length.checked_sub(8) {
            Some(length) if transport + 8 + length <= end => Ok(Some(Message { offset: transport + 8, length })),
            _ => Err(Outcome::Malformed),
        };
    }
    let [offset] = skb.bytes(transport + 12).ok_or(Outcome::Malformed)?;
    let payload = transport + u32::from(offset >> 4) * 4;
    if payload >= end {
        return Ok(None);
    }
    // RFC 1035 §4.2.2: the length stands before the message.
    let prefix: [u8; 2] = skb.bytes(payload).ok_or(Outcome::Segmented)?;
    let length = u32::from(u16::from_be_bytes(prefix));
    if payload + 2 + length > end { Err(Outcome::Segmented) } else { Ok(Some(Message { offset: payload + 2, length })) }
}

/// Where the transport header begins, and where the IP packet ends. `None` behind IPv6 extension headers.
#[inline(always)]
fn transport(skb: &Skb, packet: &Packet, start: u32) -> Option<(u32, u32)> {
    if packet.family == 4 {
        let [version, _, high, low] = skb.bytes(start)?;
        return Some((start + u32::from(version & 0x0f) * 4, start + u32::from(u16::from_be_bytes([high, low]))));
    }
    let [high, low, next, _] = skb.bytes(start + 4)?;
    let end = start + 40 + u32::from(u16::from_be_bytes([high, low]));
    if next == packet.protocol { Some((start + 40, end)) } else { None }
}

#[inline(always)]
fn scratch<'a>(number: u32) -> Option<&'a mut Scratch> {
    // SAFETY: a per-CPU element that only this hook uses, and a hook does not interrupt itself: softirqs do not nest. Where a process
    // that sends is preempted by another one on the same CPU, a message is read as another one, and its question then fits no query.
    DNS_SCRATCH.get_ptr_mut(number).map(|scratch| unsafe { &mut *scratch })
}

#[inline(always)]
fn load(skb: &Skb, message: &Message, scratch: &mut Scratch) -> Result<(), Outcome> {
    let length = message.length;
    if length < 12 {
        return Err(Outcome::Malformed);
    }
    if length > MAX_MESSAGE as u32 {
        return Err(Outcome::TooLong);
    }
    let length = addresses::opaque(&mut scratch.lesson.count, length, MAX_MESSAGE as u32);
    let to: *mut c_void = scratch.message.as_mut_ptr().cast();
    // SAFETY: the buffer is longer than the length just checked; the helper checks the packet's end.
    let status = unsafe { bpf_skb_load_bytes(skb.raw().cast(), message.offset, to, length) };
    if status == 0 { Ok(()) } else { Err(Outcome::Malformed) }
}

#[inline(always)]
fn key(endpoint: &Judged, resolver: &[u8; 16], local_port: [u8; 2], protocol: u8, scratch: &Scratch) -> QueryKey {
    let id = [scratch.message[0], scratch.message[1]];
    QueryKey { resolver: *resolver, endpoint: endpoint.id, local_port, id, protocol: u32::from(protocol) }
}

/// The name id of the question that was read, 0 if no rule is about it.
#[inline(always)]
fn name(scratch: &mut Scratch) -> u32 {
    let bytes = scratch.state.key_bytes & 0xff;
    // The mask is for the verifier: read from memory, nothing is known of it.
    let start = scratch.state.key_start as usize & (KEY_END - 1);
    let key: *mut u8 = scratch.key[start..].as_mut_ptr();
    // SAFETY: the buffer goes on for a whole key behind its end, and four bytes before its start are nobody's.
    let entry: Option<&NameEntry> = unsafe {
        key.cast::<[u8; 4]>().write((bytes * 8).to_ne_bytes());
        NAMES.get(&*key.cast::<Key<[u8; KEY_BYTES]>>())
    };
    entry.map_or(0, |entry| entry.id(scratch.state.labels))
}

/// Runs the parser to its end.
#[inline(always)]
fn read(scratch: &mut Scratch) -> Result<(), Outcome> {
    let mut context = Context { scratch };
    // SAFETY: the callback gets the context back, and it outlives the call.
    unsafe { bpf_loop(MAX_STEPS, step as *mut c_void, (&raw mut context).cast(), 0) };
    context.scratch.result()
}

#[repr(C)]
struct Context<'a> {
    scratch: &'a mut Scratch,
}

unsafe extern "C" fn step(_index: u64, context: *mut Context<'_>) -> i64 {
    // SAFETY: `read` passes its context.
    i64::from(unsafe { (*context).scratch.step() })
}

/// Hands the reply to the agent.
#[inline(always)]
fn tell(scratch: &mut Scratch) {
    // The mask is for the verifier; a message of exactly the limit loses its last byte.
    let length = (u64::from(scratch.reply.length)).min(MAX_MESSAGE as u64 - 1) & (MAX_MESSAGE as u64 - 1);
    let record: *mut c_void = (&raw mut scratch.reply).cast();
    let bytes = length + size_of::<Reply>() as u64;
    // SAFETY: the message lies directly behind the head, and the length is below that of its buffer.
    let status = unsafe { bpf_ringbuf_output((&raw const DNS_EVENTS).cast_mut().cast(), record, bytes, 0) };
    if status != 0 {
        count(Outcome::EventsLost);
    }
}
