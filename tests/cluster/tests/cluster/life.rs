//! Enforcement does not depend on the agent's health: upgrades, kills and pods that start meanwhile.

use egress_cluster::{Installed, Lab, Verdict, attempt, cluster, run};

const DENY_ALL: &str = "kind: EgressNetworkPolicy\napiVersion: egress.rs/v1alpha1\nmetadata: {name: deny}\nspec:\n  egress:\n  \
    - {type: Deny, to: {cidrSelector: 0.0.0.0/0}}\n  - {type: Deny, to: {cidrSelector: '::/0'}}\n";
const ALLOW_CLIENT: &str = "kind: EgressNetworkPolicy\napiVersion: egress.rs/v1alpha1\nmetadata: {name: allow}\nspec:\n  priority: 1\n  \
    podSelector: {matchLabels: {app: free}}\n  egress:\n  - {type: Allow, to: {cidrSelector: 0.0.0.0/0}}\n  - {type: Allow, to: {cidrSelector: '::/0'}}\n";

/// A script that connects for ever and writes a line for each outcome.
fn traffic(lab: &Lab<'_>) -> String {
    let attempts: Vec<String> = lab
        .server
        .addresses
        .iter()
        .map(|&address| {
            format!(
                "if {} >/dev/null 2>&1; then echo reached; else echo refused; fi",
                attempt(address, lab.server.ports[0])
            )
        })
        .collect();
    format!("while :; do {}; sleep 0.02; done", attempts.join("; "))
}

fn count(lab: &Lab<'_>, pod: &str, word: &str) -> usize {
    lab.output(pod).lines().filter(|line| *line == word).count()
}

#[test]
fn an_upgrade_and_a_kill_under_traffic_open_nothing_and_close_nothing() {
    let Some(cluster) = cluster() else { return };
    let lab = Lab::new(&cluster, "life");
    let installed = Installed::new(&cluster);
    lab.apply(DENY_ALL).expect("the policy");
    lab.apply(ALLOW_CLIENT).expect("the policy");
    lab.insist(lab.server.ports[0], &Verdict::Refused);
    for pod in ["denied", "free"] {
        lab.pod(pod, &lab.node, &traffic(&lab), false);
        lab.wait_for(pod);
    }
    assert!(egress_cluster::eventually(|| count(&lab, "free", "reached") > 10), "{}", lab.output("free"));
    let closed_before = count(&lab, "free", "refused");
    let refused_before = count(&lab, "denied", "refused");

    installed.restart_agents();
    // The process dies with its container; the pins stay.
    run(&["-n", "egress-system", "delete", "pod", &installed.agent_on(&lab.node), "--grace-period=0", "--force"], None)
        .expect("killed");
    // A pod that starts while no agent runs on its node is held or judged, and never free.
    lab.pod("late", &lab.node, &traffic(&lab), false);
    lab.wait_for("late");
    run(&["-n", "egress-system", "rollout", "status", "daemonset/egress-agent", "--timeout=180s"], None)
        .expect("ready");
    assert!(egress_cluster::eventually(|| count(&lab, "late", "refused") > 20), "{}", lab.output("late"));

    assert_eq!(count(&lab, "denied", "reached"), 0, "a gap");
    assert!(count(&lab, "denied", "refused") > refused_before + 20);
    assert_eq!(count(&lab, "free", "refused"), closed_before, "what is allowed was refused");
    assert_eq!(count(&lab, "late", "reached"), 0, "a gap for a new pod");
}
