//! What `import` says of each rule: for programs with the objects, for people a line per rule that editors can follow.

use std::io::{self, Write};

use egress_policy::import::{Imported, Manifest, Outcome, Report, Row};
use owo_colors::{OwoColorize as _, Style};
use serde::Serialize;

use crate::output::Answer;

const VERSION: u32 = 1;

/// Objects and report.
#[derive(Debug, Serialize)]
pub(super) struct View<'i> {
    version: u32,
    objects: &'i [Manifest],
    report: &'i Report,
    #[serde(skip)]
    imported: &'i Imported,
}

impl<'i> View<'i> {
    pub(super) fn new(imported: &'i Imported) -> Self {
        Self { version: VERSION, objects: &imported.objects, report: &imported.report, imported }
    }
}

impl Answer for View<'_> {
    fn text(&self, out: &mut dyn Write, colours: bool) -> io::Result<()> {
        report(self.imported, out, colours, true)
    }
}

/// Writes the report; rules about which there is nothing to say only with `all`.
pub(super) fn report(imported: &Imported, out: &mut dyn Write, colours: bool, all: bool) -> io::Result<()> {
    let report = &imported.report;
    for found in &report.problems {
        let problem = &found.problem;
        let word = paint("error", Style::new().red().bold(), colours);
        write!(out, "{}: {word}:{} ", place(&found.source, problem.line), document(problem.document))?;
        parts(out, [problem.object.as_deref(), Some(problem.path.as_str())])?;
        writeln!(out, "{}", problem.message)?;
        writeln!(out, "    {}", paint(&problem.hint, Style::new().dimmed(), colours))?;
    }
    for row in report.rows.iter().filter(|row| all || row.outcome != Outcome::Exact || !row.why.is_empty()) {
        write_row(row, out, colours)?;
    }
    for note in &report.notes {
        writeln!(out, "{}: note:{} {}: {}", note.source, document(note.document), note.path, note.message)?;
    }
    if !report.skipped.is_empty() {
        let objects: Vec<&str> = report.skipped.iter().take(8).map(|skipped| skipped.object.as_str()).collect();
        let more = report.skipped.len().saturating_sub(objects.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        writeln!(out, "skipped, of no kind that is read: {}{more}", objects.join(", "))?;
    }
    summary(imported, out)
}

fn write_row(row: &Row, out: &mut dyn Write, colours: bool) -> io::Result<()> {
    let style = match row.outcome {
        Outcome::Exact => Style::new().green(),
        Outcome::NotExpressed | Outcome::Narrower => Style::new().yellow().bold(),
        Outcome::Wider => Style::new().red().bold(),
    };
    let word = paint(row.outcome.name(), style, colours);
    if row.source.is_empty() {
        write!(out, "{word}: ")?;
    } else {
        write!(out, "{}: {word}:{} ", place(&row.source, row.line), document(row.document))?;
    }
    parts(out, [Some(row.object.as_str()), Some(row.path.as_str())])?;
    match row.into.as_slice() {
        [] => writeln!(out, "{}", row.rule)?,
        into => writeln!(out, "{} -> {}", row.rule, into.join(", "))?,
    }
    for why in &row.why {
        writeln!(out, "    {}", paint(why, Style::new().dimmed(), colours))?;
    }
    Ok(())
}

fn summary(imported: &Imported, out: &mut dyn Write) -> io::Result<()> {
    let report = &imported.report;
    let outcomes = [Outcome::Exact, Outcome::NotExpressed, Outcome::Narrower, Outcome::Wider];
    let counts: Vec<String> =
        outcomes.iter().map(|outcome| format!("{} {}", report.count(*outcome), outcome.name())).collect();
    writeln!(
        out,
        "{}: {}; {} written, {}",
        count(report.rows.len(), "rule"),
        counts.join(", "),
        count(imported.objects.len(), "object"),
        count(report.problems.len(), "problem")
    )
}

/// `shop.yaml:7`, which editors can follow.
fn place(source: &str, line: Option<usize>) -> String {
    line.map_or_else(|| source.to_owned(), |line| format!("{source}:{line}"))
}

/// The document, if it is not the first.
fn document(number: usize) -> String {
    if number > 1 { format!(" (document {number})") } else { String::new() }
}

fn parts<const N: usize>(out: &mut dyn Write, parts: [Option<&str>; N]) -> io::Result<()> {
    for part in parts.into_iter().flatten().filter(|part| !part.is_empty()) {
        write!(out, "{part}: ")?;
    }
    Ok(())
}

fn paint(text: &str, style: Style, colours: bool) -> String {
    if colours { text.style(style).to_string() } else { text.to_owned() }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
