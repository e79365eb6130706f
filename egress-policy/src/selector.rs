//! Label selectors, matched as Kubernetes does. Used to choose pods, namespaces and nodes.

use std::collections::BTreeMap;
use std::fmt;

pub use crate::spec::{LabelOperator, LabelRequirement, LabelSelector};

/// Labels of a pod, a namespace or a node.
pub type Labels = BTreeMap<String, String>;

impl LabelSelector {
    /// Whether `labels` satisfy every part; an empty selector is satisfied by any labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }
}

impl LabelRequirement {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            LabelOperator::In => listed,
            // A label that is absent has none of the values.
            LabelOperator::NotIn => !listed,
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }
}

/// As `kubectl --selector` writes it: `app=web,tier in (a,b),!canary`.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.match_labels.iter().map(|(key, value)| format!("{key}={value}"));
        let expressions = self.match_expressions.iter().map(ToString::to_string);
        f.write_str(&labels.chain(expressions).collect::<Vec<_>>().join(","))
    }
}

impl fmt::Display for LabelRequirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            LabelOperator::In => write!(f, "{key} in ({values})"),
            LabelOperator::NotIn => write!(f, "{key} notin ({values})"),
            LabelOperator::Exists => f.write_str(key),
            LabelOperator::DoesNotExist => write!(f, "!{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn requirement(operator: LabelOperator, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_labels: Labels::new(),
            match_expressions: vec![LabelRequirement {
                key: "app".to_owned(),
                operator,
                values: values.iter().map(|value| (*value).to_owned()).collect(),
            }],
        }
    }

    #[test]
    fn an_empty_selector_selects_everything() {
        assert!(LabelSelector::default().matches(&Labels::new()));
        assert!(LabelSelector::default().matches(&labels(&[("app", "web")])));
    }

    #[test]
    fn match_labels_must_all_be_present_with_their_value() {
        let selector =
            LabelSelector { match_labels: labels(&[("app", "web"), ("tier", "front")]), ..LabelSelector::default() };
        assert!(selector.matches(&labels(&[("app", "web"), ("tier", "front"), ("x", "y")])));
        assert!(!selector.matches(&labels(&[("app", "web")])));
        assert!(!selector.matches(&labels(&[("app", "web"), ("tier", "back")])));
    }

    #[test]
    fn operators_follow_kubernetes_also_for_an_absent_label() {
        let web = labels(&[("app", "web")]);
        let none = Labels::new();
        let cases = [
            (requirement(LabelOperator::In, &["web", "api"]), true, false),
            (requirement(LabelOperator::In, &["api"]), false, false),
            (requirement(LabelOperator::NotIn, &["web"]), false, true),
            (requirement(LabelOperator::NotIn, &["api"]), true, true),
            (requirement(LabelOperator::Exists, &[]), true, false),
            (requirement(LabelOperator::DoesNotExist, &[]), false, true),
        ];
        for (selector, with_web, with_none) in cases {
            assert_eq!(selector.matches(&web), with_web, "{selector} on app=web");
            assert_eq!(selector.matches(&none), with_none, "{selector} without labels");
        }
    }
}
