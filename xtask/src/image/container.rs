//! The image around the program, by buildah, in a store of its own below `target/`. No base image, no network, no daemon.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Task, ask};
use crate::image::Arch;
use crate::tree::Tree;

/// Where the program is in the image; its folder is the image's PATH, so that `kubectl exec … egress-agent` finds it.
const PLACE: &str = "/usr/bin/egress-agent";

/// Makes the image and returns the archive.
pub(super) fn build(tree: &Tree, arch: Arch, name: &str, program: &Path) -> anyhow::Result<PathBuf> {
    let folder = tree.target("image");
    std::fs::create_dir_all(&folder)?;
    let archive = folder.join(format!("egress-agent-{}.tar", arch.name()));
    if archive.exists() {
        std::fs::remove_file(&archive)?;
    }
    let store = Store(folder.join("store"));
    let container = store.ask(&["from", "--arch", arch.name(), "scratch"])?;
    let filled = fill(&store, &container, program, name, &archive, tree);
    // Also when something failed: what is left would be found by the next run.
    let removed = store.ask(&["rm", &container]);
    filled?;
    removed?;
    Ok(archive)
}

fn fill(store: &Store, container: &str, program: &Path, name: &str, archive: &Path, tree: &Tree) -> anyhow::Result<()> {
    store.ask(&["copy", "--chmod", "0755", container, &program.to_string_lossy(), PLACE])?;
    let mut config = vec!["config".to_owned()];
    let options = [
        ("--entrypoint", format!("[\"{PLACE}\"]")),
        ("--env", "PATH=/usr/bin".to_owned()),
        ("--label", "org.opencontainers.image.title=egress-agent".to_owned()),
        ("--label", format!("org.opencontainers.image.version={}", env!("CARGO_PKG_VERSION"))),
        ("--label", "org.opencontainers.image.licenses=(MIT OR Apache-2.0) AND GPL-2.0-only".to_owned()),
        ("--label", format!("org.opencontainers.image.revision={}", revision(tree))),
    ];
    config.extend(options.into_iter().flat_map(|(option, value)| [option.to_owned(), value]));
    config.push(container.to_owned());
    store.ask(&config.iter().map(String::as_str).collect::<Vec<_>>())?;
    // The same source gives the same image: its time is the commit's.
    store.ask(&["commit", "--quiet", "--timestamp", &time(tree), container, name])?;
    let mut push = store.command(&["push", "--quiet", name, &format!("oci-archive:{}:{name}", archive.display())]);
    push.current_dir(tree.root());
    Task::new("write the image", push).run(tree)?;
    Ok(())
}

fn revision(tree: &Tree) -> String {
    git(tree, "--format=%H").unwrap_or_else(|| "unknown".to_owned())
}

fn time(tree: &Tree) -> String {
    git(tree, "--format=%ct").unwrap_or_else(|| "0".to_owned())
}

fn git(tree: &Tree, format: &str) -> Option<String> {
    let answer = ask("git", &["-C", &tree.root().to_string_lossy(), "log", "-1", format])?;
    Some(answer.trim().to_owned()).filter(|answer| !answer.is_empty())
}

/// Where buildah keeps what it works on.
struct Store(PathBuf);

impl Store {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(self.0.join("root")).arg("--runroot").arg(self.0.join("run"));
        // vfs needs no overlay mounts, which containers and virtual machines may not allow.
        command.args(["--storage-driver", "vfs"]).args(arguments).env("BUILDAH_ISOLATION", "chroot");
        command
    }

    fn ask(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(arguments).output()?;
        let word = arguments.first().copied().unwrap_or_default();
        anyhow::ensure!(
            output.status.success(),
            "buildah {word} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}
