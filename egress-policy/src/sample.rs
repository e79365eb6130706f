//! Objects for the unit tests of this crate, written as YAML.

use std::net::IpAddr;

use crate::compile::{Limits, Lookup, Table, compile};
use crate::document::{Object, read};
use crate::explain::{Verdict, explain};
use crate::model::{NodeContext, PodIdentity, PolicySet};
use crate::rules::RuleList;

/// TCP, UDP, ICMP and ICMPv6.
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

/// Everything in `text`, which must be valid.
pub(crate) fn set(text: &str) -> PolicySet {
    let documents = read(text);
    assert_eq!(documents.problems, [], "the sample is valid");
    let mut set = PolicySet::default();
    for object in documents.objects {
        match object {
            Object::Policy(policy) => assert_eq!(set.insert(policy), None),
            Object::Config(config) => set.config = config,
            Object::Namespace { name, labels } => {
                set.namespaces.insert(name, labels);
            }
        }
    }
    set
}

/// The policy `default/<name>`, its rules in flow style: `{type: Allow, to: {cidrSelector: 1.2.3.0/24}}`.
pub(crate) fn policy(name: &str, spec: &str, rules: &[&str]) -> String {
    object("EgressNetworkPolicy", name, spec, rules)
}

/// A cluster policy.
pub(crate) fn cluster(name: &str, spec: &str, rules: &[&str]) -> String {
    object("ClusterEgressPolicy", name, spec, rules)
}

fn object(kind: &str, name: &str, spec: &str, rules: &[&str]) -> String {
    let spec = if spec.is_empty() { String::new() } else { format!("{spec}, ") };
    let rules = rules.join(", ");
    format!(
        "---\napiVersion: egress.rs/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}egress: [{rules}]}}\n"
    )
}

/// The configuration.
pub(crate) fn config(spec: &str) -> String {
    format!("---\napiVersion: egress.rs/v1alpha1\nkind: EgressConfig\nmetadata: {{name: default}}\nspec: {{{spec}}}\n")
}

/// A rule without ports.
pub(crate) fn rule(action: &str, cidr: &str) -> String {
    format!("{{type: {action}, to: {{cidrSelector: '{cidr}'}}}}")
}

/// A rule with one port entry.
pub(crate) fn port_rule(action: &str, cidr: &str, port: &str) -> String {
    format!("{{type: {action}, to: {{cidrSelector: '{cidr}'}}, ports: [{{{port}}}]}}")
}

/// A pod of namespace `default`.
pub(crate) fn pod() -> PodIdentity {
    PodIdentity { namespace: "default".to_owned(), name: "curl".to_owned(), ..PodIdentity::default() }
}

/// The rules of [`pod`] without any node around it.
pub(crate) fn list(text: &str) -> RuleList {
    set(text).rule_list(&pod(), &NodeContext::default())
}

/// A rule list and its table, asked together.
pub(crate) struct World {
    pub(crate) list: RuleList,
    pub(crate) table: Table,
}

impl World {
    pub(crate) fn new(text: &str) -> Self {
        Self::of(list(text))
    }

    pub(crate) fn of(list: RuleList) -> Self {
        let table = compile(&list, &Limits::default()).unwrap();
        Self { list, table }
    }

    pub(crate) fn lookup(&self, address: &str, protocol: u8, port: u16) -> Lookup {
        let address: IpAddr = address.parse().unwrap();
        let lookup = self.table.lookup(address, protocol, port);
        let explanation = explain(&self.list, address, protocol, Some(port));
        let word = if lookup.decision.is_deny() { Verdict::Deny } else { Verdict::Allow };
        assert_eq!(
            (explanation.verdict, explanation.rank),
            (word, Some(lookup.decision.rank())),
            "table and explanation: {explanation}"
        );
        let audit =
            lookup.audit.map(|audit| (if audit.is_deny() { Verdict::Deny } else { Verdict::Allow }, audit.rank()));
        assert_eq!(explanation.audit, audit, "audit of table and explanation: {explanation}");
        lookup
    }

    /// Whether the destination is allowed. Table and explanation must agree.
    pub(crate) fn allows(&self, address: &str, protocol: u8, port: u16) -> bool {
        !self.lookup(address, protocol, port).decision.is_deny()
    }

    /// What the deciding rule is called.
    pub(crate) fn decider(&self, address: &str, protocol: u8, port: u16) -> String {
        let rank = self.lookup(address, protocol, port).decision.rank();
        self.list.rules[rank as usize].origin.to_string()
    }

    /// What the audit verdict's rule is called, if there is an audit verdict, and whether it allows.
    pub(crate) fn audit(&self, address: &str, protocol: u8, port: u16) -> Option<(bool, String)> {
        let audit = self.lookup(address, protocol, port).audit?;
        Some((!audit.is_deny(), self.list.rules[audit.rank() as usize].origin.to_string()))
    }
}
