//! The order in which one set of rules is weighed, as priorities of ours. A policy that is alone has all of them in one object.

use std::collections::BTreeMap;

use super::{CLUSTERWIDE, Policy, Rule};
use crate::import::Import;
use crate::import::build::{everything, rule, to_nodes};
use crate::import::draft::Draft;
use crate::import::gather::Foreign;
use crate::import::pods::Pods;
use crate::import::report::{Judgement, Place};
use crate::spec::{Action, EgressPeer, EgressRule, LabelSelector};

/// A step of the evaluation, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    DenyNodes,
    AllowNodes,
    /// For isolated pods: no node but the ones that were allowed.
    NoOtherNodes,
    /// For others: what follows is not about nodes.
    OtherNodes,
    Deny,
    Allow,
    NothingElse,
}

impl Stage {
    const fn priority(self) -> u16 {
        match self {
            Self::DenyNodes => 100,
            Self::AllowNodes => 200,
            Self::NoOtherNodes => 300,
            Self::OtherNodes => 400,
            Self::Deny => 500,
            Self::Allow => 600,
            Self::NothingElse => 1000,
        }
    }

    /// What is put behind the name of a policy that is in several objects.
    const fn suffix(self) -> &'static str {
        match self {
            Self::DenyNodes => "deny-nodes",
            Self::AllowNodes => "allow-nodes",
            Self::NoOtherNodes => "no-other-nodes",
            Self::OtherNodes => "other-nodes",
            Self::Deny => "deny",
            Self::Allow => "allow",
            Self::NothingElse => "nothing-else",
        }
    }
}

/// What a source rule adds to a stage.
struct Part {
    stage: Stage,
    place: Place,
    words: String,
    judgement: Judgement,
    rules: Vec<EgressRule>,
}

type Weighed<'o, 'n> = (&'o Foreign<'n>, Pods, Policy);

/// Writes the policies. As soon as one is for the whole cluster all are weighed together, as cluster policies.
pub(super) fn write(policies: Vec<Weighed<'_, '_>>, import: &mut Import<'_>) {
    let is_clusterwide = policies.iter().any(|(object, _, _)| object.api.kind == CLUSTERWIDE);
    let scope = |object: &Foreign<'_>| if is_clusterwide { None } else { object.namespace.clone() };
    let mut counts: BTreeMap<Option<String>, usize> = BTreeMap::new();
    for (object, _, _) in &policies {
        *counts.entry(scope(object)).or_default() += 1;
    }
    for (object, pods, policy) in policies {
        let is_alone = counts.get(&scope(object)) == Some(&1);
        let mut parts = parts(policy);
        parts.sort_by_key(|part| part.stage);
        if is_alone {
            object_of(object, pods, None, parts, is_clusterwide, import);
            continue;
        }
        while let Some(stage) = parts.first().map(|part| part.stage) {
            let later = parts.split_off(parts.iter().take_while(|part| part.stage == stage).count());
            let of_stage = std::mem::replace(&mut parts, later);
            object_of(object, pods.clone(), Some(stage), of_stage, is_clusterwide, import);
        }
    }
}

fn object_of(
    object: &Foreign<'_>,
    pods: Pods,
    stage: Option<Stage>,
    parts: Vec<Part>,
    is_clusterwide: bool,
    import: &mut Import<'_>,
) {
    let mut draft = Draft::default();
    for part in parts {
        draft.add(object, &part.place, part.words, part.judgement, part.rules);
    }
    if draft.is_empty() {
        return import.said(draft);
    }
    let priority = stage.map(Stage::priority);
    let suffix = stage.map(|stage| format!("-{}", stage.suffix())).unwrap_or_default();
    let namespace = object.namespace.as_deref();
    match (is_clusterwide, object.api.kind == CLUSTERWIDE) {
        (false, _) => import.policy(draft, namespace, &format!("{}{suffix}", object.name), pods.policy(priority)),
        (true, true) => import.cluster_policy(draft, &format!("{}{suffix}", object.name), pods.baseline(priority)),
        (true, false) => {
            // The namespace of an object that names none.
            let namespace = namespace.unwrap_or("default");
            let name = format!("{namespace}-{}{suffix}", object.name);
            import.cluster_policy(draft, &name, pods.in_namespace(namespace).baseline(priority));
        }
    }
}

fn parts(policy: Policy) -> Vec<Part> {
    let Policy { place, isolates, rules, .. } = policy;
    let mut parts: Vec<Part> = rules.into_iter().flat_map(|(place, rule)| parts_of(&place, rule)).collect();
    let other = |action| rule(action, to_nodes(LabelSelector::default()), None);
    let of_policy = |stage, words: &str, judgement, rules| Part {
        stage,
        place: place.clone(),
        words: words.to_owned(),
        judgement,
        rules,
    };
    let mut judgement = Judgement::exact();
    judgement.add(super::Outcome::Exact, "there no CIDR and no name matches a node, and here it would");
    if isolates {
        parts.push(of_policy(Stage::NoOtherNodes, "no other node", judgement, vec![other(Action::Deny)]));
        let nothing = everything(Action::Deny, None).collect();
        parts.push(of_policy(Stage::NothingElse, "nothing else", Judgement::exact(), nothing));
    } else {
        parts.push(of_policy(Stage::OtherNodes, "other nodes", judgement, vec![other(Action::Allow)]));
    }
    parts
}

/// What one rule adds: to nodes, and to outside.
fn parts_of(place: &Place, of: Rule) -> Vec<Part> {
    let action = if of.deny { Action::Deny } else { Action::Allow };
    let matches_no_port = of.ports.as_ref().is_some_and(Vec::is_empty);
    let rules = |peers: Vec<EgressPeer>| -> Vec<EgressRule> {
        let peers = peers.into_iter().filter(|_| !matches_no_port);
        peers.map(|peer| rule(action, peer, of.ports.clone())).collect()
    };
    let (to_nodes_stage, stage) =
        if of.deny { (Stage::DenyNodes, Stage::Deny) } else { (Stage::AllowNodes, Stage::Allow) };
    let mut parts = Vec::new();
    let has_outside = !of.to.outside.is_empty() || of.to.nodes.is_empty();
    let nodes = rules(of.to.nodes.into_iter().map(to_nodes).collect());
    let outside = rules(of.to.outside);
    if !nodes.is_empty() {
        let words = if has_outside { format!("{} (nodes)", of.words) } else { of.words.clone() };
        let judgement = of.judgement.clone();
        parts.push(Part { stage: to_nodes_stage, place: place.clone(), words, judgement, rules: nodes });
    }
    if has_outside || parts.is_empty() {
        parts.push(Part { stage, place: place.clone(), words: of.words, judgement: of.judgement, rules: outside });
    }
    parts
}
