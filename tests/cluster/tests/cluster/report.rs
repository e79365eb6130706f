//! What agents write, and what the API server lets them write.

use egress_cluster::{Installed, Lab, Verdict, ask, cluster, eventually, run};
use serde_json::{Value, json};

const DENY_ALL: &str = "kind: EgressNetworkPolicy\napiVersion: egress.rs/v1alpha1\nmetadata: {name: deny}\nspec:\n  egress:\n  \
    - {type: Deny, to: {cidrSelector: 0.0.0.0/0}}\n  - {type: Deny, to: {cidrSelector: '::/0'}}\n";
/// The API server takes it; the agent does not, because of the empty label.
const BROKEN: &str = "kind: EgressNetworkPolicy\napiVersion: egress.rs/v1alpha1\nmetadata: {name: deny}\nspec:\n  egress:\n  \
    - {type: Allow, to: {dnsName: a..example}}\n";
const TAINT: &str = "egress.rs/agent-not-ready";
const OTHER_TAINT: &str = "egress-test.example/other";

#[test]
fn a_refused_policy_says_why_in_its_status_and_events_and_the_one_before_stays_in_force() {
    let Some(cluster) = cluster() else { return };
    let lab = Lab::new(&cluster, "report");
    let installed = Installed::new(&cluster);
    lab.apply(DENY_ALL).expect("the policy");
    lab.insist(lab.server.ports[0], &Verdict::Refused);
    let of = "egressnetworkpolicies/deny";
    assert!(
        eventually(|| lab.condition(of, "Accepted").is_some_and(|(is, _)| is)),
        "{:?}",
        lab.condition(of, "Accepted")
    );

    lab.apply(BROKEN).expect("the API server takes it");
    let refused = || lab.condition(of, "Accepted").filter(|(is, _)| !is).map(|(_, message)| message);
    assert!(eventually(|| refused().is_some()), "{:?}", lab.condition(of, "Accepted"));
    let message = refused().unwrap_or_default();
    assert!(message.contains("spec.egress[0].to.dnsName"), "{message}");
    let told = || run(&["-n", &lab.namespace, "describe", "enp", "deny"], None).stdout;
    assert!(eventually(|| told().contains("Warning") && told().contains("Invalid")), "{}", told());
    assert!(told().contains("a..example"), "{}", told());
    // §6.3.
    lab.insist(lab.server.ports[0], &Verdict::Refused);

    lab.apply(DENY_ALL).expect("the policy");
    assert!(
        eventually(|| lab.condition(of, "Accepted").is_some_and(|(is, _)| is)),
        "{:?}",
        lab.condition(of, "Accepted")
    );
    assert!(
        eventually(|| lab.condition(of, "Enforced").is_some_and(|(is, _)| is)),
        "{:?}",
        lab.condition(of, "Enforced")
    );

    // An agent's token is one of its node.
    let token = installed.token_on(&lab.node);
    let state = |node: &str| {
        let metadata = json!({"name": node});
        json!({"apiVersion": "egress.rs/v1alpha1", "kind": "EgressNodeState", "metadata": metadata, "status": {"agentVersion": "test"}})
    };
    let write = |node: &str| token.apply_status(&state(node));
    write(&lab.node).expect("its own state");
    let other = write(&other_node(&lab));
    assert!(!other.success && other.stderr.contains("its own node only"), "{}{}", other.stdout, other.stderr);
    let made = token.run(&["create", "--dry-run=server", "-f", "-"], Some(&state("nobody").to_string()));
    assert!(!made.success && made.stderr.contains("its own node only"), "{}{}", made.stdout, made.stderr);
    let node = token.run(&["label", "node", &lab.node, "egress-test.example/a=b", "--dry-run=server"], None);
    assert!(!node.success && node.stderr.contains("cannot patch"), "{}{}", node.stdout, node.stderr);
}

/// Another node with a state, or one that is not there.
fn other_node(lab: &Lab<'_>) -> String {
    let states = ask(&["egressnodestates"]).expect("states");
    let names = states.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let names = names.into_iter().filter_map(|state| state.pointer("/metadata/name")?.as_str().map(str::to_owned));
    names.into_iter().find(|name| *name != lab.node).unwrap_or_else(|| "nobody".to_owned())
}

/// A taint of the test's own on a node; off again when dropped.
struct Tainted<'a>(&'a str);

impl<'a> Tainted<'a> {
    fn new(node: &'a str, keys: &[&str]) -> Self {
        let tainted = Self(node);
        for key in keys {
            run(&["taint", "node", node, &format!("{key}=:PreferNoSchedule"), "--overwrite"], None).expect("a taint");
        }
        tainted
    }

    fn keys(&self) -> Vec<String> {
        let node = ask(&["node", self.0]).expect("the node");
        let taints = node.pointer("/spec/taints").and_then(Value::as_array).cloned().unwrap_or_default();
        taints.iter().filter_map(|taint| taint.get("key")?.as_str().map(str::to_owned)).collect()
    }
}

impl Drop for Tainted<'_> {
    fn drop(&mut self) {
        for key in [TAINT, OTHER_TAINT] {
            let _ = run(&["taint", "node", self.0, &format!("{key}-")], None);
        }
    }
}

#[test]
fn the_taint_of_a_node_that_joins_goes_when_it_enforces_and_nothing_else_of_a_node_can_be_changed() {
    let Some(cluster) = cluster() else { return };
    let lab = Lab::new(&cluster, "taint");
    let tainted = Tainted::new(&lab.node, &[TAINT, OTHER_TAINT]);
    let installed = Installed::with(&cluster, &["remove-taint"]);
    let has = |key: &str| tainted.keys().iter().any(|known| known == key);
    assert!(eventually(|| !has(TAINT)), "{:?}", tainted.keys());
    assert!(has(OTHER_TAINT), "{:?}", tainted.keys());
    // As with a Node that is registered anew.
    let _again = Tainted::new(&lab.node, &[TAINT]);
    assert!(eventually(|| !has(TAINT)), "{:?}", tainted.keys());

    let token = installed.token_on(&lab.node);
    let patch = |node: &str, patch: &Value| {
        token.run(&["patch", "node", node, "--dry-run=server", "--type=merge", "-p", &patch.to_string()], None)
    };
    let before = ask(&["node", &lab.node]).expect("the node");
    let taints = before.pointer("/spec/taints").cloned().unwrap_or_default();
    patch(&lab.node, &json!({"spec": {"taints": taints}})).expect("what changes nothing");
    for (what, wrong) in [
        ("another taint", json!({"spec": {"taints": null}})),
        ("one more", json!({"spec": {"taints": [{"key": "a.example/b", "effect": "NoExecute"}]}})),
        ("a label", json!({"metadata": {"labels": {"egress-test.example/a": "b"}}})),
        ("an annotation", json!({"metadata": {"annotations": {"egress-test.example/a": "b"}}})),
        ("cordoning", json!({"spec": {"unschedulable": true}})),
    ] {
        let answer = patch(&lab.node, &wrong);
        assert!(!answer.success && answer.stderr.contains("an agent"), "{what}: {}{}", answer.stdout, answer.stderr);
    }
    let other = other_node(&lab);
    if other == "nobody" {
        eprintln!("SKIPPED: another node: this cluster has one");
        return;
    }
    let answer = patch(&other, &json!({"metadata": {"labels": {"egress-test.example/a": "b"}}}));
    assert!(!answer.success && answer.stderr.contains("its own node only"), "{}{}", answer.stdout, answer.stderr);
}
