//! network-policy-api's `ClusterNetworkPolicy`, the egress part. See docs/import/cnp.md.
//!
//! Tier, priority, subject, and first match inside a policy are ours; `*.` stands for any depth of labels, which is `**.` here. A Pass in
//! the Baseline tier ends at what happens without any policy, and so is an Allow. Pods and namespaces as destinations are inside the
//! cluster, where nothing is judged.

use std::collections::BTreeMap;

use super::Import;
use super::build::{ports as port_range, rule, to_cidr, to_name, to_nodes};
use super::draft::Draft;
use super::gather::Foreign;
use super::kind::{Api, Kind};
use super::report::{INGRESS, INSIDE, Judgement, NAMED_PORT, Outcome, Place};
use crate::document::{Fields, Node, Report as Reader, Value};
use crate::name::{NamePattern, Wildcard};
use crate::spec::{
    Action, ClusterEgressPolicySpec, ClusterTier, EgressPeer, EgressPort, EgressRule, LabelSelector, MAX_PRIORITY,
    Protocol,
};

pub(super) const KIND: Kind = Kind {
    name: "cnp",
    title: "network-policy-api ClusterNetworkPolicy (egress)",
    apis: &[Api { versions: &["policy.networking.k8s.io/v1alpha2"], kind: "ClusterNetworkPolicy", fields: &["spec"] }],
    convert,
    list: None,
};

const BASELINE_PASS: &str =
    "in the Baseline tier nothing follows a Pass but the default, which lets through; written as Allow";

/// A policy, without what comes in.
struct Policy {
    tier: ClusterTier,
    priority: u16,
    namespaces: LabelSelector,
    pods: LabelSelector,
    /// Where it speaks of ingress.
    ingress: Option<Place>,
    egress: Vec<(Place, Rule)>,
}

struct Rule {
    action: Action,
    name: Option<String>,
    peers: Vec<EgressPeer>,
    /// None means any; empty, that only ports by name were given.
    ports: Option<Vec<EgressPort>>,
    judgement: Judgement,
    words: String,
}

fn convert(objects: &[&Foreign<'_>], import: &mut Import<'_>) {
    let mut policies = Vec::new();
    for object in objects {
        policies.extend(import.read(object, read).map(|policy| (*object, policy)));
    }
    let mut priorities: BTreeMap<(ClusterTier, u16), usize> = BTreeMap::new();
    for (_, policy) in policies.iter().filter(|(_, policy)| !policy.egress.is_empty()) {
        *priorities.entry((policy.tier, policy.priority)).or_default() += 1;
    }
    for (object, policy) in policies {
        let shared = priorities.get(&(policy.tier, policy.priority)).is_some_and(|count| *count > 1);
        write(object, policy, shared, import);
    }
}

fn write(object: &Foreign<'_>, policy: Policy, shared: bool, import: &mut Import<'_>) {
    if let Some(place) = &policy.ingress {
        import.row(object, place, "ingress", Judgement::of(Outcome::NotExpressed, INGRESS));
    }
    let mut draft = Draft::default();
    for (place, mut said) in policy.egress {
        if shared {
            let why = format!(
                "another policy has priority {} too: there any of them may come first, here their names decide",
                policy.priority
            );
            said.judgement.add(Outcome::Exact, why);
        }
        let (words, judgement, rules) = said.convert(policy.tier);
        draft.add(object, &place, words, judgement, rules);
    }
    if draft.is_empty() {
        return import.said(draft);
    }
    let some = |selector: LabelSelector| (selector != LabelSelector::default()).then_some(selector);
    let spec = ClusterEgressPolicySpec {
        tier: policy.tier,
        egress: Vec::new(),
        namespace_selector: some(policy.namespaces),
        pod_selector: some(policy.pods),
        service_accounts: None,
        priority: Some(policy.priority),
        mode: None,
    };
    import.cluster_policy(draft, &object.name, spec);
}

impl Rule {
    fn convert(mut self, tier: ClusterTier) -> (String, Judgement, Vec<EgressRule>) {
        let action = match (self.action, tier) {
            (Action::Pass, ClusterTier::Baseline) => {
                self.judgement.add(Outcome::Exact, BASELINE_PASS);
                Action::Allow
            }
            (action, _) => action,
        };
        // Ports that are all names match nothing outside of the cluster.
        let peers = if self.ports.as_ref().is_some_and(Vec::is_empty) { Vec::new() } else { self.peers };
        let (ports, name) = (self.ports, self.name);
        let rules =
            peers.into_iter().map(|peer| EgressRule { name: name.clone(), ..rule(action, peer, ports.clone()) });
        (self.words, self.judgement, rules.collect())
    }
}

fn read<'n>(reader: &mut Reader<'n>, object: Fields<'n>) -> Option<Policy> {
    reader.required(object, "spec", "add a spec with tier, priority, subject and egress", |reader, node| {
        let fields = reader.fields(node, &["tier", "priority", "subject", "ingress", "egress"])?;
        let tiers = [("Admin", ClusterTier::Admin), ("Baseline", ClusterTier::Baseline)];
        let tier =
            reader.required(fields, "tier", "write Admin or Baseline", |reader, node| reader.choice(node, &tiers));
        let priority = reader.required(fields, "priority", "write a number from 0 to 1000", |reader, node| {
            reader.number(node, 0..=MAX_PRIORITY)
        });
        let subject = reader.required(fields, "subject", "write namespaces or pods", |reader, node| {
            reader.one_of(node, &["namespaces", "pods"], |reader, name, node| match name {
                "pods" => reader.pods(node),
                _ => Some((reader.selector(node)?, LabelSelector::default())),
            })
        });
        let is_there = |node: &&Node| !matches!(&node.value, Value::List(items) if items.is_empty());
        let ingress = fields.get("ingress").filter(is_there).map(|_| reader.within("ingress", |reader| reader.here()));
        let egress = reader.optional(fields, "egress", |reader, node| reader.placed(node, egress_rule));
        let (namespaces, pods) = subject?;
        Some(Policy { tier: tier?, priority: priority?, namespaces, pods, ingress, egress: egress.unwrap_or_default() })
    })
}

fn egress_rule<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Rule> {
    let fields = reader.fields(node, &["name", "action", "to", "protocols"])?;
    let actions = [("Accept", Action::Allow), ("Deny", Action::Deny), ("Pass", Action::Pass)];
    let action =
        reader.required(fields, "action", "write Accept, Deny or Pass", |reader, node| reader.choice(node, &actions));
    let name = reader.optional(fields, "name", Reader::rule_name);
    let mut judgement = Judgement::exact();
    let peers = reader.required(fields, "to", "list the destinations", |reader, node| {
        let peers = reader.filled_list(node, |reader, node| peer(reader, node, action, &mut judgement))?;
        Some(peers.into_iter().flatten().collect::<Vec<_>>())
    });
    let ports = reader.optional(fields, "protocols", |reader, node| {
        let ports = reader.filled_list(node, protocol)?;
        if ports.iter().any(Option::is_none) {
            judgement.add(Outcome::NotExpressed, NAMED_PORT);
        }
        Some(ports.into_iter().flatten().collect())
    });
    let (action, peers) = (action?, peers?);
    let words = words(action, &peers, ports.as_deref());
    Some(Rule { action, name: name.map(str::to_owned), peers, ports, judgement, words })
}

fn words(action: Action, peers: &[EgressPeer], ports: Option<&[EgressPort]>) -> String {
    let to: Vec<String> = peers.iter().map(EgressPeer::words).collect();
    let to = if to.is_empty() { "pods".to_owned() } else { to.join(",") };
    super::build::words(action, &to, ports).replacen("Allow", "Accept", 1)
}

/// The destinations of one element of `to`.
fn peer<'n>(
    reader: &mut Reader<'n>,
    node: &'n Node,
    action: Option<Action>,
    judgement: &mut Judgement,
) -> Option<Vec<EgressPeer>> {
    reader.one_of(node, &["namespaces", "pods", "nodes", "networks", "domainNames"], |reader, name, node| match name {
        "namespaces" => reader.selector(node).map(|_| inside(judgement)),
        "pods" => reader.pods(node).map(|_| inside(judgement)),
        "nodes" => reader.selector(node).map(|nodes| vec![to_nodes(nodes)]),
        "networks" => reader.filled_list(node, |reader, node| reader.cidr(node).map(to_cidr)),
        _ => {
            if matches!(action, Some(Action::Deny | Action::Pass)) {
                reader.problem("domainNames are possible only in Accept rules", "use networks");
            }
            let names = reader.filled_list(node, |reader, node| domain_name(reader, node, judgement))?;
            Some(names.into_iter().flatten().map(|name| to_name(&name)).collect())
        }
    })
}

fn inside(judgement: &mut Judgement) -> Vec<EgressPeer> {
    judgement.add(Outcome::NotExpressed, INSIDE);
    Vec::new()
}

/// A name; `*.` is one label or more there. The inner `None` is a name that rules of ours cannot have.
fn domain_name<'n>(reader: &mut Reader<'n>, node: &'n Node, judgement: &mut Judgement) -> Option<Vec<NamePattern>> {
    let text = reader.text(node)?;
    match NamePattern::parse(text) {
        Ok(name) if name.wildcard == Wildcard::AnyDepth => {
            reader.problem("** is not possible in a ClusterNetworkPolicy", "write *. for any number of labels");
            None
        }
        Ok(name) if name.wildcard == Wildcard::OneLabel => {
            Some(vec![NamePattern { wildcard: Wildcard::AnyDepth, ..name }])
        }
        Ok(name) => Some(vec![name]),
        Err(error) => {
            judgement.add(Outcome::Narrower, format!("{text:?} cannot be a dnsName here: {error}; it is left out"));
            Some(Vec::new())
        }
    }
}

/// A protocol with its ports; `None` stands for a port name.
type Ports = Option<EgressPort>;

fn protocol<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Ports> {
    reader.one_of(node, &["tcp", "udp", "sctp", "destinationNamedPort"], |reader, name, node| {
        let protocol = match name {
            "tcp" => Protocol::TCP,
            "udp" => Protocol::UDP,
            "sctp" => Protocol::SCTP,
            _ => return reader.text(node).map(|_| None),
        };
        reader.one_of(node, &["destinationPort"], |reader, _, node| {
            reader.one_of(node, &["number", "range"], |reader, name, node| {
                if name == "number" {
                    return reader.number(node, 1..=u16::MAX).map(|port| Some(port_range(protocol, port, port)));
                }
                let fields = reader.fields(node, &["start", "end"])?;
                let mut end = |name| {
                    reader.required(fields, name, "write a port", |reader, node| reader.number(node, 1..=u16::MAX))
                };
                let (first, last) = (end("start"), end("end"));
                let (first, last) = (first?, last?);
                if first >= last {
                    reader.problem(
                        format!("the range {first} to {last} does not rise"),
                        "write start below end, or number",
                    );
                    return None;
                }
                Some(Some(port_range(protocol, first, last)))
            })
        })
    })
}

impl<'n> Reader<'n> {
    /// `namespaceSelector` and `podSelector`.
    fn pods(&mut self, node: &'n Node) -> Option<(LabelSelector, LabelSelector)> {
        let fields = self.fields(node, &["namespaceSelector", "podSelector"])?;
        let namespaces = self.optional(fields, "namespaceSelector", Self::selector).unwrap_or_default();
        let pods = self.required(fields, "podSelector", "write {} for every pod", Self::selector);
        Some((namespaces, pods?))
    }
}
