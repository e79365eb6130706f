//! Connections that a pod had accepted before its first policy: without them its first deny would cut clients that came from
//! outside (§1.4). TCP only: what a UDP socket heard before cannot be told from what it asked for.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread;

use egress_common::abi::map;
use egress_common::flow::{Flow, FlowKey, origin};
use egress_common::packet::{mapped, protocol};
use nix::sched::{CloneFlags, setns};
use nix::time::{ClockId, clock_gettime};

use super::error::DatapathError;
use super::maps::{self, Flows};
use super::pins::Pins;

/// A connection that reached a listening port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Accepted {
    remote: [u8; 16],
    remote_port: u16,
    local_port: u16,
}

/// Lets the kernel know the connections that `endpoint` has accepted so far. Returns how many.
pub(super) fn accepted_connections(pins: &Pins, endpoint: u32, namespace: &Path) -> Result<usize, DatapathError> {
    let connections = inside(namespace).map_err(DatapathError::path("reading the connections in", namespace))?;
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_err(|error| DatapathError::Syscall { call: "clock_gettime", source: error.into() })?;
    let last_seen = u64::try_from(std::time::Duration::from(now).as_nanos()).unwrap_or(u64::MAX);
    let mut flows: Flows = maps::open(pins, map::FLOWS)?;
    for connection in &connections {
        let key = FlowKey {
            remote: connection.remote,
            endpoint,
            remote_port: connection.remote_port.to_be_bytes(),
            local_port: connection.local_port.to_be_bytes(),
            protocol: u32::from(protocol::TCP),
        };
        let key: [u8; size_of::<FlowKey>()] = zerocopy::transmute!(key);
        let flow = Flow { last_seen, origin: origin::OUTSIDE, name: 0 };
        let flow: [u8; size_of::<Flow>()] = zerocopy::transmute!(flow);
        flows.insert(key, flow, 0).map_err(DatapathError::map(map::FLOWS))?;
    }
    Ok(connections.len())
}

/// Reads the namespace's sockets from a thread that enters it and ends there.
fn inside(namespace: &Path) -> io::Result<Vec<Accepted>> {
    let namespace = File::open(namespace)?;
    let read = move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let mut sockets = fs::read_to_string("/proc/thread-self/net/tcp")?;
        // Absent where IPv6 is off.
        sockets.push_str(&fs::read_to_string("/proc/thread-self/net/tcp6").unwrap_or_default());
        Ok(accepted(&sockets))
    };
    let thread = thread::Builder::new().name("connections".into()).spawn(read)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that entered it died")))
}

/// The connections in `/proc/net/tcp` and `tcp6` whose local port somebody listens on.
fn accepted(sockets: &str) -> Vec<Accepted> {
    const LISTEN: &str = "0A";
    const TIME_WAIT: &str = "06";
    const CLOSE: &str = "07";
    let rows: Vec<(Accepted, &str)> = sockets.lines().filter_map(row).collect();
    let listening: BTreeSet<u16> =
        rows.iter().filter(|(_, state)| *state == LISTEN).map(|(socket, _)| socket.local_port).collect();
    rows.into_iter()
        .filter(|(socket, state)| ![LISTEN, TIME_WAIT, CLOSE].contains(state) && listening.contains(&socket.local_port))
        .map(|(socket, _)| socket)
        .collect()
}

/// One line: `sl local_address rem_address st …`, addresses as `HEX:PORT`.
fn row(line: &str) -> Option<(Accepted, &str)> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    let (_, local_port) = local.split_once(':')?;
    let (remote, remote_port) = remote.split_once(':')?;
    let port = |hex| u16::from_str_radix(hex, 16).ok();
    let socket = Accepted { remote: address(remote)?, remote_port: port(remote_port)?, local_port: port(local_port)? };
    Some((socket, state))
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
    use std::net::Ipv6Addr;

    use super::*;

    const HEADER: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n";

    #[test]
    fn only_connections_to_a_listening_port_were_accepted() {
        let sockets = format!(
            "{HEADER}   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n\
                1: 0200F40A:1F90 04030201:C350 01 00000000:00000000 00:00000000 00000000     0\n\
                2: 0200F40A:C351 08070605:0050 01 00000000:00000000 00:00000000 00000000     0\n\
                3: 0200F40A:1F90 04030201:C352 06 00000000:00000000 00:00000000 00000000     0\n"
        );
        let expected = Accepted { remote: mapped([1, 2, 3, 4]), remote_port: 50_000, local_port: 8080 };
        assert_eq!(accepted(&sockets), [expected]);
    }

    #[test]
    fn an_ipv6_socket_gives_ipv6_and_mapped_remotes() {
        let sockets = format!(
            "{HEADER}   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0 00:0 0\n\
                1: 00000000000000000000000000000000:1F90 B80D0120010000000000000004000000:C350 01 0:0 00:0 0\n\
                2: 00000000000000000000000000000000:1F90 0000000000000000FFFF000004030201:C351 08 0:0 00:0 0\n"
        );
        let remotes: Vec<[u8; 16]> = accepted(&sockets).iter().map(|connection| connection.remote).collect();
        let native = "2001:db8:0:1::4".parse::<Ipv6Addr>().unwrap().octets();
        assert_eq!(remotes, [native, mapped([1, 2, 3, 4])]);
    }
}
