//! The checks beside the tests: formatting, lints (warnings are errors), generated pages, dependencies. Each counts as one;
//! one whose program is absent is a skip.

use std::process::Command;

use crate::command::{Task, find_program, outside_cargo};
use crate::docs;
use crate::ebpf;
use crate::progress::{self, Mark};
use crate::setup::Ready;
use crate::test::tally::Tally;
use crate::tree::Tree;

/// Runs them. Without a compiler for the eBPF programs (`--quick`) only those that compile nothing.
pub(crate) fn run(tree: &Tree, ready: Option<&Ready>, tally: &mut Tally) -> anyhow::Result<()> {
    progress::heading("checks");
    // For the eBPF crate not `--all`, which would follow its path dependency back into the host workspace.
    format(tree, "format", &["--all", "--manifest-path", "Cargo.toml"], tally)?;
    format(tree, "format (eBPF)", &["--manifest-path", "egress-ebpf/Cargo.toml"], tally)?;
    pages(tree, tally);
    let Some(ready) = ready else { return Ok(()) };
    if subcommand_exists("clippy") {
        check(tree, "lints", clippy(tree), tally)?;
    } else {
        skip(tally, "lints", "cargo clippy is absent: `rustup component add clippy`");
    }
    if ready.toolchain.has_clippy() {
        check(tree, "lints (eBPF)", ebpf::clippy(tree, ready), tally)?;
    } else {
        skip(tally, "lints (eBPF)", "the eBPF compiler has no clippy");
    }
    if find_program("cargo-deny").is_some() {
        check(tree, "dependencies", deny(tree, &["bans", "licenses", "sources"]), tally)?;
        advisories(tree, tally)?;
    } else {
        skip(tally, "dependencies", "cargo-deny is absent: `cargo install cargo-deny --locked`");
    }
    Ok(())
}

fn format(tree: &Tree, label: &str, selection: &[&str], tally: &mut Tally) -> anyhow::Result<()> {
    if !subcommand_exists("fmt") {
        skip(tally, label, "cargo fmt is absent: `rustup component add rustfmt`");
        return Ok(());
    }
    let mut command = outside_cargo("cargo");
    command.args(["fmt", "--check"]).args(selection).args(["--", "--files-with-diff"]).current_dir(tree.root());
    check(tree, label, command, tally)
}

fn pages(tree: &Tree, tally: &mut Tally) {
    let stale = docs::stale(tree);
    if stale.is_empty() {
        progress::step(Mark::Done, "generated documentation", "current", None);
        tally.pass(1);
    } else {
        super::failed(tally, "generated documentation", &format!("run `cargo xtask docs`: {}", stale.join(", ")));
    }
}

fn clippy(tree: &Tree) -> Command {
    let mut command = outside_cargo("cargo");
    command
        .args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])
        .current_dir(tree.root());
    command
}

fn deny(tree: &Tree, what: &[&str]) -> Command {
    let mut command = outside_cargo("cargo");
    command.args(["deny", "--locked", "check"]).args(what).current_dir(tree.root());
    command
}

/// Known weaknesses of dependencies. Their list is fetched: a machine that cannot reach it says so, and nothing of the tree is wrong.
fn advisories(tree: &Tree, tally: &mut Tally) -> anyhow::Result<()> {
    let transcript = Task::new("advisories", deny(tree, &["advisories"])).watch(tree)?;
    if transcript.success() {
        progress::step(Mark::Done, "advisories", "", Some(transcript.took));
        tally.pass(1);
    } else if is_unreachable(&transcript.all) {
        skip(tally, "advisories", "the list of advisories (github.com/RustSec/advisory-db) cannot be fetched");
    } else {
        super::failed(tally, "advisories", &transcript.ending());
        progress::note(&transcript.tail(60));
    }
    Ok(())
}

fn is_unreachable(output: &str) -> bool {
    output.contains("failed to fetch advisory database")
}

fn check(tree: &Tree, label: &str, command: Command, tally: &mut Tally) -> anyhow::Result<()> {
    let transcript = Task::new(label, command).watch(tree)?;
    if transcript.success() {
        progress::step(Mark::Done, label, "", Some(transcript.took));
        tally.pass(1);
    } else {
        super::failed(tally, label, &format!("{}; whole output: {}", transcript.ending(), transcript.log.display()));
        progress::note(&transcript.tail(60));
    }
    Ok(())
}

fn skip(tally: &mut Tally, label: &str, why: &str) {
    progress::step(Mark::Skipped, label, why, None);
    tally.skip(label, why);
}

fn subcommand_exists(name: &str) -> bool {
    let output = outside_cargo("cargo").args([name, "--version"]).output();
    output.is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_list_that_cannot_be_fetched_is_a_skip() {
        assert!(is_unreachable(
            "2026-11-25 [ERROR] failed to fetch advisory database https://github.com/RustSec/advisory-db"
        ));
        assert!(!is_unreachable("error[vulnerability]: a known weakness\nadvisories FAILED"));
    }
}
