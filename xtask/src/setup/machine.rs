//! What kind of machine this is, and the one thing about it that is not a package: the BPF file system.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use crate::command::{Task, find_program};
use crate::progress::{self, Mark};
use crate::tree::Tree;

/// The facts that `setup` decides by.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Whether this process is root.
    pub(crate) root: bool,
    /// Whether packages can be installed with apt and dpkg.
    pub(crate) apt: bool,
    system: String,
}

impl Machine {
    /// Looks.
    pub(crate) fn detect() -> Self {
        // The owner of a process's directory is its effective user.
        let root = std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0);
        let apt = find_program("apt-get").is_some() && find_program("dpkg-query").is_some();
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        Self { root, apt, system: pretty_name(&release).unwrap_or("an unknown system").to_owned() }
    }

    /// One line about it.
    pub(crate) fn report(&self) {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let user = if self.root { "root" } else { "not root" };
        let apt = if self.apt { "" } else { ", without apt" };
        progress::step(
            Mark::Present,
            "machine",
            &format!("{}, Linux {}, {user}{apt}", self.system, kernel.trim()),
            None,
        );
    }

    /// Fails with what to do when packages cannot be installed here.
    pub(crate) fn require_installing(&self, what: &str) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.apt,
            "{what} must be installed, and this machine ({}) has no apt: setup knows Debian and its relatives only. \
             Install the equivalent by hand and run setup again; what is present is not asked for",
            self.system
        );
        anyhow::ensure!(
            self.root,
            "{what} must be installed, and that needs root: run `sudo -E cargo xtask setup`, or become root"
        );
        Ok(())
    }

    /// The agent pins its maps and programs there.
    pub(crate) fn mount_bpffs(&self, tree: &Tree) -> anyhow::Result<()> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        if mounts.lines().any(|line| line.split(' ').nth(2) == Some("bpf")) {
            progress::step(Mark::Present, "BPF file system", "mounted", None);
            return Ok(());
        }
        if !self.root {
            progress::step(Mark::Skipped, "BPF file system", "not mounted; mounting it needs root", None);
            return Ok(());
        }
        let mut command = Command::new("mount");
        command.args(["-t", "bpf", "bpf", "/sys/fs/bpf"]);
        Task::new("mount /sys/fs/bpf", command).hint("the kernel may lack CONFIG_BPF_SYSCALL").run(tree)?;
        Ok(())
    }
}

fn pretty_name(release: &str) -> Option<&str> {
    release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).map(|name| name.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_system_is_read_without_its_quotes() {
        assert_eq!(pretty_name("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), Some("Debian GNU/Linux 12"));
        assert_eq!(pretty_name("ID=debian\n"), None);
    }

    #[test]
    fn a_user_without_root_is_told_to_become_root_only_when_something_is_missing() {
        let machine = Machine { root: false, apt: true, system: "Debian".to_owned() };
        assert!(machine.require_installing("qemu").unwrap_err().to_string().contains("needs root"));
        let machine = Machine { root: true, apt: false, system: "Other".to_owned() };
        assert!(machine.require_installing("qemu").unwrap_err().to_string().contains("no apt"));
    }
}
