//! Worlds as the files that a user would write: several objects per file, YAML in several styles or JSON, defaults written or left
//! out, some objects in OpenShift's form.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::object::{
    Action, Expression, Kind, Mode, Operator, Peer, Policy, Ports, Protocol, Rule, Selector, Tier, World,
};
use crate::prefix::Prefix;
use crate::random::Random;

/// A file of a policies folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name, ending in `.yaml` or `.json`.
    pub name: String,
    /// What is in it.
    pub text: String,
}

impl World {
    /// The files of this world. `seed` chooses the order of objects and the style of writing, never the meaning.
    pub fn files(&self, seed: u64) -> Vec<File> {
        let random = &mut Random::new(seed);
        let mut objects = self.objects(random);
        random.shuffle(&mut objects);
        let mut files = Vec::new();
        while !objects.is_empty() {
            let take = random.between(1, objects.len());
            let rest = objects.split_off(take);
            files.push(file(files.len(), &objects, random));
            objects = rest;
        }
        files
    }

    /// Every object, as JSON.
    pub fn objects(&self, random: &mut Random) -> Vec<Value> {
        let mut objects: Vec<Value> =
            self.policies.iter().map(|policy| policy_object(policy, self.seed, random)).collect();
        objects.extend(self.namespaces.iter().map(|(name, labels)| {
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        }));
        objects.extend(self.config_object(random));
        objects
    }

    /// The EgressConfig; none where everything in it is a default.
    fn config_object(&self, random: &mut Random) -> Option<Value> {
        let config = &self.config;
        let mut spec = Map::new();
        if !config.default_allow || random.chance(30) {
            spec.insert("defaultAction".into(), if config.default_allow { "Allow" } else { "Deny" }.into());
        }
        if config.audit || random.chance(10) {
            spec.insert("enforcement".into(), if config.audit { "Audit" } else { "Enforce" }.into());
        }
        if !config.excluded.is_empty() {
            spec.insert("excludedCIDRs".into(), texts(&config.excluded));
        }
        if let Some(internal) = &config.internal {
            spec.insert("internalCIDRs".into(), texts(internal));
        }
        if let Some(resolvers) = &config.resolvers {
            spec.insert("resolvers".into(), texts(resolvers));
        }
        if !config.allow_resolvers || random.chance(20) {
            let mut dns = json!({"allowResolvers": config.allow_resolvers});
            if random.chance(50) {
                dns["minTTL"] = "5s".into();
                dns["maxTTL"] = "1h".into();
            }
            spec.insert("dns".into(), dns);
        }
        if spec.is_empty() {
            return None;
        }
        Some(json!({
            "apiVersion": "egress.rs/v1alpha1", "kind": "EgressConfig", "metadata": {"name": "default"}, "spec": spec,
        }))
    }
}

fn file(index: usize, objects: &[Value], random: &mut Random) -> File {
    if random.chance(20) {
        let document = match objects {
            [object] => object.clone(),
            _ => json!({"apiVersion": "v1", "kind": "List", "items": objects}),
        };
        let text = if random.chance(50) { format!("{document:#}") } else { document.to_string() };
        let name = format!("{index:02}.json");
        return File { name, text };
    }
    let mut text = String::new();
    for (number, object) in objects.iter().enumerate() {
        if number > 0 || random.chance(30) {
            text.push_str("---\n");
        }
        if random.chance(10) {
            text.push_str("# a comment: with a colon\n");
        }
        text.push_str(&to_yaml(object, random));
    }
    let name = format!("{index:02}.yaml");
    File { name, text }
}

fn policy_object(policy: &Policy, seed: u64, random: &mut Random) -> Value {
    let mut metadata = json!({"name": policy.id.name});
    if let Some(namespace) = &policy.id.namespace
        && (namespace != "default" || random.chance(50))
    {
        metadata["namespace"] = namespace.as_str().into();
    }
    let mut spec = Map::new();
    let rules: Vec<Value> = policy.rules.iter().map(|rule| rule_object(rule, random)).collect();
    spec.insert("egress".into(), rules.into());
    if let Some(api_version) = openshift_form(policy, seed) {
        return json!({"apiVersion": api_version, "kind": "EgressNetworkPolicy", "metadata": metadata, "spec": spec});
    }
    if policy.priority != 100 || random.chance(20) {
        spec.insert("priority".into(), policy.priority.into());
    }
    if policy.mode == Mode::Audit || random.chance(20) {
        spec.insert("mode".into(), if policy.mode == Mode::Audit { "Audit" } else { "Enforce" }.into());
    }
    if let Some(selector) = &policy.pod_selector {
        spec.insert("podSelector".into(), selector_object(selector));
    }
    if let Some(selector) = &policy.namespace_selector {
        spec.insert("namespaceSelector".into(), selector_object(selector));
    }
    if let Some(names) = &policy.service_accounts {
        spec.insert("serviceAccounts".into(), json!(names));
    }
    let kind = match policy.id.kind {
        Kind::EgressNetworkPolicy => "EgressNetworkPolicy",
        Kind::ClusterEgressPolicy => "ClusterEgressPolicy",
    };
    match policy.tier {
        Tier::Admin => drop(spec.insert("tier".into(), "Admin".into())),
        Tier::Baseline => drop(spec.insert("tier".into(), "Baseline".into())),
        Tier::Namespace => {}
    }
    json!({"apiVersion": "egress.rs/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
}

/// The `apiVersion` to write a policy in OpenShift's form with, where it says nothing that form cannot say. Which ones are written so
/// is a property of the world: an OpenShift object is another object than one of ours of the same name.
fn openshift_form(policy: &Policy, seed: u64) -> Option<&'static str> {
    let plain_policy = policy.tier == Tier::Namespace
        && policy.priority == 100
        && policy.mode == Mode::Enforce
        && policy.pod_selector.is_none()
        && policy.service_accounts.is_none();
    let plain_rules = policy.rules.iter().all(|rule| match &rule.peer {
        // OpenShift's form reads 0.0.0.0/32 as /0.
        Peer::Cidr { prefix, except } => {
            except.is_empty()
                && *prefix != Prefix::new([0, 0, 0, 0].into(), 32)
                && rule.name.is_none()
                && rule.ports.is_none()
        }
        Peer::Dns(_) | Peer::Nodes(_) => false,
    });
    let random =
        &mut Random::new(policy.id.name.bytes().fold(seed, |seed, byte| seed.rotate_left(8) ^ u64::from(byte)));
    (plain_policy && plain_rules && random.chance(60)).then(|| *random.pick(&["v1", "network.openshift.io/v1"]))
}

fn rule_object(rule: &Rule, random: &mut Random) -> Value {
    let action = match rule.action {
        Action::Allow => "Allow",
        Action::Deny => "Deny",
        Action::Pass => "Pass",
    };
    let to = match &rule.peer {
        Peer::Cidr { prefix, except } if except.is_empty() => json!({"cidrSelector": written(prefix, random)}),
        Peer::Cidr { prefix, except } => json!({"cidrSelector": written(prefix, random), "except": texts(except)}),
        Peer::Dns(name) => json!({"dnsName": name}),
        Peer::Nodes(selector) => json!({"nodeSelector": selector_object(selector)}),
    };
    let mut object = json!({"type": action, "to": to});
    if let Some(ports) = &rule.ports {
        object["ports"] = ports.iter().map(ports_object).collect();
    }
    if let Some(name) = &rule.name {
        object["name"] = name.as_str().into();
    }
    object
}

/// A prefix as text; IPv6 sometimes in capitals or without the `::`.
fn written(prefix: &Prefix, random: &mut Random) -> String {
    match prefix.address {
        std::net::IpAddr::V6(address) if random.chance(15) => {
            let groups: Vec<String> = address.segments().iter().map(|group| format!("{group:X}")).collect();
            format!("{}/{}", groups.join(":"), prefix.length)
        }
        _ => prefix.to_string(),
    }
}

fn ports_object(ports: &Ports) -> Value {
    let protocol = match ports.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
        Protocol::Icmp => "ICMP",
        Protocol::Icmpv6 => "ICMPv6",
        Protocol::Any => "Any",
    };
    let mut object = json!({"protocol": protocol});
    if let Some(port) = ports.port {
        object["port"] = port.into();
    }
    if let Some(end) = ports.end {
        object["endPort"] = end.into();
    }
    object
}

fn selector_object(selector: &Selector) -> Value {
    let mut object = Map::new();
    if !selector.labels.is_empty() {
        object.insert("matchLabels".into(), json!(selector.labels));
    }
    if !selector.expressions.is_empty() {
        object.insert("matchExpressions".into(), selector.expressions.iter().map(expression_object).collect());
    }
    object.into()
}

fn expression_object(expression: &Expression) -> Value {
    let operator = match expression.operator {
        Operator::In => "In",
        Operator::NotIn => "NotIn",
        Operator::Exists => "Exists",
        Operator::DoesNotExist => "DoesNotExist",
    };
    let mut object = json!({"key": expression.key, "operator": operator});
    if !expression.values.is_empty() {
        object["values"] = json!(expression.values);
    }
    object
}

fn texts<T: ToString>(items: &[T]) -> Value {
    items.iter().map(ToString::to_string).collect()
}

/// `value` as a YAML document, with the liberties that writers of YAML take.
pub fn to_yaml(value: &Value, random: &mut Random) -> String {
    let mut text = String::new();
    block(value, 0, &mut text, random);
    text
}

/// Writes `value` as a block whose lines begin at `indent`; the cursor is at the start of a line.
fn block(value: &Value, indent: usize, text: &mut String, random: &mut Random) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                let _ = write!(text, "{:indent$}{}:", "", scalar(&Value::from(key.as_str()), random));
                nested(value, indent + 2, text, random);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let _ = write!(text, "{:indent$}-", "");
                nested(item, indent + 2, text, random);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            let _ = writeln!(text, "{:indent$}{}", "", scalar(value, random));
        }
    }
}

/// Writes `value` behind a `key:` or a `-`.
fn nested(value: &Value, indent: usize, text: &mut String, random: &mut Random) {
    let flow = match value {
        Value::Object(fields) => fields.is_empty() || random.chance(15),
        Value::Array(items) => items.is_empty() || random.chance(10),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    };
    if flow {
        let _ = writeln!(text, " {}", scalar(value, random));
    } else if value.is_object() && text.ends_with('-') {
        // A mapping in a list starts on the line of its dash.
        let mut inner = String::new();
        block(value, indent, &mut inner, random);
        let _ = write!(text, " {}", inner.trim_start());
    } else {
        text.push('\n');
        block(value, indent, text, random);
    }
}

/// A scalar, plain or quoted; collections in flow style, which for YAML is their JSON.
fn scalar(value: &Value, random: &mut Random) -> String {
    match value {
        Value::String(string) if is_plain(string) && random.chance(70) => string.clone(),
        Value::String(string) if random.chance(50) && !string.contains('\'') => format!("'{string}'"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

/// Whether YAML reads `string` as a string without quotes.
fn is_plain(string: &str) -> bool {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let ordinary = |c: char| c.is_ascii_alphanumeric() || "./:-_".contains(c);
    let starts_well = string.starts_with(|c: char| c.is_ascii_alphanumeric());
    starts_well
        && string.chars().all(ordinary)
        && !string.ends_with(':')
        && string.parse::<f64>().is_err()
        && !WORDS.contains(&string.to_ascii_lowercase().as_str())
}
