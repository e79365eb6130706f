//! Our rules, made from parts that passed validation.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::name::NamePattern;
use crate::spec::{Action, EgressPeer, EgressPort, EgressRule, LabelSelector, Protocol};

/// Every IPv4 address and every IPv6 address.
pub(super) const EVERYTHING: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
];

/// A rule; `ports` of `None` means any.
pub(super) const fn rule(action: Action, to: EgressPeer, ports: Option<Vec<EgressPort>>) -> EgressRule {
    EgressRule { action, to, ports, name: None }
}

/// The addresses of a prefix.
pub(super) fn to_cidr(cidr: IpNet) -> EgressPeer {
    EgressPeer { cidr_selector: Some(cidr.to_string()), ..EgressPeer::default() }
}

/// The addresses of a prefix without those of `except`, which lie inside it.
pub(super) fn to_cidr_except(cidr: IpNet, except: &[IpNet]) -> EgressPeer {
    let except = (!except.is_empty()).then(|| except.iter().map(ToString::to_string).collect());
    EgressPeer { except, ..to_cidr(cidr) }
}

/// The addresses of a name.
pub(super) fn to_name(name: &NamePattern) -> EgressPeer {
    EgressPeer { dns_name: Some(name.to_string()), ..EgressPeer::default() }
}

/// The addresses of nodes.
pub(super) fn to_nodes(selector: LabelSelector) -> EgressPeer {
    EgressPeer { node_selector: Some(selector), ..EgressPeer::default() }
}

/// Two rules for every destination, one per address family.
pub(super) fn everything(action: Action, ports: Option<&[EgressPort]>) -> impl Iterator<Item = EgressRule> {
    let ports = ports.map(<[EgressPort]>::to_vec);
    EVERYTHING.into_iter().map(move |cidr| rule(action, to_cidr(cidr), ports.clone()))
}

/// The ports `first` to `last` of a protocol.
pub(super) fn ports(protocol: Protocol, first: u16, last: u16) -> EgressPort {
    EgressPort { protocol, port: Some(first), end_port: (last != first).then_some(last) }
}

/// Every port of a protocol.
pub(super) const fn protocol(protocol: Protocol) -> EgressPort {
    EgressPort { protocol, port: None, end_port: None }
}

impl EgressPeer {
    /// The destination in words.
    pub(super) fn words(&self) -> String {
        match (&self.cidr_selector, &self.dns_name, &self.node_selector) {
            (Some(cidr), _, _) => cidr.clone(),
            (None, Some(name), _) => name.clone(),
            (None, None, Some(nodes)) if *nodes == LabelSelector::default() => "every node".to_owned(),
            (None, None, Some(nodes)) => format!("nodes ({nodes})"),
            (None, None, None) => "nothing".to_owned(),
        }
    }
}

/// `Allow 1.2.3.0/24 TCP/443`, as reports show rules.
pub(super) fn words(action: Action, to: &str, ports: Option<&[EgressPort]>) -> String {
    let ports = ports.map(|ports| ports.iter().map(port_words).collect::<Vec<_>>().join(","));
    match ports {
        Some(ports) => format!("{} {to} {ports}", action.name()),
        None => format!("{} {to}", action.name()),
    }
}

fn port_words(port: &EgressPort) -> String {
    let protocol = format!("{:?}", port.protocol);
    match (port.port, port.end_port) {
        (None, _) => protocol,
        (Some(first), None) => format!("{protocol}/{first}"),
        (Some(first), Some(last)) => format!("{protocol}/{first}-{last}"),
    }
}
