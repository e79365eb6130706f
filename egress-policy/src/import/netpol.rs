//! Kubernetes' `NetworkPolicy`, the egress part. See docs/import/networkpolicy.md.
//!
//! There a pod that any policy isolates may do what any of them allows, and nothing else. Here every policy becomes its Allow rules, and
//! a Deny of everything for the same pods after the Allow rules of all policies of the namespace. Pods and namespaces as destinations
//! are inside the cluster, where nothing is judged.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::build::{EVERYTHING, everything, ports as port_range, protocol, rule, to_cidr, to_cidr_except, words};
use super::draft::Draft;
use super::gather::Foreign;
use super::kind::{Api, Kind};
use super::report::{INGRESS, INSIDE, Judgement, NAMED_PORT, Outcome, Place};
use super::{Import, policy_spec};
use crate::document::{Fields, Node, Report as Reader, Value};
use crate::spec::{Action, EgressNetworkPolicySpec, EgressPort, EgressRule, LabelSelector, MAX_PRIORITY, Protocol};

pub(super) const KIND: Kind = Kind {
    name: "networkpolicy",
    title: "Kubernetes NetworkPolicy (egress)",
    apis: &[Api { versions: &["networking.k8s.io/v1"], kind: "NetworkPolicy", fields: &["spec"] }],
    convert,
    list: None,
};

/// The egress part of a policy.
struct Egress {
    pods: LabelSelector,
    /// Where it says that it isolates; none if it says nothing of egress.
    isolates: Option<Place>,
    /// Where it speaks of ingress.
    ingress: Option<Place>,
    rules: Vec<(Place, Allowed)>,
}

/// One egress rule.
struct Allowed {
    /// The destinations; none means any.
    blocks: Option<Vec<(IpNet, Vec<IpNet>)>>,
    ports: Option<Vec<EgressPort>>,
    judgement: Judgement,
}

fn convert(objects: &[&Foreign<'_>], import: &mut Import<'_>) {
    let mut namespaces: BTreeMap<Option<&str>, Vec<(&Foreign<'_>, Egress)>> = BTreeMap::new();
    for object in objects {
        let Some(egress) = import.read(object, read) else { continue };
        if let Some(place) = &egress.ingress {
            import.row(object, place, "ingress", Judgement::of(Outcome::NotExpressed, INGRESS));
        }
        if egress.isolates.is_some() {
            namespaces.entry(object.namespace.as_deref()).or_default().push((object, egress));
        }
    }
    for policies in namespaces.into_values() {
        let alone = policies.len() == 1;
        for (object, egress) in policies {
            policy(object, egress, alone, import);
        }
    }
}

/// Writes the Allow rules and the Deny of everything; in one object if no other policy of the namespace may allow more in between.
fn policy(object: &Foreign<'_>, egress: Egress, alone: bool, import: &mut Import<'_>) {
    let spec = EgressNetworkPolicySpec {
        pod_selector: (egress.pods != LabelSelector::default()).then_some(egress.pods),
        ..policy_spec()
    };
    let mut draft = Draft::default();
    for (place, allowed) in egress.rules {
        let words = allowed.words();
        let (judgement, rules) = allowed.convert();
        draft.add(object, &place, words, judgement, rules);
    }
    let last = MAX_PRIORITY;
    let (namespace, place) = (object.namespace.as_deref(), egress.isolates.unwrap_or_default());
    let deny = |draft: &mut Draft| {
        draft.add(object, &place, "nothing else", Judgement::exact(), everything(Action::Deny, None));
    };
    if alone {
        deny(&mut draft);
        return import.policy(draft, namespace, &object.name, spec);
    }
    if draft.is_empty() {
        import.said(draft);
    } else {
        import.policy(draft, namespace, &object.name, spec.clone());
    }
    let mut draft = Draft::default();
    deny(&mut draft);
    let name = format!("{}-nothing-else", object.name);
    import.policy(draft, namespace, &name, EgressNetworkPolicySpec { priority: Some(last), ..spec });
}

impl Allowed {
    fn words(&self) -> String {
        let to = match &self.blocks {
            None => "everything".to_owned(),
            Some(blocks) if blocks.is_empty() => "pods".to_owned(),
            Some(blocks) => blocks.iter().map(|(cidr, _)| cidr.to_string()).collect::<Vec<_>>().join(","),
        };
        words(Action::Allow, &to, self.ports.as_deref())
    }

    fn convert(self) -> (Judgement, Vec<EgressRule>) {
        if self.ports.as_ref().is_some_and(Vec::is_empty) {
            return (self.judgement, Vec::new());
        }
        let peers = match self.blocks {
            None => EVERYTHING.map(to_cidr).to_vec(),
            Some(blocks) => blocks.iter().map(|(cidr, except)| to_cidr_except(*cidr, except)).collect(),
        };
        (self.judgement, peers.into_iter().map(|peer| rule(Action::Allow, peer, self.ports.clone())).collect())
    }
}

fn read<'n>(reader: &mut Reader<'n>, object: Fields<'n>) -> Option<Egress> {
    reader.required(object, "spec", "add a spec with podSelector", |reader, node| {
        let spec = reader.here();
        let fields = reader.fields(node, &["podSelector", "policyTypes", "ingress", "egress"])?;
        let pods = reader.optional(fields, "podSelector", Reader::selector).unwrap_or_default();
        let types = reader.optional(fields, "policyTypes", |reader, node| {
            let choices = [("Ingress", false), ("Egress", true)];
            let types = reader.list(node, |reader, node| reader.choice(node, &choices))?;
            Some((reader.here(), types))
        });
        let ingress = fields.get("ingress").map(|_| reader.within("ingress", |reader| reader.here()));
        let rules = reader.optional(fields, "egress", |reader, node| reader.placed(node, allowed)).unwrap_or_default();
        // What the API server fills in: always Ingress, and Egress where there are egress rules.
        let (place, egress, ingress) = match types {
            Some((place, types)) if !types.is_empty() => {
                let speaks = types.contains(&false);
                (place.clone(), types.contains(&true), speaks.then_some(place))
            }
            _ => (spec.clone(), !rules.is_empty(), Some(ingress.unwrap_or(spec))),
        };
        Some(Egress {
            pods,
            isolates: egress.then_some(place),
            ingress,
            rules: if egress { rules } else { Vec::new() },
        })
    })
}

fn allowed<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Allowed> {
    let fields = reader.fields(node, &["to", "ports"])?;
    let mut judgement = Judgement::exact();
    let peers = reader.optional(fields, "to", |reader, node| reader.list(node, peer)).filter(|peers| !peers.is_empty());
    let blocks = peers.map(|peers| {
        if peers.iter().any(Option::is_none) {
            judgement.add(Outcome::NotExpressed, INSIDE);
        }
        peers.into_iter().flatten().collect()
    });
    let ports =
        reader.optional(fields, "ports", |reader, node| reader.list(node, port)).filter(|ports| !ports.is_empty());
    let ports = ports.map(|ports| {
        if ports.iter().any(Option::is_none) {
            judgement.add(Outcome::NotExpressed, NAMED_PORT);
        }
        ports.into_iter().flatten().collect()
    });
    Some(Allowed { blocks, ports, judgement })
}

/// A destination; the inner `None` stands for pods and namespaces.
type Block = Option<(IpNet, Vec<IpNet>)>;

fn peer<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Block> {
    let fields = reader.fields(node, &["ipBlock", "podSelector", "namespaceSelector"])?;
    let pods = reader.optional(fields, "podSelector", Reader::selector);
    let namespaces = reader.optional(fields, "namespaceSelector", Reader::selector);
    let block = reader.optional(fields, "ipBlock", |reader, node| {
        let fields = reader.fields(node, &["cidr", "except"])?;
        let cidr = reader.required(fields, "cidr", "write a prefix", Reader::cidr);
        let except = reader.optional(fields, "except", |reader, node| reader.except(node, cidr));
        Some((cidr?, except.unwrap_or_default()))
    });
    match (block, pods.is_some() || namespaces.is_some()) {
        (Some(block), false) => Some(Some(block)),
        (None, true) if fields.get("ipBlock").is_none() => Some(None),
        (None, _) if fields.get("ipBlock").is_some() => None,
        _ => {
            reader.problem("names no destination, or an ipBlock together with pods", "write one of them");
            None
        }
    }
}

/// A port; `None` stands for a port name.
type Port = Option<EgressPort>;

fn port<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Port> {
    let fields = reader.fields(node, &["protocol", "port", "endPort"])?;
    let protocols = [("TCP", Protocol::TCP), ("UDP", Protocol::UDP), ("SCTP", Protocol::SCTP)];
    let named = reader.optional(fields, "protocol", |reader, node| reader.choice(node, &protocols));
    let of = if fields.get("protocol").is_some() { named? } else { Protocol::TCP };
    if let Some(Value::Text(name)) = fields.get("port").map(|node| &node.value)
        && name.parse::<u16>().is_err()
    {
        if fields.get("endPort").is_some() {
            reader.problem_at("endPort", "endPort needs a number as port", "remove it");
        }
        return Some(None);
    }
    let port = reader.optional(fields, "port", |reader, node| reader.number(node, 1..=u16::MAX));
    let end = reader.optional(fields, "endPort", |reader, node| reader.number(node, 1..=u16::MAX));
    match (port, end) {
        (None, None) if fields.get("port").is_none() && fields.get("endPort").is_none() => Some(Some(protocol(of))),
        (Some(first), None) if fields.get("endPort").is_none() => Some(Some(port_range(of, first, first))),
        (Some(first), Some(last)) if first <= last => Some(Some(port_range(of, first, last))),
        _ => {
            reader.problem("endPort needs port, and may not be below it", "correct the range");
            None
        }
    }
}
