//! The places outside of a world's namespaces that carry its name: a cgroup, a folder in bpffs and a folder for files.
//!
//! Names hold the process id, so that worlds of runs that were killed are told from living ones and swept away.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

const PREFIX: &str = "egress-test-";
const BPFFS: &str = "/sys/fs/bpf";

/// The folders of one world; removed on drop.
#[derive(Debug)]
pub(crate) struct Place {
    name: String,
    cgroup: PathBuf,
    bpffs: PathBuf,
    files: PathBuf,
}

impl Place {
    /// Makes the folders under a name that no other world has, after sweeping what dead processes left.
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        mount_bpffs();
        let roots = roots();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        for root in &roots {
            sweep(root, |owner| !Path::new(&format!("/proc/{owner}")).exists());
        }
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let [cgroup, bpffs, files] = roots.map(|root| root.join(&name));
        for folder in [&cgroup, &bpffs, &files] {
            fs::create_dir(folder).unwrap_or_else(|error| panic!("making {}: {error}", folder.display()));
        }
        Self { name, cgroup, bpffs, files }
    }

    /// The name that the folders share.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The cgroup under which all pods of the world live: the agent's `--cgroup-root`.
    pub(crate) fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Where the agent of this world pins: its `--bpffs`.
    pub(crate) fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// Policies, endpoints, logs, state.
    pub(crate) fn files(&self) -> &Path {
        &self.files
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for folder in [&self.cgroup, &self.bpffs, &self.files] {
            remove(folder);
        }
    }
}

/// From now on an interrupt (Ctrl-C) or a termination removes the worlds of this process before it ends. To be called before there
/// are other threads, which would take the signals.
pub fn clean_up_when_interrupted() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block().expect("blocking signals");
    std::thread::spawn(move || {
        let _ = signals.wait();
        for root in roots() {
            sweep(&root, |owner| owner == std::process::id());
        }
        std::process::exit(130);
    });
}

/// Where worlds leave folders: among the cgroups, the pins and the temporary files.
fn roots() -> [PathBuf; 3] {
    [cgroup2_mount(), BPFFS.into(), std::env::temp_dir()]
}

/// Where cgroup v2 is mounted: at `/sys/fs/cgroup`, or beside v1.
pub fn cgroup2_mount() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc/self/mountinfo");
    let point = mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        filesystem.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4))?
    });
    point.expect("cgroup v2 is not mounted").into()
}

/// Where bpffs is expected and missing, mounts it, as systemd would have.
fn mount_bpffs() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc/self/mountinfo");
    if !mounts.contains(" - bpf ") {
        let flags = nix::mount::MsFlags::empty();
        let mounted = nix::mount::mount(Some("bpf"), BPFFS, Some("bpf"), flags, None::<&str>);
        // Another test process may have been quicker.
        assert!(matches!(mounted, Ok(()) | Err(nix::errno::Errno::EBUSY)), "mounting {BPFFS}: {mounted:?}");
    }
}

/// Removes the folders of worlds whose process `is_over`.
fn sweep(root: &Path, is_over: impl Fn(u32) -> bool) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(&is_over) {
            remove(&entry.path());
        }
    }
}

/// Removes a folder, in whatever file system; of cgroups only the directories, after ending what runs in them.
fn remove(folder: &Path) {
    if folder.join("cgroup.procs").exists() {
        // Absent before Linux 5.14; then the processes have been ended by their owners, or the folder stays.
        let _ = fs::write(folder.join("cgroup.kill"), "1");
        let deadline = Instant::now() + Duration::from_secs(5);
        while !remove_cgroup(folder) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    } else {
        let _ = fs::remove_dir_all(folder);
    }
}

fn remove_cgroup(folder: &Path) -> bool {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    fs::remove_dir(folder).is_ok() || !folder.exists()
}
