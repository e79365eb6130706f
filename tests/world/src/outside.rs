//! The rest of the world: one network namespace that answers for every external address (1.2.3.0/24, 5.6.7.0/24, 10.1.0.0/16,
//! 10.2.0.0/16, 198.51.100.0/24 and `2001:db8::/32`), with echo servers and a sniffer at its door.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::echo::{self, Servers};
use crate::namespace::Namespace;
use crate::packet::Seen;
use crate::sniffer::Sniffer;

/// Ports with echo servers, TCP and UDP.
pub(crate) const PORTS: [u16; 5] = [53, 80, 443, 8080, 9000];
/// The address of the fence; it belongs to no test.
const FENCE: &str = "169.254.1.2";

/// Everything behind the node.
pub struct Outside {
    network: Arc<Namespace>,
    node: Arc<Namespace>,
    servers: Servers,
}

impl Outside {
    pub(crate) fn new(network: Arc<Namespace>, node: Arc<Namespace>) -> Self {
        let servers = Servers::default();
        let sockets = network.enter(|| PORTS.map(|port| (echo::tcp_socket(port), echo::udp_socket(port))));
        for (tcp, udp) in sockets {
            servers.serve_tcp(tcp);
            servers.serve_udp(udp);
        }
        Self { network, node, servers }
    }

    /// Its network namespace.
    pub fn network(&self) -> &Namespace {
        &self.network
    }

    /// Serves TCP and UDP echo on one more port.
    pub fn serve(&self, port: u16) {
        let (tcp, udp) = self.network.enter(|| (echo::tcp_socket(port), echo::udp_socket(port)));
        self.servers.serve_tcp(tcp);
        self.servers.serve_udp(udp);
    }

    /// Watches what arrives from the node from now on.
    pub fn sniff(&self) -> Wire {
        Wire { sniffer: Sniffer::new(&self.network, "eth0", false), node: Arc::clone(&self.node) }
    }

    /// Connects from the external address `from`.
    pub fn tcp(&self, from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
        self.network.enter(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(from, 0).into())?;
            socket.connect_timeout(&to.into(), Duration::from_secs(3))?;
            Ok(socket.into())
        })
    }

    /// A UDP socket at the external address `from`.
    pub fn udp(&self, from: SocketAddr) -> UdpSocket {
        self.network.enter(|| UdpSocket::bind(from).expect("an external address"))
    }
}

/// A sniffer between the node and the outside.
pub struct Wire {
    sniffer: Sniffer,
    node: Arc<Namespace>,
}

impl Wire {
    /// The packets to `destination` that have arrived, everything that was under way included.
    pub fn arrived(&mut self, destination: IpAddr) -> Vec<Seen> {
        let seen = self.sniffer.seen_behind_fence(&self.node, FENCE.parse().expect("an address"));
        seen.iter().filter(|seen| !seen.outgoing && seen.destination == destination).cloned().collect()
    }

    /// Waits until a packet to `destination` has arrived that fits; `false` if none does in time.
    pub fn wait_for(&mut self, destination: IpAddr, mut fits: impl FnMut(&Seen) -> bool) -> bool {
        self.sniffer.wait_for(|seen| !seen.outgoing && seen.destination == destination && fits(seen))
    }

    /// Takes what has arrived out of the kernel's buffer, which a long stream would fill.
    pub fn pump(&mut self) {
        self.sniffer.seen();
    }

    /// Forgets what has arrived so far.
    pub fn forget(&mut self) {
        self.sniffer.forget();
    }
}
