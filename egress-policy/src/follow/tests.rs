use std::sync::Arc;

use crate::compile::{Limits, compile};
use crate::follow::{Followed, Next};
use crate::model::{NodeContext, PolicySet};
use crate::sample::{pod, policy, port_rule, rule, set};

fn start(set: &PolicySet) -> Followed {
    let selection = set.selected(&pod());
    let list = set.rule_list_of(&selection, &NodeContext::default());
    Followed::new(list, set, &selection, &Limits::default()).unwrap().0
}

fn next(followed: Followed, set: &PolicySet) -> Next {
    followed.follow(set, &set.selected(&pod()), &NodeContext::default())
}

fn policies(second: &str) -> PolicySet {
    let many: Vec<String> = (0..100).map(|number| rule("Allow", &format!("10.0.{number}.0/24"))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let others = [rule("Deny", "10.0.0.0/9"), second.to_owned(), rule("Allow", "192.0.2.0/24")];
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    set(&[policy("many", "priority: 5", &many), policy("others", "priority: 7", &others)].concat())
}

/// What is followed is what would be ordered, named and compiled from the set.
fn check(followed: &Followed, set: &PolicySet) {
    let list = set.rule_list(&pod(), &NodeContext::default());
    assert_eq!(**followed.list(), list);
    assert_eq!(followed.fingerprint(), list.fingerprint());
    let (table, fresh) = (followed.table(), compile(&list, &Limits::default()).unwrap());
    let said = |table: &crate::compile::Table| {
        table.entries().map(|(net, leaf)| (net, table.intervals(leaf))).collect::<Vec<_>>()
    };
    assert_eq!(said(&table), said(&fresh));
}

#[test]
fn policies_that_did_not_change_are_left_alone() {
    let before = policies(&rule("Allow", "172.16.0.0/12"));
    let Next::Same(followed) = next(start(&before), &before.clone()) else { panic!("nothing changed") };
    check(&followed, &before);
    // The same text, read once more.
    let again = policies(&rule("Allow", "172.16.0.0/12"));
    let Next::Same(followed) = next(followed, &again) else { panic!("nothing changed") };
    check(&followed, &again);
}

#[test]
fn a_rule_in_the_place_of_another_is_followed() {
    let before = policies(&rule("Allow", "172.16.0.0/12"));
    let mut followed = start(&before);
    for second in [
        rule("Deny", "172.16.0.0/12"),
        port_rule("Allow", "10.0.7.0/25", "protocol: TCP, port: 443"),
        rule("Allow", "2001:db8::/32"),
        rule("Allow", "10.0.0.0/24"),
    ] {
        let mut after = policies(&second);
        // The other policy is the same object.
        let unchanged = before.policies.iter().find(|(key, _)| key.name == "many").unwrap().1;
        after.insert(unchanged.clone());
        let Next::Changed(changed) = next(followed, &after) else { panic!("{second}: it is one rule") };
        check(&changed, &after);
        followed = changed;
    }
}

#[test]
fn where_ranks_shift_everything_is_compiled() {
    let before = policies(&rule("Allow", "172.16.0.0/12"));
    let mut more = before.clone();
    let added = set(&policy("added", "priority: 6", &[&rule("Allow", "198.51.100.0/24")]));
    more.insert(added.policies.values().next().unwrap().clone());
    assert!(matches!(next(start(&before), &more), Next::Whole), "a policy more");
    assert!(matches!(next(start(&more), &before), Next::Whole), "a policy less");
    let mut audited = before.clone();
    audited.policies.values_mut().for_each(|policy| policy.mode = crate::model::Mode::Audit);
    assert!(matches!(next(start(&before), &audited), Next::Whole), "another mode");
    let mut moved = before.clone();
    moved.policies.values_mut().filter(|policy| policy.key.name == "many").for_each(|policy| policy.priority = 9);
    assert!(matches!(next(start(&before), &moved), Next::Whole), "another order");
    let mut shorter = before.clone();
    for policy in shorter.policies.values_mut() {
        policy.rules = Arc::from(&policy.rules[1..]);
    }
    assert!(matches!(next(start(&before), &shorter), Next::Whole), "a rule less");
}
