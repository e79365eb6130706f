//! What a conversion says of itself: each source rule with its outcome, what was not read, what was skipped.

use std::collections::BTreeSet;

use serde::Serialize;

use super::Source;
use crate::document::{Problem, Report as Reader};

/// Of rules about what comes in.
pub(super) const INGRESS: &str = "what comes into pods is not judged here";
/// Of destinations that are pods or namespaces.
pub(super) const INSIDE: &str = "pods and namespaces are inside the cluster, where nothing is judged here";
/// Of names that are allowed where requests are looked into.
pub(super) const NAME_OF_REQUEST: &str = "there the name in the request counts; here the addresses of the name are open, also to requests \
                                          with another name";
/// Of ports by name.
pub(super) const NAMED_PORT: &str = "a port name is one of a pod, and matches nothing outside of the cluster";

/// How our objects treat the traffic to outside that a source rule speaks of, compared with the source. In order of weight: a rule with
/// several differences has the heaviest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every verdict is the same.
    Exact,
    /// The rule says something that is no verdict on traffic to outside (ingress, pods, redirection). Verdicts are the same.
    NotExpressed,
    /// Something that the source lets through is refused; nothing that it refuses passes.
    Narrower,
    /// Something that the source refuses passes.
    Wider,
}

impl Outcome {
    /// The word that people read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::NotExpressed => "not expressed",
            Self::Narrower => "narrower",
            Self::Wider => "wider",
        }
    }
}

/// An outcome and its reasons, while a rule is converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The heaviest so far.
    pub outcome: Outcome,
    /// Why, in plain words; for an exact rule, what is worth knowing.
    pub why: Vec<String>,
}

impl Default for Judgement {
    fn default() -> Self {
        Self::exact()
    }
}

impl Judgement {
    /// No difference so far.
    pub const fn exact() -> Self {
        Self { outcome: Outcome::Exact, why: Vec::new() }
    }

    /// A judgement with one reason.
    pub fn of(outcome: Outcome, why: impl Into<String>) -> Self {
        Self { outcome, why: vec![why.into()] }
    }

    /// Adds a difference, or with [`Outcome::Exact`] something worth knowing. A reason is said once.
    pub fn add(&mut self, outcome: Outcome, why: impl Into<String>) {
        self.outcome = self.outcome.max(outcome);
        let why = why.into();
        if !self.why.contains(&why) {
            self.why.push(why);
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: Self) {
        self.outcome = self.outcome.max(other.outcome);
        for why in other.why {
            self.add(Outcome::Exact, why);
        }
    }
}

/// Where a value is in its document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The field, such as `spec.egress[2]`.
    pub path: String,
    /// Line in the text, from 1.
    pub line: Option<usize>,
}

/// What became of one source rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The file.
    pub source: String,
    /// Which document of the file, from 1.
    pub document: usize,
    /// Line in the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The object.
    pub object: String,
    /// The rule's field.
    pub path: String,
    /// The rule in words.
    pub rule: String,
    /// Whether it means the same.
    pub outcome: Outcome,
    /// Why not, or what is worth knowing.
    pub why: Vec<String>,
    /// Our rules that it became.
    pub into: Vec<String>,
}

/// Something that has rules: an object, or a list that is plain text.
pub(super) trait Origin {
    /// The file, and which document of it, from 1.
    fn source(&self) -> (&str, usize);

    /// "`EgressFirewall` shop/default".
    fn title(&self) -> String;

    /// What is said of a rule at `place`.
    fn row(&self, place: &Place, rule: impl Into<String>, judgement: Judgement) -> Row {
        let (source, document) = self.source();
        Row {
            source: source.to_owned(),
            document,
            line: place.line,
            object: self.title(),
            path: place.path.clone(),
            rule: rule.into(),
            outcome: judgement.outcome,
            why: judgement.why,
            into: Vec::new(),
        }
    }
}

impl<T: Origin> Origin for &T {
    fn source(&self) -> (&str, usize) {
        T::source(self)
    }

    fn title(&self) -> String {
        T::title(self)
    }
}

/// A problem with its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceProblem {
    /// The file.
    pub source: String,
    /// What is wrong there.
    #[serde(flatten)]
    pub problem: Problem,
}

/// An object that has no egress rules that are known here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The file.
    pub source: String,
    /// Which document of the file, from 1.
    pub document: usize,
    /// Line in the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The object.
    pub object: String,
    /// Its API version.
    #[serde(rename = "apiVersion")]
    pub api_version: String,
}

/// Something worth knowing about a value that belongs to no single rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The file.
    pub source: String,
    /// Which document of the file, from 1.
    pub document: usize,
    /// The field.
    pub path: String,
    /// What.
    pub message: String,
}

/// What a conversion says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Each source rule.
    pub rows: Vec<Row>,
    /// What is wrong; an object with a problem is not converted at all.
    pub problems: Vec<SourceProblem>,
    /// Objects of other kinds.
    pub skipped: Vec<Skipped>,
    /// What belongs to no single rule.
    pub notes: Vec<Note>,
}

impl Report {
    /// The heaviest outcome; exact if there is no rule.
    pub fn outcome(&self) -> Outcome {
        self.rows.iter().map(|row| row.outcome).max().unwrap_or(Outcome::Exact)
    }

    /// Number of rules with `outcome`.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.rows.iter().filter(|row| row.outcome == outcome).count()
    }

    /// Keeps what a reader found. Its warnings go to the rules that they are about, when all rules are known.
    pub(super) fn keep(&mut self, source: &str, document: usize, reader: Reader<'_>) {
        for finding in reader.problems {
            let problem = Problem {
                document,
                object: finding.object,
                path: finding.path,
                line: finding.line,
                message: finding.message,
                hint: finding.kind,
            };
            self.problems.push(SourceProblem { source: source.to_owned(), problem });
        }
        for finding in reader.warnings {
            let (path, message) = (finding.path, finding.message);
            self.notes.push(Note { source: source.to_owned(), document, path, message });
        }
    }

    /// Says that several kinds decide about one namespace.
    pub(super) fn mixed(&mut self, namespace: Option<&str>, kinds: &BTreeSet<&'static str>) {
        let kinds: Vec<&str> = kinds.iter().copied().collect();
        let object =
            namespace.map_or_else(|| "objects without a namespace".to_owned(), |name| format!("namespace {name}"));
        self.rows.push(Row {
            source: String::new(),
            document: 0,
            line: None,
            object,
            path: String::new(),
            rule: format!("rules of {}", kinds.join(" and ")),
            outcome: Outcome::Wider,
            why: vec![
                "where they come from every one of these must let a packet through; here their rules are in one list and the first \
                 that matches decides, so import them one by one and join them by hand"
                    .to_owned(),
            ],
            into: Vec::new(),
        });
    }

    /// Gives notes to the rules that they are about, and puts the rules into the order of the sources.
    pub(super) fn settle(&mut self, sources: &[Source<'_>]) {
        let place = |row: &Row| sources.iter().position(|source| source.name == row.source).unwrap_or(usize::MAX);
        self.rows.sort_by_key(|row| (place(row), row.document, row.line));
        for note in std::mem::take(&mut self.notes) {
            let is_inside = |row: &&mut Row| {
                row.source == note.source
                    && row.document == note.document
                    && note
                        .path
                        .strip_prefix(&row.path)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            };
            match self.rows.iter_mut().filter(is_inside).max_by_key(|row| row.path.len()) {
                Some(row) if row.why.contains(&note.message) => {}
                Some(row) => row.why.push(note.message),
                None => self.notes.push(note),
            }
        }
    }
}
