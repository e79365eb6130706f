//! `egress-agent check`: what is wrong with policy files, and what is legal and probably not meant.
//!
//! [`lint`] finds what only several objects together show, [`shared`] what shows only with DNS answers; [`view`] is the answer and its two
//! forms. Reads files and nothing else.

mod lint;
mod shared;
mod view;

use crate::answers::Answers;
use crate::cli::{CheckArgs, Failure, Verdict};
use crate::output;
use crate::policy_files::PolicyFiles;

use view::Checked;

/// Prints everything that is found. No: there are problems, or warnings and `--strict`.
pub(crate) fn run(arguments: &CheckArgs) -> Result<Verdict, Failure> {
    let mut files = PolicyFiles::read(&arguments.files)?;
    let answers = arguments.dns.as_deref().map(|path| Answers::read(path, &files.set.config.dns)).transpose()?;
    let found = lint::lint(&files.set, answers.as_ref());
    files.problems.extend(found.problems);
    let checked = Checked::new(&files, found.warnings);
    output::print(&checked, arguments.output)?;
    let warned = arguments.strict && !checked.warnings.is_empty();
    Ok(if checked.problems.is_empty() && !warned { Verdict::Yes } else { Verdict::No })
}

#[cfg(test)]
mod tests;
