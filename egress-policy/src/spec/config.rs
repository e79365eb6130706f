//! The settings of the cluster, as people write them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Address, Duration, Prefix};
use super::{MAX_PREFIXES, MAX_RESOLVERS, Mode};

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
    /// For traffic that no rule matches. Default Allow. Deny needs to know what is internal, by
    /// `internalCIDRs` or from the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_action: Option<DefaultAction>,
    /// Audit: nothing is refused by a policy or by the default action; what they would refuse is recorded. Default Enforce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Mode>,
    /// External prefixes that are always allowed, whatever the policies say.
    #[serde(default, rename = "excludedCIDRs", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Prefix>>", length(max = MAX_PREFIXES))]
    pub excluded_cidrs: Option<Vec<String>>,
    /// The cluster's own prefixes (pods, services), which are never judged. An empty list says that there are none.
    #[serde(default, rename = "internalCIDRs", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Prefix>>", length(max = MAX_PREFIXES))]
    pub internal_cidrs: Option<Vec<String>>,
    /// Addresses of the trusted resolvers, in place of the ones that the agent finds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Address>>", length(max = MAX_RESOLVERS))]
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
    #[schemars(with = "Option<Duration>")]
    pub min_ttl: Option<String>,
    /// Longer lifetimes of answers are lowered to this. Default 1h.
    #[serde(default, rename = "maxTTL", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Duration>")]
    pub max_ttl: Option<String>,
    /// Added to every lifetime. Default 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Duration>")]
    pub grace: Option<String>,
    /// Whether pods may always ask the trusted resolvers and their own node (port 53). Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_resolvers: Option<bool>,
    /// Whether names may have internal, link-local and multicast addresses. Default false: such answers are ignored, because whoever
    /// controls an external name could otherwise point it inwards (DNS rebinding).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_internal_answers: Option<bool>,
}
