//! The arguments of the commands that answer questions: `check`, and what is asked of policies and of the kernel.

use std::path::PathBuf;

use clap::Args;

use super::Output;

pub(super) const CHECK_EXAMPLES: &str = "\
Examples:
  egress-agent check policies/                  # every policy file of the folder
  egress-agent check --strict web.yaml          # warnings count too
  kubectl get enp -A -o yaml | egress-agent check -

Files in subfolders are not read, as the agent does not read them.
Exit codes: 0 no problem, 1 problems (with --strict also warnings), 2 a file cannot be read.";

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Policy files, or folders of them (*.yaml, *.yml, *.json); - is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Let warnings make the exit code 1.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Format of the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}
