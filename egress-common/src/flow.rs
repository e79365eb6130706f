//! The little state there is: connections that began outside, and first fragments.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Who sent the first packet of a connection. Part of the ABI.
pub mod origin {
    /// The remote side: the pod's packets are replies (§1.4).
    pub const OUTSIDE: u32 = 1;
    /// The pod, while its policy allowed it: later packets of the remote do not turn it into a reply.
    pub const INSIDE: u32 = 2;
    /// The pod, allowed only by a DNS name: it stays allowed when the address expires, as long as the rule stands (§5.7).
    pub const NAME: u32 = 3;
}

/// Seconds after which a silent connection counts as ended. TCP as `nf_conntrack_tcp_timeout_established`, the others as
/// `nf_conntrack_udp_timeout_stream` of Linux (`net/netfilter/nf_conntrack_proto_udp.c` and its TCP sibling).
pub mod timeout {
    /// TCP: five days.
    pub const TCP_SECONDS: u64 = 432_000;
    /// Everything else: two minutes.
    pub const OTHER_SECONDS: u64 = 120;
    /// First fragments: `net.ipv4.ipfrag_time`.
    pub const FRAGMENT_SECONDS: u64 = 30;
}

/// A connection of one endpoint, seen from the pod.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct FlowKey {
    /// Remote address; IPv4 as `::ffff:a.b.c.d`.
    pub remote: [u8; 16],
    /// Number of the endpoint.
    pub endpoint: u32,
    /// Remote port, network order; 0 where the protocol has none.
    pub remote_port: [u8; 2],
    /// The pod's port, network order; the identifier of an ICMP echo; 0 where the protocol has none.
    pub local_port: [u8; 2],
    /// IP protocol number.
    pub protocol: u32,
}
const _: () = assert!(size_of::<FlowKey>() == 28);

/// What is remembered of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Flow {
    /// `CLOCK_MONOTONIC` nanoseconds of the last packet that asked for this entry.
    pub last_seen: u64,
    /// One of [`origin`].
    pub origin: u32,
    /// For [`origin::NAME`], the name id whose rule allowed it; 0 otherwise.
    pub name: u32,
}
const _: () = assert!(size_of::<Flow>() == 16);

/// A connection that the map of flows had a moment ago, on one CPU: its packets need not ask again.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct RecentFlow {
    /// The connection.
    pub key: FlowKey,
    /// The kernel's tick counter when the map was asked.
    pub tick: u32,
}
const _: () = assert!(size_of::<RecentFlow>() == 32);

impl RecentFlow {
    /// Ticks during which the map is not asked again: 64 ms where a second has 1000 of them, 640 ms where it has 100. Well below a second,
    /// the precision of [`Flow::last_seen`].
    pub const TICKS: u32 = 64;

    /// Index in the array of them of the connection with this remote address and these ports, the remote one first.
    #[inline]
    pub const fn place(remote: &[u8; 16], (remote_port, local_port): ([u8; 2], [u8; 2]), endpoint: u32) -> u32 {
        let [a, b, c, d]: [u32; 4] = zerocopy::transmute!(*remote);
        let ports: u32 = zerocopy::transmute!([remote_port, local_port]);
        // Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4).
        let mixed = (a ^ b ^ c ^ d ^ ports.rotate_left(7) ^ endpoint).wrapping_mul(0x9e37_79b1);
        mixed >> (u32::BITS - crate::abi::capacity::RECENT_FLOWS.ilog2())
    }
}

/// A fragmented datagram that an endpoint is sending.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct FragmentKey {
    /// Source address; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// Destination address, likewise.
    pub destination: [u8; 16],
    /// Number of the endpoint.
    pub endpoint: u32,
    /// Identification field (16 bits in IPv4, 32 in IPv6), as it stood in the header.
    pub id: [u8; 4],
    /// IP protocol number.
    pub protocol: u32,
}
const _: () = assert!(size_of::<FragmentKey>() == 44);

/// The verdict of a first fragment.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Fragment {
    /// `CLOCK_MONOTONIC` nanoseconds when it was seen.
    pub seen: u64,
    /// [`Decision`](crate::table::Decision) bits.
    pub decision: u32,
    /// 1 if the packet was passed, 0 if it was dropped.
    pub passed: u32,
    /// Generation of the table that judged it; another table judges anew.
    pub generation: u32,
    /// Where its transport header is over, in 8 bytes of the datagram.
    pub header_units: u32,
}
const _: () = assert!(size_of::<Fragment>() == 24);
