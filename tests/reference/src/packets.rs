//! Packets as verdicts see them, drawn mostly from the edges of what a world's rules speak of.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use crate::names::pattern_means;
use crate::object::{Peer, Pod, Policy, Ports, World};
use crate::oracle::Oracle;
use crate::prefix::{Prefix, bits_of, from_bits, neighbour};
use crate::random::Random;

/// What a verdict needs to know of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// Where it goes.
    pub destination: IpAddr,
    /// Its IP protocol number.
    pub protocol: u8,
    /// Its destination port; the type of an ICMP or ICMPv6 packet; 0 where the protocol has neither.
    pub port: u16,
}

/// ICMP, IGMP, TCP, UDP, GRE, ESP, ICMPv6, SCTP and the two ends.
const PROTOCOLS: [u8; 10] = [1, 2, 6, 17, 47, 50, 58, 132, 0, 255];
/// The protocols that rules can name, and ones below, between and above them.
const DISTINCT_PROTOCOLS: [u8; 13] = [0, 1, 2, 3, 6, 7, 17, 18, 58, 59, 132, 133, 255];
/// Ports that builtin rules speak of, and ones next to them.
const PORTS: [u16; 12] = [0, 1, 52, 53, 54, 67, 80, 443, 546, 547, 548, 65535];

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} protocol {} port {}", self.destination, self.protocol, self.port)
    }
}

impl Packet {
    /// The same packet, an IPv4-mapped IPv6 destination as IPv4.
    pub(crate) fn canonical(&self) -> Self {
        let destination = self.destination.to_canonical();
        Self { destination, ..*self }
    }
}

impl World {
    /// A packet that `pod` might send, biased to the first and last addresses of prefixes and ports of ranges, and their
    /// neighbours, mostly those of the policies that select the pod.
    pub fn packet(&self, pod: &Pod, random: &mut Random) -> Packet {
        let policies = Oracle::new(self).policies(pod);
        let rule = (!policies.is_empty() && random.chance(75))
            .then(|| *random.pick(&policies))
            .filter(|policy| !policy.rules.is_empty())
            .map(|policy| random.pick(&policy.rules));
        let destination = match rule.map(|rule| &rule.peer) {
            Some(Peer::Cidr { prefix, except }) => {
                let edge = if except.is_empty() || random.chance(60) { *prefix } else { *random.pick(except) };
                Some(at_edge(edge, random))
            }
            Some(Peer::Dns(pattern)) => self.live_address(pattern, random),
            Some(Peer::Nodes(_)) | None => None,
        };
        let destination = destination.unwrap_or_else(|| self.other_destination(&policies, random));
        let entries = rule.and_then(|rule| rule.ports.as_deref());
        let entry = entries.filter(|_| random.chance(80)).map(|entries| *random.pick(entries));
        let (protocol, port) = transport(entry, destination, random);
        Packet { destination, protocol, port }
    }

    /// Mostly an address of a name that `pattern` means, otherwise of any name.
    fn live_address(&self, pattern: &str, random: &mut Random) -> Option<IpAddr> {
        let meant = self.answers.iter().filter(|(name, _)| pattern_means(pattern, name)).flat_map(|(_, live)| live);
        let meant: Vec<IpAddr> = meant.copied().collect();
        let all: Vec<IpAddr> = self.answers.values().flatten().copied().collect();
        let from = if meant.is_empty() || random.chance(20) { all } else { meant };
        (!from.is_empty()).then(|| *random.pick(&from))
    }

    /// One packet for each class of packets that no part of this world can tell apart, so that agreement on all of them is agreement
    /// on every packet. Their number is the product of all prefixes and all port ranges: for small worlds.
    pub fn representatives(&self) -> Vec<Packet> {
        representatives(&[self])
    }

    /// The first address of each region between the edges of prefixes.
    fn region_starts(&self) -> BTreeSet<IpAddr> {
        let hosts = self.node.resolvers.iter().chain(&self.node.addresses);
        let nodes = self.node.nodes.iter().flat_map(|node| &node.addresses);
        let resolvers = self.config.resolvers.iter().flatten();
        let hosts = hosts.chain(self.answers.values().flatten());
        let mut prefixes: Vec<Prefix> =
            hosts.chain(nodes).chain(resolvers).map(|address| Prefix::host(*address)).collect();
        prefixes.extend(self.config.internal.iter().flatten().chain(&self.config.excluded));
        prefixes.extend(builtin_prefixes());
        for rule in self.policies.iter().flat_map(|policy| &policy.rules) {
            if let Peer::Cidr { prefix, except } = &rule.peer {
                prefixes.push(*prefix);
                prefixes.extend(except);
            }
        }
        // The neighbour above the last address of a family is its first one, a start too.
        prefixes.iter().flat_map(|prefix| [prefix.first(), neighbour(prefix.last(), true)]).collect()
    }

    /// The first port of each range between the edges of port entries.
    fn port_starts(&self) -> BTreeSet<u16> {
        let entries =
            self.policies.iter().flat_map(|policy| &policy.rules).flat_map(|rule| rule.ports.iter().flatten());
        let written = entries.filter_map(|entry| entry.port.map(|port| (port, entry.end.unwrap_or(port))));
        let builtin = [(53, 53), (67, 67), (547, 547)];
        let starts = written.chain(builtin).flat_map(|(first, last)| [first, last.wrapping_add(1)]);
        starts.chain([0]).collect()
    }

    /// A destination that some other part of the world speaks of, or any.
    fn other_destination(&self, policies: &[&Policy], random: &mut Random) -> IpAddr {
        let hosts =
            self.node.resolvers.iter().chain(&self.node.addresses).chain(self.config.resolvers.iter().flatten());
        let nodes = self.node.nodes.iter().flat_map(|node| &node.addresses);
        let mut edges: Vec<Prefix> = hosts.chain(nodes).map(|address| Prefix::host(*address)).collect();
        edges.extend(self.config.internal.iter().flatten().chain(&self.config.excluded));
        edges.extend(builtin_prefixes());
        if random.chance(50) {
            // Rules of policies that select no pod, too: they must not leak into its verdicts.
            let others =
                self.policies.iter().filter(|policy| !policies.iter().any(|selecting| selecting.id == policy.id));
            edges.extend(others.flat_map(|policy| &policy.rules).filter_map(|rule| match &rule.peer {
                Peer::Cidr { prefix, .. } => Some(*prefix),
                Peer::Nodes(_) | Peer::Dns(_) => None,
            }));
        }
        match random.below(10) {
            0 => from_bits(32, random.wide()),
            1 => from_bits(128, random.wide()),
            _ => at_edge(*random.pick(&edges), random),
        }
    }
}

/// One packet for each class of packets that no part of any of these worlds can tell apart; see [`World::representatives`].
pub fn representatives(worlds: &[&World]) -> Vec<Packet> {
    let starts: BTreeSet<IpAddr> = worlds.iter().flat_map(|world| world.region_starts()).collect();
    let ports: BTreeSet<u16> = worlds.iter().flat_map(|world| world.port_starts()).collect();
    let mut packets = Vec::new();
    for protocol in DISTINCT_PROTOCOLS {
        let ports = match protocol {
            6 | 17 | 132 => ports.clone(),
            // Where the types of the builtin rules begin and end.
            58 => BTreeSet::from([0, 130, 138, 143, 144]),
            _ => BTreeSet::from([0]),
        };
        for port in ports {
            packets.extend(starts.iter().map(|destination| Packet { destination: *destination, protocol, port }));
        }
    }
    packets
}

/// Where builtin rules begin and end.
fn builtin_prefixes() -> [Prefix; 6] {
    [
        Prefix::new(IpAddr::from([127, 0, 0, 0]), 8),
        Prefix::new(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), 128),
        Prefix::new(IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0]), 10),
        Prefix::new(IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 0]), 16),
        Prefix::new(IpAddr::from([224, 0, 0, 0]), 24),
        Prefix::new(IpAddr::from([255, 255, 255, 255]), 32),
    ]
}

/// The first or last address of `prefix`, a neighbour of them, or one inside.
pub fn at_edge(prefix: Prefix, random: &mut Random) -> IpAddr {
    match random.below(8) {
        0 | 1 => prefix.first(),
        2 | 3 => prefix.last(),
        4 => neighbour(prefix.first(), false),
        5 => neighbour(prefix.last(), true),
        _ => {
            let host_bits = bits_of(prefix.first()) ^ bits_of(prefix.last());
            from_bits(prefix.width(), bits_of(prefix.first()) | (random.wide() & host_bits))
        }
    }
}

/// A protocol and port at an edge of `entry`, or any.
fn transport(entry: Option<Ports>, destination: IpAddr, random: &mut Random) -> (u8, u16) {
    let protocol = match entry.map(|entry| entry.protocol.number()) {
        Some(Some(number)) if random.chance(85) => number,
        _ if random.chance(50) => *random.pick(&[6, 17]),
        _ if random.chance(5) => u8::try_from(random.below(256)).expect("below 256"),
        _ => *random.pick(&PROTOCOLS),
    };
    let port = match protocol {
        6 | 17 | 132 => match entry.and_then(|entry| entry.port.map(|port| (port, entry.end.unwrap_or(port)))) {
            Some((first, last)) => match random.below(6) {
                0 => first,
                1 => last,
                2 => first.saturating_sub(1),
                3 => last.saturating_add(1),
                4 => u16::try_from(random.between(first.into(), last.into())).expect("between ports"),
                _ => *random.pick(&PORTS),
            },
            None if random.chance(80) => *random.pick(&PORTS),
            None => u16::try_from(random.below(65536)).expect("a port"),
        },
        58 if destination.is_ipv6() => {
            *random.pick(&[0, 1, 128, 129, 130, 133, 135, 136, 137, 138, 142, 143, 144, 255])
        }
        1 | 58 => *random.pick(&[0, 3, 8, 13, 130, 135, 143, 255]),
        _ => 0,
    };
    (protocol, port)
}
