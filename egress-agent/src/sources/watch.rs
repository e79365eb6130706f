//! Notices changes of the policies folder, the endpoints file and the config file, and says once per burst that there are some.
//!
//! Parent directories are watched too, so that atomic renames, swapped links (mounts of a `ConfigMap`) and a folder that is deleted and
//! comes back are seen. Watches are renewed before every report, so that nothing can change unseen between report and reading.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tracing::debug;

use super::folder::is_policy_file;
use super::settle::{Change, Settle};

/// Everything is looked at again after this time, should a file system not report its changes.
const RESCAN: Duration = Duration::from_secs(30);

/// What is watched.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    /// Folder whose policy files matter.
    pub(crate) folder: Option<PathBuf>,
    /// Single files.
    pub(crate) files: Vec<PathBuf>,
}

/// How the watching goes, for those who ask from other threads.
#[derive(Debug, Default)]
pub(crate) struct Health {
    wanted: AtomicUsize,
    watched: AtomicUsize,
    errors: AtomicU64,
    looked: AtomicU64,
}

impl Health {
    /// Directories whose changes the kernel reports.
    pub(crate) fn watched(&self) -> usize {
        self.watched.load(Ordering::Relaxed)
    }

    /// Directories that exist, matter and cannot be watched; they are looked at every half minute.
    pub(crate) fn unwatched(&self) -> usize {
        self.wanted.load(Ordering::Relaxed).saturating_sub(self.watched())
    }

    /// Failures of the watching so far.
    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// When the agent was last told to read the files: seconds after 1970.
    pub(crate) fn looked(&self) -> u64 {
        self.looked.load(Ordering::Relaxed)
    }

    fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }
}

/// A running watcher; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    sender: Sender<Message>,
    health: Arc<Health>,
}

enum Message {
    Notified(notify::Result<notify::Event>),
    Rescan,
    Stop,
}

impl Watcher {
    /// Starts watching. `changed` is called once per burst of changes, from the watcher's thread, with whether the file system told
    /// of a change or it was only time to look; it returns whether to go on.
    pub(crate) fn start(targets: &Targets, changed: impl Fn(bool) -> bool + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let events = sender.clone();
        let handler = move |event| drop(events.send(Message::Notified(event)));
        let inotify = notify::recommended_watcher(handler).map_err(io::Error::other)?;
        let health = Arc::new(Health::default());
        let mut watches = Watches::new(targets, inotify, Arc::clone(&health))?;
        watches.renew();
        thread::Builder::new().name("watch".into()).spawn(move || watches.follow(&receiver, changed))?;
        Ok(Self { sender, health })
    }

    /// How the watching goes.
    pub(crate) fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Asks for a report as if something had changed, once nothing is being written.
    pub(crate) fn rescan(&self) {
        let _ = self.sender.send(Message::Rescan);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.sender.send(Message::Stop);
    }
}

struct Watches {
    targets: Targets,
    watcher: RecommendedWatcher,
    /// Watched directories and which inode each was: one that was replaced is watched anew.
    watched: BTreeMap<PathBuf, (u64, u64)>,
    relevant: Relevant,
    health: Arc<Health>,
}

/// Which paths matter.
#[derive(Debug, Default, PartialEq, Eq)]
struct Relevant {
    exact: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
    parents: BTreeSet<PathBuf>,
}

impl Relevant {
    fn of(targets: &Targets) -> Self {
        let mut relevant = Self::default();
        let own = targets.folder.as_ref();
        let folder = [own.cloned(), own.and_then(|folder| folder.canonicalize().ok())];
        let files = targets.files.iter().flat_map(|file| [Some(file.clone()), file.canonicalize().ok()]);
        relevant.folders.extend(folder.iter().flatten().cloned());
        relevant.exact.extend(folder.into_iter().chain(files).flatten());
        relevant.exact.extend(own.into_iter().flat_map(|folder| linked(folder)));
        relevant.parents.extend(relevant.exact.iter().filter_map(|path| path.parent()).map(Path::to_path_buf));
        relevant
    }

    fn directories(&self) -> BTreeSet<&PathBuf> {
        self.folders.iter().chain(&self.parents).collect()
    }

    fn matches(&self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // `..data` and the like are the links that a kubelet swaps.
        let swapped = name.starts_with("..");
        let inside = |set: &BTreeSet<PathBuf>| path.parent().is_some_and(|parent| set.contains(parent));
        self.exact.contains(path)
            || (inside(&self.folders) && (swapped || is_policy_file(name)))
            || (inside(&self.parents) && swapped)
    }
}

/// Files that policy files of the folder are links to.
fn linked(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let policies = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_policy_file));
    let links = policies.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
    links.filter_map(|link| link.path().canonicalize().ok()).collect()
}

impl Watches {
    fn new(targets: &Targets, watcher: RecommendedWatcher, health: Arc<Health>) -> io::Result<Self> {
        let absolute = |path: &PathBuf| std::path::absolute(path);
        let targets = Targets {
            folder: targets.folder.as_ref().map(absolute).transpose()?,
            files: targets.files.iter().map(absolute).collect::<io::Result<_>>()?,
        };
        Ok(Self { relevant: Relevant::of(&targets), targets, watcher, watched: BTreeMap::new(), health })
    }

    fn follow(&mut self, receiver: &Receiver<Message>, changed: impl Fn(bool) -> bool) {
        let mut settle = Settle::default();
        let mut told = false;
        let mut rescan = Instant::now() + RESCAN;
        loop {
            let due = settle.due().unwrap_or(rescan).min(rescan);
            match receiver.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(Message::Notified(Ok(event))) => told |= self.note(&mut settle, &event),
                Ok(Message::Notified(Err(error))) => {
                    debug!(%error, "watching failed; looking at everything again");
                    self.health.failed();
                    settle.note(Instant::now(), Change::Other);
                }
                Ok(Message::Rescan) => settle.note(Instant::now(), Change::Other),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if rescan <= Instant::now() {
                rescan = Instant::now() + RESCAN;
                settle.note(Instant::now(), Change::Other);
            }
            if settle.take(Instant::now()) {
                self.renew();
                if !changed(std::mem::take(&mut told)) {
                    return;
                }
            }
        }
    }

    /// Notes what matters of an event; true if anything did.
    fn note(&self, settle: &mut Settle, event: &notify::Event) -> bool {
        if event.need_rescan() {
            settle.note(Instant::now(), Change::Other);
        }
        let relevant = event.paths.iter().filter(|path| self.relevant.matches(path));
        let changes: Vec<Change> = relevant.filter_map(|path| change(event.kind, path)).collect();
        let any = !changes.is_empty();
        for change in changes {
            settle.note(Instant::now(), change);
        }
        any
    }

    /// Watches every directory that matters and exists, also one that has replaced another.
    fn renew(&mut self) {
        self.relevant = Relevant::of(&self.targets);
        let wanted: BTreeMap<PathBuf, (u64, u64)> =
            self.relevant.directories().into_iter().filter_map(|path| Some((path.clone(), identity(path)?))).collect();
        for (path, identity) in &self.watched {
            if wanted.get(path) != Some(identity) {
                // Fails where the kernel has already dropped the watch with its directory.
                let _ = self.watcher.unwatch(path);
            }
        }
        let mut unwatched = Vec::new();
        for (path, identity) in &wanted {
            if self.watched.get(path) != Some(identity)
                && let Err(error) = self.watcher.watch(path, RecursiveMode::NonRecursive)
            {
                debug!(path = %path.display(), %error, "cannot watch; it is read again every {RESCAN:?}");
                self.health.failed();
                unwatched.push(path.clone());
            }
        }
        self.health.wanted.store(wanted.len(), Ordering::Relaxed);
        self.watched = wanted;
        // Tried again at the next look.
        self.watched.retain(|path, _| !unwatched.contains(path));
        self.health.watched.store(self.watched.len(), Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.health.looked.store(now.as_secs(), Ordering::Relaxed);
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = path.metadata().ok().filter(std::fs::Metadata::is_dir)?;
    Some((metadata.dev(), metadata.ino()))
}

/// What an event means; `None` for mere reading, of which the agent itself is guilty.
fn change(kind: EventKind, path: &Path) -> Option<Change> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Remove(_) => {
            Some(Change::Closed(path.to_path_buf()))
        }
        EventKind::Access(_) => None,
        EventKind::Modify(ModifyKind::Data(_)) => Some(Change::Writing(path.to_path_buf())),
        EventKind::Modify(ModifyKind::Name(_)) => Some(Change::Closed(path.to_path_buf())),
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Other => Some(Change::Other),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn watch(folder: &Path, files: &[PathBuf]) -> (Watcher, Receiver<()>) {
        let (sender, receiver) = mpsc::channel();
        let targets = Targets { folder: Some(folder.to_path_buf()), files: files.to_vec() };
        (Watcher::start(&targets, move |_told| sender.send(()).is_ok()).unwrap(), receiver)
    }

    #[test]
    fn files_written_renamed_and_removed_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (_watcher, changes) = watch(folder.path(), &[]);
        fs::write(folder.path().join("a.yaml"), "x").unwrap();
        changes.recv_timeout(DEADLINE).unwrap();
        fs::write(folder.path().join(".new"), "y").unwrap();
        fs::rename(folder.path().join(".new"), folder.path().join("a.yaml")).unwrap();
        changes.recv_timeout(DEADLINE).unwrap();
        fs::remove_file(folder.path().join("a.yaml")).unwrap();
        changes.recv_timeout(DEADLINE).unwrap();
    }

    #[test]
    fn a_folder_that_is_deleted_and_comes_back_is_followed_again() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("policies");
        fs::create_dir(&folder).unwrap();
        let (_watcher, changes) = watch(&folder, &[]);
        fs::remove_dir(&folder).unwrap();
        changes.recv_timeout(DEADLINE).unwrap();
        fs::create_dir(&folder).unwrap();
        changes.recv_timeout(DEADLINE).unwrap();
        fs::write(folder.join("a.yaml"), "x").unwrap();
        changes.recv_timeout(DEADLINE).unwrap();
    }

    #[test]
    fn a_swapped_link_of_a_config_map_mount_is_noticed_for_the_folder_and_for_a_single_file() {
        let mount = tempfile::tempdir().unwrap();
        for version in ["..1", "..2"] {
            fs::create_dir(mount.path().join(version)).unwrap();
            fs::write(mount.path().join(version).join("a.yaml"), version).unwrap();
        }
        symlink("..1", mount.path().join("..data")).unwrap();
        symlink("..data/a.yaml", mount.path().join("a.yaml")).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let (_folder, folder_changes) = watch(mount.path(), &[]);
        let (_file, file_changes) = watch(elsewhere.path(), &[mount.path().join("a.yaml")]);
        symlink("..2", mount.path().join("..data_tmp")).unwrap();
        fs::rename(mount.path().join("..data_tmp"), mount.path().join("..data")).unwrap();
        folder_changes.recv_timeout(DEADLINE).unwrap();
        file_changes.recv_timeout(DEADLINE).unwrap();
    }

    #[test]
    fn a_file_elsewhere_that_a_policy_file_links_to_is_watched() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let target = elsewhere.path().join("policy");
        fs::write(&target, "one").unwrap();
        symlink(&target, folder.path().join("a.yaml")).unwrap();
        let (_watcher, changes) = watch(folder.path(), &[]);
        fs::write(&target, "two").unwrap();
        changes.recv_timeout(DEADLINE).unwrap();
    }

    #[test]
    fn reading_and_unrelated_files_are_no_changes() {
        let relevant = Relevant::of(&Targets { folder: Some("/p".into()), files: vec!["/e/endpoints.yaml".into()] });
        for path in ["/p", "/p/a.yaml", "/p/..data", "/e/endpoints.yaml", "/e/..data"] {
            assert!(relevant.matches(Path::new(path)), "{path}");
        }
        for path in ["/p/.a.yaml.swp", "/p/a.txt", "/e/other.yaml", "/x/a.yaml", "/"] {
            assert!(!relevant.matches(Path::new(path)), "{path}");
        }
        assert_eq!(change(EventKind::Access(AccessKind::Open(AccessMode::Any)), Path::new("/p/a.yaml")), None);
    }

    #[test]
    fn the_health_says_how_many_directories_are_watched() {
        let folder = tempfile::tempdir().unwrap();
        let (watcher, changes) = watch(folder.path(), &[]);
        let health = watcher.health();
        assert_eq!(
            (health.watched(), health.unwatched(), health.errors()),
            (2, 0, 0),
            "the folder and the one around it"
        );
        assert!(health.looked() > 0);
        fs::remove_dir(folder.path()).unwrap();
        changes.recv_timeout(DEADLINE).unwrap();
        assert_eq!((health.watched(), health.unwatched()), (1, 0));
    }

    #[test]
    fn a_rescan_can_be_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let (watcher, changes) = watch(folder.path(), &[]);
        watcher.rescan();
        changes.recv_timeout(DEADLINE).unwrap();
    }
}
