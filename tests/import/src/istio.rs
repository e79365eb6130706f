//! Istio: `ServiceEntry`, `Sidecar` and the mesh's `outboundTrafficPolicy` from the comments of its API (networking/v1alpha3).
//!
//! Every pod has a sidecar; it takes TCP. A packet is one that leaves the sidecar: where an entry has endpoints, or is resolved by DNS, it
//! goes to them. The most specific `Sidecar` of a pod says which entries it sees and what becomes of the rest.

use std::collections::BTreeMap;
use std::net::IpAddr;

use egress_reference::{Labels, Packet, Pod, Prefix, Random};
use serde_json::{Value, json};

use crate::cluster::NAMESPACES;
use crate::{Cluster, Foreign, Names, pool, without_one};

const ROOT: &str = "istio-system";

/// The objects of a cluster.
#[derive(Clone, Debug)]
pub struct Istio {
    /// Whether only what entries name is let out; none if the files do not say.
    is_closed: Option<bool>,
    /// What the files do not say.
    is_closed_silently: bool,
    entries: Vec<Entry>,
    sidecars: Vec<Sidecar>,
}

#[derive(Clone, Debug)]
struct Entry {
    namespace: &'static str,
    hosts: Vec<String>,
    addresses: Vec<Prefix>,
    /// Number, target, protocol.
    ports: Vec<(u16, Option<u16>, &'static str)>,
    resolution: &'static str,
    endpoints: Vec<(String, Option<u16>)>,
    has_workloads: bool,
    export: Vec<&'static str>,
}

#[derive(Clone, Debug)]
struct Sidecar {
    namespace: &'static str,
    labels: Option<Labels>,
    is_closed: Option<bool>,
    hosts: Option<Vec<(&'static str, String)>>,
    has_listener: bool,
}

impl Foreign for Istio {
    const KIND: &'static str = "istio";

    fn random(cluster: &Cluster, random: &mut Random) -> Self {
        let mut sidecars = Vec::new();
        for namespace in NAMESPACES.into_iter().chain([ROOT]) {
            if random.chance(20) {
                sidecars.push(sidecar(namespace, None, random));
            }
        }
        if random.chance(25) {
            // Two that select one pod are undefined.
            let pod = random.pick(&cluster.pods);
            let namespace = NAMESPACES.into_iter().find(|name| *name == pod.namespace).expect("a namespace");
            if !pod.labels.is_empty() {
                sidecars.push(sidecar(namespace, Some(pod.labels.clone()), random));
            }
        }
        let is_closed = random.chance(93).then(|| random.chance(85));
        let entries = (0..random.between(1, 4)).map(|_| entry(random)).collect();
        Self { is_closed, is_closed_silently: random.chance(50), entries, sidecars }
    }

    fn objects(&self) -> Vec<Value> {
        let word = |is_closed: bool| if is_closed { "REGISTRY_ONLY" } else { "ALLOW_ANY" };
        let mesh = self.is_closed.map(|is_closed| {
            json!({
                "apiVersion": "install.istio.io/v1alpha1",
                "kind": "IstioOperator",
                "metadata": {"name": "mesh", "namespace": ROOT},
                "spec": {"profile": "default", "meshConfig": {"outboundTrafficPolicy": {"mode": word(is_closed)}}},
            })
        });
        let entries = self.entries.iter().zip(0..).map(|(entry, number)| entry.json(number));
        let sidecars = self.sidecars.iter().zip(0..).map(|(sidecar, number): (_, usize)| {
            let mut spec = json!({});
            if let Some(labels) = &sidecar.labels {
                spec["workloadSelector"] = json!({"labels": labels});
            }
            if let Some(is_closed) = sidecar.is_closed {
                spec["outboundTrafficPolicy"] = json!({"mode": word(is_closed)});
            }
            if let Some(hosts) = &sidecar.hosts {
                let hosts: Vec<String> = hosts.iter().map(|(space, host)| format!("{space}/{host}")).collect();
                spec["egress"] = json!([{"hosts": hosts}]);
                if sidecar.has_listener {
                    let port = json!({"number": 80, "protocol": "HTTP", "name": "http"});
                    spec["egress"].as_array_mut().expect("a list").push(json!({"port": port, "hosts": ["*/*"]}));
                }
            }
            json!({
                "apiVersion": "networking.istio.io/v1",
                "kind": "Sidecar",
                "metadata": {"name": format!("sidecar{number}"), "namespace": sidecar.namespace},
                "spec": spec,
            })
        });
        entries.chain(sidecars).chain(mesh).collect()
    }

    fn prefixes(&self) -> Vec<Prefix> {
        let endpoints = self.entries.iter().flat_map(|entry| &entry.endpoints);
        let hosts = endpoints.filter_map(|(address, _)| address.parse().ok().map(Prefix::host));
        self.entries.iter().flat_map(|entry| entry.addresses.iter().copied()).chain(hosts).collect()
    }

    fn ports(&self) -> Vec<u16> {
        let ports = self.entries.iter().flat_map(|entry| &entry.ports);
        let targets = self.entries.iter().flat_map(|entry| &entry.endpoints).filter_map(|(_, port)| *port);
        ports.flat_map(|(number, target, _)| [*number, target.unwrap_or(*number)]).chain(targets).collect()
    }

    fn allows(&self, cluster: &Cluster, pod: &Pod, packet: &Packet) -> bool {
        let is_own = |sidecar: &&Sidecar| sidecar.namespace == pod.namespace;
        let is_for = |labels: &Labels| labels.iter().all(|(key, value)| pod.labels.get(key) == Some(value));
        let mut own = self.sidecars.iter().filter(is_own);
        let sidecar = own
            .clone()
            .find(|sidecar| sidecar.labels.as_ref().is_some_and(is_for))
            .or_else(|| own.find(|sidecar| sidecar.labels.is_none()))
            .or_else(|| self.sidecars.iter().find(|sidecar| sidecar.namespace == ROOT));
        let mesh = self.is_closed.unwrap_or(self.is_closed_silently);
        let is_closed = sidecar.and_then(|sidecar| sidecar.is_closed).unwrap_or(mesh);
        let is_seen = |entry: &Entry, host: &str| {
            entry.is_exported(&pod.namespace)
                && sidecar.is_none_or(|sidecar| sidecar.imports(&pod.namespace, entry.namespace, host))
        };
        let lets_out = |entry: &Entry| {
            let hosts: Vec<&String> = entry.hosts.iter().filter(|host| is_seen(entry, host)).collect();
            !hosts.is_empty() && entry.lets_out(&hosts, cluster, packet)
        };
        let is_installed = self.is_closed.is_some() || !self.entries.is_empty() || !self.sidecars.is_empty();
        packet.protocol != 6 || !is_closed || !is_installed || self.entries.iter().any(lets_out)
    }

    fn smaller(&self) -> Vec<Self> {
        let mut smaller: Vec<Self> =
            without_one(&self.sidecars).map(|sidecars| Self { sidecars, ..self.clone() }).collect();
        smaller.extend(without_one(&self.entries).map(|entries| Self { entries, ..self.clone() }));
        smaller
    }
}

impl Entry {
    fn is_exported(&self, namespace: &str) -> bool {
        let reaches = |name: &str| match name {
            "*" => true,
            "." => self.namespace == namespace,
            name => name == namespace,
        };
        self.export.is_empty() || self.export.iter().any(|name| reaches(name))
    }

    /// Whether some port lets a packet with this destination leave the sidecar.
    fn lets_out(&self, hosts: &[&String], cluster: &Cluster, packet: &Packet) -> bool {
        let to = packet.destination;
        let in_address = self.addresses.iter().any(|prefix| prefix.contains(to));
        let in_host = hosts.iter().any(|host| is_at(host, cluster, to));
        self.ports.iter().any(|(number, target, protocol)| {
            let target = target.unwrap_or(*number);
            let kind = match *protocol {
                "HTTP" | "http" | "GRPC" => "http",
                "HTTPS" | "TLS" => "tls",
                "UDP" => return false,
                _ => "tcp",
            };
            match (self.resolution, kind) {
                ("NONE", _) if packet.port != *number => false,
                ("NONE", "http") => in_address || in_host,
                ("NONE", "tls") => in_host && (self.addresses.is_empty() || in_address),
                ("NONE", _) => self.addresses.is_empty() || in_address,
                // The pods and machines behind a selector are at an address of this network.
                (_, _) if self.has_workloads => packet.port == target && to == IpAddr::from([203, 0, 113, 77]),
                ("DNS" | "DNS_ROUND_ROBIN", _) if self.endpoints.is_empty() => packet.port == target && in_host,
                _ => self.endpoints.iter().any(|(address, port)| {
                    let is_here = address.parse() == Ok(to) || is_at(address, cluster, to);
                    packet.port == port.unwrap_or(target) && is_here
                }),
            }
        })
    }

    fn json(&self, number: usize) -> Value {
        let port = |(at, (number, target, protocol)): (usize, &(u16, Option<u16>, &str))| {
            let mut port = json!({"number": number, "protocol": protocol, "name": format!("port{at}")});
            if let Some(target) = target {
                port["targetPort"] = (*target).into();
            }
            port
        };
        let mut spec = json!({
            "hosts": self.hosts,
            "ports": self.ports.iter().enumerate().map(port).collect::<Vec<_>>(),
            "location": "MESH_EXTERNAL",
            "resolution": self.resolution,
        });
        if !self.addresses.is_empty() {
            spec["addresses"] = self.addresses.iter().map(ToString::to_string).collect();
        }
        if !self.export.is_empty() {
            spec["exportTo"] = json!(self.export);
        }
        if self.has_workloads {
            spec["workloadSelector"] = json!({"labels": {"app": "details"}});
        }
        if !self.endpoints.is_empty() {
            let endpoint = |(address, port): &(String, Option<u16>)| match port {
                None => json!({"address": address}),
                Some(port) => {
                    let ports: BTreeMap<String, u16> =
                        (0..self.ports.len()).map(|at| (format!("port{at}"), *port)).collect();
                    json!({"address": address, "ports": ports})
                }
            };
            spec["endpoints"] = self.endpoints.iter().map(endpoint).collect();
        }
        json!({
            "apiVersion": "networking.istio.io/v1beta1",
            "kind": "ServiceEntry",
            "metadata": {"name": format!("entry{number}"), "namespace": self.namespace},
            "spec": spec,
        })
    }
}

impl Sidecar {
    /// A host of an entry is imported if a pattern covers it whole.
    fn imports(&self, own: &str, from: &str, host: &str) -> bool {
        let covers = |(space, pattern): &(&str, String)| {
            let in_space = match *space {
                "*" => true,
                "." => from == own,
                name => name == from,
            };
            let in_pattern = match pattern.strip_prefix("*.") {
                _ if pattern == "*" || pattern == host => true,
                Some(parent) => host.ends_with(&format!(".{parent}")),
                None => false,
            };
            in_space && in_pattern
        };
        self.has_listener || self.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(covers))
    }
}

/// Whether the address is one of a host, which may have a star in front.
fn is_at(host: &str, cluster: &Cluster, address: IpAddr) -> bool {
    let matches = |name: &str| match host.strip_prefix('*') {
        Some(parent) => name.len() > parent.len() && name.ends_with(parent),
        None => name == host,
    };
    cluster.names.addresses(matches).contains(&address)
}

fn host(random: &mut Random) -> String {
    let name = Names::pick(random);
    let name = if name.starts_with('-') && random.chance(70) { "www.foo.com" } else { name };
    if random.chance(25) {
        format!("*.{}", name.split_once('.').map_or(name, |(_, parent)| parent))
    } else {
        name.to_owned()
    }
}

fn entry(random: &mut Random) -> Entry {
    let resolution = *random.pick(&["NONE", "NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN"]);
    let has_addresses = random.chance(40);
    let protocols = if resolution == "NONE" && has_addresses && random.chance(90) {
        &["HTTP", "TCP", "MONGO", "UDP"][..]
    } else {
        &["HTTP", "http", "GRPC", "HTTPS", "TLS", "TCP", "UDP"][..]
    };
    let has_workloads = resolution == "STATIC" && random.chance(8);
    let endpoint = |random: &mut Random| {
        let address = match random.below(3) {
            0 if resolution != "STATIC" => "www.foo.com".to_owned(),
            1 => "2001:db8:51::3".to_owned(),
            _ => "198.51.100.3".to_owned(),
        };
        (address, random.chance(40).then(|| pool::port(random)))
    };
    let count = if resolution == "NONE" || has_workloads || random.chance(40) { 0 } else { random.between(1, 2) };
    let mut numbers: Vec<u16> = (0..random.between(1, 2)).map(|_| pool::port(random)).collect();
    numbers.dedup();
    let has_target = resolution != "NONE" && random.chance(30);
    let port = |random: &mut Random, number| (number, has_target.then(|| pool::port(random)), *random.pick(protocols));
    Entry {
        namespace: random.pick::<&str>(&NAMESPACES),
        hosts: (0..random.between(1, 2)).map(|_| host(random)).collect(),
        addresses: (0..if has_addresses { random.between(1, 2) } else { 0 }).map(|_| pool::prefix(random)).collect(),
        ports: numbers.into_iter().map(|number| port(random, number)).collect(),
        resolution,
        endpoints: (0..count).map(|_| endpoint(random)).collect(),
        has_workloads,
        export: match random.below(6) {
            0 => vec!["*"],
            1 => vec!["."],
            2 => vec![*random.pick(&NAMESPACES), "."],
            3 if random.chance(30) => vec!["~"],
            _ => Vec::new(),
        },
    }
}

fn sidecar(namespace: &'static str, labels: Option<Labels>, random: &mut Random) -> Sidecar {
    let pattern = |random: &mut Random| {
        let space = *random.pick(&["*", "*", ".", "shop", "~"]);
        (space, if random.chance(40) { "*".to_owned() } else { host(random) })
    };
    Sidecar {
        namespace,
        labels,
        is_closed: random.chance(60).then(|| random.chance(80)),
        hosts: random.chance(75).then(|| (0..random.between(1, 3)).map(|_| pattern(random)).collect()),
        has_listener: random.chance(3),
    }
}
