//! Installing as `docs/installing.md` says, and uninstalling as it says, also when the test fails.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::kubectl::{Token, ask, run};
use crate::{Cluster, setting};

const NAMESPACE: &str = "egress-system";
const DAEMONSET: &str = "daemonset/egress-agent";

/// The firewall in the cluster; removed when dropped.
pub struct Installed<'a> {
    _cluster: &'a Cluster,
    kustomizations: TempDir,
    present: bool,
}

impl<'a> Installed<'a> {
    /// Installs, and waits until every node's agent is ready.
    pub fn new(cluster: &'a Cluster) -> Self {
        Self::with(cluster, &[])
    }

    /// The same with further components.
    pub fn with(cluster: &'a Cluster, components: &[&str]) -> Self {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        std::fs::create_dir_all(&target).expect("target/");
        let kustomizations = tempfile::tempdir_in(target).expect("a folder below target/");
        for of in ["base", "uninstall"] {
            write_kustomization(&kustomizations.path().join(of), of, components);
        }
        let installed = Self { _cluster: cluster, kustomizations, present: true };
        installed.apply("base");
        installed
    }

    fn folder(&self, of: &str) -> PathBuf {
        self.kustomizations.path().join(of)
    }

    fn apply(&self, of: &str) {
        run(&["apply", "-k", &self.folder(of).to_string_lossy()], None).expect("kubectl apply -k");
        Self::wait();
    }

    fn wait() {
        let waited = run(&["-n", NAMESPACE, "rollout", "status", DAEMONSET, "--timeout=180s"], None);
        if !waited.success {
            let logs = ["-n", NAMESPACE, "logs", "-l", "app.kubernetes.io/name=egress-agent", "--tail=20", "--prefix"];
            let (logs, pods) = (run(&logs, None), run(&["-n", NAMESPACE, "describe", "pods"], None));
            panic!("the agents are not ready: {}\n{}\n{}", waited.stderr, logs.stdout, pods.stdout);
        }
    }

    /// Replaces every agent, as an upgrade does, and waits until the new ones are ready.
    pub fn restart_agents(&self) {
        run(&["-n", NAMESPACE, "rollout", "restart", DAEMONSET], None).expect("rollout restart");
        Self::wait();
    }

    /// The agent's pod on a node.
    pub fn agent_on(&self, node: &str) -> String {
        let selector = ["-l", "app.kubernetes.io/name=egress-agent", "--field-selector"];
        let pods = ask(&[&["-n", NAMESPACE, "pods"], &selector[..], &[&format!("spec.nodeName={node}")]].concat());
        let pods = pods.expect("pods");
        pods.pointer("/items/0/metadata/name").and_then(Value::as_str).expect("an agent on the node").to_owned()
    }

    /// A token as the agent on a node has it: bound to its pod, and thereby to the node.
    pub fn token_on(&self, node: &str) -> Token {
        let pod = self.agent_on(node);
        let arguments = ["-n", NAMESPACE, "create", "token", "egress-agent", "--bound-object-kind=Pod"];
        let token = run(&[&arguments[..], &[&format!("--bound-object-name={pod}")]].concat(), None).expect("a token");
        Token::new(&token)
    }

    /// Runs a command of the agent in its pod on a node.
    pub fn agent(&self, node: &str, arguments: &[&str]) -> String {
        let pod = self.agent_on(node);
        let answer = run(&[&["-n", NAMESPACE, "exec", &pod, "--", "egress-agent"], arguments].concat(), None);
        format!("{}{}", answer.stdout, answer.stderr)
    }

    /// Takes everything off the nodes, as `docs/installing.md` says; the objects are still there.
    pub fn take_off_the_nodes(&self) {
        self.apply("uninstall");
    }

    /// Removes the objects.
    pub fn delete(&mut self) {
        run(&["delete", "-k", &self.folder("base").to_string_lossy(), "--ignore-not-found", "--timeout=120s"], None)
            .expect("kubectl delete -k");
        self.present = false;
    }
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        if !self.present {
            return;
        }
        // A failing test must leave a cluster without firewall; what fails here too is printed, not thrown.
        let folder = |of: &str| self.folder(of).to_string_lossy().into_owned();
        let steps: [&[&str]; 3] = [
            &["apply", "-k", &folder("uninstall")],
            &["-n", NAMESPACE, "rollout", "status", DAEMONSET, "--timeout=120s"],
            &["delete", "-k", &folder("base"), "--ignore-not-found", "--timeout=120s"],
        ];
        for step in steps {
            let answer = run(step, None);
            if !answer.success {
                eprintln!("kubectl {}: {}", step.join(" "), answer.stderr);
            }
        }
    }
}

/// The tree's kustomization with the image and the components of this cluster.
fn write_kustomization(folder: &Path, of: &str, further: &[&str]) {
    std::fs::create_dir(folder).expect("a folder");
    let image = setting("EGRESS_IMAGE", "");
    let components = setting("EGRESS_COMPONENTS", "");
    let components = components.split(',').filter(|name| !name.is_empty());
    let components = components.chain(further.iter().copied());
    // The others change arguments that uninstalling does not have.
    let components = components.filter(|name| of == "base" || ["mount-bpffs", "openshift"].contains(name));
    let components: Vec<_> = components.map(|name| format!("../../../deploy/components/{name}")).collect();
    let mut text = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../../../deploy/{of}]\ncomponents: [{}]\n",
        components.join(", ")
    );
    if let Some((name, tag)) = image.rsplit_once(':') {
        let _ = writeln!(text, "images: [{{name: localhost/egress-agent, newName: {name}, newTag: {tag:?}}}]");
    }
    std::fs::write(folder.join("kustomization.yaml"), text).expect("a kustomization");
}
