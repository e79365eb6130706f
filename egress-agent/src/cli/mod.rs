//! The command line: what can be asked, and what the exit code of each answer is.
//!
//! Results go to standard output, everything else to standard error. Exit codes: 0 ok, 1 a negative answer, 2 usage or
//! configuration, 3 runtime. Called by `main`; calls [`agent`](crate::agent) and the modules of the commands that answer.

mod args;
mod ask;
mod failure;
mod import;
mod live;
mod shell;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

pub(crate) use args::{Cli, Command, DumpArgs, LogFormat, Output, RunArgs, Subject};
pub(crate) use ask::{CheckArgs, DiffArgs, TestArgs, WhyArgs};
#[cfg(test)]
pub(crate) use failure::Exit;
pub(crate) use failure::{Failure, Verdict, chain};
pub(crate) use import::ImportArgs;
pub(crate) use live::{MonitorArgs, StatusArgs, SuggestArgs, TopArgs};

use crate::{
    agent, check, difference, dump, kubectl, logs, monitor, probes, startup, status, suggest, top, uninstall, why,
};

/// Parses the arguments of this process and does what they say; under the name `kubectl-egress`, as a plugin of kubectl.
pub fn main() -> ExitCode {
    if kubectl::is_plugin(std::env::args_os().next().as_ref()) {
        return kubectl::main();
    }
    run(&Cli::parse())
}

/// What the arguments may be, for who checks arguments that are written elsewhere: manifests, pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The same of the plugin `kubectl egress`.
pub fn plugin_command() -> clap::Command {
    kubectl::command()
}

/// Does what the arguments say.
pub(crate) fn run(cli: &Cli) -> ExitCode {
    match obey(&cli.command) {
        Ok(verdict) => verdict.code(),
        Err(failure) => {
            failure.report();
            failure.exit.code()
        }
    }
}

fn obey(command: &Command) -> Result<Verdict, Failure> {
    match command {
        Command::Run(run) => {
            logs::start(run.log_format);
            match run {
                run if run.uninstall => uninstall::run(run),
                run if run.cleanup => agent::cleanup(run),
                run => agent::run(run),
            }
            .map(|()| Verdict::Yes)
        }
        Command::MountBpffs => {
            logs::start(None);
            startup::mount_bpffs().map(|()| Verdict::Yes).map_err(Failure::runtime)
        }
        Command::Status(arguments) => status::run(arguments),
        Command::Monitor(arguments) => monitor::run(arguments),
        Command::Top(arguments) => top::run(arguments),
        Command::Suggest(arguments) => suggest::run(arguments),
        Command::Dump(arguments) => dump::run(arguments).map(|()| Verdict::Yes),
        Command::Why(arguments) => why::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Test(arguments) => probes::run(arguments),
        Command::Diff(arguments) => difference::run(arguments),
        Command::Import(arguments) => crate::import::run(arguments),
        Command::Completions(arguments) => shell::completions(arguments),
        Command::Man(arguments) => shell::man(arguments),
    }
}
