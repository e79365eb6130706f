//! What the agents say of objects: the status of policies and of the configuration, and the state of a node.
//!
//! Each agent writes the [`NodeState`] of its own node; the agent that leads folds all of them into the status of each policy. The CRDs'
//! status schemas are made from these types. Times are RFC 3339 in UTC.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::{DefaultAction, Mode};

/// Most notes of one policy on one node.
pub const MAX_NOTES: usize = 10;
/// Most policies in the state of one node.
pub const MAX_POLICIES: usize = 5000;
/// Longest message of a note or a condition, characters.
pub const MAX_MESSAGE: usize = 1024;

/// The status of a policy, written by the agent that leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// The generation of the policy that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many rules are in force. If the present version is refused, those of the last one that was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<u32>,
    /// Whether the policy decides (Enforce) or is only recorded (Audit), with what the EgressConfig says of the whole cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Nodes that enforce this generation, of those with pods that it selects: `3/4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub enforced: Option<String>,
    /// What is to be said of it: `Accepted`, `Enforced`, `DNSResolved`, `Capacity`, `ShadowedRules`, `OrderedByName`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The status of the configuration, written by the agent that leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStatus {
    /// The generation of the configuration that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What happens to traffic that no rule matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_action: Option<DefaultAction>,
    /// Whether policies and the default action decide (Enforce) or are only recorded (Audit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Mode>,
    /// Nodes that enforce this generation, of all with an agent: `3/4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub enforced: Option<String>,
    /// What is to be said of it: `Accepted`, `Enforced`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// One thing to be said of an object, as everywhere in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    /// Whether it is so.
    pub status: Truth,
    /// The generation of the object that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When `status` last changed.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// Why, in one word for machines.
    #[schemars(length(min = 1, max = 64))]
    pub reason: String,
    /// Why, and what to do, for people.
    #[schemars(length(max = MAX_MESSAGE))]
    pub message: String,
}

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ConditionKind {
    /// The object is valid.
    Accepted,
    /// Every node with pods that it selects enforces this generation.
    Enforced,
    /// Every DNS name of its rules could be looked up.
    #[serde(rename = "DNSResolved")]
    DnsResolved,
    /// The rules fit into every node's tables.
    Capacity,
    /// Some rules never decide, because earlier ones cover all that they match.
    ShadowedRules,
    /// Another policy has the same priority, so that the names decide the order.
    OrderedByName,
}

impl ConditionKind {
    /// Every kind, in the order in which they are written.
    pub const ALL: [Self; 6] =
        [Self::Accepted, Self::Enforced, Self::DnsResolved, Self::Capacity, Self::ShadowedRules, Self::OrderedByName];

    /// Its name in objects.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Enforced => "Enforced",
            Self::DnsResolved => "DNSResolved",
            Self::Capacity => "Capacity",
            Self::ShadowedRules => "ShadowedRules",
            Self::OrderedByName => "OrderedByName",
        }
    }
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Truth {
    /// It does.
    True,
    /// It does not.
    False,
    /// Nobody can tell now.
    Unknown,
}

/// What one node's agent enforces. Written by that agent alone; gone with the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeState {
    /// Release of the agent.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub agent_version: String,
    /// When the agent last wrote this. It does so at least every ten minutes; who has not for half an hour counts as not reporting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub renewed_at: Option<String>,
    /// Pods of the node.
    #[serde(default)]
    pub pods: PodCounts,
    /// The configuration that is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigOnNode>,
    /// The policies that select pods of the node, or that something is to be said of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_POLICIES))]
    pub policies: Vec<PolicyOnNode>,
    /// How many policies had no room in this list.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub policies_left_out: u32,
    /// What is wrong on the node as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_NOTES))]
    pub problems: Vec<Note>,
}

/// Pods of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodCounts {
    /// Pods that policies or the default action have something to say about.
    pub covered: u32,
    /// Of these, the ones that the kernel judges by their present rules.
    pub enforced: u32,
}

/// The configuration on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigOnNode {
    /// UID of the EgressConfig.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// The generation that is in force.
    pub generation: i64,
    /// What is to be said of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_NOTES))]
    pub notes: Vec<Note>,
}

/// A policy on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyOnNode {
    /// EgressNetworkPolicy or ClusterEgressPolicy.
    pub kind: ReportedKind,
    /// The namespace of an EgressNetworkPolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// UID of the object, which tells it from one of the same name that was deleted.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// The generation that is in force. If the present version is refused, that of the last one that was not; 0 if there is none.
    pub generation: i64,
    /// Pods of the node that it selects.
    pub pods: u32,
    /// Of these, the ones that the kernel judges by this generation.
    pub enforced: u32,
    /// What is to be said of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_NOTES))]
    pub notes: Vec<Note>,
}

/// Kind of a policy with a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ReportedKind {
    /// A policy of a namespace.
    EgressNetworkPolicy,
    /// A policy of the cluster.
    ClusterEgressPolicy,
}

/// Something to be said of a policy or of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// What it is about.
    pub reason: NoteReason,
    /// In words.
    #[schemars(length(max = MAX_MESSAGE))]
    pub message: String,
}

/// What a note is about; it decides the condition that it goes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum NoteReason {
    /// The object is not valid for this node's agent.
    Refused,
    /// The rules do not fit into the node's tables.
    Capacity,
    /// The kernel did not take the rules, or a pod was not found on the node.
    Failed,
    /// A DNS name cannot be looked up.
    NameFails,
    /// Rules that never decide.
    ShadowedRules,
    /// Policies of equal priority.
    OrderedByName,
    /// Anything else that is legal and probably not meant.
    Warning,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}
