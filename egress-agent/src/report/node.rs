//! From what a round of the reconciler did to the state of the node: pure.

use std::collections::BTreeSet;

use egress_policy::status::{
    ConfigOnNode, MAX_MESSAGE, MAX_NOTES, MAX_POLICIES, NodeState, Note, NoteReason, PodCounts, PolicyOnNode,
    ReportedKind,
};
use k8s_openapi::jiff::Timestamp;

use crate::kube::Reference;

/// What is in force on the node after a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) pods: PodCounts,
    pub(crate) config: Option<ConfigRound>,
    pub(crate) policies: Vec<PolicyRound>,
    /// What is wrong and belongs to no policy.
    pub(crate) problems: Vec<Note>,
    /// How many nodes the cluster has: the more, the longer each waits before it writes.
    pub(crate) nodes: usize,
    /// Foreign objects that there is something to say of: every agent comes to the same, and the one that leads says it.
    pub(crate) foreign: Vec<ForeignRound>,
}

/// An object of another firewall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForeignRound {
    pub(crate) object: Reference,
    /// Whether this version is not in force; otherwise some of its rules mean something else here.
    pub(crate) is_refused: bool,
    pub(crate) messages: Vec<String>,
}

/// The configuration in a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigRound {
    pub(crate) uid: String,
    /// Of the version in force.
    pub(crate) generation: i64,
    pub(crate) notes: Vec<Note>,
}

/// A policy in a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyRound {
    pub(crate) kind: ReportedKind,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// Of the version in force; 0 if none is.
    pub(crate) generation: i64,
    /// Pods of the node that it selects.
    pub(crate) pods: u32,
    /// Of these, the ones that the kernel judges by it.
    pub(crate) enforced: u32,
    pub(crate) notes: Vec<Note>,
}

impl Round {
    /// The state, without the time. Policies that say nothing about the node are left out: most policies of a large cluster.
    pub(crate) fn state(&self) -> NodeState {
        let concerned = |policy: &&PolicyRound| policy.pods > 0 || !policy.notes.is_empty();
        let mut policies: Vec<&PolicyRound> = self.policies.iter().filter(concerned).collect();
        policies.sort_by_key(|policy| (policy.kind, policy.namespace.clone(), policy.name.clone()));
        let left_out = policies.len().saturating_sub(MAX_POLICIES);
        policies.truncate(MAX_POLICIES);
        NodeState {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            renewed_at: None,
            pods: self.pods,
            config: self.config.as_ref().map(|config| ConfigOnNode {
                uid: config.uid.clone(),
                generation: config.generation,
                notes: bounded(&config.notes),
            }),
            policies: policies.into_iter().map(PolicyRound::on_node).collect(),
            policies_left_out: u32::try_from(left_out).unwrap_or(u32::MAX),
            problems: bounded(&self.problems),
        }
    }
}

impl PolicyRound {
    fn on_node(&self) -> PolicyOnNode {
        PolicyOnNode {
            kind: self.kind,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            generation: self.generation,
            pods: self.pods,
            enforced: self.enforced,
            notes: bounded(&self.notes),
        }
    }
}

/// The state at a time.
pub(super) fn at(state: &NodeState, now: Timestamp) -> NodeState {
    NodeState { renewed_at: Some(now.to_string()), ..state.clone() }
}

/// In an order of their own, so that an equal state is an equal object; the gravest first, as many as have room.
fn bounded(notes: &[Note]) -> Vec<Note> {
    let notes: BTreeSet<Note> =
        notes.iter().map(|note| Note { reason: note.reason, message: shortened(&note.message) }).collect();
    let more = notes.len().saturating_sub(MAX_NOTES);
    let kept = if more > 0 { MAX_NOTES - 1 } else { MAX_NOTES };
    let mut kept: Vec<Note> = notes.into_iter().take(kept).collect();
    if more > 0 {
        kept.push(Note { reason: NoteReason::Warning, message: format!("and {} more", more + 1) });
    }
    kept
}

/// At most as long as the API server takes it.
pub(super) fn shortened(message: &str) -> String {
    if message.chars().count() <= MAX_MESSAGE {
        return message.to_owned();
    }
    message.chars().take(MAX_MESSAGE - 1).chain(['…']).collect()
}
