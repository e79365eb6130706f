//! Where things are in the source tree. Every path that a command uses starts here, so that a command works from any
//! directory.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The root of the source tree.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// Finds the tree: where cargo says this crate is, else upwards from the current directory.
    pub(crate) fn locate() -> anyhow::Result<Self> {
        if let Some(root) = std::env::var_os("CARGO_MANIFEST_DIR").and_then(|path| parent(Path::new(&path))) {
            return Ok(Self { root });
        }
        let current = std::env::current_dir().context("cannot read the current directory")?;
        let root = current
            .ancestors()
            .find(|path| path.join("egress-ebpf").is_dir() && path.join("xtask").is_dir())
            .context("not inside the source tree: run this from a clone of the repository")?;
        Ok(Self { root: root.to_path_buf() })
    }

    /// The root.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path below the root.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// A path below `target/`.
    pub(crate) fn target(&self, below: &str) -> PathBuf {
        self.root.join("target").join(below)
    }

    /// The compiled eBPF programs.
    pub(crate) fn ebpf_object(&self) -> PathBuf {
        self.target("ebpf/egress-ebpf")
    }
}

fn parent(path: &Path) -> Option<PathBuf> {
    path.parent().filter(|root| root.join("egress-ebpf").is_dir()).map(Path::to_path_buf)
}

/// Writes a file only when its content differs, so that what depends on it is not built again. True if written.
pub(crate) fn write_if_changed(path: &Path, content: &[u8]) -> anyhow::Result<bool> {
    if std::fs::read(path).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_file_is_not_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        assert!(write_if_changed(&path, b"one").unwrap());
        assert!(!write_if_changed(&path, b"one").unwrap());
        assert!(write_if_changed(&path, b"two").unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
    }

    #[test]
    fn the_tree_is_found_from_inside_cargo() {
        assert!(Tree::locate().unwrap().path("xtask/Cargo.toml").is_file());
    }
}
