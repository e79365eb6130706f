//! From what was seen to rules: pure. Allows exactly what was seen: prefixes are only merged where they hold nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::vitals::Observation;

/// Where a rule leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    Name(String),
    Prefix(IpNet),
}

/// A protocol as policies write it, with its ports; none where it has none, or where every one is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PortRange {
    pub(super) protocol: &'static str,
    pub(super) ports: Option<(u16, u16)>,
}

/// A rule that allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) peer: Peer,
    /// None: every protocol, because one was seen that policies cannot name.
    pub(super) ports: Option<Vec<PortRange>>,
    /// Events behind the rule.
    pub(super) count: u64,
    pub(super) pods: BTreeSet<String>,
    /// Second after 1970.
    pub(super) last: u64,
}

/// Rules, and what no rule of a namespace can allow.
#[derive(Debug, Default)]
pub(super) struct Suggestion {
    pub(super) rules: Vec<Rule>,
    pub(super) out_of_reach: Vec<Observation>,
}

/// One protocol and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Port(&'static str, u16),
    Protocol(&'static str),
    Any,
}

type Keys = BTreeSet<Key>;

/// The rules that would have allowed `seen`.
pub(super) fn suggest(seen: &[Observation]) -> Suggestion {
    let (mut names, mut addresses): (BTreeMap<String, Keys>, BTreeMap<IpAddr, Keys>) = Default::default();
    let mut suggestion = Suggestion::default();
    let mut within = Vec::new();
    for observation in seen {
        let attempt = &observation.attempt;
        // The Admin tier comes before the namespace's policies.
        let before = attempt.tier.as_deref() == Some("Admin");
        let Some(key) = key(observation).filter(|_| !before) else {
            suggestion.out_of_reach.push(observation.clone());
            continue;
        };
        within.push((key, observation));
        match &attempt.name {
            Some(name) => names.entry(name.clone()).or_default().insert(key),
            None => addresses.entry(attempt.remote.to_canonical()).or_default().insert(key),
        };
    }
    let by_name = names.into_iter().map(|(name, keys)| (Peer::Name(name), keys));
    let prefixes = prefixes(&addresses).into_iter().map(|(prefix, keys)| (Peer::Prefix(prefix), keys));
    suggestion.rules = by_name.chain(prefixes).map(|(peer, keys)| rule(peer, &keys, &within)).collect();
    suggestion
}

/// What policies can say of it. `None` for TCP and the like without a port: the packet was a fragment.
fn key(observation: &Observation) -> Option<Key> {
    let named = ["TCP", "UDP", "SCTP", "ICMP", "ICMPv6"].into_iter().find(|name| *name == observation.attempt.protocol);
    match (named, observation.attempt.port) {
        (Some(protocol @ ("ICMP" | "ICMPv6")), _) => Some(Key::Protocol(protocol)),
        (Some(protocol), Some(port)) => Some(Key::Port(protocol, port)),
        (Some(_), None) => None,
        (None, _) => Some(Key::Any),
    }
}

/// As few prefixes as two ways of grouping give: addresses with the same ports together, or each port's addresses together.
fn prefixes(addresses: &BTreeMap<IpAddr, Keys>) -> BTreeMap<IpNet, Keys> {
    let mut by_set: BTreeMap<&Keys, Vec<IpNet>> = BTreeMap::new();
    let mut by_key: BTreeMap<Key, Vec<IpNet>> = BTreeMap::new();
    for (address, keys) in addresses {
        by_set.entry(keys).or_default().push((*address).into());
        for key in keys {
            by_key.entry(*key).or_default().push((*address).into());
        }
    }
    let (mut first, mut second) = (BTreeMap::new(), BTreeMap::<IpNet, Keys>::new());
    for (keys, group) in by_set {
        first.extend(IpNet::aggregate(&group).into_iter().map(|prefix| (prefix, keys.clone())));
    }
    for (key, group) in by_key {
        for prefix in IpNet::aggregate(&group) {
            second.entry(prefix).or_default().insert(key);
        }
    }
    if second.len() < first.len() { second } else { first }
}

fn rule(peer: Peer, keys: &Keys, seen: &[(Key, &Observation)]) -> Rule {
    let leads_to = |observation: &Observation| match (&peer, &observation.attempt.name) {
        (Peer::Name(name), Some(seen)) => name == seen,
        (Peer::Prefix(prefix), None) => prefix.contains(&observation.attempt.remote.to_canonical()),
        (Peer::Name(_), None) | (Peer::Prefix(_), Some(_)) => false,
    };
    let behind = seen.iter().filter(|(key, observation)| keys.contains(key) && leads_to(observation));
    let (mut count, mut pods, mut last) = (0, BTreeSet::new(), 0);
    for (_, observation) in behind {
        count += observation.times.count;
        last = last.max(observation.times.last);
        pods.insert(observation.attempt.pod.clone());
    }
    Rule { ports: ports(keys), peer, count, pods, last }
}

/// Neighbouring ports as ranges.
fn ports(keys: &Keys) -> Option<Vec<PortRange>> {
    let mut ranges: Vec<PortRange> = Vec::new();
    for key in keys {
        let (protocol, port) = match key {
            Key::Any => return None,
            Key::Protocol(protocol) => (*protocol, None),
            Key::Port(protocol, port) => (*protocol, Some(*port)),
        };
        match (ranges.last_mut(), port) {
            (Some(PortRange { protocol: same, ports: Some((_, end)) }), Some(port))
                if *same == protocol && end.checked_add(1) == Some(port) =>
            {
                *end = port;
            }
            (_, port) => ranges.push(PortRange { protocol, ports: port.map(|port| (port, port)) }),
        }
    }
    Some(ranges)
}
