//! To OpenShift's and OVN-Kubernetes' objects: one for each namespace, for all its pods, with one list of rules.
//!
//! The policies of a namespace are put in one list in their order. Policies for some of the pods, and cluster policies, cannot be said.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{AUDIT, Ports, Rule, Target, Written, foreign, is_audit, object, rules, shorter};
use crate::document::DEFAULT_NAMESPACE;
use crate::import::build::networks;
use crate::import::manifest::{Manifest, Spec};
use crate::import::report::{Judgement, Outcome};
use crate::name::{NamePattern, Wildcard};
use crate::spec::{DEFAULT_PRIORITY, EgressNetworkPolicySpec, EgressPort, EgressRule, MAX_RULES, Protocol};

/// Most rules of OpenShift's object.
const OPENSHIFT_RULES: usize = 1000;
/// Longest range of ports that is written port by port.
const MOST_PORTS: u16 = 64;

pub(super) fn write(objects: &[Manifest], written: &mut Written) {
    let mut namespaces: BTreeMap<Option<&str>, Vec<(u16, &Manifest)>> = BTreeMap::new();
    for object in objects {
        match &object.spec {
            _ if is_audit(object) => written.leave_out(object, AUDIT),
            Spec::Cluster(_) => {
                written.leave_out(object, "there are no policies for several namespaces; it is left out");
            }
            Spec::Policy(spec) if spec.pod_selector.is_some() || spec.service_accounts.is_some() => {
                written.leave_out(
                    object,
                    "its object is for every pod of a namespace; a policy for some of them is left out",
                );
            }
            Spec::Policy(EgressNetworkPolicySpec { priority, .. }) => {
                let policies = namespaces.entry(object.metadata.namespace.as_deref()).or_default();
                policies.push((priority.unwrap_or(DEFAULT_PRIORITY), object));
            }
            Spec::Config(_) | Spec::Foreign(_) => {}
        }
    }
    join_default(&mut namespaces);
    for (namespace, mut policies) in namespaces {
        if written.target == Target::OpenShift && namespace == Some("default") {
            for (_, object) in policies {
                written.leave_out(object, "OpenShift ignores an EgressNetworkPolicy in the project default");
            }
            continue;
        }
        policies.sort_by_key(|(priority, object)| (*priority, &object.metadata.name));
        namespace_object(namespace, policies.into_iter().map(|(_, object)| object), written);
    }
}

/// Objects that name no namespace are read as of the default one, so they stand in one list with those that name it.
fn join_default<T>(namespaces: &mut BTreeMap<Option<&str>, Vec<T>>) {
    if namespaces.contains_key(&Some(DEFAULT_NAMESPACE)) {
        let nowhere = namespaces.remove(&None).unwrap_or_default();
        namespaces.entry(Some(DEFAULT_NAMESPACE)).or_default().extend(nowhere);
    }
}

fn namespace_object<'m>(namespace: Option<&str>, policies: impl Iterator<Item = &'m Manifest>, written: &mut Written) {
    let (api_version, kind) = match written.target {
        Target::OpenShift => ("network.openshift.io/v1", "EgressNetworkPolicy"),
        Target::Ovn | Target::Cnp => ("k8s.ovn.org/v1", "EgressFirewall"),
    };
    let mut object = foreign(api_version, kind, namespace.map(str::to_owned), "default", Value::Null);
    let title = object.title();
    let most = if written.target == Target::OpenShift { OPENSHIFT_RULES } else { MAX_RULES };
    let mut list: Vec<Value> = Vec::new();
    for rule in policies.flat_map(rules) {
        let (mut judgement, mut said) = say(rule, written.target);
        if list.len() + said.len() > most {
            judgement.add(shorter(rule.said.action), "the object has no room for more rules; it is left out");
            said.clear();
        }
        let into = match said.len() {
            0 => Vec::new(),
            1 => vec![format!("rule {} of {title}", list.len() + 1)],
            several => vec![format!("rules {}-{} of {title}", list.len() + 1, list.len() + several)],
        };
        list.extend(said);
        written.said(rule, judgement, into);
    }
    object.spec = Spec::Foreign(json!({ "egress": list }));
    written.objects.push(object);
}

/// A rule in the words of the target, one for each destination.
fn say(rule: Rule<'_>, target: Target) -> (Judgement, Vec<Value>) {
    let mut judgement = Judgement::exact();
    let shorter = shorter(rule.said.action);
    let ports = ports(rule.said, target, &mut judgement);
    if matches!(ports, Ports::Nothing) {
        return (judgement, Vec::new());
    }
    let peers = match (networks(rule.said), &rule.said.to.dns_name, &rule.said.to.node_selector) {
        (Some(networks), _, _) => cidrs(&networks, target, shorter, &mut judgement),
        (None, Some(name), _) => name_of(name, target, shorter, &mut judgement),
        (None, None, Some(nodes)) if target == Target::Ovn => vec![json!({ "nodeSelector": nodes })],
        (None, None, _) => {
            judgement.add(shorter, "OpenShift has no nodeSelector; the rule is left out");
            Vec::new()
        }
    };
    let action = rule.said.action.name();
    let rules =
        peers.into_iter().map(|to| object([("type", Some(action.into())), ("ports", ports.field()), ("to", Some(to))]));
    (judgement, rules.collect())
}

fn cidrs(networks: &[IpNet], target: Target, shorter: Outcome, judgement: &mut Judgement) -> Vec<Value> {
    let mut said = Vec::new();
    for network in networks {
        if target == Target::OpenShift && network.addr().is_ipv6() {
            judgement.add(Outcome::NotExpressed, "OpenShift's network is IPv4; IPv6 is left out");
        } else if target == Target::OpenShift && network.addr().is_unspecified() && network.prefix_len() == 32 {
            judgement.add(shorter, "OpenShift reads 0.0.0.0/32 as every address; it is left out");
        } else {
            said.push(json!({ "cidrSelector": network.to_string() }));
        }
    }
    said
}

fn name_of(text: &str, target: Target, shorter: Outcome, judgement: &mut Judgement) -> Vec<Value> {
    let Ok(mut name) = NamePattern::parse(text) else { return Vec::new() };
    let unsayable = name.name.contains('_') || (target == Target::OpenShift && name.wildcard != Wildcard::Exact);
    if unsayable {
        judgement.add(shorter, format!("{text} cannot be a dnsName there; the rule is left out"));
        return Vec::new();
    }
    if name.wildcard == Wildcard::AnyDepth {
        judgement.add(shorter, format!("{text} is any number of labels, and there a wildcard is one"));
        name.wildcard = Wildcard::OneLabel;
    }
    vec![json!({ "dnsName": name.to_string() })]
}

fn ports(rule: &EgressRule, target: Target, judgement: &mut Judgement) -> Ports {
    let Some(ports) = rule.ports.as_ref().filter(|ports| ports.iter().all(|port| port.protocol != Protocol::Any))
    else {
        return Ports::Any;
    };
    let shorter = shorter(rule.action);
    if target == Target::OpenShift {
        judgement.add(shorter, "OpenShift has no ports; the rule is left out");
        return Ports::Nothing;
    }
    let mut said = Vec::new();
    for port in ports {
        match numbers(port) {
            Some(numbers) => said.extend(numbers.map(|number| json!({ "protocol": port.protocol, "port": number }))),
            None => judgement
                .add(shorter, "only single ports of TCP, UDP and SCTP can be said there; the others are left out"),
        }
    }
    Ports::of(said)
}

fn numbers(port: &EgressPort) -> Option<std::ops::RangeInclusive<u16>> {
    let first = port.port?;
    let last = port.end_port.unwrap_or(first);
    (last.checked_sub(first)? < MOST_PORTS).then_some(first..=last)
}
