//! The naive evaluator: one packet against one rule at a time, in the order of §2, with no data structure at all.
//!
//! Invariant: every step cites the section that demands it; nothing is precomputed, so there is nothing to get wrong but the reading.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::names::pattern_means;
use crate::object::{Action, Labels, Mode, Peer, Pod, Policy, PolicyId, Ports, Rule, Service, Tier, World};
use crate::packets::Packet;
use crate::prefix::Prefix;

/// Judges packets of a world's pods.
#[derive(Clone, Debug)]
pub struct Oracle<'w> {
    world: &'w World,
    /// Whether addresses have their names. Endpoints of services are judged without.
    by_name: bool,
}

/// What decided, and what it said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// Whether the packet passes.
    pub allow: bool,
    /// Whether it passes because its destination is internal (§1.2).
    pub internal: bool,
    /// Who decided.
    pub decider: Decider,
}

/// Who decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Decider {
    /// A rule that is always there.
    Builtin(Builtin),
    /// Rule `number` (from 1) of a policy.
    Rule {
        /// The policy.
        policy: PolicyId,
        /// The rule's number in it, from 1.
        number: usize,
    },
    /// What decided about an endpoint of a service (§1.6).
    Service {
        /// The service.
        service: String,
        /// The endpoint.
        endpoint: SocketAddr,
        /// What decided.
        by: Box<Self>,
    },
    /// The default action.
    Default,
}

/// Rules that are always there, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Builtin {
    /// Internal CIDRs and loopback (§1.2).
    Internal,
    /// Neighbour discovery, multicast listeners, DHCP (§1.2).
    LinkControl,
    /// DNS to trusted resolvers and the own node (§1.3).
    Dns,
    /// `excludedCIDRs` (§8).
    Excluded,
}

/// The whole answer for one packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// The verdict in force.
    pub verdict: Verdict,
    /// The verdict with Audit policies enforced too, if the action is another one or an Audit policy decides it.
    pub audit: Option<Verdict>,
    /// What happened on the way to `verdict`.
    pub trace: Trace,
}

/// What happened on the way to a verdict; for counters that show that tests are not vacuous.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent observation that is counted")]
pub struct Trace {
    /// The Pass rule that ended the Admin tier.
    pub passed: Option<Decider>,
    /// A rule would have matched but for its `except`.
    pub excepted: bool,
    /// A rule for the destination did not match because of its ports or protocol.
    pub ports_differed: bool,
    /// The deciding rule has a port list with a port in it.
    pub by_port: bool,
    /// The deciding rule names nodes.
    pub by_node: bool,
    /// The deciding rule names a DNS name.
    pub by_name: bool,
    /// The Pass rule that ended the Admin tier names a DNS name.
    pub passed_by_name: bool,
    /// A rule named a DNS name that has no live address (§5.8).
    pub nothing_live: bool,
}

/// The verdict of a packet whose ports are not known (§3.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyPort {
    /// Every port gives this verdict and this audit verdict.
    Same(Outcome),
    /// Every port gives this verdict; only what Audit policies would say depends on the port.
    SameButAudit(Verdict),
    /// The deciding rule depends on the port.
    Depends,
}

impl AnyPort {
    /// The verdict, where it does not depend on the port.
    pub const fn verdict(&self) -> Option<&Verdict> {
        match self {
            Self::Same(outcome) => Some(&outcome.verdict),
            Self::SameButAudit(verdict) => Some(verdict),
            Self::Depends => None,
        }
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const IGMP: u8 = 2;
const ICMPV6: u8 = 58;

impl<'w> Oracle<'w> {
    /// The oracle of `world`.
    pub const fn new(world: &'w World) -> Self {
        Self { world, by_name: true }
    }

    /// Judges `packet` of `pod`.
    pub fn evaluate(&self, pod: &Pod, packet: &Packet) -> Outcome {
        let packet = &packet.canonical();
        let mut trace = Trace::default();
        let verdict = self.decide(pod, packet, false, &mut trace);
        let hypothetical = self.decide(pod, packet, true, &mut Trace::default());
        let relevant = hypothetical.allow != verdict.allow || self.is_audit(&hypothetical.decider);
        Outcome { verdict, audit: relevant.then_some(hypothetical), trace }
    }

    /// Judges a packet to `destination` whose ports are not known (§3.6), by asking for every port that could matter.
    pub fn evaluate_any_port(&self, pod: &Pod, destination: IpAddr, protocol: u8) -> AnyPort {
        let outcomes: Vec<Outcome> = self
            .ports_that_matter()
            .into_iter()
            .map(|port| self.evaluate(pod, &Packet { destination, protocol, port }))
            .collect();
        let first = &outcomes[0];
        if outcomes.iter().any(|outcome| outcome.verdict != first.verdict) {
            AnyPort::Depends
        } else if outcomes.iter().any(|outcome| outcome.audit != first.audit) {
            AnyPort::SameButAudit(first.verdict.clone())
        } else {
            AnyPort::Same(first.clone())
        }
    }

    /// The policies that select `pod`, in evaluation order over all tiers (§2.1, §2.2, §2.6).
    pub fn policies(&self, pod: &Pod) -> Vec<&'w Policy> {
        [Tier::Admin, Tier::Namespace, Tier::Baseline].into_iter().flat_map(|tier| self.tier(tier, pod)).collect()
    }

    /// Every rule that matches, Audit or not, in evaluation order, whether or not it was reached.
    pub fn matching_rules(&self, pod: &Pod, packet: &Packet) -> Vec<Decider> {
        let packet = &packet.canonical();
        let mut matching = Vec::new();
        for policy in self.policies(pod) {
            for (number, rule) in (1..).zip(&policy.rules) {
                if self.rule_matches(rule, packet, &mut Trace::default()) {
                    let policy = policy.id.clone();
                    matching.push(Decider::Rule { policy, number });
                }
            }
        }
        matching
    }

    /// §1.6: a service with a denied endpoint is denied, before anything else but DNS (§1.3).
    fn decide(&self, pod: &Pod, packet: &Packet, with_audit: bool, trace: &mut Trace) -> Verdict {
        let plain = self.judge(pod, packet, with_audit, trace);
        if self.is_dns(packet) {
            return plain;
        }
        let is_it = |service: &&Service| {
            (service.protocol, service.port) == (packet.protocol, packet.port)
                && service.addresses.contains(&packet.destination)
        };
        for service in self.world.node.services.iter().filter(is_it) {
            let of =
                |endpoint, decider| Decider::Service { service: service.name.clone(), endpoint, by: Box::new(decider) };
            if let Some((endpoint, decider)) = self.denied_endpoint(pod, service, with_audit) {
                return Verdict { allow: false, internal: false, decider: of(endpoint, decider) };
            }
            if let Some((endpoint, _)) = self.denied_endpoint(pod, service, false).filter(|_| with_audit) {
                return Verdict { internal: false, decider: of(endpoint, plain.decider), ..plain };
            }
        }
        plain
    }

    /// The first endpoint that is denied, and what denies it.
    fn denied_endpoint(&self, pod: &Pod, service: &Service, with_audit: bool) -> Option<(SocketAddr, Decider)> {
        let nameless = Self { by_name: false, ..*self };
        service.endpoints.iter().find_map(|endpoint| {
            let packet = Packet { destination: endpoint.ip(), protocol: service.protocol, port: endpoint.port() };
            let verdict = nameless.judge(pod, &packet.canonical(), with_audit, &mut Trace::default());
            (!verdict.allow).then_some((*endpoint, verdict.decider))
        })
    }

    /// §2.1–§2.5: builtins, then tier after tier, policy after policy, rule after rule.
    fn judge(&self, pod: &Pod, packet: &Packet, with_audit: bool, trace: &mut Trace) -> Verdict {
        if let Some(builtin) = self.builtin(packet) {
            return Verdict {
                allow: true,
                internal: matches!(builtin, Builtin::Internal | Builtin::LinkControl),
                decider: Decider::Builtin(builtin),
            };
        }
        for tier in [Tier::Admin, Tier::Namespace, Tier::Baseline] {
            if let Some(verdict) = self.judge_tier(tier, pod, packet, with_audit, trace) {
                return verdict;
            }
        }
        let config = &self.world.config;
        let allow = config.default_allow || (config.audit && !with_audit);
        Verdict { allow, internal: false, decider: Decider::Default }
    }

    fn judge_tier(
        &self,
        tier: Tier,
        pod: &Pod,
        packet: &Packet,
        with_audit: bool,
        trace: &mut Trace,
    ) -> Option<Verdict> {
        for policy in self.tier(tier, pod) {
            if self.mode(policy) == Mode::Audit && !with_audit {
                continue;
            }
            for (number, rule) in (1..).zip(&policy.rules) {
                if !self.rule_matches(rule, packet, trace) {
                    continue;
                }
                let decider = Decider::Rule { policy: policy.id.clone(), number };
                let allow = match rule.action {
                    Action::Allow => true,
                    Action::Deny => false,
                    Action::Pass => {
                        trace.passed_by_name = matches!(rule.peer, Peer::Dns(_));
                        trace.passed = Some(decider);
                        return None;
                    }
                };
                trace.by_port = rule.ports.iter().flatten().any(|ports| ports.port.is_some());
                trace.by_node = matches!(rule.peer, Peer::Nodes(_));
                trace.by_name = matches!(rule.peer, Peer::Dns(_));
                return Some(Verdict { allow, internal: false, decider });
            }
        }
        None
    }

    /// The policies of `tier` that select `pod`, by (priority, name) (§2.2).
    fn tier(&self, tier: Tier, pod: &Pod) -> Vec<&'w Policy> {
        let mut policies: Vec<&Policy> =
            self.world.policies.iter().filter(|policy| policy.tier == tier && self.selects(policy, pod)).collect();
        policies.sort_by_key(|policy| (policy.priority, &policy.id.name));
        policies
    }

    /// §2.6. Absent selects every pod in scope; a present but empty list selects none.
    fn selects(&self, policy: &Policy, pod: &Pod) -> bool {
        let in_scope = match &policy.id.namespace {
            Some(namespace) => *namespace == pod.namespace,
            None => true,
        };
        let namespace_selected = match &policy.namespace_selector {
            Some(selector) => selector.matches(&self.namespace_labels(&pod.namespace)),
            None => true,
        };
        let pod_selected = match &policy.pod_selector {
            Some(selector) => selector.matches(&pod.labels),
            None => true,
        };
        let account_selected = match (&policy.service_accounts, &pod.service_account) {
            (Some(names), Some(account)) => names.contains(account),
            (Some(_), None) => false,
            (None, _) => true,
        };
        in_scope && namespace_selected && pod_selected && account_selected
    }

    /// The labels of the Namespace object, if there is one, and the one that every namespace has.
    fn namespace_labels(&self, namespace: &str) -> Labels {
        let mut labels = self.world.namespaces.get(namespace).cloned().unwrap_or_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), namespace.to_owned());
        labels
    }

    /// §3.1: `to` and `ports` must both match.
    fn rule_matches(&self, rule: &Rule, packet: &Packet, trace: &mut Trace) -> bool {
        let ports_match = match &rule.ports {
            Some(ports) => ports.iter().any(|ports| ports_match(ports, packet)),
            None => true,
        };
        let destination_matches = match &rule.peer {
            Peer::Cidr { prefix, except } => {
                let excepted = except.iter().any(|inner| inner.contains(packet.destination));
                trace.excepted |= excepted && ports_match;
                prefix.contains(packet.destination) && !excepted
            }
            Peer::Dns(pattern) => self.is_answer(pattern, packet.destination, trace),
            Peer::Nodes(selector) => self
                .world
                .node
                .nodes
                .iter()
                .any(|node| selector.matches(&node.labels) && node.addresses.contains(&packet.destination)),
        };
        trace.ports_differed |= destination_matches && !ports_match;
        destination_matches && ports_match
    }

    /// §3.3: whether the address is a live answer of a name that the pattern means (§5.1), among all its names (§5.9).
    fn is_answer(&self, pattern: &str, destination: IpAddr, trace: &mut Trace) -> bool {
        if !self.by_name {
            return false;
        }
        let meant = self.world.answers.iter().filter(|(name, _)| pattern_means(pattern, name));
        let meant: Vec<_> = meant.map(|(_, live)| live).collect();
        trace.nothing_live |= meant.iter().all(|live| live.is_empty());
        meant.iter().any(|live| live.contains(&destination))
    }

    /// The first builtin rule that covers the packet (§1.2, §1.3, §8).
    fn builtin(&self, packet: &Packet) -> Option<Builtin> {
        let config = &self.world.config;
        let any = |prefixes: &[Prefix]| prefixes.iter().any(|prefix| prefix.contains(packet.destination));
        if any(config.internal.as_deref().unwrap_or_default())
            || any(&[v4([127, 0, 0, 0], 8), v6([0, 0, 0, 0, 0, 0, 0, 1], 128)])
        {
            return Some(Builtin::Internal);
        }
        if self.is_link_control(packet) {
            return Some(Builtin::LinkControl);
        }
        if self.is_dns(packet) {
            return Some(Builtin::Dns);
        }
        any(&config.excluded).then_some(Builtin::Excluded)
    }

    /// §1.3.
    fn is_dns(&self, packet: &Packet) -> bool {
        self.world.config.allow_resolvers
            && matches!(packet.protocol, TCP | UDP)
            && packet.port == 53
            && self.dns_servers().contains(&packet.destination)
    }

    /// Neighbour discovery (133–137), multicast listeners (130–132, 143), DHCP, IGMP (§1.2).
    fn is_link_control(&self, packet: &Packet) -> bool {
        let link_local = v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10).contains(packet.destination)
            || v6([0xff02, 0, 0, 0, 0, 0, 0, 0], 16).contains(packet.destination);
        let own_node = self.world.node.addresses.contains(&packet.destination);
        match (packet.protocol, packet.port) {
            // ICMPv6 exists only in IPv6.
            (ICMPV6, 130..=137 | 143) if packet.destination.is_ipv6() => link_local || own_node,
            (UDP, 547) => link_local,
            (UDP, 67) => v4([255, 255, 255, 255], 32).contains(packet.destination),
            (IGMP, _) => v4([224, 0, 0, 0], 24).contains(packet.destination),
            _ => false,
        }
    }

    /// Trusted resolvers, configured or else discovered (§5.2), and the own node (§1.3).
    fn dns_servers(&self) -> BTreeSet<IpAddr> {
        let node = &self.world.node;
        let resolvers = self.world.config.resolvers.as_ref().unwrap_or(&node.resolvers);
        resolvers.iter().chain(&node.addresses).copied().collect()
    }

    /// §2.5, for one policy or for all.
    fn mode(&self, policy: &Policy) -> Mode {
        if self.world.config.audit { Mode::Audit } else { policy.mode }
    }

    fn is_audit(&self, decider: &Decider) -> bool {
        match decider {
            Decider::Rule { policy, .. } => {
                let is_it = |candidate: &&Policy| candidate.id == *policy;
                self.world.policies.iter().filter(is_it).any(|policy| self.mode(policy) == Mode::Audit)
            }
            Decider::Service { by, .. } => self.is_audit(by),
            Decider::Builtin(_) | Decider::Default => false,
        }
    }

    /// Ports at which a verdict can change: the ends of every range that occurs anywhere. For ICMP, the same of its types.
    fn ports_that_matter(&self) -> BTreeSet<u16> {
        let mut ports = BTreeSet::from([0, u16::MAX]);
        let builtin = [53..=53, 67..=67, 547..=547, 130..=137, 143..=143];
        let rules = self.world.policies.iter().flat_map(|policy| &policy.rules);
        let entries = rules.flat_map(|rule| rule.ports.iter().flatten());
        let written = entries.filter_map(|ports| ports.port.map(|port| port..=ports.end.unwrap_or(port)));
        for range in builtin.into_iter().chain(written) {
            ports.extend([*range.start(), *range.end()]);
            ports.extend(range.start().checked_sub(1));
            ports.extend(range.end().checked_add(1));
        }
        ports
    }
}

/// §3.4, §3.5.
fn ports_match(ports: &Ports, packet: &Packet) -> bool {
    let Some(number) = ports.protocol.number() else {
        return true;
    };
    let port_matches = match (ports.port, ports.end) {
        (Some(port), Some(end)) => (port..=end).contains(&packet.port),
        (Some(port), None) => port == packet.port,
        (None, _) => true,
    };
    number == packet.protocol && port_matches
}

fn v4(octets: [u8; 4], length: u8) -> Prefix {
    Prefix::new(IpAddr::from(octets), length)
}

fn v6(segments: [u16; 8], length: u8) -> Prefix {
    Prefix::new(IpAddr::from(segments), length)
}
