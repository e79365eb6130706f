//! Warnings about the rules of one pod; shadowed rules are tested beside the compiler.

use super::*;
use crate::model::{NodeContext, NodeInfo};
use crate::sample::{cluster, list, pod, policy, rule, set};

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

#[test]
fn a_name_rule_says_that_it_is_not_enforced_yet() {
    let rules = list(&policy("p", "", &[&rule("Deny", "1.2.3.0/24"), "{type: Allow, to: {dnsName: www.foo.com}}"]));
    assert_eq!(
        texts(&rules),
        [
            "EgressNetworkPolicy default/p: spec.egress[1].to.dnsName: DNS names are not enforced yet, so the rule matches nothing; use cidrSelector until they are"
        ]
    );
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
