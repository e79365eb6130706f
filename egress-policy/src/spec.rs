//! The objects as people write them: group `egress.rs`, version `v1alpha1`, camelCase fields.
//!
//! These types define the schema (CRDs are generated from them) and can be serialized. Reading a file goes through
//! [`document`](crate::document) instead of plain serde, because that reports every problem and its place at once; a test holds both to
//! the same fields.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// API version of every object of this project.
pub const API_VERSION: &str = "egress.rs/v1alpha1";
/// The API versions under which OpenShift's `EgressNetworkPolicy` is read as it is.
pub const OPENSHIFT_API_VERSIONS: [&str; 2] = ["network.openshift.io/v1", "v1"];
/// Most rules in one policy.
pub const MAX_RULES: usize = 8000;
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
pub struct EgressNetworkPolicySpec {
    /// The rules, in order; the first that matches decides.
    #[schemars(length(max = 8000))]
    pub egress: Vec<EgressRule>,
    /// The pods that the policy applies to; absent: every pod of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Names of service accounts whose pods the policy applies to; absent: all; an empty list: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
pub struct ClusterEgressPolicySpec {
    /// Before or after the policies of namespaces.
    pub tier: ClusterTier,
    /// The rules, in order; the first that matches decides.
    #[schemars(length(max = 8000))]
    pub egress: Vec<EgressRule>,
    /// The namespaces that the policy applies to, by label; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// The pods that the policy applies to; absent: every pod of the selected namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Names of service accounts, in any selected namespace; absent: all; an empty list: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    #[schemars(length(min = 1))]
    pub ports: Option<Vec<EgressPort>>,
    /// A name for people, shown beside the rule's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub name: Option<String>,
}

/// Destinations: exactly one of `cidrSelector`, `dnsName`, `nodeSelector`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressPeer {
    /// An IPv4 or IPv6 prefix, such as `1.2.3.0/24` or `2001:db8::/32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr_selector: Option<String>,
    /// A DNS name; `*.foo.com` stands for one label in front, `**.foo.com` for one or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<String>,
    /// Nodes by label: every address of a selected node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// Prefixes inside `cidrSelector` that the rule does not match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub except: Option<Vec<String>>,
}

/// A protocol, with a port or a range of ports where the protocol has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
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
pub struct LabelSelector {
    /// Labels that must be present with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements that must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelRequirement>,
}

/// One requirement of a label selector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelRequirement {
    /// The label's key.
    pub key: String,
    /// How the label's value is compared.
    pub operator: LabelOperator,
    /// The values for In and `NotIn`; empty for Exists and `DoesNotExist`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
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

/// What happens to traffic that no rule matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DefaultAction {
    /// It passes.
    #[default]
    Allow,
    /// It is refused.
    Deny,
}

/// What happens to the traffic of a pod whose policy is not known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum UnknownPods {
    /// Only internal destinations are reachable.
    #[default]
    Deny,
    /// Everything passes.
    Allow,
}

/// Whether pods in the host's network namespace are judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum HostNetworkPods {
    /// They are not.
    #[default]
    Ignore,
    /// They are, by their cgroup.
    Enforce,
}

/// How a packet that is refused at the pod's interface is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DenyResponse {
    /// Not at all.
    #[default]
    Drop,
    /// With a TCP reset or an ICMP "administratively prohibited".
    Reject,
}

/// Settings of the whole cluster; the one object is named `default`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressConfigSpec {
    /// For traffic that no rule matches. Default Allow. Deny needs `internalCIDRs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_action: Option<DefaultAction>,
    /// Audit: nothing is refused by a policy or by the default action; what they would refuse is recorded. Default Enforce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Mode>,
    /// External prefixes that are always allowed, whatever the policies say.
    #[serde(default, rename = "excludedCIDRs", skip_serializing_if = "Option::is_none")]
    pub excluded_cidrs: Option<Vec<String>>,
    /// The cluster's own prefixes (pods, services), which are never judged. An empty list says that there are none.
    #[serde(default, rename = "internalCIDRs", skip_serializing_if = "Option::is_none")]
    pub internal_cidrs: Option<Vec<String>>,
    /// Addresses of the trusted resolvers, in place of the ones that the agent finds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolvers: Option<Vec<String>>,
    /// DNS settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsSpec>,
    /// For pods whose policy is not known yet. Default Deny.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_pods: Option<UnknownPods>,
    /// For pods in the host's network namespace. Default Ignore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_network_pods: Option<HostNetworkPods>,
    /// For packets that are refused at the pod's interface. Default Drop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny_response: Option<DenyResponse>,
}

/// DNS settings. Durations are numbers with a unit: `500ms`, `5s`, `1m30s`, `1h`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsSpec {
    /// Shorter lifetimes of answers are raised to this. Default 5s.
    #[serde(default, rename = "minTTL", skip_serializing_if = "Option::is_none")]
    pub min_ttl: Option<String>,
    /// Longer lifetimes of answers are lowered to this. Default 1h.
    #[serde(default, rename = "maxTTL", skip_serializing_if = "Option::is_none")]
    pub max_ttl: Option<String>,
    /// Added to every lifetime. Default 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<String>,
    /// Whether pods may always ask the trusted resolvers and their own node (port 53). Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_resolvers: Option<bool>,
    /// Whether names may have internal, link-local and multicast addresses. Default false: such answers are ignored, because whoever
    /// controls an external name could otherwise point it inwards (DNS rebinding).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_internal_answers: Option<bool>,
}
