//! Connections that a pod had accepted before its first policy: without them its first deny would cut clients that came from
//! outside (§1.4). TCP only: what a UDP socket heard before cannot be told from what it asked for.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::thread;

use egress_common::abi::map;
use egress_common::flow::{Flow, FlowKey, origin};
use egress_common::packet::protocol;
use nix::sched::{CloneFlags, setns};
use nix::time::{ClockId, clock_gettime};

use super::error::DatapathError;
use super::maps::{self, Flows};
use super::pins::Pins;
use super::sockets::{self, TcpSocket, state};

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

/// Looks at the namespace's sockets from a thread that enters it and ends there.
fn inside(namespace: &Path) -> io::Result<Vec<Accepted>> {
    let namespace = File::open(namespace)?;
    let read = move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        Ok(accepted(&sockets::all()?))
    };
    let thread = thread::Builder::new().name("connections".into()).spawn(read)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that entered it died")))
}

/// The connections whose local port somebody listens on.
fn accepted(sockets: &[TcpSocket]) -> Vec<Accepted> {
    let listening: BTreeSet<u16> =
        sockets.iter().filter(|socket| socket.state == state::LISTEN).map(|socket| socket.local_port).collect();
    let is_connection = |socket: &&TcpSocket| {
        ![state::LISTEN, state::TIME_WAIT, state::CLOSE].contains(&socket.state)
            && listening.contains(&socket.local_port)
    };
    let accepted = |socket: &TcpSocket| Accepted {
        remote: socket.remote,
        remote_port: socket.remote_port,
        local_port: socket.local_port,
    };
    sockets.iter().filter(is_connection).map(accepted).collect()
}

#[cfg(test)]
mod tests {
    use egress_common::packet::mapped;

    use super::*;

    #[test]
    fn only_connections_to_a_listening_port_were_accepted() {
        const ESTABLISHED: u8 = 1;
        let socket = |local_port, remote, remote_port, state| TcpSocket {
            remote: mapped(remote),
            remote_port,
            local_port,
            state,
        };
        let sockets = [
            socket(8080, [0; 4], 0, state::LISTEN),
            socket(8080, [1, 2, 3, 4], 50_000, ESTABLISHED),
            socket(50_001, [5, 6, 7, 8], 80, ESTABLISHED),
            socket(8080, [1, 2, 3, 4], 50_002, state::TIME_WAIT),
        ];
        let expected = Accepted { remote: mapped([1, 2, 3, 4]), remote_port: 50_000, local_port: 8080 };
        assert_eq!(accepted(&sockets), [expected]);
    }
}
