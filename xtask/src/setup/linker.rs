//! bpf-linker. It reads LLVM bitcode, so its LLVM must not be older than the compiler's: an existing one is checked, and
//! a new one is built against the LLVM of the same major version.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::command::{Task, ask, find_program, outside_cargo};
use crate::progress::{self, Mark};
use crate::setup::machine::Machine;
use crate::setup::packages;
use crate::setup::toolchain::Toolchain;
use crate::tree::Tree;

/// The release that this tree is tested with.
const VERSION: &str = "0.13.0";
const OLDEST_MINOR: u32 = 13;

/// A linker that fits the compiler.
#[derive(Clone, Debug)]
pub(crate) struct Linker {
    /// The program.
    pub(crate) path: PathBuf,
}

/// Finds a linker that fits, or installs one.
pub(crate) fn ensure(tree: &Tree, machine: &Machine, toolchain: &Toolchain) -> anyhow::Result<Linker> {
    match find_program("bpf-linker").map(|path| (examine(&path, toolchain.llvm), path)) {
        Some((Ok(version), path)) => {
            progress::step(Mark::Present, "eBPF linker", &format!("bpf-linker {version}"), None);
            return Ok(Linker { path });
        }
        Some((Err(reason), path)) => {
            let why = format!("{} is replaced: {reason}", path.display());
            progress::step(Mark::Present, "eBPF linker", &why, None);
        }
        None => {}
    }
    install(tree, machine, toolchain)?;
    let path = find_program("bpf-linker").ok_or_else(|| {
        anyhow::anyhow!("bpf-linker was installed and is not to be found: is cargo's bin directory in PATH?")
    })?;
    examine(&path, toolchain.llvm).map_err(|reason| {
        anyhow::anyhow!("{} does not fit: {reason}; remove it and run setup again", path.display())
    })?;
    Ok(Linker { path })
}

fn install(tree: &Tree, machine: &Machine, toolchain: &Toolchain) -> anyhow::Result<()> {
    if find_program("cargo-binstall").is_some() {
        let mut command = outside_cargo("cargo");
        command.args(["binstall", "--no-confirm", "--force", &format!("bpf-linker@{VERSION}")]);
        Task::new("install bpf-linker (binstall)", command).run(tree)?;
        return Ok(());
    }
    let llvm = toolchain.llvm;
    let development = format!("llvm-{llvm}-dev");
    anyhow::ensure!(
        machine.apt && (packages::installed(&development) || packages::available(&development)),
        "bpf-linker has to be built against LLVM {llvm} and apt has no {development}: install cargo-binstall and run setup again, or \
         put a bpf-linker from https://github.com/aya-rs/bpf-linker/releases in PATH"
    );
    let polly = format!("libpolly-{llvm}-dev");
    let wanted: BTreeSet<String> =
        [&development, &polly, "libzstd-dev", "zlib1g-dev", "libxml2-dev", "g++"].map(str::to_owned).into();
    packages::install(tree, machine, "packages for bpf-linker", &wanted)?;
    let prefix = format!("/usr/lib/llvm-{llvm}");
    let mut path = std::ffi::OsString::from(format!("{prefix}/bin:"));
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut command = outside_cargo("cargo");
    command
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force", "--no-default-features"])
        .args(["--features", &format!("llvm-{llvm}")])
        .env("PATH", path)
        .env(format!("LLVM_SYS_{llvm}1_PREFIX"), prefix);
    Task::new("cargo install bpf-linker", command).run(tree)?;
    Ok(())
}

/// The version of a linker that fits this LLVM, or why it does not fit.
fn examine(path: &Path, llvm: u32) -> Result<String, String> {
    let text = ask(path, &["--version"]).ok_or("it does not start")?;
    let version = text.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let recent = minor(&version).is_some_and(|minor| minor >= OLDEST_MINOR);
    if !recent {
        return Err(format!("version {version:?} is older than {VERSION}"));
    }
    // One that is linked statically says nothing; the build will show.
    let libraries = path.to_str().and_then(|path| ask("ldd", &[path])).unwrap_or_default();
    match llvm_of(&libraries) {
        Some(own) if own < llvm => Err(format!("it has LLVM {own}, the compiler has LLVM {llvm}")),
        Some(_) | None => Ok(version),
    }
}

fn minor(version: &str) -> Option<u32> {
    let mut parts = version.split('.');
    match parts.next()?.parse::<u32>().ok()? {
        0 => parts.next()?.parse().ok(),
        _ => Some(u32::MAX),
    }
}

fn llvm_of(libraries: &str) -> Option<u32> {
    let name = libraries.split_whitespace().find(|word| word.starts_with("libLLVM"))?;
    let digits: String = name.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_linker_is_read_from_its_libraries_in_both_spellings() {
        assert_eq!(llvm_of("\tlibLLVM.so.22.1 => /usr/lib/x (0x0)\n"), Some(22));
        assert_eq!(llvm_of("\tlibLLVM-19.so.1 => /usr/lib/x (0x0)\n"), Some(19));
        assert_eq!(llvm_of("\tstatically linked\n"), None);
    }

    #[test]
    fn versions_are_compared_by_their_second_number_until_there_is_a_first() {
        assert_eq!(minor("0.13.0"), Some(13));
        assert_eq!(minor("1.0.0"), Some(u32::MAX));
        assert_eq!(minor("x"), None);
    }
}
