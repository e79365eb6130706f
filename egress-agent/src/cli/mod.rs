//! The command line: what can be asked, and what the exit code of each answer is.
//!
//! Results go to standard output, everything else to standard error. Exit codes: 0 ok, 1 a negative answer, 2 usage or
//! configuration, 3 runtime. Called by `main`; calls [`agent`](crate::agent) and [`dump`](crate::dump).

mod args;
mod failure;

use std::process::ExitCode;

use clap::Parser as _;

pub(crate) use args::{Cli, Command, DumpArgs, LogFormat, Output, RunArgs, Subject};
pub(crate) use failure::{Failure, chain};

use crate::{agent, dump, logs};

/// Parses the arguments of this process and does what they say.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Run(run) => {
            logs::start(run.log_format);
            if run.cleanup { agent::cleanup(run) } else { agent::run(run) }
        }
        Command::Dump(arguments) => dump::run(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            failure.exit.code()
        }
    }
}
