//! What the API server refuses before an agent sees it, with what it takes.

use egress_cluster::{Answer, Installed, Lab, cluster, run};
use egress_policy::crd::cases;
use serde_json::{Value, json};

#[test]
fn the_api_server_refuses_what_no_policy_can_mean_and_says_where() {
    let Some(cluster) = cluster() else { return };
    let lab = Lab::new(&cluster, "api");
    let _installed = Installed::new(&cluster);
    let dry_run = |rule: &str| {
        let object = format!(
            "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: tried, namespace: {}}}\nspec: {{egress: [{rule}]}}\n",
            lab.namespace
        );
        run(&["apply", "--dry-run=server", "-f", "-"], Some(&object))
    };
    for (wrong, right) in [
        ("{type: Reject, to: {cidrSelector: 1.2.3.0/24}}", "{type: Deny, to: {cidrSelector: 1.2.3.0/24}}"),
        ("{type: Deny, to: {cidrSelector: 1.2.3.0/33}}", "{type: Deny, to: {cidrSelector: '2001:db8::/33'}}"),
        ("{type: Deny, to: {cidrSelector: 1.2.3.0/24, dnsName: a.example}}", "{type: Deny, to: {dnsName: a.example}}"),
        ("{type: Deny, to: {}}", "{type: Deny, to: {dnsName: '*.a.example'}}"),
        (
            "{type: Allow, to: {cidrSelector: 1.2.3.4/32}, ports: [{protocol: TCP, port: 9, endPort: 8}]}",
            "{type: Allow, to: {cidrSelector: 1.2.3.4/32}, ports: [{protocol: TCP, port: 9, endPort: 9}]}",
        ),
        ("{type: Allow, to: {cidrSelector: 1.2.3.4/32}, port: 443}", "{type: Allow, to: {cidrSelector: 1.2.3.4/32}}"),
    ] {
        let refused = dry_run(wrong);
        assert!(!refused.success && refused.stderr.contains("egress"), "{wrong}: {}{}", refused.stdout, refused.stderr);
        dry_run(right).expect(right);
    }
    let explained = run(&["explain", "enp.spec.egress.to"], None).expect("kubectl explain");
    assert!(explained.contains("cidrSelector") && explained.contains("dnsName"), "{explained}");

    // The objects that the definitions were tested with, without kubectl's own checks and without admission policies for fields.
    let alone = cases::refused_by_the_agent_alone().into_iter().map(|(_, object)| object);
    let mut wrong = Vec::new();
    for object in cases::accepted().into_iter().chain(alone) {
        let answer = try_out(&lab, object.clone());
        if !answer.success {
            wrong.push(format!("refused: {}: {}", beginning(&object), answer.stderr));
        }
    }
    for object in cases::refused() {
        let answer = try_out(&lab, object.clone());
        let why = answer.stderr.split_once("is invalid: ").map(|(_, why)| why.replace('\n', " "));
        println!("{}\n    {}", beginning(&object), why.as_deref().unwrap_or("?"));
        if answer.success || why.is_none() {
            wrong.push(format!("taken: {}: {}{}", beginning(&object), answer.stdout, answer.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Asks the API server what it would do with the object, in the test's namespace.
fn try_out(lab: &Lab<'_>, mut object: Value) -> Answer {
    if object.pointer("/metadata/namespace").is_some() {
        object["metadata"]["namespace"] = json!(lab.namespace);
    }
    run(&["create", "--dry-run=server", "--validate=false", "-f", "-"], Some(&object.to_string()))
}

fn beginning(object: &Value) -> String {
    let text = format!("{} {}", object["kind"].as_str().unwrap_or_default(), object["spec"]);
    text.chars().take(160).collect()
}
