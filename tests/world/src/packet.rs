//! Packets built and read by hand, byte by byte, so that a test can send what no honest stack would, and knows what came out.
//! Shares nothing with the parser under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Protocol numbers, as in the IP header.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// For experiments (RFC 3692): no stack knows it.
    pub const EXPERIMENT: u8 = 253;
}

/// The part of an IP header that tests vary.
#[derive(Clone, Copy, Debug)]
pub struct Ip {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// Protocol, or the first next header.
    pub protocol: u8,
    /// Fragment: identification, offset in bytes, more to come. For IPv6, [`ipv6_fragment`] builds the header instead.
    pub fragment: Option<(u16, u16, bool)>,
}

impl Ip {
    /// An unfragmented packet.
    pub fn new(source: IpAddr, destination: IpAddr, protocol: u8) -> Self {
        Self { source, destination, protocol, fragment: None }
    }

    /// The same as a fragment at `offset` bytes.
    #[must_use]
    pub fn fragment(self, identification: u16, offset: u16, more: bool) -> Self {
        Self { fragment: Some((identification, offset, more)), ..self }
    }

    /// The packet with `payload`.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.packet4(source, destination, payload),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.packet6(source, destination, payload),
            _ => panic!("one packet has one family"),
        }
    }

    fn packet4(&self, source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
        let (identification, offset, more) = self.fragment.unwrap_or_default();
        let mut header = vec![0x45, 0];
        header.extend(length(20 + payload.len()));
        header.extend(identification.to_be_bytes());
        header.extend(((offset / 8) | if more { 0x2000 } else { 0 }).to_be_bytes());
        header.extend([64, self.protocol, 0, 0]);
        header.extend(source.octets());
        header.extend(destination.octets());
        let sum = checksum(&[&header]).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        header.extend(payload);
        header
    }

    fn packet6(&self, source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
        let (next, payload) = match self.fragment {
            None => (self.protocol, payload.to_vec()),
            Some((identification, offset, more)) => {
                let header = ipv6_fragment(self.protocol, identification, offset, more);
                (protocol::FRAGMENT, [&header[..], payload].concat())
            }
        };
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(length(payload.len()));
        header.extend([next, 64]);
        header.extend(source.octets());
        header.extend(destination.octets());
        header.extend(payload);
        header
    }

    /// The sum over the pseudo header (RFC 768, RFC 8200 §8.1) and the transport's bytes.
    fn transport_checksum(&self, bytes: &[u8]) -> [u8; 2] {
        let addresses = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => [source.octets(), destination.octets()].concat(),
            (IpAddr::V6(source), IpAddr::V6(destination)) => [source.octets(), destination.octets()].concat(),
            _ => panic!("one packet has one family"),
        };
        let rest = [[0, self.protocol], length(bytes.len())].concat();
        checksum(&[&addresses, &rest, bytes]).to_be_bytes()
    }

    /// UDP bytes with a right checksum.
    pub fn udp(&self, source_port: u16, destination_port: u16, data: &[u8]) -> Vec<u8> {
        let mut bytes = [source_port.to_be_bytes(), destination_port.to_be_bytes()].concat();
        bytes.extend(length(8 + data.len()));
        bytes.extend([0, 0]);
        bytes.extend(data);
        let sum = self.transport_checksum(&bytes);
        bytes[6..8].copy_from_slice(&sum);
        bytes
    }

    /// A TCP header with these flags, without options or data.
    pub fn tcp(&self, source_port: u16, destination_port: u16, flags: u8) -> Vec<u8> {
        let mut bytes = [source_port.to_be_bytes(), destination_port.to_be_bytes()].concat();
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        let sum = self.transport_checksum(&bytes);
        bytes[16..18].copy_from_slice(&sum);
        bytes
    }

    /// An ICMP or ICMPv6 "port unreachable" that quotes a packet.
    pub fn port_unreachable(&self, quote: &[u8]) -> Vec<u8> {
        let (kind, code) = if self.destination.is_ipv4() { (3, 3) } else { (1, 4) };
        let mut bytes = [&[kind, code, 0, 0, 0, 0, 0, 0], quote].concat();
        let sum = self.icmp_checksum(&bytes);
        bytes[2..4].copy_from_slice(&sum);
        bytes
    }

    /// Over the bytes alone in ICMP, over the pseudo header too in ICMPv6.
    fn icmp_checksum(&self, bytes: &[u8]) -> [u8; 2] {
        if self.destination.is_ipv4() { checksum(&[bytes]).to_be_bytes() } else { self.transport_checksum(bytes) }
    }
}

/// TCP flags.
pub mod flag {
    /// Opens a connection.
    pub const SYN: u8 = 2;
    /// Ends one by force.
    pub const RST: u8 = 4;
    /// Acknowledges.
    pub const ACK: u8 = 16;
}

/// The 8 bytes of an IPv6 fragment header.
pub fn ipv6_fragment(next: u8, identification: u16, offset: u16, more: bool) -> [u8; 8] {
    let [high, low] = ((offset & !7) | u16::from(more)).to_be_bytes();
    let [id_high, id_low] = identification.to_be_bytes();
    [next, 0, high, low, 0, 0, id_high, id_low]
}

/// Destination options (8 bytes of padding) before `next`.
pub fn ipv6_destination_options(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

/// A frame with an Ethernet header. `tags` are VLAN tag control words, the outermost first.
pub fn ethernet(destination: [u8; 6], source: [u8; 6], tags: &[u16], packet: &[u8]) -> Vec<u8> {
    let mut frame = [destination, source].concat();
    for tag in tags {
        frame.extend([0x81, 0]);
        frame.extend(tag.to_be_bytes());
    }
    let ipv6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
    frame.extend(if ipv6 { [0x86, 0xdd] } else { [8, 0] });
    frame.extend(packet);
    frame
}

/// An echo request. The kernel fills in the checksum of ICMPv6, which covers the addresses.
pub(crate) fn echo_request(remote: IpAddr, identifier: u16, sequence: u16) -> Vec<u8> {
    let mut bytes = vec![if remote.is_ipv4() { 8 } else { 128 }, 0, 0, 0];
    bytes.extend(identifier.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(b"egress-world");
    let sum = checksum(&[&bytes]).to_be_bytes();
    bytes[2..4].copy_from_slice(&sum);
    bytes
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).expect("a packet of at most 65,535 bytes").to_be_bytes()
}

/// RFC 1071, over parts of even length (the last may be odd).
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum = words
        .fold(0_u32, |sum, word| sum + u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)])));
    let folded = (sum >> 16) + (sum & 0xffff);
    let folded = (folded >> 16) + (folded & 0xffff);
    !u16::try_from(folded & 0xffff).expect("masked")
}

/// A packet that a sniffer saw, as far as tests ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whether the interface sent it; otherwise it arrived there.
    pub outgoing: bool,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Transport protocol, behind IPv6 extension headers.
    pub protocol: u8,
    /// Source port, or 0.
    pub source_port: u16,
    /// Destination port, or 0.
    pub destination_port: u16,
    /// TCP flags, or the ICMP type.
    pub kind: u8,
    /// The ICMP code.
    pub code: u8,
    /// Offset in bytes of a fragment; 0 also for whole packets.
    pub offset: u16,
    /// What follows the IP headers.
    pub transport: Vec<u8>,
}

impl Seen {
    /// Reads a frame. `None` for anything but IP.
    pub fn read(frame: &[u8], outgoing: bool) -> Option<Self> {
        let packet = frame.get(14..)?;
        match frame.get(12..14)? {
            [8, 0] => Self::read4(packet, outgoing),
            [0x86, 0xdd] => Self::read6(packet, outgoing),
            _ => None,
        }
    }

    fn read4(packet: &[u8], outgoing: bool) -> Option<Self> {
        let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
        let total = usize::from(word(packet, 2)?);
        let offset = (word(packet, 6)? & 0x1fff) * 8;
        let header = usize::from(packet.first()? & 15) * 4;
        let transport = packet.get(header..total.min(packet.len()))?;
        Some(Self::with_transport(outgoing, address(12)?, address(16)?, *packet.get(9)?, offset, transport))
    }

    fn read6(packet: &[u8], outgoing: bool) -> Option<Self> {
        let address = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
        let (mut next, mut at, mut offset) = (*packet.get(6)?, 40, 0);
        while matches!(next, 0 | protocol::ROUTING | protocol::FRAGMENT | protocol::DESTINATION_OPTIONS) && offset == 0
        {
            let size = match next {
                protocol::FRAGMENT => {
                    offset = word(packet, at + 2)? & !7;
                    8
                }
                _ => (usize::from(*packet.get(at + 1)?) + 1) * 8,
            };
            next = *packet.get(at)?;
            at += size;
        }
        let transport = packet.get(at..)?;
        Some(Self::with_transport(outgoing, address(8)?, address(24)?, next, offset, transport))
    }

    fn with_transport(
        outgoing: bool,
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        offset: u16,
        transport: &[u8],
    ) -> Self {
        let has_ports = offset == 0 && matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
        let is_icmp = offset == 0 && matches!(protocol, protocol::ICMP | protocol::ICMPV6);
        let port = |at| if has_ports { word(transport, at).unwrap_or(0) } else { 0 };
        let byte = |at: usize| transport.get(at).copied().unwrap_or(0);
        Self {
            outgoing,
            source,
            destination,
            protocol,
            source_port: port(0),
            destination_port: port(2),
            kind: match protocol {
                protocol::TCP => byte(13) * u8::from(has_ports),
                _ => byte(0) * u8::from(is_icmp),
            },
            code: byte(1) * u8::from(is_icmp),
            offset,
            transport: transport.to_vec(),
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both_families() -> [Ip; 2] {
        [
            Ip::new([10, 244, 0, 2].into(), [1, 2, 3, 4].into(), protocol::UDP),
            Ip::new("fd00:10:244::2".parse().unwrap(), "2001:db8:1::4".parse().unwrap(), protocol::UDP),
        ]
    }

    #[test]
    fn what_was_built_is_read_again_in_both_families() {
        for ip in both_families() {
            let frame = ethernet([1; 6], [2; 6], &[], &ip.packet(&ip.udp(1000, 53, b"hello")));
            let seen = Seen::read(&frame, false).unwrap();
            assert_eq!((seen.source, seen.destination), (ip.source, ip.destination));
            assert_eq!((seen.protocol, seen.source_port, seen.destination_port), (protocol::UDP, 1000, 53));
            assert_eq!(&seen.transport[8..], b"hello");
        }
    }

    #[test]
    fn a_later_fragment_has_no_ports_in_both_families() {
        for ip in both_families() {
            let frame = ethernet([1; 6], [2; 6], &[], &ip.fragment(7, 64, false).packet(&[0xff; 16]));
            let seen = Seen::read(&frame, true).unwrap();
            assert_eq!((seen.protocol, seen.offset, seen.destination_port), (protocol::UDP, 64, 0));
        }
    }

    #[test]
    fn the_checksum_is_the_one_of_rfc_1071() {
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
    }
}
