//! Traffic that runs while the agent is killed and restarted: one wrong verdict in all of it is a slip.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use egress_world::{Pod, Process, Shared, eventually};

const RIGHT: usize = 0;
const SLIPS: usize = 1;
const PATIENCE: Duration = Duration::from_secs(3);
/// Between rounds, so that the sniffer can keep up.
const PAUSE: Duration = Duration::from_micros(200);

/// A process that keeps calling.
pub(super) struct Traffic(Process<(u64, u64)>);

impl Traffic {
    /// Calls `allowed` and `denied` in turn, by TCP and UDP, until stopped.
    pub(super) fn start(pod: &Pod, allowed: Vec<SocketAddr>, denied: Vec<SocketAddr>) -> Self {
        Self(pod.start(move |shared| {
            let [v4, v6] = ["0.0.0.0:0", "[::]:0"].map(|any| UdpSocket::bind(any).ok());
            while !shared.stopped() {
                for (addresses, expected) in [(&allowed, true), (&denied, false)] {
                    for &to in addresses {
                        note(shared, passes_tcp(to) == Some(expected));
                        let udp = if to.is_ipv4() { &v4 } else { &v6 };
                        note(shared, passes_udp(udp.as_ref(), to) == Some(expected));
                    }
                }
                std::thread::sleep(PAUSE);
            }
            (shared.counted(RIGHT), shared.counted(SLIPS))
        }))
    }

    /// Calls so far that had the right result.
    pub(super) fn right(&self) -> u64 {
        self.0.shared().counted(RIGHT)
    }

    /// Waits for some more calls; false if there are none.
    pub(super) fn goes_on(&self) -> bool {
        let target = self.right() + 200;
        eventually(|| self.right() >= target)
    }

    /// Ends it; calls with the right and with the wrong result.
    pub(super) fn stop(self) -> (u64, u64) {
        self.0.stop()
    }
}

fn note(shared: &Shared, right: bool) {
    shared.count(if right { RIGHT } else { SLIPS });
}

fn verdict<T>(result: std::io::Result<T>) -> Option<bool> {
    match result {
        Ok(_) => Some(true),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Some(false),
        Err(_) => None,
    }
}

fn passes_tcp(to: SocketAddr) -> Option<bool> {
    verdict(TcpStream::connect_timeout(&to, PATIENCE))
}

fn passes_udp(socket: Option<&UdpSocket>, to: SocketAddr) -> Option<bool> {
    verdict(socket?.send_to(b"hello", to))
}
