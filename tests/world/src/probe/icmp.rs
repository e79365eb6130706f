//! Echo requests through the unprivileged ping socket and through a raw socket.

use std::io::Read;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Attempt, Outcome, attempt};
use crate::packet;

const IDENTIFIER: u16 = 0x4545;

/// Echo by a ping socket (`SOCK_DGRAM`).
pub fn ping(remote: IpAddr, patience: Duration) -> Attempt {
    echo(remote, Type::DGRAM, patience)
}

/// Echo by a raw socket.
pub fn ping_raw(remote: IpAddr, patience: Duration) -> Attempt {
    echo(remote, Type::RAW, patience)
}

fn echo(remote: IpAddr, kind: Type, patience: Duration) -> Attempt {
    attempt(|| {
        let (domain, protocol) = match remote {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let mut socket = Socket::new(domain, kind, Some(protocol))?;
        let request = packet::echo_request(remote, IDENTIFIER, 1);
        socket.send_to(&request, &std::net::SocketAddr::new(remote, 0).into())?;
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Outcome::Silence);
            }
            socket.set_read_timeout(Some(left))?;
            let mut answer = [0; 256];
            let length = socket.read(&mut answer)?;
            // A raw IPv4 socket gives the IP header too.
            let skip = if kind == Type::RAW && remote.is_ipv4() { 20 } else { 0 };
            let is_reply = matches!(answer.get(skip), Some(0 | 129));
            if length > skip && is_reply {
                return Ok(Outcome::Answered);
            }
        }
    })
}
