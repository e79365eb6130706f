//! Which compiler builds the eBPF programs. `core` has to be compiled for the BPF target, so it must be a compiler with
//! the library's source beside it: a rustup nightly with `rust-src`, else Debian's `rustc-web` with `rust-web-src`
//! (a release compiler that `RUSTC_BOOTSTRAP` allows to build `core`), else a nightly that rustup can fetch.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::command::{Task, ask, find_program, outside_cargo};
use crate::progress::{self, Mark};
use crate::setup::machine::Machine;
use crate::setup::packages;
use crate::tree::Tree;

/// The oldest compiler (1.x) that builds the eBPF crate's dependencies.
const OLDEST_MINOR: u32 = 95;
const LIBRARY: &str = "lib/rustlib/src/rust/library/core/Cargo.toml";
/// Set to `rustup` or `debian` to overrule the choice.
const OVERRULE: &str = "EGRESS_EBPF_TOOLCHAIN";

/// Where a compiler comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// A rustup toolchain of this name.
    Rustup(String),
    /// Debian's packages, under `/usr`.
    Debian,
}

/// A compiler that is ready to build the eBPF programs.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    /// Where it comes from.
    pub(crate) via: Via,
    version: String,
    /// Its LLVM's major version: the linker must not have an older one.
    pub(crate) llvm: u32,
}

/// What was chosen, before anything is installed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    via: Via,
    fetch: bool,
    why: String,
}

/// The facts that the choice depends on.
#[derive(Debug, Default)]
struct Found {
    nightly_with_source: Option<String>,
    nightly: Option<String>,
    rustup: bool,
    debian: bool,
    overrule: Option<String>,
}

/// Chooses a compiler for this machine.
pub(crate) fn choose(tree: &Tree, machine: &Machine) -> anyhow::Result<Choice> {
    decide(&Found::look(tree, machine))
}

fn decide(found: &Found) -> anyhow::Result<Choice> {
    let overrule = found.overrule.as_deref();
    if let Some(other) = overrule.filter(|value| !["rustup", "debian"].contains(value)) {
        anyhow::bail!("{OVERRULE} is {other:?}; it can be `rustup` or `debian`");
    }
    let (rustup, debian) = (overrule != Some("debian"), overrule != Some("rustup"));
    if let Some(name) = found.nightly_with_source.clone().filter(|_| rustup) {
        return Ok(Choice { via: Via::Rustup(name), fetch: false, why: "rustup has it with rust-src".to_owned() });
    }
    if found.debian && debian {
        let why = match (&found.nightly, overrule) {
            (_, Some(_)) => format!("{OVERRULE} says so"),
            (Some(name), None) => format!("rustup's {name} has no rust-src"),
            (None, None) => "rustup has no nightly".to_owned(),
        };
        return Ok(Choice { via: Via::Debian, fetch: false, why });
    }
    anyhow::ensure!(
        found.rustup && rustup,
        "no compiler can build the eBPF programs: install rustup and run \
         `rustup toolchain install nightly --component rust-src`, or use a Debian with the package rustc-web 1.{OLDEST_MINOR} or later"
    );
    Ok(Choice { via: Via::Rustup("nightly".to_owned()), fetch: true, why: "apt has no recent rustc-web".to_owned() })
}

impl Found {
    fn look(tree: &Tree, machine: &Machine) -> Self {
        let nightlies: Vec<String> = ask("rustup", &["toolchain", "list"])
            .unwrap_or_default()
            .lines()
            .filter(|line| line.starts_with("nightly"))
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .collect();
        let nightly_with_source = nightlies.iter().find(|name| has_source(name)).cloned();
        let overrule = std::env::var(OVERRULE).ok();
        let asked = nightly_with_source.is_none() || overrule.as_deref() == Some("debian");
        Self {
            nightly_with_source,
            nightly: nightlies.first().cloned(),
            rustup: find_program("rustup").is_some(),
            debian: asked && machine.apt && debian_has_it(tree, machine),
            overrule,
        }
    }
}

fn has_source(toolchain: &str) -> bool {
    let Some(rustc) = ask("rustup", &["which", "--toolchain", toolchain, "rustc"]) else {
        return false;
    };
    let root = Path::new(rustc.trim()).parent().and_then(Path::parent);
    let recent = ask(rustc.trim(), &["-vV"]).and_then(|text| minor(&text)).is_some_and(|minor| minor >= OLDEST_MINOR);
    recent && root.is_some_and(|root| root.join(LIBRARY).is_file())
}

fn debian_has_it(tree: &Tree, machine: &Machine) -> bool {
    if packages::installed("rustc-web") || candidate_is_recent() {
        return true;
    }
    // The lists of a fresh image are empty or old.
    machine.root && packages::refresh(tree).is_ok() && candidate_is_recent()
}

fn candidate_is_recent() -> bool {
    let policy = ask("apt-cache", &["policy", "rustc-web"]).unwrap_or_default();
    let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: 1."));
    let minor = candidate.and_then(|rest| rest.split('.').next()).and_then(|minor| minor.parse::<u32>().ok());
    minor.is_some_and(|minor| minor >= OLDEST_MINOR)
}

impl Choice {
    /// The packages that the chosen compiler comes in.
    pub(crate) fn packages(&self, with_lints: bool) -> Vec<String> {
        let names: &[&str] = match (&self.via, with_lints) {
            (Via::Rustup(_), _) => &[],
            (Via::Debian, false) => &["rustc-web", "cargo-web", "rust-web-src"],
            (Via::Debian, true) => &["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"],
        };
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Fetches what is still missing and asks the compiler for its versions.
    pub(crate) fn make_ready(self, tree: &Tree) -> anyhow::Result<Toolchain> {
        if let (Via::Rustup(name), true) = (&self.via, self.fetch) {
            let mut command = outside_cargo("rustup");
            command.args(["toolchain", "install", name, "--profile", "minimal", "--component", "rust-src"]);
            Task::new("rustup toolchain install", command).hint("is static.rust-lang.org reachable?").run(tree)?;
        }
        let text = ask_rustc(&self.via).context("the eBPF compiler does not answer `rustc -vV`")?;
        let version = field(&text, "release: ").context("`rustc -vV` names no release")?.to_owned();
        let llvm =
            field(&text, "LLVM version: ").and_then(|llvm| llvm.split('.').next()).and_then(|major| major.parse().ok());
        let toolchain = Toolchain { via: self.via, version, llvm: llvm.context("`rustc -vV` names no LLVM version")? };
        let source = toolchain.root()?.join(LIBRARY);
        anyhow::ensure!(source.is_file(), "{} has no library source at {}", toolchain.name(), source.display());
        progress::step(Mark::Present, "eBPF compiler", &format!("{} ({})", toolchain.name(), self.why), None);
        Ok(toolchain)
    }
}

impl Toolchain {
    /// For people: "Debian rustc-web 1.96.0".
    pub(crate) fn name(&self) -> String {
        match &self.via {
            Via::Rustup(name) => format!("rustup {name} ({}, LLVM {})", self.version, self.llvm),
            Via::Debian => format!("Debian rustc-web {} (LLVM {})", self.version, self.llvm),
        }
    }

    /// Its cargo, with an environment of its own.
    pub(crate) fn cargo(&self) -> Command {
        match &self.via {
            Via::Rustup(name) => {
                let mut command = outside_cargo("cargo");
                command.env("RUSTUP_TOOLCHAIN", name);
                command
            }
            Via::Debian => {
                let mut command = outside_cargo("/usr/bin/cargo");
                // clippy is found beside this cargo, not beside the first one in PATH.
                command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1").env("PATH", path_with_usr_first());
                command
            }
        }
    }

    /// Whether it has clippy.
    pub(crate) fn has_clippy(&self) -> bool {
        match &self.via {
            Via::Rustup(name) => ask("rustup", &["which", "--toolchain", name, "cargo-clippy"]).is_some(),
            Via::Debian => Path::new("/usr/bin/cargo-clippy").is_file(),
        }
    }

    fn root(&self) -> anyhow::Result<PathBuf> {
        match &self.via {
            Via::Debian => Ok(PathBuf::from("/usr")),
            Via::Rustup(name) => {
                let rustc =
                    ask("rustup", &["which", "--toolchain", name, "rustc"]).context("rustup has no such toolchain")?;
                let root = Path::new(rustc.trim()).parent().and_then(Path::parent).map(Path::to_path_buf);
                root.context("rustup names no directory for its rustc")
            }
        }
    }
}

fn path_with_usr_first() -> std::ffi::OsString {
    let mut path = std::ffi::OsString::from("/usr/bin:");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}

fn ask_rustc(via: &Via) -> Option<String> {
    match via {
        Via::Rustup(name) => ask("rustup", &["run", name, "rustc", "-vV"]),
        Via::Debian => ask("/usr/bin/rustc", &["-vV"]),
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))
}

fn minor(text: &str) -> Option<u32> {
    field(text, "release: 1.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Found {
        Found { rustup: true, ..Found::default() }
    }

    #[test]
    fn a_nightly_with_its_source_is_preferred() {
        let found = Found { nightly_with_source: Some("nightly-x".to_owned()), debian: true, ..found() };
        let choice = decide(&found).unwrap();
        assert_eq!(choice.via, Via::Rustup("nightly-x".to_owned()));
        assert!(!choice.fetch && choice.packages(true).is_empty());
    }

    #[test]
    fn a_nightly_without_its_source_gives_way_to_debian() {
        let choice = decide(&Found { nightly: Some("nightly-x".to_owned()), debian: true, ..found() }).unwrap();
        assert_eq!(choice.via, Via::Debian);
        assert!(choice.why.contains("no rust-src"));
        assert!(choice.packages(false).contains(&"rust-web-src".to_owned()));
    }

    #[test]
    fn where_debian_has_none_rustup_fetches_a_nightly() {
        assert!(decide(&found()).unwrap().fetch);
    }

    #[test]
    fn without_rustup_and_debian_the_error_says_what_to_install() {
        let error = decide(&Found::default()).unwrap_err().to_string();
        assert!(error.contains("rustup toolchain install nightly --component rust-src"), "{error}");
    }

    #[test]
    fn the_choice_can_be_overruled_and_a_wrong_word_is_refused() {
        let both = |word: &str| Found {
            nightly_with_source: Some("nightly-x".to_owned()),
            debian: true,
            overrule: Some(word.to_owned()),
            ..found()
        };
        assert_eq!(decide(&both("debian")).unwrap().via, Via::Debian);
        assert_eq!(decide(&both("rustup")).unwrap().via, Via::Rustup("nightly-x".to_owned()));
        assert!(decide(&both("gentoo")).is_err());
    }

    #[test]
    fn the_minor_version_is_read_from_nightlies_too() {
        assert_eq!(minor("binary: rustc\nrelease: 1.97.0-nightly\n"), Some(97));
    }
}
