//! `kubectl egress` from outside, with a kubectl that writes down what it is asked.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Answers as a cluster with pod shop/web on node-a and an agent there; `exec` ends with 1, as `why` does for a refusal.
const KUBECTL: &str = r#"#!/bin/sh
echo "$*" >> "$ASKED"
case "$*" in
  *"get pod --namespace shop web "*) printf node-a ;;
  *"get pod --namespace shop pending "*) ;;
  *"get pod "*) echo 'Error from server (NotFound): pods not found' >&2; exit 1 ;;
  *"get pods "*"spec.nodeName=node-a,"*) printf 'agent-x agent-y' ;;
  *"get pods "*) ;;
  *"exec "*) echo "the answer"; exit 1 ;;
esac
"#;

struct Cluster(TempDir);

impl Cluster {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kubectl = folder.path().join("kubectl");
        fs::write(&kubectl, KUBECTL).unwrap();
        fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
        symlink(env!("CARGO_BIN_EXE_egress-agent"), folder.path().join("kubectl-egress")).unwrap();
        Self(folder)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let path = format!("{}:{}", self.0.path().display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(self.0.path().join("kubectl-egress"));
        command.args(arguments).env("PATH", path).env("ASKED", self.0.path().join("asked"));
        command.output().unwrap()
    }

    /// What kubectl was asked, line by line.
    fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.path().join("asked")).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn why_runs_in_the_agent_on_the_pods_node_and_its_exit_code_comes_back() {
    let cluster = Cluster::new();
    let output = cluster.run(&["--context", "prod", "why", "shop/web", "[2001:db8::1]:443", "-o", "json"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), b"the answer\n".as_slice()));
    assert_eq!(
        cluster.asked(),
        [
            "--context prod get pod --namespace shop web -o jsonpath={.spec.nodeName}",
            "--context prod get pods --namespace egress-system --selector=app.kubernetes.io/name=egress-agent \
             --field-selector=spec.nodeName=node-a,status.phase=Running -o jsonpath={.items[*].metadata.name}",
            "--context prod exec -i --namespace egress-system agent-x --container agent -- egress-agent why shop/web \
             [2001:db8::1]:443 -o json",
        ]
    );
}

#[test]
fn a_node_may_be_named_and_agents_may_live_elsewhere() {
    let cluster = Cluster::new();
    let elsewhere = ["--agent-namespace", "fw", "--agent-selector", "a=b", "--kubeconfig", "k", "--node", "node-a"];
    cluster.run(&[&elsewhere[..], &["status"]].concat());
    let asked = cluster.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(
        asked[0].starts_with(
            "--kubeconfig k get pods --namespace fw --selector=a=b --field-selector=spec.nodeName=node-a,"
        )
    );
    assert_eq!(asked[1], "--kubeconfig k exec -i --namespace fw agent-x --container agent -- egress-agent status");
}

#[test]
fn what_cannot_be_found_is_said_with_what_to_do() {
    let cluster = Cluster::new();
    for (arguments, code, words) in [
        (vec!["why", "shop/pending", "1.2.3.4"], 1, "shop/pending is on no node yet"),
        (vec!["why", "shop/absent", "1.2.3.4"], 3, "NotFound"),
        (vec!["--node", "node-b", "status"], 1, "no agent runs on node node-b"),
        (vec!["status"], 2, "--node NODE"),
        (vec!["why", "shop/web", "1.2.3.0/24"], 2, "1.2.3.0/24"),
        (vec!["run", "--cleanup"], 2, "not for kubectl"),
    ] {
        let output = cluster.run(&arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", errors(&output));
        assert!(errors(&output).contains(words), "{arguments:?}: {}", errors(&output));
    }
    assert!(cluster.asked().iter().all(|line| !line.contains("exec ")));
}

#[test]
fn what_needs_only_files_asks_no_cluster() {
    let cluster = Cluster::new();
    let policy = cluster.0.path().join("p.yaml");
    fs::write(
        &policy,
        "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {name: p}\n\
         spec: {egress: [{type: Deny, to: {cidrSelector: '::/0'}}]}\n",
    )
    .unwrap();
    let output = cluster.run(&["check", policy.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert!(cluster.run(&["why", "--help"]).status.success());
    assert_eq!(cluster.asked(), [""; 0]);
}
