//! The test programs: built by cargo, then run one after another by ourselves, so that each has a
//! deadline, a time, and a report that is read in full. `cargo xtask kernels` runs the same programs elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use crate::command::{Task, outside_cargo};
use crate::progress::{self, Mark};
use crate::test::execution;
use crate::test::tally::Tally;
use crate::tree::Tree;

/// One compiled test program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TestProgram {
    /// Its package.
    pub(crate) package: String,
    /// Its target's name ("egress-policy", "ordering").
    pub(crate) target: String,
    /// Whether it is an integration test, a library or a binary.
    pub(crate) kind: String,
    /// The executable.
    pub(crate) path: PathBuf,
    /// The package's directory: where cargo runs its tests.
    pub(crate) directory: PathBuf,
}

impl TestProgram {
    /// "egress-policy: lib" or "egress-e2e: test tcp".
    pub(crate) fn name(&self) -> String {
        match self.kind.as_str() {
            "lib" => format!("{} (library)", self.package),
            kind => format!("{} ({kind} {})", self.package, self.target),
        }
    }
}

/// Variables that test programs get besides.
pub(crate) type Environment = [(&'static str, OsString)];

/// Builds and runs the tests of these packages, or of all.
pub(crate) fn run_all(
    tree: &Tree,
    packages: &[String],
    filter: Option<&str>,
    environment: &Environment,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    progress::heading("tests");
    if packages.is_empty() || packages.iter().any(|package| RUN_THE_AGENT.contains(&package.as_str())) {
        // Cargo does not see that the end-to-end tests run the agent's binary.
        compile(tree, "compile the agent", &["build", "--package", "egress-agent"], tally)?;
    }
    let mut arguments = vec!["build", "--tests", "--keep-going"];
    let selection = selection(packages);
    arguments.extend(selection.iter().map(String::as_str));
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for program in compile(tree, "compile the tests", &arguments, tally)? {
        *found.entry(program.package.clone()).or_default() +=
            execution::run(tree, &program, filter, environment, tally)?;
    }
    execution::run_doctests(tree, &selection, filter, tally)?;
    // Where something did not compile, absent tests say nothing.
    if filter.is_none() && tally.failures().iter().all(|(name, _)| !name.starts_with("compile ")) {
        for package in members(tree, packages)? {
            if found.get(&package).copied().unwrap_or(0) == 0 {
                super::failed(tally, &package, "has no tests");
            }
        }
    }
    Ok(())
}

/// Runs cargo and returns the test programs that it built. What does not compile is a failure, and the rest is still run.
fn compile(tree: &Tree, label: &str, arguments: &[&str], tally: &mut Tally) -> anyhow::Result<Vec<TestProgram>> {
    let mut command = outside_cargo("cargo");
    command.args(arguments).args(["--locked", "--message-format", "json-render-diagnostics"]).current_dir(tree.root());
    let built = Task::new(label, command).watch(tree)?;
    if built.success() {
        progress::step(Mark::Done, label, "", Some(built.took));
    } else {
        super::failed(tally, label, &format!("{}; whole output: {}", built.ending(), built.log.display()));
        progress::note(&built.tail(60));
    }
    from_cargo_messages(&built.stdout)
}

/// Packages whose tests run the agent's binary.
const RUN_THE_AGENT: &[&str] = &["egress-agent", "egress-e2e", "egress-world"];

fn selection(packages: &[String]) -> Vec<String> {
    if packages.is_empty() {
        return vec!["--workspace".to_owned()];
    }
    packages.iter().flat_map(|package| ["--package".to_owned(), package.clone()]).collect()
}

/// The packages that must have tests: all, but those whose manifest says why not
/// (`[package.metadata.xtask] no-tests = "reason"`).
fn members(tree: &Tree, packages: &[String]) -> anyhow::Result<BTreeSet<String>> {
    let mut command = outside_cargo("cargo");
    command.args(["metadata", "--no-deps", "--format-version", "1", "--locked"]).current_dir(tree.root());
    let output = command.output().context("cannot start cargo")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("`cargo metadata` does not answer")?;
    let all = metadata.get("packages").and_then(Value::as_array).context("`cargo metadata` lists no packages")?;
    Ok(all
        .iter()
        .filter(|package| package.pointer("/metadata/xtask/no-tests").is_none())
        .filter_map(|package| package.get("name").and_then(Value::as_str).map(str::to_owned))
        .filter(|name| packages.is_empty() || packages.contains(name))
        .collect())
}

/// The test programs among cargo's JSON messages.
pub(crate) fn from_cargo_messages(messages: &str) -> anyhow::Result<Vec<TestProgram>> {
    let mut programs = BTreeSet::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Value = serde_json::from_str(line).context("cargo printed a message that is not JSON")?;
        programs.extend(from_message(&message));
    }
    Ok(programs.into_iter().collect())
}

fn from_message(message: &Value) -> Option<TestProgram> {
    let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
    if text("/reason")? != "compiler-artifact" || !message.pointer("/profile/test")?.as_bool()? {
        return None;
    }
    let directory = Path::new(text("/manifest_path")?).parent()?.to_path_buf();
    Some(TestProgram {
        package: package_name(text("/package_id")?)?.to_owned(),
        target: text("/target/name")?.to_owned(),
        kind: text("/target/kind/0")?.to_owned(),
        path: PathBuf::from(text("/executable")?),
        directory,
    })
}

/// `path+file:///x/egress-policy#0.1.0`, or `path+file:///x/tests/e2e#egress-e2e@0.1.0`.
fn package_name(id: &str) -> Option<&str> {
    let (url, fragment) = id.rsplit_once('#')?;
    match fragment.split_once('@') {
        Some((name, _)) => Some(name),
        None => url.rsplit('/').next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_by_its_directory_or_by_its_fragment() {
        assert_eq!(package_name("path+file:///x/egress-policy#0.1.0"), Some("egress-policy"));
        assert_eq!(package_name("path+file:///x/tests/e2e#egress-e2e@0.1.0"), Some("egress-e2e"));
    }

    #[test]
    fn only_test_executables_are_taken_from_cargos_messages() {
        let artifact = |test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"path+file:///x/a#0.1.0","manifest_path":"/x/a/Cargo.toml","target":{{"name":"a","kind":["lib"]}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let messages = [artifact(true, "\"/x/a-1\""), artifact(false, "\"/x/a\""), artifact(true, "null")].join("\n");
        let programs = from_cargo_messages(&messages).unwrap();
        assert_eq!(programs.len(), 1);
        assert_eq!(programs[0].name(), "a (library)");
        assert_eq!(programs[0].directory, Path::new("/x/a"));
    }
}
