//! What is legal and probably not meant: found by validation in one object, or here in the rules of one pod.
//!
//! Nothing here changes a verdict. The agent puts warnings into its log and into the status of objects.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::compile::Coverage;
use crate::model::{Mode, PolicyKey, Tier};
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
    /// DNS rules match nothing yet.
    DnsNameNotEnforced,
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

/// Found by validation and in rule lists, in the same words, so that equal warnings can be told once.
pub(crate) const NAME_NOT_ENFORCED: &str =
    "DNS names are not enforced yet, so the rule matches nothing; use cidrSelector until they are";

impl RuleList {
    /// What is noticed about the rules of one pod together. [`shadowed`] needs the compiled table and is separate.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = ordered_by_name(self);
        warnings.extend(self.rules.iter().filter_map(unmatched));
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
    let (reason, field, message) = match &rule.peer {
        RankedPeer::DnsName(_) => (WarningReason::DnsNameNotEnforced, "dnsName", NAME_NOT_ENFORCED.to_owned()),
        RankedPeer::Nodes { selector, networks } if networks.is_empty() => (
            WarningReason::NoNodeSelected,
            "nodeSelector",
            format!("rule {number} matches nothing: no known node has the labels {selector}"),
        ),
        RankedPeer::Any | RankedPeer::Networks(_) | RankedPeer::Cidr { .. } | RankedPeer::Nodes { .. } => return None,
    };
    Some(Warning {
        reason,
        policy: Some(Arc::clone(key)),
        path: format!("spec.egress[{}].to.{field}", number.saturating_sub(1)),
        message,
    })
}

/// §4.3: the policy rules that decide nothing because earlier ones cover them; one warning per policy.
///
/// Exact: a rule is reported if and only if no packet exists whose verdict (for rules under Audit: whose audit verdict) it gives, or,
/// for Pass, whose way through the tiers it changes. Rules without addresses (DNS names, unknown nodes) have their own warnings.
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
        let (noun, verb) = if numbers.len() == 1 { ("rule", "never decides") } else { ("rules", "never decide") };
        let shown: Vec<String> = numbers.iter().take(20).map(ToString::to_string).collect();
        let more = if numbers.len() > 20 { format!(" and {} more", numbers.len() - 20) } else { String::new() };
        let audit = if mode == Mode::Audit { ", also if the policy were enforced" } else { "" };
        Warning {
            reason: WarningReason::ShadowedRules,
            policy: Some(Arc::clone(key)),
            path: "spec.egress".to_owned(),
            message: format!(
                "{noun} {}{more} {verb}, because earlier rules cover all that they match{audit}; remove or move them",
                shown.join(", ")
            ),
        }
    };
    numbers.into_iter().map(warning).collect()
}

#[cfg(test)]
mod tests;
