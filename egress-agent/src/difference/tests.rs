//! Which pods are compared, and what a line of the answer covers.

use egress_policy::document::{self, Object};

use super::*;

fn set(text: &str) -> PolicySet {
    let mut set = PolicySet::default();
    let documents = document::read(text);
    assert_eq!(documents.problems, []);
    for object in documents.objects {
        if let Object::Policy(policy) = object {
            set.insert(policy);
        }
    }
    set
}

fn policy(name: &str, spec: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{{spec}egress: [{rules}]}}\n"
    )
}

fn compared(old: &str, new: &str) -> Vec<Group> {
    let (old, new) = (set(old), set(new));
    let pods = pods::examples(&[&old, &new]);
    groups(&old, &new, &pods).unwrap()
}

#[test]
fn examples_are_a_bare_pod_and_one_for_each_selector() {
    let text = policy("a", "podSelector: {matchLabels: {app: web}}, ", "")
        + &policy(
            "b",
            "podSelector: {matchExpressions: [{key: tier, operator: In, values: [x, y]}, {key: app, operator: DoesNotExist}]}, ",
            "",
        )
        + &policy("c", "serviceAccounts: [front], ", "")
        + &policy(
            "d",
            "podSelector: {matchLabels: {app: web}, matchExpressions: [{key: app, operator: DoesNotExist}]}, ",
            "",
        );
    let names: Vec<String> = pods::examples(&[&set(&text)]).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        ["any other namespace", "shop/*", "shop/* (app=web)", "shop/* (service account front)", "shop/* (tier=x)"]
    );
}

#[test]
fn rules_in_another_order_with_the_same_meaning_are_no_difference() {
    let first = "{type: Allow, to: {cidrSelector: 1.2.3.0/24}}";
    let second = "{type: Allow, to: {cidrSelector: '2001:db8::/32'}}";
    let old = policy("a", "", &format!("{first}, {second}"));
    let new = policy("a", "", &format!("{second}, {first}"));
    assert!(compared(&old, &new).is_empty());
}

#[test]
fn a_change_names_the_prefixes_inside_that_it_says_nothing_about() {
    for (wide, narrow) in [("10.0.0.0/8", "10.1.0.0/16"), ("2001:db8::/32", "2001:db8:1::/48")] {
        let old = policy("a", "", &format!("{{type: Deny, to: {{cidrSelector: '{narrow}'}}}}"));
        let new = policy("a", "", &format!("{{type: Deny, to: {{cidrSelector: '{wide}'}}}}"));
        let groups = compared(&old, &new);
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].pods, ["shop/*"]);
        let row = &groups[0].changes[0];
        assert_eq!((row.prefix.to_string(), row.except.len()), (wide.to_owned(), 1));
        assert_eq!(row.except[0].to_string(), narrow);
        assert_eq!((row.old.verdict, row.new.verdict), ("allow", "deny"));
        assert_eq!((row.old.by.as_str(), row.new.by.as_str()), ("default action", "rule 1 of shop/a"));
        assert_eq!(groups[0].changes.len(), 1);
    }
}

#[test]
fn ports_with_the_same_change_are_one_line() {
    let rule = |ports: &str| format!("{{type: Deny, to: {{cidrSelector: 1.2.3.0/24}}, ports: [{ports}]}}");
    let old = policy("a", "", &rule("{protocol: TCP, port: 80}"));
    let new =
        policy("a", "", &rule("{protocol: TCP, port: 80}, {protocol: TCP, port: 443}, {protocol: UDP, port: 53}"));
    let groups = compared(&old, &new);
    assert_eq!(groups[0].changes.len(), 1);
    assert_eq!(groups[0].changes[0].ports, ["TCP/443", "UDP/53"]);
}
