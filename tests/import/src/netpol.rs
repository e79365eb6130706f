//! Kubernetes: `NetworkPolicy` from its API documentation. A pod that some policy selects for egress is isolated; it may then send what
//! a rule of any policy that selects it allows. Only TCP, UDP and SCTP are specified.

use egress_reference::{Packet, Pod, Prefix, Random, Selector};
use serde_json::{Value, json};

use crate::cluster::NAMESPACES;
use crate::{Cluster, Foreign, one_less, pool};

/// The objects of a cluster.
#[derive(Clone, Debug, Default)]
pub struct NetworkPolicies(Vec<Policy>);

#[derive(Clone, Debug)]
struct Policy {
    namespace: String,
    name: String,
    pods: Selector,
    types: Option<Vec<&'static str>>,
    egress: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    to: Vec<Peer>,
    ports: Vec<Port>,
}

#[derive(Clone, Debug)]
enum Peer {
    Block(Prefix, Vec<Prefix>),
    Pods(Selector),
}

#[derive(Clone, Debug)]
struct Port {
    protocol: Option<&'static str>,
    range: Option<(u16, u16)>,
    name: Option<&'static str>,
}

impl Foreign for NetworkPolicies {
    const KIND: &'static str = "networkpolicy";

    fn random(_cluster: &Cluster, random: &mut Random) -> Self {
        let count = random.between(1, 5);
        let policies = (0..count).map(|number| Policy {
            namespace: (*random.pick::<&str>(&NAMESPACES)).to_owned(),
            name: format!("policy{number}"),
            pods: pool::selector(random),
            types: match random.below(4) {
                0 => None,
                1 => Some(vec!["Ingress", "Egress"]),
                2 if random.chance(30) => Some(vec!["Ingress"]),
                _ => Some(vec!["Egress"]),
            },
            egress: (0..random.between(0, 3)).map(|_| rule(random)).collect(),
        });
        Self(policies.collect())
    }

    fn objects(&self) -> Vec<Value> {
        self.0.iter().map(Policy::json).collect()
    }

    fn prefixes(&self) -> Vec<Prefix> {
        let peers = self.0.iter().flat_map(|policy| &policy.egress).flat_map(|rule| &rule.to);
        let mut prefixes = Vec::new();
        for peer in peers {
            if let Peer::Block(prefix, except) = peer {
                prefixes.push(*prefix);
                prefixes.extend(except);
            }
        }
        prefixes
    }

    fn ports(&self) -> Vec<u16> {
        let ports = self.0.iter().flat_map(|policy| &policy.egress).flat_map(|rule| &rule.ports);
        ports.filter_map(|port| port.range).flat_map(|(first, last)| [first, last]).collect()
    }

    fn judges(&self, packet: &Packet) -> bool {
        matches!(packet.protocol, 6 | 17 | 132)
    }

    fn allows(&self, _cluster: &Cluster, pod: &Pod, packet: &Packet) -> bool {
        self.verdict(pod, packet).unwrap_or(true)
    }

    fn smaller(&self) -> Vec<Self> {
        one_less(&self.0, |policy| &mut policy.egress).into_iter().map(Self).collect()
    }
}

impl NetworkPolicies {
    /// What is decided for a pod that some policy isolates; none for any other pod.
    pub(crate) fn verdict(&self, pod: &Pod, packet: &Packet) -> Option<bool> {
        let isolating: Vec<&Policy> =
            self.0.iter().filter(|policy| policy.is_about_egress() && policy.selects(pod)).collect();
        let allowed = isolating.iter().any(|policy| policy.egress.iter().any(|rule| rule.allows(packet)));
        (!isolating.is_empty()).then_some(allowed)
    }
}

impl Policy {
    /// The defaults of the API server: Egress is among the types if it is named, or no type is and there are egress rules.
    fn is_about_egress(&self) -> bool {
        self.types.as_ref().map_or(!self.egress.is_empty(), |types| types.contains(&"Egress"))
    }

    fn selects(&self, pod: &Pod) -> bool {
        self.namespace == pod.namespace && self.pods.matches(&pod.labels)
    }

    fn json(&self) -> Value {
        let mut spec = json!({"podSelector": pool::selector_json(&self.pods)});
        if let Some(types) = &self.types {
            spec["policyTypes"] = json!(types);
        }
        if !self.egress.is_empty() {
            spec["egress"] = self.egress.iter().map(Rule::json).collect();
        }
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": spec,
        })
    }
}

impl Rule {
    fn json(&self) -> Value {
        let mut rule = json!({});
        if !self.to.is_empty() {
            let peer = |peer: &Peer| match peer {
                Peer::Block(prefix, except) if except.is_empty() => json!({"ipBlock": {"cidr": prefix.to_string()}}),
                Peer::Block(prefix, except) => {
                    let except: Vec<String> = except.iter().map(ToString::to_string).collect();
                    json!({"ipBlock": {"cidr": prefix.to_string(), "except": except}})
                }
                Peer::Pods(selector) => json!({"podSelector": pool::selector_json(selector)}),
            };
            rule["to"] = self.to.iter().map(peer).collect();
        }
        if !self.ports.is_empty() {
            rule["ports"] = self.ports.iter().map(Port::json).collect();
        }
        rule
    }

    /// No destinations: any; no ports: any. The packet goes to outside, where no pod is.
    fn allows(&self, packet: &Packet) -> bool {
        let to = self.to.iter().any(|peer| match peer {
            Peer::Block(prefix, except) => {
                prefix.contains(packet.destination) && !except.iter().any(|inner| inner.contains(packet.destination))
            }
            Peer::Pods(_) => false,
        });
        let port = self.ports.iter().any(|port| port.matches(packet));
        (self.to.is_empty() || to) && (self.ports.is_empty() || port)
    }
}

impl Port {
    fn json(&self) -> Value {
        let mut port = json!({});
        if let Some(protocol) = self.protocol {
            port["protocol"] = protocol.into();
        }
        if let Some(name) = self.name {
            port["port"] = name.into();
        }
        if let Some((first, last)) = self.range {
            port["port"] = first.into();
            if first != last {
                port["endPort"] = last.into();
            }
        }
        port
    }

    fn matches(&self, packet: &Packet) -> bool {
        let number = match self.protocol {
            None | Some("TCP") => 6,
            Some("UDP") => 17,
            Some(_) => 132,
        };
        let in_range = self.range.is_none_or(|(first, last)| (first..=last).contains(&packet.port));
        number == packet.protocol && in_range && self.name.is_none()
    }
}

fn rule(random: &mut Random) -> Rule {
    let peer = |random: &mut Random| {
        if random.chance(10) {
            return Peer::Pods(pool::selector(random));
        }
        let prefix = pool::prefix(random);
        let inner = (0..random.below(3)).map(|_| pool::prefix(random));
        let except = inner.filter(|inner| prefix.covers(inner) && inner.length > prefix.length).collect();
        Peer::Block(prefix, except)
    };
    let port = |random: &mut Random| Port {
        protocol: *random.pick(&[None, Some("TCP"), Some("UDP"), Some("SCTP")]),
        range: random.chance(70).then(|| pool::port_range(random)),
        name: None,
    };
    let mut ports: Vec<Port> = (0..random.below(3)).map(|_| port(random)).collect();
    if random.chance(8) {
        ports.push(Port { protocol: Some("TCP"), range: None, name: Some("web") });
    }
    Rule { to: (0..random.below(4)).map(|_| peer(random)).collect(), ports }
}
