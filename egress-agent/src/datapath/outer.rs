//! The maps of maps, changed without waiting for the packets that are under way.
//!
//! The kernel ends each call that changes one by waiting for every program that was running (`maybe_wait_bpf_programs`: 8 ms and
//! more), for callers that free what they took out. Nobody here depends on that: a slot is published after its maps can be seen, and
//! emptied after [`Grace`](super::grace::Grace). So a thread makes the call, and the caller goes on when the change can be seen, which is
//! before the wait.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use aya::maps::MapData;

use super::error::DatapathError;
use super::maps;
use super::pins::Pins;
use super::syscall;

/// Calls that the kernel keeps waiting; more wait with their caller.
static WAITING: AtomicUsize = AtomicUsize::new(0);
const MOST_WAITING: usize = 64;
/// How often a caller looks at once, and then how long it sleeps between two looks.
const LOOKS: usize = 32;
const PAUSE: Duration = Duration::from_micros(50);

/// One map of maps.
#[derive(Debug)]
pub(super) struct Outer {
    name: &'static str,
    data: MapData,
}

impl Outer {
    /// Opens a pinned one.
    pub(super) fn open(pins: &Pins, name: &'static str) -> Result<Self, DatapathError> {
        Ok(Self { name, data: maps::data(pins, name)? })
    }

    /// Id of the map in `slot`.
    fn id(&self, slot: u32) -> Result<Option<u32>, DatapathError> {
        let id = syscall::lookup(self.data.fd().as_fd(), &slot.to_ne_bytes(), size_of::<u32>())?;
        Ok(id.and_then(|bytes| bytes.as_slice().try_into().ok()).map(u32::from_ne_bytes))
    }

    /// The map in `slot`.
    pub(super) fn get(&self, slot: u32) -> Result<Option<MapData>, DatapathError> {
        self.id(slot)?.map(|id| MapData::from_id(id).map_err(DatapathError::map(self.name))).transpose()
    }

    /// Puts a map into `slot`. Programs that start from now on find it there.
    pub(super) fn set(&self, slot: u32, inner: &MapData) -> Result<(), DatapathError> {
        self.begin(slot, inner)?.see()
    }

    /// The same, begun: see [`Change::see`].
    pub(super) fn begin(&self, slot: u32, inner: &MapData) -> Result<Change<'_>, DatapathError> {
        let id = inner.info().map_err(DatapathError::map(self.name))?.id();
        if self.id(slot)? == Some(id) {
            return Ok(Change::done(self));
        }
        let inner = self.duplicate(inner)?;
        self.change(slot, Some(id), move |outer| syscall::update(outer.as_fd(), &slot, &syscall::raw(inner.as_fd())))
    }

    /// Takes the map, if there is one, out of `slot`. Programs that start from now on find none there.
    pub(super) fn remove(&self, slot: u32) -> Result<(), DatapathError> {
        if self.id(slot)?.is_none() {
            return Ok(());
        }
        self.change(slot, None, move |outer| syscall::delete(outer.as_fd(), &slot).map(|_| ()))?.see()
    }

    fn duplicate(&self, map: &MapData) -> Result<OwnedFd, DatapathError> {
        let duplicate = map.fd().as_fd().try_clone_to_owned();
        duplicate.map_err(|source| DatapathError::Syscall { call: self.name, source })
    }

    /// Begins a call after which `slot` has `wanted`.
    fn change(
        &self,
        slot: u32,
        wanted: Option<u32>,
        call: impl Fn(&OwnedFd) -> Result<(), DatapathError> + Send + Sync + 'static,
    ) -> Result<Change<'_>, DatapathError> {
        let outer = self.duplicate(&self.data)?;
        let call = Arc::new(move || call(&outer));
        if WAITING.fetch_add(1, Ordering::Relaxed) >= MOST_WAITING {
            WAITING.fetch_sub(1, Ordering::Relaxed);
            return call().map(|()| Change::done(self));
        }
        let (done, outcome) = channel();
        let theirs = Arc::clone(&call);
        let run = move || {
            let result = theirs();
            WAITING.fetch_sub(1, Ordering::Relaxed);
            // Nobody listens any more where the change was seen.
            let _ = done.send(result);
        };
        if thread::Builder::new().name("egress-maps".to_owned()).spawn(run).is_err() {
            WAITING.fetch_sub(1, Ordering::Relaxed);
            return call().map(|()| Change::done(self));
        }
        Ok(Change { outer: self, under_way: Some((slot, wanted, outcome)) })
    }
}

/// How a call went that another thread makes.
type Outcome = Receiver<Result<(), DatapathError>>;

/// A change that another thread makes.
#[must_use = "nobody may rely on it before it was seen"]
pub(super) struct Change<'o> {
    outer: &'o Outer,
    /// Which slot shall have which map, and how the call went; `None`: that is over.
    under_way: Option<(u32, Option<u32>, Outcome)>,
}

impl<'o> Change<'o> {
    const fn done(outer: &'o Outer) -> Self {
        Self { outer, under_way: None }
    }

    /// Returns when programs find the change, or the call has failed.
    pub(super) fn see(self) -> Result<(), DatapathError> {
        let Some((slot, wanted, outcome)) = self.under_way else { return Ok(()) };
        for look in 0_usize.. {
            if self.outer.id(slot)? == wanted {
                return Ok(());
            }
            if look < LOOKS {
                thread::yield_now();
                continue;
            }
            match outcome.recv_timeout(PAUSE) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Err(DatapathError::Syscall { call: self.outer.name, source: io::ErrorKind::Interrupted.into() })
    }
}
