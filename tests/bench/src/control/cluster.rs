//! What the API server tells the agent here: a node, pods, and policies of a thousand prefixes.

use std::net::Ipv4Addr;

use egress_world::{Api, Member, World};
use serde_json::{Value, json};

use crate::mix::{self, Random};

/// The Kubernetes namespace of all pods.
pub(super) const NAMESPACE: &str = "bench";
/// Different lists of rules.
pub(super) const POLICIES: usize = 10;
/// Prefixes in each.
pub(super) const PREFIXES: usize = 1000;

const PODS: &str = "/api/v1/pods";
const ENP: &str = "/apis/egress.rs/v1alpha1/egressnetworkpolicies";

/// An API server with ten policies, each about every tenth pod, one about all pods, and Deny for the rest.
pub(super) struct Cluster {
    pub(super) api: Api,
}

impl Cluster {
    /// Begins to serve; the policy about all pods allows `allowed`.
    pub(super) fn new(world: &World, allowed: Ipv4Addr) -> Self {
        let api = Api::new(world.node());
        let spec = json!({"podCIDRs": ["10.244.0.0/16", "fd00:10:244::/48"]});
        api.put("/api/v1/nodes", json!({"metadata": {"name": "node-a"}, "spec": spec}));
        let config = json!({"defaultAction": "Deny", "internalCIDRs": ["10.244.0.0/16", "fd00:10:244::/48"]});
        let config = object("EgressConfig", &json!({"name": "default", "generation": 1}), &config);
        api.put("/apis/egress.rs/v1alpha1/egressconfigs", config);
        for group in 0..POLICIES {
            let mut random = Random::new(group as u64);
            let prefixes = mix::prefixes(PREFIXES, &mut random).into_iter().rev();
            let rules: Vec<Value> =
                prefixes.map(|prefix| json!({"type": "Allow", "to": {"cidrSelector": prefix}})).collect();
            let selector = json!({"matchLabels": {"group": group.to_string()}});
            api.put(ENP, policy(&format!("group-{group}"), &json!({"podSelector": selector, "egress": rules})));
        }
        let cluster = Self { api };
        cluster.allow(allowed);
        cluster
    }

    /// Replaces the policy about all pods.
    pub(super) fn allow(&self, address: Ipv4Addr) {
        let rules = json!([{"type": "Allow", "to": {"cidrSelector": format!("{address}/32")}}]);
        self.api.put(ENP, policy("everybody", &json!({"priority": 0, "egress": rules})));
    }

    /// Tells of a pod.
    pub(super) fn tell(&self, pod: &Member) {
        let labels = json!({"group": (pod.number() % POLICIES).to_string()});
        let metadata = json!({"name": pod.name(), "namespace": NAMESPACE, "uid": pod.uid(), "labels": labels});
        let status = json!({"phase": "Running", "podIPs": [{"ip": pod.address()}]});
        let spec = json!({"nodeName": "node-a", "serviceAccountName": "default"});
        self.api.put(PODS, json!({"metadata": metadata, "spec": spec, "status": status}));
    }
}

fn policy(name: &str, spec: &Value) -> Value {
    object("EgressNetworkPolicy", &json!({"name": name, "namespace": NAMESPACE, "generation": 1}), spec)
}

fn object(kind: &str, metadata: &Value, spec: &Value) -> Value {
    json!({"apiVersion": "egress.rs/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
}
