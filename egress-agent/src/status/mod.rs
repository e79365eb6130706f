//! `egress-agent status`: how the agent and the kernel's part of it are doing, in one answer.
//!
//! The running agent answers over its socket; where none runs, the pins and what it last wrote are read here, and the answer says so.

mod view;

use std::path::Path;

use nix::sys::utsname::uname;

use crate::api::{Client, ClientError};
use crate::cli::{Failure, StatusArgs, Verdict};
use crate::output;
use crate::reconcile::LastStatus;

pub(crate) use view::StatusView;

/// Prints the status. No: the agent does not run, or there are problems.
pub(crate) fn run(arguments: &StatusArgs) -> Result<Verdict, Failure> {
    let socket = arguments.connection.path();
    let client = Client::new(&socket).map_err(Failure::runtime)?;
    let status = match client.get::<StatusView>("/v1/status") {
        Ok(status) => status,
        Err(ClientError::NotRunning(_)) => of_pins(&arguments.bpffs, &arguments.connection.state_dir)?,
        Err(error) => return Err(Failure::runtime(error)),
    };
    output::print(&status, arguments.output)?;
    Ok(if status.is_well() { Verdict::Yes } else { Verdict::No })
}

fn of_pins(bpffs: &Path, state_dir: &Path) -> Result<StatusView, Failure> {
    let inspector = crate::dump::open(bpffs)?;
    StatusView::of_pins(&inspector, LastStatus::read(state_dir)).map_err(Failure::runtime)
}

/// Name of this machine.
pub(crate) fn node_name() -> String {
    uname().map(|names| names.nodename().to_string_lossy().into_owned()).unwrap_or_default()
}

fn kernel_release() -> String {
    uname().map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
