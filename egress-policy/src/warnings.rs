//! What is legal and probably not meant: found by validation in one object, or here in the rules of one pod.
//!
//! Nothing here changes a verdict. The agent puts warnings into its log and into the status of objects.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::compile::Coverage;
use crate::model::{Action, Mode, PolicyKey, Tier};
use crate::name::{NamePattern, Wildcard};
use crate::rules::{RankedPeer, RankedRule, RuleList, RuleOrigin};

/// Kind of a warning; the name is the reason in status conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WarningReason {
    /// A prefix had host bits, which were masked (§3.2).
    HostBitsMasked,
    /// 0.0.0.0/32 is one address and not every one (§3.2).
    SingleZeroAddress,
    /// An OpenShift object's 0.0.0.0/32 was read as 0.0.0.0/0 (§3.2).
    OpenShiftZeroAddress,
    /// An IPv4-mapped IPv6 prefix was read as IPv4.
    MappedPrefix,
    /// `except` leaves nothing of `cidrSelector`.
    NothingLeft,
    /// The protocol does not occur in the address family of the prefix.
    ProtocolOfOtherFamily,
    /// An empty list selects no pod (§2.6).
    SelectsNothing,
    /// Policies of equal priority, whose order follows from their names (§2.2).
    OrderedByName,
    /// Rules that earlier ones cover (§4.3).
    ShadowedRules,
    /// A Deny by name denies nothing while the name has no address, and a later rule allows (§5.8).
    DenyByName,
    /// The names of a wildcard are known only from what pods look up (§5.2).
    WildcardNeedsLookups,
    /// Names that share an address are not treated alike (§5.9).
    SharedAddress,
    /// A prefix of the configuration covers a whole address family.
    NothingJudged,
    /// A node selector to which no node with an address belongs.
    NoNodeSelected,
}

/// One warning.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Warning {
    /// Its kind.
    pub reason: WarningReason,
    /// The policy; none for the configuration.
    pub policy: Option<Arc<PolicyKey>>,
    /// The field, such as `spec.egress[2].to.cidrSelector`; empty for the whole object.
    pub path: String,
    /// What was noticed, and what to do.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.policy {
            Some(key) => write!(f, "{} {key}: ", key.kind.name())?,
            None => f.write_str("EgressConfig default: ")?,
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl RuleList {
    /// What is noticed about the rules of one pod together. [`shadowed`] needs the compiled table and is separate.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = ordered_by_name(self);
        warnings.extend(self.rules.iter().filter_map(unmatched));
        warnings.extend(denied_names(self));
        warnings.extend(wildcards(self));
        warnings
    }
}

/// §2.2: groups of policies whose order was decided by their names.
fn ordered_by_name(list: &RuleList) -> Vec<Warning> {
    let mut groups: BTreeMap<(Tier, u16), Vec<&Arc<PolicyKey>>> = BTreeMap::new();
    for policy in &list.policies {
        groups.entry((policy.tier, policy.priority)).or_default().push(&policy.key);
    }
    let mut warnings = Vec::new();
    for ((_, priority), keys) in groups {
        let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
        for key in keys.iter().skip(1) {
            warnings.push(Warning {
                reason: WarningReason::OrderedByName,
                policy: Some(Arc::clone(key)),
                path: "spec.priority".to_owned(),
                message: format!(
                    "priority {priority} is shared, so the names decide the order: {}; give them different priorities \
                     if their order matters",
                    names.join(", ")
                ),
            });
        }
    }
    warnings
}

/// Rules without any address to match.
fn unmatched(rule: &RankedRule) -> Option<Warning> {
    let RuleOrigin::Policy { key, number, .. } = &rule.origin else {
        return None;
    };
    let RankedPeer::Nodes { selector, networks } = &rule.peer else {
        return None;
    };
    networks.is_empty().then(|| Warning {
        reason: WarningReason::NoNodeSelected,
        policy: Some(Arc::clone(key)),
        path: format!("spec.egress[{}].to.nodeSelector", number.saturating_sub(1)),
        message: format!("rule {number} matches nothing: no known node has the labels {selector}"),
    })
}

/// The numbers of the rules about names in which something is noticed, by policy.
fn by_policy(
    list: &RuleList,
    noticed: impl Fn(&NamePattern, &RankedRule, u32) -> bool,
) -> BTreeMap<&Arc<PolicyKey>, Vec<u32>> {
    let mut numbers: BTreeMap<&Arc<PolicyKey>, Vec<u32>> = BTreeMap::new();
    for (rule, rank) in list.rules.iter().zip(0..) {
        if let (RuleOrigin::Policy { key, number, .. }, RankedPeer::DnsName(name)) = (&rule.origin, &rule.peer)
            && noticed(name, rule, rank)
        {
            numbers.entry(key).or_default().push(*number);
        }
    }
    numbers
}

/// §5.8: rules that deny by name what a later rule allows by address; one warning per policy.
fn denied_names(list: &RuleList) -> Vec<Warning> {
    let allows = |rule: &RankedRule| rule.action == Action::Allow && !matches!(rule.peer, RankedPeer::DnsName(_));
    let last_allow = list.rules.iter().zip(0_u32..).filter(|(rule, _)| allows(rule)).map(|(_, rank)| rank).max();
    let open = by_policy(list, |_, rule, rank| rule.action == Action::Deny && last_allow > Some(rank));
    let warning = |(key, numbers): (&Arc<PolicyKey>, Vec<u32>)| Warning {
        reason: WarningReason::DenyByName,
        policy: Some(Arc::clone(key)),
        path: "spec.egress".to_owned(),
        message: format!(
            "{} by name, which denies nothing while the name has no known address, and a later rule allows; deny by \
             cidrSelector and allow by name",
            sentence(&numbers, "denies", "deny")
        ),
    };
    open.into_iter().map(warning).collect()
}

/// §5.2: the names of a wildcard cannot be polled; one warning per policy.
fn wildcards(list: &RuleList) -> Vec<Warning> {
    let wild = by_policy(list, |name, _, _| name.wildcard != Wildcard::Exact);
    let warning = |(key, numbers): (&Arc<PolicyKey>, Vec<u32>)| Warning {
        reason: WarningReason::WildcardNeedsLookups,
        policy: Some(Arc::clone(key)),
        path: "spec.egress".to_owned(),
        message: format!(
            "{} only addresses that pods of the node have looked up at a trusted resolver, because the names of a \
             wildcard cannot be polled; clients with a DNS cache or resolver of their own need the exact name",
            sentence(&numbers, "matches", "match")
        ),
    };
    wild.into_iter().map(warning).collect()
}

/// `rule 3 denies`, `rules 1, 2 and 40 more deny`.
fn sentence(numbers: &[u32], one: &str, several: &str) -> String {
    const SHOWN: usize = 20;
    let (noun, verb) = if numbers.len() == 1 { ("rule", one) } else { ("rules", several) };
    let shown: Vec<String> = numbers.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = numbers.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{noun} {}{more} {verb}", shown.join(", "))
}

/// §4.3: the policy rules that decide nothing because earlier ones cover them; one warning per policy.
///
/// Exact: a rule is reported if and only if no packet exists whose verdict (for rules under Audit: whose audit verdict) it gives, or,
/// for Pass, whose way through the tiers it changes; where rules name DNS names and others pass, some that never decide may be left out
/// (see `compile`). Rules without addresses (unknown nodes) have their own warnings.
pub fn shadowed(list: &RuleList, coverage: &Coverage) -> Vec<Warning> {
    let mut numbers: BTreeMap<&Arc<PolicyKey>, (Mode, Vec<u32>)> = BTreeMap::new();
    for (rule, rank) in list.rules.iter().zip(0..) {
        if let RuleOrigin::Policy { key, number, .. } = &rule.origin
            && rule.has_addresses()
            && !coverage.decides(rank)
        {
            numbers.entry(key).or_insert_with(|| (rule.mode, Vec::new())).1.push(*number);
        }
    }
    let warning = |(key, (mode, numbers)): (&Arc<PolicyKey>, (Mode, Vec<u32>))| {
        let audit = if mode == Mode::Audit { ", also if the policy were enforced" } else { "" };
        Warning {
            reason: WarningReason::ShadowedRules,
            policy: Some(Arc::clone(key)),
            path: "spec.egress".to_owned(),
            message: format!(
                "{}, because earlier rules cover all that they match{audit}; remove or move them",
                sentence(&numbers, "never decides", "never decide")
            ),
        }
    };
    numbers.into_iter().map(warning).collect()
}

#[cfg(test)]
mod tests;
