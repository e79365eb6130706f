//! Builds frames field by field, correct unless told otherwise; shares no code with the parser that reads them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum::{internet, pseudo};

/// The pod's IPv4 address.
pub const POD4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5));
/// The pod's IPv6 address.
pub const POD6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5));

/// Bits of the flags byte of a TCP header.
pub mod tcp_flag {
    /// FIN.
    pub const FIN: u8 = 1;
    /// SYN.
    pub const SYN: u8 = 2;
    /// RST.
    pub const RST: u8 = 4;
    /// PSH.
    pub const PSH: u8 = 8;
    /// ACK.
    pub const ACK: u8 = 16;
}

/// What an IP packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP segment.
    Tcp {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
        /// Flags byte.
        flags: u8,
        /// Sequence number.
        sequence: u32,
        /// Acknowledgement number.
        acknowledgement: u32,
        /// Bytes of options, a multiple of four.
        options: Vec<u8>,
        /// Data.
        data: Vec<u8>,
    },
    /// UDP datagram.
    Udp {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
        /// Data.
        data: Vec<u8>,
    },
    /// SCTP packet with at most one chunk.
    Sctp {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
        /// Type of the chunk.
        chunk: Option<u8>,
    },
    /// ICMP or ICMPv6 message, whichever the addresses ask for.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Bytes 4 to 7: identifier and sequence number of an echo.
        rest: [u8; 4],
        /// What follows: data of an echo, quoted packet of an error.
        data: Vec<u8>,
    },
    /// Anything else, byte for byte; also the contents of later fragments.
    Raw {
        /// IP protocol number.
        protocol: u8,
        /// Bytes.
        data: Vec<u8>,
    },
}

/// An IPv6 extension header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    /// A header of type `.0` with the common layout (RFC 6564) and `.1` bytes, a multiple of eight.
    Common(u8, usize),
    /// Routing header with this many segments left.
    Routing(u8),
    /// Fragment header: identification, offset in 8 bytes, more fragments follow.
    Fragment(u32, u16, bool),
    /// Authentication header of this many bytes, a multiple of eight.
    Authentication(usize),
}

impl Extension {
    /// Hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// Destination options.
    pub const DESTINATION: u8 = 60;
    /// Mobility.
    pub const MOBILITY: u8 = 135;
    /// Host identity protocol.
    pub const HIP: u8 = 139;
    /// Shim6.
    pub const SHIM6: u8 = 140;

    fn number(&self) -> u8 {
        match self {
            Self::Common(kind, _) => *kind,
            Self::Routing(_) => 43,
            Self::Fragment(..) => 44,
            Self::Authentication(_) => 51,
        }
    }

    fn bytes(&self, next: u8) -> Vec<u8> {
        let unit = |length: usize| u8::try_from(length).expect("a short header");
        match self {
            Self::Common(_, length) => {
                // Filled with PadN, as an options header would be.
                let mut bytes = vec![0; *length];
                (bytes[0], bytes[1]) = (next, unit(length / 8 - 1));
                (bytes[2], bytes[3]) = (1, unit(length.min(&200) - 4));
                bytes
            }
            Self::Routing(left) => vec![next, 2, 0, *left, 0, 0, 0, 0].into_iter().chain([0x20; 16]).collect(),
            Self::Fragment(id, offset, more) => {
                let mut bytes = vec![next, 0];
                bytes.extend((offset << 3 | u16::from(*more)).to_be_bytes());
                bytes.extend(id.to_be_bytes());
                bytes
            }
            Self::Authentication(length) => {
                let mut bytes = vec![0xa5; *length];
                (bytes[0], bytes[1], bytes[2], bytes[3]) = (next, unit(length / 4 - 2), 0, 0);
                bytes
            }
        }
    }
}

/// One Ethernet frame with an IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Tag protocol identifiers of VLAN tags.
    pub tags: Vec<u16>,
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// IPv4 options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv4 fragment: identification, offset in 8 bytes, more fragments follow.
    pub fragment: Option<(u16, u16, bool)>,
    /// IPv6 extension headers.
    pub extensions: Vec<Extension>,
    /// What it carries.
    pub transport: Transport,
    /// Total length (IPv4) or payload length (IPv6) to write instead of the right one.
    pub length: Option<u16>,
    /// Bytes behind the packet, as Ethernet pads short ones.
    pub padding: Vec<u8>,
}

impl Frame {
    /// A packet from the pod to `destination`.
    pub fn new(destination: IpAddr, transport: Transport) -> Self {
        let source = if destination.is_ipv4() { POD4 } else { POD6 };
        Self {
            tags: Vec::new(),
            source,
            destination,
            options: Vec::new(),
            fragment: None,
            extensions: Vec::new(),
            transport,
            length: None,
            padding: Vec::new(),
        }
    }

    /// A TCP segment with these flags, from port 40000.
    pub fn tcp(destination: IpAddr, port: u16, flags: u8) -> Self {
        let transport = Transport::Tcp {
            from: 40_000,
            to: port,
            flags,
            sequence: 0x0102_0304,
            acknowledgement: 0x0a0b_0c0d,
            options: Vec::new(),
            data: Vec::new(),
        };
        Self::new(destination, transport)
    }

    /// A TCP SYN from port 40000.
    pub fn syn(destination: IpAddr, port: u16) -> Self {
        Self::tcp(destination, port, tcp_flag::SYN)
    }

    /// A UDP datagram from port 40000 with 16 bytes of data.
    pub fn udp(destination: IpAddr, port: u16) -> Self {
        Self::new(destination, Transport::Udp { from: 40_000, to: port, data: vec![0x55; 16] })
    }

    /// An SCTP packet from port 40000 whose first chunk has this type.
    pub fn sctp(destination: IpAddr, port: u16, chunk: u8) -> Self {
        Self::new(destination, Transport::Sctp { from: 40_000, to: port, chunk: Some(chunk) })
    }

    /// An ICMP or ICMPv6 message with identifier 0x1234.
    pub fn icmp(destination: IpAddr, kind: u8) -> Self {
        Self::new(destination, Transport::Icmp { kind, code: 0, rest: [0x12, 0x34, 0, 1], data: vec![0x77; 24] })
    }

    /// An ICMP or ICMPv6 echo request with identifier 0x1234.
    pub fn echo(destination: IpAddr) -> Self {
        Self::icmp(destination, if destination.is_ipv4() { 8 } else { 128 })
    }

    /// A packet of another protocol, with 24 bytes.
    pub fn protocol(destination: IpAddr, protocol: u8) -> Self {
        Self::new(destination, Transport::Raw { protocol, data: vec![0x33; 24] })
    }

    /// A fragment that is not the first: bytes without a transport header.
    pub fn later(destination: IpAddr, protocol: u8, id: u16, offset: u16) -> Self {
        Self::protocol(destination, protocol).fragment(id, offset, false)
    }

    /// With another source.
    #[must_use]
    pub fn from(mut self, source: IpAddr) -> Self {
        self.source = source;
        self
    }

    /// With another source port; nothing where there is none.
    #[must_use]
    pub fn from_port(mut self, port: u16) -> Self {
        if let Transport::Tcp { from, .. } | Transport::Udp { from, .. } | Transport::Sctp { from, .. } =
            &mut self.transport
        {
            *from = port;
        }
        self
    }

    /// With one more VLAN tag of this type outside.
    #[must_use]
    pub fn tag(mut self, kind: u16) -> Self {
        self.tags.insert(0, kind);
        self
    }

    /// With IPv4 options, padded to a multiple of four by zeros.
    #[must_use]
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self.options.resize(options.len().next_multiple_of(4), 0);
        self
    }

    /// With one more IPv6 extension header.
    #[must_use]
    pub fn extension(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// As a fragment, in the form of its family.
    #[must_use]
    pub fn fragment(mut self, id: u16, offset: u16, more: bool) -> Self {
        if self.destination.is_ipv4() {
            self.fragment = Some((id, offset, more));
            self
        } else {
            self.extension(Extension::Fragment(id.into(), offset, more))
        }
    }

    /// With a wrong total or payload length.
    #[must_use]
    pub fn length(mut self, length: u16) -> Self {
        self.length = Some(length);
        self
    }

    /// With bytes behind the packet.
    #[must_use]
    pub fn padding(mut self, padding: &[u8]) -> Self {
        self.padding = padding.to_vec();
        self
    }

    /// With data in place of what it carries behind its transport header.
    #[must_use]
    pub fn data(mut self, bytes: &[u8]) -> Self {
        match &mut self.transport {
            Transport::Tcp { data, .. }
            | Transport::Udp { data, .. }
            | Transport::Icmp { data, .. }
            | Transport::Raw { data, .. } => *data = bytes.to_vec(),
            Transport::Sctp { .. } => {}
        }
        self
    }

    /// With another TCP sequence number.
    #[must_use]
    pub fn sequence(mut self, number: u32) -> Self {
        if let Transport::Tcp { sequence, .. } = &mut self.transport {
            *sequence = number;
        }
        self
    }

    /// The same packet in the other direction: addresses and ports swapped.
    #[must_use]
    pub fn turned(mut self) -> Self {
        std::mem::swap(&mut self.source, &mut self.destination);
        if let Transport::Tcp { from, to, .. } | Transport::Udp { from, to, .. } | Transport::Sctp { from, to, .. } =
            &mut self.transport
        {
            std::mem::swap(from, to);
        }
        self
    }

    /// IP protocol number of the transport.
    pub fn protocol_number(&self) -> u8 {
        match &self.transport {
            Transport::Tcp { .. } => 6,
            Transport::Udp { .. } => 17,
            Transport::Sctp { .. } => 132,
            Transport::Icmp { .. } if self.destination.is_ipv4() => 1,
            Transport::Icmp { .. } => 58,
            Transport::Raw { protocol, .. } => *protocol,
        }
    }

    /// Source and destination port; the identifier twice for echoes; zero where there is none.
    pub fn ports(&self) -> (u16, u16) {
        match &self.transport {
            Transport::Tcp { from, to, .. } | Transport::Udp { from, to, .. } | Transport::Sctp { from, to, .. } => {
                (*from, *to)
            }
            Transport::Icmp { rest, .. } => {
                let identifier = u16::from_be_bytes([rest[0], rest[1]]);
                (identifier, identifier)
            }
            Transport::Raw { .. } => (0, 0),
        }
    }

    /// Offset of the IP header.
    pub fn network(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// Offset of the transport header.
    pub fn transport_offset(&self) -> usize {
        let header = if self.source.is_ipv4() { 20 + self.options.len() } else { 40 };
        let extensions: usize = self.extensions.iter().map(|extension| extension.bytes(0).len()).sum();
        self.network() + header + extensions
    }

    /// The whole frame.
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
        for (tag, number) in self.tags.iter().zip(5_u16..) {
            frame.extend(tag.to_be_bytes());
            frame.extend(number.to_be_bytes());
        }
        frame.extend(if self.source.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] });
        frame.extend(self.packet());
        frame.extend(&self.padding);
        frame
    }

    /// The IP packet.
    pub fn packet(&self) -> Vec<u8> {
        let transport = self.transport_bytes();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.packet4(source, destination, &transport),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.packet6(source, destination, &transport),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => unreachable!("one family"),
        }
    }

    fn packet4(&self, source: Ipv4Addr, destination: Ipv4Addr, transport: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let right = u16::try_from(header + transport.len()).expect("a packet");
        let (id, offset, more) = self.fragment.unwrap_or_default();
        let mut packet = vec![0x40 | u8::try_from(header / 4).expect("a header"), 0];
        packet.extend(self.length.unwrap_or(right).to_be_bytes());
        packet.extend(id.to_be_bytes());
        packet.extend((offset | if more { 0x2000 } else { 0 }).to_be_bytes());
        packet.extend([64, self.protocol_number(), 0, 0]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(&self.options);
        let sum = internet(&[&packet]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(transport);
        packet
    }

    fn packet6(&self, source: Ipv6Addr, destination: Ipv6Addr, transport: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        let mut numbers: Vec<u8> = self.extensions.iter().map(Extension::number).collect();
        numbers.push(self.protocol_number());
        for (extension, next) in self.extensions.iter().zip(&numbers[1..]) {
            payload.extend(extension.bytes(*next));
        }
        payload.extend(transport);
        let right = u16::try_from(payload.len()).expect("a packet");
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(self.length.unwrap_or(right).to_be_bytes());
        packet.extend([numbers[0], 64]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(payload);
        packet
    }

    fn transport_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let checksum_at = match &self.transport {
            Transport::Tcp { from, to, flags, sequence, acknowledgement, options, data } => {
                let words = u8::try_from(5 + options.len() / 4).expect("a header");
                bytes.extend(from.to_be_bytes());
                bytes.extend(to.to_be_bytes());
                bytes.extend(sequence.to_be_bytes());
                bytes.extend(acknowledgement.to_be_bytes());
                bytes.extend([words << 4, *flags, 0xff, 0xff, 0, 0, 0, 0]);
                bytes.extend(options);
                bytes.extend(data);
                16
            }
            Transport::Udp { from, to, data } => {
                bytes.extend(from.to_be_bytes());
                bytes.extend(to.to_be_bytes());
                bytes.extend(u16::try_from(8 + data.len()).expect("a packet").to_be_bytes());
                bytes.extend([0, 0]);
                bytes.extend(data);
                6
            }
            Transport::Sctp { from, to, chunk } => {
                bytes.extend(from.to_be_bytes());
                bytes.extend(to.to_be_bytes());
                bytes.extend([0xaa, 0xbb, 0xcc, 0xdd, 0, 0, 0, 0]);
                bytes.extend(chunk.iter().flat_map(|kind| [*kind, 0, 0, 20].into_iter().chain([0; 16])));
                return bytes;
            }
            Transport::Icmp { kind, code, rest, data } => {
                bytes.extend([*kind, *code, 0, 0]);
                bytes.extend(rest);
                bytes.extend(data);
                2
            }
            Transport::Raw { data, .. } => return data.clone(),
        };
        let length = bytes.len();
        let header = match &self.transport {
            Transport::Icmp { .. } if self.source.is_ipv4() => Vec::new(),
            _ => pseudo(self.source, self.destination, self.protocol_number(), length),
        };
        let sum = internet(&[&header, &bytes]);
        bytes[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}
