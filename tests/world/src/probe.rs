//! What a process in a pod can try in order to get out, and what it gets for it. Every probe runs inside of a pod's process
//! ([`Pod::run`](crate::Pod::run)) and reports what the caller saw; what arrived on the wire is the sniffer's to say.

mod icmp;
mod raw;
mod sctp;
mod tcp;
mod udp;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use socket2::Domain;

pub use icmp::{ping, ping_raw};
pub use raw::{frame, raw_ip};
pub use sctp::sctp;
pub use tcp::{mptcp_echo, tcp, tcp_bulk, tcp_echo, tcp_fast_open};
pub use udp::{udp_connected, udp_large, udp_unconnected};

/// How long an answer may take on this machine before it counts as none. A refusal must not need it.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long a probe waits for an answer that is expected not to come.
pub const SILENCE: Duration = Duration::from_millis(150);

/// What a probe got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The remote answered.
    Answered,
    /// The calls succeeded, and nothing came back in time.
    Silence,
    /// A call failed with this `errno`.
    Failed(i32),
    /// The kernel has no such protocol.
    Unsupported,
}

/// One try.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// What it got.
    pub outcome: Outcome,
    /// How long that took.
    pub elapsed: Duration,
}

impl Attempt {
    /// Refused by the kernel at once: EPERM (§7.1).
    pub fn is_refused(&self) -> bool {
        self.outcome == Outcome::Failed(libc::EPERM)
    }

    /// The remote answered.
    pub fn is_answered(&self) -> bool {
        self.outcome == Outcome::Answered
    }
}

/// Runs one try and takes its time.
fn attempt(try_it: impl FnOnce() -> std::io::Result<Outcome>) -> Attempt {
    let start = Instant::now();
    let outcome = match try_it() {
        Ok(outcome) => outcome,
        Err(error) => from_error(&error),
    };
    Attempt { outcome, elapsed: start.elapsed() }
}

fn from_error(error: &std::io::Error) -> Outcome {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINPROGRESS | libc::ETIMEDOUT) => Outcome::Silence,
        Some(libc::EPROTONOSUPPORT | libc::ENOPROTOOPT | libc::ESOCKTNOSUPPORT | libc::EAFNOSUPPORT) => {
            Outcome::Unsupported
        }
        Some(number) => Outcome::Failed(number),
        None if error.kind() == std::io::ErrorKind::TimedOut => Outcome::Silence,
        None => panic!("a probe failed in a way of its own: {error}"),
    }
}

fn domain(remote: SocketAddr) -> Domain {
    Domain::for_address(remote)
}
