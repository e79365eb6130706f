//! Validating admission policies: what the API server can refuse that a schema cannot say.
//!
//! [`unknown_fields`] refuses fields that no version of the agent knows while they are written; without it they would be stored, and
//! refused by the agent alone. [`own_node`] lets an agent write the state of its own node only. Both need Kubernetes 1.30.

use serde_json::{Value, json};

use super::{DEFINITIONS, Definition, GROUP, structural};

const API_VERSION: &str = "admissionregistration.k8s.io/v1";

/// Every manifest: its file name and the objects in it.
pub fn manifests() -> Vec<(String, Vec<Value>)> {
    let specs = DEFINITIONS.into_iter().filter(|definition| definition.spec_schema().is_some());
    let mut files: Vec<_> = specs.map(|kind| (format!("{}-fields.yaml", kind.plural), unknown_fields(&kind))).collect();
    files.push(("egressnodestates-own-node.yaml".to_owned(), own_node()));
    files
}

/// Refuses objects of the kind with a field that its schema does not have.
pub fn unknown_fields(definition: &Definition) -> Vec<Value> {
    let mut validations = Vec::new();
    closed(
        &definition.schema(),
        &Place { path: String::new(), object: "object".to_owned(), around: Vec::new() },
        &mut validations,
    );
    let spec = json!({
        // If a check cannot be carried out the agent is the one that refuses.
        "failurePolicy": "Ignore",
        "matchConstraints": {"resourceRules": [resources(&[definition.plural.to_owned()])]},
        "matchConditions": [
            {"name": "not-going", "expression": "!has(object.metadata.deletionTimestamp)"},
        ],
        "validations": validations,
    });
    policy(&format!("{}-fields.{GROUP}", definition.plural), &spec)
}

/// Whoever has a token that belongs to a node (a pod's, on that node) writes the state of that node only.
pub fn own_node() -> Vec<Value> {
    const CLAIM: &str = "authentication.kubernetes.io/node-name";
    let spec = json!({
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [resources(&["egressnodestates".to_owned(), "egressnodestates/status".to_owned()])],
        },
        "matchConditions": [{
            "name": "comes-from-a-node",
            "expression": format!("has(request.userInfo.extra) && '{CLAIM}' in request.userInfo.extra"),
        }],
        "validations": [{
            "expression": format!("object.metadata.name in request.userInfo.extra['{CLAIM}']"),
            "message": "an agent writes the EgressNodeState of its own node only",
            "reason": "Forbidden",
        }],
    });
    policy(&format!("egressnodestates-own-node.{GROUP}"), &spec)
}

fn resources(plurals: &[String]) -> Value {
    json!({
        "apiGroups": [GROUP],
        "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE"],
        "resources": plurals,
    })
}

fn policy(name: &str, spec: &Value) -> Vec<Value> {
    let metadata = json!({"name": name, "labels": {"app.kubernetes.io/name": "egress"}});
    vec![
        json!({"apiVersion": API_VERSION, "kind": "ValidatingAdmissionPolicy", "metadata": metadata, "spec": spec}),
        json!({
            "apiVersion": API_VERSION,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": metadata,
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        }),
    ]
}

/// Where an object is: as people write it, as CEL does, and the loops around it.
struct Place {
    path: String,
    object: String,
    around: Vec<String>,
}

impl Place {
    /// `test`, true where the place does not exist.
    fn every(&self, test: &str) -> String {
        self.around.iter().rev().fold(test.to_owned(), |inner, around| around.replace("{}", &inner))
    }

    fn field(&self, name: &str, required: bool) -> Self {
        let object = format!("{}.{name}", self.object);
        let mut around = self.around.clone();
        if !required {
            around.push(format!("!has({object}) || {{}}"));
        }
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { path, object, around }
    }

    fn items(&self) -> Self {
        let item = format!("item{}", self.around.len());
        let mut around = self.around.clone();
        around.push(format!("{}.all({item}, {{}})", self.object));
        Self { path: format!("{}[]", self.path), object: item, around }
    }
}

/// A check for each object in `schema` that keeps fields it does not know.
fn closed(schema: &Value, place: &Place, validations: &mut Vec<Value>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    if schema.get(structural::PRESERVE) == Some(&Value::Bool(true)) {
        let known: Vec<String> = properties.keys().map(|name| format!("'{name}'")).collect();
        let test = format!("{}.all(field, field in [{}])", place.object, known.join(", "));
        let names: Vec<&str> = properties.keys().map(String::as_str).collect();
        let place_name = if place.path.is_empty() { "the object" } else { &place.path };
        validations.push(json!({
            "expression": place.every(&test),
            "message": format!("{place_name} has a field that is not known; its fields are {}", names.join(", ")),
        }));
    }
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    for (name, field) in properties {
        let inner = place.field(name, required.contains(&Value::String(name.clone())));
        closed(field, &inner, validations);
        if let Some(items) = field.get("items") {
            closed(items, &inner.items(), validations);
        }
    }
}
