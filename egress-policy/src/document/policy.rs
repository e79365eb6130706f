//! Policies: from the values of a document to a [`Policy`], with the checks that make one valid (§3, §8).

use std::sync::Arc;

use ipnet::IpNet;

use super::metadata::Metadata;
use super::problem::{Fields, Report};
use super::tree::{Node, Value};
use crate::model::{Action, Mode, Peer, Policy, PolicyKey, PolicyKind, Rule, Tier};
use crate::name::NamePattern;
use crate::ports::{KeyRange, Ports};
use crate::spec::{
    ClusterTier, DEFAULT_PRIORITY, MAX_EXCEPT, MAX_PORTS, MAX_PRIORITY, MAX_RULES, MAX_SERVICE_ACCOUNTS, Protocol,
};
use crate::warnings::WarningReason;
use egress_common::packet::protocol;

/// Fields of `EgressNetworkPolicy`'s spec.
pub(super) const POLICY: [&str; 5] = ["egress", "podSelector", "serviceAccounts", "priority", "mode"];
/// Fields of `ClusterEgressPolicy`'s spec.
pub(super) const CLUSTER_POLICY: [&str; 7] =
    ["tier", "egress", "namespaceSelector", "podSelector", "serviceAccounts", "priority", "mode"];
/// Fields of the spec of OpenShift's object.
pub(super) const OPENSHIFT_POLICY: [&str; 1] = ["egress"];
/// Fields of a rule.
pub(super) const RULE: [&str; 4] = ["type", "to", "ports", "name"];
/// Fields of a peer.
pub(super) const PEER: [&str; 4] = ["cidrSelector", "dnsName", "nodeSelector", "except"];
/// Fields of a port.
pub(super) const PORT: [&str; 3] = ["protocol", "port", "endPort"];

/// Longest name of a rule.
const MAX_RULE_NAME: usize = 253;
/// The namespace of an object that names none.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

impl<'n> Report<'n> {
    /// A policy of `kind`. What comes back is complete only if the report has no problems.
    pub(super) fn policy(&mut self, object: Fields<'n>, metadata: Metadata, kind: PolicyKind) -> Option<Policy> {
        let cluster = kind == PolicyKind::ClusterEgressPolicy;
        if cluster && metadata.namespace.is_some() {
            self.within("metadata", |report| {
                report.problem_at(
                    "namespace",
                    "a ClusterEgressPolicy has no namespace",
                    "remove it; namespaceSelector chooses namespaces",
                );
            });
        }
        let namespace = (!cluster).then(|| metadata.namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()));
        let key = Arc::new(PolicyKey { kind, namespace, name: metadata.name.unwrap_or_default() });
        self.required(object, "spec", "add a spec with the list egress", |report, node| report.policy_spec(node, key))
    }

    fn policy_spec(&mut self, node: &'n Node, key: Arc<PolicyKey>) -> Option<Policy> {
        let kind = key.kind;
        let known: &[&str] = match kind {
            PolicyKind::EgressNetworkPolicy => &POLICY,
            PolicyKind::ClusterEgressPolicy => &CLUSTER_POLICY,
            PolicyKind::OpenShiftEgressNetworkPolicy => &OPENSHIFT_POLICY,
        };
        let fields = self.fields(node, known)?;
        let tier = match kind {
            PolicyKind::EgressNetworkPolicy | PolicyKind::OpenShiftEgressNetworkPolicy => Some(Tier::Namespace),
            PolicyKind::ClusterEgressPolicy => {
                let tiers = [("Admin", ClusterTier::Admin), ("Baseline", ClusterTier::Baseline)];
                let tier = self.required(fields, "tier", "write tier: Admin or tier: Baseline", |report, node| {
                    report.choice(node, &tiers)
                });
                tier.map(|tier| match tier {
                    ClusterTier::Admin => Tier::Admin,
                    ClusterTier::Baseline => Tier::Baseline,
                })
            }
        };
        let namespace_selector = self.optional(fields, "namespaceSelector", Self::selector);
        let pod_selector = self.optional(fields, "podSelector", Self::selector);
        let service_accounts = self.optional(fields, "serviceAccounts", Self::service_accounts);
        let priority = self.optional(fields, "priority", |report, node| report.number(node, 0..=MAX_PRIORITY));
        let modes = [("Enforce", Mode::Enforce), ("Audit", Mode::Audit)];
        let mode = self.optional(fields, "mode", |report, node| report.choice(node, &modes));
        let rules = self.required(fields, "egress", "list the rules; an empty list is valid", |report, node| {
            report.rules(node, tier, kind)
        });
        Some(Policy {
            key,
            tier: tier?,
            priority: priority.unwrap_or(DEFAULT_PRIORITY),
            mode: mode.unwrap_or_default(),
            namespace_selector,
            pod_selector,
            service_accounts,
            rules: rules?.into(),
            warnings: Vec::new(),
        })
    }

    fn service_accounts(&mut self, node: &'n Node) -> Option<Vec<String>> {
        let hint = "split the policy into several";
        let accounts =
            self.short_list(node, MAX_SERVICE_ACCOUNTS, hint, |report, node| report.object_name(node, 253))?;
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            self.warning(
                WarningReason::SelectsNothing,
                "an empty list selects no pod, so the policy applies to none; remove the field to select all",
            );
        }
        Some(accounts)
    }

    fn rules(&mut self, node: &'n Node, tier: Option<Tier>, kind: PolicyKind) -> Option<Vec<Rule>> {
        if let Value::List(items) = &node.value
            && items.len() > MAX_RULES
        {
            self.problem(
                format!("{} rules, and at most {MAX_RULES} are possible", items.len()),
                "split the policy into several",
            );
            return None;
        }
        self.list(node, |report, node| report.rule(node, tier, kind))
    }

    fn rule(&mut self, node: &'n Node, tier: Option<Tier>, kind: PolicyKind) -> Option<Rule> {
        let fields = self.fields(node, &RULE)?;
        let actions = [("Allow", Action::Allow), ("Deny", Action::Deny), ("Pass", Action::Pass)];
        // An unreadable tier is a problem of its own; Pass is judged only where the tier is known.
        let choices = if matches!(tier, Some(Tier::Admin) | None) { &actions[..] } else { actions.split_at(2).0 };
        let action = self.required(fields, "type", "write type: Allow or type: Deny", |report, node| {
            if choices.len() == 2 && node.value == Value::Text("Pass".to_owned()) {
                report.problem(
                    "Pass is possible only in the Admin tier",
                    "write Allow or Deny, or move the rule to a ClusterEgressPolicy of tier Admin",
                );
                return None;
            }
            report.choice(node, choices)
        });
        let ports = self.optional(fields, "ports", Self::ports);
        let peer = self.required(fields, "to", "add one of cidrSelector, dnsName, nodeSelector", |report, node| {
            report.peer(node, kind, ports.as_ref())
        });
        let name = self.optional(fields, "name", Self::rule_name);
        Some(Rule { action: action?, peer: peer?, ports: ports.unwrap_or(Ports::Any), name: name.map(Into::into) })
    }

    pub(crate) fn rule_name(&mut self, node: &'n Node) -> Option<&'n str> {
        let text = self.text(node)?;
        if text.is_empty() || text.len() > MAX_RULE_NAME || text.chars().any(char::is_control) {
            self.problem(
                "the name is empty, too long or has control characters",
                format!("use 1 to {MAX_RULE_NAME} printable characters"),
            );
            return None;
        }
        Some(text)
    }

    /// §3.1: exactly one kind of peer.
    fn peer(&mut self, node: &'n Node, kind: PolicyKind, ports: Option<&Ports>) -> Option<Peer> {
        let fields = self.fields(node, &PEER)?;
        // Old OpenShift servers write the peer that is not meant as an empty text.
        let is_meant = |name: &&str| match fields.get(name).map(|node| &node.value) {
            Some(Value::Text(text)) => !(text.is_empty() && kind == PolicyKind::OpenShiftEgressNetworkPolicy),
            Some(_) => true,
            None => false,
        };
        let named: Vec<&str> = ["cidrSelector", "dnsName", "nodeSelector"].into_iter().filter(is_meant).collect();
        let [name] = named.as_slice() else {
            let (message, hint) = if named.is_empty() {
                ("names no destination".to_owned(), "add one of cidrSelector, dnsName, nodeSelector")
            } else {
                (
                    format!("names {} destinations: {}", named.len(), named.join(", ")),
                    "keep one and write a rule for each of the others",
                )
            };
            self.problem(message, hint);
            // Each of them is still checked, for the sake of its own problems.
            for name in named {
                self.peer_of(fields, name, kind, ports);
            }
            return None;
        };
        if *name != "cidrSelector" && fields.get("except").is_some() {
            self.problem_at(
                "except",
                format!("except needs cidrSelector, and the rule has {name}"),
                "remove it, or write a Deny rule before this one",
            );
        }
        self.peer_of(fields, name, kind, ports)
    }

    fn peer_of(&mut self, fields: Fields<'n>, name: &str, kind: PolicyKind, ports: Option<&Ports>) -> Option<Peer> {
        match name {
            "cidrSelector" => {
                let cidr = self.optional(fields, name, |report, node| report.cidr_selector(node, kind, ports));
                let except = self.optional(fields, "except", |report, node| {
                    report.at_most(node, MAX_EXCEPT, "write several rules, each with a smaller prefix")?;
                    report.except(node, cidr)
                });
                Some(Peer::Cidr { cidr: cidr?, except: except.unwrap_or_default().into() })
            }
            "dnsName" => self.optional(fields, name, Self::dns_name),
            _ => self.optional(fields, name, Self::selector).map(|selector| Peer::Nodes(Arc::new(selector))),
        }
    }

    fn cidr_selector(&mut self, node: &'n Node, kind: PolicyKind, ports: Option<&Ports>) -> Option<IpNet> {
        let cidr = self.prefix(node)?;
        if cidr.prefix_len() == 32 && cidr.addr().is_ipv4() && cidr.addr().is_unspecified() {
            if kind == PolicyKind::OpenShiftEgressNetworkPolicy {
                self.warning(
                    WarningReason::OpenShiftZeroAddress,
                    "0.0.0.0/32 is read as 0.0.0.0/0, as OpenShift does; write 0.0.0.0/0",
                );
                return "0.0.0.0/0".parse().ok();
            }
            self.warning(
                WarningReason::SingleZeroAddress,
                "0.0.0.0/32 is the one address 0.0.0.0; write 0.0.0.0/0 for every IPv4 address",
            );
        }
        let other = if cidr.addr().is_ipv4() {
            (protocol::ICMPV6, "ICMPv6", "ICMP")
        } else {
            (protocol::ICMP, "ICMP", "ICMPv6")
        };
        if let Some(Ports::Listed(ranges)) = ports
            && ranges.iter().any(|range| *range == KeyRange::protocol(other.0))
        {
            let message = format!("{cidr} has no {}; write {} in ports", other.1, other.2);
            self.warning(WarningReason::ProtocolOfOtherFamily, message);
        }
        Some(cidr)
    }

    /// Prefixes inside `cidr`, any number of them.
    pub(crate) fn except(&mut self, node: &'n Node, cidr: Option<IpNet>) -> Option<Vec<IpNet>> {
        let mut except = self.list(node, |report, node| {
            let prefix = report.prefix(node)?;
            match cidr {
                Some(cidr) if !cidr.contains(&prefix) => {
                    report.problem(
                        format!("{prefix} is not inside {cidr}"),
                        "remove it; the rule does not match it anyway",
                    );
                    None
                }
                _ => Some(prefix),
            }
        })?;
        except.sort_unstable();
        except.dedup();
        // Adjacent halves count as what they make together.
        if cidr.is_some_and(|cidr| IpNet::aggregate(&except).contains(&cidr)) {
            self.warning(
                WarningReason::NothingLeft,
                "nothing of cidrSelector is left, so the rule matches nothing; remove the rule",
            );
        }
        Some(except)
    }

    fn dns_name(&mut self, node: &'n Node) -> Option<Peer> {
        let text = self.text(node)?;
        match NamePattern::parse(text) {
            Ok(name) => Some(Peer::DnsName(Arc::new(name))),
            Err(error) => {
                self.problem(error.to_string(), error.hint());
                None
            }
        }
    }

    /// §3.4.
    fn ports(&mut self, node: &'n Node) -> Option<Ports> {
        let ranges = self.short_list(node, MAX_PORTS, "write several rules with the same destination", Self::port)?;
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            self.problem("an empty list matches no traffic", "remove the field to match every protocol and port");
        }
        Some(Ports::new(ranges))
    }

    fn port(&mut self, node: &'n Node) -> Option<KeyRange> {
        let fields = self.fields(node, &PORT)?;
        let protocols = [
            ("TCP", Protocol::TCP),
            ("UDP", Protocol::UDP),
            ("SCTP", Protocol::SCTP),
            ("ICMP", Protocol::ICMP),
            ("ICMPv6", Protocol::ICMPv6),
            ("Any", Protocol::Any),
        ];
        let hint = "write one of TCP, UDP, SCTP, ICMP, ICMPv6, Any";
        let named = self.required(fields, "protocol", hint, |report, node| report.choice(node, &protocols));
        let port = self.optional(fields, "port", |report, node| report.number(node, 1..=u16::MAX));
        let end = self.optional(fields, "endPort", |report, node| report.number(node, 1..=u16::MAX));
        if fields.get("endPort").is_some() && fields.get("port").is_none() {
            self.problem_at("endPort", "endPort needs port, where the range begins", "add port");
        }
        if let (Some(port), Some(end)) = (port, end)
            && end < port
        {
            self.problem_at(
                "endPort",
                format!("endPort {end} is below port {port}"),
                "write the smaller number as port",
            );
        }
        let number = match named? {
            Protocol::TCP => protocol::TCP,
            Protocol::UDP => protocol::UDP,
            Protocol::SCTP => protocol::SCTP,
            Protocol::ICMP => {
                return self.portless(fields, "ICMP").then_some(KeyRange::protocol(protocol::ICMP));
            }
            Protocol::ICMPv6 => {
                return self.portless(fields, "ICMPv6").then_some(KeyRange::protocol(protocol::ICMPV6));
            }
            Protocol::Any => return self.portless(fields, "Any").then_some(KeyRange::ALL),
        };
        match (port, end) {
            (None, _) => Some(KeyRange::protocol(number)),
            (Some(port), end) => Some(KeyRange::ports(number, port, end.unwrap_or(port).max(port))),
        }
    }

    fn portless(&mut self, fields: Fields<'n>, protocol: &str) -> bool {
        let given = ["port", "endPort"].into_iter().filter(|name| fields.get(name).is_some());
        let mut right = true;
        for name in given {
            right = false;
            self.problem_at(name, format!("{protocol} takes no port"), "remove it, or name TCP, UDP or SCTP");
        }
        right
    }
}
