//! To network-policy-api's `ClusterNetworkPolicy`: our tiers Admin and Baseline as they are, and the policies of namespaces at the front of
//! the Baseline tier, for the pods of their namespace.
//!
//! Every policy begins with a Pass for pods, since prefixes there cover pods too, and here they are never judged. Priorities are numbered
//! anew, since a policy there has at most 25 rules and no two may have one priority.

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{AUDIT, Ports, Rule, Written, foreign, is_audit, object, rules, shorter};
use crate::document::Problem;
use crate::import::build::networks;
use crate::import::manifest::{Manifest, Spec};
use crate::import::report::{Judgement, Outcome, SourceProblem};
use crate::model::NAMESPACE_NAME_LABEL;
use crate::name::{NamePattern, Wildcard};
use crate::spec::{Action, ClusterTier, DEFAULT_PRIORITY, EgressRule, LabelSelector, MAX_PRIORITY, Protocol};

/// Most rules of a policy, destinations of a rule and prefixes of a destination.
const MOST: usize = 25;
const BASELINE: &str =
    "stands in the Baseline tier there: for pods that a NetworkPolicy isolates, that decides before it";
const PORT_ZERO: &str = "every port of a protocol is 1 to 65535 there, without port 0";

pub(super) fn write(objects: &[Manifest], written: &mut Written) {
    let (mut admin, mut namespaced, mut baseline) = (Vec::new(), Vec::new(), Vec::new());
    for object in objects {
        let (accounts, priority, tier) = match &object.spec {
            Spec::Policy(spec) => (&spec.service_accounts, spec.priority, &mut namespaced),
            Spec::Cluster(spec) if spec.tier == ClusterTier::Admin => {
                (&spec.service_accounts, spec.priority, &mut admin)
            }
            Spec::Cluster(spec) => (&spec.service_accounts, spec.priority, &mut baseline),
            Spec::Config(_) | Spec::Foreign(_) => continue,
        };
        if is_audit(object) {
            written.leave_out(object, AUDIT);
        } else if accounts.is_some() {
            written.leave_out(object, "there are no service accounts; a policy for some of them is left out");
        } else {
            tier.push((priority.unwrap_or(DEFAULT_PRIORITY), object));
        }
    }
    for tier in [&mut admin, &mut namespaced, &mut baseline] {
        tier.sort_by_key(|(priority, object)| (*priority, &object.metadata.name, &object.metadata.namespace));
    }
    write_tier("Admin", admin.into_iter().map(|(_, object)| object), written);
    write_tier("Baseline", namespaced.into_iter().chain(baseline).map(|(_, object)| object), written);
}

fn write_tier<'m>(tier: &str, policies: impl Iterator<Item = &'m Manifest>, written: &mut Written) {
    let mut priority = 0_u16;
    for object in policies {
        let name = match &object.metadata.namespace {
            Some(namespace) => format!("{namespace}-{}", object.metadata.name),
            None => object.metadata.name.clone(),
        };
        let name = written.name_apart(&name);
        let mut list = vec![json!({ "name": "pods are not judged", "action": "Pass", "to": [{ "namespaces": {} }] })];
        for rule in rules(object) {
            let (mut judgement, said) = say(rule);
            if matches!(object.spec, Spec::Policy(_)) {
                judgement.add(Outcome::Exact, BASELINE);
            }
            let into = if said.is_empty() { Vec::new() } else { vec![format!("ClusterNetworkPolicy {name}")] };
            list.extend(said);
            written.said(rule, judgement, into);
        }
        for (chunk, number) in list.chunks(MOST).zip(1..) {
            if priority > MAX_PRIORITY {
                written.report.problems.push(too_many(object, tier));
                break;
            }
            let name = if number == 1 { name.clone() } else { written.name_apart(&format!("{name}-part-{number}")) };
            let spec = json!({ "tier": tier, "priority": priority, "subject": subject(object), "egress": chunk });
            written.objects.push(foreign(
                "policy.networking.k8s.io/v1alpha2",
                "ClusterNetworkPolicy",
                None,
                &name,
                spec,
            ));
            priority += 1;
        }
    }
}

fn too_many(object: &Manifest, tier: &str) -> SourceProblem {
    let problem = Problem {
        document: 0,
        object: Some(object.title()),
        path: String::new(),
        line: None,
        message: format!("there is no priority left for it in the tier {tier}, and its rules are left out"),
        hint: "write fewer and larger policies".to_owned(),
    };
    SourceProblem { source: String::new(), problem }
}

fn subject(object: &Manifest) -> Value {
    let named = |namespace: &str| {
        let mut selector = LabelSelector::default();
        selector.match_labels.insert(NAMESPACE_NAME_LABEL.to_owned(), namespace.to_owned());
        selector
    };
    let (namespaces, pods) = match &object.spec {
        Spec::Policy(spec) => {
            (named(object.metadata.namespace.as_deref().unwrap_or("default")), spec.pod_selector.clone())
        }
        Spec::Cluster(spec) => (spec.namespace_selector.clone().unwrap_or_default(), spec.pod_selector.clone()),
        Spec::Config(_) | Spec::Foreign(_) => (LabelSelector::default(), None),
    };
    match pods {
        Some(pods) => json!({ "pods": { "namespaceSelector": namespaces, "podSelector": pods } }),
        None => json!({ "namespaces": namespaces }),
    }
}

/// The rule there; several if it has more destinations than one may have.
fn say(rule: Rule<'_>) -> (Judgement, Vec<Value>) {
    let mut judgement = Judgement::exact();
    let protocols = protocols(rule.said, &mut judgement);
    if matches!(protocols, Ports::Nothing) {
        return (judgement, Vec::new());
    }
    let peers = match (networks(rule.said), &rule.said.to.dns_name, &rule.said.to.node_selector) {
        (Some(networks), _, _) => networks.chunks(MOST).map(networks_peer).collect(),
        (None, Some(name), _) => domain_name(name, rule.said.action, &mut judgement),
        (None, None, nodes) => vec![json!({ "nodes": nodes.clone().unwrap_or_default() })],
    };
    let action = if rule.said.action == Action::Allow { "Accept" } else { rule.said.action.name() };
    let name = rule.said.name.as_ref().map(|name| name.chars().take(100).collect::<String>().into());
    let said = |to: &[Value]| {
        object([
            ("name", name.clone()),
            ("action", Some(action.into())),
            ("to", Some(json!(to))),
            ("protocols", protocols.field()),
        ])
    };
    let rules = peers.chunks(MOST).map(said).collect();
    (judgement, rules)
}

fn networks_peer(networks: &[IpNet]) -> Value {
    json!({ "networks": networks.iter().map(ToString::to_string).collect::<Vec<_>>() })
}

fn domain_name(text: &str, action: Action, judgement: &mut Judgement) -> Vec<Value> {
    let name = NamePattern::parse(text).ok();
    let sayable =
        name.filter(|name| action == Action::Allow && name.wildcard != Wildcard::OneLabel && name.name.contains('.'));
    let Some(name) =
        sayable.filter(|name| !name.name.split('.').any(|label| label.starts_with('_') || label.ends_with('_')))
    else {
        let why = format!(
            "{text} cannot be a domain name there (Allow only, two labels or more, a wildcard for any number of them); the rule is left out"
        );
        judgement.add(shorter(action), why);
        return Vec::new();
    };
    let front = if name.wildcard == Wildcard::AnyDepth { "*." } else { "" };
    vec![json!({ "domainNames": [format!("{front}{}", name.name)] })]
}

fn protocols(rule: &EgressRule, judgement: &mut Judgement) -> Ports {
    let Some(ports) = rule.ports.as_ref().filter(|ports| ports.iter().all(|port| port.protocol != Protocol::Any))
    else {
        return Ports::Any;
    };
    let mut said = Vec::new();
    for port in ports {
        let name = match port.protocol {
            Protocol::TCP => "tcp",
            Protocol::UDP => "udp",
            Protocol::SCTP => "sctp",
            Protocol::ICMP | Protocol::ICMPv6 | Protocol::Any => {
                judgement.add(shorter(rule.action), "ICMP cannot be said there and is left out");
                continue;
            }
        };
        if port.port.is_none() {
            judgement.add(Outcome::Exact, PORT_ZERO);
        }
        let (first, last) = port.port.map_or((1, u16::MAX), |first| (first, port.end_port.unwrap_or(first)));
        let ports = if first == last {
            json!({ "number": first })
        } else {
            json!({ "range": { "start": first, "end": last } })
        };
        said.push(json!({ name: { "destinationPort": ports } }));
    }
    if said.len() > MOST {
        judgement.add(shorter(rule.action), "a rule has at most 25 ports there; the others are left out");
        said.truncate(MOST);
    }
    Ports::of(said)
}
