//! The packet that a program was called for, and what its headers say. TC and `cgroup_skb` differ in where the IP header starts.

use core::arch::asm;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use egress_common::event::Hook;
use egress_common::packet::{self, LinearBytes, Network, Packet, PacketBytes, Plain};
use egress_common::reason::DropReason;

/// The packet that a hook was called for.
#[derive(Clone, Copy)]
pub struct Skb(*mut __sk_buff);

impl Skb {
    /// Wraps the context of a running program.
    #[inline(always)]
    pub fn new(ctx: *mut __sk_buff) -> Self {
        Self(ctx)
    }

    /// The context.
    #[inline(always)]
    pub fn raw(self) -> *mut __sk_buff {
        self.0
    }

    /// Index of the interface that the hook is on.
    #[inline(always)]
    pub fn interface(self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.0).ifindex }
    }

    /// `EtherType` of the packet, for hooks that do not see its Ethernet header.
    #[inline(always)]
    pub fn ethertype(self) -> u16 {
        // SAFETY: as above. The field is 16 bits in network order.
        u16::from_be(unsafe { (*self.0).protocol } as u16)
    }

    /// Length in bytes from where the hook's view starts.
    #[inline(always)]
    pub fn length(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).len }
    }

    /// An offset below 32, of which the verifier does not know any more which it is, so that it follows the parser once and not
    /// once per number of VLAN tags. Changes nothing at run time: no packet has 128 MiB.
    #[inline(always)]
    fn hidden(self, offset: u32) -> u32 {
        (offset + (self.length() >> 27)) & 31
    }
}

impl PacketBytes for Skb {
    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the buffer has the N bytes that are named; the helper checks the packet's end.
        let status = unsafe { bpf_skb_load_bytes(self.0.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) };
        // SAFETY: on success the helper has written all of them.
        if status == 0 { Some(unsafe { bytes.assume_init() }) } else { None }
    }
}

impl LinearBytes for Skb {
    /// The linear part of a packet, where headers nearly always are. Each call of the helper would cost as much as a step of the trie; but
    /// this way the verifier follows both outcomes of each read, so only the short parser goes it.
    #[inline(always)]
    fn linear<const N: usize>(&self, offset: u32) -> Option<&[u8; N]> {
        // No header is farther; the verifier wants a limit.
        const FARTHEST: u32 = 4096;
        if offset > FARTHEST {
            return None;
        }
        // SAFETY: the context is valid while the program runs.
        let (data, end) = unsafe { ((*self.0).data as usize, (*self.0).data_end as usize) };
        let mut at = data + offset as usize;
        // SAFETY: changes nothing. Keeps the compiler from adding N first: the verifier could not follow what the check is about.
        unsafe { asm!("{at} = {at}", at = inout(reg) at, options(pure, nomem, nostack, preserves_flags)) };
        // SAFETY: no packet lies there. Keeps the compiler from asking.
        unsafe { core::hint::assert_unchecked(at != 0) };
        if at + N > end {
            return None;
        }
        // SAFETY: the N bytes lie before the end of the packet, which no stage before the last one changes.
        Some(unsafe { &*core::ptr::with_exposed_provenance::<[u8; N]>(at) })
    }
}

/// Whether packets of a hook start with an Ethernet header.
#[inline(always)]
pub fn has_ethernet(hook: Hook) -> bool {
    matches!(hook, Hook::TcFromPod | Hook::TcToPod)
}

#[inline(always)]
fn network(skb: Skb, hook: Hook) -> Result<Network, DropReason> {
    if has_ethernet(hook) {
        return packet::ethernet(&skb).map(|network| match network {
            Network::V4(start) => Network::V4(skb.hidden(start)),
            Network::V6(start) => Network::V6(skb.hidden(start)),
            Network::Arp => Network::Arp,
        });
    }
    // What goes on the wire: a raw socket may write any version into the header.
    match skb.ethertype() {
        packet::ETHERTYPE_IPV4 => Ok(Network::V4(0)),
        packet::ETHERTYPE_IPV6 => Ok(Network::V6(0)),
        _ => Err(DropReason::UnknownEthertype),
    }
}

/// A packet of the most frequent form. `None` too for other hooks, for which the verifier's time is not worth it.
#[inline(always)]
pub fn plain(skb: &Skb, hook: Hook) -> Option<Plain<'_>> {
    if has_ethernet(hook) { Plain::of(skb) } else { None }
}

/// A packet of which nothing is known yet, all zeros. Word by word, because the compiler would call a function that clears byte by byte, or
/// copy it from memory.
#[inline(always)]
pub fn cleared(memory: &mut MaybeUninit<Packet>) -> &mut Packet {
    const { assert!(size_of::<Packet>() == 48 && align_of::<Packet>() == 8) };
    let words: *mut u64 = memory.as_mut_ptr().cast();
    // SAFETY: within the packet, as was just asserted.
    let clear = |at| unsafe { words.add(at).write_volatile(0) };
    clear(0);
    clear(1);
    clear(2);
    clear(3);
    clear(4);
    clear(5);
    // SAFETY: all of its bytes were just written, and zeros are a valid packet.
    unsafe { memory.assume_init_mut() }
}

/// Reads the headers into an empty packet. `Ok(None)` is ARP; otherwise the offset of the IP header.
#[inline(always)]
pub fn parse(skb: Skb, hook: Hook, packet: &mut Packet) -> Result<Option<u32>, DropReason> {
    if let Some(plain) = plain(&skb, hook) {
        plain.fill(packet);
        return Ok(Some(skb.hidden(Plain::START)));
    }
    match network(skb, hook)? {
        Network::Arp => Ok(None),
        Network::V4(start) => parse4(skb, start, packet).map(|()| Some(start)),
        Network::V6(start) => parse6(skb, start, packet).map(|()| Some(start)),
    }
}

// Calls, so that their buffers do not add up on one stack of 512 bytes.
#[inline(never)]
fn parse4(skb: Skb, start: u32, packet: &mut Packet) -> Result<(), DropReason> {
    packet::ipv4(&skb, start, packet)
}

#[inline(never)]
fn parse6(skb: Skb, start: u32, packet: &mut Packet) -> Result<(), DropReason> {
    packet::ipv6(&skb, start, packet)
}
