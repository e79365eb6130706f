//! What several objects of the files show together.
//!
//! Which pods there are is not known here. A rule is called shadowed only where it is for every pod that its policy selects: earlier
//! rules of its own policy, builtin rules, and policies that select all those pods too. More policies can only cover more of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use egress_policy::compile::{CompileError, Limits, compile_with_coverage};
use egress_policy::model::{Action, NodeContext, PodIdentity, Policy, PolicyKey, PolicySet, Tier};
use egress_policy::selector::LabelSelector;
use egress_policy::warnings::{Warning, WarningReason, shadowed};

use super::shared;
use crate::answers::Answers;
use crate::sources::Problem;

/// What is found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Warning>,
}

/// Looks at every policy of `set`, and with `answers` at what names share.
pub(super) fn lint(set: &PolicySet, answers: Option<&Answers>) -> Found {
    let mut found = Found::default();
    let mut warnings = BTreeSet::new();
    let mut known: BTreeMap<BTreeSet<PolicyKey>, Result<Vec<Warning>, CompileError>> = BTreeMap::new();
    for policy in set.policies.values() {
        warnings.extend(shared_priority(set, policy));
        let around = around(set, policy);
        let keys = around.policies.keys().cloned().collect();
        // Policies without selectors have each other around them; their rules are compiled once.
        let about_all = known.entry(keys).or_insert_with(|| rule_warnings(&around, policy, answers));
        match about_all {
            // The order of equal priorities is looked at pair by pair.
            Ok(all) => warnings.extend(
                all.iter()
                    .filter(|warning| warning.policy.as_ref() == Some(&policy.key))
                    .filter(|warning| warning.reason != WarningReason::OrderedByName)
                    .cloned(),
            ),
            Err(error) => found.problems.push(too_large(policy, *error)),
        }
    }
    found.warnings = warnings.into_iter().collect();
    found
}

/// The policies that every pod of `policy` has, with selectors that say so.
fn around(set: &PolicySet, policy: &Policy) -> PolicySet {
    let mut around =
        PolicySet { config: set.config.clone(), namespaces: set.namespaces.clone(), ..PolicySet::default() };
    let counts = |other: &&Policy| other.key == policy.key || covers(other, policy);
    // A Pass that only some of the pods have takes the rest of the Admin tier away from them.
    let may_pass = policy.tier != Tier::Admin
        && set
            .policies
            .values()
            .any(|other| !counts(&other) && other.rules.iter().any(|rule| rule.action == Action::Pass));
    for other in set.policies.values().filter(counts).filter(|other| !may_pass || other.tier != Tier::Admin) {
        around.insert(Policy { pod_selector: None, service_accounts: None, namespace_selector: None, ..other.clone() });
    }
    around
}

/// Warnings about the rules of the policies `around` one.
fn rule_warnings(around: &PolicySet, policy: &Policy, answers: Option<&Answers>) -> Result<Vec<Warning>, CompileError> {
    let namespace = policy.key.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let pod = PodIdentity { namespace, ..PodIdentity::default() };
    let list = around.rule_list(&pod, &NodeContext::default());
    let (table, coverage) = compile_with_coverage(&list, &Limits::default())?;
    let mut warnings = list.warnings();
    warnings.extend(shadowed(&list, &coverage));
    warnings.extend(answers.iter().flat_map(|answers| shared::warnings(&list, &table, answers)));
    Ok(warnings)
}

/// Whether `other` selects every pod that `policy` selects, whichever pods there are.
fn covers(other: &Policy, policy: &Policy) -> bool {
    let in_scope = match &other.key.namespace {
        Some(_) => other.key.namespace == policy.key.namespace,
        None => other.namespace_selector.is_none(),
    };
    in_scope && other.pod_selector.is_none() && other.service_accounts.is_none()
}

/// §2.2: policies before this one in the order of names that share its priority and may select the same pod.
fn shared_priority(set: &PolicySet, policy: &Policy) -> Option<Warning> {
    let shares = |other: &&Policy| {
        (other.tier, other.priority) == (policy.tier, policy.priority)
            && (&other.key.name, &other.key) < (&policy.key.name, &policy.key)
            && may_meet(other, policy)
    };
    let names: Vec<String> = set.policies.values().filter(shares).map(|other| other.key.to_string()).collect();
    let warning = || Warning {
        reason: WarningReason::OrderedByName,
        policy: Some(Arc::<PolicyKey>::clone(&policy.key)),
        path: "spec.priority".to_owned(),
        message: format!(
            "priority {} is shared with {}, so for a pod that both select the names decide the order; give them \
             different priorities if their order matters",
            policy.priority,
            names.join(", ")
        ),
    };
    (!names.is_empty()).then(warning)
}

/// Whether a pod can exist that both select: no label or account says that none does.
fn may_meet(a: &Policy, b: &Policy) -> bool {
    let accounts = match (&a.service_accounts, &b.service_accounts) {
        (Some(a), Some(b)) => a.iter().any(|account| b.contains(account)),
        (Some(accounts), None) | (None, Some(accounts)) => !accounts.is_empty(),
        (None, None) => true,
    };
    let namespaces = match (&a.key.namespace, &b.key.namespace) {
        (Some(a), Some(b)) => a == b,
        _ => labels_may_meet(a.namespace_selector.as_ref(), b.namespace_selector.as_ref()),
    };
    accounts && namespaces && labels_may_meet(a.pod_selector.as_ref(), b.pod_selector.as_ref())
}

fn labels_may_meet(a: Option<&LabelSelector>, b: Option<&LabelSelector>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return true };
    a.match_labels.iter().all(|(key, value)| b.match_labels.get(key).is_none_or(|other| other == value))
}

fn too_large(policy: &Policy, error: CompileError) -> Problem {
    let title = format!("{} {}", policy.key.kind.name(), policy.key);
    Problem::new("the files together", error.to_string()).of(title)
}
