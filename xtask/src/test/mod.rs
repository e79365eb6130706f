//! `cargo xtask test`: set-up, build, checks, every test, one summary.
//!
//! Invariants: a test that says `SKIPPED: reason` counts as skipped and never as passed; a package without tests, or a
//! test program whose report is incomplete, is a failure; the last line of standard output is the three counts.

mod checks;
mod execution;
pub(crate) mod libtest;
mod programs;
pub(crate) mod tally;

use std::process::ExitCode;
use std::time::Instant;

use crate::ebpf;
use crate::progress;
use crate::setup::{self, Group};
use crate::tree::Tree;
use tally::Tally;

pub(crate) use programs::{TestProgram, from_cargo_messages};

/// Options of `test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the packages that need neither root nor the eBPF programs, and the quick checks.
    #[arg(long)]
    quick: bool,
    /// Leave out formatting, lints, dependency and documentation checks.
    #[arg(long)]
    skip_checks: bool,
    /// Only these packages.
    #[arg(short, long, value_name = "PACKAGE")]
    package: Vec<String>,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

/// What `--quick` tests: no root, no eBPF object.
const PURE: &[&str] = &["egress-common", "egress-policy", "egress-reference", "egress-import", "xtask"];

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let tree = Tree::locate()?;
    let mut tally = Tally::default();
    let ready = if args.quick { None } else { Some(setup::ensure(&tree, &[Group::Build, Group::Test])?) };
    if let Some(ready) = &ready {
        ebpf::build(&tree, ready, false)?;
    }
    if !args.skip_checks && args.package.is_empty() && args.filter.is_none() {
        checks::run(&tree, ready.as_ref(), &mut tally)?;
    }
    let packages: Vec<String> = match (args.package.is_empty(), args.quick) {
        (false, _) => args.package.clone(),
        (true, true) => PURE.iter().map(|name| (*name).to_owned()).collect(),
        (true, false) => Vec::new(),
    };
    programs::run_all(&tree, &packages, args.filter.as_deref(), &mut tally)?;
    tally.print(started.elapsed());
    Ok(tally.exit_code())
}

/// Reports one check or test program and adds it to the tally.
fn failed(tally: &mut Tally, name: &str, why: &str) {
    progress::step(progress::Mark::Failed, name, why, None);
    tally.fail(name, why);
}
