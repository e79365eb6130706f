//! Cilium: `CiliumNetworkPolicy` and `CiliumClusterwideNetworkPolicy` from the comments of its API types and their validation
//! (pkg/policy/api).
//!
//! All rules of all policies that select a pod are one set. What a deny rule matches is refused; what an allow rule matches passes; then
//! the pod may do nothing else if some policy isolates it, and anything otherwise. An address of a node belongs to the node and to no
//! prefix or name. A request is one that the rules of layer 7 refuse.

use std::net::IpAddr;

use egress_reference::{Packet, Pod, Prefix, Random, Selector};
use serde_json::{Value, json};

use crate::cluster::NAMESPACES;
use crate::{Cluster, Foreign, Names, pool, without_one};

/// The objects of a cluster.
#[derive(Clone, Debug)]
pub struct Cilium {
    policies: Vec<Policy>,
    group: Vec<Prefix>,
}

#[derive(Clone, Debug)]
struct Policy {
    /// None is an object of the cluster.
    namespace: Option<String>,
    specs: Vec<Spec>,
}

#[derive(Clone, Debug)]
struct Spec {
    is_host_policy: bool,
    labels: Selector,
    /// Asked for by labels of other names.
    in_namespace: Option<String>,
    account: Option<String>,
    /// A label that no pod of Kubernetes has.
    is_odd: bool,
    has_ingress: bool,
    default_deny: Option<bool>,
    deny: Vec<Rule>,
    allow: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    to: Option<Vec<Peer>>,
    ports: Ports,
}

#[derive(Clone, Debug)]
enum Peer {
    Cidr(Prefix),
    CidrSet(Prefix, Vec<Prefix>),
    Group(Vec<Prefix>),
    Entity(&'static str),
    Nodes(Selector),
    Name(String),
    Endpoints,
    Services,
}

#[derive(Clone, Debug)]
enum Ports {
    Any,
    /// The flag stands for requests that are looked into.
    Listed(Vec<Port>, bool),
    Icmp(u16, &'static str),
}

/// Protocol, first and last port; port 0 is every port, none a name.
type Port = (Option<&'static str>, Option<(u16, u16)>);

impl Foreign for Cilium {
    const KIND: &'static str = "cilium";

    fn random(_cluster: &Cluster, random: &mut Random) -> Self {
        let is_clusterwide = random.chance(40);
        let count = random.between(1, 4);
        let policies = (0..count).map(|_| {
            let is_global = is_clusterwide && random.chance(50);
            let namespace = (!is_global).then(|| (*random.pick::<&str>(&NAMESPACES)).to_owned());
            let specs = (0..if random.chance(20) { 2 } else { 1 }).map(|_| spec(is_global, random)).collect();
            Policy { namespace, specs }
        });
        let policies = policies.collect();
        Self { policies, group: (0..random.between(1, 3)).map(|_| pool::prefix(random)).collect() }
    }

    fn objects(&self) -> Vec<Value> {
        let group = json!({
            "apiVersion": "cilium.io/v2alpha1",
            "kind": "CiliumCIDRGroup",
            "metadata": {"name": "partners"},
            "spec": {"externalCIDRs": texts(&self.group)},
        });
        let policies = self.policies.iter().zip(0..).map(|(policy, number)| policy.json(number));
        policies.chain([group]).collect()
    }

    fn prefixes(&self) -> Vec<Prefix> {
        let mut prefixes = self.group.clone();
        let peers = self.rules().filter_map(|rule| rule.to.as_ref()).flatten();
        for peer in peers {
            match peer {
                Peer::Cidr(prefix) => prefixes.push(*prefix),
                Peer::CidrSet(prefix, except) => prefixes.extend(except.iter().chain([prefix])),
                Peer::Group(except) => prefixes.extend(except),
                _ => {}
            }
        }
        prefixes
    }

    fn ports(&self) -> Vec<u16> {
        let listed = self.rules().filter_map(|rule| match &rule.ports {
            Ports::Listed(ports, _) => Some(ports),
            Ports::Any | Ports::Icmp(..) => None,
        });
        listed.flatten().filter_map(|(_, range)| *range).flat_map(|(first, last)| [first, last]).collect()
    }

    fn allows(&self, cluster: &Cluster, pod: &Pod, packet: &Packet) -> bool {
        let selecting: Vec<&Spec> = self.policies.iter().flat_map(|policy| policy.selecting(pod)).collect();
        let matches = |rule: &Rule| rule.matches(self, cluster, packet);
        if selecting.iter().any(|spec| spec.deny.iter().any(matches)) {
            return false;
        }
        let is_allowed = |rule: &Rule| matches(rule) && !matches!(rule.ports, Ports::Listed(_, true));
        selecting.iter().any(|spec| spec.allow.iter().any(is_allowed)) || !selecting.iter().any(|spec| spec.isolates())
    }

    fn smaller(&self) -> Vec<Self> {
        let mut smaller: Vec<Self> =
            without_one(&self.policies).map(|policies| Self { policies, ..self.clone() }).collect();
        for (at, policy) in self.policies.iter().enumerate() {
            let with = |specs| {
                let mut fewer = self.clone();
                fewer.policies[at].specs = specs;
                fewer
            };
            if policy.specs.len() > 1 {
                smaller.extend(without_one(&policy.specs).map(with));
            }
            for (number, spec) in policy.specs.iter().enumerate() {
                let changed = |deny: Vec<Rule>, allow: Vec<Rule>| {
                    let mut specs = policy.specs.clone();
                    specs[number] = Spec { deny, allow, ..spec.clone() };
                    with(specs)
                };
                smaller.extend(without_one(&spec.deny).map(|deny| changed(deny, spec.allow.clone())));
                smaller.extend(without_one(&spec.allow).map(|allow| changed(spec.deny.clone(), allow)));
            }
        }
        smaller
    }
}

impl Cilium {
    fn rules(&self) -> impl Iterator<Item = &Rule> {
        let specs = self.policies.iter().flat_map(|policy| &policy.specs);
        specs.flat_map(|spec| spec.deny.iter().chain(&spec.allow))
    }
}

impl Policy {
    fn selecting<'p>(&'p self, pod: &'p Pod) -> impl Iterator<Item = &'p Spec> {
        let is_here = self.namespace.as_ref().is_none_or(|namespace| *namespace == pod.namespace);
        self.specs.iter().filter(move |spec| is_here && spec.selects(pod))
    }

    fn json(&self, number: usize) -> Value {
        let mut metadata = json!({"name": format!("policy{number}")});
        if let Some(namespace) = &self.namespace {
            metadata["namespace"] = namespace.clone().into();
        }
        let mut object = json!({
            "apiVersion": "cilium.io/v2",
            "kind": if self.namespace.is_some() { "CiliumNetworkPolicy" } else { "CiliumClusterwideNetworkPolicy" },
            "metadata": metadata,
        });
        match self.specs.as_slice() {
            [spec] => object["spec"] = spec.json(),
            specs => object["specs"] = specs.iter().map(Spec::json).collect(),
        }
        object
    }
}

impl Spec {
    fn selects(&self, pod: &Pod) -> bool {
        !self.is_host_policy
            && !self.is_odd
            && self.labels.matches(&pod.labels)
            && self.in_namespace.as_ref().is_none_or(|namespace| *namespace == pod.namespace)
            && (self.account.is_none() || self.account == pod.service_account)
    }

    fn isolates(&self) -> bool {
        self.default_deny.unwrap_or(!self.deny.is_empty() || !self.allow.is_empty())
    }

    fn json(&self) -> Value {
        let mut labels = json!({});
        for (number, (key, value)) in self.labels.labels.iter().enumerate() {
            let source = ["", "k8s:", "any:"][(number + value.len()) % 3];
            labels[format!("{source}{key}")] = value.clone().into();
        }
        if let Some(namespace) = &self.in_namespace {
            labels["k8s:io.kubernetes.pod.namespace"] = namespace.clone().into();
        }
        let mut selector = json!({"matchLabels": labels});
        if let Some(account) = &self.account {
            let key = "io.cilium.k8s.policy.serviceaccount";
            selector["matchExpressions"] = json!([{"key": key, "operator": "In", "values": [account]}]);
        }
        if self.is_odd {
            selector["matchLabels"]["container:name"] = "web".into();
        }
        let mut spec = json!({});
        spec[if self.is_host_policy { "nodeSelector" } else { "endpointSelector" }] = selector;
        if self.has_ingress {
            spec["ingress"] = json!([{}]);
        }
        if let Some(deny) = self.default_deny {
            spec["enableDefaultDeny"] = json!({"egress": deny});
        }
        for (name, rules) in [("egressDeny", &self.deny), ("egress", &self.allow)] {
            if !rules.is_empty() {
                spec[name] = rules.iter().map(Rule::json).collect();
            }
        }
        spec
    }
}

impl Rule {
    fn matches(&self, all: &Cilium, cluster: &Cluster, packet: &Packet) -> bool {
        let to = self.to.as_ref();
        // A rule with nothing in it names no destination, not every one (mergeEgress in pkg/policy).
        if to.is_none() && matches!(self.ports, Ports::Any) {
            return false;
        }
        self.ports.matches(packet)
            && to.is_none_or(|peers| peers.iter().any(|peer| peer.contains(all, cluster, packet.destination)))
    }

    fn json(&self) -> Value {
        let mut rule = json!({});
        for peer in self.to.iter().flatten() {
            let (name, item) = peer.json();
            if rule.get(name).is_none() {
                rule[name] = json!([]);
            }
            rule[name].as_array_mut().expect("a list").push(item);
        }
        match &self.ports {
            Ports::Any => {}
            Ports::Icmp(number, family) => {
                rule["icmps"] = json!([{"fields": [{"type": number, "family": family}]}]);
            }
            Ports::Listed(ports, has_requests) => {
                let ports: Vec<Value> = ports.iter().map(port_json).collect();
                rule["toPorts"] = json!([{"ports": ports}]);
                if *has_requests {
                    rule["toPorts"][0]["rules"] = json!({"http": [{"method": "GET"}]});
                }
            }
        }
        rule
    }
}

impl Peer {
    fn contains(&self, all: &Cilium, cluster: &Cluster, address: IpAddr) -> bool {
        let node = cluster.nodes.iter().position(|node| node.addresses.contains(&address));
        let is_among = |prefixes: &[Prefix]| prefixes.iter().any(|prefix| prefix.contains(address));
        match self {
            Self::Cidr(prefix) => node.is_none() && prefix.contains(address),
            Self::CidrSet(prefix, except) => node.is_none() && prefix.contains(address) && !is_among(except),
            Self::Group(except) => node.is_none() && is_among(&all.group) && !is_among(except),
            Self::Nodes(selector) => node.is_some_and(|at| selector.matches(&cluster.nodes[at].labels)),
            Self::Name(pattern) => {
                node.is_none() && cluster.names.addresses(|name| name_matches(pattern, name)).contains(&address)
            }
            Self::Entity(entity) => match *entity {
                "all" => true,
                "world" => node.is_none(),
                "world-ipv4" => node.is_none() && address.is_ipv4(),
                "world-ipv6" => node.is_none() && address.is_ipv6(),
                "cluster" => node.is_some(),
                // The pods are on the first node, and the API server too.
                "host" | "kube-apiserver" => node == Some(0),
                "remote-node" => node.is_some_and(|at| at > 0),
                _ => false,
            },
            Self::Endpoints => false,
            // An address that a Service of these names has.
            Self::Services => address == IpAddr::from([203, 0, 113, 77]),
        }
    }

    fn json(&self) -> (&'static str, Value) {
        match self {
            Self::Cidr(prefix) if prefix.length == prefix.width() => ("toCIDR", json!(prefix.first().to_string())),
            Self::Cidr(prefix) => ("toCIDR", json!(prefix.to_string())),
            Self::CidrSet(prefix, except) if except.is_empty() => ("toCIDRSet", json!({"cidr": prefix.to_string()})),
            Self::CidrSet(prefix, except) => {
                ("toCIDRSet", json!({"cidr": prefix.to_string(), "except": texts(except)}))
            }
            Self::Group(except) => ("toCIDRSet", json!({"cidrGroupRef": "partners", "except": texts(except)})),
            Self::Entity(entity) => ("toEntities", json!(entity)),
            Self::Nodes(selector) => ("toNodes", pool::selector_json(selector)),
            Self::Name(name) if name.contains('*') => ("toFQDNs", json!({"matchPattern": name})),
            Self::Name(name) => ("toFQDNs", json!({"matchName": name})),
            Self::Endpoints => ("toEndpoints", json!({"matchLabels": {"k8s:app": "web"}})),
            Self::Services => ("toServices", json!({"k8sService": {"serviceName": "partner", "namespace": "shop"}})),
        }
    }
}

impl Ports {
    fn matches(&self, packet: &Packet) -> bool {
        let number = |protocol: Option<&str>| match protocol {
            Some("TCP") => vec![6],
            Some("UDP") => vec![17],
            Some("SCTP") => vec![132],
            _ => vec![6, 17, 132],
        };
        match self {
            Self::Any => true,
            Self::Icmp(kind, "IPv4") => packet.protocol == 1 && packet.port == *kind && packet.destination.is_ipv4(),
            Self::Icmp(kind, _) => packet.protocol == 58 && packet.port == *kind && packet.destination.is_ipv6(),
            Self::Listed(ports, _) => ports.iter().any(|(protocol, range)| {
                let in_range = range.is_some_and(|(first, last)| first == 0 || (first..=last).contains(&packet.port));
                in_range && number(*protocol).contains(&packet.protocol)
            }),
        }
    }
}

fn port_json((protocol, range): &Port) -> Value {
    let mut port = match range {
        None => json!({"port": "web"}),
        Some((first, last)) if first == last => json!({"port": first.to_string()}),
        Some((first, last)) => json!({"port": first.to_string(), "endPort": last}),
    };
    if let Some(protocol) = protocol {
        port["protocol"] = (*protocol).into();
    }
    port
}

/// A star is any characters of one label; in front and doubled it is one label or more, as since 1.19; alone it is every name.
fn name_matches(pattern: &str, name: &str) -> bool {
    let pattern = pattern.trim_end_matches('.').to_ascii_lowercase();
    if pattern == "*" {
        return true;
    }
    if let Some(parent) = pattern.strip_prefix("**.") {
        return name.strip_suffix(parent).is_some_and(|front| front.len() > 1 && front.ends_with('.'));
    }
    let (wanted, labels): (Vec<&str>, Vec<&str>) = (pattern.split('.').collect(), name.split('.').collect());
    wanted.len() == labels.len() && wanted.iter().zip(&labels).all(|(wanted, label)| label_matches(wanted, label))
}

fn label_matches(wanted: &str, label: &str) -> bool {
    match wanted.split_once('*') {
        None => wanted == label,
        Some((front, rest)) => label.strip_prefix(front).is_some_and(|label| {
            (0..=label.len()).any(|skipped| label.get(skipped..).is_some_and(|label| label_matches(rest, label)))
        }),
    }
}

fn texts(prefixes: &[Prefix]) -> Vec<String> {
    prefixes.iter().map(ToString::to_string).collect()
}

fn spec(is_global: bool, random: &mut Random) -> Spec {
    let namespace = (*random.pick::<&str>(&NAMESPACES)).to_owned();
    Spec {
        is_host_policy: is_global && random.chance(5),
        labels: pool::selector(random),
        in_namespace: (is_global && random.chance(50)).then_some(namespace),
        account: random.chance(20).then(|| (*random.pick(&["default", "builder"])).to_owned()),
        is_odd: random.chance(1),
        has_ingress: random.chance(5),
        default_deny: random.chance(25).then(|| random.chance(30)),
        deny: (0..random.below(3)).map(|_| rule(true, random)).collect(),
        allow: (0..random.between(0, 3)).map(|_| rule(false, random)).collect(),
    }
}

fn rule(deny: bool, random: &mut Random) -> Rule {
    let count = random.between(1, 3);
    let several = |random: &mut Random, one: &dyn Fn(&mut Random) -> Peer| -> Option<Vec<Peer>> {
        Some((0..count).map(|_| one(random)).collect())
    };
    let to = match random.below(20) {
        0 => None,
        1 if random.chance(30) => Some(vec![Peer::Endpoints]),
        2 if random.chance(15) => return Rule { to: Some(vec![Peer::Services]), ports: Ports::Any },
        3..=6 if !deny => several(random, &|random| Peer::Name(name(random))),
        7 | 8 => several(random, &|random| Peer::Nodes(pool::selector(random))),
        9..=11 => several(random, &|random| Peer::Entity(entity(random))),
        12..=14 => several(random, &cidr_set),
        _ => several(random, &|random| Peer::Cidr(pool::prefix(random))),
    };
    Rule { to, ports: ports(deny, random) }
}

fn entity(random: &mut Random) -> &'static str {
    if random.chance(5) {
        return random.pick::<&str>(&["host", "remote-node", "kube-apiserver", "ingress", "none"]);
    }
    random.pick::<&str>(&["all", "world", "world-ipv4", "world-ipv6", "cluster"])
}

fn cidr_set(random: &mut Random) -> Peer {
    let prefix = pool::prefix(random);
    let others: Vec<Prefix> = (0..random.below(3)).map(|_| pool::prefix(random)).collect();
    if random.chance(20) {
        return Peer::Group(others);
    }
    let is_inside = |other: &Prefix| prefix.covers(other) && other.length > prefix.length;
    Peer::CidrSet(prefix, others.into_iter().filter(is_inside).collect())
}

fn ports(deny: bool, random: &mut Random) -> Ports {
    if random.chance(50) {
        return Ports::Any;
    }
    if random.chance(2) {
        return if random.chance(50) { Ports::Icmp(8, "IPv4") } else { Ports::Icmp(128, "IPv6") };
    }
    let port = |random: &mut Random| {
        let protocol = *random.pick(&[None, Some("ANY"), Some("TCP"), Some("TCP"), Some("UDP"), Some("SCTP")]);
        let range = match random.below(25) {
            0 => None,
            1 | 2 => Some((0, 0)),
            _ => Some(pool::port_range(random)),
        };
        (protocol, range)
    };
    let has_requests = !deny && random.chance(2);
    let listed = (0..random.between(1, 3)).map(|_| port(random));
    if has_requests {
        return Ports::Listed(vec![(Some("TCP"), Some((80, 80)))], true);
    }
    Ports::Listed(listed.collect(), false)
}

fn name(random: &mut Random) -> String {
    let name = loop {
        let name = Names::pick(random);
        // Most runs are without the name that rules of ours cannot have.
        if !name.starts_with('-') || random.chance(20) {
            break name;
        }
    };
    let parent = name.split_once('.').map_or(name, |(_, parent)| parent);
    match random.below(24) {
        0 => format!("*{name}"),
        1 if random.chance(30) => "*".to_owned(),
        2 => format!("{}.", name.to_uppercase()),
        3..=7 => format!("*.{parent}"),
        8..=10 => format!("**.{parent}"),
        _ => name.to_owned(),
    }
}
