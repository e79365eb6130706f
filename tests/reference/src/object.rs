//! What a world consists of: policies, configuration, namespaces, pods and the node, as plain structs of this package.
//!
//! Every field means what the semantics say of the field of the same name in the user's object; nothing is normalized.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::names::Answers;
use crate::prefix::Prefix;

/// Labels of a pod, namespace or node.
pub type Labels = BTreeMap<String, String>;

/// Everything that a verdict depends on, apart from the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// What [`World::generate`] made it from.
    pub seed: u64,
    /// The EgressConfig.
    pub config: Config,
    /// Namespaces that have a Namespace object, and its labels.
    pub namespaces: BTreeMap<String, Labels>,
    /// Policies of both kinds, in no particular order.
    pub policies: Vec<Policy>,
    /// Pods that the verdicts are asked for.
    pub pods: Vec<Pod>,
    /// What is known of the node.
    pub node: Node,
    /// Which names are live, and with which addresses (§5).
    pub answers: Answers,
}

/// What an EgressConfig says, as far as verdicts depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Verdict where no rule matches: allow or deny.
    pub default_allow: bool,
    /// Whether everything is under Audit (`enforcement: Audit`).
    pub audit: bool,
    /// `excludedCIDRs`.
    pub excluded: Vec<Prefix>,
    /// `internalCIDRs`; absent is not the same as empty.
    pub internal: Option<Vec<Prefix>>,
    /// `resolvers`: the trusted ones, in place of those that were discovered (§5.2).
    pub resolvers: Option<Vec<IpAddr>>,
    /// `dns.allowResolvers`.
    pub allow_resolvers: bool,
}

/// The two kinds of policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `EgressNetworkPolicy`.
    EgressNetworkPolicy,
    /// `ClusterEgressPolicy`.
    ClusterEgressPolicy,
}

/// Which policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyId {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; none for a cluster policy.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// The tiers, in the order in which they are asked (§2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Cluster policies that come first.
    Admin,
    /// The policies of the pod's namespace.
    Namespace,
    /// Cluster policies that come last.
    Baseline,
}

/// Whether a policy decides or only records (§2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It decides.
    Enforce,
    /// It only records.
    Audit,
}

/// An EgressNetworkPolicy or a ClusterEgressPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which one.
    pub id: PolicyId,
    /// Its tier; `Namespace` exactly for the namespaced kind.
    pub tier: Tier,
    /// Its priority, 0–1000, lower first.
    pub priority: u16,
    /// Whether it decides.
    pub mode: Mode,
    /// `podSelector`.
    pub pod_selector: Option<Selector>,
    /// `namespaceSelector`, of a cluster policy.
    pub namespace_selector: Option<Selector>,
    /// `serviceAccounts`.
    pub service_accounts: Option<Vec<String>>,
    /// `egress`, in the order written.
    pub rules: Vec<Rule>,
}

/// A Kubernetes label selector: all parts must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// `matchLabels`.
    pub labels: Labels,
    /// `matchExpressions`.
    pub expressions: Vec<Expression>,
}

/// One of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// The label's key.
    pub key: String,
    /// How its value is compared.
    pub operator: Operator,
    /// With what; empty for the last two operators.
    pub values: Vec<String>,
}

/// Operators of label selectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The label is there and has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Let it through.
    Allow,
    /// Refuse it.
    Deny,
    /// Skip the rest of the Admin tier.
    Pass,
}

/// One entry of `egress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `type`.
    pub action: Action,
    /// `to`.
    pub peer: Peer,
    /// `ports`; none means any. Never empty.
    pub ports: Option<Vec<Ports>>,
    /// `name`.
    pub name: Option<String>,
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// `cidrSelector` and `except`.
    Cidr {
        /// The prefix.
        prefix: Prefix,
        /// Prefixes inside it that do not match.
        except: Vec<Prefix>,
    },
    /// `dnsName`: the live addresses of the names that it means.
    Dns(String),
    /// `nodeSelector`: the addresses of these nodes.
    Nodes(Selector),
}

/// `protocol` of a port entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// IP protocol 6.
    Tcp,
    /// IP protocol 17.
    Udp,
    /// IP protocol 132.
    Sctp,
    /// IP protocol 1.
    Icmp,
    /// IP protocol 58.
    Icmpv6,
    /// Every IP protocol.
    Any,
}

/// One entry of `ports`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Its protocol.
    pub protocol: Protocol,
    /// First port; none means every port.
    pub port: Option<u16>,
    /// Last port; none means `port` alone.
    pub end: Option<u16>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its service account.
    pub service_account: Option<String>,
}

/// What is known of the node that the pods run on, and of the other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Trusted resolvers that were discovered.
    pub resolvers: Vec<IpAddr>,
    /// The node's own addresses.
    pub addresses: Vec<IpAddr>,
    /// Nodes that a `nodeSelector` may name.
    pub nodes: Vec<NodeAddresses>,
    /// Ports of services (§1.6).
    pub services: Vec<Service>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The service's name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// IP protocol.
    pub protocol: u8,
    /// Its port.
    pub port: u16,
    /// Where packets to it are sent, in the order in which they are named.
    pub endpoints: Vec<SocketAddr>,
}

/// A node that a `nodeSelector` may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddresses {
    /// Its labels.
    pub labels: Labels,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            default_allow: true,
            audit: false,
            excluded: Vec::new(),
            internal: None,
            resolvers: None,
            allow_resolvers: true,
        }
    }
}

impl World {
    /// A world without policies: allow everything.
    pub fn empty() -> Self {
        Self {
            seed: 0,
            config: Config::default(),
            namespaces: BTreeMap::new(),
            policies: Vec::new(),
            pods: vec![Pod::new("default", "client")],
            node: Node::default(),
            answers: Answers::new(),
        }
    }
}

impl Pod {
    /// A pod without labels and service account.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned(), labels: Labels::new(), service_account: None }
    }
}

impl Policy {
    /// An EgressNetworkPolicy with only rules.
    pub fn namespaced(namespace: &str, name: &str, rules: Vec<Rule>) -> Self {
        let id =
            PolicyId { kind: Kind::EgressNetworkPolicy, namespace: Some(namespace.to_owned()), name: name.to_owned() };
        Self::new(id, Tier::Namespace, rules)
    }

    /// A ClusterEgressPolicy with only rules.
    pub fn cluster(tier: Tier, name: &str, rules: Vec<Rule>) -> Self {
        let id = PolicyId { kind: Kind::ClusterEgressPolicy, namespace: None, name: name.to_owned() };
        Self::new(id, tier, rules)
    }

    fn new(id: PolicyId, tier: Tier, rules: Vec<Rule>) -> Self {
        Self {
            id,
            tier,
            priority: 100,
            mode: Mode::Enforce,
            pod_selector: None,
            namespace_selector: None,
            service_accounts: None,
            rules,
        }
    }
}

impl Rule {
    /// A rule for a prefix, every protocol and port.
    pub const fn cidr(action: Action, prefix: Prefix) -> Self {
        Self { action, peer: Peer::Cidr { prefix, except: Vec::new() }, ports: None, name: None }
    }
}

impl Selector {
    /// Whether `labels` satisfy every part.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.expressions.iter().all(|expression| expression.matches(labels))
    }
}

impl Expression {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl Protocol {
    /// Its IP protocol number; none for [`Protocol::Any`].
    pub const fn number(self) -> Option<u8> {
        match self {
            Self::Tcp => Some(6),
            Self::Udp => Some(17),
            Self::Sctp => Some(132),
            Self::Icmp => Some(1),
            Self::Icmpv6 => Some(58),
            Self::Any => None,
        }
    }

    /// Whether packets of this protocol have ports.
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp | Self::Sctp)
    }
}

impl Ports {
    /// Every port of `protocol`.
    pub const fn all(protocol: Protocol) -> Self {
        Self { protocol, port: None, end: None }
    }

    /// The ports `port` to `end` of `protocol`.
    pub const fn range(protocol: Protocol, port: u16, end: u16) -> Self {
        Self { protocol, port: Some(port), end: Some(end) }
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}
