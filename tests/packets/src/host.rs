//! What the host build of the parser reads in a frame, in the order in which the programs ask it.

use egress_common::event::Hook;
use egress_common::packet::{self, Network, Packet, Plain, flag, protocol};
use egress_common::reason::DropReason;

/// What the parser made of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// `None` for ARP, which is passed.
    pub result: Result<Option<()>, DropReason>,
    /// What was filled in, also by a parser that failed on its way.
    pub packet: Packet,
    /// Bytes from the IP header on; of the hook's whole view if the packet could not be read.
    pub length: u32,
}

impl Reading {
    /// Remote port of an event: the ICMP type in its second byte.
    pub fn remote_port(&self) -> [u8; 2] {
        match self.packet.protocol {
            protocol::ICMP | protocol::ICMPV6 => [0, self.packet.icmp_type],
            _ => self.packet.destination_port,
        }
    }
}

/// Reads `frame` as a program at `hook` does. Hooks of cgroups see no Ethernet header.
pub fn read(hook: Hook, frame: &[u8]) -> Reading {
    let mut packet = Packet::EMPTY;
    let view = view(hook, frame);
    let whole = u32::try_from(view.len()).expect("a frame");
    let (result, start) = match network(hook, frame, view) {
        Err(reason) => (Err(reason), 0),
        Ok(Network::Arp) => (Ok(None), 0),
        Ok(Network::V4(start)) => (packet::ipv4(view, start, &mut packet).map(Some), start),
        Ok(Network::V6(start)) => (packet::ipv6(view, start, &mut packet).map(Some), start),
    };
    // The short parser, which the programs of interfaces try first, reads the same or nothing.
    if let Some(plain) = Plain::of(frame).filter(|_| is_tc(hook)) {
        let mut filled = Packet::EMPTY;
        plain.fill(&mut filled);
        assert_eq!((result, start, packet), (Ok(Some(())), Plain::START, filled), "{frame:02x?}");
        assert_eq!(plain.destination().to_bytes(), packet.destination, "{frame:02x?}");
        assert_eq!(plain.ports(), [packet.source_port, packet.destination_port], "{frame:02x?}");
        assert_eq!((plain.protocol(), plain.opens()), (packet.protocol, packet.has(flag::OPENS)), "{frame:02x?}");
    }
    let length = if result.is_ok() { whole - start } else { whole };
    Reading { result, packet, length }
}

/// The bytes that a program at `hook` sees.
pub(crate) fn view(hook: Hook, frame: &[u8]) -> &[u8] {
    if is_tc(hook) { frame } else { frame.get(14..).unwrap_or_default() }
}

fn is_tc(hook: Hook) -> bool {
    matches!(hook, Hook::TcFromPod | Hook::TcToPod)
}

fn network(hook: Hook, frame: &[u8], view: &[u8]) -> Result<Network, DropReason> {
    if is_tc(hook) {
        return packet::ethernet(view);
    }
    match frame_type(frame) {
        Some(packet::ETHERTYPE_IPV4) => Ok(Network::V4(0)),
        Some(packet::ETHERTYPE_IPV6) => Ok(Network::V6(0)),
        _ => Err(DropReason::UnknownEthertype),
    }
}

fn frame_type(frame: &[u8]) -> Option<u16> {
    frame.get(12..14).map(|kind| u16::from_be_bytes([kind[0], kind[1]]))
}
