//! Netlink sockets: one request, every message of the answer. Layout: netlink(7).
//!
//! What is asked is the caller's: links and namespaces by [`discovery`](crate::discovery), TCP sockets by
//! [`datapath`](crate::datapath).

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendmsg, socket,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
/// All of a kind, and not one of them.
pub(crate) const DUMP: u16 = 0x300;
/// What is listed changed meanwhile.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// Larger than any message that the kernel sends at once (it uses at most 32 KiB).
const BUFFER: usize = 1 << 16;

/// `struct nlmsghdr`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
struct Header {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// A netlink socket; it belongs to the network namespace it was opened in.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// A socket that hears what is told to `groups`.
    pub(crate) fn open(protocol: SockProtocol, groups: u32) -> io::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self(socket))
    }

    /// Waits for a message and throws it away. A full buffer (ENOBUFS) counts as one.
    pub(crate) fn wait(&self) -> io::Result<()> {
        let mut buffer = [0_u8; 8192];
        match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(_) | Err(nix::errno::Errno::ENOBUFS | nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends one request and hands every message of the answer to `each`: its kind and its payload. `Interrupted` if a listing is not of one moment.
    pub(crate) fn ask(&self, kind: u16, flags: u16, body: &[u8], mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let header = Header {
            length: u32::try_from(size_of::<Header>() + body.len()).map_err(io::Error::other)?,
            kind,
            flags: NLM_F_REQUEST | flags,
            sequence: 1,
            port: 0,
        };
        let parts = [IoSlice::new(header.as_bytes()), IoSlice::new(body)];
        sendmsg::<NetlinkAddr>(self.0.as_raw_fd(), &parts, &[], MsgFlags::empty(), None)?;
        let mut buffer = vec![0; BUFFER];
        let mut interrupted = false;
        loop {
            let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((header, payload, next)) = message(rest) {
                interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                match header.kind {
                    NLMSG_DONE if interrupted => return Err(io::ErrorKind::Interrupted.into()),
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return error(payload),
                    kind => each(kind, payload),
                }
                rest = next;
            }
            if flags & DUMP == 0 {
                return Ok(());
            }
        }
    }
}

/// The first message of a buffer, and what follows it.
fn message(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let (header, _) = Header::read_from_prefix(bytes).ok()?;
    let length = usize::try_from(header.length).ok()?;
    let payload = bytes.get(size_of::<Header>()..length)?;
    Some((header, payload, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The result that an error message carries; 0 is an acknowledgement.
fn error(payload: &[u8]) -> io::Result<()> {
    match payload.get(..4).and_then(int) {
        Some(0) => Ok(()),
        Some(negative) => Err(io::Error::from_raw_os_error(negative.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A number in the machine's order.
pub(crate) fn int(bytes: &[u8]) -> Option<i32> {
    Some(i32::from_ne_bytes(bytes.try_into().ok()?))
}
