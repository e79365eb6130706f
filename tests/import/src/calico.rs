//! Calico: `NetworkPolicy` and `GlobalNetworkPolicy` of the default tier, from the documentation of its resources.
//!
//! The policies of a pod by order, then name; the first rule that matches decides, Log does not. What no rule matches is refused if some
//! policy of the pod speaks of egress. A Pass ends at the profile, which lets out. No packet goes to port 0.

use std::net::IpAddr;

use egress_reference::{Packet, Pod, Prefix, Random};
use serde_json::{Value, json};

use crate::cluster::NAMESPACES;
use crate::{Cluster, Foreign, pool, without_one};

/// The objects of a cluster.
#[derive(Clone, Debug)]
pub struct Calico(Vec<Policy>);

#[derive(Clone, Debug)]
struct Policy {
    name: String,
    /// None is a global one.
    namespace: Option<&'static str>,
    order: Option<u16>,
    /// Parts that must all hold.
    selector: Vec<Part>,
    in_namespace: Option<&'static str>,
    types: Option<Vec<&'static str>>,
    rules: Vec<Rule>,
    /// Something that no selector of ours can say, and that selects every pod.
    is_odd: bool,
}

#[derive(Clone, Debug)]
enum Part {
    Is(&'static str, &'static str),
    IsNot(&'static str, &'static str),
    In(&'static str, Vec<&'static str>),
    NotIn(&'static str, Vec<&'static str>),
    Has(&'static str),
    HasNot(&'static str),
    All,
}

#[derive(Clone, Debug)]
struct Rule {
    action: &'static str,
    family: Option<u8>,
    protocol: Option<&'static str>,
    nets: Vec<Prefix>,
    not_nets: Vec<Prefix>,
    ports: Vec<(u16, u16)>,
    not_ports: Vec<(u16, u16)>,
    /// A set of networks whose one address is 203.0.113.77.
    is_by_selector: bool,
    icmp: Option<u16>,
}

impl Foreign for Calico {
    const KIND: &'static str = "calico";

    fn random(_cluster: &Cluster, random: &mut Random) -> Self {
        let has_global = random.chance(50);
        let mut orders: Vec<Option<u16>> = vec![Some(0), Some(10), Some(99), Some(1000), Some(5000), None];
        random.shuffle(&mut orders);
        let count = random.between(1, 4);
        let policies = orders.into_iter().take(count).zip(0..).map(|(order, number)| {
            let is_global = has_global && random.chance(50);
            let own = *random.pick::<&str>(&NAMESPACES);
            Policy {
                name: format!("policy{number}"),
                namespace: (!is_global).then_some(own),
                order,
                selector: (0..random.below(3)).map(|_| part(random)).collect(),
                in_namespace: (is_global && random.chance(40)).then_some(own),
                types: match random.below(4) {
                    0 => None,
                    1 => Some(vec!["Ingress", "Egress"]),
                    2 if random.chance(20) => Some(vec!["Ingress"]),
                    _ => Some(vec!["Egress"]),
                },
                rules: (0..random.between(0, 4)).map(|_| rule(random)).collect(),
                is_odd: random.chance(1),
            }
        });
        Self(policies.collect())
    }

    fn objects(&self) -> Vec<Value> {
        self.0.iter().map(Policy::json).collect()
    }

    fn prefixes(&self) -> Vec<Prefix> {
        let rules = self.0.iter().flat_map(|policy| &policy.rules);
        rules.flat_map(|rule| rule.nets.iter().chain(&rule.not_nets)).copied().collect()
    }

    fn ports(&self) -> Vec<u16> {
        let rules = self.0.iter().flat_map(|policy| &policy.rules);
        rules
            .flat_map(|rule| rule.ports.iter().chain(&rule.not_ports))
            .flat_map(|(first, last)| [*first, *last])
            .collect()
    }

    fn judges(&self, packet: &Packet) -> bool {
        packet.port > 0 || !matches!(packet.protocol, 6 | 17 | 132)
    }

    fn allows(&self, _cluster: &Cluster, pod: &Pod, packet: &Packet) -> bool {
        let mut policies: Vec<&Policy> =
            self.0.iter().filter(|policy| policy.is_about_egress() && policy.selects(pod)).collect();
        policies.sort_by_key(|policy| (policy.order.is_none(), policy.order));
        let is_isolated = !policies.is_empty();
        let mut rules = policies.into_iter().flat_map(|policy| &policy.rules);
        match rules.find(|rule| rule.action != "Log" && rule.matches(packet)) {
            Some(rule) => rule.action != "Deny",
            None => !is_isolated,
        }
    }

    fn smaller(&self) -> Vec<Self> {
        let mut smaller: Vec<Self> = without_one(&self.0).map(Self).collect();
        for (at, policy) in self.0.iter().enumerate() {
            smaller.extend(without_one(&policy.rules).map(|rules| {
                let mut fewer = self.clone();
                fewer.0[at].rules = rules;
                fewer
            }));
        }
        smaller
    }
}

impl Policy {
    fn is_about_egress(&self) -> bool {
        self.types.as_ref().map_or(!self.rules.is_empty(), |types| types.contains(&"Egress"))
    }

    fn selects(&self, pod: &Pod) -> bool {
        self.namespace.is_none_or(|namespace| namespace == pod.namespace)
            && self.in_namespace.is_none_or(|namespace| namespace == pod.namespace)
            && (self.is_odd || self.selector.iter().all(|part| part.holds(pod)))
    }

    fn json(&self) -> Value {
        let mut parts: Vec<String> = self.selector.iter().map(Part::text).collect();
        if self.is_odd {
            parts = vec!["has(app) || !has(app)".to_owned()];
        }
        let mut metadata = json!({"name": self.name});
        let mut spec = json!({"egress": self.rules.iter().map(Rule::json).collect::<Vec<_>>()});
        if !parts.is_empty() {
            spec["selector"] = parts.join(" && ").into();
        }
        if let Some(order) = self.order {
            spec["order"] = order.into();
        }
        if let Some(namespace) = self.namespace {
            metadata["namespace"] = namespace.into();
        }
        if let Some(namespace) = self.in_namespace {
            spec["namespaceSelector"] = format!("projectcalico.org/name == '{namespace}'").into();
        }
        if let Some(types) = &self.types {
            spec["types"] = json!(types);
        }
        json!({
            "apiVersion": "projectcalico.org/v3",
            "kind": if self.namespace.is_some() { "NetworkPolicy" } else { "GlobalNetworkPolicy" },
            "metadata": metadata,
            "spec": spec,
        })
    }
}

impl Part {
    /// A label that is absent has no value, so it is not any.
    fn holds(&self, pod: &Pod) -> bool {
        let value = |key: &str| pod.labels.get(key).map(String::as_str);
        match self {
            Self::Is(key, wanted) => value(key) == Some(wanted),
            Self::IsNot(key, wanted) => value(key) != Some(wanted),
            Self::In(key, wanted) => value(key).is_some_and(|value| wanted.contains(&value)),
            Self::NotIn(key, wanted) => !value(key).is_some_and(|value| wanted.contains(&value)),
            Self::Has(key) => value(key).is_some(),
            Self::HasNot(key) => value(key).is_none(),
            Self::All => true,
        }
    }

    fn text(&self) -> String {
        let list = |wanted: &[&str]| wanted.iter().map(|value| format!("'{value}'")).collect::<Vec<_>>().join(", ");
        match self {
            Self::Is(key, wanted) => format!("{key} == '{wanted}'"),
            Self::IsNot(key, wanted) => format!("{key} != \"{wanted}\""),
            Self::In(key, wanted) => format!("{key} in {{{}}}", list(wanted)),
            Self::NotIn(key, wanted) => format!("{key} not in {{ {} }}", list(wanted)),
            Self::Has(key) => format!("has({key})"),
            Self::HasNot(key) => format!("!has({key})"),
            Self::All => "all()".to_owned(),
        }
    }
}

impl Rule {
    fn matches(&self, packet: &Packet) -> bool {
        let to = packet.destination;
        let is_in = |ranges: &[(u16, u16)]| ranges.iter().any(|(first, last)| (first..=last).contains(&&packet.port));
        let number = match self.protocol {
            None => packet.protocol,
            Some("TCP") => 6,
            Some("UDP") => 17,
            Some("SCTP") => 132,
            Some("ICMP") => 1,
            Some("ICMPv6") => 58,
            Some(_) => 47,
        };
        number == packet.protocol
            && self.family.is_none_or(|family| (family == 4) == to.is_ipv4())
            && (self.nets.is_empty() || self.nets.iter().any(|net| net.contains(to)))
            && !self.not_nets.iter().any(|net| net.contains(to))
            && (self.ports.is_empty() || is_in(&self.ports))
            && !is_in(&self.not_ports)
            && (!self.is_by_selector || to == IpAddr::from([203, 0, 113, 77]))
            && self.icmp.is_none_or(|kind| kind == packet.port)
    }

    fn json(&self) -> Value {
        let mut rule = json!({"action": self.action});
        let texts = |nets: &[Prefix]| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
        let ports = |ranges: &[(u16, u16)]| -> Value {
            let one = |(first, last): &(u16, u16)| {
                if first == last { json!(first) } else { json!(format!("{first}:{last}")) }
            };
            ranges.iter().map(one).collect()
        };
        if let Some(family) = self.family {
            rule["ipVersion"] = family.into();
        }
        if let Some(protocol) = self.protocol {
            rule["protocol"] = if protocol == "47" { 47.into() } else { protocol.into() };
        }
        if let Some(kind) = self.icmp {
            rule["icmp"] = json!({"type": kind});
        }
        let mut to = json!({});
        for (name, nets) in [("nets", &self.nets), ("notNets", &self.not_nets)] {
            if !nets.is_empty() {
                to[name] = json!(texts(nets));
            }
        }
        for (name, ranges) in [("ports", &self.ports), ("notPorts", &self.not_ports)] {
            if !ranges.is_empty() {
                to[name] = ports(ranges);
            }
        }
        if self.is_by_selector {
            to["selector"] = "role == 'partner'".into();
        }
        if to != json!({}) {
            rule["destination"] = to;
        }
        rule
    }
}

fn part(random: &mut Random) -> Part {
    let (key, value) = (*random.pick(&["app", "tier"]), *random.pick(&["web", "db"]));
    match random.below(8) {
        0 => Part::IsNot(key, value),
        1 => Part::In(key, vec!["web", "db"]),
        2 => Part::NotIn(key, vec![value, "other"]),
        3 => Part::Has(key),
        4 => Part::HasNot(key),
        5 => Part::All,
        _ => Part::Is(key, value),
    }
}

fn rule(random: &mut Random) -> Rule {
    let some = |random: &mut Random, most: usize| -> Vec<Prefix> {
        (0..random.below(most)).map(|_| pool::prefix(random)).collect()
    };
    let protocol =
        *random.pick(&[None, Some("TCP"), Some("TCP"), Some("UDP"), Some("SCTP"), Some("ICMP"), Some("ICMPv6")]);
    let protocol = if random.chance(2) { Some("47") } else { protocol };
    let has_ports = matches!(protocol, Some("TCP" | "UDP" | "SCTP"));
    let ranges = |random: &mut Random, chance: usize| -> Vec<(u16, u16)> {
        let count = if has_ports && random.chance(chance) { random.between(1, 2) } else { 0 };
        (0..count).map(|_| pool::port_range(random)).collect()
    };
    let action = *random.pick(&["Allow", "Allow", "Allow", "Deny", "Deny", "Pass", "Log"]);
    let is_icmp = matches!(protocol, Some("ICMP" | "ICMPv6"));
    Rule {
        action: if action == "Log" && random.chance(60) { "Allow" } else { action },
        family: random.chance(15).then(|| *random.pick(&[4, 6])),
        protocol,
        nets: some(random, 3),
        not_nets: if random.chance(40) { some(random, 3) } else { Vec::new() },
        ports: ranges(random, 60),
        not_ports: ranges(random, 20),
        is_by_selector: random.chance(1),
        icmp: (is_icmp && random.chance(10)).then_some(8),
    }
}
