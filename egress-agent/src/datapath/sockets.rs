//! The TCP sockets of the calling thread's network namespace: by `sock_diag(7)`, or from `/proc/net/tcp` where the kernel has no
//! `tcp_diag`. The file costs milliseconds each time, however few sockets there are: it walks the machine's whole hash table one lock
//! or call at a time, and a burst of new pods asks for each of them twice.

use std::fs;
use std::io;

use egress_common::packet::mapped;
use nix::libc::{AF_INET, AF_INET6, IPPROTO_TCP};
use nix::sys::socket::SockProtocol;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::netlink::{DUMP, Socket};

/// States as the kernel numbers them (`net/tcp_states.h`).
pub(super) mod state {
    pub(in super::super) const TIME_WAIT: u8 = 6;
    pub(in super::super) const CLOSE: u8 = 7;
    pub(in super::super) const LISTEN: u8 = 10;
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// `struct inet_diag_sockid`: ports and addresses in network order.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
struct Id {
    local_port: [u8; 2],
    remote_port: [u8; 2],
    local: [u8; 16],
    remote: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct inet_diag_req_v2`.
#[repr(C)]
#[derive(Clone, Copy, IntoBytes, KnownLayout, Immutable)]
struct Request {
    family: u8,
    protocol: u8,
    extensions: u8,
    padding: u8,
    states: u32,
    id: Id,
}

/// The beginning of `struct inet_diag_msg`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, KnownLayout, Immutable)]
struct Answer {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: Id,
}

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TcpSocket {
    /// IPv4 is mapped.
    pub(super) remote: [u8; 16],
    pub(super) remote_port: u16,
    pub(super) local_port: u16,
    /// One of [`state`], or another one.
    pub(super) state: u8,
}

/// Every TCP socket of both families.
pub(super) fn all() -> io::Result<Vec<TcpSocket>> {
    by_netlink().or_else(|_| by_file())
}

fn by_netlink() -> io::Result<Vec<TcpSocket>> {
    let socket = Socket::open(SockProtocol::NetlinkSockDiag, 0)?;
    let byte = |number: i32| u8::try_from(number).map_err(io::Error::other);
    let mut sockets = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let (family, protocol) = (byte(family)?, byte(IPPROTO_TCP)?);
        let request = Request { family, protocol, extensions: 0, padding: 0, states: u32::MAX, id: Id::default() };
        socket.ask(SOCK_DIAG_BY_FAMILY, DUMP, request.as_bytes(), |_, payload| sockets.extend(answer(payload)))?;
    }
    Ok(sockets)
}

fn answer(payload: &[u8]) -> Option<TcpSocket> {
    let (answer, _) = Answer::read_from_prefix(payload).ok()?;
    let remote = answer.id.remote;
    let remote = match (i32::from(answer.family), remote) {
        (AF_INET, [a, b, c, d, ..]) => mapped([a, b, c, d]),
        _ => remote,
    };
    let [remote_port, local_port] = [answer.id.remote_port, answer.id.local_port].map(u16::from_be_bytes);
    Some(TcpSocket { remote, remote_port, local_port, state: answer.state })
}

fn by_file() -> io::Result<Vec<TcpSocket>> {
    let mut text = fs::read_to_string("/proc/thread-self/net/tcp")?;
    // Absent where IPv6 is off.
    text.push_str(&fs::read_to_string("/proc/thread-self/net/tcp6").unwrap_or_default());
    Ok(text.lines().filter_map(row).collect())
}

/// One line: `sl local_address rem_address st …`, addresses as `HEX:PORT`.
fn row(line: &str) -> Option<TcpSocket> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    let (_, local_port) = local.split_once(':')?;
    let (remote, remote_port) = remote.split_once(':')?;
    let port = |hex| u16::from_str_radix(hex, 16).ok();
    let state = u8::from_str_radix(state, 16).ok()?;
    Some(TcpSocket { remote: address(remote)?, remote_port: port(remote_port)?, local_port: port(local_port)?, state })
}

/// An address as the kernel prints it: 32-bit words of network order, each printed in the machine's order.
fn address(hex: &str) -> Option<[u8; 16]> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(mapped(word(0)?)),
        32 => Some(zerocopy::transmute!([word(0)?, word(8)?, word(16)?, word(24)?])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

    use super::*;

    /// The sockets that have to do with `port`, in an order of their own.
    fn of(port: u16, sockets: Vec<TcpSocket>) -> Vec<TcpSocket> {
        let is_ours = |socket: &TcpSocket| socket.local_port == port || socket.remote_port == port;
        let mut found: Vec<TcpSocket> = sockets.into_iter().filter(is_ours).collect();
        found.sort_by_key(|socket| (socket.local_port, socket.remote_port, socket.state, socket.remote));
        found
    }

    #[test]
    fn both_ways_to_ask_find_a_listener_and_both_ends_of_a_connection_in_both_families() {
        for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))] {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (_server, remote) = listener.accept().unwrap();
            let found = of(port, by_netlink().unwrap());
            assert_eq!(found, of(port, by_file().unwrap()));
            assert_eq!(found.len(), 3, "{found:?}");
            let listening: Vec<bool> = found.iter().map(|socket| socket.state == state::LISTEN).collect();
            assert_eq!(listening.iter().filter(|&&listens| listens).count(), 1, "{found:?}");
            let accepted = found.iter().find(|socket| socket.remote_port == remote.port()).unwrap();
            let expected = match remote.ip() {
                std::net::IpAddr::V4(address) => mapped(address.octets()),
                std::net::IpAddr::V6(address) => address.octets(),
            };
            assert_eq!((accepted.remote, accepted.local_port), (expected, port));
            drop(client);
        }
    }

    #[test]
    fn a_line_of_the_file_gives_ipv4_ipv6_and_mapped_remotes() {
        let remote = |line: &str| row(line).unwrap().remote;
        let native = "2001:db8:0:1::4".parse::<Ipv6Addr>().unwrap().octets();
        assert_eq!(remote("1: 0200F40A:1F90 04030201:C350 01 0:0 00:0 0"), mapped([1, 2, 3, 4]));
        let any = "00000000000000000000000000000000:1F90";
        assert_eq!(remote(&format!("1: {any} B80D0120010000000000000004000000:C350 01 0:0 00:0 0")), native);
        assert_eq!(
            remote(&format!("2: {any} 0000000000000000FFFF000004030201:C351 08 0:0 00:0 0")),
            mapped([1, 2, 3, 4])
        );
        assert_eq!(row("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid"), None);
    }
}
