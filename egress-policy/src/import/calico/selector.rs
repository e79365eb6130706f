//! Calico's selector expressions, as far as label selectors can say them: parts that must all hold.

use crate::document::Report as Reader;
use crate::import::pods::Pods;
use crate::model::NAMESPACE_NAME_LABEL;
use crate::selector::{LabelOperator, LabelRequirement, LabelSelector};

/// Adds to `pods` what `text` asks for. The error says why it cannot be said.
pub(super) fn add(reader: &mut Reader<'_>, text: &str, is_of_namespace: bool, pods: &mut Pods) -> Result<(), String> {
    if text.trim().is_empty() {
        return Ok(());
    }
    if text.contains("||") || text.contains('(') && text.trim_start().starts_with('(') {
        return Err("alternatives cannot be said in one selector".to_owned());
    }
    for part in text.split("&&") {
        if let Some(requirement) = requirement(part.trim())? {
            place(reader, requirement, is_of_namespace, pods)?;
        }
    }
    Ok(())
}

fn place(
    reader: &mut Reader<'_>,
    requirement: LabelRequirement,
    is_of_namespace: bool,
    pods: &mut Pods,
) -> Result<(), String> {
    let renamed = |key: &str| LabelRequirement { key: key.to_owned(), ..requirement.clone() };
    let is_label = |text: &String| {
        let ends = [text.bytes().next(), text.bytes().next_back()];
        text.len() <= 63
            && ends.into_iter().flatten().all(|byte| byte.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    if !requirement.values.iter().all(is_label) {
        return Err(format!("no label has a value of {:?}", requirement.values));
    }
    match requirement.key.as_str() {
        "projectcalico.org/name" if is_of_namespace => {
            insert(&mut pods.namespaces, renamed(NAMESPACE_NAME_LABEL));
        }
        "projectcalico.org/namespace" if !is_of_namespace => {
            insert(&mut pods.namespaces, renamed(NAMESPACE_NAME_LABEL));
        }
        "projectcalico.org/orchestrator" if requirement.operator == LabelOperator::In => {
            if !requirement.values.iter().any(|value| value == "k8s") {
                return Err("pods of Kubernetes have the orchestrator k8s".to_owned());
            }
        }
        "projectcalico.org/serviceaccount" if requirement.operator == LabelOperator::In => {
            let is_listed = |account: &String| pods.accounts.as_ref().is_none_or(|all| all.contains(account));
            pods.accounts = Some(requirement.values.into_iter().filter(is_listed).collect());
        }
        key if key.starts_with("projectcalico.org/") || key.starts_with("pcsa.") => {
            return Err(format!("{key} cannot be asked for here"));
        }
        key => {
            let of_namespace = key.strip_prefix("pcns.");
            reader.check_label_key(of_namespace.unwrap_or(key));
            let selector =
                if is_of_namespace || of_namespace.is_some() { &mut pods.namespaces } else { &mut pods.labels };
            insert(selector, renamed(of_namespace.unwrap_or(key)));
        }
    }
    Ok(())
}

fn insert(selector: &mut LabelSelector, requirement: LabelRequirement) {
    match (requirement.operator, requirement.values.as_slice()) {
        (LabelOperator::In, [value]) if !selector.match_labels.contains_key(&requirement.key) => {
            selector.match_labels.insert(requirement.key, value.clone());
        }
        _ => selector.match_expressions.push(requirement),
    }
}

/// One part; none if it asks for nothing.
fn requirement(part: &str) -> Result<Option<LabelRequirement>, String> {
    let unsayable = || format!("{part:?} cannot be said in a label selector");
    let made = |key: &str, operator, values: Vec<String>| {
        let is_key = !key.is_empty()
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/'));
        if is_key { Ok(Some(LabelRequirement { key: key.to_owned(), operator, values })) } else { Err(unsayable()) }
    };
    if part == "all()" {
        return Ok(None);
    }
    let has = |part: &str| Some(part.trim().strip_prefix("has(")?.strip_suffix(')')?.trim().to_owned());
    if let Some(key) = has(part) {
        return made(&key, LabelOperator::Exists, Vec::new());
    }
    if let Some(key) = part.strip_prefix('!').and_then(has) {
        return made(&key, LabelOperator::DoesNotExist, Vec::new());
    }
    for (sign, operator) in [("==", LabelOperator::In), ("!=", LabelOperator::NotIn)] {
        if let Some((key, value)) = part.split_once(sign) {
            let value = quoted(value).ok_or_else(unsayable)?;
            return made(key.trim(), operator, vec![value]);
        }
    }
    let (before, list) = part.split_once('{').ok_or_else(unsayable)?;
    let values: Option<Vec<String>> = list.strip_suffix('}').ok_or_else(unsayable)?.split(',').map(quoted).collect();
    let values = values.ok_or_else(unsayable)?;
    let words: Vec<&str> = before.split_whitespace().collect();
    match words.as_slice() {
        [key, "in"] => made(key, LabelOperator::In, values),
        [key, "not", "in"] => made(key, LabelOperator::NotIn, values),
        _ => Err(unsayable()),
    }
}

/// A text in quotes, of one kind.
fn quoted(text: &str) -> Option<String> {
    let text = text.trim();
    let quote = text.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    (!inner.contains(quote)).then(|| inner.to_owned())
}
