//! Runs a closure as a process of a pod: a fork that joins the pod's cgroup and network namespace, so that every hook sees what it
//! would see of a real container. Results come back as JSON, sockets as descriptors; counters are shared while the process runs.
//!
//! Invariant: the child holds no descriptor of the test but its own end of the channel, never returns and leaves by `_exit`.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::namespace::Namespace;

/// How long a process may stay silent after it was told to end.
const PATIENCE: Duration = Duration::from_mins(1);
/// Where the child keeps its end of the channel; everything above is closed.
const CHANNEL: RawFd = 3;

/// What a running process and its test both see.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Shared {
    stop: AtomicBool,
    counters: [AtomicU64; 8],
}

impl Shared {
    /// Whether the process shall end.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Counts one in counter `index` (of 8).
    pub fn count(&self, index: usize) {
        self.counters[index].fetch_add(1, Ordering::SeqCst);
    }

    /// Counter `index`.
    pub fn counted(&self, index: usize) -> u64 {
        self.counters[index].load(Ordering::SeqCst)
    }
}

/// A page that stays shared across `fork`.
struct SharedPage(std::ptr::NonNull<Shared>);

// SAFETY: the page holds atomics only and is unmapped once, by its owner.
unsafe impl Send for SharedPage {}
// SAFETY: as above.
unsafe impl Sync for SharedPage {}

impl SharedPage {
    fn new() -> Self {
        let size = std::num::NonZeroUsize::new(size_of::<Shared>()).expect("not empty");
        let protection = nix::sys::mman::ProtFlags::PROT_READ | nix::sys::mman::ProtFlags::PROT_WRITE;
        // SAFETY: a fresh anonymous mapping overlaps nothing; zero bytes are a valid `Shared`.
        let page =
            unsafe { nix::sys::mman::mmap_anonymous(None, size, protection, nix::sys::mman::MapFlags::MAP_SHARED) };
        Self(page.expect("a shared page").cast())
    }
}

impl std::ops::Deref for SharedPage {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        // SAFETY: mapped since `new`, until drop, aligned to a page, and only ever accessed through atomics.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this size, and nothing refers to it any more.
        let _ = unsafe { nix::sys::mman::munmap(self.0.cast(), size_of::<Shared>()) };
    }
}

/// A process of a pod that is running. Dropping it ends it.
pub struct Process<T> {
    pid: Pid,
    channel: UnixStream,
    shared: SharedPage,
    reaped: bool,
    result: PhantomData<T>,
}

/// Starts `work` in `namespace` and, if given, in the cgroup directory.
pub(crate) fn start<T, W>(namespace: &Namespace, cgroup: Option<&Path>, name: &str, work: W) -> Process<T>
where
    T: Serialize + DeserializeOwned,
    W: FnOnce(&Shared) -> T,
{
    start_with_descriptor(namespace, cgroup, name, |shared| (work(shared), None))
}

pub(crate) fn start_with_descriptor<T, W>(
    namespace: &Namespace,
    cgroup: Option<&Path>,
    name: &str,
    work: W,
) -> Process<T>
where
    T: Serialize + DeserializeOwned,
    W: FnOnce(&Shared) -> (T, Option<OwnedFd>),
{
    launch(namespace, cgroup, name, work, || {})
}

/// Starts a process that hands over what `make` made in it, and then sleeps until it is dropped.
pub(crate) fn start_and_stay(
    namespace: &Namespace,
    cgroup: Option<&Path>,
    name: &str,
    make: impl FnOnce() -> OwnedFd,
) -> (Process<()>, OwnedFd) {
    let sleep = || {
        loop {
            nix::unistd::pause();
        }
    };
    let mut process: Process<()> = launch(namespace, cgroup, name, |_| ((), Some(make())), sleep);
    let ((), descriptor) = process.answer();
    (process, descriptor.expect("a descriptor"))
}

/// `then`: what the child does once its result is sent.
fn launch<T, W>(namespace: &Namespace, cgroup: Option<&Path>, name: &str, work: W, then: impl FnOnce()) -> Process<T>
where
    T: Serialize + DeserializeOwned,
    W: FnOnce(&Shared) -> (T, Option<OwnedFd>),
{
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let shared = SharedPage::new();
    let procs = cgroup.map(|cgroup| cgroup.join("cgroup.procs"));
    // SAFETY: the child runs on one thread and leaves by `_exit`. It allocates, which glibc makes safe after fork, and takes no lock
    // that another thread of this process could have held.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => {
            Process { pid: child, channel: ours, shared, reaped: false, result: PhantomData }
        }
        ForkResult::Child => {
            let answer = catch_unwind(AssertUnwindSafe(|| {
                enter(namespace, procs.as_deref(), name, &theirs);
                work(&shared)
            }));
            reply(answer);
            then();
            // SAFETY: ends the child without running what belongs to the parent.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Makes the child a process of the pod.
fn enter(namespace: &Namespace, procs: Option<&Path>, name: &str, channel: &UnixStream) {
    let name = std::ffi::CString::new(name).expect("a name without NUL");
    let entered = namespace.join();
    // SAFETY: plain system calls on descriptors of the child alone; PR_SET_NAME reads a string that outlives the call. No object of
    // the parent that owns a descriptor is used afterwards.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        if channel.as_raw_fd() != CHANNEL {
            libc::dup2(channel.as_raw_fd(), CHANNEL);
        }
        libc::close_range(CHANNEL.unsigned_abs() + 1, libc::c_uint::MAX, 0);
    }
    // Only now can a failure be told to the parent.
    entered.expect("entering the namespace");
    if let Some(procs) = procs {
        std::fs::write(procs, "0").unwrap_or_else(|error| panic!("joining {}: {error}", procs.display()));
    }
}

/// Sends the result, preceded by its length and accompanied by a descriptor if there is one.
fn reply<T: Serialize>(answer: std::thread::Result<(T, Option<OwnedFd>)>) {
    let (result, descriptor) = match answer {
        Ok((value, descriptor)) => (Ok(value), descriptor),
        Err(panic) => (Err(panic_text(&*panic)), None),
    };
    let bytes = serde_json::to_vec(&result).unwrap_or_default();
    let length = u64::try_from(bytes.len()).unwrap_or(0).to_ne_bytes();
    let descriptors: Vec<RawFd> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
    let messages = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() { &messages[..0] } else { &messages[..] };
    let _ = sendmsg::<()>(CHANNEL, &[IoSlice::new(&length)], control, MsgFlags::empty(), None);
    // SAFETY: the channel's descriptor belongs to the child, and nothing else closes it.
    let mut channel = unsafe { UnixStream::from_raw_fd(CHANNEL) };
    let _ = channel.write_all(&bytes);
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panicked".to_owned())
}

impl<T: DeserializeOwned> Process<T> {
    /// What the process and the test share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Tells the process to end, and returns its result.
    pub fn stop(self) -> T {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.wait()
    }

    /// Waits for the result. A panic of the process is a panic here.
    pub fn wait(self) -> T {
        self.wait_with_descriptor().0
    }

    pub(crate) fn wait_with_descriptor(mut self) -> (T, Option<OwnedFd>) {
        self.answer()
    }

    /// The result, of a process that may live on.
    fn answer(&mut self) -> (T, Option<OwnedFd>) {
        let deadline = Instant::now() + PATIENCE;
        self.channel.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let (length, descriptor) = loop {
            // Asked before the channel: a process that has ended may have answered.
            let ended = self.ended();
            match self.receive() {
                Some(header) => break header,
                None if ended => panic!("the process ended without a result"),
                None => assert!(Instant::now() < deadline, "the process gave no result within {PATIENCE:?}"),
            }
        };
        let mut bytes = vec![0; length];
        self.channel.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        self.channel.read_exact(&mut bytes).expect("the rest of the result");
        let result: Result<T, String> = serde_json::from_slice(&bytes).expect("a result in JSON");
        (result.unwrap_or_else(|text| panic!("in the pod: {text}")), descriptor)
    }

    /// The length of the result and a descriptor, once they are there.
    fn receive(&self) -> Option<(usize, Option<OwnedFd>)> {
        let mut length = [0; 8];
        let mut space = nix::cmsg_space!([RawFd; 1]);
        let mut slices = [IoSliceMut::new(&mut length)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(self.channel.as_raw_fd(), &mut slices, Some(&mut space), flags).ok()?;
        let mut descriptor = None;
        for control in message.cmsgs().ok()? {
            if let ControlMessageOwned::ScmRights(received) = control {
                // SAFETY: the kernel has just made these descriptors for us.
                descriptor = received.first().map(|&raw| unsafe { OwnedFd::from_raw_fd(raw) });
            }
        }
        (message.bytes == 8).then(|| (usize::try_from(u64::from_ne_bytes(length)).expect("fits"), descriptor))
    }

    fn ended(&mut self) -> bool {
        self.reaped =
            self.reaped || !matches!(waitpid(self.pid, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive));
        self.reaped
    }
}

impl<T> Drop for Process<T> {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}
