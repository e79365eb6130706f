//! The definitions: what an API server accepts and refuses by them, their form, and what they say of each field.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::cases::{accepted, policy, refused, refused_by_the_agent_alone};
use super::*;
use crate::document;

mod server;

use server::Server;

/// What the agent says of the object.
fn agent(object: &Value) -> Vec<String> {
    document::read_in_cluster(&object.to_string()).problems.iter().map(ToString::to_string).collect()
}

#[test]
fn the_server_accepts_what_the_agent_accepts() {
    for object in accepted() {
        let text = object.to_string();
        let text: String = text.chars().take(300).collect();
        assert_eq!(agent(&object), Vec::<String>::new(), "the agent refuses {text}");
        assert_eq!(Server::new(&object).problems(&object), Vec::<String>::new(), "the server refuses {text}");
    }
}

#[test]
fn both_refuse_what_is_wrong() {
    for object in refused() {
        let text: String = object.to_string().chars().take(300).collect();
        assert!(!agent(&object).is_empty(), "the agent accepts {text}");
        assert!(!Server::new(&object).problems(&object).is_empty(), "the server accepts {text}");
    }
}

#[test]
fn what_the_agent_alone_refuses_is_known() {
    for (what, object) in refused_by_the_agent_alone() {
        assert_eq!(Server::new(&object).problems(&object), Vec::<String>::new(), "{what}: {object}");
        assert!(!agent(&object).is_empty(), "{what}: {object}");
    }
}

#[test]
fn no_field_of_a_spec_is_pruned_and_the_admission_policy_knows_all_of_them() {
    fn objects(schema: &Value, closed: &mut Vec<Value>) {
        if schema.get("properties").is_some() {
            closed.push(schema.clone());
        }
        let inner = schema.get("properties").and_then(Value::as_object).into_iter().flat_map(|fields| fields.values());
        for schema in inner.chain(schema.get("items")) {
            objects(schema, closed);
        }
    }
    for definition in DEFINITIONS {
        let Some(spec) = definition.spec_schema() else { continue };
        let mut found = Vec::new();
        objects(&spec, &mut found);
        for object in &found {
            assert_eq!(object[structural::PRESERVE], true, "{}: {object}", definition.kind);
        }
        let checks = admission::unknown_fields(&definition);
        let checks = checks[0]["spec"]["validations"].as_array().unwrap();
        // And the object itself.
        assert_eq!(checks.len(), found.len() + 1, "{}", definition.kind);
    }
}

#[test]
fn unknown_fields_are_refused_on_admission_wherever_they_are() {
    let right = json!({"egress": [
        {"type": "Allow", "to": {"cidrSelector": "1.2.3.0/24", "except": ["1.2.3.4/32"]}, "ports": [{"protocol": "TCP", "port": 1}], "name": "n"},
        {"type": "Deny", "to": {"nodeSelector": {"matchLabels": {"any": "x"}, "matchExpressions": [{"key": "a", "operator": "Exists"}]}}},
    ], "podSelector": {"matchLabels": {"any": "x"}}});
    let object = policy(&right);
    assert_eq!(server::admission(&object), Vec::<String>::new());
    for (place, count) in [
        ("", 1),
        ("/spec", 1),
        ("/spec/egress/1", 1),
        ("/spec/egress/0/to", 1),
        ("/spec/egress/0/ports/0", 1),
        ("/spec/egress/1/to/nodeSelector", 1),
        ("/spec/egress/1/to/nodeSelector/matchExpressions/0", 1),
        ("/spec/podSelector", 1),
        // Labels are free.
        ("/spec/podSelector/matchLabels", 0),
        ("/metadata", 0),
    ] {
        let mut wrong = object.clone();
        wrong.pointer_mut(place).unwrap()["prot"] = json!("TCP");
        assert_eq!(server::admission(&wrong).len(), count, "{place}");
        if place != "/spec/podSelector/matchLabels" {
            assert!(!agent(&wrong).is_empty(), "{place}");
        }
    }
}

/// <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>
#[test]
fn schemas_are_structural_and_every_field_is_described_and_bounded() {
    fn check(schema: &Value, path: &str) {
        let kind = schema["type"].as_str().unwrap_or_else(|| panic!("{path} has no type"));
        for forbidden in
            ["oneOf", "anyOf", "allOf", "not", "$ref", "$defs", "definitions", "nullable", "default", "title"]
        {
            assert!(schema.get(forbidden).is_none(), "{path} has {forbidden}");
        }
        assert!(
            path.ends_with(".metadata") || schema["description"].as_str().is_some_and(|text| !text.contains('\n')),
            "{path}"
        );
        match kind {
            "object" => {
                let fields = schema.get("properties").and_then(Value::as_object);
                assert!(fields.is_none() || schema.get("additionalProperties").is_none(), "{path}");
                for (name, field) in fields.into_iter().flatten() {
                    check(field, &format!("{path}.{name}"));
                }
                if let Some(values) = schema.get("additionalProperties") {
                    check(values, &format!("{path}.*"));
                    assert!(schema["maxProperties"].is_number(), "{path} has no limit");
                }
            }
            "array" => {
                assert!(schema["maxItems"].is_number(), "{path} has no limit");
                check(&schema["items"], &format!("{path}[]"));
            }
            "string" => {
                let bounded =
                    schema.get("enum").is_some() || schema["maxLength"].is_number() || schema["format"] == "date-time";
                assert!(bounded, "{path} has no limit");
            }
            "integer" => assert!(["int32", "int64"].contains(&schema["format"].as_str().unwrap()), "{path}"),
            "boolean" => {}
            other => panic!("{path} is {other}"),
        }
    }
    for definition in DEFINITIONS {
        for schema in definition.spec_schema().into_iter().chain([definition.status_schema()]) {
            check(&schema, definition.kind);
        }
    }
}

#[test]
fn names_are_what_kubernetes_wants_and_none_is_used_twice() {
    let mut seen = BTreeSet::new();
    for definition in DEFINITIONS {
        assert_eq!(definition.singular, definition.kind.to_lowercase());
        for name in [definition.plural, definition.singular, definition.short] {
            assert!(seen.insert(name), "{name}");
        }
        let manifest = definition.manifest();
        assert_eq!(manifest["metadata"]["name"], format!("{}.egress.rs", definition.plural));
        for column in manifest["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap() {
            let path = column["jsonPath"].as_str().unwrap();
            let field = path.trim_start_matches('.').split(['.', '[']).take(2).collect::<Vec<_>>();
            let known = ["metadata"].contains(&field[0])
                || definition.schema()["properties"][field[0]]["properties"].get(field[1]).is_some();
            assert!(known, "{path}");
        }
    }
}

#[test]
fn every_field_has_a_row_in_the_reference() {
    let spec = DEFINITIONS[0].spec_schema().unwrap();
    let rows = fields(&spec, "spec");
    let row = |path: &str| rows.iter().find(|row| row.path == path).unwrap();
    assert_eq!(row("spec.egress").limit, "at most 8000");
    assert!(row("spec.egress").required);
    assert_eq!(row("spec.egress[].type").kind, "Allow \\| Deny \\| Pass");
    assert_eq!(row("spec.egress[].ports[].port").limit, "1 to 65535");
    assert_eq!(row("spec.egress[].to.except").kind, "list of string");
    assert_eq!(row("spec.podSelector.matchLabels").kind, "map to string");
    assert_eq!(row("spec.egress[].to").checks.len(), 4);
}
