//! `cargo xtask setup`: makes a Debian-like machine ready. Other commands call `ensure` with the groups that they need,
//! so that the demo installs no virtual machines. Repeating it changes nothing and takes well under two seconds; root is
//! asked for only when something has to be installed.

mod linker;
mod machine;
mod orphans;
mod packages;
mod services;
mod toolchain;

use std::process::ExitCode;
use std::time::Instant;

use clap::ValueEnum;

pub(crate) use linker::Linker;
pub(crate) use packages::refresh as refresh_package_lists;
pub(crate) use toolchain::Toolchain;

use crate::progress;
use crate::tree::Tree;

/// What packages are needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Group {
    /// Compiling everything, the eBPF programs included.
    Build,
    /// The tests and the demo on this machine.
    Test,
    /// The tests under other kernels.
    Kernels,
    /// The other firewalls that the benchmark compares with.
    Bench,
    /// Making the container image.
    Image,
}

/// Options of `setup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to make ready.
    #[arg(value_enum, default_values_t = [Group::Build, Group::Test, Group::Kernels, Group::Bench, Group::Image])]
    groups: Vec<Group>,
}

/// What `ensure` found or made.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The compiler of the eBPF programs.
    pub(crate) toolchain: Toolchain,
    /// Their linker.
    pub(crate) linker: Linker,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let tree = Tree::locate()?;
    let ready = ensure(&tree, &args.groups)?;
    progress::result(&format!(
        "ready in {:.1} s: eBPF programs are compiled by {} and linked by {}",
        started.elapsed().as_secs_f64(),
        ready.toolchain.name(),
        ready.linker.path.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Makes the machine ready for these groups (the build group is always among them).
pub(crate) fn ensure(tree: &Tree, groups: &[Group]) -> anyhow::Result<Ready> {
    progress::heading("set-up");
    let mut groups = groups.to_vec();
    groups.push(Group::Build);
    groups.sort();
    groups.dedup();
    let machine = machine::Machine::detect();
    machine.report();
    let choice = toolchain::choose(tree, &machine)?;
    let mut wanted = packages::of_groups(&groups);
    wanted.extend(choice.packages(groups.contains(&Group::Test)));
    packages::install(tree, &machine, "packages", &wanted)?;
    let toolchain = choice.make_ready(tree)?;
    let linker = linker::ensure(tree, &machine, &toolchain)?;
    if groups.iter().any(|group| matches!(group, Group::Test | Group::Bench)) {
        machine.mount_bpffs(tree)?;
    }
    Ok(Ready { toolchain, linker })
}
