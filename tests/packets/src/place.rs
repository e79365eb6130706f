//! Where a laboratory lives: a network namespace of the thread, a folder of pins and a cgroup of its own; gone when it is dropped,
//! also after a panic. What a killed run left is removed by the next one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context as _;
use egress_agent::datapath::{self, Capacity, Options};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

const BPFFS: &str = "/sys/fs/bpf";
const PREFIX: &str = "egress-packets-";

/// Folders of one laboratory.
pub(crate) struct Place {
    /// What the datapath is opened with.
    pub(crate) options: Options,
    /// The pod's cgroup.
    pub(crate) pod: PathBuf,
    /// The cgroup of its container, where the process is.
    pub(crate) container: PathBuf,
    /// Its network namespace; none for what a killed run left.
    namespace: Option<File>,
}

impl Place {
    /// Moves this thread to a new network namespace and makes the folders.
    pub(crate) fn make(capacity: Capacity) -> anyhow::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace of our own")?;
        mount_bpffs()?;
        let cgroups = cgroup2().context("no cgroup v2 is mounted")?;
        remove_stale(&cgroups);
        let name = format!("{PREFIX}{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let cgroup_root = cgroups.join(&name);
        let pod = cgroup_root.join("pod");
        let container = pod.join("container");
        fs::create_dir_all(&container).with_context(|| format!("making {}", container.display()))?;
        let options = Options { bpffs: Path::new(BPFFS).join(name), cgroup_root, capacity };
        let namespace = Some(File::open("/proc/thread-self/ns/net").context("our network namespace")?);
        Ok(Self { options, pod, container, namespace })
    }

    /// Moves this thread into the laboratory's network namespace.
    pub(crate) fn enter(&self) -> anyhow::Result<()> {
        self.namespace.as_ref().map_or(Ok(()), |namespace| setns(namespace, CloneFlags::CLONE_NEWNET))?;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.enter();
        if let Err(error) = datapath::cleanup(&self.options) {
            eprintln!("cleaning up: {error}");
        }
        for cgroup in [&self.container, &self.pod, &self.options.cgroup_root] {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

fn mount_bpffs() -> anyhow::Result<()> {
    if statfs(BPFFS).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC) {
        return Ok(());
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>).context("mounting a bpffs")
}

/// Where cgroup v2 is mounted.
fn cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        filesystem.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// Removes what test processes left that are no more.
fn remove_stale(cgroups: &Path) {
    for entry in fs::read_dir(BPFFS).into_iter().chain(fs::read_dir(cgroups)).flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let cgroup_root = cgroups.join(&name);
            let pod = cgroup_root.join("pod");
            let options = Options { bpffs: Path::new(BPFFS).join(name), cgroup_root, capacity: Capacity::default() };
            drop(Place { options, container: pod.join("container"), pod, namespace: None });
        }
    }
}
