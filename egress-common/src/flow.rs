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
    /// Everything else: conntrack's two minutes and one more, because [`Flow::last_seen`](super::Flow::last_seen) may be behind.
    pub const OTHER_SECONDS: u64 = 180;
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
    /// `CLOCK_MONOTONIC` nanoseconds of the last packet that asked for this entry; not every packet does, see [`RecentFlows`].
    pub last_seen: u64,
    /// One of [`origin`].
    pub origin: u32,
    /// For [`origin::NAME`], the name id whose rule allowed it; 0 otherwise.
    pub name: u32,
}
const _: () = assert!(size_of::<Flow>() == 16);

/// Four connections that the map of flows had a moment ago, known by a hash: their packets need not ask the map again. Two words, each of
/// which any CPU reads and writes at once, and so small that those of a busy node stay in the processor's caches. Each half: when the map was
/// asked, in periods, above 24 bits of the hash. Those that were found last come first.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct RecentFlows(pub [u64; 2]);

impl RecentFlows {
    /// How many stand side by side.
    pub const WAYS: u32 = 4;
    /// Ticks of the kernel in a period. The map is not asked again in the period in which it was asked and in the next one: eight seconds where
    /// the kernel has 1000 ticks in one, 33 where it has 250, 82 where it has 100. By so much [`Flow::last_seen`] may be behind.
    pub const PERIOD: u64 = 4096;
    const HASH_BITS: u32 = 24;

    /// Half of the connection of this `hash`, found at `tick`. The periods come round after 2^20 ticks, 17 minutes or more: what was silent for
    /// so long is over, see [`timeout::OTHER_SECONDS`].
    #[expect(clippy::cast_possible_truncation, reason = "eight bits of the period and the upper bits of the hash")]
    #[inline]
    const fn half(hash: u64, tick: u64) -> u32 {
        ((tick / Self::PERIOD) as u32) << Self::HASH_BITS | (hash >> (64 - Self::HASH_BITS)) as u32
    }

    #[expect(clippy::cast_possible_truncation, reason = "the halves")]
    #[inline]
    const fn halves(self) -> [u32; 4] {
        let [last, first] = self.0;
        [last as u32, (last >> 32) as u32, first as u32, (first >> 32) as u32]
    }

    /// Zero if the connection of this `hash` is one of them and was found in the period of `tick` or the one before; another number otherwise.
    ///
    /// A product of four differences, and no comparison: programs have no instruction that chooses, so each would be a jump that the processor
    /// cannot foretell, and all that follows would wait for this line of memory.
    #[inline]
    pub const fn distance(self, hash: u64, tick: u64) -> u32 {
        let [a, b, c, d] = self.halves();
        let now = Self::half(hash, tick);
        product(product(away(now, a), away(now, b)), product(away(now, c), away(now, d)))
    }

    /// Whether the connection is one of them: [`distance`](Self::distance) is zero.
    #[inline]
    pub const fn has(self, hash: u64, tick: u64) -> bool {
        self.distance(hash, tick) == 0
    }

    /// Whether two halves are of one connection.
    #[inline]
    const fn is(half: u32, other: u32) -> bool {
        (half ^ other) << (32 - Self::HASH_BITS) == 0
    }

    /// With the connection of this `hash`, found at `tick`, in front, and those that stood before it behind it. If it was none of them, the
    /// last one is gone.
    #[inline]
    #[must_use]
    pub const fn with(self, hash: u64, tick: u64) -> Self {
        let [a, b, c, d] = self.halves();
        let now = Self::half(hash, tick);
        let [second, third, fourth] = if Self::is(a, now) {
            [b, c, d]
        } else if Self::is(b, now) {
            [a, c, d]
        } else if Self::is(c, now) {
            [a, b, d]
        } else {
            [a, b, c]
        };
        Self([now as u64 | (second as u64) << 32, third as u64 | (fourth as u64) << 32])
    }

    /// Index of the place in which a connection of this `hash` may stand.
    #[expect(clippy::cast_possible_truncation, reason = "the low bits")]
    #[inline]
    pub const fn place(hash: u64) -> u32 {
        hash as u32 & (crate::abi::capacity::RECENT_FLOWS / Self::WAYS - 1)
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

/// Zero if `half` is of the connection of `now`, in the same period or the one before.
#[inline]
const fn away(now: u32, half: u32) -> u32 {
    now.wrapping_sub(half) & !(1 << RecentFlows::HASH_BITS)
}

/// Zero if one of them is.
#[expect(clippy::cast_possible_truncation, reason = "both halves")]
#[inline]
const fn product(a: u32, b: u32) -> u32 {
    let product = a as u64 * b as u64;
    product as u32 | (product >> 32) as u32
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
    use std::vec;

    use super::RecentFlows;

    const SECRET: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

    fn remote(last: u32) -> [u8; 16] {
        let [a, b, c, d] = last.to_be_bytes();
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
    }

    fn hash(last: u32, remote_port: u16, local_port: u16, endpoint: u32, protocol: u32) -> u64 {
        let ports = (remote_port.to_be_bytes(), local_port.to_be_bytes());
        RecentFlows::hash(SECRET, &remote(last), ports, endpoint, protocol)
    }

    #[test]
    fn connections_that_differ_in_anything_have_other_hashes_and_places() {
        let mut hashes = HashSet::new();
        let mut places = HashSet::new();
        let mut add = |hash: u64| {
            assert!(hashes.insert((hash >> 40, RecentFlows::place(hash))), "{hash:x}");
            places.insert(RecentFlows::place(hash));
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
        // Of 65,536 places 8,238 connections would take 7,740 by chance.
        assert!(places.len() > 7600, "{}", places.len());
    }

    #[test]
    fn the_hash_is_another_one_under_another_secret() {
        let ports = (53_u16.to_be_bytes(), 4000_u16.to_be_bytes());
        let of = |secret| RecentFlows::hash(secret, &remote(1), ports, 1, 17);
        let others: HashSet<u64> = [SECRET, [SECRET[0] ^ 1, SECRET[1]], [SECRET[0], SECRET[1] ^ 1]].map(of).into();
        assert_eq!(others.len(), 3);
    }

    #[test]
    fn a_connection_is_recent_in_two_periods_also_where_they_come_round() {
        const PERIOD: u64 = RecentFlows::PERIOD;
        let hash = hash(1, 2, 3, 4, 17);
        for found in [0, 5000 * PERIOD, 255 * PERIOD, 256 * PERIOD, 1 << 40] {
            let recent = RecentFlows([0; 2]).with(hash, found);
            assert!(!recent.has(hash ^ 1 << 40, found) && !recent.has(hash ^ 1 << 63, found));
            for (after, expected) in [
                (0, true),
                (PERIOD - 1, true),
                (PERIOD, true),
                (2 * PERIOD - 1, true),
                (2 * PERIOD, false),
                (255 * PERIOD, false),
            ] {
                assert_eq!(recent.has(hash, found + after), expected, "{found} + {after}");
            }
        }
    }

    #[test]
    fn four_connections_stand_side_by_side_and_the_next_displaces_the_one_found_longest_ago() {
        let [one, two, three, four, five] = [1_u64, 2, 3, 4, 5].map(|number| number << 40);
        let tick = 77 * RecentFlows::PERIOD;
        let fill = |hashes: &[u64]| hashes.iter().fold(RecentFlows([0; 2]), |flows, hash| flows.with(*hash, tick));
        let has = |flows: RecentFlows, tick| [one, two, three, four, five].map(|hash| flows.has(hash, tick));
        let all = fill(&[one, two, three, four]);
        assert_eq!(has(all, tick), [true, true, true, true, false]);
        // Found again, in whatever order, none displaces another; and it is as if it had been found only now.
        for again in [one, two, three, four] {
            let later = tick + 2 * RecentFlows::PERIOD;
            let found = all.with(again, later);
            assert_eq!(has(found, tick + RecentFlows::PERIOD).map(usize::from).iter().sum::<usize>(), 3);
            assert_eq!(has(found, later), [one, two, three, four, five].map(|hash| hash == again));
        }
        assert_eq!(has(all.with(five, tick), tick), [false, true, true, true, true]);
        assert_eq!(has(fill(&[one, two, three, four, one, five]), tick), [true, false, true, true, true]);
        assert_eq!(has(fill(&[one, two, three, four, three, two, five]), tick), [false, true, true, true, true]);
    }

    #[test]
    fn one_in_fifty_of_many_connections_meets_too_many_in_its_place() {
        let count = crate::abi::capacity::FLOWS / 2;
        let mut places = vec![RecentFlows([0; 2]); (crate::abi::capacity::RECENT_FLOWS / RecentFlows::WAYS) as usize];
        let mut displaced = 0;
        // One after another, again and again: who is displaced is so every time.
        for round in 0..3_u64 {
            displaced = 0;
            for number in 0..count {
                let hash = hash(0x0b00_0000 + number * 7, 443, 40_000, 1, 17);
                let place = &mut places[RecentFlows::place(hash) as usize];
                displaced += u32::from(!place.has(hash, round + 1));
                *place = place.with(hash, round + 1);
            }
        }
        assert!((count / 100..count / 40).contains(&displaced), "{displaced} of {count}");
    }
}
