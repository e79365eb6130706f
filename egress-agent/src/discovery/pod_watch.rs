//! Notices pods and containers that come and go, from kubelet's cgroup tree itself: sooner than the API server can tell.
//!
//! A container's directory is made before its first process is in it, and the process enters its network namespace a moment later; so
//! one change is followed by several looks.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tracing::{debug, warn};

use super::kubepods::Kubepods;

/// When to look after a change, in milliseconds: what is slower than the last is found by the next review.
const LOOKS: [u64; 6] = [1, 5, 20, 100, 500, 2000];
/// How often the tree is compared although nothing was said.
const REVIEW: Duration = Duration::from_secs(30);

/// Calls `changed` after each change until it returns false. The thread ends with the process.
pub(crate) fn follow(kubepods: Kubepods, changed: impl Fn() -> bool + Send + 'static) -> io::Result<()> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let mut tree = Tree { kubepods, inotify, watched: BTreeMap::new(), complained: false };
    tree.renew();
    thread::Builder::new().name("pods".into()).spawn(move || {
        let mut looks: Vec<Instant> = Vec::new();
        let mut review = Instant::now() + REVIEW;
        loop {
            let due = looks.first().copied().unwrap_or(review).min(review);
            match tree.wait(due.saturating_duration_since(Instant::now())) {
                Ok(true) => {
                    let now = Instant::now();
                    // New directories are watched before they are looked at, so that nothing falls between.
                    tree.renew();
                    looks = LOOKS.iter().map(|&after| now + Duration::from_millis(after)).collect();
                }
                Ok(false) => {}
                Err(error) => {
                    warn!(%error, "cgroups are not watched any more; pods are looked for from time to time");
                    return;
                }
            }
            let now = Instant::now();
            if review <= now {
                review = now + REVIEW;
                tree.renew();
            }
            let before = looks.len();
            looks.retain(|look| *look > now);
            if looks.len() < before && !changed() {
                return;
            }
        }
    })?;
    Ok(())
}

struct Tree {
    kubepods: Kubepods,
    inotify: Inotify,
    watched: BTreeMap<PathBuf, WatchDescriptor>,
    complained: bool,
}

impl Tree {
    /// Waits for changes; whether there were any.
    fn wait(&self, longest: Duration) -> io::Result<bool> {
        let mut ready = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(longest).unwrap_or(PollTimeout::MAX);
        match poll(&mut ready, timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut any = false;
        loop {
            match self.inotify.read_events() {
                Ok(events) => any |= !events.is_empty(),
                Err(nix::errno::Errno::EAGAIN) => return Ok(any),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Watches every directory that matters now. The kernel drops a watch with its directory.
    fn renew(&mut self) {
        const MEMBERS: AddWatchFlags =
            AddWatchFlags::IN_CREATE.union(AddWatchFlags::IN_DELETE).union(AddWatchFlags::IN_DELETE_SELF);
        let directories = self.kubepods.directories().into_iter();
        // The file changes when the first process enters a cgroup and when the last one leaves it.
        let wanted: BTreeMap<PathBuf, AddWatchFlags> = directories
            .flat_map(|path| [(path.join("cgroup.events"), AddWatchFlags::IN_MODIFY), (path, MEMBERS)])
            .collect();
        self.watched.retain(|path, _| wanted.contains_key(path));
        for (path, flags) in wanted {
            // Asking again for a directory that is watched costs nothing and covers one that was made anew.
            match self.inotify.add_watch(&path, flags) {
                Ok(descriptor) => drop(self.watched.insert(path, descriptor)),
                Err(nix::errno::Errno::ENOENT) => debug!(path = %path.display(), "is gone again"),
                Err(error) if !self.complained => {
                    self.complained = true;
                    let path = path.display();
                    warn!(%path, %error, "cannot be watched (fs.inotify.max_user_watches?); pods are looked for from time to time");
                }
                Err(_) => {}
            }
        }
    }
}
