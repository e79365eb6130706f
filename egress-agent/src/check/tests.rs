//! What the policies of one file are told about each other.

use std::fs;

use super::*;
use crate::cli::Output;

fn checked(text: &str) -> Checked {
    checked_with(text, None)
}

fn checked_with(text: &str, answers: Option<&str>) -> Checked {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.yaml");
    fs::write(&file, text).unwrap();
    let mut files = PolicyFiles::read(&[file]).unwrap();
    let answers = answers.map(|answers| {
        let file = folder.path().join("answers.yaml");
        fs::write(&file, answers).unwrap();
        Answers::read(&file, &files.set.config.dns).unwrap()
    });
    let found = lint::lint(&files.set, answers.as_ref());
    files.problems.extend(found.problems);
    Checked::new(&files, found.warnings)
}

fn reasons(text: &str) -> Vec<(String, String)> {
    let checked = serde_json::to_value(checked(text)).unwrap();
    assert_eq!(checked["problems"], serde_json::json!([]));
    let word = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap().to_owned();
    let rows = checked["warnings"].as_array().unwrap().iter();
    rows.map(|row| (word(row, "object"), word(row, "reason"))).collect()
}

fn policy(name: &str, spec: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: {name}}}\n\
         spec: {{{spec}egress: [{rules}]}}\n"
    )
}

const ALLOW: &str = "{type: Allow, to: {cidrSelector: 1.2.3.0/24}}";
const ALLOW6: &str = "{type: Allow, to: {cidrSelector: '2001:db8::/32'}}";
const ALL: &str = "{type: Deny, to: {cidrSelector: 0.0.0.0/0}}, {type: Deny, to: {cidrSelector: '::/0'}}";

fn warned(name: &str, reason: &str) -> (String, String) {
    (format!("EgressNetworkPolicy default/{name}"), reason.to_owned())
}

#[test]
fn a_rule_is_shadowed_by_its_own_policy_in_either_family() {
    assert_eq!(reasons(&policy("a", "", &format!("{ALL}, {ALLOW}"))), [warned("a", "ShadowedRules")]);
    assert_eq!(reasons(&policy("a", "", &format!("{ALL}, {ALLOW6}"))), [warned("a", "ShadowedRules")]);
    assert_eq!(reasons(&policy("a", "", &format!("{ALLOW}, {ALLOW6}, {ALL}"))), []);
}

#[test]
fn another_policy_shadows_only_if_it_selects_every_pod_of_the_first() {
    let narrow = policy("b", "priority: 200, podSelector: {matchLabels: {app: web}}, ", ALLOW);
    assert_eq!(reasons(&(policy("a", "", ALL) + &narrow)), [warned("b", "ShadowedRules")]);
    let selective = policy("a", "podSelector: {matchLabels: {tier: front}}, ", ALL);
    assert_eq!(reasons(&(selective + &narrow)), []);
}

#[test]
fn the_admin_tier_shadows_a_namespace_unless_some_pods_may_pass_it() {
    let cluster = |name: &str, spec: &str, rules: &str| {
        policy(name, &format!("tier: Admin, {spec}"), rules).replace("EgressNetworkPolicy", "ClusterEgressPolicy")
    };
    let denied = cluster("deny", "priority: 200, ", ALL) + &policy("b", "", ALLOW);
    assert_eq!(reasons(&denied), [warned("b", "ShadowedRules")]);
    let pass = "{type: Pass, to: {cidrSelector: 1.2.3.0/24}}";
    let some_pass = cluster("pass", "podSelector: {matchLabels: {app: web}}, ", pass);
    assert_eq!(reasons(&(denied + &some_pass)), []);
}

#[test]
fn equal_priorities_are_told_where_a_pod_can_have_both() {
    let app = |name, app| policy(name, &format!("podSelector: {{matchLabels: {{app: {app}}}}}, "), ALLOW);
    assert_eq!(reasons(&(app("a", "web") + &app("b", "api"))), []);
    assert_eq!(reasons(&(app("a", "web") + &app("b", "web"))), [warned("b", "OrderedByName")]);
    let account = |name, account| policy(name, &format!("serviceAccounts: [{account}], "), ALLOW);
    assert_eq!(reasons(&(account("a", "x") + &account("b", "y"))), []);
}

#[test]
fn what_is_to_know_about_names_is_told() {
    let by_name = |action, name| policy("a", "", &format!("{{type: {action}, to: {{dnsName: '{name}'}}}}"));
    assert_eq!(reasons(&by_name("Allow", "www.foo.com")), []);
    assert_eq!(reasons(&by_name("Deny", "www.foo.com")), [warned("a", "DenyByName")]);
    assert_eq!(reasons(&by_name("Allow", "*.foo.com")), [warned("a", "WildcardNeedsLookups")]);
    let behind = format!("{ALL}, {{type: Allow, to: {{dnsName: www.foo.com}}}}");
    assert_eq!(reasons(&policy("a", "", &behind)), [warned("a", "ShadowedRules")]);
    let covered = "{type: Allow, to: {dnsName: '**.foo.com'}}, {type: Allow, to: {dnsName: www.foo.com}}";
    assert_eq!(reasons(&policy("a", "", covered)), [warned("a", "ShadowedRules"), warned("a", "WildcardNeedsLookups")]);
}

// §5.9
#[test]
fn names_that_share_an_address_and_not_a_verdict_are_told() {
    let denied = "{type: Deny, to: {cidrSelector: 0.0.0.0/0}}, {type: Deny, to: {cidrSelector: '::/0'}}";
    let text = policy("a", "", &format!("{{type: Allow, to: {{dnsName: www.foo.com}}}}, {denied}"));
    let shared = |answers: &str| {
        let checked = serde_json::to_value(checked_with(&text, Some(answers))).unwrap();
        let rows = checked["warnings"].as_array().unwrap().clone();
        rows.into_iter().filter(|row| row["reason"] == "SharedAddress").collect::<Vec<_>>()
    };
    for (address, other) in [("192.0.2.7", "192.0.2.8"), ("2001:db8::7", "2001:db8::8")] {
        let told = shared(&format!("{{www.foo.com: ['{address}'], ads.bar.com: ['{address}', '{other}']}}"));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0]["path"], "spec.egress[0].to.dnsName");
        let message = format!(
            "www.foo.com, which the rules allow, and ads.bar.com, which they do not, share addresses such as {address}: there the rule that comes first decides for both names"
        );
        assert_eq!(told[0]["message"], message);
        assert_eq!(shared(&format!("{{www.foo.com: '{address}', ads.bar.com: '{other}'}}")), [""; 0]);
    }
    // Both are allowed, or both refused.
    let both = text.replace("www.foo.com", "'**.foo.com'");
    let alike = checked_with(&both, Some("{www.foo.com: 192.0.2.7, a.foo.com: 192.0.2.7}"));
    assert!(alike.warnings.iter().all(|row| !serde_json::to_string(row).unwrap().contains("SharedAddress")));
    assert_eq!(shared("{a.bar.com: 192.0.2.7, b.bar.com: 192.0.2.7}"), [""; 0]);
}

#[test]
fn colours_are_for_terminals() {
    let checked = checked(&policy("a", "", &format!("{ALL}, {ALLOW}")));
    let written = |colours| {
        let mut out = Vec::new();
        output::Answer::text(&checked, &mut out, colours).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert!(written(true).contains('\u{1b}'));
    assert!(!written(false).contains('\u{1b}'));
}

#[test]
fn yaml_says_the_same_as_json() {
    let checked = checked(&policy("a", "", &format!("{ALL}, {ALLOW}")));
    let written = |output| {
        let mut out = Vec::new();
        output::write(&mut out, &checked, output, false).unwrap();
        String::from_utf8(out).unwrap()
    };
    let yaml: serde_json::Value = serde_saphyr::from_str(&written(Output::Yaml)).unwrap();
    assert_eq!(yaml, serde_json::from_str::<serde_json::Value>(&written(Output::Json)).unwrap());
}
