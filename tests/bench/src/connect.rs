//! `connect()` as a process of the pod sees it (P15): refused with EPERM, and established over loopback under the same hooks.
//!
//! The calls are made by a second process of this program, because socket hooks go by the caller's cgroup.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::Context as _;
use egress_world::Namespace;

use crate::results::Connect;
use crate::rounds::{Pinned, least, median};

/// Calls of each kind.
const CALLS: usize = 2000;
/// Which no policy allows.
const REFUSED: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 77), 443);

/// The hidden argument that makes a process the caller.
pub(crate) const ARGUMENT: &str = "connect-caller";

/// Cookie of a network namespace.
pub(crate) fn netns_cookie(namespace: &Namespace) -> anyhow::Result<u64> {
    namespace.enter(|| {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (mut cookie, mut length) = (0_u64, libc::socklen_t::try_from(size_of::<u64>())?);
        // SAFETY: the kernel writes at most `length` bytes.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_NETNS_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut length,
            )
        };
        anyhow::ensure!(result == 0, "SO_NETNS_COOKIE: {}", io::Error::last_os_error());
        Ok(cookie)
    })
}

/// Measures in a process in `namespace` and `cgroup`.
pub(crate) fn measure(namespace: &Namespace, cgroup: &Path) -> anyhow::Result<Connect> {
    let mut command = namespace.command(std::env::current_exe()?);
    let output = command.arg(ARGUMENT).arg(cgroup).stderr(Stdio::inherit()).output()?;
    anyhow::ensure!(output.status.success(), "the caller of connect() failed");
    serde_json::from_slice(&output.stdout).context("the caller of connect() answered nonsense")
}

/// What the second process does.
pub(crate) fn call(cgroup: &Path) -> anyhow::Result<()> {
    std::fs::write(cgroup.join("cgroup.procs"), "0").context("joining the cgroup")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let SocketAddr::V4(loopback) = listener.local_addr()? else { anyhow::bail!("not IPv4") };
    let _pinned = Pinned::new()?;
    let (mut denied, mut allowed) = (Vec::new(), Vec::new());
    for _ in 0..CALLS {
        let (took, _, result) = connect(REFUSED)?;
        let refused = result.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EPERM));
        anyhow::ensure!(refused, "connect() to {REFUSED} was not refused: {result:?}");
        denied.push(took);
        let (took, socket, result) = connect(loopback)?;
        result.context("connect() over loopback")?;
        allowed.push(took);
        drop((listener.accept()?, socket));
    }
    let figures = |values: &[f64]| [least(values), median(values)];
    let connect = Connect { denied_us: figures(&denied), loopback_us: figures(&allowed) };
    println!("{}", serde_json::to_string(&connect)?);
    Ok(())
}

/// Microseconds of one blocking call.
fn connect(to: SocketAddrV4) -> anyhow::Result<(f64, OwnedFd, io::Result<()>)> {
    // SAFETY: a plain system call.
    let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    anyhow::ensure!(raw >= 0, "socket: {}", io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let address = libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET)?,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(to.ip().octets()) },
        sin_zero: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address))?;
    let started = Instant::now();
    // SAFETY: the address outlives the call.
    let result = unsafe { libc::connect(raw, (&raw const address).cast(), length) };
    let took = started.elapsed().as_secs_f64() * 1e6;
    let result = if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    Ok((took, socket, result))
}
