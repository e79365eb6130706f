//! Something wrong with what the agent was given, for the log and for `status.json`.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

/// One thing that is wrong, where, and what to do about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Problem {
    /// The file, or the part of the machine, that it was found in.
    pub(crate) source: String,
    /// Number of the document in the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) document: Option<usize>,
    /// Line in the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<usize>,
    /// The object or endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) object: Option<String>,
    /// Path of the field in the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(source: impl Into<String>, message: impl Into<String>) -> Self {
        Self { source: source.into(), message: message.into(), ..Self::default() }
    }

    pub(crate) fn of(mut self, object: impl Into<String>) -> Self {
        self.object = Some(object.into());
        self
    }

    pub(crate) fn at(mut self, document: usize, path: impl Into<String>) -> Self {
        self.document = Some(document);
        self.path = Some(path.into()).filter(|path: &String| !path.is_empty());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into()).filter(|hint: &String| !hint.is_empty());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some(document) = self.document.filter(|&document| document > 1) {
            write!(f, ", document {document}")?;
        }
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if let Some(object) = &self.object {
            write!(f, ", {object}")?;
        }
        if let Some(path) = &self.path {
            write!(f, ", {path}")?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

/// Logs each problem when it appears and when it is gone, not at every reading.
#[derive(Debug, Default)]
pub(crate) struct ProblemLog {
    known: BTreeSet<Problem>,
}

impl ProblemLog {
    /// Takes the problems that there are now; returns how many are new.
    pub(crate) fn report(&mut self, now: &[Problem]) -> usize {
        let now: BTreeSet<Problem> = now.iter().cloned().collect();
        let new = now.difference(&self.known).inspect(|problem| {
            warn!(
                source = problem.source,
                document = problem.document,
                line = problem.line,
                object = problem.object,
                path = problem.path,
                hint = problem.hint,
                "{}",
                problem.message
            );
        });
        let count = new.count();
        for gone in self.known.difference(&now) {
            info!(source = gone.source, object = gone.object, path = gone.path, "solved: {}", gone.message);
        }
        self.known = now;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_where_it_is_and_what_to_do() {
        let problem = Problem::new("a.yaml", "is not a prefix")
            .of("EgressNetworkPolicy default/curl")
            .at(2, "spec.egress[0].to.cidrSelector")
            .hint("write 1.2.3.0/24");
        assert_eq!(
            problem.to_string(),
            "a.yaml, document 2, EgressNetworkPolicy default/curl, spec.egress[0].to.cidrSelector: is not a prefix (write 1.2.3.0/24)"
        );
    }

    #[test]
    fn a_problem_that_stays_is_reported_once() {
        let mut log = ProblemLog::default();
        let problem = Problem::new("a.yaml", "broken");
        assert_eq!(log.report(std::slice::from_ref(&problem)), 1);
        assert_eq!(log.report(std::slice::from_ref(&problem)), 0);
        assert_eq!(log.report(&[]), 0);
        assert_eq!(log.report(&[problem]), 1);
    }
}
