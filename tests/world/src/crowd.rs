//! Many pods at once, for measurements: each has a network namespace with an interface on the node, IPv4 only, and the cgroup that a
//! kubelet would give it. Nothing of it runs until it is told to.
//!
//! Every member has a socket that belongs to no cgroup of the world, so that what stops a packet of it stops it at the interface; one
//! whose calls are judged is made by the process of a member that runs.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::namespace::Namespace;
use crate::pod::Endpoint;
use crate::process::{self, Process};
use crate::world::World;

/// Descriptors of this process for each member: its namespace, two sockets, and the channel of its process.
const DESCRIPTORS: u64 = 4;
/// What the rest of the process needs.
const OTHER_DESCRIPTORS: u64 = 500;
/// Members in a /24 of the pods' network, above those that a world gives to single pods.
const IN_A_BLOCK: usize = 250;

/// Pods that differ in nothing but their numbers. To be dropped before its world.
pub struct Crowd {
    members: Vec<Member>,
}

/// One of them.
pub struct Member {
    number: usize,
    namespace: String,
    network: Namespace,
    cgroup: PathBuf,
    socket: UdpSocket,
}

impl Crowd {
    /// Makes `count` pods in the Kubernetes namespace `namespace`, connected with the node.
    pub fn new(world: &World, namespace: &str, count: usize) -> Self {
        allow_descriptors(u64::try_from(count).expect("fits") * DESCRIPTORS + OTHER_DESCRIPTORS);
        let networks: Vec<Namespace> = (0..count).map(|number| Namespace::new(&name(number))).collect();
        let links = networks.iter().enumerate().map(|(number, network)| {
            let (path, interface) = (network.path(), interface(number));
            format!(
                "link add {interface} address {node} up type veth peer name eth0 address {pod} netns {path}\n\
                 addr add 10.244.0.1/32 dev {interface}\n",
                node = mac(1, number),
                pod = mac(2, number),
                path = path.display()
            )
        });
        world.node().ip(&links.collect::<String>());
        let member = |(number, network): (usize, Namespace)| {
            // The neighbour is known from the start, so that no packet waits for an answer.
            network.ip(&format!(
                "link set lo up\n\
                 addr add {address}/32 dev eth0\n\
                 link set eth0 up\n\
                 neigh add 10.244.0.1 lladdr {node} dev eth0 nud permanent\n\
                 route add 10.244.0.1/32 dev eth0 scope link\n\
                 route add 0.0.0.0/0 via 10.244.0.1\n",
                address = address(number),
                node = mac(1, number),
            ));
            let socket = bind(&network);
            let cgroup = world.cgroup().join(format!("kubepods/burstable/pod{}", uid(number)));
            Member { number, namespace: namespace.to_owned(), network, cgroup, socket }
        };
        // Kubelet's directory is there before its first pod.
        std::fs::create_dir_all(world.cgroup().join("kubepods/burstable")).expect("kubelet's cgroup");
        Self { members: networks.into_iter().enumerate().map(member).collect() }
    }

    /// All of them, by number.
    pub fn members(&self) -> &[Member] {
        &self.members
    }
}

impl Member {
    /// Its number.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Its name, without the namespace.
    pub fn name(&self) -> String {
        name(self.number)
    }

    /// The UID that its cgroup is named after.
    pub fn uid(&self) -> String {
        uid(self.number)
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        address(self.number)
    }

    /// A socket in its network and outside of its cgroup.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Another one.
    pub fn bind(&self) -> UdpSocket {
        bind(&self.network)
    }

    /// What the endpoints file says of it.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            namespace: self.namespace.clone(),
            name: self.name(),
            labels: std::collections::BTreeMap::new(),
            service_account: None,
            netns: Some(self.network.path()),
            interface: Some(interface(self.number)),
            cgroup: None,
        }
    }

    /// Starts its first process, as a container runtime would: it joins the pod's cgroup and namespace. The first that it does is to send a packet to
    /// `first`. Then it sleeps until it is dropped, and dies with the calling thread. Beside it a socket that it has made, for the caller.
    pub fn start(&self, first: SocketAddrV4) -> (Process<()>, UdpSocket) {
        let container = self.cgroup.join("container");
        std::fs::create_dir_all(&container).expect("the pod's cgroup");
        let make = || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
            // Who receives it counts it; that it is refused is what is hoped for.
            let _ = socket.send_to(b"first", first);
            socket.into()
        };
        let (process, socket) = process::start_and_stay(&self.network, Some(&container), &self.name(), make);
        (process, socket.into())
    }
}

fn bind(network: &Namespace) -> UdpSocket {
    network.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).expect("a socket")
}

fn name(number: usize) -> String {
    format!("member-{number}")
}

fn interface(number: usize) -> String {
    format!("many{number}")
}

fn uid(number: usize) -> String {
    format!("0c5b4f6e-1d2c-4e5f-8a9b-{number:012}")
}

fn address(number: usize) -> Ipv4Addr {
    let part = |number: usize| u8::try_from(number).expect("at most 30,000 pods");
    Ipv4Addr::new(10, 244, part(128 + number / IN_A_BLOCK), part(number % IN_A_BLOCK + 1))
}

fn mac(side: u8, number: usize) -> String {
    let [.., high, low] = number.to_be_bytes();
    format!("02:00:01:{side:02x}:{high:02x}:{low:02x}")
}

/// Lets this process have so many descriptors more, as far as it may.
fn allow_descriptors(count: u64) {
    let (now, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of descriptors");
    if now < count {
        setrlimit(Resource::RLIMIT_NOFILE, count.min(most), most).expect("a limit below the hard one");
    }
}
