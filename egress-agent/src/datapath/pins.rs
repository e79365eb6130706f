//! Where everything that enforces is pinned, so that it outlives the agent (§6.5).
//!
//! ```text
//! <bpffs>/abi-<version>/maps/<map>       the maps of one ABI version
//! <bpffs>/abi-<version>/tables/<slot>    description of the table in that slot
//! <bpffs>/links/<hook>                   socket hooks, at the cgroup root
//! <bpffs>/links/tc/<ifindex>-<hook>      tcx links; a folder of that name marks a clsact filter
//! <bpffs>/links/cgroup/<id>-<hook>       cgroup_skb links
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use egress_common::abi;

use super::error::DatapathError;

/// The pin folders of one installation.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    root: PathBuf,
}

impl Pins {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// Makes the folders that are not there.
    pub(super) fn create(&self) -> Result<(), DatapathError> {
        for folder in [self.maps(), self.tables(), self.links().join("tc"), self.links().join("cgroup")] {
            fs::create_dir_all(&folder).map_err(DatapathError::path("creating", folder))?;
        }
        Ok(())
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn abi(&self) -> PathBuf {
        self.root.join(format!("abi-{}", abi::VERSION))
    }

    pub(super) fn maps(&self) -> PathBuf {
        self.abi().join("maps")
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    pub(super) fn tables(&self) -> PathBuf {
        self.abi().join("tables")
    }

    pub(super) fn table(&self, slot: u32) -> PathBuf {
        self.tables().join(slot.to_string())
    }

    pub(super) fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// The other ABI versions that have maps here, ascending.
    pub(super) fn other_versions_with_maps(&self) -> Vec<u32> {
        let number = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("abi-")?.parse().ok();
        let with_maps = self.other_versions().into_iter().filter(|path| !entries(&path.join("maps")).is_empty());
        let mut versions: Vec<u32> = with_maps.filter_map(|path| number(&path)).collect();
        versions.sort_unstable();
        versions
    }

    /// Folders of other ABI versions, which nothing uses once every link runs this version's programs.
    pub(super) fn other_versions(&self) -> Vec<PathBuf> {
        let own = self.abi();
        entries(&self.root)
            .into_iter()
            .filter(|path| {
                *path != own && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("abi-"))
            })
            .collect()
    }
}

/// What a folder holds; nothing if it cannot be read.
pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = found.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Removes a pin; one that is not there is fine.
pub(super) fn unpin(path: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DatapathError::Path { action: "removing", path: path.to_path_buf(), source: error })
        }
        _ => Ok(()),
    }
}

/// Removes a folder of pins and everything below it. Returns how many pins there were.
pub(super) fn remove_all(folder: &Path) -> Result<usize, DatapathError> {
    let mut removed = 0;
    for path in entries(folder) {
        if path.is_dir() {
            removed += remove_all(&path)?;
        } else {
            unpin(&path)?;
            removed += 1;
        }
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DatapathError::Path { action: "removing", path: folder.to_path_buf(), source: error })
        }
        _ => Ok(removed),
    }
}
