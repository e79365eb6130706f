//! A host of name servers: a network namespace of its own beside the node, with two addresses of each family. Nothing serves there
//! until a [`Dnsmasq`] or a [`Scripted`] server is started.
//!
//! To be made before the agent is started: it gives the node one more address of each family.

mod dnsmasq;
pub mod message;
mod scripted;
mod stub;
mod zone;

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::namespace::Namespace;
use crate::world::World;

pub use dnsmasq::Dnsmasq;
pub use scripted::{Scripted, Sent, Transport};
pub use stub::{lookup, use_resolvers};
pub use zone::ZoneServer;

/// The addresses at which the servers answer.
pub const RESOLVERS: [&str; 2] = ["192.0.2.53", "2001:db8:53::53"];
/// Further addresses of the same host, which policies do not trust.
pub const STRANGERS: [&str; 2] = ["192.0.2.54", "2001:db8:53::54"];
/// Port of name servers.
pub(crate) const PORT: u16 = 53;
/// How long a server may take to begin.
const START: Duration = Duration::from_secs(2);

/// The host.
pub struct Resolver {
    network: Arc<Namespace>,
    files: PathBuf,
}

impl Resolver {
    /// Connects the host with the node of the world.
    pub fn new(world: &World) -> Self {
        let network = Arc::new(Namespace::new("resolver"));
        network.sysctl(&crate::world::EVERYWHERE);
        world.node().ip(&format!(
            "link add dns0 type veth peer name eth0 netns {}\n\
             addr add 192.0.2.1/24 dev dns0\n\
             addr add 2001:db8:53::1/64 dev dns0 nodad\n\
             link set dns0 up\n",
            network.path().display()
        ));
        let addresses: String = RESOLVERS.iter().chain(&STRANGERS).map(|address| add(address)).collect();
        network.ip(&format!(
            "link set lo up\n\
             {addresses}\
             link set eth0 up\n\
             route add 0.0.0.0/0 via 192.0.2.1 dev eth0\n\
             route add ::/0 via 2001:db8:53::1 dev eth0\n"
        ));
        let resolver = Self { network, files: world.files().to_path_buf() };
        let [resolver4, resolver6] = RESOLVERS;
        let text = format!("nameserver {resolver4}\nnameserver {resolver6}\noptions timeout:2 attempts:5\n");
        std::fs::write(resolver.conf(), text).expect("a file of the world");
        resolver
    }

    /// Its network namespace.
    pub fn network(&self) -> &Namespace {
        &self.network
    }

    /// A `resolv.conf` that names it, for [`use_resolvers`].
    pub fn conf(&self) -> PathBuf {
        self.files.join("resolv.conf")
    }

    /// Folder for files.
    pub(crate) fn files(&self) -> &Path {
        &self.files
    }

    /// A UDP socket of this host at one of its addresses.
    pub fn socket(&self, at: SocketAddr) -> UdpSocket {
        self.network.enter(|| UdpSocket::bind(at).unwrap_or_else(|error| panic!("binding {at}: {error}")))
    }

    /// Whether something serves at every address of [`RESOLVERS`].
    fn is_served(&self) -> bool {
        let answers = |address: IpAddr| TcpStream::connect_timeout(&(address, PORT).into(), START).is_ok();
        self.network.enter(|| addresses().all(answers))
    }
}

fn add(address: &str) -> String {
    if address.contains(':') {
        format!("addr add {address}/64 dev eth0 nodad\n")
    } else {
        format!("addr add {address}/24 dev eth0\n")
    }
}

/// [`RESOLVERS`], read.
pub(crate) fn addresses() -> impl Iterator<Item = IpAddr> {
    RESOLVERS.iter().map(|address| address.parse().expect("an address"))
}
