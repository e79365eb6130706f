//! A node that goes down and comes back. How is the cluster's own affair: `--restart-node` gives the command.

use std::process::Command;

use egress_cluster::{Installed, Lab, Verdict, cluster, eventually, run};

const DENY_ALL: &str = "kind: EgressNetworkPolicy\napiVersion: egress.rs/v1alpha1\nmetadata: {name: deny}\nspec:\n  egress:\n  \
    - {type: Deny, to: {cidrSelector: 0.0.0.0/0}}\n  - {type: Deny, to: {cidrSelector: '::/0'}}\n";

#[test]
fn a_node_that_comes_back_enforces_again() {
    let Some(cluster) = cluster() else { return };
    let Some(restart) = std::env::var_os("EGRESS_RESTART_NODE") else {
        eprintln!("SKIPPED: how nodes of this cluster are restarted is not known: --restart-node COMMAND");
        return;
    };
    let lab = Lab::new(&cluster, "nodes");
    let _installed = Installed::new(&cluster);
    lab.apply(DENY_ALL).expect("the policy");
    lab.insist(lab.server.ports[0], &Verdict::Refused);
    let restarted = Command::new(restart).arg(&lab.node).status().expect("the command of --restart-node");
    assert!(restarted.success(), "{restarted}");
    let ready = ["wait", "--for=condition=Ready", &format!("node/{}", lab.node), "--timeout=180s"];
    run(&ready, None).expect("the node is back");
    // The client was on the node: it runs again, with a new interface and a new cgroup.
    assert!(eventually(|| lab.answers("client")), "the client does not come back");
    lab.insist(lab.server.ports[0], &Verdict::Refused);
    run(&["-n", &lab.namespace, "delete", "enp", "deny"], None).expect("deleted");
    lab.insist(lab.server.ports[0], &Verdict::Reached);
}
