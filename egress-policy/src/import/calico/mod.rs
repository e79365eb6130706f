//! Calico's `NetworkPolicy` and `GlobalNetworkPolicy`, the egress part of the default tier. See docs/import/calico.md.
//!
//! Policies by `order`, then name; the first rule that matches decides. What no rule of the policies of a pod matches is refused; a Pass
//! ends at the profile of the namespace, which lets out, and so is an Allow here.

mod rule;
mod selector;

use std::collections::BTreeMap;

use super::Import;
use super::build::everything;
use super::draft::Draft;
use super::gather::Foreign;
use super::kind::{Api, Kind};
use super::pods::Pods;
use super::report::{INGRESS, Judgement, Outcome, Place};
use crate::document::{Fields, Node, Report as Reader, Value};
use crate::spec::{Action, LabelSelector, MAX_PRIORITY};

use rule::Rule;

const VERSIONS: &[&str] = &["projectcalico.org/v3", "crd.projectcalico.org/v1"];
const GLOBAL: &str = "GlobalNetworkPolicy";

pub(super) const KIND: Kind = Kind {
    name: "calico",
    title: "Calico network policies (egress)",
    apis: &[
        Api { versions: VERSIONS, kind: "NetworkPolicy", fields: &["spec"] },
        Api { versions: VERSIONS, kind: GLOBAL, fields: &["spec"] },
    ],
    convert,
    list: None,
};

struct Policy {
    place: Place,
    /// Policies without an order come last.
    order: f64,
    /// Why it is left out, if it is.
    left_out: Option<(Outcome, String)>,
    pods: Pods,
    ingress: Option<Place>,
    /// The rules; none if it says nothing of egress.
    egress: Option<Vec<(Place, Rule)>>,
}

fn convert(objects: &[&Foreign<'_>], import: &mut Import<'_>) {
    let mut policies = Vec::new();
    for object in objects {
        let Some(policy) = import.read(object, read) else { continue };
        if let Some(place) = &policy.ingress {
            import.row(object, place, "ingress", Judgement::of(Outcome::NotExpressed, INGRESS));
        }
        let left_out = policy.left_out.clone().or_else(|| {
            let is_odd = object.api.kind != GLOBAL && policy.pods.namespaces != LabelSelector::default();
            is_odd.then(|| (Outcome::Wider, "a policy in a namespace asks for namespaces; it is left out".to_owned()))
        });
        match (left_out, policy.egress.is_some()) {
            (_, false) => {}
            (None, true) => policies.push((*object, policy)),
            (Some((outcome, why)), true) => {
                import.row(object, &policy.place, "every rule", Judgement::of(outcome, why));
            }
        }
    }
    policies.sort_by(|(a, one), (b, other)| {
        one.order.total_cmp(&other.order).then_with(|| (&a.name, &a.namespace).cmp(&(&b.name, &b.namespace)))
    });
    write(policies, import);
}

/// Writes the policies in their order. As soon as one is global all are cluster policies, since they are weighed together.
fn write(policies: Vec<(&Foreign<'_>, Policy)>, import: &mut Import<'_>) {
    let is_global = policies.iter().any(|(object, _)| object.api.kind == GLOBAL);
    let scope = |object: &Foreign<'_>| if is_global { None } else { object.namespace.clone() };
    let mut counts: BTreeMap<Option<String>, usize> = BTreeMap::new();
    for (object, _) in &policies {
        *counts.entry(scope(object)).or_default() += 1;
    }
    let mut priorities: BTreeMap<Option<String>, u16> = BTreeMap::new();
    for (object, policy) in policies {
        let is_alone = counts.get(&scope(object)) == Some(&1);
        let priority = priorities.entry(scope(object)).or_default();
        *priority += 1;
        if *priority >= MAX_PRIORITY {
            let why = format!("at most {} policies can be put in an order; it is left out", MAX_PRIORITY - 1);
            import.row(object, &policy.place, "every rule", Judgement::of(Outcome::Wider, why));
            continue;
        }
        let mut draft = Draft::default();
        for (place, rule) in policy.egress.unwrap_or_default() {
            let (words, judgement, rules) = rule.convert();
            draft.add(object, &place, words, judgement, rules);
        }
        let deny = |draft: &mut Draft| {
            draft.add(object, &policy.place, "nothing else", Judgement::exact(), everything(Action::Deny, None));
        };
        let mut one = |draft: Draft, suffix: &str, priority: Option<u16>| {
            write_one(object, policy.pods.clone(), draft, (suffix, priority, is_global), import);
        };
        if is_alone {
            deny(&mut draft);
            one(draft, "", None);
        } else {
            one(draft, "", Some(*priority));
            let mut draft = Draft::default();
            deny(&mut draft);
            one(draft, "-nothing-else", Some(MAX_PRIORITY));
        }
    }
}

fn write_one(
    object: &Foreign<'_>,
    pods: Pods,
    draft: Draft,
    (suffix, priority, is_global): (&str, Option<u16>, bool),
    import: &mut Import<'_>,
) {
    if draft.is_empty() {
        return import.said(draft);
    }
    let name = format!("{}{suffix}", object.name);
    match (is_global, object.api.kind == GLOBAL) {
        (false, _) => import.policy(draft, object.namespace.as_deref(), &name, pods.policy(priority)),
        (true, true) => import.cluster_policy(draft, &name, pods.baseline(priority)),
        (true, false) => {
            let namespace = object.namespace.as_deref().unwrap_or("default");
            let pods = pods.in_namespace(namespace);
            import.cluster_policy(draft, &format!("{namespace}-{name}"), pods.baseline(priority));
        }
    }
}

fn read<'n>(reader: &mut Reader<'n>, object: Fields<'n>) -> Option<Policy> {
    const FIELDS: [&str; 13] = [
        "tier",
        "order",
        "selector",
        "namespaceSelector",
        "serviceAccountSelector",
        "types",
        "ingress",
        "egress",
        "doNotTrack",
        "preDNAT",
        "applyOnForward",
        "performanceHints",
        "stagedAction",
    ];
    reader.required(object, "spec", "add a spec with selector and egress", |reader, node| {
        let place = reader.here();
        let fields = reader.fields(node, &FIELDS)?;
        let order = reader.optional(fields, "order", order).unwrap_or(f64::INFINITY);
        let (pods, mut left_out) = subject(reader, fields);
        let tier = reader.optional(fields, "tier", Reader::text).unwrap_or("default");
        if !["default", ""].contains(&tier) {
            left_out =
                Some((Outcome::Wider, format!("only the default tier is read, and this is {tier}; it is left out")));
        }
        let mut for_hosts = ["doNotTrack", "preDNAT"].into_iter();
        if for_hosts.any(|name| fields.get(name).is_some_and(|node| node.value == Value::Bool(true))) {
            left_out =
                Some((Outcome::NotExpressed, "it is for the interfaces of hosts, and only pods are judged".to_owned()));
        }
        let rules = reader.optional(fields, "egress", |reader, node| reader.placed(node, rule::read));
        let rules = rules.unwrap_or_default();
        let is_filled =
            |name| fields.get(name).is_some_and(|node| !matches!(&node.value, Value::List(items) if items.is_empty()));
        let choices = [("Ingress", false), ("Egress", true)];
        let types = reader
            .optional(fields, "types", |reader, node| reader.list(node, |reader, node| reader.choice(node, &choices)));
        // What the API fills in.
        let types = types.filter(|types| !types.is_empty()).unwrap_or_else(|| {
            match (is_filled("ingress"), is_filled("egress")) {
                (true, true) => vec![false, true],
                (false, true) => vec![true],
                (_, false) => vec![false],
            }
        });
        let ingress = is_filled("ingress").then(|| reader.within("ingress", |reader| reader.here()));
        let egress = types.contains(&true).then_some(rules);
        Some(Policy { place, order, left_out, pods, ingress, egress })
    })
}

/// The pods; with why the policy is left out, if they cannot be said.
fn subject<'n>(reader: &mut Reader<'n>, fields: Fields<'n>) -> (Pods, Option<(Outcome, String)>) {
    let mut pods = Pods::default();
    let mut wrong = None;
    for (name, is_of_namespace) in [("selector", false), ("namespaceSelector", true)] {
        let read = reader.optional(fields, name, |reader, node| {
            let text = reader.text(node)?;
            Some(selector::add(reader, text, is_of_namespace, &mut pods))
        });
        if let Some(Err(why)) = read {
            wrong = Some((Outcome::Wider, format!("{name}: {why}; the policy is left out")));
        }
    }
    if fields.get("serviceAccountSelector").is_some_and(|node| node.value != Value::Text(String::new())) {
        let why = "service accounts are chosen by name here and not by label; the policy is left out";
        wrong = Some((Outcome::Wider, why.to_owned()));
    }
    (pods, wrong)
}

fn order<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<f64> {
    if let Value::Number(text) = &node.value
        && let Ok(order) = text.parse::<f64>()
    {
        return Some(order);
    }
    reader.problem(format!("must be a number, not {}", node.kind()), "write a number, without quotes");
    None
}
