//! What the agent keeps beside a compiled table, so that ranks have names even when the agent is dead.

use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

use crate::model::{Action, Mode, PolicyKey, Tier};
use crate::rules::{RankedPeer, RankedRule, RuleList, RuleOrigin};

/// The rules behind a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDescription {
    /// The rule list's fingerprint, in hexadecimal.
    pub fingerprint: String,
    /// The rules by rank; none at ranks that are vacant.
    pub rules: Vec<Option<RuleDescription>>,
}

/// One rule behind a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleDescription {
    /// "rule 3 of default/curl", "internal CIDRs", "default action".
    pub origin: String,
    /// The policy; none for builtin rules and the default action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Arc<PolicyKey>>,
    /// The rule's number in the policy, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// The rule's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// Where it stands.
    pub tier: Tier,
    /// What it says.
    pub action: Action,
    /// Whether it decides.
    pub mode: Mode,
    /// `Allow 1.2.3.0/24 TCP/443`.
    pub text: String,
    /// `*.foo.com`, if the rule is about DNS names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<String>,
}

/// A description that is made when it is first asked for: rules can be in force before their texts are there.
pub type Describing = LazyLock<Arc<TableDescription>, Box<dyn FnOnce() -> Arc<TableDescription> + Send>>;

impl TableDescription {
    /// Describes `list`.
    pub fn new(list: &RuleList) -> Self {
        Self::of(list, &list.fingerprint())
    }

    /// Describes `list`, which has this fingerprint, when somebody asks.
    pub fn later(list: Arc<RuleList>, fingerprint: [u8; 32]) -> Describing {
        LazyLock::new(Box::new(move || Arc::new(Self::of(&list, &fingerprint))))
    }

    /// What is described already.
    pub fn ready(self) -> Describing {
        LazyLock::new(Box::new(move || Arc::new(self)))
    }

    fn of(list: &RuleList, fingerprint: &[u8; 32]) -> Self {
        Self { fingerprint: hex::encode(fingerprint), rules: list.rules.iter().map(RuleDescription::of).collect() }
    }

    /// The rule of `rank`.
    pub fn rule(&self, rank: u32) -> Option<&RuleDescription> {
        self.rules.get(usize::try_from(rank).ok()?)?.as_ref()
    }

    /// The rules with their ranks.
    pub fn ranked(&self) -> impl Iterator<Item = (u32, &RuleDescription)> {
        (0..).zip(&self.rules).filter_map(|(rank, rule)| Some((rank, rule.as_ref()?)))
    }
}

impl RuleDescription {
    fn of(rule: &RankedRule) -> Option<Self> {
        (!rule.is_vacant()).then(|| Self::new(rule))
    }

    fn new(rule: &RankedRule) -> Self {
        // A service is judged by a rule about its endpoints, which is the one to name (§7.3).
        let decider = if let RuleOrigin::Service(service) = &rule.origin { &service.by } else { &rule.origin };
        let (policy, number, name) = match decider {
            RuleOrigin::Policy { key, number, name } => (Some(Arc::clone(key)), Some(*number), name.clone()),
            RuleOrigin::Builtin(_) | RuleOrigin::Service(_) | RuleOrigin::Default | RuleOrigin::Vacant => {
                (None, None, None)
            }
        };
        let dns_name = match &rule.peer {
            RankedPeer::DnsName(name) => Some(name.to_string()),
            RankedPeer::Any | RankedPeer::Networks(_) | RankedPeer::Cidr { .. } | RankedPeer::Nodes { .. } => None,
        };
        Self {
            origin: rule.origin.to_string(),
            policy,
            number,
            name,
            tier: rule.tier,
            action: rule.action,
            mode: rule.mode,
            text: rule.text(),
            dns_name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{list, policy};

    #[test]
    fn a_description_names_every_rank_and_survives_json() {
        let rules = list(&policy(
            "curl",
            "",
            &[
                "{type: Allow, name: web, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: TCP, port: 443}]}",
                "{type: Deny, to: {dnsName: '*.Foo.com'}}",
            ],
        ));
        let description = TableDescription::new(&rules);
        assert_eq!(**TableDescription::later(Arc::new(rules.clone()), rules.fingerprint()), description);
        assert_eq!(description.rules.len(), rules.rules.len());
        assert_eq!(description.fingerprint.len(), 64);
        let json = serde_json::to_string(&description).unwrap();
        assert_eq!(serde_json::from_str::<TableDescription>(&json).unwrap(), description);
        let first = description.ranked().find(|(_, rule)| rule.policy.is_some()).unwrap().1;
        assert_eq!(
            serde_json::to_value(first).unwrap(),
            serde_json::json!({
                "origin": "rule 1 of default/curl",
                "policy": {"kind": "EgressNetworkPolicy", "namespace": "default", "name": "curl"},
                "number": 1,
                "name": "web",
                "tier": "Namespace",
                "action": "Allow",
                "mode": "Enforce",
                "text": "Allow 1.2.3.0/24 TCP/443",
            })
        );
        let second = description.ranked().find(|(_, rule)| rule.number == Some(2)).unwrap().1;
        assert_eq!((second.text.as_str(), second.dns_name.as_deref()), ("Deny *.foo.com", Some("*.foo.com")));
        let last = u32::try_from(rules.rules.len() - 1).unwrap();
        assert_eq!(description.rule(last).unwrap().origin, "default action");
        assert_eq!(description.rule(last + 1), None);
    }
}
