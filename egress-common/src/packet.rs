//! Reads Ethernet, IPv4, IPv6 and transport headers, as far as a verdict needs them.
//!
//! Written over [`PacketBytes`] so that the programs (`bpf_skb_load_bytes`) and the host (slices, fuzzers) run the same code.
//! Invariant: whatever is not fully understood is an error with its own [`DropReason`]; nothing passes because it could not be read.

#![expect(
    clippy::inline_always,
    reason = "the verifier follows one program; calls between packet stages cost it more states"
)]

mod plain;

pub use self::plain::{Destination, LinearBytes, Plain};
use crate::class;
use crate::reason::DropReason;

/// Protocol numbers (IANA) that are told apart.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// IPv6 extension headers (IANA) that are walked over.
mod extension {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
    pub(super) const MOBILITY: u8 = 135;
    pub(super) const HIP: u8 = 139;
    pub(super) const SHIM6: u8 = 140;
}

/// `EtherType` of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
/// `EtherType` of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
const MAX_VLAN_TAGS: u32 = 2;

/// Where the bytes of a packet are read from.
pub trait PacketBytes {
    /// `N` bytes at `offset`, or `None` if the packet ends before.
    fn bytes<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
}

impl PacketBytes for [u8] {
    fn bytes<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.get(offset as usize..)?.first_chunk().copied()
    }
}

/// Which IP header starts at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4 header at this offset.
    V4(u32),
    /// IPv6 header at this offset.
    V6(u32),
    /// ARP; it never leaves the link and is passed.
    Arp,
}

/// Bits of [`Packet::flags`].
pub mod flag {
    /// The packet can only open a connection (TCP SYN without ACK, SCTP INIT, ICMP requests): it is never a reply.
    pub const OPENS: u8 = 1;
    /// The first fragment of a datagram, with the transport header.
    pub const FIRST_FRAGMENT: u8 = 2;
    /// Any other fragment: no ports.
    pub const LATER_FRAGMENT: u8 = 4;
    /// A later IPv6 fragment whose transport stands behind extension headers that only the first one shows.
    pub const TRANSPORT_HIDDEN: u8 = 8;
}

/// The part of a packet that a verdict depends on. Ports are in network order. Aligned so that it is cleared by whole words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(8))]
pub struct Packet {
    /// Source address; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// Destination address, likewise.
    pub destination: [u8; 16],
    /// Source port; identifier of an ICMP echo; 0 where there is none.
    pub source_port: [u8; 2],
    /// Destination port; identifier of an ICMP echo; 0 where there is none.
    pub destination_port: [u8; 2],
    /// Identification of the fragmented datagram; 0 if it is whole.
    pub fragment_id: [u8; 4],
    /// 4 or 6: which table judges.
    pub family: u8,
    /// IP protocol number. In IPv6 fragments after the first, the fragment header's next header.
    pub protocol: u8,
    /// Next header of the IPv6 fragment header, `protocol` otherwise: the same in every fragment of a datagram.
    pub fragment_protocol: u8,
    /// ICMP or ICMPv6 type; 0 for other protocols.
    pub icmp_type: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// In 8 bytes, 0 if the datagram is whole: of a first fragment, where its transport header is over; of a later one, its offset.
    pub fragment_units: u16,
}

impl Packet {
    /// A packet of which nothing is known yet; [`ipv4`] and [`ipv6`] fill it in.
    pub const EMPTY: Self = Self {
        source: [0; 16],
        destination: [0; 16],
        source_port: [0; 2],
        destination_port: [0; 2],
        fragment_id: [0; 4],
        family: 4,
        protocol: 0,
        fragment_protocol: 0,
        icmp_type: 0,
        flags: 0,
        fragment_units: 0,
    };

    /// Whether a bit of [`flag`] is set.
    #[inline(always)]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether the packet may belong to a connection that began on the other side. An ICMP error may if what it quotes does: see
    /// [`quoted`].
    #[inline(always)]
    pub const fn may_answer(&self) -> bool {
        match self.protocol {
            protocol::ICMP | protocol::ICMPV6 => is_icmp_answer(self.protocol, self.icmp_type),
            _ => !self.has(flag::OPENS),
        }
    }

    /// The (protocol, port) under which a class is searched when this packet goes to its destination.
    #[inline(always)]
    pub const fn egress_key(&self) -> u32 {
        self.class_key(self.destination_port)
    }

    /// The (protocol, port) under which the answer to this packet would be searched.
    #[inline(always)]
    pub const fn reply_key(&self) -> u32 {
        self.class_key(self.source_port)
    }

    #[inline(always)]
    const fn class_key(&self, port: [u8; 2]) -> u32 {
        match self.protocol {
            protocol::ICMP | protocol::ICMPV6 => class::key(self.protocol, self.icmp_type as u16),
            protocol::TCP | protocol::UDP | protocol::SCTP => class::key(self.protocol, u16::from_be_bytes(port)),
            _ => class::key(self.protocol, 0),
        }
    }
}

/// `::ffff:a.b.c.d` of an IPv4 address. Made of whole words: byte by byte, the kernel programs would call a loop for it.
#[inline(always)]
pub const fn mapped(v4: [u8; 4]) -> [u8; 16] {
    zerocopy::transmute!([0, u64::from_ne_bytes([0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]])])
}

/// The IPv4 address in `::ffff:a.b.c.d`, if it is one.
#[inline(always)]
pub const fn unmapped(address: [u8; 16]) -> Option<[u8; 4]> {
    match address {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => Some([a, b, c, d]),
        _ => None,
    }
}

/// Whether an address is `::ffff:a.b.c.d`. In one comparison, so that the verifier learns nothing of the address where it is not.
#[inline(always)]
const fn is_mapped(address: [u8; 16]) -> bool {
    let [high, low]: [u64; 2] = zerocopy::transmute!(address);
    let prefix = u64::from_ne_bytes([0, 0, 0xff, 0xff, 0, 0, 0, 0]);
    let mask = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    high | ((low ^ prefix) & mask) == 0
}

/// Finds the IP header behind an Ethernet header and up to two VLAN tags.
#[inline(always)]
pub fn ethernet<B: PacketBytes + ?Sized>(bytes: &B) -> Result<Network, DropReason> {
    let mut offset = 12;
    let mut tags = 0;
    loop {
        let ethertype = u16::from_be_bytes(bytes.bytes(offset).ok_or(DropReason::TruncatedEthernet)?);
        match ethertype {
            ETHERTYPE_IPV4 => return Ok(Network::V4(offset + 2)),
            ETHERTYPE_IPV6 => return Ok(Network::V6(offset + 2)),
            ETHERTYPE_ARP => return Ok(Network::Arp),
            ETHERTYPE_VLAN | ETHERTYPE_QINQ if tags < MAX_VLAN_TAGS => {
                tags += 1;
                offset += 4;
            }
            ETHERTYPE_VLAN | ETHERTYPE_QINQ => return Err(DropReason::TooManyVlanTags),
            _ => return Err(DropReason::UnknownEthertype),
        }
    }
}

/// Whether TCP flags are those of a segment that can only open a connection.
#[inline(always)]
const fn opens_tcp(flags: u8) -> bool {
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    flags & (SYN | ACK) == SYN
}

/// Reads an IPv4 packet whose header starts at `start` into an empty `packet`.
#[inline(always)]
pub fn ipv4<B: PacketBytes + ?Sized>(bytes: &B, start: u32, packet: &mut Packet) -> Result<(), DropReason> {
    let header: [u8; 20] = bytes.bytes(start).ok_or(DropReason::TruncatedIpv4)?;
    let words = u32::from(header[0] & 0x0f);
    if header[0] >> 4 != 4 || words < 5 {
        return Err(DropReason::BadIpv4Header);
    }
    if words > 5 {
        ipv4_options(bytes, start + 20, (words - 5) * 4)?;
    }
    let total = u32::from(u16::from_be_bytes([header[2], header[3]]));
    if total != 0 && total < words * 4 {
        return Err(DropReason::TruncatedIpv4);
    }
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    packet.family = 4;
    packet.source = mapped([header[12], header[13], header[14], header[15]]);
    packet.destination = mapped([header[16], header[17], header[18], header[19]]);
    packet.protocol = header[9];
    packet.fragment_protocol = header[9];
    let more = fragment & 0x2000 != 0;
    let units = fragment & 0x1fff;
    if more || units != 0 {
        packet.fragment_id = [0, 0, header[4], header[5]];
        packet.flags |= if units == 0 { flag::FIRST_FRAGMENT } else { flag::LATER_FRAGMENT };
    }
    // A total length of 0 is a large segment that the kernel will cut (BIG TCP); the packet's own end is then the limit.
    let end = if total == 0 { u32::MAX } else { start + total };
    transport(bytes, start + words * 4, end, Piece { start: start + words * 4, units }, packet)
}

/// Refuses source routes: with one, the destination field is only the next stop.
#[inline(always)]
fn ipv4_options<B: PacketBytes + ?Sized>(bytes: &B, start: u32, length: u32) -> Result<(), DropReason> {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    // More than any real header has; each one costs the verifier.
    const MAX_OPTIONS: u32 = 12;
    let mut at = 0;
    for _ in 0..MAX_OPTIONS {
        if at >= length {
            return Ok(());
        }
        let [kind] = bytes.bytes(start + at).ok_or(DropReason::TruncatedIpv4)?;
        match kind {
            END => return Ok(()),
            NOP => at += 1,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(DropReason::Ipv4SourceRoute),
            _ => {
                let [size] = bytes.bytes(start + at + 1).ok_or(DropReason::TruncatedIpv4)?;
                if size < 2 || u32::from(size) > length - at {
                    return Err(DropReason::BadIpv4Options);
                }
                at += u32::from(size);
            }
        }
    }
    if at >= length { Ok(()) } else { Err(DropReason::BadIpv4Options) }
}

/// Reads an IPv6 packet whose header starts at `start` into an empty `packet`.
#[inline(always)]
pub fn ipv6<B: PacketBytes + ?Sized>(bytes: &B, start: u32, packet: &mut Packet) -> Result<(), DropReason> {
    let fixed: [u8; 8] = bytes.bytes(start).ok_or(DropReason::TruncatedIpv6)?;
    if fixed[0] >> 4 != 6 {
        return Err(DropReason::BadIpv6Header);
    }
    let payload = u32::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    packet.family = 6;
    packet.source = bytes.bytes(start + 8).ok_or(DropReason::TruncatedIpv6)?;
    packet.destination = bytes.bytes(start + 24).ok_or(DropReason::TruncatedIpv6)?;
    // No packet carries IPv4-mapped addresses (RFC 6890); here they would pass for an IPv4 packet's.
    if is_mapped(packet.source) || is_mapped(packet.destination) {
        return Err(DropReason::BadIpv6Header);
    }
    // A payload length of 0 is a jumbogram or a large segment (BIG TCP); the packet's own end is then the limit.
    let end = if payload == 0 { u32::MAX } else { start + 40 + payload };
    let mut chain = Chain { next: fixed[6], at: start + 40, units: 0 };
    if chain.is_at_extension() {
        // Not a loop: the verifier of Linux 6.1 takes one only if its back-edge is a jump, which the compiler does not promise.
        chain.step(bytes, packet)?;
        chain.step(bytes, packet)?;
        chain.step(bytes, packet)?;
        chain.step(bytes, packet)?;
        chain.step(bytes, packet)?;
        chain.step(bytes, packet)?;
        chain.step(bytes, packet)?;
        chain.step(bytes, packet)?;
    }
    if chain.is_at_extension() {
        return Err(DropReason::TooManyExtensionHeaders);
    }
    if chain.at > end {
        return Err(DropReason::TruncatedIpv6);
    }
    packet.protocol = chain.next;
    if !packet.has(flag::FIRST_FRAGMENT | flag::LATER_FRAGMENT) {
        packet.fragment_protocol = chain.next;
    }
    if is_extension(chain.next) {
        packet.flags |= flag::TRANSPORT_HIDDEN;
    }
    // Headers before the fragment header, which are in every fragment, are taken for the datagram's: to remember where it starts
    // would cost the verifier more than the few short fragments behind such headers are worth, which are dropped.
    transport(bytes, chain.at, end, Piece { start: start + 48, units: chain.units }, packet)
}

/// Which part of a fragmented datagram a packet is.
#[derive(Clone, Copy)]
struct Piece {
    /// Where it starts in the packet.
    start: u32,
    /// Where it starts in the datagram, in 8 bytes.
    units: u16,
}

/// A walk along the extension headers.
struct Chain {
    /// What the header at `at` is.
    next: u8,
    at: u32,
    /// Offset in 8 bytes of a fragment that is not the first: nothing behind its fragment header can be read.
    units: u16,
}

impl Chain {
    #[inline(always)]
    fn is_at_extension(&self) -> bool {
        self.units == 0 && is_extension(self.next)
    }

    /// Walks over one extension header, if there is one.
    #[inline(always)]
    fn step<B: PacketBytes + ?Sized>(&mut self, bytes: &B, packet: &mut Packet) -> Result<(), DropReason> {
        if !self.is_at_extension() {
            return Ok(());
        }
        let header: [u8; 8] = bytes.bytes(self.at).ok_or(DropReason::TruncatedIpv6)?;
        match self.next {
            extension::FRAGMENT => {
                let field = u16::from_be_bytes([header[2], header[3]]);
                self.units = field >> 3;
                if field & 1 != 0 || self.units != 0 {
                    packet.flags |= if self.units == 0 { flag::FIRST_FRAGMENT } else { flag::LATER_FRAGMENT };
                    packet.fragment_id = [header[4], header[5], header[6], header[7]];
                    packet.fragment_protocol = header[0];
                }
                self.at += 8;
            }
            extension::ROUTING if header[3] != 0 => return Err(DropReason::Ipv6RoutingHeader),
            extension::AUTHENTICATION => self.at += (u32::from(header[1]) + 2) * 4,
            _ => self.at += (u32::from(header[1]) + 1) * 8,
        }
        self.next = header[0];
        Ok(())
    }
}

#[inline(always)]
const fn is_extension(next: u8) -> bool {
    const LOW: u64 = 1 << extension::HOP_BY_HOP
        | 1 << extension::ROUTING
        | 1 << extension::FRAGMENT
        | 1 << extension::AUTHENTICATION
        | 1 << extension::DESTINATION;
    if next < 64 {
        LOW >> next & 1 != 0
    } else {
        matches!(next, extension::MOBILITY | extension::HIP | extension::SHIM6)
    }
}

/// Reads the transport header at `start`, which must end before `end`.
#[inline(always)]
fn transport<B: PacketBytes + ?Sized>(
    bytes: &B,
    start: u32,
    end: u32,
    piece: Piece,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    if piece.units != 0 {
        packet.fragment_units = piece.units;
        // RFC 1858: a fragment at offset 8 would rewrite the flags of the TCP header that the first one showed.
        return if piece.units == 1 && packet.protocol == protocol::TCP {
            Err(DropReason::OverlappingFragment)
        } else {
            Ok(())
        };
    }
    let minimum = match packet.protocol {
        protocol::TCP => 20,
        protocol::UDP | protocol::ICMP | protocol::ICMPV6 => 8,
        protocol::SCTP => 12,
        _ => 0,
    };
    if packet.has(flag::FIRST_FRAGMENT) {
        #[expect(clippy::cast_possible_truncation, reason = "eight headers have at most 2048 units")]
        let units = ((start + minimum + 7 - piece.start) >> 3) as u16;
        packet.fragment_units = units;
    }
    if minimum == 0 {
        return Ok(());
    }
    if start + minimum > end {
        return Err(DropReason::TruncatedTransport);
    }
    let head: [u8; 8] = bytes.bytes(start).ok_or(DropReason::TruncatedTransport)?;
    let ports = ([head[0], head[1]], [head[2], head[3]]);
    match packet.protocol {
        protocol::TCP => {
            // The last byte of the fixed header must be there too.
            let tail: [u8; 8] = bytes.bytes(start + 12).ok_or(DropReason::TruncatedTransport)?;
            if opens_tcp(tail[1]) {
                packet.flags |= flag::OPENS;
            }
            (packet.source_port, packet.destination_port) = ports;
        }
        protocol::UDP => (packet.source_port, packet.destination_port) = ports,
        protocol::SCTP => {
            const INIT: u8 = 1;
            let _checksum: [u8; 4] = bytes.bytes(start + 8).ok_or(DropReason::TruncatedTransport)?;
            if start + 12 < end && matches!(bytes.bytes(start + 12), Some([INIT])) {
                packet.flags |= flag::OPENS;
            }
            (packet.source_port, packet.destination_port) = ports;
        }
        _ => {
            packet.icmp_type = head[0];
            let is_request = is_icmp_request(packet.protocol, head[0]);
            if is_request {
                packet.flags |= flag::OPENS;
            }
            if is_request || is_icmp_answer(packet.protocol, head[0]) {
                let identifier = [head[4], head[5]];
                (packet.source_port, packet.destination_port) = (identifier, identifier);
            }
        }
    }
    Ok(())
}

/// ICMP echo, timestamp, information, address mask and extended echo requests (RFC 792, 950, 8335); ICMPv6 echo (RFC 4443).
#[inline(always)]
const fn is_icmp_request(protocol: u8, icmp_type: u8) -> bool {
    match protocol {
        protocol::ICMP => matches!(icmp_type, 8 | 13 | 15 | 17 | 42),
        _ => matches!(icmp_type, 128 | 160),
    }
}

/// The answers to [`is_icmp_request`].
#[inline(always)]
const fn is_icmp_answer(protocol: u8, icmp_type: u8) -> bool {
    match protocol {
        protocol::ICMP => matches!(icmp_type, 0 | 14 | 16 | 18 | 43),
        _ => matches!(icmp_type, 129 | 161),
    }
}

/// The connection that an ICMP error speaks of, as the sender of the error sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Transport protocol of the quoted packet.
    pub protocol: u8,
    /// Source port of the quoted packet: the port of the host that the error goes to. Network order.
    pub remote_port: [u8; 2],
    /// Destination port of the quoted packet: the port of the host that sends the error. Network order.
    pub local_port: [u8; 2],
}

/// Reads the packet quoted in an ICMP error (RFC 792, RFC 4443) whose IP header starts at `start`, if `packet` is one and it goes
/// back to the quoted sender. Errors behind IPv6 extension headers are not looked into.
#[inline(always)]
pub fn quoted<B: PacketBytes + ?Sized>(bytes: &B, start: u32, packet: &Packet) -> Option<Quoted> {
    let (protocol, ports) = match (packet.protocol, packet.icmp_type) {
        // Destination unreachable, time exceeded, parameter problem.
        (protocol::ICMP, 3 | 11 | 12) => {
            let [outer] = bytes.bytes(start)?;
            let start = start + u32::from(outer & 0x0f) * 4 + 8;
            let header: [u8; 20] = bytes.bytes(start)?;
            if packet.destination != mapped([header[12], header[13], header[14], header[15]]) {
                return None;
            }
            (header[9], start + u32::from(header[0] & 0x0f) * 4)
        }
        // Destination unreachable, packet too big, time exceeded, parameter problem.
        (protocol::ICMPV6, 1..=4) => {
            let start = start + 40 + 8;
            let [outer] = bytes.bytes(start - 42)?;
            let source: [u8; 16] = bytes.bytes(start + 8)?;
            if outer != protocol::ICMPV6 || packet.destination != source {
                return None;
            }
            let [next] = bytes.bytes(start + 6)?;
            (next, start + 40)
        }
        _ => return None,
    };
    let [a, b, c, d] = bytes.bytes(ports)?;
    match protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            Some(Quoted { protocol, remote_port: [a, b], local_port: [c, d] })
        }
        _ => None,
    }
}
