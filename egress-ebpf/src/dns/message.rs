//! One DNS message: a query is remembered, a reply to one is learned from.

use core::ffi::c_void;

use aya_ebpf::bindings::{__sk_buff, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_ringbuf_output, bpf_ringbuf_query, bpf_skb_load_bytes};
use egress_common::abi::capacity;
use egress_common::dns::parse::MAX_STEPS;
use egress_common::dns::{KEY_END, MAX_MESSAGE, Outcome, QUERY_SECONDS, Query, QueryKey, Reply, Scratch};
use egress_common::event::Hook;
use egress_common::names::{KEY_BYTES, NameEntry};
use egress_common::packet::Packet;

use super::{HEADER, count};
use crate::addresses;
use crate::endpoint::Judged;
use crate::flow::now;
use crate::maps::{CONFIG, DNS_EVENTS, DNS_SCRATCH, NAMES, QUERIES};
use crate::skb::Skb;

/// Added to the length of a reply whose end is in another segment.
pub(super) const CUT: u32 = 1 << 31;
/// Bytes in the ring from which on the agent is woken. It looks by itself many times a second; see `names/replies.rs`.
const WAKE_BYTES: u64 = capacity::DNS_RING_BYTES as u64 / 8;

/// Reads a query. `form` is its length, eight bits up, and the hook's number.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn dns_query(
    skb: *mut __sk_buff,
    endpoint: *const Judged,
    packet: *const Packet,
    offset: u32,
    form: u32,
) -> u32 {
    // SAFETY: the verifier lets only whole values in, or null.
    if let (Some(endpoint), Some(packet)) = unsafe { (endpoint.as_ref(), packet.as_ref()) }
        && let Err(outcome) = query(Skb::new(skb), endpoint, packet, offset, form >> 8, form & 0xff)
    {
        count(outcome);
    }
    0
}

/// Reads a reply. `form` is its length, and perhaps [`CUT`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn dns_reply(
    skb: *mut __sk_buff,
    endpoint: *const Judged,
    packet: *const Packet,
    offset: u32,
    form: u32,
) -> u32 {
    // SAFETY: as in `dns_query`.
    if let (Some(endpoint), Some(packet)) = unsafe { (endpoint.as_ref(), packet.as_ref()) }
        && let Err(outcome) = reply(Skb::new(skb), endpoint, packet, offset, form & !CUT, form & CUT != 0)
    {
        count(outcome);
    }
    0
}

#[inline(always)]
fn query(skb: Skb, endpoint: &Judged, packet: &Packet, offset: u32, length: u32, hook: u32) -> Result<(), Outcome> {
    let Some(scratch) = scratch(hook) else { return Ok(()) };
    load(skb, offset, length, scratch)?;
    scratch.open_query(length)?;
    read(scratch)?;
    let name = name(scratch);
    if name == 0 {
        return Ok(());
    }
    if hook == Hook::CgroupEgress as u32 {
        scratch.reply = head(endpoint, packet, &packet.destination, name, length);
        tell(scratch, Outcome::AskedInside);
        return Err(Outcome::AskedInside);
    }
    let key = key(endpoint, &packet.destination, packet.source_port, packet.protocol, scratch);
    let query = Query { question: scratch.state.question, sent: now(), name, padding: 0 };
    QUERIES.insert(key, query, 0).map_err(|_| Outcome::QueriesFailed)?;
    count(Outcome::Queries);
    Ok(())
}

#[inline(always)]
fn reply(skb: Skb, endpoint: &Judged, packet: &Packet, offset: u32, length: u32, is_cut: bool) -> Result<(), Outcome> {
    if is_cut && length < HEADER {
        return Err(Outcome::Segmented);
    }
    let Some(scratch) = scratch(Hook::TcToPod as u32) else { return Ok(()) };
    let length = if is_cut { length.min(MAX_MESSAGE as u32) } else { length };
    load(skb, offset, length, scratch)?;
    let key = key(endpoint, &packet.source, packet.destination_port, packet.protocol, scratch);
    // SAFETY: read at once; an element reused meanwhile holds another question.
    let Some(query) = QUERIES.get_ptr_mut(key).map(|query| unsafe { &mut *query }) else {
        return Err(Outcome::Unasked);
    };
    if query.name == 0 {
        return Err(Outcome::Unasked);
    }
    scratch.reply = head(endpoint, packet, &packet.source, query.name, length);
    scratch.reply.latency = scratch.reply.time.saturating_sub(query.sent);
    if is_cut {
        tell(scratch, Outcome::Segmented);
        return Err(Outcome::Segmented);
    }
    let question = query.question;
    scratch.open_reply(length)?;
    let read = read(scratch);
    if scratch.state.question != question {
        return Err(read.err().unwrap_or(Outcome::WrongQuestion));
    }
    // One reply for each query: a second one is not asked for. The element is the next to be used again; to remove it costs more.
    query.name = 0;
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
    tell(scratch, outcome);
    count(outcome);
    Ok(())
}

#[inline(always)]
fn head(endpoint: &Judged, packet: &Packet, resolver: &[u8; 16], name: u32, length: u32) -> Reply {
    Reply {
        time: now(),
        latency: 0,
        resolver: *resolver,
        endpoint: endpoint.id,
        name,
        learned: 0,
        outcome: 0,
        protocol: packet.protocol,
        length: length as u16,
    }
}

#[inline(always)]
fn scratch<'a>(number: u32) -> Option<&'a mut Scratch> {
    // SAFETY: a per-CPU element that only this hook uses, and a hook does not interrupt itself: softirqs do not nest. Where a process
    // that sends is preempted by another one on the same CPU, the agent may be told of another question than the pod's.
    DNS_SCRATCH.get_ptr_mut(number).map(|scratch| unsafe { &mut *scratch })
}

#[inline(always)]
fn load(skb: Skb, offset: u32, length: u32, scratch: &mut Scratch) -> Result<(), Outcome> {
    if length < HEADER {
        return Err(Outcome::Malformed);
    }
    if length > MAX_MESSAGE as u32 {
        return Err(Outcome::TooLong);
    }
    if let Some(config) = CONFIG.get(0) {
        scratch.secret = config.secret;
    }
    let length = addresses::opaque(&mut scratch.lesson.count, length, MAX_MESSAGE as u32);
    let to: *mut c_void = scratch.message.as_mut_ptr().cast();
    // SAFETY: the buffer is longer than the length just checked; the helper checks the packet's end.
    let status = unsafe { bpf_skb_load_bytes(skb.raw().cast(), offset, to, length) };
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

/// Hands the message to the agent. It is only woken where it has something to do: that costs more than all the rest.
#[inline(always)]
fn tell(scratch: &mut Scratch, outcome: Outcome) {
    scratch.reply.outcome = outcome as u8;
    let ring: *mut c_void = (&raw const DNS_EVENTS).cast_mut().cast();
    // SAFETY: a ring.
    let waiting = unsafe { bpf_ringbuf_query(ring, u64::from(BPF_RB_AVAIL_DATA)) };
    let is_urgent = matches!(outcome, Outcome::Truncated | Outcome::Segmented | Outcome::AskedInside);
    let wake = if is_urgent || waiting >= WAKE_BYTES { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    // The mask is for the verifier; a message of exactly the limit loses its last byte.
    let length = (u64::from(scratch.reply.length)).min(MAX_MESSAGE as u64 - 1) & (MAX_MESSAGE as u64 - 1);
    let record: *mut c_void = (&raw mut scratch.reply).cast();
    let bytes = length + size_of::<Reply>() as u64;
    // SAFETY: the message lies directly behind the head, and the length is below that of its buffer.
    let status = unsafe { bpf_ringbuf_output(ring, record, bytes, u64::from(wake)) };
    if status != 0 {
        count(Outcome::EventsLost);
    }
}
