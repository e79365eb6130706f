//! OVN-Kubernetes: `EgressFirewall` as its controller turns it into ACLs (go-controller/pkg/ovn/controller/egressfirewall).
//!
//! Per namespace the object named default; an ACL per rule with falling priority. Ports are matched within TCP, UDP and SCTP, a rule
//! without ports matches any packet. A wildcard stands for one label.

use std::net::IpAddr;

use egress_reference::{Packet, Pod, Prefix, Random, Selector};
use serde_json::{Value, json};

use crate::cluster::NAMESPACES;
use crate::{Cluster, Foreign, Names, one_less, pool};

/// The objects of a cluster.
#[derive(Clone, Debug)]
pub struct Ovn(Vec<Firewall>);

#[derive(Clone, Debug)]
struct Firewall {
    namespace: String,
    name: String,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    allow: bool,
    to: To,
    ports: Vec<(&'static str, u16)>,
}

#[derive(Clone, Debug)]
enum To {
    Cidr(Prefix),
    Dns(String),
    Nodes(Selector),
}

impl Foreign for Ovn {
    const KIND: &'static str = "ovn";

    fn random(_cluster: &Cluster, random: &mut Random) -> Self {
        let mut firewalls = Vec::new();
        for namespace in NAMESPACES {
            for name in ["default", "other"] {
                if random.chance(if name == "default" { 80 } else { 10 }) {
                    let rules = (0..random.between(0, 6)).map(|_| rule(random)).collect();
                    firewalls.push(Firewall { namespace: namespace.to_owned(), name: name.to_owned(), rules });
                }
            }
        }
        Self(firewalls)
    }

    fn objects(&self) -> Vec<Value> {
        let firewall = |firewall: &Firewall| {
            json!({
                "apiVersion": "k8s.ovn.org/v1",
                "kind": "EgressFirewall",
                "metadata": {"name": firewall.name, "namespace": firewall.namespace},
                "spec": {"egress": firewall.rules.iter().map(Rule::json).collect::<Vec<_>>()},
                "status": {"status": "EgressFirewall Rules applied"},
            })
        };
        self.0.iter().map(firewall).collect()
    }

    fn prefixes(&self) -> Vec<Prefix> {
        let rules = self.0.iter().flat_map(|firewall| &firewall.rules);
        rules.filter_map(|rule| if let To::Cidr(prefix) = rule.to { Some(prefix) } else { None }).collect()
    }

    fn ports(&self) -> Vec<u16> {
        self.0.iter().flat_map(|firewall| &firewall.rules).flat_map(|rule| &rule.ports).map(|(_, port)| *port).collect()
    }

    fn allows(&self, cluster: &Cluster, pod: &Pod, packet: &Packet) -> bool {
        let mut firewalls =
            self.0.iter().filter(|firewall| firewall.namespace == pod.namespace && firewall.name == "default");
        let rules = firewalls.next().map(|firewall| firewall.rules.as_slice()).unwrap_or_default();
        rules.iter().find(|rule| rule.matches(cluster, packet)).is_none_or(|rule| rule.allow)
    }

    fn smaller(&self) -> Vec<Self> {
        one_less(&self.0, |policy| &mut policy.rules).into_iter().map(Self).collect()
    }
}

impl Rule {
    fn json(&self) -> Value {
        let to = match &self.to {
            To::Cidr(prefix) => json!({"cidrSelector": prefix.to_string()}),
            To::Dns(name) => json!({"dnsName": name}),
            To::Nodes(selector) => json!({"nodeSelector": pool::selector_json(selector)}),
        };
        let mut rule = json!({"type": if self.allow { "Allow" } else { "Deny" }, "to": to});
        if !self.ports.is_empty() {
            let ports = self.ports.iter().map(|(protocol, port)| json!({"protocol": protocol, "port": port}));
            rule["ports"] = ports.collect();
        }
        rule
    }

    fn matches(&self, cluster: &Cluster, packet: &Packet) -> bool {
        let protocol = match packet.protocol {
            6 => "TCP",
            17 => "UDP",
            132 => "SCTP",
            _ => "none with ports",
        };
        let ports = self.ports.is_empty() || self.ports.contains(&(protocol, packet.port));
        ports && self.to.contains(cluster, packet.destination)
    }
}

impl To {
    fn contains(&self, cluster: &Cluster, address: IpAddr) -> bool {
        match self {
            Self::Cidr(prefix) => prefix.contains(address),
            Self::Nodes(selector) => {
                cluster.nodes.iter().any(|node| selector.matches(&node.labels) && node.addresses.contains(&address))
            }
            Self::Dns(pattern) => {
                let pattern = pattern.trim_end_matches('.').to_ascii_lowercase();
                let matches = |name: &str| match pattern.strip_prefix("*.") {
                    Some(parent) => name.split_once('.').is_some_and(|(_, rest)| rest == parent),
                    None => name == pattern,
                };
                cluster.names.addresses(matches).contains(&address)
            }
        }
    }
}

fn rule(random: &mut Random) -> Rule {
    let to = match random.below(10) {
        0..=5 => To::Cidr(pool::prefix(random)),
        6..=8 => To::Dns(name(random)),
        _ => To::Nodes(pool::selector(random)),
    };
    let count = if random.chance(50) { random.between(1, 3) } else { 0 };
    let ports =
        (0..count).map(|_| (*random.pick::<&str>(&["TCP", "TCP", "UDP", "SCTP"]), pool::port(random))).collect();
    Rule { allow: random.chance(50), to, ports }
}

fn name(random: &mut Random) -> String {
    let name = Names::pick(random);
    match random.below(6) {
        0 => format!("{name}."),
        1 => name.to_uppercase(),
        2 | 3 => format!("*.{}", name.split_once('.').map_or(name, |(_, parent)| parent)),
        _ => name.to_owned(),
    }
}
