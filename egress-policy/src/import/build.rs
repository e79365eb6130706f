//! Our rules, made from parts that passed validation.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::name::NamePattern;
use crate::spec::{Action, EgressPeer, EgressPort, EgressRule, LabelSelector, MAX_EXCEPT, MAX_PORTS, Protocol};

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

/// Rules that together say what `rule` says, each within the limits of a rule.
pub(super) fn fitting(rule: EgressRule) -> Vec<EgressRule> {
    if rule.to.except.as_ref().is_some_and(|except| except.len() > MAX_EXCEPT)
        && let Some(networks) = networks(&rule)
    {
        let part = |cidr| EgressRule { to: to_cidr(cidr), ..rule.clone() };
        return networks.into_iter().map(part).flat_map(fitting).collect();
    }
    match rule.ports.as_deref() {
        Some(ports) if ports.len() > MAX_PORTS => {
            let part = |ports: &[EgressPort]| EgressRule { ports: Some(ports.to_vec()), ..rule.clone() };
            ports.chunks(MAX_PORTS).map(part).collect()
        }
        Some(_) | None => vec![rule],
    }
}

/// The prefixes of a rule for a prefix; none if the rule is for something else.
pub(super) fn networks(rule: &EgressRule) -> Option<Vec<IpNet>> {
    let cidr: IpNet = rule.to.cidr_selector.as_ref()?.parse().ok()?;
    let except = rule.to.except.iter().flatten().filter_map(|except| except.parse().ok());
    let except: Vec<IpNet> = except.map(|except: IpNet| except.trunc()).collect();
    Some(without(cidr.trunc(), &except))
}

/// The prefixes that are left of `cidr` without those of `except`.
fn without(cidr: IpNet, except: &[IpNet]) -> Vec<IpNet> {
    if except.iter().any(|inner| inner.contains(&cidr)) {
        return Vec::new();
    }
    if !except.iter().any(|inner| cidr.contains(inner)) {
        return vec![cidr];
    }
    let halves = cidr.subnets(cidr.prefix_len().saturating_add(1)).into_iter().flatten();
    halves.flat_map(|half| without(half, except)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_beyond_the_limits_becomes_several_that_say_the_same() {
        let cidr = |text: &str| -> IpNet { text.parse().unwrap() };
        let numbered = u16::try_from(MAX_PORTS).unwrap();
        let many: Vec<EgressPort> = (1..=numbered + 1).map(|port| ports(Protocol::TCP, port, port)).collect();
        let whole = rule(Action::Allow, to_cidr(cidr("10.0.0.0/8")), Some(many.clone()));
        let parts = fitting(whole.clone());
        assert_eq!(parts.len(), 2);
        let together: Vec<EgressPort> = parts.iter().flat_map(|part| part.ports.clone().unwrap()).collect();
        assert_eq!(together, many);
        let except: Vec<IpNet> = (0..=MAX_EXCEPT).map(|number| cidr(&format!("10.{}.0.0/16", 2 * number))).collect();
        let parts = fitting(rule(Action::Allow, to_cidr_except(cidr("10.0.0.0/8"), &except), None));
        let left = IpNet::aggregate(&parts.iter().flat_map(|part| networks(part).unwrap()).collect());
        let all = IpNet::aggregate(&[left.clone(), except.clone()].concat());
        assert_eq!(all, [cidr("10.0.0.0/8")]);
        assert!(except.iter().all(|gone| !left.iter().any(|kept| kept.contains(gone) || gone.contains(kept))));
        assert_eq!(fitting(rule(Action::Deny, to_cidr_except(cidr("10.0.0.0/8"), &except[1..]), None)).len(), 1);
    }

    #[test]
    fn what_is_left_of_a_prefix_has_every_address_but_the_excepted_ones() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        assert_eq!(without(net("10.0.0.0/8"), &[]), [net("10.0.0.0/8")]);
        assert_eq!(without(net("10.0.0.0/30"), &[net("10.0.0.1/32")]), [net("10.0.0.0/32"), net("10.0.0.2/31")]);
        assert_eq!(without(net("10.0.0.0/8"), &[net("10.0.0.0/8")]), []);
        assert_eq!(without(net("::/0"), &[net("8000::/1")]), [net("::/1")]);
        assert_eq!(without(net("::/0"), &[net("::1/128")]).len(), 128);
    }
}
