//! Runs one test program and reports it as one step.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use crate::command::{Task, Transcript, outside_cargo};
use crate::progress::{self, Mark};
use crate::test::libtest::Report;
use crate::test::programs::{Environment, TestProgram};
use crate::test::tally::Tally;
use crate::tree::Tree;

/// A test program that takes longer than this hangs.
const DEADLINE: Duration = Duration::from_mins(15);

/// Runs a test program; returns how many tests it announced.
pub(crate) fn run(
    tree: &Tree,
    program: &TestProgram,
    filter: Option<&str>,
    environment: &Environment,
    tally: &mut Tally,
) -> anyhow::Result<usize> {
    let mut command = Command::new(&program.path);
    command.arg("--show-output").args(filter).current_dir(&program.directory);
    command.env("CARGO_MANIFEST_DIR", &program.directory).env("CARGO_PKG_NAME", &program.package);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let transcript = Task::new(&program.name(), command).deadline(DEADLINE).watch(tree)?;
    Ok(report(&program.name(), &transcript, tally))
}

/// Runs the examples in the documentation, which only cargo can.
pub(crate) fn run_doctests(
    tree: &Tree,
    selection: &[String],
    filter: Option<&str>,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let mut command = outside_cargo("cargo");
    command.args(["test", "--locked", "--doc"]).args(selection).current_dir(tree.root());
    command.args(["--", "--show-output"]).args(filter);
    let transcript = Task::new("examples in the documentation", command).deadline(DEADLINE).watch(tree)?;
    if transcript.all.contains("no library targets found") {
        return Ok(());
    }
    report("examples in the documentation", &transcript, tally);
    Ok(())
}

fn report(name: &str, transcript: &Transcript, tally: &mut Tally) -> usize {
    let report = Report::read(&transcript.all);
    let counted = report.count(name, transcript.success());
    let (passed, failed, skipped) = counted.counts();
    if report.announced() > 0 || failed > 0 {
        let mark = match (failed, passed) {
            (0, 0) => Mark::Skipped,
            (0, _) => Mark::Done,
            (_, _) => Mark::Failed,
        };
        let mut detail = format!("{passed} passed");
        for (count, word) in [(failed, "failed"), (skipped, "skipped")] {
            if count > 0 {
                let _ = write!(detail, ", {count} {word}");
            }
        }
        progress::step(mark, name, &detail, Some(transcript.took));
    }
    for (test, why) in counted.skips() {
        progress::note(&format!("skipped {test}: {why}"));
    }
    if failed > 0 {
        progress::note(&format!("{}; whole output: {}", transcript.ending(), transcript.log.display()));
        progress::note(&failures_of(&transcript.all));
    }
    tally.add("", &counted);
    report.announced()
}

/// What the harness says about the failed tests, or the end of the output when it did not come so far.
fn failures_of(output: &str) -> String {
    const MOST: usize = 200;
    let lines: Vec<&str> = output.lines().collect();
    let from = lines.iter().position(|line| *line == "failures:").unwrap_or(lines.len().saturating_sub(40));
    lines.iter().skip(from).take(MOST).copied().collect::<Vec<_>>().join("\n")
}
