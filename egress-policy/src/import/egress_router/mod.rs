//! OpenShift's egress-router lists: of destinations that a router pod redirects to, or lets an HTTP or a DNS proxy reach. See
//! docs/import/egress-router.md.
//!
//! A list comes as plain text, or in an environment variable of the router's pod, which may take it from a `ConfigMap`. What the list
//! lets through becomes the rules of the pods of the router's namespace; that the router redirects and has a source address of its own is
//! reported.

mod http;
mod lines;

use std::collections::BTreeMap;

use self::lines::{List, Wrong};
use super::build::everything;
use super::draft::Draft;
use super::gather::Foreign;
use super::kind::{Api, Kind};
use super::reading::field_text;
use super::report::{Judgement, Origin, Outcome, Place, SourceProblem};
use super::{Import, Source, policy_spec};
use crate::document::{Node, Problem, Report as Reader, Value};
use crate::spec::Action;

const CONFIG_MAP: &str = "ConfigMap";
const POD: &[&str] = &["spec"];

/// Lists in objects.
pub(super) const OBJECTS: Kind = Kind {
    name: "egress-router",
    title: "OpenShift egress-router pods",
    apis: &[
        Api { versions: &["v1"], kind: "Pod", fields: POD },
        Api { versions: &["v1"], kind: "ReplicationController", fields: POD },
        Api { versions: &["apps/v1"], kind: "Deployment", fields: POD },
        Api { versions: &["apps.openshift.io/v1", "v1"], kind: "DeploymentConfig", fields: POD },
        Api { versions: &["v1"], kind: CONFIG_MAP, fields: &["data", "binaryData", "immutable"] },
    ],
    convert,
    list: None,
};
/// `EGRESS_DESTINATION` as text.
pub(super) const REDIRECT: Kind =
    text("egress-router-redirect", "OpenShift EGRESS_DESTINATION list (plain text)", |sources, import| {
        plain(sources, List::Redirect, import);
    });
/// `EGRESS_HTTP_PROXY_DESTINATION` as text.
pub(super) const HTTP: Kind =
    text("egress-router-http", "OpenShift EGRESS_HTTP_PROXY_DESTINATION list (plain text)", |sources, import| {
        plain(sources, List::Http, import);
    });
/// `EGRESS_DNS_PROXY_DESTINATION` as text.
pub(super) const DNS: Kind =
    text("egress-router-dns", "OpenShift EGRESS_DNS_PROXY_DESTINATION list (plain text)", |sources, import| {
        plain(sources, List::Dns, import);
    });

const fn text(name: &'static str, title: &'static str, list: fn(&[Source<'_>], &mut Import<'_>)) -> Kind {
    Kind { name, title, apis: &[], convert: |_, _| {}, list: Some(list) }
}

/// A list with where it stands.
struct Found<'n> {
    list: List,
    text: &'n str,
    place: Place,
}

/// A list that is a text of its own.
struct Plain<'t>(Source<'t>);

impl Origin for Plain<'_> {
    fn source(&self) -> (&str, usize) {
        (self.0.name, 1)
    }

    fn title(&self) -> String {
        "list".to_owned()
    }
}

fn plain(sources: &[Source<'_>], list: List, import: &mut Import<'_>) {
    let namespace = import.options.namespace.clone();
    for source in sources {
        let found = Found { list, text: source.text, place: Place::default() };
        write(&Plain(*source), &found, sources.len() == 1, namespace.as_deref(), "egress-router", import);
    }
}

fn convert(objects: &[&Foreign<'_>], import: &mut Import<'_>) {
    let (maps, pods): (Vec<&Foreign<'_>>, Vec<&Foreign<'_>>) =
        objects.iter().partition(|object| object.api.kind == CONFIG_MAP);
    let mut used = Vec::new();
    let mut namespaces: BTreeMap<Option<&str>, Vec<(&Foreign<'_>, Found<'_>)>> = BTreeMap::new();
    for object in pods {
        match import.read(object, |reader, _| Some(lists(reader, object, &maps, &mut used))) {
            Some(lists) if lists.is_empty() => import.skip(object),
            Some(lists) => namespaces
                .entry(object.namespace.as_deref())
                .or_default()
                .extend(lists.into_iter().map(|found| (object, found))),
            None => {}
        }
    }
    for map in maps.into_iter().filter(|map| !used.contains(&map.title())) {
        import.skip(map);
    }
    for (namespace, routers) in namespaces {
        let alone = routers.len() == 1;
        for (object, found) in routers {
            write(object, &found, alone, namespace, &object.name, import);
        }
    }
}

const ROUTER: &str = "the list is written for every pod of the namespace, to connect by itself: not through a router, not from the \
                      router's source address, and by the destination's own port";
const SEVERAL: &str = "of several routers in a namespace the first by name decides alone, and what only another one lets through is \
                       refused; give each policy its own pods by podSelector";

fn write(
    origin: &impl Origin,
    found: &Found<'_>,
    alone: bool,
    namespace: Option<&str>,
    name: &str,
    import: &mut Import<'_>,
) {
    let lines = match found.list.lines(found.text) {
        Ok(lines) => lines,
        Err(wrong) => return import.report.problems.push(problem(origin, found, &wrong)),
    };
    let mut draft = Draft::default();
    let mut router = Judgement::of(Outcome::NotExpressed, ROUTER);
    if !alone {
        router.add(Outcome::Narrower, SEVERAL);
    }
    draft.add(origin, &found.place, "the router", router, found.list.first());
    for line in lines {
        let (place, text) = (found.at(line.number), line.text);
        draft.add(origin, &place, text, line.judgement, line.rules);
    }
    draft.add(origin, &found.place, "nothing else", Judgement::exact(), everything(Action::Deny, None));
    import.policy(draft, namespace, name, policy_spec());
}

fn problem(origin: &impl Origin, found: &Found<'_>, wrong: &Wrong) -> SourceProblem {
    let (source, document) = origin.source();
    let place = found.at(wrong.line);
    let which = if found.place.path.is_empty() { String::new() } else { format!("line {} of the list: ", wrong.line) };
    let problem = Problem {
        document,
        object: Some(origin.title()),
        path: place.path,
        line: place.line,
        message: which + &wrong.message,
        hint: format!("{}; with such a line the router does not start", wrong.hint),
    };
    SourceProblem { source: source.to_owned(), problem }
}

impl Found<'_> {
    /// Where line `number` of the list is: in a text of its own exactly, in an object at the variable.
    fn at(&self, number: usize) -> Place {
        if self.place.path.is_empty() {
            return Place { path: String::new(), line: Some(number) };
        }
        Place { path: format!("{} line {number}", self.place.path), line: self.place.line }
    }
}

/// The lists in the environment of the pod's containers, as far as the mode of the router takes them.
fn lists<'n>(
    reader: &mut Reader<'n>,
    object: &Foreign<'n>,
    maps: &[&Foreign<'n>],
    used: &mut Vec<String>,
) -> Vec<Found<'n>> {
    let fields = object.fields();
    let spec = |node: &'n Node, name: &str| node.field(name).map(|entry| &entry.value);
    let mut path = vec!["spec"];
    let mut node = fields.get("spec");
    if object.api.kind != "Pod" {
        path.extend(["template", "spec"]);
        node = node.and_then(|node| spec(node, "template")).and_then(|node| spec(node, "spec"));
    }
    let mut found = Vec::new();
    for containers in ["initContainers", "containers"] {
        let list = node.and_then(|node| spec(node, containers));
        for (index, container) in items(list).iter().enumerate() {
            for (at, variable) in items(spec(container, "env")).iter().enumerate() {
                let Some(list) = field_text(variable, "name").and_then(List::of) else { continue };
                let place = format!("{}.{containers}[{index}].env[{at}]", path.join("."));
                let place = Place { path: place, line: (variable.line > 0).then_some(variable.line) };
                match value(variable, object, maps, used) {
                    Some(text) => found.push(Found { list, text, place }),
                    None => reader.problem(
                        format!("{}: its value is neither here nor in a ConfigMap of the files", place.path),
                        "give the ConfigMap too",
                    ),
                }
            }
        }
    }
    if found.len() > 1 {
        reader.problem("has several egress-router lists, and a router takes one", "remove the others");
    }
    found
}

fn items(node: Option<&Node>) -> &[Node] {
    match node.map(|node| &node.value) {
        Some(Value::List(items)) => items,
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::Map(_)) | None => &[],
    }
}

/// The value of an environment variable, which may be a key of a `ConfigMap`.
fn value<'n>(
    variable: &'n Node,
    object: &Foreign<'n>,
    maps: &[&Foreign<'n>],
    used: &mut Vec<String>,
) -> Option<&'n str> {
    if let Some(text) = field_text(variable, "value") {
        return Some(text);
    }
    let reference = &variable.field("valueFrom")?.value.field("configMapKeyRef")?.value;
    let (name, key) = (field_text(reference, "name")?, field_text(reference, "key")?);
    let map = maps.iter().find(|map| map.name == name && map.namespace == object.namespace)?;
    used.push(map.title());
    field_text(map.fields().get("data")?, key)
}
