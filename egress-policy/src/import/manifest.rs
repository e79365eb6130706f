//! Objects as they are written to files.

use std::fmt;

use serde::Serialize;

use crate::spec::{API_VERSION, ClusterEgressPolicySpec, EgressConfigSpec, EgressNetworkPolicySpec};

/// An object that can be written as YAML or JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// API version.
    pub api_version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Name and namespace.
    pub metadata: Metadata,
    /// The rest.
    pub spec: Spec,
    /// Where each rule comes from.
    #[serde(skip)]
    pub sources: Vec<RuleSource>,
}

/// Where a rule of a written object comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSource {
    /// The file.
    pub source: String,
    /// Which document of the file, from 1.
    pub document: usize,
    /// Line in the file, from 1.
    pub line: Option<usize>,
}

/// Which object it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// Name.
    pub name: String,
    /// Namespace; left out where the source named none, or for objects that have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What the object says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Spec {
    /// Of an `EgressNetworkPolicy`.
    Policy(EgressNetworkPolicySpec),
    /// Of a `ClusterEgressPolicy`.
    Cluster(ClusterEgressPolicySpec),
    /// Of the `EgressConfig`.
    Config(EgressConfigSpec),
    /// Of an object of another project.
    Foreign(serde_json::Value),
}

impl Manifest {
    /// One of our objects; its kind follows from `spec`.
    pub(super) fn new(namespace: Option<String>, name: &str, spec: Spec) -> Self {
        let kind = match &spec {
            Spec::Policy(_) => "EgressNetworkPolicy",
            Spec::Cluster(_) => "ClusterEgressPolicy",
            Spec::Config(_) | Spec::Foreign(_) => "EgressConfig",
        };
        let metadata = Metadata { name: name.to_owned(), namespace };
        Self { api_version: API_VERSION, kind, metadata, spec, sources: Vec::new() }
    }

    /// "`EgressNetworkPolicy` shop/default".
    pub fn title(&self) -> String {
        format!("{} {}", self.kind, self.metadata)
    }
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}
