//! Connections that may pass although the rules deny their destination: those that began outside (§1.4), and those that a name allowed
//! when they began (§5.7).
//!
//! TCP, SCTP and ICMP show who opens a connection, so only openings from outside are recorded. UDP and the rest do not: there the
//! first packet decides, and the pod's own allowed connections are recorded too, so that a remote that keeps sending after a policy
//! change does not turn the pod's connection into its own.

pub mod recent;

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use egress_common::event::Stat;
use egress_common::flow::{Flow, FlowKey, origin, timeout};
use egress_common::packet::{Packet, Quoted, flag, protocol};

use crate::endpoint::Judged;
use crate::maps::FLOWS;
use crate::names::Named;
use crate::{report, table};

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

/// Why a packet may pass that the rules deny.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It may not.
    No,
    /// Its connection began outside.
    Outside,
    /// Its connection was allowed by this name.
    Name(u32),
}

/// What is known of a connection that is still alive.
#[inline(never)]
pub fn known(key: &FlowKey) -> Known {
    let Some(flow) = FLOWS.get_ptr_mut(key) else {
        return Known::No;
    };
    let now = now();
    // SAFETY: a live map element; concurrent writers store the same few words, each of them valid.
    unsafe {
        if is_over(&*flow, key.protocol, now) {
            return Known::No;
        }
        (*flow).last_seen = now;
        match (*flow).origin {
            origin::OUTSIDE => Known::Outside,
            origin::NAME => Known::Name((*flow).name),
            _ => Known::No,
        }
    }
}

/// Whether a connection passes although its destination is denied now: it began outside, or the rule about the name that allowed it
/// when it began still stands. `class_key`: its (protocol, port) for the rules.
#[inline(never)]
pub fn lives_on(key: &FlowKey, endpoint: &Judged, class_key: u32) -> bool {
    let lives = match known(key) {
        Known::No => false,
        Known::Outside => true,
        Known::Name(id) => table::would_allow(endpoint, &key.remote, class_key, id),
    };
    if lives {
        report::stat(Stat::Replies);
    }
    lives
}

/// Remembers that the pod began this connection, where the protocol does not show it or only a name allows it. Returns whether it
/// begins with this packet.
#[inline(always)]
pub fn remember_sent(endpoint: u32, packet: &Packet, named: &Named) -> bool {
    let key = sent(endpoint, packet);
    if !shows_opening(packet.protocol) {
        if named.grants != 0 {
            return remember(&key, origin::NAME, named.id);
        }
        if recent::is_sent(endpoint, packet) {
            return false;
        }
        let begins = remember(&key, origin::INSIDE, 0);
        recent::note(&key);
        return begins;
    }
    let opens = packet.has(flag::OPENS);
    if named.grants != 0 && opens && !is_icmp(packet.protocol) {
        insert(&key, origin::NAME, named.id, now());
    }
    opens
}

#[inline(always)]
fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, protocol::ICMP | protocol::ICMPV6)
}

/// Remembers a connection that a remote opens.
#[inline(always)]
pub fn remember_received(endpoint: u32, packet: &Packet) {
    let key = received(endpoint, packet);
    if packet.has(flag::OPENS) {
        insert(&key, origin::OUTSIDE, 0, now());
    } else if !shows_opening(packet.protocol) {
        remember(&key, origin::OUTSIDE, 0);
        recent::note(&key);
    }
}

/// Whether a packet of the protocol tells if it opens a connection.
#[inline(always)]
pub fn shows_opening(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::SCTP | protocol::ICMP | protocol::ICMPV6)
}

/// Whether a packet may be the first of its connection.
#[inline(always)]
pub fn may_begin(packet: &Packet) -> bool {
    packet.has(flag::OPENS) || !shows_opening(packet.protocol)
}

/// The first packet decides who began; later ones keep the entry alive. Returns whether this is the first.
#[inline(never)]
fn remember(key: &FlowKey, origin: u32, name: u32) -> bool {
    let now = now();
    if let Some(flow) = FLOWS.get_ptr_mut(key) {
        // SAFETY: as in `began_outside`.
        unsafe {
            if !is_over(&*flow, key.protocol, now) {
                // One write a second is enough, and keeps the cache line shared between CPUs.
                if now.wrapping_sub((*flow).last_seen) > SECOND {
                    (*flow).last_seen = now;
                }
                // A connection of the pod that only a name allows any more.
                if origin == origin::NAME && (*flow).origin == origin::INSIDE {
                    (*flow).name = name;
                    (*flow).origin = origin;
                }
                return false;
            }
        }
    }
    insert(key, origin, name, now);
    true
}

#[inline(always)]
fn insert(key: &FlowKey, origin: u32, name: u32, now: u64) {
    if FLOWS.insert(key, Flow { last_seen: now, origin, name }, 0).is_err() {
        report::stat(Stat::FlowsFailed);
    }
}

#[inline(always)]
fn is_over(flow: &Flow, protocol: u32, now: u64) -> bool {
    let seconds = match protocol as u8 {
        // While its address lives nobody asks, so nobody notes that it is alive.
        protocol::TCP | protocol::SCTP if flow.origin == origin::NAME => return false,
        protocol::TCP => timeout::TCP_SECONDS,
        _ => timeout::OTHER_SECONDS,
    };
    // Another CPU's coarse clock may be a tick ahead.
    now.saturating_sub(flow.last_seen) > seconds * SECOND
}
