//! A namespace with clients, and a server outside: a pod in a node's network, whose addresses no internal CIDR has.

use std::net::IpAddr;

use serde_json::Value;

use crate::kubectl::{Answer, apply, ask, eventually, run};
use crate::{Cluster, setting};

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was made.
    Reached,
    /// `connect()` failed with EPERM.
    Refused,
    /// Anything else, with what the client said.
    Other(String),
}

/// A server outside the cluster's own addresses.
#[derive(Clone, Debug)]
pub struct Server {
    /// The node in whose network it is.
    pub node: String,
    /// The node's addresses, of one or both families.
    pub addresses: Vec<IpAddr>,
    /// Ports that it answers on.
    pub ports: [u16; 2],
}

/// A namespace of a test; removed when dropped.
pub struct Lab<'a> {
    _cluster: &'a Cluster,
    /// Its name.
    pub namespace: String,
    /// The server.
    pub server: Server,
    /// Node of the client: another one than the server's if there are two.
    pub node: String,
}

impl<'a> Lab<'a> {
    /// Makes the namespace, the server and a client named `client`, and waits for them.
    pub fn new(cluster: &'a Cluster, name: &str) -> Self {
        let nodes = ask(&["nodes"]).expect("nodes");
        let nodes = nodes.get("items").and_then(Value::as_array).expect("a list").clone();
        let schedulable = |node: &&Value| node.pointer("/spec/unschedulable") != Some(&true.into());
        let nodes: Vec<&Value> = nodes.iter().filter(schedulable).collect();
        let name_of = |node: &Value| node.pointer("/metadata/name").and_then(Value::as_str).expect("a name").to_owned();
        let (of_client, of_server) = (nodes.first().expect("a node"), nodes.last().expect("a node"));
        let server = Server { node: name_of(of_server), addresses: addresses(of_server), ports: [18_471, 18_472] };
        let namespace = format!("egress-test-{name}-{}", std::process::id());
        let lab = Self { _cluster: cluster, namespace, server, node: name_of(of_client) };
        lab.apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {}, labels: {{pod-security.kubernetes.io/enforce: privileged}}}}\n",
            lab.namespace
        ))
        .expect("a namespace");
        let serve = |port| format!("httpd -p {port} -h /tmp");
        let [first, second] = lab.server.ports;
        let script = format!("{}; exec httpd -f -p {second} -h /tmp", serve(first));
        lab.pod("server", &lab.server.node, &script, true);
        lab.pod("client", &lab.node, "exec sleep 100000", false);
        for pod in ["server", "client"] {
            lab.wait_for(pod);
        }
        lab
    }

    /// Applies a manifest in the namespace.
    pub fn apply(&self, manifest: &str) -> Answer {
        // The namespace itself is none of its own objects.
        if manifest.contains("kind: Namespace\n") {
            return apply(manifest);
        }
        run(&["-n", &self.namespace, "apply", "-f", "-"], Some(manifest))
    }

    /// Makes a pod that runs a shell script, and does not wait for it.
    pub fn pod(&self, name: &str, node: &str, script: &str, host_network: bool) {
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "nodeName": node, "hostNetwork": host_network, "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "main", "image": self.client_image(),
                    "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script],
                }],
            },
        });
        self.apply(&pod.to_string()).expect("a pod");
    }

    /// Waits until a pod is ready.
    pub fn wait_for(&self, pod: &str) {
        run(&["-n", &self.namespace, "wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=120s"], None)
            .expect("a pod that is ready");
    }

    /// Removes a pod at once.
    pub fn delete_pod(&self, pod: &str) {
        run(&["-n", &self.namespace, "delete", "pod", pod, "--grace-period=0", "--force"], None).expect("deleted");
    }

    /// What a pod's output is so far.
    pub fn output(&self, pod: &str) -> String {
        run(&["-n", &self.namespace, "logs", pod], None).stdout
    }

    /// The image of clients and servers.
    pub fn client_image(&self) -> String {
        setting("EGRESS_CLIENT_IMAGE", "docker.io/library/busybox:stable")
    }

    /// Whether a command can be run in a pod.
    pub fn answers(&self, pod: &str) -> bool {
        run(&["-n", &self.namespace, "exec", pod, "--", "true"], None).success
    }

    /// Connects from a pod to one of the server's addresses and ports.
    pub fn connect(&self, pod: &str, to: IpAddr, port: u16) -> Verdict {
        let script = format!("{} 2>&1 >/dev/null; echo code $?", attempt(to, port));
        let said = run(&["-n", &self.namespace, "exec", pod, "--", "sh", "-c", &script], None).expect("kubectl exec");
        match said {
            said if said.ends_with("code 0") => Verdict::Reached,
            said if said.contains("Operation not permitted") => Verdict::Refused,
            said => Verdict::Other(said),
        }
    }

    /// Waits until a connection of the pod `client` has this verdict at every address of the server.
    pub fn insist(&self, port: u16, verdict: &Verdict) {
        for &address in &self.server.addresses {
            let mut last = None;
            let came = eventually(|| {
                last = Some(self.connect("client", address, port));
                last.as_ref() == Some(verdict)
            });
            assert!(came, "{address} port {port}: {last:?} instead of {verdict:?}");
        }
    }

    /// Whether a condition of an object of the namespace is `True`, and what it says.
    pub fn condition(&self, object: &str, kind: &str) -> Option<(bool, String)> {
        let object = ask(&["-n", &self.namespace, object]).ok()?;
        let conditions = object.pointer("/status/conditions")?.as_array()?.clone();
        let condition = conditions.into_iter().find(|condition| condition.get("type") == Some(&kind.into()))?;
        let generation = object.pointer("/metadata/generation");
        if condition.get("observedGeneration") != generation {
            return None;
        }
        let message = condition.get("message").and_then(Value::as_str).unwrap_or_default().to_owned();
        Some((condition.get("status") == Some(&"True".into()), message))
    }
}

impl Drop for Lab<'_> {
    fn drop(&mut self) {
        let answer = run(&["delete", "namespace", &self.namespace, "--timeout=120s"], None);
        if !answer.success {
            eprintln!("the namespace {} is left: {}", self.namespace, answer.stderr);
        }
    }
}

/// The shell command of one connection: whether it succeeds is whether it was made; what the client complains of is on standard error.
pub fn attempt(to: IpAddr, port: u16) -> String {
    format!("nc -w 3 {to} {port} </dev/null")
}

fn addresses(node: &Value) -> Vec<IpAddr> {
    let all = node.pointer("/status/addresses").and_then(Value::as_array).cloned().unwrap_or_default();
    let internal = all.iter().filter(|address| address.get("type") == Some(&"InternalIP".into()));
    let addresses: Vec<IpAddr> =
        internal.filter_map(|address| address.get("address")?.as_str()?.parse().ok()).collect();
    assert!(!addresses.is_empty(), "a node without an address");
    addresses
}
