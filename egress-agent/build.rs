//! Copies the eBPF object into `OUT_DIR`, from where the crate embeds it.
//!
//! `cargo xtask build-ebpf` writes it to `<target dir>/ebpf/egress-ebpf`; `EGRESS_EBPF_OBJECT` names another file.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed=EGRESS_EBPF_OBJECT");
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else {
        println!("cargo::error=OUT_DIR is not set; build with cargo");
        return ExitCode::FAILURE;
    };
    let object = match env::var_os("EGRESS_EBPF_OBJECT") {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => target_dir(&out).join("ebpf/egress-ebpf"),
    };
    println!("cargo::rerun-if-changed={}", object.display());
    match fs::copy(&object, out.join("egress-ebpf")) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            println!(
                "cargo::error=the eBPF object {} cannot be read ({error}); run `cargo xtask build-ebpf` first, \
                 or set EGRESS_EBPF_OBJECT",
                object.display()
            );
            ExitCode::FAILURE
        }
    }
}

/// The target directory that `out` lies in: cargo marks it with `CACHEDIR.TAG`, whatever profile or triple is built.
fn target_dir(out: &Path) -> PathBuf {
    let holds_object = out.ancestors().find(|dir| dir.join("ebpf/egress-ebpf").is_file());
    let marked = || out.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file());
    holds_object.or_else(marked).unwrap_or(out).to_path_buf()
}
