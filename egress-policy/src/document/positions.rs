//! Where fields stand in a text, found afterwards: for what is noticed only when the objects are looked at together.

use super::{Node, Value, parse, policy_kind, title};
use crate::model::PolicyKey;
use crate::spec::API_VERSION;

/// The objects of one text with the lines of their fields.
#[derive(Debug)]
pub struct Positions(Vec<Node>);

impl Positions {
    /// Of a text as [`read`](super::read) takes it; documents that are no YAML have none.
    pub fn of(text: &str) -> Self {
        let mut objects = Vec::new();
        parse(text).into_iter().flatten().flatten().for_each(|document| add(document, &mut objects));
        Self(objects)
    }

    /// The line of the field at `path` of a policy, or of the configuration, from 1. Where the field is not written, that of the nearest
    /// one around it.
    pub fn line(&self, policy: Option<&PolicyKey>, path: &str) -> Option<usize> {
        let mut node = self.0.iter().find(|object| is(object, policy))?;
        let mut line = node.line;
        for part in path.split('.').flat_map(|part| part.split('[')).filter(|part| !part.is_empty()) {
            let next = match part.strip_suffix(']').map(str::parse) {
                Some(Ok(index)) => node.item(index).map(|item| (item, item.line)),
                _ => node.field(part).map(|entry| (&entry.value, entry.line)),
            };
            let Some(found) = next else { break };
            (node, line) = found;
        }
        (line > 0).then_some(line)
    }
}

/// A document, or the items of one that is a list.
fn add(document: Node, objects: &mut Vec<Node>) {
    match document.field("items").map(|entry| entry.value.clone()) {
        Some(Node { value: Value::List(items), .. }) => items.into_iter().for_each(|item| add(item, objects)),
        _ => objects.push(document),
    }
}

fn is(object: &Node, policy: Option<&PolicyKey>) -> bool {
    let text = |name: &str| match object.field(name).map(|entry| &entry.value.value) {
        Some(Value::Text(text)) => text.as_str(),
        _ => "",
    };
    match policy {
        Some(key) => {
            policy_kind(text("apiVersion"), text("kind")) == Some(key.kind)
                && title(object) == Some(format!("{} {key}", key.kind.name()))
        }
        None => (text("apiVersion"), text("kind")) == (API_VERSION, "EgressConfig"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PolicyKind;

    const TEXT: &str = "\
apiVersion: v1
kind: List
items:
- apiVersion: egress.rs/v1alpha1
  kind: EgressNetworkPolicy
  metadata: {name: web}
  spec:
    priority: 7
    egress:
    - {type: Deny, to: {cidrSelector: 1.2.3.4/24}}
    - type: Allow
      to:
        cidrSelector: '::/0'
- apiVersion: v1
  kind: EgressNetworkPolicy
  metadata: {name: web}
  spec: {egress: []}
---
apiVersion: egress.rs/v1alpha1
kind: EgressConfig
metadata: {name: default}
spec:
  defaultAction: Allow
";

    #[test]
    fn fields_are_found_in_documents_and_lists_and_the_nearest_one_stands_for_an_absent_one() {
        let positions = Positions::of(TEXT);
        let key = |kind| PolicyKey { kind, namespace: Some("default".into()), name: "web".into() };
        let ours = key(PolicyKind::EgressNetworkPolicy);
        for (path, line) in [
            ("", 4),
            ("spec.priority", 8),
            ("spec.egress", 9),
            ("spec.egress[0].to.cidrSelector", 10),
            ("spec.egress[1].to.cidrSelector", 13),
            ("spec.egress[1].ports[0]", 11),
            ("spec.podSelector", 7),
        ] {
            assert_eq!(positions.line(Some(&ours), path), Some(line), "{path}");
        }
        assert_eq!(positions.line(Some(&key(PolicyKind::OpenShiftEgressNetworkPolicy)), "spec.egress"), Some(17));
        assert_eq!(positions.line(None, "spec.defaultAction"), Some(23));
        assert_eq!(positions.line(Some(&PolicyKey { name: "other".into(), ..ours }), ""), None);
        assert_eq!(Positions::of("a: [").line(None, ""), None);
    }
}
