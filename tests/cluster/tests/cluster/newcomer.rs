//! What somebody does who meets this for the first time: install, write a policy, see the refusal and the status, remove it all.

use std::fmt::Write as _;

use egress_cluster::{Installed, Lab, Verdict, cluster, eventually, run};

/// The OpenShift example with the server's addresses: one port is allowed, everything else is denied.
fn policy(lab: &Lab<'_>, allowed: u16) -> String {
    let mut text =
        "kind: EgressNetworkPolicy\napiVersion: egress.rs/v1alpha1\nmetadata: {name: default}\nspec:\n  egress:\n"
            .to_owned();
    for address in &lab.server.addresses {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let _ = writeln!(
            text,
            "  - {{type: Allow, to: {{cidrSelector: '{address}/{length}'}}, ports: [{{protocol: TCP, port: {allowed}}}]}}"
        );
    }
    text.push_str("  - {type: Deny, to: {cidrSelector: 0.0.0.0/0}}\n  - {type: Deny, to: {cidrSelector: '::/0'}}\n");
    text
}

#[test]
fn a_newcomer_installs_writes_the_example_sees_the_refusal_and_removes_it_all() {
    let Some(cluster) = cluster() else { return };
    let lab = Lab::new(&cluster, "newcomer");
    let [allowed, denied] = lab.server.ports;
    for port in [allowed, denied] {
        lab.insist(port, &Verdict::Reached);
    }
    let mut installed = Installed::new(&cluster);
    lab.insist(denied, &Verdict::Reached);

    lab.apply(&policy(&lab, allowed)).expect("the policy");
    let enforced = eventually(|| lab.condition("egressnetworkpolicies/default", "Enforced").is_some_and(|(is, _)| is));
    assert!(enforced, "{:?}", lab.condition("egressnetworkpolicies/default", "Enforced"));
    // It is enforced as soon as it says so: no waiting here.
    for &address in &lab.server.addresses {
        assert_eq!(lab.connect("client", address, denied), Verdict::Refused, "{address}");
        assert_eq!(lab.connect("client", address, allowed), Verdict::Reached, "{address}");
    }
    let short = run(&["-n", &lab.namespace, "get", "enp"], None).stdout;
    assert!(short.contains("default") && short.to_uppercase().contains("ENFORCED"), "{short}");

    let address = lab.server.addresses[0];
    let why = installed.agent(&lab.node, &["why", &format!("{}/client", lab.namespace), &destination(address, denied)]);
    assert!(why.contains("deny") && why.contains(&format!("{}/default", lab.namespace)), "{why}");

    run(&["-n", &lab.namespace, "delete", "enp", "default"], None).expect("deleted");
    lab.insist(denied, &Verdict::Reached);

    lab.apply(&policy(&lab, allowed)).expect("the policy");
    lab.insist(denied, &Verdict::Refused);
    installed.take_off_the_nodes();
    lab.insist(denied, &Verdict::Reached);
    installed.delete();
    let left = run(&["get", "crd", "-o", "name"], None).stdout;
    assert!(!left.contains("egress.rs"), "{left}");
    assert_nothing_left(&lab);
}

fn destination(address: std::net::IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

/// Looks at the client's node through a pod that mounts its folders.
fn assert_nothing_left(lab: &Lab<'_>) {
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "looks"},
        "spec": {
            "nodeName": lab.node, "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": lab.client_image(), "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", "ls -a /node/run /node/bpf; exec sleep 1000"],
                "volumeMounts": [{"name": "run", "mountPath": "/node/run", "readOnly": true}, {"name": "bpf", "mountPath": "/node/bpf", "readOnly": true}],
            }],
            "volumes": [{"name": "run", "hostPath": {"path": "/run"}}, {"name": "bpf", "hostPath": {"path": "/sys/fs/bpf"}}],
        },
    });
    lab.apply(&pod.to_string()).expect("a pod");
    lab.wait_for("looks");
    let listing = lab.output("looks");
    assert!(listing.contains("/node/bpf") && listing.lines().count() > 3, "{listing}");
    assert!(!listing.lines().any(|name| name.trim() == "egress"), "{listing}");
}
