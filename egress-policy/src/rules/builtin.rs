//! The firewall's own rules, which come before every policy (§1.2, §1.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use egress_common::packet::protocol;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Builtin, RankedPeer, RankedRule, RuleOrigin};
use crate::model::{Action, Config, Mode, NodeContext, Tier, canonical};
use crate::ports::{KeyRange, Ports};

/// The addresses as whole-length prefixes, sorted, each once.
pub(super) fn hosts(addresses: impl Iterator<Item = IpAddr>) -> Arc<[IpNet]> {
    networks(addresses.map(|address| IpNet::from(address.to_canonical())))
}

fn networks(prefixes: impl Iterator<Item = IpNet>) -> Arc<[IpNet]> {
    let mut prefixes: Vec<IpNet> = prefixes.map(|prefix| canonical(prefix.trunc())).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes.into()
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6(first: u16, last: u16, length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last), length))
}

/// §1.2, §1.3 and `excludedCIDRs`. A rule without any address is left out.
pub(super) fn builtin_rules(config: &Config, node: &NodeContext) -> Vec<RankedRule> {
    const LINK_LOCAL: IpNet = v6(0xfe80, 0, 10);
    const LINK_MULTICAST: IpNet = v6(0xff02, 0, 16);
    const LOOPBACK: [IpNet; 2] = [v4(127, 0, 0, 0, 8), v6(0, 1, 128)];
    const DNS_PORT: u16 = 53;

    let internal = config.internal_cidrs.iter().flatten().copied().chain(LOOPBACK);
    let own6 = node.node_addresses.iter().map(IpAddr::to_canonical).filter(IpAddr::is_ipv6).map(IpNet::from);
    let discovery = [LINK_LOCAL, LINK_MULTICAST].into_iter().chain(own6);
    // RFC 4861 (133–137), MLD: RFC 2710 (130–132), RFC 3810 (143).
    let discovery_types =
        vec![KeyRange::ports(protocol::ICMPV6, 130, 137), KeyRange::ports(protocol::ICMPV6, 143, 143)];
    let resolvers = config.resolvers.as_ref().unwrap_or(&node.resolvers);
    let dns = resolvers.iter().chain(&node.node_addresses).copied().filter(|_| config.dns.allow_resolvers);
    let dns_ports = [protocol::UDP, protocol::TCP].map(|number| KeyRange::ports(number, DNS_PORT, DNS_PORT));

    let rules = [
        (Builtin::InternalCidrs, networks(internal), Ports::Any),
        (Builtin::NeighbourDiscovery, networks(discovery), Ports::new(discovery_types)),
        (
            Builtin::Dhcpv6,
            networks([LINK_LOCAL, LINK_MULTICAST].into_iter()),
            Ports::new(vec![KeyRange::ports(protocol::UDP, 547, 547)]),
        ),
        (Builtin::Igmp, networks([v4(224, 0, 0, 0, 24)].into_iter()), Ports::new(vec![KeyRange::protocol(2)])),
        (
            Builtin::Dhcpv4,
            networks([v4(255, 255, 255, 255, 32)].into_iter()),
            Ports::new(vec![KeyRange::ports(protocol::UDP, 67, 67)]),
        ),
        (Builtin::Dns, hosts(dns), Ports::new(dns_ports.to_vec())),
        (Builtin::ExcludedCidrs, networks(config.excluded_cidrs.iter().copied()), Ports::Any),
    ];
    let with_addresses = rules.into_iter().filter(|(_, networks, _)| !networks.is_empty());
    with_addresses.map(|(builtin, networks, ports)| builtin_rule(builtin, networks, ports)).collect()
}

fn builtin_rule(builtin: Builtin, networks: Arc<[IpNet]>, ports: Ports) -> RankedRule {
    RankedRule {
        origin: RuleOrigin::Builtin(builtin),
        tier: Tier::Builtin,
        action: Action::Allow,
        mode: Mode::Enforce,
        peer: RankedPeer::Networks(networks),
        ports,
    }
}
