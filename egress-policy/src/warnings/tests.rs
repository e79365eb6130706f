//! Warnings about the rules of one pod; shadowed rules are tested beside the compiler.

use super::*;
use crate::model::{NodeContext, NodeInfo};
use crate::sample::{cluster, config, list, pod, policy, rule, set};

fn texts(list: &RuleList) -> Vec<String> {
    list.warnings().iter().map(ToString::to_string).collect()
}

// §2.2
#[test]
fn equal_priorities_in_a_tier_are_reported_for_every_policy_after_the_first() {
    let text = policy("c", "", &[])
        + &policy("a", "", &[])
        + &policy("b", "priority: 1", &[])
        + &cluster("x", "tier: Admin", &[]);
    assert_eq!(
        texts(&list(&text)),
        [
            "EgressNetworkPolicy default/c: spec.priority: priority 100 is shared, so the names decide the order: default/a, default/c; give them different priorities if their order matters"
        ]
    );
    assert_eq!(list(&text).warnings()[0].reason, WarningReason::OrderedByName);
}

// §2.2
#[test]
fn different_tiers_and_priorities_need_no_warning() {
    let text = policy("a", "priority: 1", &[])
        + &policy("b", "priority: 2", &[])
        + &cluster("c", "tier: Admin, priority: 1", &[])
        + &cluster("d", "tier: Baseline, priority: 1", &[]);
    assert_eq!(texts(&list(&text)), [""; 0]);
}

fn name(action: &str, name: &str) -> String {
    format!("{{type: {action}, to: {{dnsName: '{name}'}}}}")
}

// §5.8
#[test]
fn a_deny_by_name_is_told_where_a_later_rule_allows_by_address() {
    let denied = "EgressNetworkPolicy default/p: spec.egress: rule 1 denies by name, which denies nothing while the name has no known address, and a later rule allows; deny by cidrSelector and allow by name";
    assert_eq!(texts(&list(&policy("p", "", &[&name("Deny", "www.foo.com")]))), [denied], "the default action allows");
    let deny = config("defaultAction: Deny, internalCIDRs: []");
    let with = |rules: &[&str]| texts(&list(&(deny.clone() + &policy("p", "", rules))));
    assert_eq!(with(&[&name("Deny", "www.foo.com")]), [""; 0]);
    assert_eq!(with(&[&name("Deny", "www.foo.com"), &name("Allow", "foo.com")]), [""; 0]);
    assert_eq!(with(&[&rule("Allow", "1.2.3.0/24"), &name("Deny", "www.foo.com")]), [""; 0]);
    for later in ["1.2.3.0/24", "2001:db8::/32"] {
        assert_eq!(with(&[&name("Deny", "www.foo.com"), &rule("Allow", later)]), [denied]);
    }
}

// §5.2
#[test]
fn a_wildcard_is_told_that_only_lookups_teach_its_names() {
    let rules = [&name("Allow", "*.foo.com"), &name("Allow", "foo.com"), &name("Allow", "**.bar.com")];
    let rules = list(&policy("p", "", &rules.map(String::as_str)));
    assert_eq!(
        texts(&rules),
        [
            "EgressNetworkPolicy default/p: spec.egress: rules 1, 3 match only addresses that pods of the node have looked up at a trusted resolver, because the names of a wildcard cannot be polled; clients with a DNS cache or resolver of their own need the exact name"
        ]
    );
    assert_eq!(rules.warnings()[0].reason, WarningReason::WildcardNeedsLookups);
}

#[test]
fn a_long_list_of_rules_is_cut() {
    let rules: Vec<String> = (0..23).map(|number| name("Allow", &format!("*.a{number}.com"))).collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let text = &texts(&list(&policy("p", "", &rules)))[0];
    assert!(text.contains("18, 19, 20 and 3 more match only"), "{text}");
}

#[test]
fn a_node_rule_warns_only_while_it_selects_no_address() {
    let set = set(&policy("p", "", &["{type: Allow, to: {nodeSelector: {matchLabels: {pool: a}}}}"]));
    let without = set.rule_list(&pod(), &NodeContext::default());
    assert_eq!(
        texts(&without),
        [
            "EgressNetworkPolicy default/p: spec.egress[0].to.nodeSelector: rule 1 matches nothing: no known node has the labels pool=a"
        ]
    );
    let node = NodeInfo {
        labels: [("pool".to_owned(), "a".to_owned())].into(),
        addresses: vec!["192.0.2.1".parse().unwrap()],
    };
    let with = set.rule_list(&pod(), &NodeContext { nodes: vec![node], ..NodeContext::default() });
    assert_eq!(texts(&with), [""; 0]);
}
