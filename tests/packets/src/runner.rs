//! `BPF_PROG_TEST_RUN`, in this thread or in a process of its own that sits in a cgroup: the kernel gives the packet a socket of
//! the running process, so programs that ask for the socket's cgroup must be run from inside it.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

/// Longest frame, in and out; a program may lengthen what it gets.
const FRAME: usize = 4096;

/// What a run gave back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    /// What the program returned.
    pub(crate) action: u32,
    /// The frame as the program left it.
    pub(crate) output: Vec<u8>,
}

/// `union bpf_attr` for `BPF_PROG_TEST_RUN` (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    program: u32,
    action: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// Index of the loopback, the interface of a run that names none.
const LOOPBACK: u32 = 1;

/// Runs `program` on `frame` at an interface of this network namespace and leaves the result in `output`. Returns action and length, or an
/// `errno`. Allocates nothing, so that a forked child may call it.
fn run_raw(program: RawFd, frame: &[u8], interface: u32, output: &mut [u8; FRAME]) -> Result<(u32, usize), i32> {
    const BPF_PROG_TEST_RUN: libc::c_long = 10;
    /// `sizeof(struct __sk_buff)` and the place of `ifindex` in it, in words.
    const SKB_WORDS: usize = 48;
    const SKB_IFINDEX: usize = 10;
    let mut context = [0_u32; SKB_WORDS];
    context[SKB_IFINDEX] = interface;
    let has_context = interface != LOOPBACK;
    let mut attributes = Attributes {
        program: program.unsigned_abs(),
        size_in: u32::try_from(frame.len()).unwrap_or(u32::MAX),
        size_out: u32::try_from(FRAME).unwrap_or(u32::MAX),
        data_in: frame.as_ptr().addr() as u64,
        data_out: output.as_mut_ptr().addr() as u64,
        repeat: 1,
        context_size_in: if has_context { u32::try_from(size_of_val(&context)).unwrap_or(0) } else { 0 },
        context_in: if has_context { context.as_ptr().addr() as u64 } else { 0 },
        ..Attributes::default()
    };
    // SAFETY: the buffers live through the call and have the sizes that are named.
    let status =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attributes, size_of::<Attributes>()) };
    if status < 0 {
        return Err(nix::errno::Errno::last_raw());
    }
    Ok((attributes.action, attributes.size_out as usize))
}

/// Runs `program` on `frame` in this thread: its network namespace's loopback is the interface.
pub(crate) fn run_here(program: RawFd, frame: &[u8]) -> io::Result<Ran> {
    run_at(program, frame, LOOPBACK)
}

/// The same at another interface of the namespace.
pub(crate) fn run_at(program: RawFd, frame: &[u8], interface: u32) -> io::Result<Ran> {
    let mut output = [0; FRAME];
    let (action, length) = run_raw(program, frame, interface, &mut output).map_err(io::Error::from_raw_os_error)?;
    Ok(Ran { action, output: output[..length].to_vec() })
}

/// A process in a cgroup that runs programs when told.
pub(crate) struct Member {
    process: Pid,
    socket: OwnedFd,
}

impl Member {
    /// Starts a process in `cgroup`. It knows the descriptors that are open now.
    pub(crate) fn start(cgroup: &Path) -> anyhow::Result<Self> {
        let list = OpenOptions::new().write(true).open(cgroup.join("cgroup.procs"))?;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: the child only makes system calls, on buffers of its own stack, and never returns.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                let member = Self { process: child, socket: ours };
                let mut joined = [0; 1];
                let length = recv(member.socket.as_raw_fd(), &mut joined, MsgFlags::empty())?;
                anyhow::ensure!(length == 1 && joined == [1], "a process cannot join {}", cgroup.display());
                Ok(member)
            }
            ForkResult::Child => serve(list.as_raw_fd(), theirs.as_raw_fd()),
        }
    }

    /// Runs `program` on `frame` in the cgroup.
    pub(crate) fn run(&self, program: RawFd, frame: &[u8]) -> io::Result<Ran> {
        let mut request = program.to_ne_bytes().to_vec();
        request.extend(frame);
        send(self.socket.as_raw_fd(), &request, MsgFlags::MSG_NOSIGNAL)?;
        let mut answer = [0; 8 + FRAME];
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let died = || io::Error::other("the process died");
        let (error, rest) = answer[..length].split_first_chunk::<4>().ok_or_else(died)?;
        let (action, output) = rest.split_first_chunk::<4>().ok_or_else(died)?;
        match i32::from_ne_bytes(*error) {
            0 => Ok(Ran { action: u32::from_ne_bytes(*action), output: output.to_vec() }),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = kill(self.process, Signal::SIGKILL);
        let _ = waitpid(self.process, None);
    }
}

/// The child: joins the cgroup, then runs programs until it is killed. Only system calls: other threads of the parent may have
/// held locks when it was forked.
fn serve(list: RawFd, socket: RawFd) -> ! {
    let mut request = [0_u8; 4 + FRAME];
    let mut answer = [0_u8; 8 + FRAME];
    let mut output = [0_u8; FRAME];
    // SAFETY: plain system calls on buffers of this stack with their sizes; "0" is the calling process.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let joined = [u8::from(libc::write(list, c"0".as_ptr().cast(), 1) == 1)];
        libc::send(socket, joined.as_ptr().cast(), 1, libc::MSG_NOSIGNAL);
        loop {
            let length = libc::recv(socket, request.as_mut_ptr().cast(), request.len(), 0);
            if length < 4 {
                libc::_exit(0);
            }
            let program = RawFd::from_ne_bytes([request[0], request[1], request[2], request[3]]);
            let (error, action, size) =
                match run_raw(program, &request[4..length.unsigned_abs()], LOOPBACK, &mut output) {
                    Ok((action, size)) => (0, action, size),
                    Err(error) => (error, 0, 0),
                };
            answer[..4].copy_from_slice(&error.to_ne_bytes());
            answer[4..8].copy_from_slice(&action.to_ne_bytes());
            answer[8..8 + size].copy_from_slice(&output[..size]);
            libc::send(socket, answer.as_ptr().cast(), 8 + size, libc::MSG_NOSIGNAL);
        }
    }
}
