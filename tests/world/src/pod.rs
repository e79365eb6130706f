//! A pod: a network namespace with one interface to the node, and a cgroup as the kubelet would make it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::Socket;

use crate::echo::{self, Servers};
use crate::namespace::Namespace;
use crate::packet::ethernet;
use crate::process::{self, Process, Shared};
use crate::sniffer::Sniffer;

/// An entry of the agent's endpoints file.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Namespace of the pod, in the sense of Kubernetes.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Service account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// Path of the network namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// Interface on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The pod's cgroup directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
}

/// A pod of a world. One on the host network has no namespace of its own.
pub struct Pod {
    namespace_name: String,
    name: String,
    network: Arc<Namespace>,
    number: Option<u8>,
    cgroup: PathBuf,
    servers: Servers,
}

impl Pod {
    /// `number` is that of the pod's interface and addresses; none on the host network.
    pub(crate) fn new(full_name: &str, network: Arc<Namespace>, number: Option<u8>, cgroups: &Path) -> Self {
        let cgroup = format!("kubepods/burstable/pod-{}", full_name.replace('/', "-"));
        Self::in_cgroup(full_name, network, number, cgroups.join(cgroup))
    }

    /// The same with a cgroup of its own choice.
    pub(crate) fn in_cgroup(full_name: &str, network: Arc<Namespace>, number: Option<u8>, pod: PathBuf) -> Self {
        let (namespace_name, name) = full_name.split_once('/').expect("a name like default/curl");
        std::fs::create_dir_all(pod.join("container")).expect("the pod's cgroup");
        Self {
            namespace_name: namespace_name.to_owned(),
            name: name.to_owned(),
            network,
            number,
            cgroup: pod,
            servers: Servers::default(),
        }
    }

    /// Its name, without the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name as the agent writes it: `default/curl`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace_name, self.name)
    }

    /// Its network namespace.
    pub fn network(&self) -> &Namespace {
        &self.network
    }

    /// The directory of its cgroup.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Name of its interface on the node.
    pub fn interface(&self) -> String {
        format!("pod{}", self.numbered())
    }

    /// Its IPv4 address.
    pub fn address4(&self) -> IpAddr {
        Ipv4Addr::new(10, 244, 0, 10 + self.numbered()).into()
    }

    /// Its IPv6 address.
    pub fn address6(&self) -> IpAddr {
        Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0x10 + u16::from(self.numbered())).into()
    }

    /// Its address of the same family as `other`.
    pub fn address_like(&self, other: IpAddr) -> IpAddr {
        if other.is_ipv4() { self.address4() } else { self.address6() }
    }

    fn numbered(&self) -> u8 {
        self.number.expect("a pod on the host network has no interface or address of its own")
    }

    /// What the endpoints file says of it: labels `app=<name>`, and everything else that exists.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            namespace: self.namespace_name.clone(),
            name: self.name.clone(),
            labels: BTreeMap::from([("app".to_owned(), self.name.clone())]),
            service_account: None,
            netns: self.number.map(|_| self.network.path()),
            interface: self.number.map(|_| self.interface()),
            cgroup: Some(self.cgroup.clone()),
        }
    }

    /// Runs `work` as a process of the pod and returns what it returns.
    pub fn run<T: Serialize + DeserializeOwned>(&self, work: impl FnOnce() -> T) -> T {
        self.start(|_| work()).wait()
    }

    /// Starts `work` as a process of the pod.
    pub fn start<T: Serialize + DeserializeOwned>(&self, work: impl FnOnce(&Shared) -> T) -> Process<T> {
        process::start(&self.network, Some(&self.container()), &self.name, work)
    }

    /// A socket that a process of the pod made, for the test to use: the hooks see the pod's namespace and, where they ask the socket,
    /// its cgroup.
    pub fn socket(&self, make: impl FnOnce() -> std::io::Result<OwnedFd>) -> std::io::Result<OwnedFd> {
        let work = |_: &Shared| match make() {
            Ok(descriptor) => (None, Some(descriptor)),
            Err(error) => (Some(error.raw_os_error().unwrap_or(libc::EIO)), None),
        };
        let process = process::start_with_descriptor(&self.network, Some(&self.container()), &self.name, work);
        match process.wait_with_descriptor() {
            (_, Some(descriptor)) => Ok(descriptor),
            (error, None) => Err(std::io::Error::from_raw_os_error(error.unwrap_or(libc::EIO))),
        }
    }

    /// Serves TCP and UDP echo on `port`, on every address of the pod.
    pub fn serve(&self, port: u16) {
        let tcp = self.socket(|| Ok(echo::tcp_socket(port).into())).expect("a listener in the pod");
        self.servers.serve_tcp(Socket::from(tcp));
        let udp = self.socket(|| Ok(echo::udp_socket(port).into())).expect("a socket in the pod");
        self.servers.serve_udp(Socket::from(udp));
    }

    /// Sees the packets of the pod's own interface.
    pub fn sniff(&self) -> Sniffer {
        Sniffer::new(&self.network, "eth0", true)
    }

    /// A frame from the pod to the node around an IP packet; `tags` are VLAN tag control words.
    pub fn frame(&self, tags: &[u16], packet: &[u8]) -> Vec<u8> {
        ethernet(node_mac(self.numbered()), pod_mac(self.numbered()), tags, packet)
    }

    fn container(&self) -> PathBuf {
        self.cgroup.join("container")
    }
}

/// Hardware address of the node's end.
pub(crate) fn node_mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, number]
}

/// Hardware address of the pod's end.
pub(crate) fn pod_mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 2, number]
}
