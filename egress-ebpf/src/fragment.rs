//! Later fragments carry no ports: they follow their first fragment (§3.6).

use egress_common::event::Stat;
use egress_common::flow::{Fragment, FragmentKey, timeout};
use egress_common::packet::Packet;
use egress_common::table::Decision;

use crate::endpoint::Judged;
use crate::flow::now;
use crate::maps::FRAGMENTS;
use crate::report;

/// What became of the first fragment.
pub enum First {
    /// It was passed.
    Passed(Decision),
    /// It was dropped.
    Dropped(Decision),
    /// It was passed, and this one would rewrite its transport header.
    Overlapped(Decision),
    /// It was not seen, or too long ago, or under another table.
    Unknown,
}

#[inline(always)]
fn key(endpoint: &Judged, packet: &Packet) -> FragmentKey {
    FragmentKey {
        source: packet.source,
        destination: packet.destination,
        endpoint: endpoint.id,
        id: packet.fragment_id,
        protocol: u32::from(packet.fragment_protocol),
    }
}

/// Remembers the verdict of a first fragment.
#[inline(never)]
pub fn remember(endpoint: &Judged, packet: &Packet, decision: Decision, passed: bool) {
    let value = Fragment {
        seen: now(),
        decision: decision.0,
        passed: u32::from(passed),
        generation: endpoint.table.generation,
        header_units: u32::from(packet.fragment_units),
    };
    if FRAGMENTS.insert(key(endpoint, packet), value, 0).is_err() {
        report::stat(Stat::FragmentsFailed);
    }
}

/// What became of the first fragment of the datagram that `packet` is a part of.
#[inline(always)]
pub fn first(endpoint: &Judged, packet: &Packet) -> First {
    // SAFETY: the value is copied out at once; an LRU element reused meanwhile is told by its generation and age, at worst a
    // fragment of the same pod is judged as another of its datagrams.
    let Some(fragment) = (unsafe { FRAGMENTS.get(key(endpoint, packet)) }).copied() else {
        return First::Unknown;
    };
    let age = now().saturating_sub(fragment.seen);
    if fragment.generation != endpoint.table.generation || age > timeout::FRAGMENT_SECONDS * 1_000_000_000 {
        return First::Unknown;
    }
    let decision = Decision(fragment.decision);
    if fragment.passed == 0 {
        First::Dropped(decision)
    } else if u32::from(packet.fragment_units) < fragment.header_units {
        First::Overlapped(decision)
    } else {
        First::Passed(decision)
    }
}
