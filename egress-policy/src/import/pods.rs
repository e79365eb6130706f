//! The pods that a policy of ours is for, for kinds whose policies may become objects of a namespace or of the cluster.

use super::policy_spec;
use crate::model::NAMESPACE_NAME_LABEL;
use crate::selector::LabelOperator;
use crate::spec::{ClusterEgressPolicySpec, ClusterTier, EgressNetworkPolicySpec, LabelRequirement, LabelSelector};

/// Pods by their namespace, their labels and their service account; all by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pods {
    pub(super) namespaces: LabelSelector,
    pub(super) labels: LabelSelector,
    pub(super) accounts: Option<Vec<String>>,
}

impl Pods {
    /// Those of the selection that are in namespace `name`.
    pub(super) fn in_namespace(mut self, name: &str) -> Self {
        self.namespaces.match_labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name.to_owned());
        self
    }

    /// Those of the selection that are in one of the namespaces `names`.
    pub(super) fn in_namespaces(mut self, names: Vec<String>) -> Self {
        if let [name] = names.as_slice() {
            return self.in_namespace(name);
        }
        let key = NAMESPACE_NAME_LABEL.to_owned();
        self.namespaces.match_expressions.push(LabelRequirement { key, operator: LabelOperator::In, values: names });
        self
    }

    /// An `EgressNetworkPolicy` for them without rules; the namespace is the object's.
    pub(super) fn policy(self, priority: Option<u16>) -> EgressNetworkPolicySpec {
        EgressNetworkPolicySpec {
            pod_selector: some(self.labels),
            service_accounts: self.accounts,
            priority,
            ..policy_spec()
        }
    }

    /// A `ClusterEgressPolicy` of the Baseline tier for them, without rules.
    pub(super) fn baseline(self, priority: Option<u16>) -> ClusterEgressPolicySpec {
        ClusterEgressPolicySpec {
            tier: ClusterTier::Baseline,
            egress: Vec::new(),
            namespace_selector: some(self.namespaces),
            pod_selector: some(self.labels),
            service_accounts: self.accounts,
            priority,
            mode: None,
        }
    }
}

/// Left out where it selects everything.
fn some(selector: LabelSelector) -> Option<LabelSelector> {
    (selector != LabelSelector::default()).then_some(selector)
}
