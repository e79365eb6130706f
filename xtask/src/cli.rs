//! The list of commands. To add one: a module with `Args` and `run(Args) -> anyhow::Result<ExitCode>`, a variant, an arm.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{bench, crds, demo, docs, ebpf, image, kernels, setup, simulate, test};

/// Developer commands of the egress firewall.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make this machine ready: packages, the eBPF compiler, the linker. Safe to repeat.
    Setup(setup::Args),
    /// Compile the eBPF programs to target/ebpf/egress-ebpf.
    BuildEbpf(ebpf::Args),
    /// Set up, build, check and run every test.
    Test(test::Args),
    /// Run the packet and end-to-end tests under other kernels, in qemu.
    Kernels(kernels::Args),
    /// Measure packets, applying and updating, beside the kernel's LPM trie, nftables and ipset.
    Bench(bench::Args),
    /// Count what the agents of a large cluster ask of its API server and its DNS.
    Simulate(simulate::Args),
    /// Write the custom resource definitions and admission policies in deploy/ from the types.
    Crds(crds::Args),
    /// Make the agent's container image.
    Image(image::Args),
    /// Write the documentation that is generated from the code.
    Docs(docs::Args),
    /// Show the firewall at work in a small world of network namespaces.
    Demo(demo::Args),
}

impl Cli {
    /// Runs the chosen command.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Setup(args) => setup::run(&args),
            Command::BuildEbpf(args) => ebpf::run(&args),
            Command::Test(args) => test::run(&args),
            Command::Kernels(args) => kernels::run(&args),
            Command::Bench(args) => bench::run(&args),
            Command::Simulate(args) => simulate::run(&args),
            Command::Crds(args) => crds::run(&args),
            Command::Image(args) => image::run(&args),
            Command::Docs(args) => docs::run(&args),
            Command::Demo(args) => demo::run(&args),
        }
    }
}
