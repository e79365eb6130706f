//! The parts that every object has: name, namespace, labels; and label selectors.

use std::collections::BTreeMap;

use super::problem::{Fields, Report};
use super::tree::{Node, Value};
use crate::selector::{LabelOperator, LabelRequirement, LabelSelector, Labels};
use crate::spec::{MAX_REQUIREMENTS, MAX_VALUES};

/// Kubernetes' `ObjectMeta`. Only three of the fields are used; a misspelled one could put a policy into another namespace.
const METADATA: [&str; 15] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "generateName",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
    "finalizers",
    "managedFields",
];

/// Longest object name and longest prefix of a label key.
const MAX_NAME: usize = 253;
/// Longest namespace name, label value, and label key without prefix.
const MAX_LABEL: usize = 63;

/// What is used of an object's metadata.
pub(crate) struct Metadata {
    pub(crate) name: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) labels: Labels,
}

impl<'n> Report<'n> {
    pub(crate) fn metadata(&mut self, object: Fields<'n>) -> Option<Metadata> {
        self.required(object, "metadata", "add metadata with a name", |report, node| {
            let Value::Map(entries) = &node.value else {
                report.problem(
                    format!("must be an object with fields, not {}", node.kind()),
                    "write at least a name below it",
                );
                return None;
            };
            // `creationTimestamp: null` is what many tools write, so empty fields are fine here.
            let written = entries
                .iter()
                .filter(|entry| entry.value.value != Value::Null || entry.key == "name" || entry.key == "namespace");
            for entry in written.filter(|entry| !METADATA.contains(&entry.key.as_str())) {
                report.problem_at(&entry.key, "this field is not known", "remove it, or correct its spelling");
            }
            let fields = Fields(node);
            for name in ["name", "namespace"] {
                if fields.get(name).is_some_and(|node| node.value == Value::Null) {
                    report.problem_at(name, "the field is empty", "give it a value, or remove it");
                }
                if fields.keys().filter(|key| *key == name).count() > 1 {
                    report.problem_at(name, "the field is written more than once", "keep one of them");
                }
            }
            Some(Metadata {
                name: report.required(fields, "name", "give the object a name", |report, node| {
                    report.object_name(node, MAX_NAME)
                }),
                namespace: report.optional(fields, "namespace", |report, node| report.object_name(node, MAX_LABEL)),
                labels: report.optional(fields, "labels", Self::labels).unwrap_or_default(),
            })
        })
    }

    /// RFC 1123: lower-case letters, digits, hyphens; in names longer than a label also dots.
    pub(crate) fn object_name(&mut self, node: &'n Node, longest: usize) -> Option<String> {
        let text = self.text(node)?;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let ends = |part: &str| part.bytes().next().is_some_and(plain) && part.bytes().next_back().is_some_and(plain);
        let body = |part: &str| part.bytes().all(|byte| plain(byte) || byte == b'-');
        let parts_are_right = if longest > MAX_LABEL {
            text.split('.').all(|part| ends(part) && body(part))
        } else {
            ends(text) && body(text)
        };
        if parts_are_right && text.len() <= longest {
            return Some(text.to_owned());
        }
        self.problem(
            format!("{text:?} is not a valid name"),
            format!("use lower-case letters, digits and hyphens, a letter or digit at both ends, at most {longest} characters"),
        );
        None
    }

    pub(crate) fn labels(&mut self, node: &'n Node) -> Option<Labels> {
        let fields = self.open_fields(node)?;
        let mut labels = BTreeMap::new();
        for key in fields.keys() {
            let value = self.optional(fields, key, |report, node| {
                report.check_label_key(key);
                report.label_value(node)
            });
            if let Some(value) = value {
                labels.insert(key.to_owned(), value);
            }
        }
        Some(labels)
    }

    pub(crate) fn check_label_key(&mut self, key: &str) {
        let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
        let prefix_is_right = prefix.is_none_or(|prefix| {
            !prefix.is_empty()
                && prefix.len() <= MAX_NAME
                && prefix
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.'))
        });
        if !prefix_is_right || name.is_empty() || !is_label_text(name) {
            self.problem(
                format!("{key:?} is not a valid label key"),
                "write a name such as app, or a domain and a name such as example.com/app",
            );
        }
    }

    pub(crate) fn label_value(&mut self, node: &'n Node) -> Option<String> {
        let text = self.text(node)?;
        if is_label_text(text) {
            return Some(text.to_owned());
        }
        self.problem(
            format!("{text:?} is not a valid label value"),
            "use at most 63 letters, digits, hyphens, underscores and dots, a letter or digit at both ends",
        );
        None
    }

    pub(crate) fn selector(&mut self, node: &'n Node) -> Option<LabelSelector> {
        let fields = self.fields(node, &SELECTOR)?;
        let match_labels = self.optional(fields, "matchLabels", Self::required_labels).unwrap_or_default();
        let match_expressions = self
            .optional(fields, "matchExpressions", |report, node| {
                report.short_list(node, MAX_REQUIREMENTS, "select by fewer labels", Self::requirement)
            })
            .unwrap_or_default();
        Some(LabelSelector { match_labels, match_expressions })
    }

    fn required_labels(&mut self, node: &'n Node) -> Option<Labels> {
        let labels = self.labels(node)?;
        if labels.len() > MAX_REQUIREMENTS {
            self.problem(
                format!("{} labels, and at most {MAX_REQUIREMENTS} are possible", labels.len()),
                "select by fewer labels",
            );
        }
        Some(labels)
    }

    fn requirement(&mut self, node: &'n Node) -> Option<LabelRequirement> {
        self.requirement_with(node, Self::check_label_key)
    }

    /// A requirement whose key `check` judges.
    pub(crate) fn requirement_with(
        &mut self,
        node: &'n Node,
        check: impl FnOnce(&mut Self, &str),
    ) -> Option<LabelRequirement> {
        let fields = self.fields(node, &REQUIREMENT)?;
        let key = self.required(fields, "key", "name the label", |report, node| {
            let key = report.text(node)?;
            check(report, key);
            Some(key.to_owned())
        });
        let operator = self.required(fields, "operator", "write In, NotIn, Exists or DoesNotExist", |report, node| {
            report.choice(
                node,
                &[
                    ("In", LabelOperator::In),
                    ("NotIn", LabelOperator::NotIn),
                    ("Exists", LabelOperator::Exists),
                    ("DoesNotExist", LabelOperator::DoesNotExist),
                ],
            )
        });
        let values = self
            .optional(fields, "values", |report, node| {
                report.short_list(node, MAX_VALUES, "give the objects a label in common", Self::label_value)
            })
            .unwrap_or_default();
        let written =
            fields.get("values").is_some_and(|node| !matches!(&node.value, Value::List(items) if items.is_empty()));
        match operator? {
            LabelOperator::In | LabelOperator::NotIn if !written => {
                self.problem_at("values", "In and NotIn need values", "list at least one value");
            }
            LabelOperator::Exists | LabelOperator::DoesNotExist if written => {
                self.problem_at(
                    "values",
                    "Exists and DoesNotExist take no values",
                    "remove them, or write In or NotIn",
                );
            }
            LabelOperator::In | LabelOperator::NotIn | LabelOperator::Exists | LabelOperator::DoesNotExist => {}
        }
        Some(LabelRequirement { key: key?, operator: operator?, values })
    }
}

/// Fields of a label selector.
pub(crate) const SELECTOR: [&str; 2] = ["matchLabels", "matchExpressions"];
/// Fields of a requirement in a label selector.
pub(crate) const REQUIREMENT: [&str; 3] = ["key", "operator", "values"];

/// A label value, or the name part of a key.
fn is_label_text(text: &str) -> bool {
    let ends = [text.bytes().next(), text.bytes().next_back()];
    text.len() <= MAX_LABEL
        && ends.into_iter().flatten().all(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}
