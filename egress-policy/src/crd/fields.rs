//! The fields of an object in a flat list, for the reference in `docs/api.md`.

use serde_json::Value;

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRow {
    /// `spec.egress[].to.cidrSelector`.
    pub path: String,
    /// `string`, `list of objects`, or the words that are possible.
    pub kind: String,
    /// Whether it must be there.
    pub required: bool,
    /// What it can at most be: `at most 50`, `1 to 65535`.
    pub limit: String,
    /// What it means.
    pub description: String,
    /// What the API server says where its checks fail.
    pub checks: Vec<String>,
}

/// The fields of `schema` and of everything inside it; `path` is what stands in front.
pub fn fields(schema: &Value, path: &str) -> Vec<FieldRow> {
    let mut rows = Vec::new();
    walk(schema, path, &mut rows);
    rows
}

fn walk(schema: &Value, path: &str, rows: &mut Vec<FieldRow>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let required: Vec<&str> = list(schema, "required").iter().filter_map(Value::as_str).collect();
    for (name, field) in properties {
        let path = format!("{path}.{name}");
        rows.push(FieldRow {
            kind: kind(field),
            required: required.contains(&name.as_str()),
            limit: limit(field),
            description: text(field, "description").to_owned(),
            checks: checks(field),
            path: path.clone(),
        });
        walk(field, &path, rows);
        if let Some(items) = field.get("items") {
            walk(items, &format!("{path}[]"), rows);
        }
    }
}

fn kind(field: &Value) -> String {
    let words = list(field, "enum");
    if !words.is_empty() {
        return words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" \\| ");
    }
    match (text(field, "type"), field.get("items"), field.get("additionalProperties")) {
        ("array", Some(items), _) => format!("list of {}", kind(items)),
        ("object", _, Some(values)) => format!("map to {}", kind(values)),
        (name, _, _) => name.to_owned(),
    }
}

fn limit(field: &Value) -> String {
    let number = |name: &str| field.get(name).and_then(Value::as_u64);
    if let (Some(least), Some(most)) = (number("minimum"), number("maximum")) {
        return format!("{least} to {most}");
    }
    let most = |name: &str, unit: &str| number(name).map(|most| format!("at most {most}{unit}"));
    let inner = field.get("items").map(limit).filter(|limit| !limit.is_empty());
    let own = most("maxItems", "").or_else(|| most("maxProperties", "")).or_else(|| most("maxLength", " characters"));
    match (own, inner) {
        (Some(own), Some(inner)) => format!("{own}, each {inner}"),
        (Some(limit), None) | (None, Some(limit)) => limit,
        (None, None) => String::new(),
    }
}

fn checks(field: &Value) -> Vec<String> {
    let of = |schema: &Value| -> Vec<String> {
        list(schema, super::structural::VALIDATIONS).iter().map(|rule| text(rule, "message").to_owned()).collect()
    };
    let mut checks = of(field);
    checks.extend(field.get("items").map(of).unwrap_or_default());
    checks
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
