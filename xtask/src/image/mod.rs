//! `cargo xtask image`: the agent's image, from nothing but one static program, as an OCI archive that `ctr image import`, `kind load
//! image-archive`, `podman load` and `skopeo copy` read. The eBPF programs are inside the program.

mod binary;
mod container;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;

use crate::ebpf;
use crate::progress::{self, Mark};
use crate::setup::{self, Group};
use crate::tree::Tree;

/// The name that the manifests in `deploy/` use; there is no registry behind it.
const NAME: &str = concat!("localhost/egress-agent:", env!("CARGO_PKG_VERSION"));
/// An image that is larger than this has something in it that does not belong there.
const MOST_BYTES: u64 = 25_000_000;

/// Options of `image`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Processor that the image is for.
    #[arg(long, value_enum, default_values_t = [Arch::Amd64, Arch::Arm64])]
    arch: Vec<Arch>,
    /// Name of the image.
    #[arg(long, value_name = "REGISTRY/NAME:TAG", default_value = NAME)]
    name: String,
}

/// A processor, as images name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// `x86_64`.
    Amd64,
    /// `aarch64`.
    Arm64,
}

impl Arch {
    /// Its name in images.
    fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Its name in compilers.
    fn triple(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let tree = Tree::locate()?;
    let ready = setup::ensure(&tree, &[Group::Build, Group::Image])?;
    ebpf::build(&tree, &ready, false)?;
    progress::heading("image");
    let mut made = 0;
    for &arch in &args.arch {
        if let Some(why) = binary::cannot_build(arch) {
            progress::step(Mark::Skipped, &format!("image for {}", arch.name()), &why, None);
            continue;
        }
        let archive = build(&tree, arch, &args.name)?;
        progress::result(&archive.display().to_string());
        made += 1;
    }
    anyhow::ensure!(made > 0, "no image was made");
    Ok(ExitCode::SUCCESS)
}

/// Makes the image for one processor; returns where the archive is.
fn build(tree: &Tree, arch: Arch, name: &str) -> anyhow::Result<PathBuf> {
    let program = binary::build(tree, arch)?;
    let archive = container::build(tree, arch, name, &program)?;
    let bytes = std::fs::metadata(&archive)?.len();
    anyhow::ensure!(
        bytes <= MOST_BYTES,
        "{} has {bytes} bytes, more than {MOST_BYTES}: look what has come into the program",
        archive.display()
    );
    progress::step(Mark::Done, &format!("{name} for {}", arch.name()), &format!("{bytes} bytes"), None);
    Ok(archive)
}
