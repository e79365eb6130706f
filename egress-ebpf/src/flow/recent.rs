//! Connections that were found in the map of flows a moment ago: their next packets need not ask it again.
//!
//! Only what is *remembered* goes by this, never a verdict. The map costs a call and, where there are many connections, three or four cache
//! lines from memory; this one line at most.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use egress_common::flow::{FlowKey, RecentFlows};
use egress_common::packet::Packet;

use crate::maps::{CONFIG, RECENT_FLOWS};

/// Whether a packet that the pod sends belongs to such a connection.
#[inline(always)]
pub fn is_sent(endpoint: u32, packet: &Packet) -> bool {
    let ports = (packet.destination_port, packet.source_port);
    is_known(&packet.destination, ports, endpoint, packet.protocol)
}

/// The same of a packet that the pod receives.
#[inline(always)]
pub fn is_received(endpoint: u32, packet: &Packet) -> bool {
    let ports = (packet.source_port, packet.destination_port);
    is_known(&packet.source, ports, endpoint, packet.protocol)
}

/// Takes note of a connection that was just found or stored.
#[inline(always)]
pub fn note(key: &FlowKey) {
    let Some(hash) = hash(&key.remote, (key.remote_port, key.local_port), key.endpoint, key.protocol) else { return };
    let Some(place) = RECENT_FLOWS.get_ptr_mut(RecentFlows::place(hash)) else { return };
    let [last, first] = read(place).with(hash, tick()).0;
    let word: *mut u64 = place.cast();
    // SAFETY: a live array element of two words. Aligned 64-bit stores, so each CPU sees whole halves; where two write at once, one
    // connection is asked for once more.
    unsafe {
        word.write_volatile(last);
        word.add(1).write_volatile(first);
    }
}

/// By the parts of a key, because a key would stand on the caller's stack.
#[inline(always)]
fn is_known(remote: &[u8; 16], ports: ([u8; 2], [u8; 2]), endpoint: u32, protocol: u8) -> bool {
    let Some(hash) = hash(remote, ports, endpoint, u32::from(protocol)) else { return false };
    RECENT_FLOWS.get_ptr(RecentFlows::place(hash)).is_some_and(|place| read(place).has(hash, tick()))
}

#[inline(always)]
fn read(place: *const RecentFlows) -> RecentFlows {
    let word: *const u64 = place.cast();
    // SAFETY: as in `note`.
    RecentFlows(unsafe { [word.read_volatile(), word.add(1).read_volatile()] })
}

#[inline(always)]
fn hash(remote: &[u8; 16], ports: ([u8; 2], [u8; 2]), endpoint: u32, protocol: u32) -> Option<u64> {
    Some(RecentFlows::hash(CONFIG.get(0)?.secret, remote, ports, endpoint, protocol))
}

/// The kernel's tick counter. The JIT makes one load of it; a clock would cost more than all the rest.
#[inline(always)]
fn tick() -> u64 {
    // SAFETY: the helper takes nothing and only reads a counter.
    unsafe { bpf_jiffies64() }
}
