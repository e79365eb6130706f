//! `cargo xtask kernels`: the verifier's figures, the packet tests and the end-to-end tests under Debian's other kernels,
//! in qemu without hardware help. A kernel that cannot be had is a skip; one that cannot be booted, a failure.
//!
//! The guest is an initramfs with static test programs; it talks over the serial line. Results are kept in
//! `target/kernels/results.json`, and `docs/kernels.md` is written from a run of everything.

mod guest;
mod image;
mod initramfs;
mod modules;
mod programs;
mod results;

use std::fs::File;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::command::outside_cargo;
use crate::progress::{self, Mark};
use crate::setup::{self, Group};
use crate::test::tally::Tally;
use crate::tree::Tree;
use crate::{ebpf, tree};
use image::{Found, Image};
use programs::Payload;
use results::{KernelRun, Results};

/// Options of `kernels`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these kernels ("6.1", "6.12").
    #[arg(value_name = "SERIES")]
    series: Vec<String>,
    /// Only the verifier's figures, no tests.
    #[arg(long)]
    verifier_only: bool,
    /// Every end-to-end test, also those that ask little of the kernel; takes long where loading is slow.
    #[arg(long, conflicts_with = "verifier_only")]
    all: bool,
    /// Only the tests of this package: egress-packets or egress-e2e.
    #[arg(long, value_parser = programs::TESTED.to_vec(), conflicts_with = "verifier_only")]
    package: Option<String>,
    /// Show the guests' consoles as they run.
    #[arg(long)]
    console: bool,
    /// Stop a guest after this many minutes.
    #[arg(long, default_value_t = 90)]
    minutes: u64,
}

impl Args {
    /// The packages whose tests run.
    fn tested(&self) -> Vec<&str> {
        match &self.package {
            _ if self.verifier_only => Vec::new(),
            Some(package) => vec![package],
            None => programs::TESTED.to_vec(),
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let tree = Tree::locate()?;
    let ready = setup::ensure(&tree, &[Group::Build, Group::Kernels])?;
    ebpf::build(&tree, &ready, false)?;
    let _lock = lock(&tree)?;
    let payload = programs::build(&tree, &args.tested(), args.all)?;
    let mut results = Results::new(&today(), &command_line());
    results.kernels.push(programs::on_this_kernel(&tree, &payload)?);
    for series in
        image::SERIES.iter().filter(|series| args.series.is_empty() || args.series.iter().any(|s| s == *series))
    {
        results.kernels.push(one_kernel(&tree, args, series, &payload)?);
    }
    finish(&tree, args, &results, started.elapsed())
}

/// Two runs at once would build their initramfs over each other.
fn lock(tree: &Tree) -> anyhow::Result<File> {
    let directory = tree.target("kernels");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let file = File::create(directory.join("lock")).context("cannot create target/kernels/lock")?;
    if file.try_lock().is_err() {
        progress::step(Mark::Skipped, "lock", "another run of this command is under way; waiting for it", None);
        file.lock().context("cannot lock target/kernels/lock")?;
    }
    Ok(file)
}

fn one_kernel(tree: &Tree, args: &Args, series: &str, payload: &Payload) -> anyhow::Result<KernelRun> {
    progress::heading(&format!("Linux {series}"));
    let image = match image::find(tree, series) {
        Ok(Found::Image(image)) => image,
        Ok(Found::Unavailable(why)) => {
            progress::step(Mark::Skipped, &format!("Linux {series}"), &why, None);
            return Ok(KernelRun::unavailable(series, &why));
        }
        Err(error) => return Ok(broken(series, &error)),
    };
    boot(tree, args, &image, payload).or_else(|error| Ok(broken(series, &error)))
}

fn boot(tree: &Tree, args: &Args, image: &Image, payload: &Payload) -> anyhow::Result<KernelRun> {
    let initramfs = initramfs::build(tree, image, payload)?;
    let deadline = Duration::from_mins(args.minutes);
    guest::run(tree, image, &initramfs, deadline, args.console)
}

fn broken(series: &str, error: &anyhow::Error) -> KernelRun {
    progress::step(Mark::Failed, &format!("Linux {series}"), &format!("{error:#}"), None);
    KernelRun::broken(series, &format!("{error:#}"))
}

fn finish(tree: &Tree, args: &Args, results: &Results, took: Duration) -> anyhow::Result<ExitCode> {
    let json = serde_json::to_string_pretty(results)?;
    tree::write_if_changed(&tree.target("kernels/results.json"), json.as_bytes())?;
    let whole = args.series.is_empty() && !args.verifier_only && args.package.is_none();
    if whole && results.kernels.iter().all(KernelRun::ran) {
        tree::write_if_changed(&tree.path("docs/kernels.md"), results.page().as_bytes())?;
    }
    for line in results.table().lines() {
        progress::result(line);
    }
    let mut tally = Tally::default();
    for kernel in &results.kernels {
        tally.add(&format!("Linux {}: ", kernel.series), &kernel.tally());
    }
    tally.print(took);
    Ok(tally.exit_code())
}

fn today() -> String {
    let date = outside_cargo("date").args(["--utc", "+%F"]).output();
    date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn command_line() -> String {
    std::iter::once("cargo xtask".to_owned()).chain(std::env::args().skip(1)).collect::<Vec<_>>().join(" ")
}
