//! The custom resource definitions, made from the types of [`spec`](crate::spec) and [`status`](crate::status): what `cargo xtask crds`
//! writes to `deploy/crds/`.
//!
//! Invariant: no field of a spec is pruned. The API server would drop an unknown field silently, and a narrowing that gets lost would
//! widen an Allow (§6.3), so every object of a spec keeps what it does not know (`x-kubernetes-preserve-unknown-fields`), the agent
//! refuses it, and [`admission`] has the server refuse it too.

pub mod admission;
pub mod cases;
mod fields;
mod structural;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

pub use self::fields::{FieldRow, fields};
use self::structural::schema_of;
use crate::spec::{ClusterEgressPolicySpec, EgressConfigSpec, EgressNetworkPolicySpec};
use crate::status::{ConfigStatus, NodeState, PolicyStatus};

/// The API group.
pub const GROUP: &str = "egress.rs";
/// Its version.
pub const VERSION: &str = "v1alpha1";

/// A kind of object and all that its definition needs.
#[derive(Clone, Debug)]
pub struct Definition {
    /// `EgressNetworkPolicy`.
    pub kind: &'static str,
    /// `egressnetworkpolicies`.
    pub plural: &'static str,
    /// `egressnetworkpolicy`.
    pub singular: &'static str,
    /// What `kubectl` takes instead.
    pub short: &'static str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What the object is for.
    pub description: &'static str,
    columns: &'static [Column],
    rules: &'static [(&'static str, &'static str)],
    spec: Option<fn() -> Value>,
    status: fn() -> Value,
}

/// A column of `kubectl get`.
#[derive(Clone, Copy, Debug)]
struct Column {
    name: &'static str,
    kind: &'static str,
    path: &'static str,
    description: &'static str,
    /// Only with `-o wide`.
    wide: bool,
}

const fn column(name: &'static str, kind: &'static str, path: &'static str, description: &'static str) -> Column {
    Column { name, kind, path, description, wide: false }
}

const fn wide(name: &'static str, kind: &'static str, path: &'static str, description: &'static str) -> Column {
    Column { name, kind, path, description, wide: true }
}

const TIER: Column = column("Tier", "string", ".spec.tier", "Before or after the policies of namespaces.");
const RULES: Column = column("Rules", "integer", ".status.rules", "Rules in force.");
const MODE: Column = column("Mode", "string", ".status.mode", "Whether the policy decides or is only recorded.");
const ACCEPTED: Column =
    column("Accepted", "string", ".status.conditions[?(@.type==\"Accepted\")].status", "Whether the object is valid.");
const ENFORCED: Column =
    column("Enforced", "string", ".status.enforced", "Nodes that enforce this generation, of those concerned.");
const AGE: Column = column("Age", "date", ".metadata.creationTimestamp", "Time since it was made.");
const PRIORITY: Column = wide("Priority", "integer", ".spec.priority", "Lower is evaluated earlier; 100 if empty.");
const REASON: Column = wide(
    "Reason",
    "string",
    ".status.conditions[?(@.type==\"Enforced\")].reason",
    "Why it is enforced everywhere, or is not.",
);

/// The four kinds.
pub const DEFINITIONS: [Definition; 4] = [
    Definition {
        kind: "EgressNetworkPolicy",
        plural: "egressnetworkpolicies",
        singular: "egressnetworkpolicy",
        short: "enp",
        namespaced: true,
        description: "Rules for the traffic that pods of one namespace initiate to external destinations. The first rule that matches \
                      decides.",
        columns: &[RULES, MODE, ACCEPTED, ENFORCED, AGE, PRIORITY, REASON],
        rules: &[],
        spec: Some(schema_of::<EgressNetworkPolicySpec>),
        status: schema_of::<PolicyStatus>,
    },
    Definition {
        kind: "ClusterEgressPolicy",
        plural: "clusteregresspolicies",
        singular: "clusteregresspolicy",
        short: "cep",
        namespaced: false,
        description: "Rules for the traffic of pods in any namespace, before (tier Admin) or after (tier Baseline) the policies of the \
                      namespaces.",
        columns: &[TIER, RULES, MODE, ACCEPTED, ENFORCED, AGE, PRIORITY, REASON],
        rules: &[],
        spec: Some(schema_of::<ClusterEgressPolicySpec>),
        status: schema_of::<PolicyStatus>,
    },
    Definition {
        kind: "EgressConfig",
        plural: "egressconfigs",
        singular: "egressconfig",
        short: "ec",
        namespaced: false,
        description: "Settings of the whole cluster. There is one object, named default.",
        columns: &[
            column("Default", "string", ".status.defaultAction", "What happens to traffic that no rule matches."),
            column(
                "Enforcement",
                "string",
                ".status.enforcement",
                "Audit: nothing is refused, everything is recorded.",
            ),
            ACCEPTED,
            ENFORCED,
            AGE,
        ],
        rules: &[("self.metadata.name == 'default'", "the configuration must be named default")],
        spec: Some(schema_of::<EgressConfigSpec>),
        status: schema_of::<ConfigStatus>,
    },
    Definition {
        kind: "EgressNodeState",
        plural: "egressnodestates",
        singular: "egressnodestate",
        short: "ens",
        namespaced: false,
        description: "What the agent of the node of this name enforces. Written by that agent; not for people to edit.",
        columns: &[
            column("Agent", "string", ".status.agentVersion", "Release of the agent."),
            column("Pods", "integer", ".status.pods.covered", "Pods that policies have something to say about."),
            column("Enforced", "integer", ".status.pods.enforced", "Of these, the ones judged by their present rules."),
            column("Renewed", "date", ".status.renewedAt", "Time since the agent last wrote this."),
            AGE,
        ],
        rules: &[],
        spec: None,
        status: schema_of::<NodeState>,
    },
];

impl Definition {
    /// `egressnetworkpolicies.egress.rs`, the name of the definition.
    pub fn name(&self) -> String {
        format!("{}.{GROUP}", self.plural)
    }

    /// The schema of its spec, if it has one.
    pub fn spec_schema(&self) -> Option<Value> {
        self.spec.map(|schema| schema())
    }

    /// The schema of its status.
    pub fn status_schema(&self) -> Value {
        (self.status)()
    }

    /// The schema of the whole object.
    pub fn schema(&self) -> Value {
        let mut properties = Map::new();
        let text = |description: &str| json!({"type": "string", "description": description});
        properties.insert("apiVersion".to_owned(), text("egress.rs/v1alpha1"));
        properties.insert("kind".to_owned(), text(self.kind));
        properties.insert("metadata".to_owned(), json!({"type": "object"}));
        properties.extend(self.spec_schema().map(|schema| ("spec".to_owned(), schema)));
        properties.insert("status".to_owned(), self.status_schema());
        let mut schema = json!({"type": "object", "description": self.description, "properties": properties});
        if let Some(object) = schema.as_object_mut() {
            if self.spec.is_some() {
                object.insert("required".to_owned(), json!(["spec"]));
                object.insert(structural::PRESERVE.to_owned(), Value::Bool(true));
            }
            if !self.rules.is_empty() {
                let rules: Vec<Value> =
                    self.rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect();
                object.insert(structural::VALIDATIONS.to_owned(), Value::Array(rules));
            }
        }
        schema
    }

    /// The definition as the API server takes it.
    pub fn manifest(&self) -> Value {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": self.name(), "labels": {"app.kubernetes.io/name": "egress"}},
            "spec": {
                "group": GROUP,
                "names": {
                    "kind": self.kind,
                    "listKind": format!("{}List", self.kind),
                    "plural": self.plural,
                    "singular": self.singular,
                    "shortNames": [self.short],
                    "categories": ["egress"],
                },
                "scope": if self.namespaced { "Namespaced" } else { "Cluster" },
                "versions": [{
                    "name": VERSION,
                    "served": true,
                    "storage": true,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": self.columns.iter().map(Column::manifest).collect::<Vec<_>>(),
                    "schema": {"openAPIV3Schema": self.schema()},
                }],
            },
        })
    }
}

impl Column {
    fn manifest(&self) -> Value {
        let mut column =
            json!({"name": self.name, "type": self.kind, "jsonPath": self.path, "description": self.description});
        if self.wide
            && let Some(fields) = column.as_object_mut()
        {
            fields.insert("priority".to_owned(), json!(1));
        }
        column
    }
}
