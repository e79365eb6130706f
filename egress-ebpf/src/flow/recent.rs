//! Connections that this CPU has found in the map of flows a moment ago: their next packets need not ask it again.
//!
//! Only what is *remembered* goes by this, never a verdict. Only for the hooks of interfaces: their programs run one after another on a CPU,
//! because softirqs do not nest and are off where a process sends; a socket's may be interrupted in the middle of an element.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use egress_common::event::Hook;
use egress_common::flow::{FlowKey, RecentFlow};
use egress_common::packet::Packet;

use crate::maps::RECENT_FLOWS;
use crate::skb::has_ethernet;

/// What is known of recent connections where a hook is; nothing, if they are not for it.
#[derive(Clone, Copy)]
pub struct Recent(bool);

impl Recent {
    /// For the programs of `hook`.
    #[inline(always)]
    pub fn of(hook: Hook) -> Self {
        Self(has_ethernet(hook))
    }

    /// Whether a packet that the pod sends belongs to such a connection.
    #[inline(always)]
    pub fn is_sent(self, endpoint: u32, packet: &Packet) -> bool {
        let ports = (packet.destination_port, packet.source_port);
        self.0 && is_known(endpoint, &packet.destination, ports, packet.protocol)
    }

    /// The same of a packet that the pod receives.
    #[inline(always)]
    pub fn is_received(self, endpoint: u32, packet: &Packet) -> bool {
        let ports = (packet.source_port, packet.destination_port);
        self.0 && is_known(endpoint, &packet.source, ports, packet.protocol)
    }

    /// Takes note of a connection that was just found or stored.
    #[inline(always)]
    pub fn note(self, key: &FlowKey) {
        let place = RecentFlow::place(&key.remote, (key.remote_port, key.local_port), key.endpoint);
        if self.0
            && let Some(recent) = RECENT_FLOWS.get_ptr_mut(place)
        {
            // SAFETY: an element of this CPU, which nothing else touches meanwhile: see above.
            unsafe { *recent = RecentFlow { key: *key, tick: tick() } };
        }
    }
}

/// The kernel's tick counter. The JIT makes one load of it; a clock would cost more than all the rest.
#[inline(always)]
fn tick() -> u32 {
    // SAFETY: the helper takes nothing and only reads a counter.
    unsafe { bpf_jiffies64() as u32 }
}

/// Compares field by field, because a key would stand on the caller's stack.
#[inline(always)]
fn is_known(endpoint: u32, remote: &[u8; 16], ports: ([u8; 2], [u8; 2]), protocol: u8) -> bool {
    let place = RecentFlow::place(remote, ports, endpoint);
    // SAFETY: as in `note`.
    let Some(recent) = RECENT_FLOWS.get_ptr(place).map(|recent| unsafe { &*recent }) else { return false };
    let (wanted, known): ([u64; 2], [u64; 2]) =
        (zerocopy::transmute!(*remote), zerocopy::transmute!(recent.key.remote));
    wanted[0] == known[0]
        && wanted[1] == known[1]
        && (recent.key.remote_port, recent.key.local_port) == ports
        && recent.key.endpoint == endpoint
        && recent.key.protocol == u32::from(protocol)
        && tick().wrapping_sub(recent.tick) < RecentFlow::TICKS
}
