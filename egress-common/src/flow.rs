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
    /// `CLOCK_MONOTONIC` nanoseconds of the last packet that asked for this entry; not every packet does, see [`RecentFlow`].
    pub last_seen: u64,
    /// One of [`origin`].
    pub origin: u32,
    /// For [`origin::NAME`], the name id whose rule allowed it; 0 otherwise.
    pub name: u32,
}
const _: () = assert!(size_of::<Flow>() == 16);

/// A connection that the map of flows had a moment ago, known by a hash: its packets need not ask the map again. One word, which is read and
/// written at once by any CPU: 40 bits of the hash, and below them when the map was asked.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct RecentFlow(pub u64);

impl RecentFlow {
    /// Ticks of the kernel during which the map is not asked again: a second where it has 1000 of them, four where it has 250, ten where it has
    /// 100. By so much [`Flow::last_seen`] may be behind.
    pub const TICKS: u64 = 1024;
    /// Bits of the tick counter. It comes round after hours; a connection that is found again by then was in the map once, or would be.
    const TICK: u64 = (1 << 24) - 1;

    /// The connection of this `hash`, found at `tick`.
    #[inline]
    pub const fn new(hash: u64, tick: u64) -> Self {
        Self(hash & !Self::TICK | tick & Self::TICK)
    }

    /// Whether it is the connection of this `hash`, whenever it was found.
    #[inline]
    pub const fn is(self, hash: u64) -> bool {
        (self.0 ^ hash) & !Self::TICK == 0
    }

    /// Whether it was found within [`TICKS`](Self::TICKS) before `tick`.
    #[inline]
    pub const fn is_recent(self, tick: u64) -> bool {
        tick.wrapping_sub(self.0) & Self::TICK < Self::TICKS
    }

    /// Index of the two places where a connection of this `hash` may stand.
    #[expect(clippy::cast_possible_truncation, reason = "the low bits")]
    #[inline]
    pub const fn place(hash: u64) -> u32 {
        hash as u32 & (crate::abi::capacity::RECENT_FLOWS / 2 - 1)
    }

    /// Hash of a connection. Two that have the same one are taken for each other while they are recent, so `secret` is what keeps a pod from
    /// making such: multiplications of what is secret and odd constants, in parallel where they can be (the constants are those of
    /// `SplitMix64`: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
    #[inline]
    pub const fn hash(
        secret: [u64; 2],
        remote: &[u8; 16],
        (remote_port, local_port): ([u8; 2], [u8; 2]),
        endpoint: u32,
        protocol: u32,
    ) -> u64 {
        let [high, low]: [u64; 2] = zerocopy::transmute!(*remote);
        let ports: u32 = zerocopy::transmute!([remote_port, local_port]);
        let [key, other] = secret;
        let a = (low.rotate_left(32) ^ key).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let b = ((ports as u64 | (endpoint as u64) << 32) ^ other).wrapping_mul(0x94d0_49bb_1331_11eb);
        let c = (high ^ protocol as u64 ^ key.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (a ^ a >> 32).wrapping_add(b ^ b >> 29) ^ c;
        let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 32
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

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::HashSet;

    use super::RecentFlow;

    const SECRET: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

    fn remote(last: u32) -> [u8; 16] {
        let [a, b, c, d] = last.to_be_bytes();
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
    }

    fn hash(last: u32, remote_port: u16, local_port: u16, endpoint: u32, protocol: u32) -> u64 {
        let ports = (remote_port.to_be_bytes(), local_port.to_be_bytes());
        RecentFlow::hash(SECRET, &remote(last), ports, endpoint, protocol)
    }

    #[test]
    fn connections_that_differ_in_anything_have_other_hashes_and_places() {
        let mut hashes = HashSet::new();
        let mut places = HashSet::new();
        let mut add = |hash: u64| {
            assert!(hashes.insert(hash >> 24), "{hash:x}");
            places.insert(RecentFlow::place(hash));
        };
        for number in 0..2000_u16 {
            add(hash(u32::from(number), 53, 40_000, 1, 17));
            add(hash(0x0808_0808, number, 39_999, 1, 17));
            add(hash(0x0808_0808, 65_000, number, 1, 17));
            add(hash(0x0909_0909, 53, 40_000, u32::from(number), 17));
        }
        for protocol in 18..=255 {
            add(hash(0x0808_0808, 53, 40_000, 1, protocol));
        }
        // Of 8,238 connections in 131,072 places some 250 would meet another one by chance.
        assert!(places.len() > 7900, "{}", places.len());
    }

    #[test]
    fn the_hash_is_another_one_under_another_secret() {
        let ports = (53_u16.to_be_bytes(), 4000_u16.to_be_bytes());
        let of = |secret| RecentFlow::hash(secret, &remote(1), ports, 1, 17);
        let others: HashSet<u64> = [SECRET, [SECRET[0] ^ 1, SECRET[1]], [SECRET[0], SECRET[1] ^ 1]].map(of).into();
        assert_eq!(others.len(), 3);
    }

    #[test]
    fn a_connection_is_recent_for_some_ticks_also_where_the_counter_comes_round() {
        let hash = hash(1, 2, 3, 4, 17);
        for found in [0, 5000, (1 << 24) - 3, (1 << 24) - 1, 1 << 40] {
            let recent = RecentFlow::new(hash, found);
            assert!(recent.is(hash) && !recent.is(hash ^ 1 << 30));
            for (after, expected) in
                [(0, true), (1, true), (RecentFlow::TICKS - 1, true), (RecentFlow::TICKS, false), (1 << 20, false)]
            {
                assert_eq!(recent.is_recent(found + after), expected, "{found} + {after}");
            }
        }
    }
}
