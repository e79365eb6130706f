//! `cargo xtask demo`.

use std::process::ExitCode;

/// Options of the demo.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Shows the firewall at work.
pub(crate) fn run(_args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this tree has no demo yet")
}
