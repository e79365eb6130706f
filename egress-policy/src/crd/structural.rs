//! From the JSON schema of a Rust type to the structural schema that the API server wants: everything in place, no `oneOf` of constants,
//! no null, no closed objects; enums keep what is said of their values.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// Says that fields that the schema does not know are kept.
pub(super) const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
/// CEL rules.
pub(super) const VALIDATIONS: &str = "x-kubernetes-validations";
const LIST_TYPE: &str = "x-kubernetes-list-type";

/// The structural schema of `T`.
pub(super) fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    structural(settings.into_generator().into_root_schema_for::<T>().to_value())
}

fn structural(schema: Value) -> Value {
    let Value::Object(fields) = schema else { return schema };
    let mut fields = without_null(fields);
    for name in ["title", "default", "$schema"] {
        fields.remove(name);
    }
    if let Some(description) = fields.get("description").and_then(Value::as_str) {
        // Lines of the source end where the source wants.
        let description = description.replace('\n', " ");
        fields.insert("description".to_owned(), Value::String(description));
    }
    if let Some(Value::Array(variants)) = fields.remove("oneOf") {
        choice(&mut fields, &variants);
    }
    if fields.get("additionalProperties") == Some(&Value::Bool(false)) {
        fields.remove("additionalProperties");
        fields.insert(PRESERVE.to_owned(), Value::Bool(true));
    }
    if fields.get("type") == Some(&json!("integer")) {
        let wide = matches!(fields.get("format").and_then(Value::as_str), Some("int64" | "uint64"));
        fields.insert("format".to_owned(), json!(if wide { "int64" } else { "int32" }));
    }
    if fields.get("type") == Some(&json!("array")) && !fields.contains_key(LIST_TYPE) {
        fields.insert(LIST_TYPE.to_owned(), json!("atomic"));
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = fields.remove(name) {
            fields.insert(name.to_owned(), structural(inner));
        }
    }
    if let Some(Value::Object(properties)) = fields.remove("properties") {
        let properties = properties.into_iter().map(|(name, schema)| (name, structural(schema))).collect();
        fields.insert("properties".to_owned(), Value::Object(properties));
    }
    Value::Object(fields)
}

/// An optional value is one that may be left out, not one that may be null.
fn without_null(mut fields: Map<String, Value>) -> Map<String, Value> {
    if let Some(Value::Array(kinds)) = fields.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [kind] = kinds.as_slice() {
            let kind = kind.clone();
            fields.insert("type".to_owned(), kind);
        }
    }
    let Some(Value::Array(options)) = fields.remove("anyOf") else { return fields };
    let some = options.into_iter().find(|option| option.get("type") != Some(&json!("null")));
    let Some(Value::Object(mut some)) = some else { return fields };
    // What is said of the field is closer to the reader than what is said of its type.
    some.extend(fields);
    some
}

/// Constants, each with its description, as an enum.
fn choice(fields: &mut Map<String, Value>, variants: &[Value]) {
    let mut words = Vec::new();
    let mut description = fields.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    for variant in variants {
        let Some(word) = variant.get("const").and_then(Value::as_str) else { continue };
        if let Some(meaning) = variant.get("description").and_then(Value::as_str) {
            description = format!("{description} {word}: {meaning}");
        }
        words.push(json!(word));
    }
    fields.insert("type".to_owned(), json!("string"));
    fields.insert("description".to_owned(), json!(description.trim()));
    fields.insert("enum".to_owned(), Value::Array(words));
}
