//! Where in a packet the bytes behind the transport header are.

use egress_common::dns::Outcome;
use egress_common::packet::{self, Packet, PacketBytes as _, protocol};

use crate::skb::Skb;

/// Offsets in a packet.
pub(super) struct Payload {
    /// Of the transport header.
    pub(super) transport: u32,
    /// Of the first byte behind it.
    pub(super) offset: u32,
    /// Of the end of the IP packet, never before `offset`.
    pub(super) end: u32,
}

impl Payload {
    /// Finds it in a UDP or TCP packet whose IP header is at `start`.
    #[inline(always)]
    pub(super) fn find(skb: Skb, packet: &Packet, start: u32) -> Result<Self, Outcome> {
        if packet.has(packet::flag::FIRST_FRAGMENT | packet::flag::LATER_FRAGMENT) {
            return Err(Outcome::Fragmented);
        }
        let (transport, end) = transport(skb, packet, start).ok_or(Outcome::OtherHeaders)?;
        let (offset, end) = if packet.protocol == protocol::UDP {
            let length = skb.bytes(transport + 4).map_or(0, u16::from_be_bytes);
            let behind = transport + u32::from(length);
            (transport + 8, if behind > end { 0 } else { behind })
        } else {
            let [words] = skb.bytes(transport + 12).ok_or(Outcome::Malformed)?;
            (transport + u32::from(words >> 4) * 4, end)
        };
        if offset > end { Err(Outcome::Malformed) } else { Ok(Self { transport, offset, end }) }
    }
}

/// Where the transport header begins, and where the IP packet ends. `None` behind IPv6 extension headers.
#[inline(always)]
fn transport(skb: Skb, packet: &Packet, start: u32) -> Option<(u32, u32)> {
    if packet.family == 4 {
        let [version, _, high, low] = skb.bytes(start)?;
        return Some((start + u32::from(version & 0x0f) * 4, start + u32::from(u16::from_be_bytes([high, low]))));
    }
    let [high, low, next, _] = skb.bytes(start + 4)?;
    let end = start + 40 + u32::from(u16::from_be_bytes([high, low]));
    if next == packet.protocol { Some((start + 40, end)) } else { None }
}
