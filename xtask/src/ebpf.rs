//! `cargo xtask build-ebpf`: compiles `egress-ebpf` with the compiler that `setup` chose. The object is written only when
//! it changed, because the agent embeds it and would be built again.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context as _;

use crate::command::{Task, cargo_home};
use crate::progress::{self, Mark};
use crate::setup::{self, Group, Ready};
use crate::tree::{self, Tree};

/// Options of `build-ebpf`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Build with log messages inside the programs (aya-log); for debugging only.
    #[arg(long)]
    debug_log: bool,
}

const TARGET: &str = "bpfel-unknown-none";

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let tree = Tree::locate()?;
    let ready = setup::ensure(&tree, &[Group::Build])?;
    let object = build(&tree, &ready, args.debug_log)?;
    progress::result(&object.display().to_string());
    Ok(ExitCode::SUCCESS)
}

/// Compiles the programs; returns where the object is.
pub(crate) fn build(tree: &Tree, ready: &Ready, debug_log: bool) -> anyhow::Result<PathBuf> {
    progress::heading("eBPF programs");
    let mut command = cargo(tree, ready, "build");
    if debug_log {
        command.args(["--features", "log"]);
    }
    Task::new("compile egress-ebpf", command).run(tree)?;
    let built = build_directory(tree).join(TARGET).join("release/egress-ebpf");
    let content = std::fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let object = tree.ebpf_object();
    let changed = tree::write_if_changed(&object, &content)?;
    let state = if changed { Mark::Done } else { Mark::Present };
    let what = format!("{} bytes, {}", content.len(), if changed { "changed" } else { "unchanged" });
    progress::step(state, "target/ebpf/egress-ebpf", &what, None);
    Ok(object)
}

/// Lints the programs with their own compiler's clippy.
pub(crate) fn clippy(tree: &Tree, ready: &Ready) -> Command {
    let mut command = cargo(tree, ready, "clippy");
    command.args(["--", "-D", "warnings"]);
    command
}

fn cargo(tree: &Tree, ready: &Ready, subcommand: &str) -> Command {
    let mut command = ready.toolchain.cargo();
    command
        .args([subcommand, "--release", "--locked", "-Z", "build-std=core", "--target", TARGET, "--target-dir"])
        .arg(build_directory(tree))
        .arg("--manifest-path")
        .arg(tree.path("egress-ebpf/Cargo.toml"))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &ready.linker.path)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(tree))
        .current_dir(tree.path("egress-ebpf"));
    command
}

/// Loops stay loops, for the compiler as for the linker, which optimizes once more: unrolled, the programs are a third longer.
const UNROLL: &str = "-unroll-full-max-count=3";

/// The third version of the instruction set: 32-bit operations and jumps, without which every `u32` is shifted up and down again. Linux 5.1
/// and later know it, and we need 6.1; the fourth needs 6.6.
const CPU: &str = "-Ctarget-cpu=v3";

/// BTF is needed for `bpf_loop` and for typed maps, and comes from debug information. Paths of this machine are taken out of
/// it, so that the same source gives the same object everywhere.
fn flags(tree: &Tree) -> String {
    let mut flags = vec!["-Cdebuginfo=2".to_owned(), "-Clink-arg=--btf".to_owned()];
    flags.extend([format!("-Cllvm-args={UNROLL}"), format!("-Clink-arg=--llvm-args={UNROLL}")]);
    flags.push(CPU.to_owned());
    flags.push(format!("--remap-path-prefix={}=egress", tree.root().display()));
    flags.extend(cargo_home().map(|home| format!("--remap-path-prefix={}=cargo", home.display())));
    flags.join("\x1f")
}

fn build_directory(tree: &Tree) -> PathBuf {
    tree.target("ebpf-build")
}
