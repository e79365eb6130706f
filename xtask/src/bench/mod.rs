//! `cargo xtask bench`: builds the programs and the measuring program (`tests/bench`, optimised) and runs it.
//!
//! It is a package of its own, because it holds the agent's datapath, which no other command needs.

use std::process::ExitCode;

use anyhow::Context as _;

use crate::command::{Task, outside_cargo};
use crate::setup::{self, Group};
use crate::tree::Tree;
use crate::{ebpf, progress};

/// Options of `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fewer rounds, and no 1M unless it is named: under two minutes after the build. The whole takes under twenty.
    #[arg(long)]
    quick: bool,
    /// Sizes, such as 1k,10k,100k,1M.
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<String>,
    /// Only a part: `compiler`, `control`, `dns`, `packets`, `policies` or `traffic`.
    #[arg(long, value_parser = ["compiler", "control", "dns", "packets", "policies", "traffic"])]
    only: Option<String>,
    /// Only what each stage of a program costs, packet by packet: half a minute.
    #[arg(long, conflicts_with_all = ["only", "sizes"])]
    stages: bool,
    /// Where the figures are written; target/bench/results.json if not said.
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
    /// Also write the tables into docs/benchmarks.md.
    #[arg(long)]
    page: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let tree = Tree::locate()?;
    let ready = setup::ensure(&tree, &[Group::Build, Group::Bench])?;
    ebpf::build(&tree, &ready, false)?;
    progress::heading("benchmark");
    let mut build = outside_cargo("cargo");
    build
        .args(["build", "--release", "--locked", "--package", "egress-bench", "--package", "egress-agent"])
        .current_dir(tree.root());
    Task::new("compile egress-bench and egress-agent", build).run(&tree)?;
    let mut bench = outside_cargo(tree.target("release/egress-bench"));
    if args.quick {
        bench.arg("--quick");
    }
    if !args.sizes.is_empty() {
        bench.arg("--sizes").arg(args.sizes.join(","));
    }
    if args.stages {
        bench.arg("--stages");
    }
    if let Some(only) = &args.only {
        bench.args(["--only", only]);
    }
    if args.page {
        bench.arg("--page").arg(tree.path("docs/benchmarks.md"));
    }
    let json = args.json.clone().unwrap_or_else(|| tree.target("bench/results.json"));
    let json = std::path::absolute(&json).with_context(|| json.display().to_string())?;
    let status = bench.arg("--json").arg(json).current_dir(tree.root()).status().context("starting egress-bench")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
