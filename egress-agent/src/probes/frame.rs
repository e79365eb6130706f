//! One packet per probe, as a pod would send it: Ethernet, IP, and the packet that opens a connection. Checksums are left out: the
//! programs do not look at them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use egress_common::packet::protocol;

const SOURCE4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SOURCE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const SOURCE_PORT: u16 = 40_000;
const ETHERTYPE4: u16 = 0x0800;
const ETHERTYPE6: u16 = 0x86dd;
/// Numbers of IPv6 extension headers: what follows the IP header under such a number is not a protocol of its own (RFC 8200, IANA).
const EXTENSIONS: [u8; 8] = [0, 43, 44, 51, 60, 135, 139, 140];

/// The frame, or `None` where no packet has this protocol. `port` is the ICMP type for ICMP and ICMPv6.
pub(super) fn frame(destination: IpAddr, protocol: u8, port: u16) -> Option<Vec<u8>> {
    if destination.is_ipv6() && EXTENSIONS.contains(&protocol) {
        return None;
    }
    let payload = payload(protocol, port);
    let length = u16::try_from(payload.len()).ok()?;
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    match destination {
        IpAddr::V4(destination) => {
            frame.extend(ETHERTYPE4.to_be_bytes());
            frame.extend([0x45, 0]);
            frame.extend((20 + length).to_be_bytes());
            frame.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
            frame.extend(SOURCE4.octets());
            frame.extend(destination.octets());
        }
        IpAddr::V6(destination) => {
            frame.extend(ETHERTYPE6.to_be_bytes());
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(SOURCE6.octets());
            frame.extend(destination.octets());
        }
    }
    frame.extend(payload);
    Some(frame)
}

fn payload(number: u8, port: u16) -> Vec<u8> {
    let ports = [SOURCE_PORT.to_be_bytes(), port.to_be_bytes()].concat();
    let rest: &[u8] = match number {
        // SYN, a header of 20 bytes.
        protocol::TCP => &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0],
        protocol::UDP => &[0, 8, 0, 0],
        // An INIT chunk with tag, window, streams and first number.
        protocol::SCTP => &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1],
        protocol::ICMP | protocol::ICMPV6 => {
            let [_, kind] = port.to_be_bytes();
            return vec![kind, 0, 0, 0, 0, 1, 0, 1];
        }
        _ => return vec![0; 8],
    };
    [&ports, rest].concat()
}

#[cfg(test)]
mod tests {
    use egress_common::packet::{self, Packet};

    use super::*;

    #[test]
    fn the_parser_of_the_programs_reads_what_was_meant() {
        for destination in ["1.2.3.4", "2001:db8:5::1"] {
            let destination: IpAddr = destination.parse().unwrap();
            for (number, port) in [(protocol::TCP, 443), (protocol::UDP, 53), (protocol::SCTP, 7), (47, 0)] {
                let frame = frame(destination, number, port).unwrap();
                let mut read = Packet::EMPTY;
                let result = match packet::ethernet(frame.as_slice()).unwrap() {
                    packet::Network::V4(start) => packet::ipv4(frame.as_slice(), start, &mut read),
                    packet::Network::V6(start) => packet::ipv6(frame.as_slice(), start, &mut read),
                    packet::Network::Arp => panic!("not ARP"),
                };
                assert_eq!(result, Ok(()), "{destination} {number}");
                assert_eq!((read.protocol, u16::from_be_bytes(read.destination_port)), (number, port));
                assert_eq!(crate::events::address(read.destination), destination);
            }
        }
    }

    #[test]
    fn a_number_that_is_an_extension_header_is_no_protocol_of_ipv6() {
        for number in EXTENSIONS {
            assert_eq!(frame("2001:db8::1".parse().unwrap(), number, 0), None);
            assert!(frame("1.2.3.4".parse().unwrap(), number, 0).is_some());
        }
    }
}
