//! From texts to the foreign objects in them: several documents, lists of any kind, and which kind each object is of.
//!
//! Objects that belong to no known kind are skipped and named in the report; an object of a known kind without a usable name is a problem.

use std::collections::BTreeSet;

use super::kind::{Api, KINDS, Kind};
use super::reading::field_text;
use super::report::{Origin, Place, Skipped, SourceProblem};
use super::{Import, Source};
use crate::document::{self, Fields, Node, Problem, Report as Reader, Segment, Value};

/// Lists hold lists no deeper than this.
const MAX_LISTS: usize = 4;

/// A document of a source.
pub(super) struct Document<'t> {
    source: &'t str,
    number: usize,
    root: Node,
}

/// An object of a kind that is known here.
pub(super) struct Foreign<'n> {
    /// The file.
    pub(super) source: &'n str,
    /// Which document of the file, from 1.
    pub(super) document: usize,
    root: &'n Node,
    path: Vec<Segment>,
    node: &'n Node,
    /// What it is.
    pub(super) known: &'static Kind,
    /// Which of the kind's objects it is.
    pub(super) api: &'static Api,
    /// Its name.
    pub(super) name: String,
    /// Its namespace, or that of the command line; none where neither says.
    pub(super) namespace: Option<String>,
}

impl<'n> Foreign<'n> {
    pub(super) fn reader(&self) -> Reader<'n> {
        Reader::at(self.root, self.path.clone(), Some(self.title()))
    }

    pub(super) const fn fields(&self) -> Fields<'n> {
        Fields(self.node)
    }

    /// The place of the object itself.
    pub(super) fn place(&self) -> Place {
        self.reader().here()
    }
}

impl Foreign<'_> {
    /// The object among those that are skipped.
    pub(super) fn skipped(&self) -> Skipped {
        Skipped {
            source: self.source.to_owned(),
            document: self.document,
            line: self.place().line,
            object: self.title(),
            api_version: field_text(self.node, "apiVersion").unwrap_or_default().to_owned(),
        }
    }
}

impl Origin for Foreign<'_> {
    fn source(&self) -> (&str, usize) {
        (self.source, self.document)
    }

    fn title(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{} {namespace}/{}", self.api.kind, self.name),
            None => format!("{} {}", self.api.kind, self.name),
        }
    }
}

/// Parses every source; broken documents are problems.
pub(super) fn parse<'t>(sources: &[Source<'t>], import: &mut Import<'_>) -> Vec<Document<'t>> {
    let mut documents = Vec::new();
    for source in sources {
        for (document, number) in document::parse(source.text).into_iter().zip(1..) {
            match document {
                Ok(None) => {}
                Ok(Some(root)) => documents.push(Document { source: source.name, number, root }),
                Err(error) => import.report.problems.push(SourceProblem {
                    source: source.name.to_owned(),
                    problem: document::not_yaml(number, &error),
                }),
            }
        }
    }
    documents
}

/// The objects of known kinds in `documents`, those in lists too.
pub(super) fn objects<'n>(documents: &'n [Document<'n>], import: &mut Import<'_>) -> Vec<Foreign<'n>> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for document in documents {
        let mut walk = Walk { document, import, found: &mut found, seen: &mut seen };
        walk.visit(&document.root, Vec::new(), None, 0);
    }
    found
}

struct Walk<'w, 'n, 'i, 'o> {
    document: &'n Document<'n>,
    import: &'i mut Import<'o>,
    found: &'w mut Vec<Foreign<'n>>,
    /// Kind, namespace and name of the objects found.
    seen: &'w mut BTreeSet<(&'static str, Option<String>, String)>,
}

/// API version and kind that a list gives to items without.
type Inherited = (String, String);

impl<'n> Walk<'_, 'n, '_, '_> {
    fn visit(&mut self, node: &'n Node, path: Vec<Segment>, inherited: Option<&Inherited>, depth: usize) {
        let version = field_text(node, "apiVersion").or(inherited.map(|(version, _)| version.as_str()));
        let kind = field_text(node, "kind").or(inherited.map(|(_, kind)| kind.as_str()));
        let (Some(version), Some(kind)) = (version, kind) else {
            let message = "this is no Kubernetes object: apiVersion or kind is missing";
            return self.problem(node, &path, None, message, "write both, or say what it is with --from");
        };
        if let (Some(of), Value::List(items)) = (kind.strip_suffix("List"), items(node)) {
            return self.list(items, &path, version, of, depth);
        }
        match known(version, kind) {
            Some((known, api)) if self.import.options.from.is_none_or(|from| from.name == known.name) => {
                self.object(node, path, known, api);
            }
            Some(_) | None => self.skip(node, version, kind),
        }
    }

    fn list(&mut self, items: &'n [Node], path: &[Segment], version: &str, of: &str, depth: usize) {
        if depth >= MAX_LISTS {
            let message = "the lists are nested too deeply";
            return self.problem(
                &self.document.root,
                path,
                None,
                message,
                "write the objects as documents of their own",
            );
        }
        let inherited = (!of.is_empty()).then(|| (version.to_owned(), of.to_owned()));
        for (item, index) in items.iter().zip(0..) {
            let mut inside = path.to_vec();
            inside.extend([Segment::from("items"), Segment::Index(index)]);
            self.visit(item, inside, inherited.as_ref(), depth + 1);
        }
    }

    fn object(&mut self, node: &'n Node, path: Vec<Segment>, known: &'static Kind, api: &'static Api) {
        let mut reader = Reader::at(&self.document.root, path.clone(), document::title(node));
        reader.check_object_fields(Fields(node), api.fields);
        let metadata = reader.metadata(Fields(node));
        let failed = !reader.problems.is_empty();
        self.import.report.keep(self.document.source, self.document.number, reader);
        let Some(metadata) = metadata.filter(|_| !failed) else { return };
        let Some(name) = metadata.name else { return };
        let namespace = metadata.namespace.or_else(|| self.import.options.namespace.clone());
        if !self.seen.insert((api.kind, namespace.clone(), name.clone())) {
            let message = "the object is in these files a second time; the first one counts";
            return self.problem(node, &path, document::title(node), message, "remove one of them");
        }
        self.found.push(Foreign {
            source: self.document.source,
            document: self.document.number,
            root: &self.document.root,
            path,
            node,
            known,
            api,
            name,
            namespace,
        });
    }

    fn skip(&mut self, node: &Node, version: &str, kind: &str) {
        self.import.report.skipped.push(Skipped {
            source: self.document.source.to_owned(),
            document: self.document.number,
            line: (node.line > 0).then_some(node.line),
            object: document::title(node).unwrap_or_else(|| kind.to_owned()),
            api_version: version.to_owned(),
        });
    }

    fn problem(&mut self, node: &Node, path: &[Segment], object: Option<String>, message: &str, hint: &str) {
        let (path, _) = Reader::at(&self.document.root, path.to_vec(), None).place();
        let problem = Problem {
            document: self.document.number,
            object,
            path,
            line: (node.line > 0).then_some(node.line),
            message: message.to_owned(),
            hint: hint.to_owned(),
        };
        self.import.report.problems.push(SourceProblem { source: self.document.source.to_owned(), problem });
    }
}

fn items(node: &Node) -> &Value {
    node.field("items").map_or(&Value::Null, |entry| &entry.value.value)
}

fn known(version: &str, kind: &str) -> Option<(&'static Kind, &'static Api)> {
    let apis = KINDS.iter().flat_map(|known| known.apis.iter().map(|api| (*known, api)));
    apis.into_iter().find(|(_, api)| api.kind == kind && api.versions.contains(&version))
}
