//! A set of addresses as sorted ranges, for questions about every endpoint of a large cluster: the time of one does not grow with the number
//! of networks, of which each node may have its own.

use std::net::IpAddr;

use ipnet::IpNet;

/// Addresses of both families; IPv4-mapped IPv6 addresses are those that they stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    v4: Vec<(u128, u128)>,
    v6: Vec<(u128, u128)>,
}

/// Whether it is of IPv4, and its bits.
fn number(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(address) => (true, address.to_bits().into()),
        IpAddr::V6(address) => (false, address.to_bits()),
    }
}

impl Ranges {
    /// Whether `address` is in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (is_v4, number) = number(address.to_canonical());
        let ranges = if is_v4 { &self.v4 } else { &self.v6 };
        let behind = ranges.partition_point(|(first, _)| *first <= number);
        behind.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, last)| number <= *last)
    }
}

impl<'n> FromIterator<&'n IpNet> for Ranges {
    fn from_iter<T: IntoIterator<Item = &'n IpNet>>(networks: T) -> Self {
        let mut ranges = Self::default();
        for network in networks {
            let (is_v4, first) = number(network.network());
            let (_, last) = number(network.broadcast());
            if is_v4 { &mut ranges.v4 } else { &mut ranges.v6 }.push((first, last));
        }
        for family in [&mut ranges.v4, &mut ranges.v6] {
            family.sort_unstable();
            // Prefixes lie in each other or apart.
            family.dedup_by(|next, before| next.0 <= before.1);
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every set of these networks, asked for every edge of each and for what lies beside it.
    #[test]
    fn an_address_is_in_the_set_if_it_is_in_one_of_the_networks() {
        let texts = [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.2.3/32",
            "11.0.0.0/8",
            "255.255.255.255/32",
            "::/0",
            "fd00::/16",
            "fd00:1::/32",
            "::ffff:0:0/96",
            "ffff::/16",
        ];
        let networks: Vec<IpNet> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let beside = |address: IpAddr| match address {
            IpAddr::V4(address) => {
                let bits = address.to_bits();
                [bits, bits.wrapping_add(1), bits.wrapping_sub(1)].map(|bits| IpAddr::V4(bits.into()))
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                [bits, bits.wrapping_add(1), bits.wrapping_sub(1)].map(|bits| IpAddr::V6(bits.into()))
            }
        };
        let mut addresses: Vec<IpAddr> =
            networks.iter().flat_map(|network| [network.network(), network.broadcast()]).flat_map(beside).collect();
        addresses.push("::ffff:10.1.2.3".parse().unwrap());
        let mut seen = [0, 0];
        for set in 0..1_u32 << networks.len() {
            let chosen =
                || networks.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1).map(|(_, network)| network);
            let ranges: Ranges = chosen().collect();
            for address in &addresses {
                let expected = chosen().any(|network| network.contains(&address.to_canonical()));
                assert_eq!(ranges.contains(*address), expected, "{address} in {:?}", chosen().collect::<Vec<_>>());
                seen[usize::from(expected)] += 1;
            }
        }
        assert!(seen.iter().all(|count| *count > 10_000), "{seen:?}");
    }
}
