//! Network namespaces that exist only as open descriptors, so that the death of this process, however it comes, removes them with
//! all their interfaces. Others reach them as `/proc/PID/fd/N`. Only the calling thread or child ever enters one, and only the
//! network namespace changes: `/sys` stays what it is, unlike under `ip netns exec`.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::SigSet;

/// A network namespace of ours.
#[derive(Debug)]
pub struct Namespace {
    descriptor: OwnedFd,
    name: String,
}

impl Namespace {
    /// Makes a namespace; `name` is for messages.
    pub fn new(name: &str) -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace (needs root)");
            File::open("/proc/thread-self/ns/net").expect("the namespace of this thread").into()
        };
        Self {
            descriptor: std::thread::spawn(make).join().expect("a thread in a new namespace"),
            name: name.to_owned(),
        }
    }

    /// A path that any process of root can open while this process lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.descriptor.as_raw_fd()).into()
    }

    /// The name given at birth.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Moves the calling thread into the namespace, for good.
    pub(crate) fn join(&self) -> nix::Result<()> {
        setns(self.descriptor.as_fd(), CloneFlags::CLONE_NEWNET)
    }

    /// Runs `work` in the namespace, in a thread of its own. Sockets that it makes stay in the namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.join().expect("entering a namespace of ours");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command that will run in the namespace, and not longer than the thread that starts it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let descriptor = self.descriptor.as_raw_fd();
        let mut command = Command::new(program);
        let enter = move || {
            // A process of ours that cleans up when it is interrupted has blocked signals, which the new one is to hear.
            SigSet::empty().thread_set_mask()?;
            // SAFETY: plain system calls, one on a descriptor that the parent keeps open until the child has run exec.
            match unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::setns(descriptor, libc::CLONE_NEWNET)
            } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: the closure only makes system calls, which are allowed between fork and exec.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Writes settings below `/proc/sys/net`. One that this kernel does not have is passed over.
    pub fn sysctl(&self, settings: &[(&str, &str)]) {
        self.enter(|| {
            for (name, value) in settings {
                let path = format!("/proc/sys/net/{name}");
                match std::fs::write(&path, value) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => panic!("{path} = {value}: {error}"),
                }
            }
        });
    }

    /// Runs `ip` commands, one in a line. All of them succeed, or the test ends.
    pub fn ip(&self, batch: &str) {
        if let Err(error) = self.try_ip(batch) {
            panic!("ip failed in {}: {error}\n{batch}", self.name);
        }
    }

    /// Runs `ip` commands until one fails; returns what it said.
    pub fn try_ip(&self, batch: &str) -> Result<(), String> {
        let mut child = self
            .command("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`ip` of iproute2 is needed");
        let mut input = child.stdin.take().expect("the pipe to ip");
        // If ip has ended early it says why itself.
        let _ = input.write_all(batch.as_bytes());
        drop(input);
        let output = child.wait_with_output().expect("waiting for ip");
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }
}
