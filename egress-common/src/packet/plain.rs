//! The short parser: packets of the most frequent form, read where they lie, in a tenth of the time.
//!
//! Invariant: it reads what the long parsers read, or nothing; then those decide. `tests/packets` holds both to it on every frame.

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

/// A TCP or UDP packet of the most frequent form, where it lies: behind an Ethernet header without tags, whole, and without IP options or extension
/// headers.
#[derive(Clone, Copy)]
pub struct Plain<'a> {
    header: Header<'a>,
    transport: Transport<'a>,
}

#[derive(Clone, Copy)]
enum Header<'a> {
    V4(&'a [u8; 20]),
    V6(&'a [u8; 40]),
}

#[derive(Clone, Copy)]
enum Transport<'a> {
    Tcp(&'a [u8; 20]),
    Udp(&'a [u8; 8]),
}

/// A destination, in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// IPv4.
    V4(u32),
    /// IPv6: its first and its last 64 bits.
    V6(u64, u64),
}

impl<'a> Plain<'a> {
    /// Where the IP header starts.
    pub const START: u32 = 14;

    /// Recognizes a frame of this form. `None` if it has another one; the long parsers then decide.
    #[inline(always)]
    pub fn of<B: LinearBytes + ?Sized>(bytes: &'a B) -> Option<Self> {
        match u16::from_be_bytes(half::<12, _>(bytes.linear::<14>(0)?)) {
            ETHERTYPE_IPV4 => Self::of_v4(bytes),
            ETHERTYPE_IPV6 => Self::of_v6(bytes),
            _ => None,
        }
    }

    #[inline(always)]
    fn of_v4<B: LinearBytes + ?Sized>(bytes: &'a B) -> Option<Self> {
        const VERSION_4_WITHOUT_OPTIONS: u8 = 0x45;
        const FRAGMENT: u16 = 0x3fff;
        let header = bytes.linear::<20>(Self::START)?;
        let fragment = u16::from_be_bytes(half::<6, _>(header));
        let total = u32::from(u16::from_be_bytes(half::<2, _>(header)));
        if header[0] != VERSION_4_WITHOUT_OPTIONS || fragment & FRAGMENT != 0 || total < 20 {
            return None;
        }
        Self::of_transport(bytes, Header::V4(header), header[9], Self::START + 20, total - 20)
    }

    #[inline(always)]
    fn of_v6<B: LinearBytes + ?Sized>(bytes: &'a B) -> Option<Self> {
        let header = bytes.linear::<40>(Self::START)?;
        let payload = u32::from(u16::from_be_bytes(half::<4, _>(header)));
        if header[0] >> 4 != 6 || is_mapped(address::<8, 16>(header)) || is_mapped(address::<24, 32>(header)) {
            return None;
        }
        Self::of_transport(bytes, Header::V6(header), header[6], Self::START + 40, payload)
    }

    /// The same of the TCP or UDP header at `start` of a packet with `length` bytes from there on.
    #[inline(always)]
    fn of_transport<B: LinearBytes + ?Sized>(
        bytes: &'a B,
        header: Header<'a>,
        protocol: u8,
        start: u32,
        length: u32,
    ) -> Option<Self> {
        let transport = match protocol {
            protocol::TCP if length >= 20 => Transport::Tcp(bytes.linear(start)?),
            protocol::UDP if length >= 8 => Transport::Udp(bytes.linear(start)?),
            _ => return None,
        };
        Some(Self { header, transport })
    }

    /// Whether it is TCP; otherwise it is UDP.
    #[inline(always)]
    pub const fn is_tcp(&self) -> bool {
        matches!(self.transport, Transport::Tcp(_))
    }

    /// Its protocol number.
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        if self.is_tcp() { protocol::TCP } else { protocol::UDP }
    }

    /// Whether it can only open a connection: [`flag::OPENS`].
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        matches!(self.transport, Transport::Tcp(segment) if opens_tcp(segment[13]))
    }

    /// In network order: of the source, and of the destination.
    #[inline(always)]
    pub fn ports(&self) -> [[u8; 2]; 2] {
        zerocopy::transmute!(match self.transport {
            Transport::Tcp(segment) => word::<0, _>(segment),
            Transport::Udp(datagram) => word::<0, _>(datagram),
        })
    }

    /// Where it goes.
    #[inline(always)]
    pub fn destination(&self) -> Destination {
        match self.header {
            Header::V4(header) => Destination::V4(u32::from_be_bytes(word::<16, _>(header))),
            Header::V6(header) => {
                let [high, low] = [long::<24, _>(header), long::<32, _>(header)];
                Destination::V6(u64::from_be_bytes(high), u64::from_be_bytes(low))
            }
        }
    }

    /// Fills in an empty packet, as the long parsers do.
    #[inline(always)]
    pub fn fill(&self, packet: &mut Packet) {
        (packet.protocol, packet.fragment_protocol) = (self.protocol(), self.protocol());
        packet.flags = if self.opens() { flag::OPENS } else { 0 };
        [packet.source_port, packet.destination_port] = self.ports();
        match self.header {
            Header::V4(header) => {
                packet.family = 4;
                packet.source = mapped(word::<12, _>(header));
                packet.destination = mapped(word::<16, _>(header));
            }
            Header::V6(header) => {
                packet.family = 6;
                (packet.source, packet.destination) = (address::<8, 16>(header), address::<24, 32>(header));
            }
        }
    }
}

impl Destination {
    /// As it stands in a [`Packet`].
    #[inline(always)]
    pub const fn to_bytes(self) -> [u8; 16] {
        match self {
            Self::V4(address) => mapped(address.to_be_bytes()),
            Self::V6(high, low) => zerocopy::transmute!([high.to_be(), low.to_be()]),
        }
    }
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

/// Sixteen bytes, from their halves.
#[inline(always)]
fn address<const HIGH: usize, const LOW: usize>(header: &[u8; 40]) -> [u8; 16] {
    zerocopy::transmute!([long::<HIGH, _>(header), long::<LOW, _>(header)])
}
