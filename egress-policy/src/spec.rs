//! The objects as people write them: group `egress.rs`, version `v1alpha1`, camelCase fields.
//!
//! These types define the schema (CRDs are generated from them) and can be serialized. Reading a file goes through
//! [`document`](crate::document) instead of plain serde, because that reports every problem and its place at once; a test holds both to
//! the same fields.
//!
//! What the API server checks of them stands here too, as CEL (`x-kubernetes-validations`). It never refuses what `document` accepts, and
//! every list has a limit, because the server wants to know beforehand what a check can cost.

mod config;
mod text;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use config::{DefaultAction, DenyResponse, DnsSpec, EgressConfigSpec, HostNetworkPods, UnknownPods};
use text::{InnerPrefix, LabelKey, LabelValue, Name, ObjectName, Prefix};
pub(crate) use text::{LONGEST_DURATION, LONGEST_NAME};

/// API version of every object of this project.
pub const API_VERSION: &str = "egress.rs/v1alpha1";
/// The API versions under which OpenShift's `EgressNetworkPolicy` is read as it is.
pub const OPENSHIFT_API_VERSIONS: [&str; 2] = ["network.openshift.io/v1", "v1"];
/// Most rules in one policy.
pub const MAX_RULES: usize = 8000;
/// Most entries of `ports` in a rule.
pub const MAX_PORTS: usize = 50;
/// Most prefixes of `except` in a rule.
pub const MAX_EXCEPT: usize = 20;
/// Most labels, and most expressions, in a selector.
pub const MAX_REQUIREMENTS: usize = 50;
/// Most values in an expression of a selector.
pub const MAX_VALUES: usize = 1000;
/// Most service accounts of a policy.
pub const MAX_SERVICE_ACCOUNTS: usize = 1000;
/// Most prefixes in a list of the configuration.
pub const MAX_PREFIXES: usize = 10_000;
/// Most trusted resolvers.
pub const MAX_RESOLVERS: usize = 100;
/// Priority of a policy that names none.
pub const DEFAULT_PRIORITY: u16 = 100;
/// Largest priority, evaluated last.
pub const MAX_PRIORITY: u16 = 1000;

/// What a rule says about the traffic that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Action {
    /// The traffic passes; no later rule is asked.
    Allow,
    /// The traffic is refused; no later rule is asked.
    Deny,
    /// The rest of the Admin tier is skipped. Only in the Admin tier.
    Pass,
}

impl Action {
    /// The word used in objects and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Deny => "Deny",
            Self::Pass => "Pass",
        }
    }
}

/// Whether a policy, or in the configuration every one, decides or is only recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// The policy decides.
    #[default]
    Enforce,
    /// The policy is evaluated and recorded, and decides nothing.
    Audit,
}

/// Where a cluster policy stands relative to the policies of namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ClusterTier {
    /// Before the policies of namespaces.
    Admin,
    /// After the policies of namespaces.
    Baseline,
}

/// A protocol that a rule can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// TCP.
    TCP,
    /// UDP.
    UDP,
    /// SCTP.
    SCTP,
    /// ICMP for IPv4, every type.
    ICMP,
    /// ICMP for IPv6, every type.
    ICMPv6,
    /// Every IP protocol.
    Any,
}

/// Rules for the traffic that pods of one namespace initiate to external destinations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.egress.all(rule, rule.type != 'Pass')",
    "message": "Pass is possible only in the Admin tier; write Allow or Deny",
    "fieldPath": ".egress",
}]))]
pub struct EgressNetworkPolicySpec {
    /// The rules, in order; the first that matches decides.
    #[schemars(length(max = MAX_RULES))]
    pub egress: Vec<EgressRule>,
    /// The pods that the policy applies to; absent: every pod of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Names of service accounts whose pods the policy applies to; absent: all; an empty list: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<ObjectName>>", length(max = MAX_SERVICE_ACCOUNTS))]
    pub service_accounts: Option<Vec<String>>,
    /// Lower is evaluated earlier; policies of equal priority follow in the order of their names. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub priority: Option<u16>,
    /// Default Enforce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

/// Rules for the traffic of pods in any namespace, before (Admin) or after (Baseline) the policies of the namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.tier == 'Admin' || self.egress.all(rule, rule.type != 'Pass')",
    "message": "Pass is possible only in the Admin tier; write Allow or Deny, or tier: Admin",
    "fieldPath": ".egress",
}]))]
pub struct ClusterEgressPolicySpec {
    /// Before or after the policies of namespaces.
    pub tier: ClusterTier,
    /// The rules, in order; the first that matches decides.
    #[schemars(length(max = MAX_RULES))]
    pub egress: Vec<EgressRule>,
    /// The namespaces that the policy applies to, by label; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// The pods that the policy applies to; absent: every pod of the selected namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Names of service accounts, in any selected namespace; absent: all; an empty list: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<ObjectName>>", length(max = MAX_SERVICE_ACCOUNTS))]
    pub service_accounts: Option<Vec<String>>,
    /// Lower is evaluated earlier; policies of equal priority follow in the order of their names. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub priority: Option<u16>,
    /// Default Enforce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressRule {
    /// What to do with the traffic that matches. Pass only in the Admin tier.
    #[serde(rename = "type")]
    pub action: Action,
    /// The destinations.
    pub to: EgressPeer,
    /// The protocols and ports, as alternatives; absent: every protocol and port. An empty list is invalid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_PORTS))]
    pub ports: Option<Vec<EgressPort>>,
    /// A name for people, shown beside the rule's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
}

/// Destinations: exactly one of `cidrSelector`, `dnsName`, `nodeSelector`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "[has(self.cidrSelector), has(self.dnsName), has(self.nodeSelector)].exists_one(given, given)",
        "message": "write exactly one of cidrSelector, dnsName, nodeSelector",
    },
    {
        "rule": "!has(self.except) || has(self.cidrSelector)",
        "message": "except needs cidrSelector; remove it, or write a Deny rule before this one",
    },
    // Not containsCIDR, which some servers (before 1.33) get wrong; and in two parts, each within the server's limit on costs. What is
    // no CIDR to the server is left to the reader.
    {
        "rule": "!has(self.except) || !has(self.cidrSelector) || !isCIDR(self.cidrSelector) || [cidr(self.cidrSelector)].all(outer, \
                 self.except.all(inner, !isCIDR(inner) || outer.containsIP(cidr(inner).ip())))",
        "message": "every prefix of except must lie inside cidrSelector",
        "fieldPath": ".except",
    },
    {
        "rule": "!has(self.except) || !has(self.cidrSelector) || !isCIDR(self.cidrSelector) || [cidr(self.cidrSelector)].all(outer, \
                 self.except.all(inner, !isCIDR(inner) || outer.prefixLength() <= cidr(inner).prefixLength()))",
        "message": "every prefix of except must lie inside cidrSelector, so none can be larger",
        "fieldPath": ".except",
    },
]))]
pub struct EgressPeer {
    /// An IPv4 or IPv6 prefix, such as `1.2.3.0/24` or `2001:db8::/32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Prefix>")]
    pub cidr_selector: Option<String>,
    /// A DNS name; `*.foo.com` stands for one label in front, `**.foo.com` for one or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Name>")]
    pub dns_name: Option<String>,
    /// Nodes by label: every address of a selected node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// Prefixes inside `cidrSelector` that the rule does not match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<InnerPrefix>>", length(max = MAX_EXCEPT))]
    pub except: Option<Vec<String>>,
}

/// A protocol, with a port or a range of ports where the protocol has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.endPort) || has(self.port) && self.port <= self.endPort",
        "message": "endPort needs port, and must not be below it",
        "fieldPath": ".endPort",
    },
    {
        "rule": "!has(self.port) || self.protocol == 'TCP' || self.protocol == 'UDP' || self.protocol == 'SCTP'",
        "message": "only TCP, UDP and SCTP have ports",
        "fieldPath": ".port",
    },
]))]
pub struct EgressPort {
    /// The protocol.
    pub protocol: Protocol,
    /// The destination port, or the first of a range; absent: every port. Only for TCP, UDP and SCTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// The last port of the range, inclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub end_port: Option<u16>,
}

/// A Kubernetes label selector: all parts must hold; an empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct LabelSelector {
    /// Labels that must be present with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, LabelValue>", extend("maxProperties" = MAX_REQUIREMENTS))]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements that must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_REQUIREMENTS))]
    pub match_expressions: Vec<LabelRequirement>,
}

/// One requirement of a label selector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.values) && size(self.values) > 0) == (self.operator == 'In' || self.operator == 'NotIn')",
    "message": "In and NotIn need values, Exists and DoesNotExist take none",
    "fieldPath": ".values",
}]))]
pub struct LabelRequirement {
    /// The label's key.
    #[schemars(with = "LabelKey")]
    pub key: String,
    /// How the label's value is compared.
    pub operator: LabelOperator,
    /// The values for `In` and `NotIn`; empty for `Exists` and `DoesNotExist`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<LabelValue>", length(max = MAX_VALUES))]
    pub values: Vec<String>,
}

/// How a label requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// The label is present and its value is listed.
    In,
    /// The label is absent or its value is not listed.
    NotIn,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
}
