//! Validated objects: what the rest of the crate works with.
//!
//! Invariant: whatever is here passed validation; [`document::read`](crate::document::read) is the only producer from text. Prefixes are
//! masked, IPv4-mapped IPv6 is IPv4, names are A-labels, ports are merged intervals.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::name::NamePattern;
use crate::ports::Ports;
use crate::ranges::Ranges;
use crate::selector::{LabelSelector, Labels};
pub use crate::spec::{Action, DefaultAction, DenyResponse, HostNetworkPods, Mode, UnknownPods};
use crate::warnings::Warning;

/// The kinds of policy. A namespace may have an OpenShift object and one of ours of the same name; they are different policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PolicyKind {
    /// `EgressNetworkPolicy` of group `egress.rs`.
    EgressNetworkPolicy,
    /// `EgressNetworkPolicy` of OpenShift.
    OpenShiftEgressNetworkPolicy,
    /// `ClusterEgressPolicy`.
    ClusterEgressPolicy,
}

impl PolicyKind {
    /// The object's kind, as in its file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EgressNetworkPolicy | Self::OpenShiftEgressNetworkPolicy => "EgressNetworkPolicy",
            Self::ClusterEgressPolicy => "ClusterEgressPolicy",
        }
    }
}

/// Which policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicyKey {
    /// Kind of the object.
    pub kind: PolicyKind,
    /// Namespace; none for cluster policies.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

/// `default/curl`, or only the name of a cluster policy.
impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Where a rule stands; in the order of evaluation (§2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Tier {
    /// The firewall's own rules: internal destinations, resolvers, exclusions.
    Builtin,
    /// Cluster policies before those of namespaces.
    Admin,
    /// Policies of the pod's namespace.
    Namespace,
    /// Cluster policies after those of namespaces.
    Baseline,
    /// The default action.
    Default,
}

impl Tier {
    /// What messages call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Builtin => "Builtin",
            Self::Admin => "Admin",
            Self::Namespace => "Namespace",
            Self::Baseline => "Baseline",
            Self::Default => "Default",
        }
    }
}

/// The destinations of a policy rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The addresses of a prefix, without those of `except`.
    Cidr {
        /// The prefix, masked.
        cidr: IpNet,
        /// Prefixes inside it, masked.
        except: Arc<[IpNet]>,
    },
    /// The addresses that a name resolves to.
    DnsName(Arc<NamePattern>),
    /// The addresses of nodes.
    Nodes(Arc<LabelSelector>),
}

/// One rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it says.
    pub action: Action,
    /// About which destinations.
    pub peer: Peer,
    /// And which protocols and ports.
    pub ports: Ports,
    /// Its name, if the author gave one.
    pub name: Option<Arc<str>>,
}

/// A policy of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which one it is.
    pub key: Arc<PolicyKey>,
    /// Admin, Namespace or Baseline.
    pub tier: Tier,
    /// Lower comes first inside the tier.
    pub priority: u16,
    /// Whether it decides or is only recorded.
    pub mode: Mode,
    /// Only in cluster policies: the namespaces; `None` selects all.
    pub namespace_selector: Option<LabelSelector>,
    /// The pods; `None` selects all.
    pub pod_selector: Option<LabelSelector>,
    /// The service accounts; `None` selects all, an empty list none.
    pub service_accounts: Option<Vec<String>>,
    /// The rules in the order written; rule `n` of messages is at index `n - 1`.
    pub rules: Arc<[Rule]>,
    /// What validation noticed and did not refuse.
    pub warnings: Vec<Warning>,
}

/// DNS settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// Shorter lifetimes are raised to this.
    pub min_ttl: Duration,
    /// Longer lifetimes are lowered to this.
    pub max_ttl: Duration,
    /// Added to every lifetime.
    pub grace: Duration,
    /// Whether port 53 of resolvers and of the node is always allowed (§1.3).
    pub allow_resolvers: bool,
    /// Whether names may have internal, link-local and multicast addresses (§5.6).
    pub allow_internal: bool,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            min_ttl: Duration::from_secs(5),
            max_ttl: Duration::from_hours(1),
            grace: Duration::from_secs(30),
            allow_resolvers: true,
            allow_internal: false,
        }
    }
}

/// Settings of the whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// For traffic that no rule matches.
    pub default_action: DefaultAction,
    /// Whether policies and the default action decide anything; if not, all of them are under Audit.
    pub enforcement: Mode,
    /// Always allowed.
    pub excluded_cidrs: Vec<IpNet>,
    /// Never judged; `None` if nobody said (§1.2).
    pub internal_cidrs: Option<Vec<IpNet>>,
    /// Trusted resolvers; present, they replace [`NodeContext::resolvers`].
    pub resolvers: Option<Vec<IpAddr>>,
    /// DNS settings.
    pub dns: DnsConfig,
    /// For pods whose policy is not known yet.
    pub unknown_pods: UnknownPods,
    /// For pods in the host's network namespace.
    pub host_network_pods: HostNetworkPods,
    /// For packets refused at the pod's interface.
    pub deny_response: DenyResponse,
    /// What validation noticed and did not refuse.
    pub warnings: Vec<Warning>,
}

/// What selectors see of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodIdentity {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    #[serde(default)]
    pub labels: Labels,
    /// Its service account; `None` is in no list of service accounts.
    #[serde(default)]
    pub service_account: Option<String>,
}

/// A node, for `nodeSelector` rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its labels.
    pub labels: Labels,
    /// Its addresses, both families.
    pub addresses: Vec<IpAddr>,
}

/// What the rules of a pod depend on beside the policies: the node that it runs on and its peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeContext {
    /// Trusted resolvers that were found: cluster DNS, node-local DNS, the node's `resolv.conf`.
    pub resolvers: Vec<IpAddr>,
    /// Addresses of the node itself.
    pub node_addresses: Vec<IpAddr>,
    /// Every node of the cluster.
    pub nodes: Vec<NodeInfo>,
    /// Ports of services with an endpoint that is not internal (§1.6).
    pub services: Vec<ServicePort>,
}

/// A port of a service, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// `namespace/name` of the service.
    pub service: Arc<str>,
    /// The service's own addresses.
    pub addresses: Vec<IpAddr>,
    /// IP protocol.
    pub protocol: u8,
    /// The service's port.
    pub port: u16,
    /// Addresses and ports that it may lead to.
    pub endpoints: Vec<SocketAddr>,
}

impl ServicePort {
    /// Whether an endpoint is outside of `internal`.
    pub fn leads_outside(&self, internal: &Ranges) -> bool {
        self.endpoints.iter().any(|endpoint| !internal.contains(endpoint.ip()))
    }
}

/// Everything that is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySet {
    /// The policies.
    pub policies: BTreeMap<PolicyKey, Policy>,
    /// The settings.
    pub config: Config,
    /// Labels of the namespaces that are known. [`NAMESPACE_NAME_LABEL`] need not be among them.
    pub namespaces: BTreeMap<String, Labels>,
}

/// The label that every namespace has, with its name.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

impl PolicySet {
    /// Adds a policy; the one that it replaces is returned.
    pub fn insert(&mut self, policy: Policy) -> Option<Policy> {
        self.policies.insert(PolicyKey::clone(&policy.key), policy)
    }
}

/// Where `prefix` lies inside `::ffff:0:0/96`, its IPv4 form: such addresses are IPv4 on the wire.
pub fn canonical(prefix: IpNet) -> IpNet {
    match prefix {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(address) => Ipv4Net::new(address, v6.prefix_len() - 96).map_or(prefix, IpNet::V4),
            None => prefix,
        },
        IpNet::V4(_) | IpNet::V6(_) => prefix,
    }
}
