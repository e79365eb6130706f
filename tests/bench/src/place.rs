//! What a run leaves outside of its network namespaces while it lives: a folder of pins and a cgroup, both named after the process.
//!
//! Invariant: removed on drop and on SIGINT or SIGTERM; what a killed run left is removed by the next one. Network namespaces need no
//! care: they exist only as descriptors of this process.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use egress_agent::datapath::{self, Capacity, Options};
use nix::sys::signal::{SigSet, Signal};

const PREFIX: &str = "egress-bench-";
const BPFFS: &str = "/sys/fs/bpf";

/// The folders of one run.
#[derive(Clone, Debug)]
struct Folders {
    pins: PathBuf,
    cgroup: PathBuf,
    files: PathBuf,
}

impl Folders {
    fn of(name: &str) -> Self {
        Self {
            pins: Path::new(BPFFS).join(name),
            cgroup: egress_world::cgroup2_mount().join(name),
            files: std::env::temp_dir().join(name),
        }
    }

    fn options(&self) -> Options {
        Options { bpffs: self.pins.clone(), cgroup_root: self.cgroup.clone(), capacity: Capacity::default() }
    }

    /// Removes everything; what is not there is fine.
    fn remove(&self) {
        if self.pins.exists() {
            let _ = datapath::cleanup(&self.options());
            let _ = fs::remove_dir_all(&self.pins);
        }
        let _ = fs::remove_dir(&self.cgroup);
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
        for folder in [&folders.pins, &folders.cgroup, &folders.files] {
            fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        Ok(Self { folders })
    }

    /// How the datapath is opened here.
    pub(crate) fn options(&self) -> Options {
        self.folders.options()
    }

    /// The cgroup at which the socket hooks are attached.
    pub(crate) fn cgroup(&self) -> &Path {
        &self.folders.cgroup
    }

    /// A folder for files that other programs read.
    pub(crate) fn files(&self) -> &Path {
        &self.folders.files
    }
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
