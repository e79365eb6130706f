//! SCTP, where the kernel has it.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Protocol, Socket, Type};

use super::{Attempt, Outcome, attempt, domain};

/// Connects by SCTP. Nobody listens outside: an ABORT from there (connection refused) counts as an answer.
pub fn sctp(remote: SocketAddr, patience: Duration) -> Attempt {
    attempt(|| {
        let socket = Socket::new(domain(remote), Type::STREAM, Some(Protocol::from(libc::IPPROTO_SCTP)))?;
        match socket.connect_timeout(&remote.into(), patience) {
            Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => Ok(Outcome::Answered),
            Err(error) => Err(error),
            Ok(()) => Ok(Outcome::Answered),
        }
    })
}
