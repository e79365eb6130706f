//! Objects as large as those of clusters: what the agent reads of them is real, the rest is padding up to the size.

use serde_json::{Value, json};

/// A Node with its conditions, 50 images, annotations and managed fields.
pub(super) const NODE: usize = 10_000;
/// A pod with one container and its managed fields.
pub(super) const POD: usize = 6_000;
pub(super) const SERVICE: usize = 1_500;
pub(super) const NAMESPACE: usize = 1_000;
/// A policy of ten rules with its status.
pub(super) const POLICY: usize = 3_000;
/// Endpoints of one slice, at most; Kubernetes' own limit.
pub(super) const ENDPOINTS: usize = 100;

/// Fills an object up, as managed fields do.
fn padded(mut object: Value, size: usize) -> Value {
    let missing = size.saturating_sub(object.to_string().len() + 40);
    object["metadata"]["managedFields"] = json!([{"manager": "x".repeat(missing)}]);
    object
}

pub(super) fn node(number: usize, version: u64) -> Value {
    let (high, low) = (number / 256, number % 256);
    let object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("node-{number}"), "resourceVersion": version.to_string(), "labels": {"kubernetes.io/os": "linux"}},
        "spec": {"podCIDRs": [format!("10.{}.{low}.0/24", 128 + high), format!("fd00:{number:x}::/64")]},
        "status": {"addresses": [{"type": "InternalIP", "address": format!("172.16.{high}.{low}")}]},
    });
    padded(object, NODE)
}

pub(super) fn pod(number: usize, node: &str, version: u64) -> Value {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod-{number}"), "namespace": "shop", "uid": format!("uid-{number}"), "resourceVersion": version.to_string()},
        "spec": {"nodeName": node, "serviceAccountName": "default"},
        "status": {"phase": "Running", "podIPs": [{"ip": format!("10.128.0.{}", number % 250)}]},
    });
    padded(object, POD)
}

pub(super) fn service(number: usize) -> Value {
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("service-{number}"), "namespace": "shop", "resourceVersion": "1"},
        "spec": {"clusterIPs": [format!("10.96.{}.{}", number / 250, number % 250)], "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]},
    });
    padded(object, SERVICE)
}

/// The slice of a service, with every field that the controller writes for an endpoint. Each version has other pods,
/// of the first two nodes.
pub(super) fn slice(service: usize, endpoints: usize, version: u64) -> Value {
    let changed = usize::try_from(version % 10).unwrap();
    let endpoint = |number: usize| {
        json!({
            "addresses": [format!("10.128.{}.{}", number % 2, (service + number + changed) % 250)],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("ip-172-16-{number}-7.example.internal"),
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": format!("service-{service}-5f7d9c8b6d-{number:05}"),
                "uid": format!("0c5b4f6e-1d2c-4e5f-8a9b-{number:012}")},
            "zone": "zone-a",
        })
    };
    let labels = json!({
        "kubernetes.io/service-name": format!("service-{service}"),
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("service-{service}-abcde"), "namespace": "shop", "resourceVersion": version.to_string(), "labels": labels},
        "endpoints": (0..endpoints).map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}

pub(super) fn namespace(number: usize) -> Value {
    let metadata = json!({"name": format!("namespace-{number}"), "resourceVersion": "1", "labels": {"team": "shop"}});
    padded(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}), NAMESPACE)
}

pub(super) fn policy(number: usize, version: u64) -> Value {
    let rule = |rule: usize| json!({"type": "Allow", "to": {"cidrSelector": format!("192.0.2.{rule}/32")}});
    let object = json!({
        "apiVersion": "egress.rs/v1alpha1", "kind": "EgressNetworkPolicy",
        "metadata": {"name": format!("policy-{number}"), "namespace": "shop", "generation": version, "resourceVersion": version.to_string()},
        "spec": {"egress": (0..10).map(rule).collect::<Vec<_>>()},
    });
    padded(object, POLICY)
}
