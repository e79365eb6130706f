//! Names that share an address and are not treated alike: rules see addresses, so there the first rule decides for all of them (§5.9).
//!
//! Which names have which addresses is what the file of `--dns` says. The running agent tells the same of what it knows.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use egress_common::table::Decision;
use egress_policy::compile::{Lookup, Table};
use egress_policy::places::Place;
use egress_policy::rules::{RankedPeer, RuleList, RuleOrigin};
use egress_policy::warnings::{Warning, WarningReason};

use crate::answers::Answers;

/// Pairs of names that are told of, in one rule list.
const MOST: usize = 100;

/// A warning for each pair of names of which the rules allow one and refuse the other; about the policy whose rule names one of them.
pub(super) fn warnings(list: &RuleList, table: &Table, answers: &Answers) -> Vec<Warning> {
    let mut told: BTreeMap<(&str, &str), Warning> = BTreeMap::new();
    for (address, names) in answers.by_address().into_iter().filter(|(_, names)| names.len() > 1) {
        let Some(leaf) = table.leaf(address) else { continue };
        let alone = |name: &str| table.intervals_with(leaf, &[table.name_leaf(&Place::of_name(name))]);
        let verdicts: Vec<(&str, Vec<(u32, Lookup)>)> = names.into_iter().map(|name| (name, alone(name))).collect();
        for (allowed, one) in &verdicts {
            for (refused, other) in &verdicts {
                if let Some((allow, deny)) = differ(one, other)
                    && let Some(rule) = naming(list, allow).or_else(|| naming(list, deny))
                {
                    let warning = || warning(rule, allowed, refused, address);
                    told.entry((*allowed, *refused)).or_insert_with(warning);
                }
            }
        }
    }
    told.into_values().take(MOST).collect()
}

/// Two decisions for one protocol and port, the first of which allows and the second refuses.
fn differ(one: &[(u32, Lookup)], other: &[(u32, Lookup)]) -> Option<(Decision, Decision)> {
    let at = |intervals: &[(u32, Lookup)], key: u32| {
        let after = intervals.partition_point(|(from, _)| *from <= key);
        intervals.get(after.checked_sub(1)?).map(|(_, lookup)| lookup.decision)
    };
    let starts = one.iter().chain(other).map(|(from, _)| *from);
    let decisions = starts.filter_map(|key| Some((at(one, key)?, at(other, key)?)));
    decisions.into_iter().find(|(allow, deny)| !allow.is_deny() && deny.is_deny())
}

/// The policy rule behind a decision, if it names a name.
fn naming(list: &RuleList, decision: Decision) -> Option<&RuleOrigin> {
    let rule = list.rules.get(usize::try_from(decision.rank()).ok()?)?;
    matches!(rule.peer, RankedPeer::DnsName(_)).then_some(&rule.origin)
}

fn warning(origin: &RuleOrigin, allowed: &str, refused: &str, address: IpAddr) -> Warning {
    let (policy, path) = match origin {
        RuleOrigin::Policy { key, number, .. } => {
            (Some(Arc::clone(key)), format!("spec.egress[{}].to.dnsName", number.saturating_sub(1)))
        }
        RuleOrigin::Builtin(_) | RuleOrigin::Service(_) | RuleOrigin::Default | RuleOrigin::Vacant => {
            (None, String::new())
        }
    };
    Warning {
        reason: WarningReason::SharedAddress,
        policy,
        path,
        message: format!(
            "{allowed}, which the rules allow, and {refused}, which they do not, share addresses such as {address}: \
             there the rule that comes first decides for both names"
        ),
    }
}
