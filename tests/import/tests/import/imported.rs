//! What becomes of texts, up to verdicts on packets. The only place that knows both vocabularies.
//!
//! DNS names are put in as the addresses that the cluster's names have: each rule for a name becomes a rule for every such address, in
//! its place, before our objects are read.

use std::collections::BTreeMap;
use std::net::IpAddr;

use egress_import::{Cluster, Names};
use egress_policy::compile::{Limits, Table, compile};
use egress_policy::document::{self, Object};
use egress_policy::import::{Imported, Manifest};
use egress_policy::model::{NodeContext, NodeInfo, PodIdentity, PolicySet};
use egress_reference::{Packet, Pod};
use serde_json::{Value, json};

/// Our objects as a cluster enforces them.
pub(crate) struct Enforced {
    set: PolicySet,
    node: NodeContext,
}

impl Enforced {
    /// Reads the objects of an import as the agent would. A problem is a failure: the importer wrote them.
    pub(crate) fn new(imported: &Imported, cluster: &Cluster) -> Result<Self, String> {
        let mut set = PolicySet { namespaces: cluster.namespaces.clone(), ..PolicySet::default() };
        for manifest in &imported.objects {
            for object in read(&with_addresses(manifest, &cluster.names))? {
                match object {
                    Object::Policy(policy) => {
                        if let Some(other) = set.insert(policy) {
                            return Err(format!("{} was written twice", other.key));
                        }
                    }
                    Object::Config(config) => set.config = config,
                    Object::Namespace { .. } => {}
                }
            }
        }
        let node =
            |node: &egress_import::Node| NodeInfo { labels: node.labels.clone(), addresses: node.addresses.clone() };
        let node = NodeContext { nodes: cluster.nodes.iter().map(node).collect(), ..NodeContext::default() };
        Ok(Self { set, node })
    }

    pub(crate) fn table(&self, pod: &Pod) -> Result<Table, String> {
        let identity = PodIdentity {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            labels: pod.labels.clone(),
            service_account: pod.service_account.clone(),
        };
        let rules = self.set.rule_list(&identity, &self.node);
        compile(&rules, &Limits::default()).map_err(|error| format!("does not compile: {error}"))
    }
}

/// Whether the packet passes; none if it is internal and so not judged.
pub(crate) fn passes(table: &Table, packet: &Packet) -> Option<bool> {
    let decision = table.lookup(packet.destination, packet.protocol, packet.port).decision;
    (!decision.is_internal()).then(|| !decision.is_deny())
}

/// Reads one object of ours.
pub(crate) fn read(object: &Value) -> Result<Vec<Object>, String> {
    let documents = document::read(&object.to_string());
    match documents.problems.first() {
        Some(problem) => Err(format!("our own validator refuses what was written: {problem}\n{object:#}")),
        None => Ok(documents.objects),
    }
}

fn with_addresses(manifest: &Manifest, names: &Names) -> Value {
    let mut object = serde_json::to_value(manifest).expect("objects serialize");
    if let Some(Value::Array(rules)) = object.pointer_mut("/spec/egress") {
        *rules = std::mem::take(rules).into_iter().flat_map(|rule| expanded(rule, names)).collect();
    }
    object
}

fn expanded(rule: Value, names: &Names) -> Vec<Value> {
    let Some(pattern) = rule.pointer("/to/dnsName").and_then(Value::as_str) else {
        return vec![rule];
    };
    let prefix = |address: IpAddr| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
    let addresses = names.addresses(|name| Names::matches_ours(pattern, name));
    let rules = addresses.into_iter().map(|address| {
        let mut rule = rule.clone();
        rule["to"] = json!({"cidrSelector": prefix(address)});
        rule
    });
    rules.collect()
}

/// Counts, by what was counted.
pub(crate) type Counts = BTreeMap<String, u64>;
