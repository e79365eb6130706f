//! `egress-agent import`: rules of other firewalls as our objects, with a report of every difference in meaning.
//!
//! The work is [`egress_policy::import`]; here files are read and results written. [`view`] is the report and its forms. Reads files and
//! nothing else.

mod view;

use std::io::{self, BufWriter, IsTerminal as _, Write};

use egress_policy::import::{self, Imported, Options, Outcome, Source, Target};

use crate::cli::{Failure, ImportArgs, Output, Verdict};
use crate::logs::no_color;
use crate::output;
use crate::policy_files::texts;

use view::{View, report};

/// Writes what becomes of the files. No: there are problems, or nothing was found, or differences and `--strict`.
pub(crate) fn run(arguments: &ImportArgs) -> Result<Verdict, Failure> {
    let files = texts(&arguments.files)?;
    let sources: Vec<Source<'_>> =
        files.iter().map(|(name, text)| Source { name: name.as_str(), text: text.as_str() }).collect();
    let from = arguments.from.as_deref().and_then(import::kind);
    let imported = import::import(&sources, &Options { from, namespace: arguments.namespace.clone() });
    let imported = match arguments.to.as_deref().and_then(Target::named) {
        Some(target) => import::export(&imported, target),
        None => imported,
    };
    let verdict = verdict(&imported, arguments.strict);
    match arguments.output {
        Output::Yaml => write_objects(&imported)?,
        Output::Json | Output::Table => output::print(&View::new(&imported), arguments.output)?,
    }
    Ok(verdict)
}

fn verdict(imported: &Imported, strict: bool) -> Verdict {
    let report = &imported.report;
    let nothing = report.rows.is_empty() && imported.objects.is_empty();
    let different = strict && report.outcome() != Outcome::Exact;
    if nothing || different || !report.problems.is_empty() { Verdict::No } else { Verdict::Yes }
}

/// The objects to standard output, and what is to be said of them to standard error.
fn write_objects(imported: &Imported) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    for (index, object) in imported.objects.iter().enumerate() {
        let text = serde_saphyr::to_string(object).map_err(Failure::runtime)?;
        let separator = if index == 0 { "" } else { "---\n" };
        output::unless_gone(write!(out, "{separator}{text}"))?;
    }
    output::unless_gone(out.flush())?;
    let stderr = io::stderr();
    let colours = stderr.is_terminal() && !no_color();
    output::unless_gone(report(imported, &mut stderr.lock(), colours, false))
}

#[cfg(test)]
mod tests;
