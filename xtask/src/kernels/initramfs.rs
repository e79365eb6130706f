//! The guest's only file system: busybox, modules, the static programs, and an `init` that runs them one after another and
//! marks on the console where each begins and how it ends.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::command::{Task, find_program};
use crate::kernels::image::Image;
use crate::kernels::modules;
use crate::kernels::programs::{self, Payload};
use crate::tree::Tree;

/// Builds it; returns where it is.
pub(crate) fn build(tree: &Tree, image: &Image, payload: &Payload) -> anyhow::Result<PathBuf> {
    let work = tree.target("kernels").join(&image.series);
    let root = work.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot empty {}", root.display()))?;
    }
    for directory in ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "root", "programs", "host"] {
        fs::create_dir_all(root.join(directory))?;
    }
    copy(&find_program("busybox").context("busybox is absent")?, &root.join("bin/busybox"))?;
    modules::copy(tree, image, &root.join("modules"))?;
    copy(&payload.object, &root.join("egress-ebpf"))?;
    if let Some(agent) = &payload.agent {
        copy(agent, &root.join("bin/egress-agent"))?;
    }
    for (program, libraries) in programs::from_this_machine() {
        let name = program.file_name().context("a program without a name")?;
        copy(&program, &root.join("host").join(name))?;
        for library in libraries {
            copy(&library, &root.join(library.strip_prefix("/").unwrap_or(&library)))?;
        }
    }
    let mut jobs = String::new();
    for (number, job) in payload.jobs.iter().enumerate() {
        // Under its own name: the packet tests choose the tables' backend by it.
        let file = Path::new(&number.to_string()).join(job.path.file_name().context("a program without a name")?);
        copy(&job.path, &root.join("programs").join(&file))?;
        writeln!(jobs, "{}|{}|{}", file.display(), job.name, job.arguments)?;
    }
    fs::write(root.join("jobs"), jobs)?;
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")?;
    // Something that tests lay a file of their own over.
    fs::write(root.join("etc/resolv.conf"), "")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
    let init = root.join("init");
    fs::write(&init, include_str!("init.sh"))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    pack(tree, &work, image)
}

fn pack(tree: &Tree, work: &Path, image: &Image) -> anyhow::Result<PathBuf> {
    let mut command = Command::new("sh");
    // Not compressed: unpacking is emulated too.
    let script = "cd root && find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet > ../initramfs";
    command.args(["-ec", script]).current_dir(work);
    Task::new(&format!("initramfs for {}", image.series), command).run(tree)?;
    Ok(work.join("initramfs"))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
