//! What the semantics call invalid is refused with the path of the field (§3.4, §6.3, §8), its valid twin is read, and other objects
//! of the same file are not touched.

use egress_policy::document::{self, Object};
use egress_policy::warnings::WarningReason;
use egress_reference::{Action, Decider, Oracle, Packet, Pod, Policy, Prefix, Rule, World};

use crate::bridge::{Compiled, compile_pod, read};
use egress_reference::File;

/// An EgressNetworkPolicy whose only rule is the one given, in YAML flow style.
fn policy_with_rule(rule: &str) -> String {
    format!(
        "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: p, namespace: default}}\nspec:\n  egress:\n  - {rule}\n"
    )
}

/// An object whose spec is the one given, in YAML flow style.
fn object(kind: &str, metadata: &str, spec: &str) -> String {
    format!("apiVersion: egress.rs/v1alpha1\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n")
}

const BYSTANDER: &str = "---\napiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {name: bystander}\nspec: {egress: [{type: Deny, to: {cidrSelector: 192.0.2.0/24}}]}\n";

fn assert_refused(text: &str, path: &str) {
    let documents = document::read(&format!("{text}{BYSTANDER}"));
    let told = documents.problems.iter().any(|problem| problem.path == path && problem.document == 1);
    assert!(told, "expected a problem at {path}, got {:?} for\n{text}", documents.problems);
    assert!(
        matches!(documents.objects.as_slice(), [Object::Policy(policy)] if policy.key.name == "bystander"),
        "another object was affected by\n{text}"
    );
}

fn assert_read(text: &str) {
    let documents = document::read(&format!("{text}{BYSTANDER}"));
    assert!(documents.problems.is_empty(), "{:?} for\n{text}", documents.problems);
    assert_eq!(documents.objects.len(), 2, "{text}");
}

/// Pairs of an invalid rule with the path of its problem, below `spec.egress[0]`, and a valid twin.
const RULES: [(&str, &str, &str); 22] = [
    ("{type: Allow, to: {}}", "to", "{type: Allow, to: {cidrSelector: 1.2.3.0/24}}"),
    (
        "{type: Allow, to: {cidrSelector: 1.2.3.0/24, dnsName: a.example}}",
        "to",
        "{type: Allow, to: {dnsName: a.example}}",
    ),
    (
        "{type: Allow, to: {cidrSelector: 1.2.3.0/33}}",
        "to.cidrSelector",
        "{type: Allow, to: {cidrSelector: 1.2.3.0/32}}",
    ),
    (
        "{type: Allow, to: {cidrSelector: '2001:db8::/129'}}",
        "to.cidrSelector",
        "{type: Allow, to: {cidrSelector: '2001:db8::/128'}}",
    ),
    (
        "{type: Allow, to: {cidrSelector: 1.2.3.0.0/24}}",
        "to.cidrSelector",
        "{type: Allow, to: {cidrSelector: 0.0.0.0/0}}",
    ),
    ("{type: Allow, to: {cidrSelector: ''}}", "to.cidrSelector", "{type: Allow, to: {cidrSelector: '::/0'}}"),
    ("{type: Permit, to: {cidrSelector: 1.2.3.0/24}}", "type", "{type: Deny, to: {cidrSelector: 1.2.3.0/24}}"),
    ("{type: Pass, to: {cidrSelector: 1.2.3.0/24}}", "type", "{type: Allow, to: {cidrSelector: 1.2.3.0/24}}"),
    (
        "{type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: []}",
        "ports",
        "{type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: TCP}]}",
    ),
    (
        "{type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: [{port: 80}]}",
        "ports[0].protocol",
        "{type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: UDP, port: 80}]}",
    ),
    (
        "{type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: TCP, port: 0}]}",
        "ports[0].port",
        "{type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: TCP, port: 1}]}",
    ),
    (
        "{type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: TCP, port: 65536}]}",
        "ports[0].port",
        "{type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: TCP, port: 65535}]}",
    ),
    (
        "{type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: TCP, port: 443, endPort: 442}]}",
        "ports[0].endPort",
        "{type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: TCP, port: 443, endPort: 443}]}",
    ),
    (
        "{type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: TCP, endPort: 442}]}",
        "ports[0].endPort",
        "{type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: SCTP, port: 1, endPort: 442}]}",
    ),
    (
        "{type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: ICMP, port: 8}]}",
        "ports[0].port",
        "{type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: ICMP}]}",
    ),
    (
        "{type: Allow, to: {cidrSelector: '2001:db8::/64'}, ports: [{protocol: ICMPv6, port: 8}]}",
        "ports[0].port",
        "{type: Allow, to: {cidrSelector: '2001:db8::/64'}, ports: [{protocol: ICMPv6}]}",
    ),
    (
        "{type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: HTTP}]}",
        "ports[0].protocol",
        "{type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: Any}]}",
    ),
    (
        "{type: Allow, to: {cidrSelector: 10.0.0.0/8, except: [11.0.0.0/16]}}",
        "to.except[0]",
        "{type: Allow, to: {cidrSelector: 10.0.0.0/8, except: [10.1.0.0/16]}}",
    ),
    (
        "{type: Allow, to: {cidrSelector: 10.0.0.0/8, except: ['2001:db8::/64']}}",
        "to.except[0]",
        "{type: Allow, to: {cidrSelector: '2001:db8::/32', except: ['2001:db8::/64']}}",
    ),
    (
        "{type: Allow, to: {dnsName: a.example, except: [10.0.0.0/8]}}",
        "to.except",
        "{type: Allow, to: {dnsName: '**.example'}}",
    ),
    (
        "{type: Allow, to: {cidrSelector: 1.2.3.0/24}, port: 80}",
        "port",
        "{type: Allow, to: {cidrSelector: 1.2.3.0/24}, name: web}",
    ),
    (
        "{type: Allow, to: {cidrSelector: 1.2.3.0/24, excepts: []}}",
        "to.excepts",
        "{type: Allow, to: {nodeSelector: {matchLabels: {a: b}}}}",
    ),
];

#[test]
fn an_invalid_rule_is_refused_at_its_field_and_its_valid_twin_is_read() {
    for (invalid, path, valid) in RULES {
        assert_refused(&policy_with_rule(invalid), &format!("spec.egress[0].{path}"));
        assert_read(&policy_with_rule(valid));
    }
}

/// Kind, metadata, invalid spec, path of the problem, valid spec.
const OBJECTS: [(&str, &str, &str, &str, &str); 11] = [
    (
        "EgressNetworkPolicy",
        "{name: p}",
        "{egress: [], priority: 1001}",
        "spec.priority",
        "{egress: [{type: Allow, to: {cidrSelector: '::/0'}}], priority: 1000}",
    ),
    (
        "EgressNetworkPolicy",
        "{name: p}",
        "{egress: [{type: Allow, to: {cidrSelector: '::/0'}}], mode: Dry}",
        "spec.mode",
        "{egress: [{type: Allow, to: {cidrSelector: '::/0'}}], mode: Audit}",
    ),
    (
        "EgressNetworkPolicy",
        "{name: p}",
        "{egress: [{type: Allow, to: {cidrSelector: '::/0'}}], tier: Admin}",
        "spec.tier",
        "{egress: [{type: Allow, to: {cidrSelector: '::/0'}}], serviceAccounts: []}",
    ),
    (
        "EgressNetworkPolicy",
        "{name: p}",
        "{egress: [{type: Allow, to: {cidrSelector: '::/0'}}], namespaceSelector: {}}",
        "spec.namespaceSelector",
        "{egress: [{type: Allow, to: {cidrSelector: '::/0'}}], podSelector: {}}",
    ),
    (
        "ClusterEgressPolicy",
        "{name: p}",
        "{egress: [{type: Allow, to: {cidrSelector: '::/0'}}]}",
        "spec.tier",
        "{egress: [{type: Allow, to: {cidrSelector: '::/0'}}], tier: Admin}",
    ),
    (
        "ClusterEgressPolicy",
        "{name: p}",
        "{egress: [{type: Allow, to: {cidrSelector: '::/0'}}], tier: Namespace}",
        "spec.tier",
        "{egress: [{type: Allow, to: {cidrSelector: '::/0'}}], tier: Baseline}",
    ),
    (
        "ClusterEgressPolicy",
        "{name: p}",
        "{egress: [{type: Pass, to: {cidrSelector: '::/0'}}], tier: Baseline}",
        "spec.egress[0].type",
        "{egress: [{type: Pass, to: {cidrSelector: '::/0'}}], tier: Admin}",
    ),
    (
        "EgressConfig",
        "{name: default}",
        "{defaultAction: Deny}",
        "spec.internalCIDRs",
        "{defaultAction: Deny, internalCIDRs: []}",
    ),
    ("EgressConfig", "{name: default}", "{defaultAction: Refuse}", "spec.defaultAction", "{defaultAction: Allow}"),
    (
        "EgressConfig",
        "{name: default}",
        "{resolvers: [10.0.0.0/8]}",
        "spec.resolvers[0]",
        "{resolvers: [10.0.0.10, 'fd00::10']}",
    ),
    (
        "EgressConfig",
        "{name: default}",
        "{excludedCIDRs: [10.0.0.0/40]}",
        "spec.excludedCIDRs[0]",
        "{excludedCIDRs: [10.0.0.0/8]}",
    ),
];

#[test]
fn an_invalid_object_is_refused_at_its_field_and_its_valid_twin_is_read() {
    for (kind, metadata, invalid, path, valid) in OBJECTS {
        assert_refused(&object(kind, metadata, invalid), path);
        assert_read(&object(kind, metadata, valid));
    }
}

#[test]
fn all_problems_of_an_object_are_told_at_once() {
    let text = object(
        "EgressNetworkPolicy",
        "{name: p}",
        "{priority: 2000, egress: [{type: Permit, to: {cidrSelector: 1.2.3.0/24}}, {type: Allow, to: {cidrSelector: nonsense}}, {type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: TCP, port: 0}]}]}",
    );
    let documents = document::read(&text);
    for path in
        ["spec.priority", "spec.egress[0].type", "spec.egress[1].to.cidrSelector", "spec.egress[2].ports[0].port"]
    {
        assert!(documents.problems.iter().any(|problem| problem.path == path), "{path}: {:?}", documents.problems);
    }
}

#[test]
fn a_policy_of_8000_rules_is_read_and_one_of_8001_refused() {
    for (count, valid) in [(8_000, true), (8_001, false)] {
        let rule = Rule::cidr(Action::Allow, Prefix::new("1.2.3.0".parse().unwrap(), 24));
        let world =
            World { policies: vec![Policy::namespaced("default", "long", vec![rule; count])], ..World::empty() };
        let files = world.files(1);
        assert_eq!(read(&files).is_ok(), valid, "{count}");
    }
}

fn compiled(text: &str) -> Compiled {
    let file = File { name: "policy.yaml".to_owned(), text: text.to_owned() };
    let set = read(&[file]).expect("valid");
    compile_pod(&set, &World::empty(), &Pod::new("default", "client")).expect("compiles")
}

fn to(destination: &str) -> Packet {
    Packet { destination: destination.parse().unwrap(), protocol: 6, port: 443 }
}

#[test]
fn the_prefix_0_0_0_0_of_32_bits_is_one_address_in_our_objects_and_everything_in_openshifts() {
    let rule = "spec: {egress: [{type: Deny, to: {cidrSelector: 0.0.0.0/32}}]}\n";
    let ours =
        compiled(&format!("apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: p}}\n{rule}"));
    assert!(ours.answer(&to("1.2.3.4")).0.allow);
    assert!(!ours.answer(&to("0.0.0.0")).0.allow);
    for version in ["v1", "network.openshift.io/v1"] {
        let theirs =
            compiled(&format!("apiVersion: {version}\nkind: EgressNetworkPolicy\nmetadata: {{name: p}}\n{rule}"));
        assert!(!theirs.answer(&to("1.2.3.4")).0.allow);
        assert!(!theirs.answer(&to("0.0.0.0")).0.allow);
        assert!(theirs.answer(&to("2001:db8::1")).0.allow, "/0 of IPv4 says nothing about IPv6");
    }
}

#[test]
fn host_bits_are_masked_in_both_families() {
    for (prefix, inside, outside) in
        [("1.2.3.77/24", "1.2.3.4", "1.2.4.4"), ("2001:db8::77/64", "2001:db8::4", "2001:db9::4")]
    {
        let table = compiled(&policy_with_rule(&format!("{{type: Deny, to: {{cidrSelector: '{prefix}'}}}}")));
        assert!(!table.answer(&to(inside)).0.allow);
        assert!(table.answer(&to(outside)).0.allow);
    }
}

#[test]
fn a_dns_rule_is_numbered_and_matches_nothing() {
    let text = object(
        "EgressNetworkPolicy",
        "{name: p}",
        "{egress: [{type: Allow, to: {dnsName: a.example}}, {type: Deny, to: {cidrSelector: 0.0.0.0/0}}]}",
    );
    let (verdict, _) = compiled(&text).answer(&to("1.2.3.4"));
    assert!(!verdict.allow);
    assert!(matches!(verdict.decider, Decider::Rule { number: 2, .. }), "{verdict:?}");
    let world = World::empty();
    assert!(Oracle::new(&world).evaluate(&world.pods[0], &to("1.2.3.4")).verdict.allow);
}

#[test]
fn what_is_read_otherwise_than_written_is_told() {
    let openshift = "apiVersion: v1\nkind: EgressNetworkPolicy\nmetadata: {name: p}\nspec: {egress: [{type: Deny, to: {cidrSelector: 0.0.0.0/32}}]}\n";
    for (text, reason) in [
        (policy_with_rule("{type: Deny, to: {cidrSelector: 1.2.3.77/24}}"), WarningReason::HostBitsMasked),
        (policy_with_rule("{type: Deny, to: {cidrSelector: '2001:db8::77/64'}}"), WarningReason::HostBitsMasked),
        (policy_with_rule("{type: Deny, to: {cidrSelector: 0.0.0.0/32}}"), WarningReason::SingleZeroAddress),
        (openshift.to_owned(), WarningReason::OpenShiftZeroAddress),
    ] {
        let documents = document::read(&text);
        let [object] = documents.objects.as_slice() else { panic!("{documents:?}") };
        assert!(object.warnings().iter().any(|warning| warning.reason == reason), "{reason:?} {:?}", object.warnings());
    }
    let plain = document::read(&policy_with_rule("{type: Deny, to: {cidrSelector: 1.2.3.0/24}}"));
    assert!(plain.objects.iter().all(|object| object.warnings().is_empty()));
}
