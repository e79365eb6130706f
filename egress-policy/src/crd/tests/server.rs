//! What the API server would say of an object: the schema, and its CEL rules as another implementation of CEL evaluates them. The functions
//! for addresses follow the documentation of Kubernetes' CEL library. `tests/cluster` asks a real API server the same.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use cel::extractors::This;
use cel::{Context, ExecutionError, Program};
use ipnet::IpNet;
use serde_json::Value;

use crate::crd::{DEFINITIONS, Definition, admission};

/// The server's view of one kind.
pub(super) struct Server {
    schema: Value,
}

impl Server {
    pub(super) fn new(object: &Value) -> Self {
        Self { schema: definition(object).schema() }
    }

    /// What is wrong with the object.
    pub(super) fn problems(&self, object: &Value) -> Vec<String> {
        let mut problems = Vec::new();
        check(&self.schema, &pruned(object), "", &mut problems);
        problems
    }
}

/// Without nulls in fields, which the server drops where a schema does not say `nullable`, before it looks at anything else.
fn pruned(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, field)| !field.is_null());
            Value::Object(kept.map(|(name, field)| (name.clone(), pruned(field))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(pruned).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn definition(object: &Value) -> Definition {
    DEFINITIONS.into_iter().find(|definition| object["kind"] == definition.kind).unwrap()
}

/// What the admission policy for unknown fields says.
pub(super) fn admission(object: &Value) -> Vec<String> {
    let manifests = admission::unknown_fields(&definition(object));
    let checks = manifests[0]["spec"]["validations"].as_array().unwrap().clone();
    let refuses = |check: &&Value| !holds(check["expression"].as_str().unwrap(), "object", object);
    checks.iter().filter(refuses).map(|check| check["message"].as_str().unwrap().to_owned()).collect()
}

fn check(schema: &Value, value: &Value, path: &str, problems: &mut Vec<String>) {
    let mut wrong = |what: &str| problems.push(format!("{path}: {what}"));
    let number = |name: &str| schema.get(name).and_then(Value::as_i64);
    let length = |length: usize| i64::try_from(length).unwrap();
    let right_kind = match schema["type"].as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "boolean" => value.is_boolean(),
        other => panic!("{other}"),
    };
    if !right_kind {
        return wrong("is of the wrong type");
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        wrong("is none of the words");
    }
    if value
        .as_i64()
        .is_some_and(|value| number("minimum") > Some(value) || number("maximum").is_some_and(|most| value > most))
    {
        wrong("is out of range");
    }
    if let Some(text) = value.as_str() {
        let characters = length(text.chars().count());
        if number("maxLength").is_some_and(|most| characters > most) || number("minLength") > Some(characters) {
            wrong("is too long or too short");
        }
        if schema["format"] == "cidr" && sloppy_cidr(text).is_none() {
            wrong("is not a CIDR");
        }
    }
    if let Some(items) = value.as_array() {
        if number("maxItems").is_some_and(|most| length(items.len()) > most)
            || number("minItems") > Some(length(items.len()))
        {
            wrong("has too many or too few items");
        }
        for (index, item) in items.iter().enumerate() {
            check(&schema["items"], item, &format!("{path}[{index}]"), problems);
        }
    }
    if let Some(fields) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                problems.push(format!("{path}.{name}: is required"));
            }
        }
        if number("maxProperties").is_some_and(|most| length(fields.len()) > most) {
            problems.push(format!("{path}: has too many entries"));
        }
        for (name, value) in fields {
            let inner =
                schema.get("properties").and_then(|fields| fields.get(name)).or(schema.get("additionalProperties"));
            if let Some(inner) = inner {
                check(inner, value, &format!("{path}.{name}"), problems);
            }
        }
    }
    // As the server: rules of CEL are asked only about what the schema lets pass.
    if problems.is_empty() {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            if !holds(rule["rule"].as_str().unwrap(), "self", value) {
                problems.push(format!("{path}: {}", rule["message"].as_str().unwrap()));
            }
        }
    }
}

fn compiled(expression: &str) -> Rc<Program> {
    thread_local!(static PROGRAMS: RefCell<HashMap<String, Rc<Program>>> = RefCell::default());
    let compile = || Rc::new(Program::compile(expression).unwrap_or_else(|error| panic!("{expression}: {error}")));
    PROGRAMS.with_borrow_mut(|known| Rc::clone(known.entry(expression.to_owned()).or_insert_with(compile)))
}

/// Whether the expression holds; an error counts as no, as it does for the server.
fn holds(expression: &str, variable: &str, value: &Value) -> bool {
    let program = compiled(expression);
    let mut context = Context::default();
    context.add_variable(variable, value).unwrap();
    context.add_function("isCIDR", |text: Arc<String>| cidr(&text).is_some()).unwrap();
    context.add_function("isIP", |text: Arc<String>| ip(&text).is_some()).unwrap();
    context.add_function("cidr", parsed).unwrap();
    // Values of type cidr and ip are their texts here.
    let known = |text: &str| text.parse::<IpNet>().unwrap();
    context.add_function("ip", move |This(this): This<Arc<String>>| known(&this).addr().to_string()).unwrap();
    context
        .add_function("prefixLength", move |This(this): This<Arc<String>>| i64::from(known(&this).prefix_len()))
        .unwrap();
    let contains =
        move |This(this): This<Arc<String>>, ip: Arc<String>| known(&this).contains(&ip.parse::<IpAddr>().unwrap());
    context.add_function("containsIP", contains).unwrap();
    context.add_function("lowerAscii", |This(this): This<Arc<String>>| this.to_ascii_lowercase()).unwrap();
    match program.execute(&context) {
        Ok(cel::Value::Bool(holds)) => holds,
        Ok(other) => panic!("{expression} is {other:?}"),
        Err(error) => {
            let expected = error.to_string().contains("is not a CIDR");
            assert!(expected, "{expression}: {error}");
            false
        }
    }
}

/// Neither zones nor IPv4 in IPv6 notation nor leading zeros.
fn ip(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    (address == address.to_canonical()).then_some(address)
}

#[expect(clippy::needless_pass_by_value, reason = "functions of CEL take values")]
fn parsed(text: Arc<String>) -> Result<cel::Value, ExecutionError> {
    let wrong = || ExecutionError::function_error("cidr", format!("{text} is not a CIDR"));
    cidr(&text).map(|cidr| cel::Value::String(Arc::new(cidr.to_string()))).ok_or_else(wrong)
}

fn cidr(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    ip(address)?;
    (length == "0" || !length.starts_with('0')).then_some(())?;
    text.parse().ok()
}

/// `format: cidr` lets leading zeros pass, and IPv4 in IPv6 notation.
fn sloppy_cidr(text: &str) -> Option<IpNet> {
    text.parse().ok()
}
