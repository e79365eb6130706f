//! Alibaba Cloud Service Mesh: `ASMEgressTrafficPolicy` from its documentation, in a mesh under `REGISTRY_ONLY`, as that asks for.
//!
//! Every pod has a sidecar; it takes TCP. A packet is one that a workload asks its sidecar to send: it passes if a rule is for the
//! workload, the port and a host that has the address, whichever way it takes then. Its request, if there is one, names that host: of
//! HTTP and TLS with another name the report has to say wider.

use egress_reference::{Labels, Packet, Pod, Prefix, Random};
use serde_json::{Value, json};

use crate::cluster::NAMESPACES;
use crate::{Cluster, Foreign, Names, pool, without_one};

/// The objects of a cluster.
#[derive(Clone, Debug)]
pub struct Asm(Vec<Vec<Rule>>);

#[derive(Clone, Debug)]
struct Rule {
    from: Vec<(&'static str, Labels)>,
    to: Vec<Service>,
}

#[derive(Clone, Debug)]
struct Service {
    hosts: Vec<String>,
    port: u16,
    protocol: Option<&'static str>,
    gateway: Option<bool>,
}

impl Foreign for Asm {
    const KIND: &'static str = "asm";

    fn random(_cluster: &Cluster, random: &mut Random) -> Self {
        Self((0..random.between(1, 3)).map(|_| (0..random.between(1, 3)).map(|_| rule(random)).collect()).collect())
    }

    fn objects(&self) -> Vec<Value> {
        let object = |(number, rules): (usize, &Vec<Rule>)| {
            let name = format!("gateway{number}");
            json!({
                "apiVersion": "istio.alibabacloud.com/v1beta1",
                "kind": "ASMEgressTrafficPolicy",
                "metadata": {"name": name, "namespace": "istio-egress"},
                "spec": {
                    "byEgressGateway": {"name": name},
                    "egressRules": rules.iter().map(Rule::json).collect::<Vec<_>>(),
                },
            })
        };
        self.0.iter().enumerate().map(object).collect()
    }

    fn prefixes(&self) -> Vec<Prefix> {
        Vec::new()
    }

    fn ports(&self) -> Vec<u16> {
        self.0.iter().flatten().flat_map(|rule| &rule.to).map(|service| service.port).collect()
    }

    fn allows(&self, cluster: &Cluster, pod: &Pod, packet: &Packet) -> bool {
        let lets_out = |service: &Service| {
            let is_one = |name: &str| service.hosts.iter().any(|host| host_matches(host, name));
            service.port == packet.port && cluster.names.addresses(is_one).contains(&packet.destination)
        };
        let is_from = |(namespace, labels): &(&str, Labels)| {
            let has = |(key, value): (&String, &String)| pod.labels.get(key) == Some(value);
            *namespace == pod.namespace && labels.iter().all(has)
        };
        let mut rules = self.0.iter().flatten();
        packet.protocol != 6
            || self.0.is_empty()
            || rules.any(|rule| rule.from.iter().any(is_from) && rule.to.iter().any(lets_out))
    }

    fn smaller(&self) -> Vec<Self> {
        without_one(&self.0).map(Self).collect()
    }
}

impl Rule {
    fn json(&self) -> Value {
        let from = |(namespace, labels): &(&str, Labels)| {
            let mut from = json!({"namespace": namespace});
            if !labels.is_empty() {
                from["workloadSelector"] = json!(labels);
            }
            from
        };
        let to = |service: &Service| {
            let mut port = json!({"name": "port", "number": service.port});
            if let Some(protocol) = service.protocol {
                port["protocol"] = protocol.into();
            }
            let mut to = json!({"name": "service", "hosts": service.hosts, "port": port});
            match service.gateway {
                None => {}
                Some(false) => to["byEgressGateway"] = json!({"port": 80}),
                Some(true) => {
                    to["byEgressGateway"] = json!({"port": 80, "httpsUpgrade": {"enabled": true, "port": 443}});
                }
            }
            to
        };
        let (from, to): (Vec<_>, Vec<_>) = (self.from.iter().map(from).collect(), self.to.iter().map(to).collect());
        json!({"from": from, "to": to})
    }
}

fn host_matches(host: &str, name: &str) -> bool {
    match host.strip_prefix('*') {
        Some(parent) => name.len() > parent.len() && name.ends_with(parent),
        None => host == name,
    }
}

fn rule(random: &mut Random) -> Rule {
    let host = |random: &mut Random| {
        let name = Names::pick(random);
        let name = if name.starts_with('-') && random.chance(60) { "foo.com" } else { name };
        let parent = name.split_once('.').map_or(name, |(_, parent)| parent);
        if random.chance(20) { format!("*.{parent}") } else { name.to_owned() }
    };
    let service = |random: &mut Random| Service {
        hosts: (0..random.between(1, 2)).map(|_| host(random)).collect(),
        port: pool::port(random),
        protocol: match random.below(10) {
            0 => None,
            1 => Some("HTTP"),
            2 => Some("HTTPS"),
            _ => Some("TCP"),
        },
        gateway: random.chance(70).then(|| random.chance(30)),
    };
    let from = |random: &mut Random| {
        let labels = if random.chance(60) { pool::selector(random).labels } else { Labels::new() };
        (*random.pick::<&str>(&NAMESPACES), labels)
    };
    Rule {
        from: (0..random.between(1, 2)).map(|_| from(random)).collect(),
        to: (0..random.between(1, 3)).map(|_| service(random)).collect(),
    }
}
