//! Pods to compare where it is not known which pods there are: in every namespace that the policies speak of, one without labels and
//! one for each way in which a policy selects.

use std::collections::{BTreeMap, BTreeSet};

use egress_policy::model::{PodIdentity, Policy, PolicySet};
use egress_policy::selector::{LabelOperator, LabelSelector, Labels};

/// A namespace that no policy names.
const OTHER: &str = "any-other-namespace";

/// Pods, each under a name that says what it stands for.
pub(super) fn examples(sets: &[&PolicySet]) -> Vec<(String, PodIdentity)> {
    let mut pods: BTreeMap<String, PodIdentity> = BTreeMap::new();
    for namespace in namespaces(sets) {
        let mut add = |labels: Labels, service_account: Option<String>| {
            let pod = PodIdentity { namespace: namespace.clone(), name: "example".to_owned(), labels, service_account };
            pods.entry(title(&pod)).or_insert(pod);
        };
        add(Labels::new(), None);
        let policies = sets.iter().flat_map(|set| set.policies.values());
        for policy in policies.filter(|policy| policy.key.namespace.as_ref().is_none_or(|own| *own == namespace)) {
            let Some(labels) = fitting(policy) else { continue };
            add(labels, policy.service_accounts.as_ref().and_then(|accounts| accounts.first().cloned()));
        }
    }
    pods.into_iter().collect()
}

fn namespaces(sets: &[&PolicySet]) -> BTreeSet<String> {
    let own = |policy: &Policy| policy.key.namespace.clone();
    let of_policies = sets.iter().flat_map(|set| set.policies.values().filter_map(own));
    let known = sets.iter().flat_map(|set| set.namespaces.keys().cloned());
    of_policies.chain(known).chain([OTHER.to_owned()]).collect()
}

/// Labels that the policy selects; none if it selects no pod.
fn fitting(policy: &Policy) -> Option<Labels> {
    let Some(selector) = &policy.pod_selector else { return Some(Labels::new()) };
    let labels = labels(selector);
    selector.matches(&labels).then_some(labels)
}

fn labels(selector: &LabelSelector) -> Labels {
    let mut labels = selector.match_labels.clone();
    for requirement in &selector.match_expressions {
        let value = match requirement.operator {
            LabelOperator::In => requirement.values.first().cloned(),
            LabelOperator::Exists => Some("any".to_owned()),
            LabelOperator::NotIn | LabelOperator::DoesNotExist => None,
        };
        if let Some(value) = value {
            labels.entry(requirement.key.clone()).or_insert(value);
        }
    }
    labels
}

/// `shop/* (app=web, service account front)`.
fn title(pod: &PodIdentity) -> String {
    let labels = pod.labels.iter().map(|(key, value)| format!("{key}={value}"));
    let account = pod.service_account.iter().map(|account| format!("service account {account}"));
    let parts: Vec<String> = labels.chain(account).collect();
    let place = if pod.namespace == OTHER { "any other namespace".to_owned() } else { format!("{}/*", pod.namespace) };
    if parts.is_empty() { place } else { format!("{place} ({})", parts.join(", ")) }
}
