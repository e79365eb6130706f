//! Our own objects, read to be written as those of another firewall, or together with what is imported.

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::Import;
use super::draft::Draft;
use super::gather::Foreign;
use super::kind::{Api, Kind};
use super::report::{Judgement, Place};
use crate::document::{DEFAULT_NAMESPACE, Node, Report as Reader, Value};
use crate::spec::{API_VERSION, ClusterEgressPolicySpec, EgressConfigSpec, EgressNetworkPolicySpec, EgressRule};

const VERSIONS: &[&str] = &[API_VERSION];
const POLICY: &str = "EgressNetworkPolicy";
const CLUSTER_POLICY: &str = "ClusterEgressPolicy";

pub(super) const KIND: Kind = Kind {
    name: "egress",
    title: "our own objects, to write them with --to",
    apis: &[
        Api { versions: VERSIONS, kind: POLICY, fields: &["spec"] },
        Api { versions: VERSIONS, kind: CLUSTER_POLICY, fields: &["spec"] },
        Api { versions: VERSIONS, kind: "EgressConfig", fields: &["spec"] },
    ],
    convert,
    list: None,
};

fn convert(objects: &[&Foreign<'_>], import: &mut Import<'_>) {
    for object in objects {
        // Whatever is wrong in it is a problem of the reader; after that the spec is what serde takes.
        let spec = import.read(object, |reader, fields| {
            reader.object(fields, API_VERSION, object.api.kind)?;
            reader.warnings.clear();
            Some((places(reader, fields.get("spec")?), json(fields.get("spec")?)))
        });
        let Some((places, spec)) = spec else { continue };
        match object.api.kind {
            POLICY => {
                let Some(spec) = typed::<EgressNetworkPolicySpec>(object, spec, import) else { continue };
                let draft = draft(object, &places, &spec.egress);
                // As the agent reads an object that names none.
                let namespace = object.namespace.as_deref().or(Some(DEFAULT_NAMESPACE));
                import.policy(draft, namespace, &object.name, spec);
            }
            CLUSTER_POLICY => {
                let Some(spec) = typed::<ClusterEgressPolicySpec>(object, spec, import) else { continue };
                let draft = draft(object, &places, &spec.egress);
                import.cluster_policy(draft, &object.name, spec);
            }
            _ => {
                let Some(spec) = typed::<EgressConfigSpec>(object, spec, import) else { continue };
                *import.config() = spec;
            }
        }
    }
}

/// The spec, which validation found right.
fn typed<T: DeserializeOwned>(object: &Foreign<'_>, spec: Json, import: &mut Import<'_>) -> Option<T> {
    let error = match serde_json::from_value(spec) {
        Ok(spec) => return Some(spec),
        Err(error) => error,
    };
    import.read(object, |reader, _| {
        reader.problem(format!("cannot be read: {error}"), "write it as `egress-agent check` takes it");
        None
    })
}

fn draft(object: &Foreign<'_>, places: &[Place], rules: &[EgressRule]) -> Draft {
    let mut draft = Draft::default();
    for (place, rule) in places.iter().zip(rules) {
        let words = super::build::words(rule.action, &rule.to.words(), rule.ports.as_deref());
        draft.add(object, place, words, Judgement::exact(), [rule.clone()]);
    }
    draft
}

/// Where the rules are.
fn places<'n>(reader: &mut Reader<'n>, spec: &'n Node) -> Vec<Place> {
    let Some(Value::List(rules)) = spec.field("egress").map(|entry| &entry.value.value) else { return Vec::new() };
    reader.within("spec", |reader| {
        reader.within("egress", |reader| {
            (0..rules.len()).map(|index| reader.within(index, |reader| reader.here())).collect()
        })
    })
}

fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Number(text) => text.parse::<u64>().map_or_else(|_| text.as_str().into(), Json::from),
        Value::Text(text) => text.as_str().into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), json(&entry.value))).collect(),
    }
}
