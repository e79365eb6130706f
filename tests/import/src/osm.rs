//! osm-edge: `Egress` and `MeshConfig` as its controller turns them into the sidecar's configuration (pkg/catalog/egress.go,
//! pkg/injector/iptables.go). Every pod has a sidecar; it takes IPv4 TCP.
//!
//! Packets to excluded ports and prefixes, and outside of the included prefixes if there are some, pass the sidecar by. It lets out
//! everything under `enableEgress`, otherwise what an `Egress` of the pod's service account allows: plain TCP by prefix, HTTPS by prefix
//! and server name, HTTP by host and prefix. A request is one that HTTP routes refuse, where there are some; its name
//! is one of the destination's, and of requests with another name the report has to say wider.

use egress_reference::{Packet, Pod, Prefix, Random};
use serde_json::{Value, json};

use crate::cluster::NAMESPACES;
use crate::{Cluster, Foreign, Names, pool, without_one};

/// The objects of a cluster.
#[derive(Clone, Debug)]
pub struct Osm {
    mesh: Option<Mesh>,
    egresses: Vec<Egress>,
}

#[derive(Clone, Debug)]
struct Mesh {
    is_open: bool,
    has_policy: bool,
    excluded: Vec<Prefix>,
    included: Vec<Prefix>,
    ports: Vec<u16>,
}

#[derive(Clone, Debug)]
struct Egress {
    sources: Vec<(&'static str, &'static str)>,
    hosts: Vec<String>,
    prefixes: Vec<Prefix>,
    ports: Vec<(u16, &'static str)>,
    has_routes: bool,
}

impl Foreign for Osm {
    const KIND: &'static str = "osm";

    fn random(_cluster: &Cluster, random: &mut Random) -> Self {
        let some = |random: &mut Random| -> Vec<Prefix> {
            (0..random.below(3)).map(|_| pool::prefix4(random)).filter(|prefix| prefix.length > 0).collect()
        };
        let mesh = random.chance(95).then(|| Mesh {
            is_open: random.chance(15),
            has_policy: random.chance(95),
            excluded: some(random),
            included: if random.chance(30) { some(random) } else { Vec::new() },
            ports: (0..random.below(3)).map(|_| pool::port(random)).collect(),
        });
        Self { mesh, egresses: (0..random.between(0, 4)).map(|_| egress(random)).collect() }
    }

    fn objects(&self) -> Vec<Value> {
        let egresses = self.egresses.iter().zip(0..).map(|(egress, number)| egress.json(number));
        egresses.chain(self.mesh.as_ref().map(Mesh::json)).collect()
    }

    fn prefixes(&self) -> Vec<Prefix> {
        let of_mesh = self.mesh.iter().flat_map(|mesh| mesh.excluded.iter().chain(&mesh.included));
        of_mesh.chain(self.egresses.iter().flat_map(|egress| &egress.prefixes)).copied().collect()
    }

    fn ports(&self) -> Vec<u16> {
        let of_mesh = self.mesh.iter().flat_map(|mesh| mesh.ports.iter().copied());
        of_mesh.chain(self.egresses.iter().flat_map(|egress| &egress.ports).map(|(port, _)| *port)).collect()
    }

    fn allows(&self, cluster: &Cluster, pod: &Pod, packet: &Packet) -> bool {
        // Without a MeshConfig the controller works with its defaults.
        let default = Mesh { is_open: false, has_policy: true, excluded: vec![], included: vec![], ports: vec![] };
        let mesh = self.mesh.as_ref().unwrap_or(&default);
        let is_among = |prefixes: &[Prefix]| prefixes.iter().any(|prefix| prefix.contains(packet.destination));
        let is_taken = packet.protocol == 6
            && packet.destination.is_ipv4()
            && !is_among(&mesh.excluded)
            && !mesh.ports.contains(&packet.port)
            && (mesh.included.is_empty() || is_among(&mesh.included));
        let allows = |egress: &Egress| egress.is_for(pod) && egress.allows(cluster, packet);
        let is_installed = self.mesh.is_some() || !self.egresses.is_empty();
        !is_installed || !is_taken || mesh.is_open || (mesh.has_policy && self.egresses.iter().any(allows))
    }

    fn smaller(&self) -> Vec<Self> {
        let with = |egresses| Self { mesh: self.mesh.clone(), egresses };
        let mut smaller: Vec<Self> = without_one(&self.egresses).map(with).collect();
        for (at, egress) in self.egresses.iter().enumerate() {
            smaller.extend(without_one(&egress.ports).map(|ports| {
                let mut fewer = self.clone();
                fewer.egresses[at].ports = ports;
                fewer
            }));
        }
        smaller
    }
}

impl Mesh {
    fn json(&self) -> Value {
        let texts = |prefixes: &[Prefix]| prefixes.iter().map(ToString::to_string).collect::<Vec<_>>();
        json!({
            "apiVersion": "config.openservicemesh.io/v1alpha2",
            "kind": "MeshConfig",
            "metadata": {"name": "osm-mesh-config", "namespace": "osm-system"},
            "spec": {
                "featureFlags": {"enableEgressPolicy": self.has_policy, "enableWASMStats": true},
                "sidecar": {"logLevel": "error"},
                "traffic": {
                    "enableEgress": self.is_open,
                    "enablePermissiveTrafficPolicyMode": true,
                    "inboundPortExclusionList": [9000],
                    "outboundIPRangeExclusionList": texts(&self.excluded),
                    "outboundIPRangeInclusionList": texts(&self.included),
                    "outboundPortExclusionList": self.ports,
                },
            },
        })
    }
}

impl Egress {
    fn is_for(&self, pod: &Pod) -> bool {
        let account = pod.service_account.as_deref();
        self.sources.iter().any(|(namespace, name)| *namespace == pod.namespace && Some(*name) == account)
    }

    fn allows(&self, cluster: &Cluster, packet: &Packet) -> bool {
        let in_prefix = self.prefixes.is_empty() || self.prefixes.iter().any(|one| one.contains(packet.destination));
        let is_named = |name: &str| self.hosts.iter().any(|host| host_matches(host, name));
        let has_name = self.hosts.iter().any(|host| host == "*")
            || cluster.names.addresses(is_named).contains(&packet.destination);
        self.ports.iter().filter(|(port, _)| *port == packet.port).any(|(_, protocol)| match *protocol {
            "http" => in_prefix && has_name && !self.has_routes,
            "https" => in_prefix && (self.hosts.is_empty() || has_name),
            _ => in_prefix,
        })
    }

    fn json(&self, number: usize) -> Value {
        let source =
            |(namespace, name): &(&str, &str)| json!({"kind": "ServiceAccount", "name": name, "namespace": namespace});
        let port = |(number, protocol): &(u16, &str)| json!({"number": number, "protocol": protocol});
        let mut spec = json!({
            "sources": self.sources.iter().map(source).collect::<Vec<_>>(),
            "ports": self.ports.iter().map(port).collect::<Vec<_>>(),
        });
        if !self.hosts.is_empty() {
            spec["hosts"] = json!(self.hosts);
        }
        if !self.prefixes.is_empty() {
            spec["ipAddresses"] = self.prefixes.iter().map(ToString::to_string).collect();
        }
        if self.has_routes {
            spec["matches"] =
                json!([{"apiGroup": "specs.smi-spec.io/v1alpha4", "kind": "HTTPRouteGroup", "name": "routes"}]);
        }
        json!({
            "apiVersion": "policy.openservicemesh.io/v1alpha1",
            "kind": "Egress",
            "metadata": {"name": format!("egress{number}"), "namespace": "shop"},
            "spec": spec,
        })
    }
}

fn host_matches(host: &str, name: &str) -> bool {
    match host.strip_prefix('*') {
        Some(parent) => name.len() > parent.len() && name.ends_with(parent),
        None => host == name,
    }
}

fn egress(random: &mut Random) -> Egress {
    let source = |random: &mut Random| (*random.pick(&NAMESPACES), *random.pick(&["default", "builder"]));
    let protocol = |random: &mut Random| *random.pick(&["http", "https", "tcp", "TCP", "tcp-server-first"]);
    let has_hosts = random.chance(60);
    let has_prefixes = if has_hosts { random.chance(8) } else { random.chance(60) };
    let host = |random: &mut Random| {
        let name = Names::pick(random);
        let name = if name.starts_with('-') && random.chance(30) { "foo.com" } else { name };
        match random.below(8) {
            0 | 1 => format!("*.{}", name.split_once('.').map_or(name, |(_, parent)| parent)),
            2 if random.chance(10) => "*".to_owned(),
            _ => name.to_owned(),
        }
    };
    Egress {
        sources: (0..random.between(1, 3)).map(|_| source(random)).collect(),
        hosts: (0..if has_hosts { random.between(1, 2) } else { 0 }).map(|_| host(random)).collect(),
        prefixes: (0..if has_prefixes { random.between(1, 3) } else { 0 }).map(|_| pool::prefix4(random)).collect(),
        ports: (0..random.between(1, 3)).map(|_| (pool::port(random), protocol(random))).collect(),
        has_routes: random.chance(8),
    }
}
