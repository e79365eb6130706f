//! Builds a world: the node (routing, IPv4 and IPv6), the outside, and pods hanging on the node by veth, each routed as a
//! point-to-point CNI plugin would.

use std::path::Path;
use std::sync::Arc;

use crate::namespace::Namespace;
use crate::outside::Outside;
use crate::place::Place;
use crate::pod::{Pod, node_mac, pod_mac};

/// The pods' network, which policies take as internal.
pub const POD_CIDRS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/48"];

const OUTSIDE_CIDRS: [&str; 6] =
    ["1.2.3.0/24", "5.6.7.0/24", "10.1.0.0/16", "10.2.0.0/16", "198.51.100.0/24", "2001:db8::/32"];

pub(crate) const EVERYWHERE: [(&str, &str); 8] = [
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/icmp_ratelimit", "0"),
    ("ipv6/icmp/ratelimit", "0"),
];

/// Client and server without cookie, for every listener: data in the first SYN is taken.
const FAST_OPEN: (&str, &str) = ("ipv4/tcp_fastopen", "1543");
/// Everybody may open a ping socket.
const PING: (&str, &str) = ("ipv4/ping_group_range", "0 2147483647");
/// Any address of [`OUTSIDE_CIDRS`] can be a source, although only routes make it local.
const OUTSIDE: [(&str, &str); 2] = [("ipv6/ip_nonlocal_bind", "1"), FAST_OPEN];
const NODE: [(&str, &str); 4] = [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1"), PING, FAST_OPEN];
const POD: [(&str, &str); 2] = [PING, FAST_OPEN];

/// Interfaces of pods beside an interface of the node, as some CNI plugins make them: nothing of the pod's is on the node's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// With a hardware address of its own.
    Macvlan,
    /// With the node's.
    Ipvlan,
}

/// A node with pods, and what is behind it.
pub struct World {
    // Dropped in this order: what runs before the folders that it runs in.
    pods: Vec<Pod>,
    outside: Outside,
    node: Arc<Namespace>,
    pods_made: u8,
    place: Place,
}

impl World {
    /// A world with these pods (`namespace/name`).
    pub fn new(pods: &[&str]) -> Self {
        let place = Place::new();
        let node = Arc::new(Namespace::new("node"));
        let outside = Arc::new(Namespace::new("outside"));
        node.sysctl(&[&EVERYWHERE[..], &NODE].concat());
        outside.sysctl(&[&EVERYWHERE[..], &OUTSIDE].concat());
        let routes: Vec<String> = OUTSIDE_CIDRS.iter().map(|cidr| node_route(cidr)).collect();
        node.ip(&format!(
            "link set lo up\n\
             addr add 172.18.0.2/32 dev lo\n\
             addr add fd00:172:18::2/128 dev lo nodad\n\
             link add out0 type veth peer name eth0 netns {}\n\
             addr add 169.254.1.1/30 dev out0\n\
             addr add fe80::1/64 dev out0 nodad\n\
             link set out0 up\n\
             {}\n",
            outside.path().display(),
            routes.join("\n")
        ));
        let locals = OUTSIDE_CIDRS.map(|cidr| format!("route add local {cidr} dev lo"));
        outside.ip(&format!(
            "link set lo up\n\
             addr add 169.254.1.2/30 dev eth0\n\
             addr add fe80::2/64 dev eth0 nodad\n\
             addr add 1.2.3.4/32 dev lo\n\
             addr add 2001:db8:1::4/128 dev lo nodad\n\
             link set eth0 up\n\
             {}\n\
             route add 0.0.0.0/0 via 169.254.1.1 src 1.2.3.4\n\
             route add ::/0 via fe80::1 dev eth0 src 2001:db8:1::4\n",
            locals.join("\n")
        ));
        let mut world =
            Self { pods: Vec::new(), outside: Outside::new(outside, Arc::clone(&node)), node, pods_made: 0, place };
        for pod in pods {
            world.add_pod(pod);
        }
        world
    }

    /// Adds a pod (`namespace/name`).
    pub fn add_pod(&mut self, full_name: &str) -> &Pod {
        self.pods_made += 1;
        let network = Arc::new(Namespace::new(full_name));
        network.sysctl(&[&EVERYWHERE[..], &POD].concat());
        let pod = Pod::new(full_name, network, Some(self.pods_made), self.place.cgroup());
        self.plug(&pod, self.pods_made, None);
        self.pods.push(pod);
        self.pods.last().expect("just added")
    }

    /// Adds a pod whose cgroup is this path below the agent's `--cgroup-root`, as a kubelet of any driver would make it.
    pub fn add_pod_in(&mut self, full_name: &str, cgroup: &str) -> &Pod {
        self.pods_made += 1;
        let network = Arc::new(Namespace::new(full_name));
        network.sysctl(&[&EVERYWHERE[..], &POD].concat());
        let pod = Pod::in_cgroup(full_name, network, Some(self.pods_made), self.place.cgroup().join(cgroup));
        self.plug(&pod, self.pods_made, None);
        self.pods.push(pod);
        self.pods.last().expect("just added")
    }

    /// Adds a pod whose interface is a macvlan beside the node's own: its packets cross no interface of the node. `None` if the
    /// kernel has no macvlan.
    pub fn add_macvlan_pod(&mut self, full_name: &str) -> Option<&Pod> {
        self.add_pod_beside(full_name, Beside::Macvlan, None)
    }

    /// Adds a pod whose interface lies beside the node's own; `cgroup` as in [`Self::add_pod_in`]. `None` if the kernel has no such
    /// interfaces. A node has pods of one kind at a time.
    pub fn add_pod_beside(&mut self, full_name: &str, kind: Beside, cgroup: Option<&str>) -> Option<&Pod> {
        let number = self.pods_made + 1;
        let network = Arc::new(Namespace::new(full_name));
        network.sysctl(&[&EVERYWHERE[..], &POD].concat());
        let path = network.path();
        let kind = match kind {
            Beside::Macvlan => "macvlan mode bridge",
            Beside::Ipvlan => "ipvlan mode l2",
        };
        let add = format!("link add link out0 name eth0 netns {} type {kind}\n", path.display());
        self.node.try_ip(&add).ok()?;
        let cgroups = self.place.cgroup();
        let pod = match cgroup {
            None => Pod::new(full_name, network, Some(number), cgroups),
            Some(cgroup) => Pod::in_cgroup(full_name, network, Some(number), cgroups.join(cgroup)),
        };
        let (address4, address6) = (pod.address4(), pod.address6());
        pod.network().ip(&format!(
            "link set lo up\n\
             addr add {address4}/32 dev eth0\n\
             addr add {address6}/128 dev eth0 nodad\n\
             link set eth0 up\n\
             route add 169.254.1.2/32 dev eth0 scope link\n\
             route add 0.0.0.0/0 via 169.254.1.2\n\
             route add ::/0 via fe80::2 dev eth0\n"
        ));
        self.outside.network().ip(&format!(
            "route add {address4}/32 dev eth0 src 1.2.3.4\nroute add {address6}/128 dev eth0 src 2001:db8:1::4\n"
        ));
        self.pods_made = number;
        self.pods.push(pod);
        self.pods.last()
    }

    /// Adds a pod that shares the node's network.
    pub fn add_host_network_pod(&mut self, full_name: &str) -> &Pod {
        let pod = Pod::new(full_name, Arc::clone(&self.node), None, self.place.cgroup());
        self.pods.push(pod);
        self.pods.last().expect("just added")
    }

    /// Removes the pod's interface and makes it anew under the same name, as a restart of its sandbox would.
    pub fn replug(&self, pod: &Pod) {
        let interface = pod.interface();
        self.node.ip(&format!("link del {interface}\n"));
        self.plug(pod, pod_number(pod), None);
    }

    /// Removes the interfaces of two pods and makes them anew, each with the index that the other's had, as the kernel may give it again.
    pub fn exchange_indices(&self, one: &Pod, other: &Pod) {
        let index = |pod: &Pod| {
            let interface = pod.interface();
            self.node.enter(move || nix::net::if_::if_nametoindex(interface.as_str()).expect("the pod's interface"))
        };
        let indices = (index(one), index(other));
        self.node.ip(&format!("link del {}\nlink del {}\n", one.interface(), other.interface()));
        self.plug(one, pod_number(one), Some(indices.1));
        self.plug(other, pod_number(other), Some(indices.0));
        assert_eq!((index(other), index(one)), indices);
    }

    /// Connects a pod's namespace with the node, by an interface with this index on the node's side.
    fn plug(&self, pod: &Pod, number: u8, index: Option<u32>) {
        let (node_mac, pod_mac) = (mac(node_mac(number)), mac(pod_mac(number)));
        let (address4, address6) = (pod.address4(), pod.address6());
        let interface = pod.interface();
        let path = pod.network().path();
        let index = index.map(|index| format!("index {index}")).unwrap_or_default();
        self.node.ip(&format!(
            "link add {interface} address {node_mac} {index} type veth peer name eth0 address {pod_mac} netns {}\n\
             addr add 10.244.0.1/32 dev {interface}\n\
             addr add fe80::1/64 dev {interface} nodad\n\
             link set {interface} up\n\
             route add {address4}/32 dev {interface}\n\
             route add {address6}/128 dev {interface}\n",
            path.display()
        ));
        pod.network().ip(&format!(
            "link set lo up\n\
             addr add {address4}/32 dev eth0\n\
             addr add {address6}/128 dev eth0 nodad\n\
             link set eth0 up\n\
             route add 10.244.0.1/32 dev eth0 scope link\n\
             route add 0.0.0.0/0 via 10.244.0.1\n\
             route add ::/0 via fe80::1 dev eth0\n"
        ));
    }

    /// The pod of this name (without namespace).
    pub fn pod(&self, name: &str) -> &Pod {
        self.pods.iter().find(|pod| pod.name() == name).unwrap_or_else(|| panic!("no pod {name} in this world"))
    }

    /// Every pod.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// What is behind the node.
    pub fn outside(&self) -> &Outside {
        &self.outside
    }

    /// The node's network namespace, in which the agent runs.
    pub fn node(&self) -> &Namespace {
        &self.node
    }

    /// The world's folder for files.
    pub fn files(&self) -> &Path {
        self.place.files()
    }

    /// The agent's `--bpffs`.
    pub fn bpffs(&self) -> &Path {
        self.place.bpffs()
    }

    /// The agent's `--cgroup-root`.
    pub fn cgroup(&self) -> &Path {
        self.place.cgroup()
    }

    /// A name that no other world on this machine has.
    pub fn name(&self) -> &str {
        self.place.name()
    }
}

fn node_route(cidr: &str) -> String {
    if cidr.contains(':') {
        format!("route add {cidr} via fe80::2 dev out0 src fd00:172:18::2")
    } else {
        format!("route add {cidr} via 169.254.1.2 dev out0 src 172.18.0.2")
    }
}

fn pod_number(pod: &Pod) -> u8 {
    pod.interface().trim_start_matches("pod").parse().expect("podN")
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}
