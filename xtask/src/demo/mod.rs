//! `cargo xtask demo`: a small world of network namespaces, the real agent, and what the kernel lets through.
//!
//! Invariant: nothing is only shown. Every line is an observation that is compared with what the policies say, and the exit code
//! is 1 if any differs. Nothing is left behind.

mod names;
mod policies;
mod scenes;
mod table;
mod traffic;
mod tries;

use std::process::ExitCode;
use std::time::Instant;

use egress_world::World;

use crate::command::{Task, outside_cargo};
use crate::setup::{self, Group};
use crate::tree::Tree;
use crate::{ebpf, progress};
use tries::Score;

/// Options of the demo.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) fn run(_args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(egress_world::is_root(), "the demo makes network namespaces: run it as root");
    build(&Tree::locate()?)?;
    let started = Instant::now();
    egress_world::clean_up_when_interrupted();
    let world = World::new(&["default/curl", "prod/web", "shop/cart"]);
    let places = [world.cgroup(), world.bpffs(), world.files()].map(std::path::Path::to_path_buf);
    let mut score = scenes::play(&world);
    drop(world);
    let left: Vec<_> = places.iter().filter(|place| place.exists()).collect();
    let mark = score.add(left.is_empty());
    table::title("Afterwards");
    table::print(&["what is left of it", ""], &[vec![table::Cell::plain(nothing_or(&left)), mark]]);
    conclude(score, started);
    Ok(ExitCode::from(u8::from(score.wrong > 0)))
}

/// Everything that the demo needs, built quietly.
fn build(tree: &Tree) -> anyhow::Result<()> {
    let ready = setup::ensure(tree, &[Group::Build, Group::Test])?;
    ebpf::build(tree, &ready, false)?;
    progress::heading("agent");
    let mut command = outside_cargo("cargo");
    command.args(["build", "--locked", "--package", "egress-agent"]).current_dir(tree.root());
    Task::new("compile egress-agent", command).run(tree)?;
    Ok(())
}

fn nothing_or(left: &[&std::path::PathBuf]) -> String {
    if left.is_empty() {
        return "nothing: no namespace, no cgroup, no pin, no file".to_owned();
    }
    let left: Vec<String> = left.iter().map(|path| path.display().to_string()).collect();
    left.join(", ")
}

fn conclude(score: Score, started: Instant) {
    let total = score.right + score.wrong;
    let seconds = started.elapsed().as_secs_f64();
    progress::result(&format!("\n{} of {total} observations as expected, in {seconds:.1} s.", score.right));
}
