//! osm-edge's `Egress` and the outbound part of its `MeshConfig`. See docs/import/osm.md.
//!
//! The sidecar takes TCP. With `enableEgress` it lets everything out; without, only what an `Egress` of the pod's service account
//! allows. What the sidecar does not take (excluded ports and prefixes, everything outside of the included prefixes) passes.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::Import;
use super::build::{EVERYTHING, ports as port_range, protocol, rule, to_cidr, to_name, words};
use super::draft::Draft;
use super::gather::Foreign;
use super::kind::{Api, Kind};
use super::pods::Pods;
use super::report::{Judgement, NAME_OF_REQUEST, Outcome, Place};
use crate::document::{Fields, Node, Report as Reader, Value};
use crate::name::NamePattern;
use crate::spec::{Action, EgressPeer, EgressPort, EgressRule, MAX_PRIORITY, Protocol};

pub(super) const KIND: Kind = Kind {
    name: "osm",
    title: "osm-edge Egress and MeshConfig",
    apis: &[
        Api { versions: &["policy.openservicemesh.io/v1alpha1"], kind: "Egress", fields: &["spec"] },
        Api {
            versions: &[
                "config.openservicemesh.io/v1alpha1",
                "config.openservicemesh.io/v1alpha2",
                "config.openservicemesh.io/v1alpha3",
            ],
            kind: "MeshConfig",
            fields: &["spec"],
        },
    ],
    convert,
    list: None,
};

const WITH_SIDECAR: &str = "for pods with a sidecar, which are what is compared; others are refused too";
const IPV4_ONLY: &str = "IPv4 only, as the sidecar's; where pods have IPv6, add a Deny for ::/0";
const IGNORED: &str =
    "enableEgressPolicy of the MeshConfig is false, so Egress objects say nothing there and nothing is written";
const NO_MESH_CONFIG: &str = "the MeshConfig is not in these files, so nothing is refused here: where its enableEgress is false, \
                              import it together with these objects";
const ROUTES: &str = "HTTP routes are above layer 4: every request to these hosts passes";
const NAME_OR_PREFIX: &str =
    "there the name and the prefix must both match, and a rule here has one of them: the name is left out";

/// What is used of a `MeshConfig`.
struct Mesh {
    is_open: bool,
    ignores_egress: bool,
    egress: Place,
    excluded: Option<(Place, Vec<IpNet>)>,
    included: Option<(Place, Vec<IpNet>)>,
    ports: Option<(Place, Vec<u16>)>,
}

struct Egress {
    sources: BTreeMap<String, Vec<String>>,
    names: Vec<String>,
    prefixes: Vec<IpNet>,
    ports: Vec<(Place, Port)>,
    /// Whether requests are looked into.
    has_routes: bool,
}

struct Port {
    number: u16,
    application: Application,
}

/// How a destination is recognized.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Application {
    /// By the host of the request, and by prefix if there is one.
    Http,
    /// By the name in the TLS handshake, and by prefix, where there are some.
    Https,
    /// By prefix, if there is one.
    Tcp,
}

fn convert(objects: &[&Foreign<'_>], import: &mut Import<'_>) {
    let (configs, egresses): (Vec<_>, Vec<_>) =
        objects.iter().copied().partition(|object| object.api.kind == "MeshConfig");
    let (mut is_known, mut ignored) = (false, false);
    for object in configs {
        if let Some(mesh) = import.read(object, read_mesh) {
            is_known = true;
            ignored |= mesh.ignores_egress;
            write_mesh(object, mesh, import);
        }
    }
    for object in egresses {
        let Some(egress) = import.read(object, read_egress) else { continue };
        if !is_known {
            import.row(object, &object.place(), "nothing else", Judgement::of(Outcome::Wider, NO_MESH_CONFIG));
        }
        if ignored {
            import.row(object, &object.place(), "every rule", Judgement::of(Outcome::NotExpressed, IGNORED));
        } else {
            write_egress(object, &egress, import);
        }
    }
}

/// The prefixes that are always allowed, and at the end of all policies the ports that are, and the refusal of everything else.
fn write_mesh(object: &Foreign<'_>, mesh: Mesh, import: &mut Import<'_>) {
    if let Some((place, prefixes)) = mesh.excluded.filter(|(_, prefixes)| !prefixes.is_empty()) {
        let texts: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
        let words = format!("excluded {}", texts.join(","));
        let why = "excludedCIDRs of the EgressConfig: for every pod, also those that run, and every protocol";
        import.row(object, &place, words, Judgement::of(Outcome::Exact, why));
        import.config().excluded_cidrs.get_or_insert_default().extend(texts);
    }
    if mesh.is_open {
        let judgement = Judgement::of(Outcome::Exact, "everything is let out there, as here by default");
        return import.row(object, &mesh.egress, "Allow everything", judgement);
    }
    let mut draft = Draft::default();
    if let Some((place, numbers)) = mesh.ports.filter(|(_, numbers)| !numbers.is_empty()) {
        let ports: Vec<EgressPort> = numbers.iter().map(|port| port_range(Protocol::TCP, *port, *port)).collect();
        let words = words(Action::Allow, "everything", Some(&ports));
        let rules = super::build::everything(Action::Allow, Some(&ports));
        draft.add(&object, &place, words, Judgement::exact(), rules);
    }
    let included = mesh.included.filter(|(_, prefixes)| !prefixes.is_empty());
    // The sidecar takes only IPv4.
    let (place, prefixes) = included.unwrap_or_else(|| (mesh.egress, EVERYTHING.iter().take(1).copied().collect()));
    let mut judgement = Judgement::of(Outcome::Exact, WITH_SIDECAR);
    judgement.add(Outcome::Exact, IPV4_ONLY);
    let refused =
        prefixes.into_iter().map(|cidr| rule(Action::Deny, to_cidr(cidr), Some(vec![protocol(Protocol::TCP)])));
    draft.add(&object, &place, "nothing else", judgement, refused);
    import.cluster_policy(draft, "osm-mesh", Pods::default().baseline(Some(MAX_PRIORITY)));
}

fn write_egress(object: &Foreign<'_>, egress: &Egress, import: &mut Import<'_>) {
    for (namespace, accounts) in &egress.sources {
        let mut draft = Draft::default();
        for (place, port) in &egress.ports {
            let (judgement, rules) = egress.rules(port);
            let to = egress.words(port);
            let ports = [port_range(Protocol::TCP, port.number, port.number)];
            draft.add(&object, place, words(Action::Allow, &to, Some(&ports)), judgement, rules);
        }
        if draft.is_empty() {
            import.said(draft);
            continue;
        }
        let pods = Pods { accounts: Some(accounts.clone()), ..Pods::default() };
        import.policy(draft, Some(namespace), &object.name, pods.policy(None));
    }
    if egress.sources.is_empty() {
        let why = "the list of sources is empty, so it is for no pod";
        import.row(object, &object.place(), "every rule", Judgement::of(Outcome::NotExpressed, why));
    }
}

impl Egress {
    fn words(&self, port: &Port) -> String {
        let prefixes = self.prefixes.iter().map(ToString::to_string);
        let names = self.names.iter().filter(|_| port.application != Application::Tcp).cloned();
        let all: Vec<String> = prefixes.chain(names).collect();
        if all.is_empty() { "everything".to_owned() } else { all.join(",") }
    }

    fn rules(&self, port: &Port) -> (Judgement, Vec<EgressRule>) {
        let mut judgement = Judgement::exact();
        let has_names = port.application != Application::Tcp && !self.names.is_empty();
        if port.application == Application::Http && self.has_routes {
            judgement.add(Outcome::Wider, ROUTES);
        }
        let peers: Vec<EgressPeer> = if port.application == Application::Http && self.names.is_empty() {
            judgement.add(Outcome::Exact, "without hosts no HTTP request has a route, there as here");
            Vec::new()
        } else if !self.prefixes.is_empty() {
            if has_names {
                judgement.add(Outcome::Wider, NAME_OR_PREFIX);
            }
            self.prefixes.iter().map(|cidr| to_cidr(*cidr)).collect()
        } else if has_names {
            self.names.iter().flat_map(|name| peers_of_name(name, &mut judgement)).collect()
        } else {
            EVERYTHING.map(to_cidr).to_vec()
        };
        let ports = vec![port_range(Protocol::TCP, port.number, port.number)];
        (judgement, peers.into_iter().map(|peer| rule(Action::Allow, peer, Some(ports.clone()))).collect())
    }
}

/// A host; a star in front is any depth of labels, alone it is every host.
fn peers_of_name(name: &str, judgement: &mut Judgement) -> Vec<EgressPeer> {
    if name == "*" {
        return EVERYTHING.map(to_cidr).to_vec();
    }
    let text = name.strip_prefix("*.").map_or_else(|| name.to_owned(), |parent| format!("**.{parent}"));
    match NamePattern::parse(&text) {
        Ok(name) => {
            judgement.add(Outcome::Wider, NAME_OF_REQUEST);
            vec![to_name(&name)]
        }
        Err(error) => {
            judgement.add(Outcome::Narrower, format!("{name:?} cannot be a dnsName here: {error}; left out"));
            Vec::new()
        }
    }
}

fn read_mesh<'n>(reader: &mut Reader<'n>, object: Fields<'n>) -> Option<Mesh> {
    reader.required(object, "spec", "add a spec with traffic", |reader, node| {
        let spec = reader.here();
        let fields = reader.open_fields(node)?;
        let flag = reader.optional(fields, "featureFlags", |reader, node| {
            let fields = reader.open_fields(node)?;
            reader.optional(fields, "enableEgressPolicy", Reader::truth)
        });
        let ignores_egress = flag == Some(false);
        let closed =
            |egress| Mesh { is_open: false, ignores_egress, egress, excluded: None, included: None, ports: None };
        if fields.get("traffic").is_none() {
            return Some(closed(spec));
        }
        reader.optional(fields, "traffic", |reader, node| {
            let mut mesh = closed(reader.here());
            let fields = reader.open_fields(node)?;
            let open =
                reader.optional(fields, "enableEgress", |reader, node| Some((reader.here(), reader.truth(node)?)));
            if let Some((place, is_open)) = open {
                (mesh.egress, mesh.is_open) = (place, is_open);
            }
            mesh.excluded = reader.prefixes(fields, "outboundIPRangeExclusionList");
            mesh.included = reader.prefixes(fields, "outboundIPRangeInclusionList");
            mesh.ports = reader.optional(fields, "outboundPortExclusionList", |reader, node| {
                let ports = reader.list(node, |reader, node| reader.number(node, 1..=u16::MAX))?;
                Some((reader.here(), ports))
            });
            Some(mesh)
        })
    })
}

fn read_egress<'n>(reader: &mut Reader<'n>, object: Fields<'n>) -> Option<Egress> {
    reader.required(object, "spec", "add a spec with sources and ports", |reader, node| {
        let fields = reader.fields(node, &["sources", "hosts", "ipAddresses", "ports", "matches"])?;
        let mut sources: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let accounts =
            reader.required(fields, "sources", "list the service accounts", |reader, node| reader.list(node, source));
        for (namespace, name) in accounts.unwrap_or_default() {
            let of_namespace = sources.entry(namespace).or_default();
            if !of_namespace.contains(&name) {
                of_namespace.push(name);
            }
        }
        let names = reader.optional(fields, "hosts", |reader, node| {
            reader.list(node, |reader, node| reader.text(node).map(str::to_owned))
        });
        let prefixes = reader.prefixes(fields, "ipAddresses").map(|(_, prefixes)| prefixes);
        let ports = reader.required(fields, "ports", "list the ports", |reader, node| reader.placed(node, port));
        let matches = reader.optional(fields, "matches", |reader, node| reader.list(node, route));
        let has_routes = matches.is_some_and(|matches| matches.contains(&true));
        Some(Egress {
            sources,
            names: names.unwrap_or_default(),
            prefixes: prefixes.unwrap_or_default(),
            ports: ports?,
            has_routes,
        })
    })
}

fn source<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<(String, String)> {
    let fields = reader.fields(node, &["kind", "name", "namespace"])?;
    let kinds = [("ServiceAccount", ())];
    reader.required(fields, "kind", "write ServiceAccount", |reader, node| reader.choice(node, &kinds));
    let name =
        reader.required(fields, "name", "name the service account", |reader, node| reader.object_name(node, 253));
    let namespace =
        reader.required(fields, "namespace", "name its namespace", |reader, node| reader.object_name(node, 63));
    namespace.zip(name)
}

fn port<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Port> {
    let fields = reader.fields(node, &["number", "protocol"])?;
    let number = reader.required(fields, "number", "write the port", |reader, node| reader.number(node, 1..=u16::MAX));
    let application =
        reader.required(fields, "protocol", "write http, https, tcp or tcp-server-first", |reader, node| match reader
            .text(node)?
            .to_ascii_lowercase()
            .as_str()
        {
            "http" => Some(Application::Http),
            "https" => Some(Application::Https),
            "tcp" | "tcp-server-first" => Some(Application::Tcp),
            other => {
                reader.problem(format!("{other:?} is no protocol"), "write http, https, tcp or tcp-server-first");
                None
            }
        });
    Some(Port { number: number?, application: application? })
}

/// Whether the reference is to HTTP routes; others set timeouts and the like.
fn route<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<bool> {
    let fields = reader.fields(node, &["apiGroup", "kind", "name"])?;
    reader.optional(fields, "apiGroup", Reader::text);
    reader.required(fields, "name", "name the object", Reader::text);
    let kind = reader.required(fields, "kind", "write HTTPRouteGroup", Reader::text)?;
    Some(kind == "HTTPRouteGroup")
}

impl<'n> Reader<'n> {
    /// A list of prefixes, with its place.
    fn prefixes(&mut self, fields: Fields<'n>, name: &str) -> Option<(Place, Vec<IpNet>)> {
        self.optional(fields, name, |reader, node| {
            // Old servers write an empty list as nothing.
            if node.value == Value::Null {
                return None;
            }
            Some((reader.here(), reader.list(node, Self::cidr)?))
        })
    }
}
