//! What is wrong with a document, and where: every finding of decoding and validation goes through a [`Report`].

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use super::tree::{Node, Value};
use crate::warnings::WarningReason;

/// One thing that is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Problem {
    /// Which document of the text, from 1.
    pub document: usize,
    /// "`EgressNetworkPolicy` default/curl", as far as it can be told.
    pub object: Option<String>,
    /// The field, such as `spec.egress[2].to.cidrSelector`; empty for the whole document.
    pub path: String,
    /// Line in the text, from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.object {
            Some(object) => f.write_str(object)?,
            None => write!(f, "document {}", self.document)?,
        }
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}; {}", self.message, self.hint)
    }
}

/// A step from a value to one inside it.
#[derive(Clone, Debug)]
pub(crate) enum Segment {
    Field(String),
    Index(usize),
}

impl From<&str> for Segment {
    fn from(name: &str) -> Self {
        Self::Field(name.to_owned())
    }
}

impl From<usize> for Segment {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// A problem or a warning before it is tied to its object.
#[derive(Clone, Debug)]
pub(crate) struct Finding<K> {
    pub(crate) kind: K,
    pub(crate) path: String,
    pub(crate) line: Option<usize>,
    pub(crate) message: String,
    pub(crate) object: Option<String>,
}

/// Collects what is found in one object. The path is kept while the object is walked and written out only when needed.
pub(crate) struct Report<'n> {
    root: &'n Node,
    path: Vec<Segment>,
    /// What messages call the object at hand.
    pub(crate) object: Option<String>,
    /// The kind of a problem is its hint.
    pub(crate) problems: Vec<Finding<String>>,
    pub(crate) warnings: Vec<Finding<WarningReason>>,
    /// Whether the internal CIDRs can be found elsewhere.
    pub(crate) discovers_internal: bool,
}

impl<'n> Report<'n> {
    pub(crate) const fn new(root: &'n Node) -> Self {
        Self::at(root, Vec::new(), None)
    }

    /// A report of the value at `path` in `root`; `object` is what messages call it.
    pub(crate) const fn at(root: &'n Node, path: Vec<Segment>, object: Option<String>) -> Self {
        Self { root, path, object, problems: Vec::new(), warnings: Vec::new(), discovers_internal: false }
    }

    /// Does `work` on the value at `segment` of the current one.
    pub(crate) fn within<T>(&mut self, segment: impl Into<Segment>, work: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(segment.into());
        let result = work(self);
        self.path.pop();
        result
    }

    /// Notes a problem with the current value.
    pub(crate) fn problem(&mut self, message: impl Into<String>, hint: impl Into<String>) {
        let (path, line) = self.place();
        self.problems.push(Finding {
            kind: hint.into(),
            path,
            line,
            message: message.into(),
            object: self.object.clone(),
        });
    }

    /// Notes a problem with the field `name` of the current value, which may be missing.
    pub(crate) fn problem_at(&mut self, name: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.within(name, |report| report.problem(message, hint));
    }

    /// Notes a warning about the current value.
    pub(crate) fn warning(&mut self, reason: WarningReason, message: impl Into<String>) {
        let (path, line) = self.place();
        self.warnings.push(Finding { kind: reason, path, line, message: message.into(), object: self.object.clone() });
    }

    /// The path of the current value.
    pub(crate) fn path(&self) -> String {
        self.place().0
    }

    /// The path, and the line of the value there or of the nearest one around it.
    pub(crate) fn place(&self) -> (String, Option<usize>) {
        let mut path = String::new();
        let mut node = Some(self.root);
        let mut line = self.root.line;
        for segment in &self.path {
            match segment {
                Segment::Field(name) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(name);
                    let entry = node.and_then(|node| node.field(name));
                    line = entry.map_or(line, |entry| entry.line);
                    node = entry.map(|entry| &entry.value);
                }
                Segment::Index(index) => {
                    let _ = write!(path, "[{index}]");
                    node = node.and_then(|node| node.item(*index));
                    line = node.map_or(line, |node| node.line);
                }
            }
        }
        (path, (line > 0).then_some(line))
    }
}

/// The fields of an object in a document.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'n>(pub(crate) &'n Node);

impl<'n> Fields<'n> {
    pub(crate) fn get(self, name: &str) -> Option<&'n Node> {
        self.0.field(name).map(|entry| &entry.value)
    }

    pub(crate) fn keys(self) -> impl Iterator<Item = &'n str> {
        let entries = match &self.0.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => &[],
        };
        entries.iter().map(|entry| entry.key.as_str())
    }
}
