//! Policies under Audit decide nothing, and everything that they would have decided is counted, and told where it differs (§2.5).

use egress_common::reason::DropReason;
use egress_packets::{Expect, Frame, Hooks, Lab, is_root};

use crate::sides::DEFAULT;

const TEXT: &str = r#"
apiVersion: egress.rs/v1alpha1
kind: EgressConfig
metadata: {name: default}
spec: {defaultAction: Deny, internalCIDRs: []}
---
apiVersion: egress.rs/v1alpha1
kind: EgressNetworkPolicy
metadata: {name: try}
spec:
  mode: Audit
  priority: 1
  egress:
  - {type: Deny, to: {cidrSelector: 20.0.0.0/16}}
  - {type: Allow, to: {cidrSelector: 20.1.0.0/16}}
  - {type: Allow, to: {cidrSelector: 30.0.0.0/16}, ports: [{protocol: TCP, port: 443}]}
  - {type: Deny, to: {cidrSelector: 30.1.0.0/16}}
  - {type: Deny, to: {cidrSelector: "2001:db8::/48"}}
  - {type: Allow, to: {cidrSelector: "2001:db8:1::/48"}}
  - {type: Allow, to: {cidrSelector: "2001:db9::/48"}, ports: [{protocol: TCP, port: 443}]}
  - {type: Deny, to: {cidrSelector: "2001:db9:1::/48"}}
---
apiVersion: egress.rs/v1alpha1
kind: EgressNetworkPolicy
metadata: {name: real}
spec:
  priority: 2
  egress:
  - {type: Allow, to: {cidrSelector: 20.0.0.0/8}}
  - {type: Allow, to: {cidrSelector: "2001:db8::/32"}}
"#;

#[test]
fn audit_policies_are_counted_and_told_and_decide_nothing() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(TEXT);
    let tcp = |to: &str, port| Frame::syn(to.parse().expect("an address"), port);
    let (real4, real6) = ("rule 1 of default/real", "rule 2 of default/real");
    let rows = [
        ("would be denied", tcp("20.0.0.1", 80), Expect::WouldDeny(real4, "rule 1 of default/try")),
        ("allowed by both", tcp("20.1.0.1", 80), Expect::AllowAudited(real4, "rule 2 of default/try")),
        ("untouched", tcp("20.2.0.1", 80), Expect::Allow(real4)),
        ("would be allowed", tcp("30.0.0.1", 443), Expect::WouldAllow(DEFAULT, "rule 3 of default/try")),
        ("another port", tcp("30.0.0.1", 444), Expect::Deny(DEFAULT)),
        ("denied by both", tcp("30.1.0.1", 443), Expect::DenyAudited(DEFAULT, "rule 4 of default/try")),
        ("nobody", tcp("40.0.0.1", 443), Expect::Deny(DEFAULT)),
        ("would be denied", tcp("2001:db8::1", 80), Expect::WouldDeny(real6, "rule 5 of default/try")),
        ("allowed by both", tcp("2001:db8:1::1", 80), Expect::AllowAudited(real6, "rule 6 of default/try")),
        ("untouched", tcp("2001:db8:2::1", 80), Expect::Allow(real6)),
        ("would be allowed", tcp("2001:db9::1", 443), Expect::WouldAllow(DEFAULT, "rule 7 of default/try")),
        ("another port", tcp("2001:db9::1", 444), Expect::Deny(DEFAULT)),
        ("denied by both", tcp("2001:db9:1::1", 443), Expect::DenyAudited(DEFAULT, "rule 8 of default/try")),
    ];
    for (name, frame, expect) in &rows {
        lab.check(name, Hooks::Both, &frame.bytes(), *expect);
    }
    // The same policy enforced.
    lab.apply(&TEXT.replace("mode: Audit", "mode: Enforce"));
    let enforced = [
        ("denied", tcp("20.0.0.1", 80), Expect::Deny("rule 1 of default/try")),
        ("allowed", tcp("20.1.0.1", 80), Expect::Allow("rule 2 of default/try")),
        ("allowed", tcp("30.0.0.1", 443), Expect::Allow("rule 3 of default/try")),
        ("denied", tcp("2001:db8::1", 80), Expect::Deny("rule 5 of default/try")),
        ("allowed", tcp("2001:db9::1", 443), Expect::Allow("rule 7 of default/try")),
    ];
    for (name, frame, expect) in &enforced {
        lab.check(name, Hooks::Both, &frame.bytes(), *expect);
    }
}

/// A reply passes whatever the rules say, Audit or not, and is nobody's.
#[test]
fn audit_says_nothing_of_replies() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(TEXT);
    for to in ["30.0.0.1", "2001:db9::1"] {
        let answer = Frame::tcp(to.parse().expect("an address"), 443, 0x10);
        let rule = if answer.source.is_ipv4() { "rule 3 of default/try" } else { "rule 7 of default/try" };
        lab.check("before", Hooks::Both, &answer.bytes(), Expect::WouldAllow(DEFAULT, rule));
        lab.receive(&Frame::syn(answer.destination, 443).turned());
        lab.check("answer", Hooks::Both, &answer.bytes(), Expect::Reply);
    }
}

#[test]
fn a_later_fragment_of_unknown_ports_passes_where_only_policies_under_audit_depend_on_them() {
    if !is_root() {
        return;
    }
    let config = |enforcement: &str| {
        format!(
            "apiVersion: egress.rs/v1alpha1\nkind: EgressConfig\nmetadata: {{name: default}}\nspec: {{enforcement: {enforcement}}}\n---\n"
        )
    };
    let policy = "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {name: web}\nspec:\n  egress:\n  \
                  - {type: Allow, to: {cidrSelector: 20.0.0.0/16}, ports: [{protocol: UDP, port: 53}]}\n  \
                  - {type: Deny, to: {cidrSelector: 20.0.0.0/16}}\n  \
                  - {type: Allow, to: {cidrSelector: '2001:db8::/48'}, ports: [{protocol: UDP, port: 53}]}\n  \
                  - {type: Deny, to: {cidrSelector: '2001:db8::/48'}}\n";
    let mut lab = Lab::new(&(config("Audit") + policy));
    for (number, to) in (70_u16..).zip(["20.0.0.1", "2001:db8::1"]) {
        let later = Frame::later(to.parse().expect("an address"), 17, number, 3).bytes();
        for hook in Hooks::Both.from_pod() {
            let seen = lab.send(*hook, &later);
            lab.compare("only Audit depends on the port", *hook, &later, Expect::Allow(DEFAULT), &seen);
        }
        lab.apply(&(config("Enforce") + policy));
        lab.check("in force it depends", Hooks::Both, &later, Expect::Drop(DropReason::UnknownFragment));
        lab.apply(&(config("Audit") + policy));
    }
}
