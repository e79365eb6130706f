//! Reads objects from text: YAML or JSON, several documents, lists, foreign forms.
//!
//! Invariant: a document with any problem yields no object, and does not touch the other documents (§6.3); every problem of a document is
//! reported, each with its field and what to do. The agent calls this for each file of its policy folder.

mod address;
mod config;
mod decode;
mod metadata;
mod policy;
mod positions;
mod problem;
mod tree;

use std::collections::BTreeSet;

pub(crate) use self::policy::DEFAULT_NAMESPACE;
pub use self::positions::Positions;
pub use self::problem::Problem;
pub(crate) use self::problem::{Fields, Finding, Report, Segment};
pub(crate) use self::tree::{Node, SyntaxError, Value, parse};
use crate::model::{Config, Policy, PolicyKey, PolicyKind};
use crate::selector::Labels;
use crate::spec::{API_VERSION, OPENSHIFT_API_VERSIONS};
use crate::warnings::Warning;

/// What a text holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Documents {
    /// The valid objects, in the order of the text.
    pub objects: Vec<Object>,
    /// Everything that is wrong with the others.
    pub problems: Vec<Problem>,
}

/// A valid object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A policy of any kind.
    Policy(Policy),
    /// The configuration.
    Config(Config),
    /// A namespace, for its labels.
    Namespace {
        /// Its name.
        name: String,
        /// Its labels.
        labels: Labels,
    },
}

impl Object {
    /// What validation noticed and did not refuse.
    pub fn warnings(&self) -> &[Warning] {
        match self {
            Self::Policy(policy) => &policy.warnings,
            Self::Config(config) => &config.warnings,
            Self::Namespace { .. } => &[],
        }
    }

    /// "`EgressNetworkPolicy` default/curl".
    pub fn title(&self) -> String {
        match self {
            Self::Policy(policy) => format!("{} {}", policy.key.kind.name(), policy.key),
            Self::Config(_) => "EgressConfig default".to_owned(),
            Self::Namespace { name, .. } => format!("Namespace {name}"),
        }
    }

    /// Which object it is; OpenShift's and our policies of one name differ.
    fn identity(&self) -> (Option<PolicyKey>, String) {
        match self {
            Self::Policy(policy) => (Some(PolicyKey::clone(&policy.key)), String::new()),
            Self::Config(_) | Self::Namespace { .. } => (None, self.title()),
        }
    }
}

/// Reads every object of `text`.
pub fn read(text: &str) -> Documents {
    read_all(text, false)
}

/// [`read`] in a cluster, which tells what is internal if the configuration does not (§1.2). Whoever calls this must look at
/// [`Config::internal_cidrs`] before it lets `defaultAction: Deny` take effect.
pub fn read_in_cluster(text: &str) -> Documents {
    read_all(text, true)
}

fn read_all(text: &str, discovers_internal: bool) -> Documents {
    let mut documents = Documents::default();
    let mut seen = BTreeSet::new();
    for (document, number) in parse(text).into_iter().zip(1..) {
        match document {
            Ok(None) => {}
            Ok(Some(node)) => read_document(&node, number, discovers_internal, &mut documents, &mut seen),
            Err(error) => documents.problems.push(not_yaml(number, &error)),
        }
    }
    documents
}

/// The problem of a document that cannot be parsed.
pub(crate) fn not_yaml(document: usize, error: &SyntaxError) -> Problem {
    Problem {
        document,
        object: None,
        path: String::new(),
        line: (error.line > 0).then_some(error.line),
        message: format!("this is not valid YAML: {}", error.message),
        hint: "correct the syntax at this line".to_owned(),
    }
}

type Seen = BTreeSet<(Option<PolicyKey>, String)>;

fn read_document(root: &Node, number: usize, discovers_internal: bool, documents: &mut Documents, seen: &mut Seen) {
    let mut report = Report::new(root);
    report.discovers_internal = discovers_internal;
    let mut objects = Vec::new();
    read_object(&mut report, root, &mut objects, 0);
    for (object, line) in objects {
        if seen.insert(object.identity()) {
            documents.objects.push(object);
        } else {
            documents.problems.push(Problem {
                document: number,
                object: Some(object.title()),
                path: "metadata.name".to_owned(),
                line,
                message: "the object is written a second time in the same text; the first one counts".to_owned(),
                hint: "remove one of them, or give it another name".to_owned(),
            });
        }
    }
    let problem = |finding: Finding<String>| Problem {
        document: number,
        object: finding.object,
        path: finding.path,
        line: finding.line,
        message: finding.message,
        hint: finding.kind,
    };
    documents.problems.extend(report.problems.into_iter().map(problem));
}

/// Lists hold lists no deeper than this.
const MAX_LISTS: usize = 4;

/// Objects, each with its line.
type Read = Vec<(Object, Option<usize>)>;

/// Reads the object, or the objects of the list, at the current value. One with problems is left out; others of a list are not.
fn read_object<'n>(report: &mut Report<'n>, node: &'n Node, objects: &mut Read, depth: usize) {
    let outer = std::mem::replace(&mut report.object, title(node));
    let (problems, warnings) = (report.problems.len(), report.warnings.len());
    if let Some((fields, api_version, kind)) = report.kind(node) {
        if (api_version, kind) == ("v1", "List") && depth < MAX_LISTS {
            report.check_object_fields(fields, &["items"]);
            report.required(fields, "items", "list the objects", |report, node| {
                report.list(node, |report, node| {
                    read_object(report, node, objects, depth + 1);
                    Some(())
                })
            });
        } else if let Some(mut object) = report.object(fields, api_version, kind)
            && report.problems.len() == problems
        {
            report.move_warnings(warnings, &mut object);
            objects.push((object, (node.line > 0).then_some(node.line)));
        }
    }
    report.object = outer;
}

fn policy_kind(api_version: &str, kind: &str) -> Option<PolicyKind> {
    match (api_version, kind) {
        (API_VERSION, "EgressNetworkPolicy") => Some(PolicyKind::EgressNetworkPolicy),
        (API_VERSION, "ClusterEgressPolicy") => Some(PolicyKind::ClusterEgressPolicy),
        (version, "EgressNetworkPolicy") if OPENSHIFT_API_VERSIONS.contains(&version) => {
            Some(PolicyKind::OpenShiftEgressNetworkPolicy)
        }
        _ => None,
    }
}

impl<'n> Report<'n> {
    /// The fields of an object, its API version and its kind.
    fn kind(&mut self, node: &'n Node) -> Option<(Fields<'n>, &'n str, &'n str)> {
        let Value::Map(_) = &node.value else {
            self.problem(
                format!("must be an object, not {}", node.kind()),
                "write apiVersion, kind, metadata and spec",
            );
            return None;
        };
        let fields = Fields(node);
        let api_version = self.required(fields, "apiVersion", "write apiVersion: egress.rs/v1alpha1", Self::text);
        let kind = self.required(fields, "kind", "write the kind, such as EgressNetworkPolicy", Self::text);
        Some((fields, api_version?, kind?))
    }

    /// The object with these fields. What comes back is complete only if the report has no problems.
    pub(crate) fn object(&mut self, fields: Fields<'n>, api_version: &str, kind: &str) -> Option<Object> {
        if (api_version, kind) == ("v1", "Namespace") {
            let metadata = self.metadata(fields)?;
            return metadata.name.map(|name| Object::Namespace { name, labels: metadata.labels });
        }
        let policy_kind = policy_kind(api_version, kind);
        if policy_kind.is_none() && (api_version, kind) != (API_VERSION, "EgressConfig") {
            self.unknown_kind(api_version, kind);
            return None;
        }
        self.check_object_fields(fields, &["spec"]);
        let metadata = self.metadata(fields)?;
        match policy_kind {
            Some(kind) => self.policy(fields, metadata, kind).map(Object::Policy),
            None => self.config(fields, &metadata).map(Object::Config),
        }
    }

    fn unknown_kind(&mut self, api_version: &str, kind: &str) {
        let ours = ["EgressNetworkPolicy", "ClusterEgressPolicy", "EgressConfig"];
        if ours.contains(&kind) {
            let hint = format!("write apiVersion: {API_VERSION}");
            self.problem_at("apiVersion", format!("{api_version} has no {kind} that is known here"), hint);
        } else {
            let hint = format!("remove the document; the kinds are {}, Namespace and List", ours.join(", "));
            self.problem_at("kind", format!("{kind} of {api_version} is not known here"), hint);
        }
    }

    /// Only the fields that every object has and `own` may be there, each once and none empty.
    pub(crate) fn check_object_fields(&mut self, fields: Fields<'n>, own: &[&str]) {
        const COMMON: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];
        let mut seen = BTreeSet::new();
        for key in fields.keys() {
            if !COMMON.contains(&key) && !own.contains(&key) {
                let hint = format!("remove it; the fields here are {}, {}", COMMON.join(", "), own.join(", "));
                self.problem_at(key, "this field is not known", hint);
            } else if !seen.insert(key) {
                self.problem_at(key, "the field is written more than once", "keep one of them");
            } else if key != "status" && fields.get(key).is_some_and(|node| node.value == Value::Null) {
                self.problem_at(key, "the field is empty", "give it a value");
            }
        }
    }

    /// Gives the warnings from `first` on to the object that they are about.
    fn move_warnings(&mut self, first: usize, object: &mut Object) {
        let found = self.warnings.split_off(first.min(self.warnings.len()));
        // A warning belongs to its object, so the object's place in a list is left out.
        let here = self.path();
        let inside = |path: &str| path.strip_prefix(&here).unwrap_or(path).trim_start_matches('.').to_owned();
        let (policy, warnings) = match object {
            Object::Policy(policy) => (Some(&policy.key), &mut policy.warnings),
            Object::Config(config) => (None, &mut config.warnings),
            Object::Namespace { .. } => return,
        };
        warnings.extend(found.into_iter().map(|finding| Warning {
            reason: finding.kind,
            policy: policy.cloned(),
            path: inside(&finding.path),
            message: finding.message,
        }));
    }
}

/// "`EgressNetworkPolicy` default/curl", as far as it is written.
pub(crate) fn title(root: &Node) -> Option<String> {
    let text = |node: Option<&Node>| match node.map(|node| &node.value) {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let kind = text(root.field("kind").map(|entry| &entry.value))?;
    let metadata = root.field("metadata").map(|entry| &entry.value);
    let field = |name: &str| text(metadata.and_then(|node| node.field(name)).map(|entry| &entry.value));
    Some(match (field("namespace"), field("name")) {
        (Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}"),
        (None, Some(name)) if kind == "EgressNetworkPolicy" => format!("{kind} default/{name}"),
        (None, Some(name)) => format!("{kind} {name}"),
        (_, None) => kind,
    })
}

#[cfg(test)]
mod tests;
