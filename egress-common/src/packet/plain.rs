//! The short parsers: packets of the most frequent form, read where they lie, in a tenth of the time.
//!
//! Invariant: they read what the long parsers read, or nothing; then those decide. `tests/packets` holds both to it on every frame.

use super::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Packet, flag, is_mapped, mapped, opens_tcp, protocol};

/// Packets whose bytes can be read where they lie.
pub trait LinearBytes {
    /// `N` bytes at `offset`, or `None` if they are not there.
    fn linear<const N: usize>(&self, offset: u32) -> Option<&[u8; N]>;
}

impl LinearBytes for [u8] {
    fn linear<const N: usize>(&self, offset: u32) -> Option<&[u8; N]> {
        self.get(offset as usize..)?.first_chunk()
    }
}

/// Reads a frame of the most frequent form into an empty `packet`: an Ethernet header without tags, and behind it what [`plain4`] or [`plain6`]
/// reads. The offset of the IP header; `None`, with nothing read, if it has another form.
#[inline(always)]
pub fn plain<B: LinearBytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Option<u32> {
    const BEHIND: u32 = 14;
    let is_plain = match u16::from_be_bytes(half::<12, _>(bytes.linear::<14>(0)?)) {
        ETHERTYPE_IPV4 => plain4(bytes, BEHIND, packet),
        ETHERTYPE_IPV6 => plain6(bytes, BEHIND, packet),
        _ => false,
    };
    is_plain.then_some(BEHIND)
}

/// Reads a TCP or UDP packet of the most frequent form, whole and without options, whose header starts at `start`, into an empty `packet`: as
/// [`ipv4`](super::ipv4) does, in a tenth of the time. `false`, with nothing read, if it has another form; `ipv4` then decides.
#[inline(always)]
fn plain4<B: LinearBytes + ?Sized>(bytes: &B, start: u32, packet: &mut Packet) -> bool {
    const VERSION_4_WITHOUT_OPTIONS: u8 = 0x45;
    const FRAGMENT: u16 = 0x3fff;
    let Some(header) = bytes.linear::<20>(start) else { return false };
    let fragment = u16::from_be_bytes(half::<6, _>(header));
    let total = u32::from(u16::from_be_bytes(half::<2, _>(header)));
    if header[0] != VERSION_4_WITHOUT_OPTIONS
        || fragment & FRAGMENT != 0
        || total < 20
        || !plain_transport(bytes, header[9], start + 20, total - 20, packet)
    {
        return false;
    }
    packet.family = 4;
    packet.source = mapped(word::<12, _>(header));
    packet.destination = mapped(word::<16, _>(header));
    true
}

/// [`plain4`] of an IPv6 packet without extension headers, and [`ipv6`](super::ipv6).
#[inline(always)]
fn plain6<B: LinearBytes + ?Sized>(bytes: &B, start: u32, packet: &mut Packet) -> bool {
    let Some(header) = bytes.linear::<40>(start) else { return false };
    let source = zerocopy::transmute!([long::<8, _>(header), long::<16, _>(header)]);
    let destination = zerocopy::transmute!([long::<24, _>(header), long::<32, _>(header)]);
    let payload = u32::from(u16::from_be_bytes(half::<4, _>(header)));
    if header[0] >> 4 != 6
        || is_mapped(source)
        || is_mapped(destination)
        || !plain_transport(bytes, header[6], start + 40, payload, packet)
    {
        return false;
    }
    packet.family = 6;
    (packet.source, packet.destination) = (source, destination);
    true
}

/// Reads the TCP or UDP header at `start` of a packet with `length` bytes from there on. `false`: it is neither, or is cut off.
#[inline(always)]
fn plain_transport<B: LinearBytes + ?Sized>(
    bytes: &B,
    protocol: u8,
    start: u32,
    length: u32,
    packet: &mut Packet,
) -> bool {
    let ports = match protocol {
        protocol::TCP if length >= 20 => {
            let Some(header) = bytes.linear::<20>(start) else { return false };
            packet.flags = if opens_tcp(header[13]) { flag::OPENS } else { 0 };
            word::<0, _>(header)
        }
        protocol::UDP if length >= 8 => {
            let Some(header) = bytes.linear::<8>(start) else { return false };
            word::<0, _>(header)
        }
        _ => return false,
    };
    (packet.protocol, packet.fragment_protocol) = (protocol, protocol);
    [packet.source_port, packet.destination_port] = zerocopy::transmute!(ports);
    true
}

/// Reads a field of a header with one load. The compiler would make one for each byte, because it must not count on the alignment; the
/// kernel takes packets as they lie on every processor that this runs on.
macro_rules! loads {
    ($(#[doc = $doc:literal] $name:ident: $bytes:literal, $word:ty, $as:literal;)*) => {$(
        #[doc = $doc]
        #[inline(always)]
        fn $name<const AT: usize, const N: usize>(header: &[u8; N]) -> [u8; $bytes] {
            const { assert!(AT + $bytes <= N) };
            #[cfg(target_arch = "bpf")]
            {
                let field: u64;
                // SAFETY: reads bytes that are inside of the header, as was just asserted.
                unsafe {
                    core::arch::asm!(
                        concat!("{field} = *(", $as, " *)({header} + {at})"),
                        field = out(reg) field,
                        header = in(reg) header.as_ptr(),
                        at = const AT,
                        options(pure, readonly, nostack, preserves_flags),
                    );
                }
                (field as $word).to_ne_bytes()
            }
            #[cfg(not(target_arch = "bpf"))]
            header.get(AT..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default()
        }
    )*};
}

loads! {
    /// Two bytes.
    half: 2, u16, "u16";
    /// Four bytes.
    word: 4, u32, "u32";
    /// Eight bytes.
    long: 8, u64, "u64";
}
