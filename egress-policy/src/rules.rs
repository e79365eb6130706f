//! The rules of one pod in the order of evaluation (§2): a rule's index in the list is its rank, and the first match wins.
//!
//! Order: services that lead outside, builtin rules, Admin tier, Namespace tier, Baseline tier, default action. Invariant: the last rule is the default action and
//! matches everything. Under `enforcement: Audit` every policy is one under Audit, and so is a default action that denies: an Audit rule
//! before the last one, which then allows. Pods with equal lists (same [`RuleList::fingerprint`]) share one compiled table.

mod builtin;
mod fingerprint;
mod services;
mod vacancies;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use egress_common::table::Decision;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use self::builtin::{builtin_rules, hosts};
pub(crate) use self::fingerprint::Digests;
pub use self::services::ServiceOrigin;
use crate::model::{
    Action, DefaultAction, Mode, NAMESPACE_NAME_LABEL, NodeContext, Peer, PodIdentity, Policy, PolicyKey, PolicySet,
    Rule, Tier,
};
use crate::name::NamePattern;
use crate::ports::Ports;
use crate::selector::LabelSelector;

/// The firewall's own rules, in the order of evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Builtin {
    /// The cluster's own prefixes and loopback (§1.2).
    InternalCidrs,
    /// ICMPv6 neighbour discovery and multicast listener reports on the link (§1.2).
    NeighbourDiscovery,
    /// `DHCPv6` on the link (§1.2).
    Dhcpv6,
    /// Multicast group reports (IGMP) on the link (§1.2).
    Igmp,
    /// `DHCPv4` broadcasts on the link (§1.2).
    Dhcpv4,
    /// DNS to the trusted resolvers and the pod's own node (§1.3).
    Dns,
    /// `excludedCIDRs` of the configuration.
    ExcludedCidrs,
}

impl Builtin {
    /// What messages call the rule.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InternalCidrs => "internal CIDRs",
            Self::NeighbourDiscovery => "link control (neighbour discovery)",
            Self::Dhcpv6 => "link control (DHCPv6)",
            Self::Igmp => "link control (IGMP)",
            Self::Dhcpv4 => "link control (DHCPv4)",
            Self::Dns => "DNS to trusted resolvers",
            Self::ExcludedCidrs => "excluded CIDRs",
        }
    }

    /// Whether what the rule matches is internal traffic, for which no connection is remembered.
    pub const fn is_internal(self) -> bool {
        !matches!(self, Self::Dns | Self::ExcludedCidrs)
    }
}

/// Where a rule comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RuleOrigin {
    /// The firewall itself.
    Builtin(Builtin),
    /// A policy.
    Policy {
        /// Which policy.
        key: Arc<PolicyKey>,
        /// Which rule of it, from 1.
        number: u32,
        /// The rule's own name.
        name: Option<Arc<str>>,
    },
    /// What the rules say of a service's endpoints, said of the service (§1.6).
    Service(Arc<ServiceOrigin>),
    /// The default action.
    Default,
    /// Nowhere: no rule has this rank, and one that is added may have it.
    Vacant,
}

impl fmt::Display for RuleOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(builtin) => f.write_str(builtin.name()),
            Self::Policy { key, number, .. } => write!(f, "rule {number} of {key}"),
            Self::Service(service) => write!(f, "{service}"),
            Self::Default => f.write_str("default action"),
            Self::Vacant => f.write_str("no rule"),
        }
    }
}

/// The destinations of a rule in a list: like [`Peer`], with the addresses of nodes filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RankedPeer {
    /// Every address.
    Any,
    /// The addresses of several prefixes.
    Networks(Arc<[IpNet]>),
    /// The addresses of a prefix, without those of `except`.
    Cidr {
        /// The prefix.
        cidr: IpNet,
        /// Prefixes inside it.
        except: Arc<[IpNet]>,
    },
    /// The live addresses of the names of a pattern (§5).
    DnsName(Arc<NamePattern>),
    /// The addresses of the selected nodes.
    Nodes {
        /// Which nodes.
        selector: Arc<LabelSelector>,
        /// Their addresses, as whole-length prefixes, sorted.
        networks: Arc<[IpNet]>,
    },
}

/// One rule of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankedRule {
    /// Where it comes from.
    pub origin: RuleOrigin,
    /// Where it stands.
    pub tier: Tier,
    /// What it says.
    pub action: Action,
    /// Enforce for everything but the rules of policies under Audit.
    pub mode: Mode,
    /// About which destinations.
    pub peer: RankedPeer,
    /// And which protocols and ports.
    pub ports: Ports,
}

impl RankedRule {
    /// The verdict of the rule at `rank`, or `None` for Pass, which gives none.
    pub const fn decision(&self, rank: u32) -> Option<Decision> {
        match (self.action, &self.origin) {
            (Action::Pass, _) => None,
            (Action::Deny, _) => Some(Decision::deny(rank)),
            (Action::Allow, RuleOrigin::Builtin(builtin)) if builtin.is_internal() => Some(Decision::internal(rank)),
            (Action::Allow, _) => Some(Decision::allow(rank)),
        }
    }

    /// The prefixes that the rule matches, before [`RankedRule::except`] is taken away. Names are joined with them at lookup.
    pub fn networks(&self) -> &[IpNet] {
        const EVERYTHING: &[IpNet] = &[
            IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
            IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
        ];
        match &self.peer {
            RankedPeer::Any => EVERYTHING,
            RankedPeer::Cidr { cidr, .. } => std::slice::from_ref(cidr),
            RankedPeer::Networks(networks) | RankedPeer::Nodes { networks, .. } => networks,
            RankedPeer::DnsName(_) => &[],
        }
    }

    /// Prefixes that the rule does not match.
    pub fn except(&self) -> &[IpNet] {
        match &self.peer {
            RankedPeer::Cidr { except, .. } => except,
            RankedPeer::Any | RankedPeer::Networks(_) | RankedPeer::DnsName(_) | RankedPeer::Nodes { .. } => &[],
        }
    }

    /// Whether it belongs to the head of the list, which a Pass may end: the firewall's own rules and the Admin tier.
    pub(crate) const fn is_head(&self) -> bool {
        matches!(self.tier, Tier::Builtin | Tier::Admin)
    }

    /// Whether the rule can match any address at all; a name can have any.
    pub fn has_addresses(&self) -> bool {
        matches!(self.peer, RankedPeer::DnsName(_)) || !self.networks().is_empty()
    }

    /// `Allow 1.2.3.0/24 TCP/443`.
    pub fn text(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for RankedRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action.name(), self.peer)?;
        match &self.ports {
            Ports::Any => Ok(()),
            Ports::Listed(_) => write!(f, " {}", self.ports),
        }
    }
}

impl fmt::Display for RankedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("everything"),
            Self::Networks(networks) => f.write_str(&join(networks)),
            Self::Cidr { cidr, except } if except.is_empty() => write!(f, "{cidr}"),
            Self::Cidr { cidr, except } => write!(f, "{cidr} except {}", join(except)),
            Self::DnsName(name) => write!(f, "{name}"),
            Self::Nodes { selector, .. } => write!(f, "nodes ({selector})"),
        }
    }
}

/// At most eight of the prefixes; rule texts are for reading.
fn join(networks: &[IpNet]) -> String {
    const SHOWN: usize = 8;
    let mut texts: Vec<String> = networks.iter().take(SHOWN).map(ToString::to_string).collect();
    if let Some(more) = networks.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        texts.push(format!("{more} more"));
    }
    texts.join(",")
}

/// A policy that selects the pod, for messages about the list as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedPolicy {
    /// Which one.
    pub key: Arc<PolicyKey>,
    /// Its tier.
    pub tier: Tier,
    /// Its priority.
    pub priority: u16,
    /// Whether it decides.
    pub mode: Mode,
}

/// The rules of a pod, by rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleList {
    /// The rules; the index is the rank, the last one is the default action.
    pub rules: Vec<RankedRule>,
    /// The policies that select the pod, in the order of evaluation.
    pub policies: Vec<SelectedPolicy>,
}

impl PolicySet {
    /// The rules that apply to `pod` on the node of `node`, in order.
    pub fn rule_list(&self, pod: &PodIdentity, node: &NodeContext) -> RuleList {
        self.rule_list_of(&self.selected(pod), node)
    }

    /// The policies that select `pod`, in the order of evaluation (§2.2). Pods with equal selections have equal rule lists, so callers
    /// can build the list once per selection.
    pub fn selected(&self, pod: &PodIdentity) -> Vec<&Policy> {
        let mut policies: Vec<&Policy> = self.policies.values().filter(|policy| self.selects(policy, pod)).collect();
        policies.sort_by(|a, b| order(a).cmp(&order(b)));
        policies
    }

    /// The rule list of a selection made by [`PolicySet::selected`].
    pub fn rule_list_of(&self, policies: &[&Policy], node: &NodeContext) -> RuleList {
        let mut rules = builtin_rules(&self.config, node);
        for policy in policies {
            let mode = self.mode(policy);
            rules.extend(policy.rules.iter().zip(1..).map(|(rule, number)| ranked(policy, mode, rule, number, node)));
        }
        let audited = self.config.enforcement == Mode::Audit;
        match (self.config.default_action, audited) {
            (DefaultAction::Allow, _) => rules.push(default_rule(Action::Allow, Mode::Enforce)),
            (DefaultAction::Deny, false) => rules.push(default_rule(Action::Deny, Mode::Enforce)),
            (DefaultAction::Deny, true) => {
                rules.extend([default_rule(Action::Deny, Mode::Audit), default_rule(Action::Allow, Mode::Enforce)]);
            }
        }
        let policies = policies.iter().map(|policy| self.selected_policy(policy)).collect();
        let mut list = RuleList { rules, policies };
        list.judge_services(&node.services);
        list
    }

    pub(crate) fn selected_policy(&self, policy: &Policy) -> SelectedPolicy {
        SelectedPolicy {
            key: Arc::clone(&policy.key),
            tier: policy.tier,
            priority: policy.priority,
            mode: self.mode(policy),
        }
    }

    /// §2.5, for one policy or for all.
    fn mode(&self, policy: &Policy) -> Mode {
        if self.config.enforcement == Mode::Audit { Mode::Audit } else { policy.mode }
    }

    /// §2.6.
    fn selects(&self, policy: &Policy, pod: &PodIdentity) -> bool {
        let in_scope = match &policy.key.namespace {
            Some(namespace) => *namespace == pod.namespace,
            None => policy
                .namespace_selector
                .as_ref()
                .is_none_or(|selector| self.selects_namespace(selector, &pod.namespace)),
        };
        let has_account =
            |accounts: &Vec<String>| pod.service_account.as_ref().is_some_and(|account| accounts.contains(account));
        in_scope
            && policy.pod_selector.as_ref().is_none_or(|selector| selector.matches(&pod.labels))
            && policy.service_accounts.as_ref().is_none_or(has_account)
    }

    fn selects_namespace(&self, selector: &LabelSelector, namespace: &str) -> bool {
        let mut labels = self.namespaces.get(namespace).cloned().unwrap_or_default();
        labels.insert(NAMESPACE_NAME_LABEL.to_owned(), namespace.to_owned());
        selector.matches(&labels)
    }
}

/// §2.1 and §2.2. The kind only separates an OpenShift object from one of ours with the same name.
fn order(policy: &Policy) -> (Tier, u16, &str, &PolicyKey) {
    (policy.tier, policy.priority, &policy.key.name, &policy.key)
}

fn default_rule(action: Action, mode: Mode) -> RankedRule {
    RankedRule {
        origin: RuleOrigin::Default,
        tier: Tier::Default,
        action,
        mode,
        peer: RankedPeer::Any,
        ports: Ports::Any,
    }
}

pub(crate) fn ranked(policy: &Policy, mode: Mode, rule: &Rule, number: u32, node: &NodeContext) -> RankedRule {
    let peer = match &rule.peer {
        Peer::Cidr { cidr, except } => RankedPeer::Cidr { cidr: *cidr, except: Arc::clone(except) },
        Peer::DnsName(name) => RankedPeer::DnsName(Arc::clone(name)),
        Peer::Nodes(selector) => {
            let selected = node.nodes.iter().filter(|node| selector.matches(&node.labels));
            let addresses = selected.flat_map(|node| node.addresses.iter().copied());
            RankedPeer::Nodes { selector: Arc::clone(selector), networks: hosts(addresses) }
        }
    };
    RankedRule {
        origin: RuleOrigin::Policy { key: Arc::clone(&policy.key), number, name: rule.name.clone() },
        tier: policy.tier,
        action: rule.action,
        mode,
        peer,
        ports: rule.ports.clone(),
    }
}

impl RuleList {
    /// Whether rules of the list are about DNS names.
    pub fn has_names(&self) -> bool {
        self.rules.iter().any(|rule| matches!(rule.peer, RankedPeer::DnsName(_)))
    }

    /// The names that rules of the list are about, each once.
    pub fn patterns(&self) -> BTreeSet<Arc<NamePattern>> {
        let of_rule = |rule: &RankedRule| match &rule.peer {
            RankedPeer::DnsName(name) => Some(Arc::clone(name)),
            RankedPeer::Any | RankedPeer::Networks(_) | RankedPeer::Cidr { .. } | RankedPeer::Nodes { .. } => None,
        };
        self.rules.iter().filter_map(of_rule).collect()
    }

    /// Whether the list says nothing: no policy selects the pod and the default is Allow. Such a pod needs no endpoint (performance.md).
    pub fn is_trivial(&self) -> bool {
        let denies = |rule: &RankedRule| rule.tier == Tier::Default && rule.action == Action::Deny;
        self.policies.is_empty() && !self.rules.iter().rev().take(2).any(denies)
    }
}

#[cfg(test)]
mod tests;
