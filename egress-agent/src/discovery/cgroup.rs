//! Cgroup v2: where it is mounted, and the id of a pod's cgroup in it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

/// The programs look at this many levels below the root (`cgroup_levels` in the ABI).
const DEEPEST: usize = 15;

/// Why a cgroup could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupError {
    #[error("there is no cgroup {} (looked for {})", given.display(), path.display())]
    Absent { given: PathBuf, path: PathBuf },
    #[error("{} is not in the cgroup v2 hierarchy {}; name the pod's cgroup there", path.display(), root.display())]
    NotVersion2 { path: PathBuf, root: PathBuf },
    #[error("{} is the root of the hierarchy: it would cover every process of the machine", .0.display())]
    Root(PathBuf),
    #[error("{} is more than {DEEPEST} levels below the cgroup v2 root", .0.display())]
    TooDeep(PathBuf),
    #[error("cannot read {}: {error}", path.display())]
    Failed {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
}

impl CgroupError {
    /// Whether it may be another answer at another time.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Absent { .. } | Self::Failed { .. })
    }
}

/// A pod's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) id: u64,
}

/// Finds the cgroup that the endpoints file calls `given`: a path below the mount, or one relative to the root of the hierarchy
/// (as in `/proc/PID/cgroup`, with or without the slash in front).
pub(super) fn find(given: &Path, root: &Path) -> Result<Found, CgroupError> {
    let path =
        if given.starts_with(root) { given.to_path_buf() } else { root.join(given.strip_prefix("/").unwrap_or(given)) };
    let failed = |error| CgroupError::Failed { path: path.clone(), error };
    let path = match path.canonicalize() {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let given = given.to_path_buf();
            return Err(CgroupError::Absent { given, path });
        }
        Err(error) => return Err(failed(error)),
    };
    let root = root.canonicalize().map_err(|error| CgroupError::Failed { path: root.to_path_buf(), error })?;
    let metadata = path.metadata().map_err(failed)?;
    let inside = path.strip_prefix(&root).ok().filter(|_| metadata.is_dir() && is_version2(&path));
    match inside.map(|below| below.components().count()) {
        None => Err(CgroupError::NotVersion2 { path, root }),
        Some(0) => Err(CgroupError::Root(path)),
        Some(depth) if depth > DEEPEST => Err(CgroupError::TooDeep(path)),
        // On 64-bit machines the inode number is the id that the kernel's helpers return.
        Some(_) => Ok(Found { id: metadata.ino(), path }),
    }
}

/// Whether `path` lies on a cgroup v2 file system.
pub(crate) fn is_version2(path: &Path) -> bool {
    statfs(path).is_ok_and(|statfs| statfs.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// Where cgroup v2 is mounted, alone or beside v1.
pub(crate) fn mount_point() -> io::Result<Option<PathBuf>> {
    Ok(mount_point_in(&fs::read_to_string("/proc/self/mountinfo")?))
}

/// Of several mounts the one that shows the root of the hierarchy, then the first.
fn mount_point_in(mountinfo: &str) -> Option<PathBuf> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (after.split(' ').next()? == "cgroup2").then(|| (root != "/", PathBuf::from(unescape(point))))
    });
    mounts.min_by_key(|&(partial, _)| partial).map(|(_, point)| point)
}

/// Undoes the octal escapes of `/proc/self/mountinfo`.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BESIDE_V1: &str = "\
31 25 0:26 / /sys/fs/cgroup ro,nosuid shared:8 - tmpfs tmpfs ro,mode=755
33 31 0:28 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory
40 31 0:30 /part /mnt/part rw shared:9 - cgroup2 cgroup2 rw
32 31 0:27 / /sys/fs/cgroup/un\\040ified rw shared:9 - cgroup2 cgroup2 rw
";

    #[test]
    fn the_mount_of_the_whole_hierarchy_is_found_beside_version_1() {
        assert_eq!(mount_point_in(BESIDE_V1), Some(PathBuf::from("/sys/fs/cgroup/un ified")));
        assert_eq!(mount_point_in("31 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n"), None);
    }

    #[test]
    fn a_cgroup_that_is_absent_or_elsewhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let absent = find(Path::new("kubepods/x"), folder.path()).unwrap_err();
        assert!(matches!(absent, CgroupError::Absent { .. }), "{absent}");
        fs::create_dir(folder.path().join("x")).unwrap();
        let elsewhere = find(Path::new("/x"), folder.path()).unwrap_err();
        assert!(matches!(elsewhere, CgroupError::NotVersion2 { .. }), "{elsewhere}");
    }

    #[test]
    fn the_root_is_never_a_pod() {
        let Some(root) = mount_point().unwrap() else {
            return;
        };
        assert!(matches!(find(&root, &root), Err(CgroupError::Root(_))));
        assert!(matches!(find(Path::new("/"), &root), Err(CgroupError::Root(_))));
    }
}
