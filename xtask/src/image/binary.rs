//! The static program of the image.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Task, ask, find_program, outside_cargo};
use crate::image::Arch;
use crate::tree::Tree;

/// The C compiler that links for a processor; cargo and C libraries in crates find it by variables.
fn linker(arch: Arch) -> Option<&'static str> {
    let foreign = arch.triple().split('-').next() != Some(std::env::consts::ARCH);
    match arch {
        Arch::Amd64 => foreign.then_some("x86_64-linux-gnu-gcc"),
        Arch::Arm64 => foreign.then_some("aarch64-linux-gnu-gcc"),
    }
}

/// Why this machine's toolchain cannot build for a processor, and what would help; `None` if it can.
pub(super) fn cannot_build(arch: Arch) -> Option<String> {
    let triple = arch.triple();
    let libraries = ask("rustc", &["--print", "target-libdir", "--target", triple]);
    if !libraries.is_some_and(|path| Path::new(path.trim()).is_dir()) {
        return Some(format!("the compiler has no library for it: rustup target add {triple}"));
    }
    let linker = linker(arch)?;
    find_program(linker).is_none().then(|| {
        format!(
            "{linker} is absent: it is in Debian's package gcc-{}",
            linker.trim_end_matches("-gcc").replace('_', "-")
        )
    })
}

/// Compiles the agent and checks that it needs nothing around it.
pub(super) fn build(tree: &Tree, arch: Arch) -> anyhow::Result<PathBuf> {
    let triple = arch.triple();
    let mut command = outside_cargo("cargo");
    command
        .args(["build", "--release", "--locked", "--package", "egress-agent", "--target", triple])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("EGRESS_EBPF_OBJECT", tree.ebpf_object())
        .current_dir(tree.root());
    if let Some(linker) = linker(arch) {
        let variable = triple.replace('-', "_");
        command.env(format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase()), linker);
        command.env(format!("CC_{variable}"), linker);
    }
    Task::new(&format!("compile the agent for {}", arch.name()), command).run(tree)?;
    let program = tree.target(triple).join("release/egress-agent");
    let headers = ask("readelf", &["--program-headers", "--wide", &program.to_string_lossy()]);
    let headers = headers.ok_or_else(|| anyhow::anyhow!("readelf cannot read {}", program.display()))?;
    anyhow::ensure!(is_static(&headers), "{} is not static: it names an interpreter", program.display());
    if linker(arch).is_none() {
        let version = Command::new(&program).arg("--version").env_clear().output()?;
        anyhow::ensure!(version.status.success(), "{} does not start", program.display());
    }
    Ok(program)
}

fn is_static(headers: &str) -> bool {
    headers.contains("LOAD") && !headers.contains("INTERP")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_an_interpreter_is_not_static() {
        assert!(is_static("  LOAD           0x000000 0x0 R\n  DYNAMIC        0x1 RW\n"));
        assert!(!is_static("  INTERP         0x000318\n  LOAD           0x000000\n"));
        assert!(!is_static(""), "what cannot be read is not static");
    }
}
