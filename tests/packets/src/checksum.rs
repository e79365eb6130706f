//! The Internet checksum (RFC 1071), written apart from the one in the programs, which it checks.

use std::net::IpAddr;

/// The checksum of `parts` one after the other, as it stands in a header whose checksum field was zero. A part of odd length is
/// followed by a zero byte.
pub fn internet(parts: &[&[u8]]) -> u16 {
    let mut total = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            total += u64::from(pair[0]) * 256 + pair.get(1).copied().map_or(0, u64::from);
        }
    }
    while total > 0xffff {
        total = total % 0x1_0000 + total / 0x1_0000;
    }
    !u16::try_from(total).expect("folded")
}

/// The pseudo-header of a transport packet (RFC 9293 §3.1, RFC 8200 §8.1).
pub fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend(u32::try_from(length).expect("a packet").to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}
