//! What can only be learned inside a pod's network namespace: its cookie and the links in it.
//!
//! A thread of its own enters the namespace and ends there; no other thread of the agent ever leaves its own.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::netlink::{Link, Netlink};

/// `SO_NETNS_COOKIE`, Linux 5.14; not in libc for every target.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// A network namespace seen from inside.
#[derive(Debug)]
pub(super) struct Namespace {
    /// Number that the kernel never gives to another namespace.
    pub(super) cookie: u64,
    pub(super) links: Vec<Link>,
    /// Keeps the namespace nameable while it is compared with others.
    pub(super) file: File,
}

/// Why a namespace could not be looked at.
#[derive(Debug, thiserror::Error)]
pub(super) enum NetnsError {
    #[error("there is no network namespace at {}", .0.display())]
    Absent(PathBuf),
    #[error("{} is not a network namespace; if it is left over in /run/netns, delete it", .0.display())]
    NotANamespace(PathBuf),
    #[error("cannot look into the network namespace {}: {error}", path.display())]
    Failed {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
}

/// Looks into the namespace at `path`.
pub(super) fn look(path: &Path) -> Result<Namespace, NetnsError> {
    let failed = |error| NetnsError::Failed { path: path.to_path_buf(), error };
    let file = File::open(path).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound { NetnsError::Absent(path.to_path_buf()) } else { failed(error) }
    })?;
    let entered = file.try_clone().map_err(failed)?;
    let thread = thread::Builder::new().name("netns".into()).spawn(move || inside(&entered)).map_err(failed)?;
    match thread.join() {
        Ok(Ok((cookie, links))) => Ok(Namespace { cookie, links, file }),
        Ok(Err(error)) if error.raw_os_error() == Some(libc::EINVAL) => {
            Err(NetnsError::NotANamespace(path.to_path_buf()))
        }
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(failed(io::Error::other("the thread that entered it died"))),
    }
}

fn inside(namespace: &File) -> io::Result<(u64, Vec<Link>)> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    Ok((cookie()?, Netlink::open()?.links()?))
}

/// The cookie of the calling thread's network namespace.
pub(super) fn cookie() -> io::Result<u64> {
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: the option writes at most `length` bytes, and `cookie` has that many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_has_the_same_cookie_from_inside_and_from_a_helper_thread() {
        let own = cookie().unwrap();
        assert_ne!(own, 0);
        match look(Path::new("/proc/self/ns/net")) {
            Ok(namespace) => assert_eq!(namespace.cookie, own),
            // setns needs CAP_SYS_ADMIN.
            Err(error) => assert!(error.to_string().contains("cannot look into"), "{error}"),
        }
    }

    #[test]
    fn a_path_that_is_absent_or_something_else_is_said_to_be_so() {
        assert!(matches!(look(Path::new("/run/netns/no-such-thing")), Err(NetnsError::Absent(_))));
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = look(file.path()).unwrap_err();
        assert!(matches!(error, NetnsError::NotANamespace(_) | NetnsError::Failed { .. }));
    }
}
