//! The answer of `check`: for programs as it is serialized, for people a line per finding that editors can follow.

use std::io::{self, Write};

use egress_policy::warnings::Warning;
use owo_colors::{OwoColorize as _, Style};
use serde::Serialize;

use crate::output::Answer;
use crate::policy_files::PolicyFiles;
use crate::sources::Problem;

const VERSION: u32 = 1;

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(super) struct Checked {
    version: u32,
    files: usize,
    objects: usize,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<WarningRow>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct WarningRow {
    /// The file.
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    /// The object.
    object: String,
    /// The field; empty for the whole object.
    #[serde(skip_serializing_if = "String::is_empty")]
    path: String,
    /// `HostBitsMasked`, `ShadowedRules`, …
    reason: String,
    message: String,
}

impl Checked {
    pub(super) fn new(files: &PolicyFiles, found: Vec<Warning>) -> Self {
        let row = |warning: Warning| {
            let object = match &warning.policy {
                Some(key) => format!("{} {key}", key.kind.name()),
                None => "EgressConfig default".to_owned(),
            };
            WarningRow {
                source: files.owner(&warning).unwrap_or_default().to_owned(),
                line: files.line(&warning),
                object,
                path: warning.path,
                reason: format!("{:?}", warning.reason),
                message: warning.message,
            }
        };
        let mut warnings: Vec<WarningRow> = files.warnings().cloned().chain(found).map(row).collect();
        warnings.sort();
        warnings.dedup();
        Self {
            version: VERSION,
            files: files.files,
            objects: files.objects,
            problems: files.problems.clone(),
            warnings,
        }
    }
}

impl Answer for Checked {
    fn text(&self, out: &mut dyn Write, colours: bool) -> io::Result<()> {
        let paint = |text: &str, style: Style| if colours { text.style(style).to_string() } else { text.to_owned() };
        for problem in &self.problems {
            let line = problem.line.map(|line| format!(":{line}")).unwrap_or_default();
            let document = problem.document.filter(|document| *document > 1);
            let document = document.map(|document| format!(" (document {document})")).unwrap_or_default();
            let word = paint("error", Style::new().red().bold());
            write!(out, "{}{line}: {word}:{document} ", problem.source)?;
            place(out, problem.object.as_deref(), problem.path.as_deref())?;
            writeln!(out, "{}", problem.message)?;
            if let Some(hint) = &problem.hint {
                writeln!(out, "    {}", paint(hint, Style::new().dimmed()))?;
            }
        }
        for warning in &self.warnings {
            let line = warning.line.map(|line| format!(":{line}")).unwrap_or_default();
            write!(out, "{}{line}: {}: ", warning.source, paint("warning", Style::new().yellow().bold()))?;
            place(out, Some(&warning.object), Some(&warning.path))?;
            writeln!(out, "{} [{}]", warning.message, warning.reason)?;
        }
        let (problems, warnings) = (self.problems.len(), self.warnings.len());
        writeln!(
            out,
            "{}, {}: {}, {}",
            count(self.files, "file"),
            count(self.objects, "valid object"),
            count(problems, "problem"),
            count(warnings, "warning")
        )
    }
}

fn place(out: &mut dyn Write, object: Option<&str>, path: Option<&str>) -> io::Result<()> {
    for part in [object, path].into_iter().flatten().filter(|part| !part.is_empty()) {
        write!(out, "{part}: ")?;
    }
    Ok(())
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
