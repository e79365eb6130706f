//! Connections that began outside: the only traffic that may pass although the rules deny its destination (§1.4).
//!
//! TCP, SCTP and ICMP show who opens a connection, so only openings from outside are recorded. UDP and the rest do not: there the
//! first packet decides, and the pod's own allowed connections are recorded too, so that a remote that keeps sending after a policy
//! change does not turn the pod's connection into its own.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use egress_common::event::Stat;
use egress_common::flow::{Flow, FlowKey, origin, timeout};
use egress_common::packet::{Packet, Quoted, flag, protocol};

use crate::maps::FLOWS;
use crate::report;

const SECOND: u64 = 1_000_000_000;

/// Now, coarse: good for timeouts of seconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing and only reads a clock.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The flow of a packet that the pod sends.
#[inline(always)]
pub fn sent(endpoint: u32, packet: &Packet) -> FlowKey {
    FlowKey {
        remote: packet.destination,
        endpoint,
        remote_port: packet.destination_port,
        local_port: packet.source_port,
        protocol: u32::from(packet.protocol),
    }
}

/// The flow of a packet that the pod receives.
#[inline(always)]
fn received(endpoint: u32, packet: &Packet) -> FlowKey {
    FlowKey {
        remote: packet.source,
        endpoint,
        remote_port: packet.source_port,
        local_port: packet.destination_port,
        protocol: u32::from(packet.protocol),
    }
}

/// The flow that an ICMP error of the pod speaks of.
#[inline(always)]
pub fn quoted(endpoint: u32, packet: &Packet, quoted: Quoted) -> FlowKey {
    FlowKey {
        remote: packet.destination,
        endpoint,
        remote_port: quoted.remote_port,
        local_port: quoted.local_port,
        protocol: u32::from(quoted.protocol),
    }
}

/// Whether the connection began outside and is still alive.
#[inline(never)]
pub fn began_outside(key: &FlowKey) -> bool {
    let Some(flow) = FLOWS.get_ptr_mut(key) else {
        return false;
    };
    let now = now();
    // SAFETY: a live map element; concurrent writers store the same few words, each of them valid.
    unsafe {
        if (*flow).origin != origin::OUTSIDE || is_over(&*flow, key.protocol, now) {
            return false;
        }
        (*flow).last_seen = now;
    }
    report::stat(Stat::Replies);
    true
}

/// Remembers that the pod began this connection, where the protocol does not show it.
#[inline(always)]
pub fn remember_sent(endpoint: u32, packet: &Packet) {
    if !shows_opening(packet.protocol) {
        remember(&sent(endpoint, packet), origin::INSIDE);
    }
}

/// Remembers a connection that a remote opens.
#[inline(always)]
pub fn remember_received(endpoint: u32, packet: &Packet) {
    let key = received(endpoint, packet);
    if packet.has(flag::OPENS) {
        insert(&key, origin::OUTSIDE, now());
    } else if !shows_opening(packet.protocol) {
        remember(&key, origin::OUTSIDE);
    }
}

/// Whether a packet of the protocol tells if it opens a connection.
#[inline(always)]
pub fn shows_opening(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::SCTP | protocol::ICMP | protocol::ICMPV6)
}

/// The first packet decides who began; later ones keep the entry alive.
#[inline(never)]
fn remember(key: &FlowKey, origin: u32) {
    let now = now();
    if let Some(flow) = FLOWS.get_ptr_mut(key) {
        // SAFETY: as in `began_outside`.
        unsafe {
            if !is_over(&*flow, key.protocol, now) {
                // One write a second is enough, and keeps the cache line shared between CPUs.
                if now.wrapping_sub((*flow).last_seen) > SECOND {
                    (*flow).last_seen = now;
                }
                return;
            }
        }
    }
    insert(key, origin, now);
}

#[inline(always)]
fn insert(key: &FlowKey, origin: u32, now: u64) {
    if FLOWS.insert(key, Flow { last_seen: now, origin, padding: 0 }, 0).is_err() {
        report::stat(Stat::FlowsFailed);
    }
}

#[inline(always)]
fn is_over(flow: &Flow, protocol: u32, now: u64) -> bool {
    let seconds = if protocol == u32::from(protocol::TCP) { timeout::TCP_SECONDS } else { timeout::OTHER_SECONDS };
    // Another CPU's coarse clock may be a tick ahead.
    now.saturating_sub(flow.last_seen) > seconds * SECOND
}
