//! Other firewalls, each as plain structs with a naive evaluator of its own semantics, written from that firewall's documentation and
//! source. They make random objects as their users have them, and say what would become of a packet.
//!
//! Invariant: nothing here depends on egress-policy, so that a mistake of an importer cannot repeat itself here. A kind is a file with an
//! implementation of [`Foreign`]; `tests/import/properties.rs` has one line for each.

pub mod asm;
pub mod calico;
pub mod cilium;
mod cluster;
pub mod cnp;
pub mod egress_router;
pub mod istio;
mod names;
pub mod netpol;
pub mod openshift;
pub mod osm;
pub mod ovn;
mod pool;

use std::fmt::Debug;

use egress_reference::{Packet, Pod, Prefix, Random};
use serde_json::Value;

pub use cluster::{Cluster, Node};
pub use names::Names;

/// Everything that one firewall is told in a cluster.
pub trait Foreign: Clone + Debug {
    /// What the importer calls the kind.
    const KIND: &'static str;

    /// A random state of the firewall in `cluster`.
    fn random(cluster: &Cluster, random: &mut Random) -> Self;

    /// The objects as users write them.
    fn objects(&self) -> Vec<Value>;

    /// The prefixes that its rules speak of.
    fn prefixes(&self) -> Vec<Prefix>;

    /// The ports that its rules speak of.
    fn ports(&self) -> Vec<u16>;

    /// Whether the firewall says anything about such packets.
    fn judges(&self, _packet: &Packet) -> bool {
        true
    }

    /// Whether the firewall lets `packet` of `pod` through.
    fn allows(&self, cluster: &Cluster, pod: &Pod, packet: &Packet) -> bool;

    /// The same with one thing less, for the smallest example of a failure.
    fn smaller(&self) -> Vec<Self>;
}

/// `items` without each one of them in turn.
pub fn without_one<T: Clone>(items: &[T]) -> impl Iterator<Item = Vec<T>> + '_ {
    (0..items.len()).map(|at| {
        let mut fewer = items.to_vec();
        fewer.remove(at);
        fewer
    })
}

/// `objects` without each one of them in turn, and with each without one of its `rules` in turn.
pub fn one_less<T: Clone, R: Clone>(objects: &[T], rules: impl Fn(&mut T) -> &mut Vec<R>) -> Vec<Vec<T>> {
    let mut smaller: Vec<Vec<T>> = without_one(objects).collect();
    for at in 0..objects.len() {
        let all = rules(&mut objects[at].clone()).clone();
        smaller.extend(without_one(&all).map(|fewer| {
            let mut objects = objects.to_vec();
            *rules(&mut objects[at]) = fewer;
            objects
        }));
    }
    smaller
}
