//! What a run leaves outside of its network namespaces while it lives: a folder of pins and cgroups, all named after the process.
//!
//! Invariant: removed on drop and on SIGINT or SIGTERM; what a killed run left is removed by the next one. Network namespaces need no
//! care: they exist only as descriptors of this process.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use egress_agent::datapath::{self, Capacity, Options};
use nix::sys::signal::{SigSet, Signal};

const PREFIX: &str = "egress-bench-";
const BPFFS: &str = "/sys/fs/bpf";

/// The folders of one run.
#[derive(Clone, Debug)]
struct Folders {
    pins: PathBuf,
    /// With one below it for the pod, where the socket hooks are attached.
    cgroup: PathBuf,
    /// Where this process is, so that the kernel memory that it asks for is told from everybody else's.
    memory: PathBuf,
    files: PathBuf,
}

impl Folders {
    fn of(name: &str) -> Self {
        let cgroup = egress_world::cgroup2_mount().join(name);
        let memory = memory_mount().map_or_else(|| cgroup.join("self"), |mount| mount.join(name));
        Self { pins: Path::new(BPFFS).join(name), cgroup, memory, files: std::env::temp_dir().join(name) }
    }

    fn pod(&self) -> PathBuf {
        self.cgroup.join("pod")
    }

    fn options(&self) -> Options {
        Options { bpffs: self.pins.clone(), cgroup_root: self.pod(), capacity: Capacity::default() }
    }

    fn options_on_lpm(&self) -> Options {
        let capacity = Capacity { trie_from: usize::MAX, ..Capacity::default() };
        Options { bpffs: self.pins.join("on-lpm"), cgroup_root: self.pod(), capacity }
    }

    /// Removes everything; what is not there is fine.
    fn remove(&self) {
        if self.pins.exists() {
            for options in [self.options_on_lpm(), self.options()] {
                let _ = datapath::cleanup(&options);
            }
            let _ = fs::remove_dir_all(&self.pins);
        }
        // This process must be somewhere else before its cgroup can go.
        if let Some(parent) = self.memory.parent().filter(|parent| !parent.starts_with(&self.cgroup)) {
            let _ = fs::write(parent.join("cgroup.procs"), "0");
        } else {
            let _ = fs::write(egress_world::cgroup2_mount().join("cgroup.procs"), "0");
        }
        for folder in [&self.memory, &self.pod(), &self.cgroup] {
            let _ = fs::remove_dir(folder);
        }
        let _ = fs::remove_dir_all(&self.files);
    }
}

/// The folders of this run.
#[derive(Debug)]
pub(crate) struct Place {
    folders: Folders,
}

impl Place {
    /// Makes the folders, after removing those of dead runs. Call it before any thread is started: it blocks signals.
    pub(crate) fn new() -> anyhow::Result<Self> {
        for root in [PathBuf::from(BPFFS), egress_world::cgroup2_mount(), std::env::temp_dir()] {
            sweep(&root);
        }
        let folders = Folders::of(&format!("{PREFIX}{}", std::process::id()));
        remove_on_signal(folders.clone())?;
        for folder in [&folders.pins, &folders.cgroup, &folders.pod(), &folders.memory, &folders.files] {
            fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        for above in [egress_world::cgroup2_mount(), folders.cgroup.clone()] {
            // Fails where cgroup v1 has the memory controller, and then it is not needed.
            let _ = fs::write(above.join("cgroup.subtree_control"), "+memory");
        }
        fs::write(folders.memory.join("cgroup.procs"), "0").context("joining a cgroup of our own")?;
        Ok(Self { folders })
    }

    /// How the datapath is opened here.
    pub(crate) fn options(&self) -> Options {
        self.folders.options()
    }

    /// How it is opened a second time, with every prefix in the kernel's LPM trie.
    pub(crate) fn options_on_lpm(&self) -> Options {
        self.folders.options_on_lpm()
    }

    /// The cgroup at which the socket hooks are attached.
    pub(crate) fn cgroup(&self) -> PathBuf {
        self.folders.pod()
    }

    /// Where [`settled_memory`] is read.
    pub(crate) fn memory(&self) -> &Path {
        &self.folders.memory
    }

    /// A folder for files that other programs read.
    pub(crate) fn files(&self) -> &Path {
        &self.folders.files
    }
}

/// Where cgroup v1 has the memory controller, if it does.
fn memory_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let is_memory = filesystem.starts_with("cgroup ") && filesystem.split([' ', ',']).any(|word| word == "memory");
        is_memory.then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// [`kernel_memory`], once what was removed before is gone.
pub(crate) fn settled_memory(cgroup: &Path) -> Option<u64> {
    const STEP: Duration = Duration::from_millis(20);
    const SAME: usize = 10;
    let deadline = Instant::now() + Duration::from_secs(5);
    let (mut last, mut same) = (kernel_memory(cgroup)?, 0);
    while same < SAME && Instant::now() < deadline {
        std::thread::sleep(STEP);
        let now = kernel_memory(cgroup)?;
        same = if now.abs_diff(last) < 1 << 16 { same + 1 } else { 0 };
        last = now;
    }
    Some(last)
}

/// Bytes of kernel memory that the processes of a cgroup asked for and that still exist; `None` where the kernel does not say.
fn kernel_memory(cgroup: &Path) -> Option<u64> {
    let v1 = fs::read_to_string(cgroup.join("memory.kmem.usage_in_bytes")).ok();
    let v2 = || {
        let stat = fs::read_to_string(cgroup.join("memory.stat")).ok()?;
        stat.lines().find_map(|line| line.strip_prefix("kernel ").map(str::to_owned))
    };
    v1.or_else(v2)?.trim().parse().ok()
}

impl Drop for Place {
    fn drop(&mut self) {
        self.folders.remove();
    }
}

fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            Folders::of(&name).remove();
        }
    }
}

fn remove_on_signal(folders: Folders) -> anyhow::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    std::thread::spawn(move || {
        if let Ok(signal) = signals.wait() {
            folders.remove();
            std::process::exit(128 + signal as i32);
        }
    });
    Ok(())
}
