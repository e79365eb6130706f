//! The two file systems that the agent needs: bpffs for pins, cgroup v2 for the socket hooks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::discovery::cgroup;

use super::StartupError;

const USUAL_BPFFS: &str = "/sys/fs/bpf";

/// Makes sure that `folder` is, or can be made, on a BPF file system. Mounts one at the usual place if none is there.
pub(super) fn ensure_bpffs(folder: &Path) -> Result<(), StartupError> {
    if is_bpffs(nearest_existing(folder)) {
        return Ok(());
    }
    let usual = Path::new(USUAL_BPFFS);
    let no_bpffs =
        |mount: &Path, error| StartupError::NoBpffs { folder: folder.to_path_buf(), mount: mount.to_path_buf(), error };
    if !folder.starts_with(usual) {
        return Err(no_bpffs(folder.parent().unwrap_or(folder), None));
    }
    if in_a_container() {
        return Err(StartupError::PrivateMounts(usual.to_path_buf()));
    }
    mount_usual().map_err(|error| no_bpffs(usual, Some(error)))
}

/// Mounts a BPF file system at the usual place if none is there, also in a container: one with bidirectional propagation passes it on to
/// the node.
pub(crate) fn mount_bpffs() -> Result<(), StartupError> {
    let usual = Path::new(USUAL_BPFFS);
    if is_bpffs(usual) {
        tracing::info!(path = USUAL_BPFFS, "a BPF file system is there");
        return Ok(());
    }
    mount_usual().map_err(|error| StartupError::NoBpffs {
        folder: usual.to_path_buf(),
        mount: usual.to_path_buf(),
        error: Some(error),
    })
}

fn mount_usual() -> io::Result<()> {
    mount(Some("bpf"), USUAL_BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)?;
    tracing::info!(path = USUAL_BPFFS, "mounted a BPF file system");
    Ok(())
}

/// Whether mounts of this process are not those of the node's first process, which a pod sees that shares the node's process namespace.
fn in_a_container() -> bool {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt"));
    matches!((namespace("1"), namespace("self")), (Ok(first), Ok(own)) if first != own)
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|statfs| statfs.filesystem_type() == BPF_FS_MAGIC)
}

fn nearest_existing(folder: &Path) -> &Path {
    folder.ancestors().find(|path| path.exists()).unwrap_or(folder)
}

/// The cgroup v2 root: as given, or where the hierarchy is mounted.
pub(super) fn cgroup_root(given: Option<&Path>) -> Result<PathBuf, StartupError> {
    if let Some(given) = given {
        return match given.canonicalize() {
            Ok(path) if cgroup::is_version2(&path) => Ok(path),
            Ok(_) | Err(_) => Err(StartupError::NotCgroup2(given.to_path_buf())),
        };
    }
    let mounted: io::Result<Option<PathBuf>> = cgroup::mount_point();
    let mounted = mounted.map_err(|error| StartupError::Unreadable { what: "/proc/self/mountinfo", error })?;
    mounted.ok_or(StartupError::NoCgroup2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_on_another_file_system_is_refused_with_the_command_to_type() {
        let folder = tempfile::tempdir().unwrap();
        let error = ensure_bpffs(&folder.path().join("egress")).unwrap_err();
        assert!(error.to_string().contains("mount -t bpf bpf"), "{error}");
    }

    #[test]
    fn a_cgroup_root_that_is_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(cgroup_root(Some(folder.path())), Err(StartupError::NotCgroup2(_))));
        assert!(matches!(cgroup_root(Some(Path::new("/no/such"))), Err(StartupError::NotCgroup2(_))));
    }
}
