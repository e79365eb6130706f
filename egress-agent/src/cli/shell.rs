//! Files for shells and manuals, made from the arguments themselves, so that they cannot differ from what the binary takes.

use std::fs;
use std::io::{self, Write as _};

use clap::CommandFactory as _;

use super::args::Cli;
use super::ask::{CompletionsArgs, ManArgs};
use super::{Failure, Verdict};
use crate::output::unless_gone;

/// Prints the completion script of a shell.
pub(super) fn completions(arguments: &CompletionsArgs) -> Result<Verdict, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "egress-agent", &mut script);
    unless_gone(io::stdout().lock().write_all(&script))?;
    Ok(Verdict::Yes)
}

/// Writes a manual page for the binary and one for each command.
pub(super) fn man(arguments: &ManArgs) -> Result<Verdict, Failure> {
    let folder = &arguments.folder;
    let written = fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
    written.map_err(|error| Failure::runtime(format!("{} cannot be written: {error}", folder.display())))?;
    Ok(Verdict::Yes)
}
