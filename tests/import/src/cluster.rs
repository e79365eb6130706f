//! What the firewalls act on: namespaces, pods, nodes and names.

use std::collections::BTreeMap;
use std::net::IpAddr;

use egress_reference::{Labels, Pod, Random};

use crate::names::Names;
use crate::pool;

/// The cluster that the objects are in.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Namespaces with their labels, also the one that every namespace has.
    pub namespaces: BTreeMap<String, Labels>,
    /// Pods of several namespaces.
    pub pods: Vec<Pod>,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// DNS.
    pub names: Names,
}

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its labels.
    pub labels: Labels,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// The namespaces; `default` is special to some firewalls.
pub(crate) const NAMESPACES: [&str; 3] = ["shop", "a-b", "default"];

impl Cluster {
    /// A small cluster.
    pub fn random(random: &mut Random) -> Self {
        let namespaces = NAMESPACES.iter().map(|name| {
            let mut labels = pool::labels(random);
            labels.insert("kubernetes.io/metadata.name".to_owned(), (*name).to_owned());
            ((*name).to_owned(), labels)
        });
        let namespaces: BTreeMap<_, _> = namespaces.collect();
        let pods = (0..4).map(|number| {
            let namespace = if number < 3 { NAMESPACES[number] } else { "shop" };
            let mut pod = Pod::new(namespace, &format!("pod{number}"));
            pod.labels = pool::labels(random);
            pod.service_account = Some((*random.pick(&["default", "builder"])).to_owned());
            pod
        });
        let pods = pods.collect();
        let nodes = (1..=2).map(|number| Node {
            labels: pool::labels(random),
            addresses: vec![[172, 16, 0, number].into(), [0x2001, 0xdb8, 0x16, 0, 0, 0, 0, u16::from(number)].into()],
        });
        let nodes = nodes.collect();
        Self { namespaces, pods, nodes, names: Names::random(random) }
    }
}
