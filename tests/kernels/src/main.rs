//! `egress-kernels OBJECT`: prints `@@programs` and one line of JSON, which `cargo xtask kernels` reads. Exit status 1 when
//! the kernel refuses a program, 3 when the object cannot be loaded at all.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(3)
        }
    }
}

fn run() -> anyhow::Result<bool> {
    let object = std::env::args_os().nth(1).map(PathBuf::from).context("usage: egress-kernels OBJECT")?;
    let programs = egress_kernels::verify_all(&object)?;
    writeln!(std::io::stdout().lock(), "@@programs {}", serde_json::to_string(&programs)?)?;
    Ok(!programs.is_empty() && programs.iter().all(|program| program.refusal.is_none()))
}
