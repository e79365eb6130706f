//! Objects as far as the leader needs them: what the reader of policies says of them, and what the API server has of their status.

use egress_policy::document::{self, Object};
use egress_policy::model::{Peer, Policy};
use egress_policy::spec::API_VERSION;
use egress_policy::status::{ConditionKind, NodeState, Note, NoteReason, PolicyStatus, ReportedKind};
use egress_policy::warnings::{Warning, WarningReason};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde::Deserialize;
use serde_json::Value;

use super::api::kind_name;
use super::fold::{ConfigFacts, PolicyFacts, PolicyName, Verdict};

/// An object as far as it is needed.
#[derive(Debug)]
pub(super) enum Seen {
    Policy(Box<(PolicyName, PolicyFacts)>),
    Config(Box<ConfigFacts>),
    Node { ready: bool },
    State(Box<NodeState>),
}

fn typed<'o, T: Deserialize<'o> + Default>(data: &'o Value) -> T {
    // A status that somebody else broke is written anew.
    data.get("status").and_then(|status| T::deserialize(status).ok()).unwrap_or_default()
}

/// What the reader of policies says of an object, as it does for files.
fn judged(object: &DynamicObject, kind: &str) -> document::Documents {
    let mut whole = serde_json::to_value(object).unwrap_or_default();
    if let Some(fields) = whole.as_object_mut() {
        fields.remove("status");
        // Items of a list may come without.
        fields.insert("apiVersion".to_owned(), Value::from(API_VERSION));
        fields.insert("kind".to_owned(), Value::from(kind));
    }
    document::read_in_cluster(&whole.to_string())
}

fn problems(documents: &document::Documents) -> Vec<String> {
    let said = |problem: &document::Problem| {
        let place = if problem.path.is_empty() { String::new() } else { format!("{}: ", problem.path) };
        format!("{place}{}; {}", problem.message, problem.hint)
    };
    documents.problems.iter().map(said).collect()
}

pub(super) fn namespaced_policy(object: &DynamicObject) -> Seen {
    policy(object, ReportedKind::EgressNetworkPolicy)
}

pub(super) fn cluster_policy(object: &DynamicObject) -> Seen {
    policy(object, ReportedKind::ClusterEgressPolicy)
}

fn policy(object: &DynamicObject, kind: ReportedKind) -> Seen {
    let documents = judged(object, kind_name(kind));
    let verdict = match documents.objects.first() {
        Some(Object::Policy(policy)) if documents.problems.is_empty() => valid(policy),
        _ => Verdict::Refused(problems(&documents)),
    };
    let name = PolicyName { kind, namespace: object.namespace(), name: object.name_any() };
    let status: PolicyStatus = typed(&object.data);
    let generation = object.metadata.generation.unwrap_or_default();
    let settled = status.observed_generation == Some(generation)
        && status.conditions.iter().any(|old| old.kind == ConditionKind::Enforced && old.reason != "Waiting");
    let facts = PolicyFacts { uid: object.uid().unwrap_or_default(), generation, verdict, settled, status };
    Seen::Policy(Box::new((name, facts)))
}

fn valid(policy: &Policy) -> Verdict {
    let names = policy.rules.iter().filter(|rule| matches!(rule.peer, Peer::DnsName(_))).count();
    Verdict::Valid {
        rules: u32::try_from(policy.rules.len()).unwrap_or(u32::MAX),
        mode: policy.mode,
        names: u32::try_from(names).unwrap_or(u32::MAX),
        notes: policy.warnings.iter().map(noted).collect(),
    }
}

/// A warning as a note.
pub(super) fn noted(warning: &Warning) -> Note {
    let reason = match warning.reason {
        WarningReason::ShadowedRules => NoteReason::ShadowedRules,
        WarningReason::OrderedByName => NoteReason::OrderedByName,
        WarningReason::HostBitsMasked
        | WarningReason::SingleZeroAddress
        | WarningReason::OpenShiftZeroAddress
        | WarningReason::MappedPrefix
        | WarningReason::NothingLeft
        | WarningReason::ProtocolOfOtherFamily
        | WarningReason::SelectsNothing
        | WarningReason::DenyByName
        | WarningReason::WildcardNeedsLookups
        | WarningReason::SharedAddress
        | WarningReason::NothingJudged
        | WarningReason::NoNodeSelected => NoteReason::Warning,
    };
    let place = if warning.path.is_empty() { String::new() } else { format!("{}: ", warning.path) };
    Note { reason, message: format!("{place}{}", warning.message) }
}

pub(super) fn config(object: &DynamicObject) -> Seen {
    let documents = judged(object, "EgressConfig");
    let read = match documents.objects.first() {
        Some(Object::Config(config)) => Some(config),
        _ => None,
    };
    Seen::Config(Box::new(ConfigFacts {
        uid: object.uid().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or_default(),
        enforcement: read.map(|config| config.enforcement).unwrap_or_default(),
        default_action: read.map(|config| config.default_action).unwrap_or_default(),
        refused: problems(&documents),
        status: typed(&object.data),
    }))
}

pub(super) fn node(object: &Node) -> Seen {
    let conditions = object.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready =
        conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    Seen::Node { ready }
}

pub(super) fn state(object: &DynamicObject) -> Seen {
    Seen::State(Box::new(typed(&object.data)))
}
