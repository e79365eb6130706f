//! What the API server refuses before an agent sees it, with what it takes.

use egress_cluster::{Installed, Lab, cluster, run};

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
}
