//! OpenShift's egress routers, as the scripts of their images run them (openshift/images, `egress/`): nft redirects, squid, haproxy.
//!
//! Whether a destination can be reached through the router of the pod's namespace: for a redirect, whether some connection to the router
//! goes there; for the DNS proxy, whether a frontend does; for squid, what its access rules say of a request to the address by the name
//! that the packet's port stands for here (a request is a name, or none, and an address). A namespace without a router is not judged.

use std::net::IpAddr;

use egress_reference::{Packet, Pod, Prefix, Random};
use serde_json::{Value, json};

use crate::cluster::NAMESPACES;
use crate::{Cluster, Foreign, Names, pool, without_one};

/// The routers of a cluster.
#[derive(Clone, Debug)]
pub struct Routers(Vec<Router>);

#[derive(Clone, Debug)]
struct Router {
    namespace: String,
    name: String,
    /// What holds the list: the pod itself, or a `ConfigMap`, or a Deployment.
    form: usize,
    list: List,
}

#[derive(Clone, Debug)]
enum List {
    Redirect(Vec<Redirect>, Option<IpAddr>),
    Dns(Vec<Frontend>),
    Http(Vec<Access>, bool),
}

#[derive(Clone, Debug)]
struct Redirect {
    local: u16,
    protocol: &'static str,
    address: IpAddr,
    port: Option<u16>,
}

#[derive(Clone, Debug)]
struct Frontend {
    local: u16,
    target: Target,
    port: Option<u16>,
}

#[derive(Clone, Debug)]
struct Access {
    deny: bool,
    target: Target,
}

#[derive(Clone, Debug)]
enum Target {
    Network(Prefix),
    Name(String),
    /// The name and everything below it, which is what squid takes `.name` for.
    Domain(String),
}

impl Foreign for Routers {
    const KIND: &'static str = "egress-router";

    fn random(_cluster: &Cluster, random: &mut Random) -> Self {
        let mut routers = Vec::new();
        for namespace in NAMESPACES {
            for number in 0..*random.pick(&[0, 1, 1, 1, 1, 2]) {
                let list = list(random);
                let form = random.below(3);
                routers.push(Router { namespace: namespace.to_owned(), name: format!("router{number}"), form, list });
            }
        }
        Self(routers)
    }

    fn objects(&self) -> Vec<Value> {
        self.0.iter().flat_map(Router::objects).collect()
    }

    fn prefixes(&self) -> Vec<Prefix> {
        self.0.iter().flat_map(|router| router.list.prefixes()).collect()
    }

    fn ports(&self) -> Vec<u16> {
        self.0.iter().flat_map(|router| router.list.ports()).collect()
    }

    fn allows(&self, cluster: &Cluster, pod: &Pod, packet: &Packet) -> bool {
        let routers: Vec<&Router> = self.0.iter().filter(|router| router.namespace == pod.namespace).collect();
        routers.is_empty() || routers.iter().any(|router| router.list.allows(cluster, packet))
    }

    fn smaller(&self) -> Vec<Self> {
        let mut smaller: Vec<Self> = without_one(&self.0).map(Self).collect();
        for (at, router) in self.0.iter().enumerate() {
            smaller.extend(router.list.smaller().into_iter().map(|list| {
                let mut fewer = self.clone();
                fewer.0[at].list = list;
                fewer
            }));
        }
        smaller
    }
}

impl Router {
    fn objects(&self) -> Vec<Value> {
        let (variable, text) = (self.list.variable(), self.list.text());
        let metadata = |name: &str| json!({"name": name, "namespace": self.namespace});
        let environment = match self.form {
            1 => json!({"name": variable, "valueFrom": {"configMapKeyRef": {"name": self.name, "key": "destination"}}}),
            _ => json!({"name": variable, "value": text}),
        };
        let source = json!({"name": "EGRESS_SOURCE", "value": "192.0.2.9"});
        let spec = json!({
            "initContainers": [{"name": "egress-router", "env": [source, environment]}],
            "containers": [{"name": "wait"}],
        });
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(&self.name), "data": {"destination": text}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata(&self.name), "spec": spec});
        match self.form {
            0 => vec![pod],
            1 => vec![map, pod],
            _ => vec![json!({
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": metadata(&self.name),
                "spec": {"replicas": 1, "template": {"metadata": {"labels": {"name": "router"}}, "spec": spec}},
            })],
        }
    }
}

impl List {
    fn variable(&self) -> &'static str {
        match self {
            Self::Redirect(..) => "EGRESS_DESTINATION",
            Self::Dns(_) => "EGRESS_DNS_PROXY_DESTINATION",
            Self::Http(..) => "EGRESS_HTTP_PROXY_DESTINATION",
        }
    }

    fn text(&self) -> String {
        let optional = |port: Option<u16>| port.map(|port| format!(" {port}")).unwrap_or_default();
        let mut lines = vec!["# a comment".to_owned(), String::new()];
        match self {
            Self::Redirect(redirects, fallback) => {
                lines.extend(
                    redirects.iter().map(|line| {
                        format!("{}  {} {}{}", line.local, line.protocol, line.address, optional(line.port))
                    }),
                );
                lines.extend(fallback.map(|address| address.to_string()));
            }
            Self::Dns(frontends) => lines.extend(
                frontends.iter().map(|line| format!("{} {}{}", line.local, line.target.text(), optional(line.port))),
            ),
            Self::Http(accesses, all) => {
                lines.extend(
                    accesses.iter().map(|line| format!("{}{}", if line.deny { "!" } else { "" }, line.target.text())),
                );
                lines.extend(all.then(|| "*".to_owned()));
            }
        }
        lines.join("\n")
    }

    fn allows(&self, cluster: &Cluster, packet: &Packet) -> bool {
        let protocol = match packet.protocol {
            6 => "tcp",
            17 => "udp",
            _ => "other",
        };
        match self {
            Self::Redirect(redirects, fallback) => {
                // Every connection to the router that could become this packet.
                let locals = redirects.iter().map(|line| line.local).chain([packet.port]);
                let arrives = |local: u16| {
                    let line = redirects.iter().find(|line| line.local == local && line.protocol == protocol);
                    match (line, fallback) {
                        (Some(line), _) => Some((line.address, line.port.unwrap_or(local))),
                        (None, Some(address)) => Some((*address, local)),
                        (None, None) => None,
                    }
                };
                locals.into_iter().any(|local| arrives(local) == Some((packet.destination, packet.port)))
            }
            Self::Dns(frontends) => {
                protocol == "tcp"
                    && packet.destination.is_ipv4()
                    && frontends.iter().any(|line| {
                        line.port.unwrap_or(line.local) == packet.port
                            && line.target.has(cluster, None, packet.destination)
                    })
            }
            Self::Http(accesses, all) => {
                let name = requested(cluster, packet);
                let first = accesses.iter().find(|line| line.target.has_request(name.as_deref(), packet.destination));
                protocol == "tcp" && first.map_or(*all, |line| !line.deny)
            }
        }
    }

    fn prefixes(&self) -> Vec<Prefix> {
        let of = |target: &Target| match target {
            Target::Network(prefix) => Some(*prefix),
            Target::Name(_) | Target::Domain(_) => None,
        };
        match self {
            Self::Redirect(lines, fallback) => {
                lines.iter().map(|line| line.address).chain(*fallback).map(Prefix::host).collect()
            }
            Self::Dns(lines) => lines.iter().filter_map(|line| of(&line.target)).collect(),
            Self::Http(lines, _) => lines.iter().filter_map(|line| of(&line.target)).collect(),
        }
    }

    fn ports(&self) -> Vec<u16> {
        match self {
            Self::Redirect(lines, _) => lines.iter().flat_map(|line| [Some(line.local), line.port]).flatten().collect(),
            Self::Dns(lines) => lines.iter().flat_map(|line| [Some(line.local), line.port]).flatten().collect(),
            Self::Http(..) => Vec::new(),
        }
    }

    fn smaller(&self) -> Vec<Self> {
        match self {
            Self::Redirect(lines, fallback) => {
                without_one(lines).map(|lines| Self::Redirect(lines, *fallback)).collect()
            }
            Self::Dns(lines) => without_one(lines).map(Self::Dns).collect(),
            Self::Http(lines, all) => without_one(lines).map(|lines| Self::Http(lines, *all)).collect(),
        }
    }
}

impl Target {
    fn text(&self) -> String {
        match self {
            Self::Network(prefix) if prefix.length == prefix.width() => prefix.address.to_string(),
            Self::Network(prefix) => prefix.to_string(),
            Self::Name(name) => name.clone(),
            Self::Domain(name) => format!("*.{name}"),
        }
    }

    fn has(&self, cluster: &Cluster, name: Option<&str>, address: IpAddr) -> bool {
        match self {
            Self::Name(wanted) => cluster.names.addresses(|name| name == wanted).contains(&address),
            Self::Network(_) | Self::Domain(_) => self.has_request(name, address),
        }
    }

    /// squid's `dst` looks at the address, `dstdomain` at the name.
    fn has_request(&self, name: Option<&str>, address: IpAddr) -> bool {
        match self {
            Self::Network(prefix) => prefix.contains(address),
            Self::Name(wanted) => name == Some(wanted),
            Self::Domain(domain) => name.is_some_and(|name| name == domain || name.ends_with(&format!(".{domain}"))),
        }
    }
}

/// The name by which a request goes to the packet's destination: one of the names of the address, or none, by the port.
fn requested(cluster: &Cluster, packet: &Packet) -> Option<String> {
    let names = cluster.names.of(packet.destination);
    names.get(usize::from(packet.port) % (names.len() + 1)).cloned()
}

fn list(random: &mut Random) -> List {
    let mut locals: Vec<u16> = vec![1, 53, 80, 81, 443, 8080, 65535];
    random.shuffle(&mut locals);
    let mut local = move || locals.pop().expect("fewer lines than ports");
    let port = |random: &mut Random| random.chance(50).then(|| pool::port(random));
    let count = random.between(0, 4);
    match random.below(3) {
        0 => {
            let address =
                |random: &mut Random| IpAddr::from([198, 51, 100, u8::try_from(random.between(1, 3)).expect("a byte")]);
            let line = |random: &mut Random, local| Redirect {
                local,
                protocol: random.pick::<&str>(&["tcp", "udp"]),
                address: address(random),
                port: port(random),
            };
            let lines = (0..count).map(|_| line(random, local())).collect();
            List::Redirect(lines, random.chance(50).then(|| address(random)))
        }
        1 => {
            let target = |random: &mut Random| {
                if random.chance(50) { Target::Network(host(random)) } else { Target::Name(dotted(random)) }
            };
            let line = |random: &mut Random, local| Frontend { local, target: target(random), port: port(random) };
            List::Dns((0..count).map(|_| line(random, local())).collect())
        }
        _ => {
            let names = random.chance(60);
            let target = |random: &mut Random| match random.below(6) {
                0 | 1 if names => Target::Name(dotted(random)),
                2 if names => Target::Domain(dotted(random)),
                _ => Target::Network(pool::prefix(random)),
            };
            let line = |random: &mut Random| Access { deny: random.chance(40), target: target(random) };
            List::Http((0..count).map(|_| line(random)).collect(), random.chance(40))
        }
    }
}

fn host(random: &mut Random) -> Prefix {
    Prefix::host(IpAddr::from([198, 51, 100, u8::try_from(random.between(1, 6)).expect("a byte")]))
}

/// Names that begin with a letter or digit, as the scripts want them.
fn dotted(random: &mut Random) -> String {
    loop {
        let name = Names::pick(random);
        if !name.starts_with('-') {
            return name.to_owned();
        }
    }
}
