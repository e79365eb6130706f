//! OpenShift SDN: `EgressNetworkPolicy` as the agent of a node puts it into flows (openshift/sdn, `updateEgressNetworkPolicyRules`).
//!
//! Per network: no object, everything passes; the global network ignores objects; several objects, everything is dropped; one object,
//! a flow per rule with falling priority, over `ip`, so IPv4 of any protocol. cidrSelector goes before dnsName; 0.0.0.0/32 is any.

use egress_reference::{Packet, Pod, Prefix, Random};
use serde_json::{Value, json};

use crate::cluster::NAMESPACES;
use crate::{Cluster, Foreign, Names, one_less, pool};

/// The objects of a cluster.
#[derive(Clone, Debug)]
pub struct OpenShift(Vec<Policy>);

#[derive(Clone, Debug)]
struct Policy {
    namespace: String,
    name: String,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    allow: bool,
    cidr: Option<Prefix>,
    name: Option<String>,
}

impl Foreign for OpenShift {
    const KIND: &'static str = "openshift";

    fn random(_cluster: &Cluster, random: &mut Random) -> Self {
        let mut policies = Vec::new();
        for namespace in NAMESPACES {
            let count = *random.pick(&[0, 1, 1, 1, 1, 2]);
            policies.extend((0..count).map(|number| Policy {
                namespace: namespace.to_owned(),
                name: format!("policy{number}"),
                rules: (0..random.between(0, 6)).map(|_| rule(random)).collect(),
            }));
        }
        Self(policies)
    }

    fn objects(&self) -> Vec<Value> {
        let rule = |rule: &Rule| {
            let mut to = serde_json::Map::new();
            if let Some(cidr) = rule.cidr {
                to.insert("cidrSelector".to_owned(), cidr.to_string().into());
            }
            if let Some(name) = &rule.name {
                to.insert("dnsName".to_owned(), name.as_str().into());
            }
            json!({"type": if rule.allow { "Allow" } else { "Deny" }, "to": to})
        };
        let policy = |policy: &Policy| {
            json!({
                "apiVersion": if policy.name.ends_with('0') { "network.openshift.io/v1" } else { "v1" },
                "kind": "EgressNetworkPolicy",
                "metadata": {"name": policy.name, "namespace": policy.namespace},
                "spec": {"egress": policy.rules.iter().map(rule).collect::<Vec<_>>()},
            })
        };
        self.0.iter().map(policy).collect()
    }

    fn prefixes(&self) -> Vec<Prefix> {
        self.0.iter().flat_map(|policy| &policy.rules).filter_map(|rule| rule.cidr).collect()
    }

    fn ports(&self) -> Vec<u16> {
        Vec::new()
    }

    /// Its networks are IPv4.
    fn judges(&self, packet: &Packet) -> bool {
        packet.destination.is_ipv4()
    }

    fn allows(&self, cluster: &Cluster, pod: &Pod, packet: &Packet) -> bool {
        let policies: Vec<&Policy> = self.0.iter().filter(|policy| policy.namespace == pod.namespace).collect();
        if policies.is_empty() || pod.namespace == "default" {
            return true;
        }
        if policies.len() > 1 {
            return false;
        }
        let first = policies[0].rules.iter().find(|rule| rule.matches(cluster, packet));
        first.is_none_or(|rule| rule.allow)
    }

    fn smaller(&self) -> Vec<Self> {
        one_less(&self.0, |policy| &mut policy.rules).into_iter().map(Self).collect()
    }
}

impl Rule {
    fn matches(&self, cluster: &Cluster, packet: &Packet) -> bool {
        match (&self.cidr, &self.name) {
            (Some(cidr), _) if cidr.to_string() == "0.0.0.0/32" => true,
            (Some(cidr), _) => cidr.contains(packet.destination),
            (None, Some(name)) => {
                let wanted = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
                cluster.names.addresses(|name| name == wanted).contains(&packet.destination)
            }
            (None, None) => false,
        }
    }
}

fn rule(random: &mut Random) -> Rule {
    let name = |random: &mut Random| {
        let name = Names::pick(random);
        match random.below(8) {
            0 => format!("{name}."),
            1 => name.to_uppercase(),
            2 => format!("*.{name}"),
            _ => name.to_owned(),
        }
    };
    let cidr = |random: &mut Random| {
        if random.chance(10) { pool::parse("0.0.0.0/32") } else { pool::prefix4(random) }
    };
    let (cidr, name) = match random.below(10) {
        0..=5 => (Some(cidr(random)), None),
        6..=8 => (None, Some(name(random))),
        _ => (Some(cidr(random)), Some(name(random))),
    };
    Rule { allow: random.chance(50), cidr, name }
}
