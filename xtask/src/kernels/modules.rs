//! The kernel modules that the tests need, in the order in which they have to be loaded. The guest has no modprobe
//! database: it inserts the files one after another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::command::{Task, find_program};
use crate::kernels::image::Image;
use crate::tree::Tree;

/// What the tests use. One that is built in, or that this kernel does not have, is left out.
const WANTED: &[&str] = &[
    "veth",
    "sch_ingress",
    "cls_bpf",
    "sch_clsact",
    "dummy",
    "8021q",
    "macvlan",
    "ipvlan",
    "bridge",
    "tun",
    "ifb",
    "sctp",
    "af_packet",
];

/// Module name → its file below the modules directory, and the files that it needs.
type Dependencies = BTreeMap<String, (String, Vec<String>)>;

/// Copies the modules to `to`, numbered in the order of loading and uncompressed.
pub(crate) fn copy(tree: &Tree, image: &Image, to: &Path) -> anyhow::Result<()> {
    let directory = modules_directory(image)?;
    let dependencies = directory.join("modules.dep");
    if !dependencies.is_file() {
        let base = directory.ancestors().nth(3).context("the modules directory is not below lib/modules")?;
        let mut command = Command::new(find_program("depmod").context("depmod is absent: the package kmod has it")?);
        command.arg("-b").arg(base).arg(&image.release);
        Task::new(&format!("depmod {}", image.release), command).run(tree)?;
    }
    let dependencies = read(&std::fs::read_to_string(&dependencies).context("cannot read modules.dep")?);
    std::fs::create_dir_all(to)?;
    for (number, file) in in_loading_order(&dependencies).iter().enumerate() {
        let content = uncompressed(&directory.join(file))?;
        std::fs::write(to.join(format!("{number:03}-{}.ko", name_of(file))), content)?;
    }
    Ok(())
}

fn modules_directory(image: &Image) -> anyhow::Result<PathBuf> {
    let places = ["lib/modules", "usr/lib/modules"].map(|place| image.root.join(place).join(&image.release));
    places.into_iter().find(|place| place.is_dir()).with_context(|| format!("{} brings no modules", image.release))
}

fn read(text: &str) -> Dependencies {
    let entry = |line: &str| {
        let (file, needs) = line.split_once(':')?;
        let needs = needs.split_whitespace().map(str::to_owned).collect();
        Some((name_of(file), (file.to_owned(), needs)))
    };
    text.lines().filter_map(entry).collect()
}

/// modules.dep lists what a module needs with the innermost last.
fn in_loading_order(dependencies: &Dependencies) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for (file, needs) in WANTED.iter().filter_map(|name| dependencies.get(*name)) {
        for file in needs.iter().rev().chain([file]) {
            if !order.contains(file) {
                order.push(file.clone());
            }
        }
    }
    order
}

/// "kernel/drivers/net/veth.ko.xz" → "veth". The kernel treats `-` and `_` alike.
fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

fn uncompressed(file: &Path) -> anyhow::Result<Vec<u8>> {
    let program = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return std::fs::read(file).with_context(|| format!("cannot read {}", file.display())),
    };
    let output =
        Command::new(program).arg("-dc").arg(file).output().with_context(|| format!("cannot start {program}"))?;
    anyhow::ensure!(output.status.success(), "{program} cannot unpack {}", file.display());
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_is_loaded_before_it_and_only_once() {
        let dependencies = read(
            "kernel/net/llc/llc.ko:\nkernel/net/802/stp.ko: kernel/net/llc/llc.ko\n\
             kernel/net/bridge/bridge.ko.xz: kernel/net/802/stp.ko kernel/net/llc/llc.ko\n\
             kernel/net/8021q/8021q.ko: kernel/net/802/garp.ko kernel/net/802/stp.ko kernel/net/llc/llc.ko\n",
        );
        let order: Vec<String> = in_loading_order(&dependencies).iter().map(|file| name_of(file)).collect();
        assert_eq!(order, ["llc", "stp", "garp", "8021q", "bridge"]);
    }

    #[test]
    fn a_module_is_known_by_its_name_without_directory_and_compression() {
        assert_eq!(name_of("kernel/net/sched/cls-bpf.ko.xz"), "cls_bpf");
    }
}
