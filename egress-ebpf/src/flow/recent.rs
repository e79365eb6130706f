//! Connections that were found in the map of flows a moment ago: their next packets need not ask it again.
//!
//! Only what is *remembered* goes by this, never a verdict. The map costs a call and, where there are many connections, three or four cache
//! lines from memory; this one line at most.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use egress_common::flow::{FlowKey, RecentFlows};
use egress_common::packet::Packet;

use crate::maps::{CONFIG, RECENT_FLOWS};

/// Whether a connection is such a one. Not a `bool`, so that whoever asks early need not wait for the line: see [`RecentFlows::distance`].
#[must_use]
pub struct Recent(u32);

impl Recent {
    /// It is not.
    const NO: Self = Self(1);
    /// It need not be remembered at all.
    pub const YES: Self = Self(0);

    /// Whether it is. Read from the stack, or the compiler would make jumps of it at once.
    #[inline(always)]
    pub fn is(&self) -> bool {
        // SAFETY: a live value.
        unsafe { (&raw const self.0).read_volatile() == 0 }
    }
}

/// Asks about the connection of an endpoint with `remote`, whose ports are (remote, pod's).
#[inline(always)]
pub fn ask(endpoint: u32, remote: &[u8; 16], ports: ([u8; 2], [u8; 2]), protocol: u8) -> Recent {
    let place = hash(remote, ports, endpoint, u32::from(protocol));
    let place = place.and_then(|hash| Some((hash, RECENT_FLOWS.get_ptr(RecentFlows::place(hash))?)));
    place.map_or(Recent::NO, |(hash, place)| Recent(read(place).distance(hash, tick())))
}

/// Whether a packet that the pod sends belongs to such a connection.
#[inline(always)]
pub fn is_sent(endpoint: u32, packet: &Packet) -> bool {
    let ports = (packet.destination_port, packet.source_port);
    ask(endpoint, &packet.destination, ports, packet.protocol).is()
}

/// The same of a packet that the pod receives.
#[inline(always)]
pub fn is_received(endpoint: u32, packet: &Packet) -> bool {
    let ports = (packet.source_port, packet.destination_port);
    ask(endpoint, &packet.source, ports, packet.protocol).is()
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
