//! A `ServiceEntry`: where traffic of its ports leaves to.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::document::{Fields, Node, Report as Reader, Value};
use crate::import::build::{EVERYTHING, ports as port_range, rule, to_cidr, to_name, words};
use crate::import::report::{Judgement, NAME_OF_REQUEST, Outcome, Place};
use crate::name::NamePattern;
use crate::spec::{Action, EgressPeer, EgressRule, Protocol};

const REWRITTEN: &str = "the sidecar sends what is for the addresses to the endpoints, and that is what is compared";
const NAME_AND_ADDRESS: &str =
    "there the name and the address must both match, and a rule here has one of them: the name is left out";
const WORKLOADS: &str = "which pods and machines workloadSelector means is known only to the cluster; left out";
const NOT_TAKEN: &str = "the sidecar takes only TCP, so the port changes nothing";
const ANY_ADDRESS: &str = "without addresses the sidecar lets the port out to anywhere";

pub(super) struct Entry {
    hosts: Vec<String>,
    addresses: Vec<IpNet>,
    pub(super) ports: Vec<(Place, Port)>,
    resolution: Resolution,
    endpoints: Vec<Endpoint>,
    has_workloads: bool,
    export: Vec<String>,
}

pub(super) struct Port {
    number: u16,
    target: Option<u16>,
    name: String,
    protocol: Application,
}

/// By what traffic of a port is recognized.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Application {
    Http,
    Tls,
    Tcp,
    Udp,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Resolution {
    None,
    Static,
    Dns,
}

struct Endpoint {
    address: String,
    ports: BTreeMap<String, u16>,
}

impl Entry {
    /// The namespaces whose pods see the entry; none means all.
    pub(super) fn exported(&self, own: &str) -> Option<Vec<String>> {
        if self.export.is_empty() || self.export.iter().any(|name| name == "*") {
            return None;
        }
        let named = self.export.iter().filter(|name| *name != "~");
        Some(named.map(|name| if name == "." { own.to_owned() } else { name.clone() }).collect())
    }

    /// Whether some host is seen.
    pub(super) fn has_host(&self, is_seen: impl Fn(&str) -> bool) -> bool {
        self.hosts.iter().any(|host| is_seen(host))
    }

    /// The rules of a port for those hosts that are seen.
    pub(super) fn rules(&self, port: &Port, is_seen: impl Fn(&str) -> bool) -> (String, Judgement, Vec<EgressRule>) {
        let hosts: Vec<&str> = self.hosts.iter().map(String::as_str).filter(|host| is_seen(host)).collect();
        let mut judgement = Judgement::exact();
        let peers = if hosts.is_empty() { Vec::new() } else { self.peers(port, &hosts, &mut judgement) };
        let by_request = matches!(port.protocol, Application::Http | Application::Tls) && !hosts.contains(&"*");
        if by_request && !peers.is_empty() {
            judgement.add(Outcome::Wider, NAME_OF_REQUEST);
        }
        let rules = peers
            .into_iter()
            .map(|(peer, number)| rule(Action::Allow, peer, Some(vec![port_range(Protocol::TCP, number, number)])));
        let ports = [port_range(
            if port.protocol == Application::Udp { Protocol::UDP } else { Protocol::TCP },
            port.number,
            port.number,
        )];
        (words(Action::Allow, &self.hosts.join(","), Some(&ports)), judgement, rules.collect())
    }

    /// Destinations with their ports.
    fn peers(&self, port: &Port, hosts: &[&str], judgement: &mut Judgement) -> Vec<(EgressPeer, u16)> {
        if port.protocol == Application::Udp {
            judgement.add(Outcome::Exact, NOT_TAKEN);
            return Vec::new();
        }
        if self.has_workloads {
            judgement.add(Outcome::Narrower, WORKLOADS);
            return Vec::new();
        }
        if self.resolution == Resolution::None {
            let to = self.unresolved(port, hosts, judgement);
            return to.into_iter().map(|peer| (peer, port.number)).collect();
        }
        if !self.addresses.is_empty() {
            judgement.add(Outcome::Exact, REWRITTEN);
        }
        let target = port.target.unwrap_or(port.number);
        if self.resolution == Resolution::Dns && self.endpoints.is_empty() {
            let peers = hosts.iter().flat_map(|host| named(host, judgement));
            return peers.map(|peer| (peer, target)).collect();
        }
        let mut peers = Vec::new();
        for endpoint in &self.endpoints {
            let number = endpoint.ports.get(&port.name).copied().unwrap_or(target);
            peers.extend(endpoint.peers(judgement).into_iter().map(|peer| (peer, number)));
        }
        peers
    }

    /// Where traffic goes that is sent on to where the pod sent it.
    fn unresolved(&self, port: &Port, hosts: &[&str], judgement: &mut Judgement) -> Vec<EgressPeer> {
        let addresses = self.addresses.iter().map(|cidr| to_cidr(*cidr));
        match (port.protocol, self.addresses.is_empty()) {
            (Application::Http, _) => addresses.chain(hosts.iter().flat_map(|host| named(host, judgement))).collect(),
            (Application::Tls, true) => hosts.iter().flat_map(|host| named(host, judgement)).collect(),
            (Application::Tls, false) => {
                judgement.add(Outcome::Wider, NAME_AND_ADDRESS);
                addresses.collect()
            }
            (Application::Tcp | Application::Udp, false) => addresses.collect(),
            (Application::Tcp | Application::Udp, true) => {
                judgement.add(Outcome::Exact, ANY_ADDRESS);
                EVERYTHING.map(to_cidr).to_vec()
            }
        }
    }
}

impl Endpoint {
    fn peers(&self, judgement: &mut Judgement) -> Vec<EgressPeer> {
        if self.address.starts_with("unix://") {
            judgement.add(Outcome::NotExpressed, "a socket in the pod's file system is not judged here");
            return Vec::new();
        }
        match self.address.parse::<IpAddr>() {
            Ok(address) => vec![to_cidr(IpNet::from(address.to_canonical()))],
            Err(_) => named(&self.address, judgement),
        }
    }
}

/// A host; a star in front is one label or more, alone it is every host.
fn named(host: &str, judgement: &mut Judgement) -> Vec<EgressPeer> {
    if host == "*" {
        return EVERYTHING.map(to_cidr).to_vec();
    }
    let text = host.strip_prefix("*.").map_or_else(|| host.to_owned(), |parent| format!("**.{parent}"));
    match NamePattern::parse(&text) {
        Ok(name) => vec![to_name(&name)],
        Err(error) => {
            judgement.add(Outcome::Narrower, format!("{host:?} cannot be a dnsName here: {error}; left out"));
            Vec::new()
        }
    }
}

pub(super) fn read<'n>(reader: &mut Reader<'n>, object: Fields<'n>) -> Option<Entry> {
    const FIELDS: [&str; 9] = [
        "hosts",
        "addresses",
        "ports",
        "location",
        "resolution",
        "endpoints",
        "workloadSelector",
        "exportTo",
        "subjectAltNames",
    ];
    reader.required(object, "spec", "add a spec with hosts and ports", |reader, node| {
        let fields = reader.fields(node, &FIELDS)?;
        let hosts = reader.required(fields, "hosts", "list the hosts", texts);
        let addresses = reader.optional(fields, "addresses", |reader, node| reader.list(node, prefix_or_address));
        let ports = reader.optional(fields, "ports", |reader, node| reader.placed(node, port));
        let locations = [("MESH_EXTERNAL", ()), ("MESH_INTERNAL", ())];
        reader.optional(fields, "location", |reader, node| reader.choice(node, &locations));
        let resolutions = [
            ("NONE", Resolution::None),
            ("STATIC", Resolution::Static),
            ("DNS", Resolution::Dns),
            ("DNS_ROUND_ROBIN", Resolution::Dns),
            ("DYNAMIC_DNS", Resolution::Dns),
        ];
        let resolution = reader.optional(fields, "resolution", |reader, node| reader.choice(node, &resolutions));
        let endpoints = reader.optional(fields, "endpoints", |reader, node| reader.list(node, endpoint));
        let export = reader.optional(fields, "exportTo", texts);
        reader.optional(fields, "subjectAltNames", texts);
        let endpoints = endpoints.unwrap_or_default();
        let resolution = resolution.unwrap_or(Resolution::None);
        if resolution == Resolution::None && !endpoints.is_empty() {
            reader.problem_at("endpoints", "resolution NONE has no endpoints", "write STATIC or DNS");
        }
        Some(Entry {
            hosts: hosts?,
            addresses: addresses.unwrap_or_default(),
            ports: ports.unwrap_or_default(),
            resolution,
            endpoints,
            has_workloads: fields.get("workloadSelector").is_some(),
            export: export.unwrap_or_default(),
        })
    })
}

fn texts<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Vec<String>> {
    reader.list(node, |reader, node| reader.text(node).map(str::to_owned))
}

fn prefix_or_address<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<IpNet> {
    let is_address = matches!(&node.value, Value::Text(text) if text.parse::<IpAddr>().is_ok());
    if is_address { reader.address(node).map(IpNet::from) } else { reader.cidr(node) }
}

fn port<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Port> {
    let fields = reader.fields(node, &["number", "protocol", "name", "targetPort"])?;
    let number = reader.required(fields, "number", "write the port", |reader, node| reader.number(node, 1..=u16::MAX));
    let target = reader.optional(fields, "targetPort", |reader, node| reader.number(node, 1..=u16::MAX));
    let name = reader.required(fields, "name", "name the port", Reader::text);
    let protocol = reader.optional(fields, "protocol", Reader::text);
    // Without a protocol, or with one that is not known, a port is plain TCP.
    let protocol = match protocol.unwrap_or("TCP").to_ascii_uppercase().as_str() {
        "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" | "HTTP_PROXY" => Application::Http,
        "HTTPS" | "TLS" => Application::Tls,
        "UDP" => Application::Udp,
        _ => Application::Tcp,
    };
    Some(Port { number: number?, target, name: name?.to_owned(), protocol })
}

fn endpoint<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Endpoint> {
    const FIELDS: [&str; 7] = ["address", "ports", "labels", "network", "locality", "weight", "serviceAccount"];
    let fields = reader.fields(node, &FIELDS)?;
    let address = reader.required(fields, "address", "write the address", Reader::text);
    let ports = reader.optional(fields, "ports", |reader, node| {
        let fields = reader.open_fields(node)?;
        let one = |reader: &mut Reader<'n>, name: &str| {
            let port = reader.optional(fields, name, |reader, node| reader.number(node, 1..=u16::MAX))?;
            Some((name.to_owned(), port))
        };
        Some(fields.keys().filter_map(|name| one(reader, name)).collect())
    });
    Some(Endpoint { address: address?.to_owned(), ports: ports.unwrap_or_default() })
}
