//! Cilium's selectors: labels with a source in front, and labels that stand for namespace and service account.

use super::{CLUSTERWIDE, Subject};
use crate::document::{Node, Report as Reader};
use crate::import::gather::Foreign;
use crate::import::pods::Pods;
use crate::model::NAMESPACE_NAME_LABEL;
use crate::selector::{LabelOperator, LabelRequirement, LabelSelector};

const NAMESPACE: &str = "io.kubernetes.pod.namespace";
const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";
const ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";

/// The pods of `object` that `pods` selects. Of a namespaced policy they are those of its own namespace.
pub(super) fn within(object: &Foreign<'_>, pods: &Pods) -> Result<Pods, String> {
    if object.api.kind == CLUSTERWIDE || pods.namespaces == LabelSelector::default() {
        return Ok(pods.clone());
    }
    let own = Pods::default().in_namespace(object.namespace.as_deref().unwrap_or_default()).namespaces;
    if pods.namespaces == own {
        return Ok(Pods { namespaces: LabelSelector::default(), ..pods.clone() });
    }
    Err("the selector of a policy in a namespace asks for namespaces; the policy is left out".to_owned())
}

/// `endpointSelector`.
pub(super) fn endpoints<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Subject> {
    let mut pods = Pods::default();
    for requirement in requirements(reader, node)? {
        if let Err(why) = require(&mut pods, requirement) {
            return Some(Subject::Unsayable(why));
        }
    }
    Some(Subject::Pods(pods))
}

/// A selector of nodes; the inner error says why rules of ours cannot have it.
pub(super) fn nodes<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Result<LabelSelector, String>> {
    let mut selector = LabelSelector::default();
    for requirement in requirements(reader, node)? {
        match plain(&requirement.key) {
            Some(key) => add(&mut selector, LabelRequirement { key: key.to_owned(), ..requirement }),
            None => return Some(Err(format!("{} is no label of a Kubernetes node", requirement.key))),
        }
    }
    Some(Ok(selector))
}

fn require(pods: &mut Pods, requirement: LabelRequirement) -> Result<(), String> {
    let key = plain(&requirement.key).ok_or_else(|| format!("{} is no label of a Kubernetes pod", requirement.key))?;
    let renamed = |key: &str| LabelRequirement { key: key.to_owned(), ..requirement.clone() };
    if key == NAMESPACE {
        add(&mut pods.namespaces, renamed(NAMESPACE_NAME_LABEL));
    } else if let Some(label) = key.strip_prefix(NAMESPACE_LABELS) {
        add(&mut pods.namespaces, renamed(label));
    } else if key == ACCOUNT && requirement.operator == LabelOperator::In {
        let is_listed = |account: &String| pods.accounts.as_ref().is_none_or(|accounts| accounts.contains(account));
        pods.accounts = Some(requirement.values.into_iter().filter(is_listed).collect());
    } else if key == ACCOUNT || key.starts_with("io.cilium.k8s.") {
        return Err(format!("{key} cannot be asked for in this way here"));
    } else {
        add(&mut pods.labels, renamed(key));
    }
    Ok(())
}

/// `key` without the source of the label; none for labels that do not come from Kubernetes.
fn plain(key: &str) -> Option<&str> {
    match key.split_once(':') {
        None => Some(key),
        Some(("k8s" | "any", key)) => Some(key),
        Some(_) => None,
    }
}

/// One value that must be there is written as `matchLabels`.
fn add(selector: &mut LabelSelector, requirement: LabelRequirement) {
    match (requirement.operator, requirement.values.as_slice()) {
        (LabelOperator::In, [value])
            if selector.match_labels.get(&requirement.key).is_none_or(|other| other == value) =>
        {
            selector.match_labels.insert(requirement.key, value.clone());
        }
        _ => selector.match_expressions.push(requirement),
    }
}

fn requirements<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Vec<LabelRequirement>> {
    let fields = reader.fields(node, &["matchLabels", "matchExpressions"])?;
    let mut requirements = reader
        .optional(fields, "matchLabels", |reader, node| {
            let labels = reader.open_fields(node)?;
            let value = |reader: &mut Reader<'n>, key: &str| {
                let value = reader.optional(labels, key, |reader, node| {
                    check_key(reader, key);
                    reader.label_value(node)
                })?;
                Some(LabelRequirement { key: key.to_owned(), operator: LabelOperator::In, values: vec![value] })
            };
            Some(labels.keys().filter_map(|key| value(reader, key)).collect::<Vec<_>>())
        })
        .unwrap_or_default();
    let expressions = reader.optional(fields, "matchExpressions", |reader, node| {
        reader.list(node, |reader, node| reader.requirement_with(node, |reader, key| check_key(reader, key)))
    });
    requirements.extend(expressions.unwrap_or_default());
    Some(requirements)
}

fn check_key(reader: &mut Reader<'_>, key: &str) {
    let key = plain(key).unwrap_or("other");
    reader.check_label_key(key.strip_prefix(NAMESPACE_LABELS).unwrap_or(key));
}
