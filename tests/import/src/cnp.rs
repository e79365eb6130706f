//! network-policy-api: `ClusterNetworkPolicy` from the comments of its API types (apis/v1alpha2), together with `NetworkPolicy`.
//!
//! Admin policies by priority, rule by rule; then every `NetworkPolicy`, which decides for the pods that it isolates; then Baseline
//! policies; then allow. Accept and Deny end the evaluation, Pass ends the tier. Priorities of a tier are distinct here, since the order
//! of equal ones is anybody's choice.

use std::net::IpAddr;

use egress_reference::{Packet, Pod, Prefix, Random, Selector};
use serde_json::{Value, json};

use crate::netpol::NetworkPolicies;
use crate::{Cluster, Foreign, Names, one_less, pool};

/// The objects of a cluster.
#[derive(Clone, Debug)]
pub struct ClusterPolicies {
    cluster: Vec<Policy>,
    namespaced: NetworkPolicies,
}

#[derive(Clone, Debug)]
struct Policy {
    admin: bool,
    priority: u16,
    subject: Subject,
    ingress: bool,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
enum Subject {
    Namespaces(Selector),
    Pods(Selector, Selector),
}

#[derive(Clone, Debug)]
struct Rule {
    action: &'static str,
    to: Vec<Peer>,
    protocols: Vec<Protocol>,
}

#[derive(Clone, Debug)]
enum Peer {
    Networks(Vec<Prefix>),
    Nodes(Selector),
    Names(Vec<String>),
    Namespaces(Selector),
    Pods(Selector, Selector),
}

#[derive(Clone, Debug)]
struct Protocol {
    name: &'static str,
    ports: (u16, u16),
}

impl Foreign for ClusterPolicies {
    const KIND: &'static str = "cnp";

    fn random(cluster: &Cluster, random: &mut Random) -> Self {
        let mut priorities: Vec<u16> = vec![0, 1, 99, 100, 500, 1000];
        random.shuffle(&mut priorities);
        let count = random.between(1, 5);
        let policies = priorities.into_iter().take(count).map(|priority| Policy {
            admin: random.chance(50),
            priority,
            subject: if random.chance(50) {
                Subject::Namespaces(namespaces(random))
            } else {
                Subject::Pods(namespaces(random), pool::selector(random))
            },
            ingress: random.chance(5),
            rules: (0..random.between(0, 4)).map(|_| rule(random)).collect(),
        });
        let cluster_policies = policies.collect();
        let namespaced =
            if random.chance(40) { NetworkPolicies::random(cluster, random) } else { NetworkPolicies::default() };
        Self { cluster: cluster_policies, namespaced }
    }

    fn objects(&self) -> Vec<Value> {
        let cluster = self.cluster.iter().zip(0..).map(|(policy, number)| policy.json(number));
        cluster.chain(self.namespaced.objects()).collect()
    }

    fn prefixes(&self) -> Vec<Prefix> {
        let mut prefixes = self.namespaced.prefixes();
        for peer in self.cluster.iter().flat_map(|policy| &policy.rules).flat_map(|rule| &rule.to) {
            if let Peer::Networks(networks) = peer {
                prefixes.extend(networks);
            }
        }
        prefixes
    }

    fn ports(&self) -> Vec<u16> {
        let protocols = self.cluster.iter().flat_map(|policy| &policy.rules).flat_map(|rule| &rule.protocols);
        let mut ports: Vec<u16> = protocols.flat_map(|protocol| [protocol.ports.0, protocol.ports.1]).collect();
        ports.extend(self.namespaced.ports());
        ports
    }

    fn judges(&self, packet: &Packet) -> bool {
        self.namespaced.objects().is_empty() || self.namespaced.judges(packet)
    }

    fn allows(&self, cluster: &Cluster, pod: &Pod, packet: &Packet) -> bool {
        let tier = |admin| self.tier(admin, cluster, pod, packet);
        tier(true).or_else(|| self.namespaced.verdict(pod, packet)).or_else(|| tier(false)).unwrap_or(true)
    }

    fn smaller(&self) -> Vec<Self> {
        let with = |cluster| Self { cluster, namespaced: self.namespaced.clone() };
        let mut smaller: Vec<Self> =
            one_less(&self.cluster, |policy| &mut policy.rules).into_iter().map(with).collect();
        let namespaced = self.namespaced.smaller().into_iter();
        smaller.extend(namespaced.map(|namespaced| Self { cluster: self.cluster.clone(), namespaced }));
        smaller
    }
}

impl ClusterPolicies {
    /// What a tier says; none if it passes or says nothing.
    fn tier(&self, admin: bool, cluster: &Cluster, pod: &Pod, packet: &Packet) -> Option<bool> {
        let mut policies: Vec<&Policy> =
            self.cluster.iter().filter(|policy| policy.admin == admin && policy.selects(cluster, pod)).collect();
        policies.sort_by_key(|policy| policy.priority);
        let rule = policies.into_iter().flat_map(|policy| &policy.rules).find(|rule| rule.matches(cluster, packet))?;
        match rule.action {
            "Accept" => Some(true),
            "Deny" => Some(false),
            _ => None,
        }
    }
}

impl Policy {
    fn selects(&self, cluster: &Cluster, pod: &Pod) -> bool {
        let labels = &cluster.namespaces[&pod.namespace];
        match &self.subject {
            Subject::Namespaces(namespaces) => namespaces.matches(labels),
            Subject::Pods(namespaces, pods) => namespaces.matches(labels) && pods.matches(&pod.labels),
        }
    }

    fn json(&self, number: usize) -> Value {
        let subject = match &self.subject {
            Subject::Namespaces(namespaces) => json!({"namespaces": pool::selector_json(namespaces)}),
            Subject::Pods(namespaces, pods) => json!({"pods": pods_json(namespaces, pods)}),
        };
        let mut spec = json!({
            "tier": if self.admin { "Admin" } else { "Baseline" },
            "priority": self.priority,
            "subject": subject,
            "egress": self.rules.iter().map(Rule::json).collect::<Vec<_>>(),
        });
        if self.ingress {
            spec["ingress"] = json!([{"action": "Accept", "from": [{"namespaces": {}}]}]);
        }
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2",
            "kind": "ClusterNetworkPolicy",
            "metadata": {"name": format!("policy{number}")},
            "spec": spec,
        })
    }
}

impl Rule {
    fn matches(&self, cluster: &Cluster, packet: &Packet) -> bool {
        let protocol = self.protocols.iter().any(|protocol| protocol.matches(packet));
        (self.protocols.is_empty() || protocol) && self.to.iter().any(|peer| peer.contains(cluster, packet.destination))
    }

    fn json(&self) -> Value {
        let mut rule = json!({"action": self.action, "to": self.to.iter().map(Peer::json).collect::<Vec<_>>()});
        if !self.protocols.is_empty() {
            rule["protocols"] = self.protocols.iter().map(Protocol::json).collect();
        }
        rule
    }
}

impl Peer {
    /// The address is outside of the cluster, so no pod has it.
    fn contains(&self, cluster: &Cluster, address: IpAddr) -> bool {
        match self {
            Self::Networks(networks) => networks.iter().any(|network| network.contains(address)),
            Self::Nodes(selector) => {
                cluster.nodes.iter().any(|node| selector.matches(&node.labels) && node.addresses.contains(&address))
            }
            Self::Names(patterns) => {
                let matches = |name: &str| patterns.iter().any(|pattern| domain_matches(pattern, name));
                cluster.names.addresses(matches).contains(&address)
            }
            Self::Namespaces(_) | Self::Pods(..) => false,
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Networks(networks) => {
                json!({"networks": networks.iter().map(ToString::to_string).collect::<Vec<_>>()})
            }
            Self::Nodes(selector) => json!({"nodes": pool::selector_json(selector)}),
            Self::Names(names) => json!({"domainNames": names}),
            Self::Namespaces(selector) => json!({"namespaces": pool::selector_json(selector)}),
            Self::Pods(namespaces, pods) => json!({"pods": pods_json(namespaces, pods)}),
        }
    }
}

impl Protocol {
    fn matches(&self, packet: &Packet) -> bool {
        let number = match self.name {
            "tcp" => 6,
            "udp" => 17,
            "sctp" => 132,
            _ => return false,
        };
        number == packet.protocol && (self.ports.0..=self.ports.1).contains(&packet.port)
    }

    fn json(&self) -> Value {
        let (first, last) = self.ports;
        match self.name {
            "named" => json!({"destinationNamedPort": "web"}),
            name if first == last => json!({name: {"destinationPort": {"number": first}}}),
            name => json!({name: {"destinationPort": {"range": {"start": first, "end": last}}}}),
        }
    }
}

/// A wildcard is one label or more, never none.
fn domain_matches(pattern: &str, name: &str) -> bool {
    let pattern = pattern.trim_end_matches('.').to_ascii_lowercase();
    match pattern.strip_prefix('*') {
        Some(parent) => name.len() > parent.len() && name.ends_with(parent),
        None => name == pattern,
    }
}

fn pods_json(namespaces: &Selector, pods: &Selector) -> Value {
    json!({"namespaceSelector": pool::selector_json(namespaces), "podSelector": pool::selector_json(pods)})
}

/// Mostly by the label that every namespace has.
fn namespaces(random: &mut Random) -> Selector {
    let mut selector = Selector::default();
    if random.chance(40) {
        let name = *random.pick::<&str>(&crate::cluster::NAMESPACES);
        selector.labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
        return selector;
    }
    pool::selector(random)
}

fn rule(random: &mut Random) -> Rule {
    let action = *random.pick::<&str>(&["Accept", "Deny", "Pass"]);
    let to = (0..random.between(1, 3)).map(|_| peer(action, random)).collect();
    let protocol = |random: &mut Random| {
        let name = *random.pick::<&str>(&["tcp", "tcp", "udp", "sctp"]);
        Protocol { name, ports: pool::port_range(random) }
    };
    let mut protocols: Vec<Protocol> = (0..random.below(3)).map(|_| protocol(random)).collect();
    if random.chance(4) {
        protocols.push(Protocol { name: "named", ports: (0, 0) });
    }
    Rule { action, to, protocols }
}

fn peer(action: &str, random: &mut Random) -> Peer {
    match random.below(20) {
        0 => Peer::Namespaces(pool::selector(random)),
        1 => Peer::Pods(pool::selector(random), pool::selector(random)),
        2 | 3 => Peer::Nodes(pool::selector(random)),
        4..=8 if action == "Accept" => Peer::Names((0..random.between(1, 2)).map(|_| name(random)).collect()),
        _ => Peer::Networks((0..random.between(1, 2)).map(|_| pool::prefix(random)).collect()),
    }
}

fn name(random: &mut Random) -> String {
    let name = Names::pick(random);
    match random.below(5) {
        // Its API takes it, rules of ours do not.
        4 => "-odd.example.org".to_owned(),
        0 => format!("*.{}", name.split_once('.').map_or(name, |(_, parent)| parent)),
        1 => format!("{}.", name.to_uppercase()),
        _ => name.to_owned(),
    }
}
