//! `cargo xtask …`: the commands that a developer, and CI, use. Each command is a module with an `Args` and a `run`;
//! `cli` lists them. Nothing here is part of the product.

mod bench;
mod cli;
mod command;
mod crds;
mod demo;
mod docs;
mod ebpf;
mod image;
mod kernels;
mod progress;
mod setup;
mod simulate;
mod test;
mod tree;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            progress::error(&error);
            ExitCode::from(3)
        }
    }
}
