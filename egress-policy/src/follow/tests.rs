//! What is followed is held to what would be ordered, named and compiled from the set.

use std::sync::Arc;

use crate::compile::{Limits, Table, compile};
use crate::follow::{Followed, Next};
use crate::model::{Mode, NodeContext, PolicySet};
use crate::rules::RankedRule;
use crate::sample::{cluster, pod, policy, port_rule, rule, set};

const NAME: &str = "{type: Allow, to: {dnsName: www.example.com}}";

fn start(set: &PolicySet) -> Followed {
    let selection = set.selected(&pod());
    let list = set.rule_list_of(&selection, &NodeContext::default()).with_vacancies(usize::MAX);
    Followed::new(list, set, &selection, &Limits::default()).unwrap().0
}

fn next(followed: Followed, set: &PolicySet) -> Next {
    followed.follow(set, &set.selected(&pod()), &NodeContext::default())
}

fn changed(what: &str, followed: Followed, set: &PolicySet) -> Followed {
    let before = followed.fingerprint();
    let Next::Changed(followed) = next(followed, set) else { panic!("{what}: it is few rules") };
    assert_ne!(followed.fingerprint(), before, "{what}");
    check(what, &followed, set);
    followed
}

/// A hundred rules of one policy, in which some are others, and a policy behind it.
fn policies(change: impl Fn(&mut Vec<String>)) -> PolicySet {
    let mut many: Vec<String> = (0..100).map(|number| rule("Allow", &format!("10.0.{number}.0/24"))).collect();
    change(&mut many);
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let others = [rule("Deny", "10.0.0.0/9"), rule("Allow", "192.0.2.0/24")];
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    set(&[policy("many", "priority: 5", &many), policy("others", "priority: 7", &others)].concat())
}

fn with(mut set: PolicySet, more: &str) -> PolicySet {
    for policy in self::set(more).policies.into_values() {
        set.insert(policy);
    }
    set
}

/// What a table says, as rules and not as their ranks.
fn said(table: &Table, rules: &[RankedRule]) -> Vec<String> {
    let rule = |rank: u32| &rules[usize::try_from(rank).unwrap()];
    let intervals = table.entries().map(|(net, leaf)| {
        let intervals = table.intervals(leaf).into_iter().map(|(from, lookup)| {
            (
                from,
                rule(lookup.decision.rank()),
                lookup.decision.is_deny(),
                lookup.audit.map(|audit| rule(audit.rank())),
            )
        });
        format!("{net}: {:?}", intervals.collect::<Vec<_>>())
    });
    let state = |leaf| {
        let state = egress_common::names::name_state(&table.classes, leaf, 0, table.head_rules);
        state.map(|state| [state.head, state.tail].map(|effect| (!effect.is_none()).then(|| rule(effect.rank()))))
    };
    let names = table.names.iter().map(|(place, leaf)| format!("{place:?}: {:?}", state(*leaf)));
    intervals.chain(names).collect()
}

fn check(what: &str, followed: &Followed, set: &PolicySet) {
    let fresh = set.rule_list(&pod(), &NodeContext::default());
    let list = followed.list();
    let there: Vec<&RankedRule> = list.rules.iter().filter(|rule| !rule.is_vacant()).collect();
    assert_eq!(there, fresh.rules.iter().collect::<Vec<_>>(), "{what}");
    assert_eq!(list.policies, fresh.policies, "{what}");
    assert_eq!(list.count(), fresh.rules.len(), "{what}");
    if !fresh.has_names() {
        assert_eq!(followed.fingerprint(), list.fingerprint(), "{what}");
    }
    let table = compile(&fresh, &Limits::default()).unwrap();
    assert_eq!(said(&followed.table(), &list.rules), said(&table, &fresh.rules), "{what}");
}

#[test]
fn policies_that_did_not_change_are_left_alone() {
    let before = policies(|_| {});
    let Next::Same(followed) = next(start(&before), &before.clone()) else { panic!("nothing changed") };
    check("the same object", &followed, &before);
    let again = policies(|_| {});
    let Next::Same(followed) = next(followed, &again) else { panic!("nothing changed") };
    check("the same text, read once more", &followed, &again);
}

#[test]
fn rules_that_are_others_more_or_less_are_followed() {
    let mut followed = start(&policies(|_| {}));
    let new = |number: usize| rule("Deny", &format!("172.16.{number}.0/24"));
    for (what, place) in [("the first", 0), ("one in the middle", 50), ("the last", 99)] {
        followed = changed(what, followed, &policies(|rules| rules[place] = new(1)));
        followed = changed(what, followed, &policies(|rules| drop(rules.remove(place))));
        followed = changed(what, followed, &policies(|rules| rules.insert(place, new(2))));
        followed = changed(what, followed, &policies(|_| {}));
    }
    followed = changed("appended", followed, &policies(|rules| rules.push(new(3))));
    followed = changed(
        "several places",
        followed,
        &policies(|rules| {
            rules[70] = port_rule("Allow", "10.0.7.0/25", "protocol: TCP, port: 443");
            rules.insert(40, rule("Allow", "2001:db8::/32"));
            rules.insert(20, rule("Deny", "10.0.16.0/22"));
            rules.remove(5);
            rules.insert(0, rule("Deny", "10.0.3.0/28"));
        }),
    );
    let mut whole = 0;
    for count in 1..30 {
        let set = policies(|rules| (0..count).for_each(|number| rules.insert(30, new(number))));
        followed = match next(followed, &set) {
            Next::Changed(followed) => followed,
            Next::Same(_) => panic!("there is one more"),
            Next::Whole => {
                whole += 1;
                start(&set)
            }
        };
        check(&format!("{count} more in one place"), &followed, &set);
    }
    assert!((1..8).contains(&whole), "vacant ranks are used up {whole} times");
    followed = changed("swapped", followed, &policies(|rules| rules.swap(10, 12)));
    changed("half of them", followed, &policies(|rules| drop(rules.drain(20..30))));
}

#[test]
fn policies_that_come_go_and_move_are_followed() {
    let before = policies(|_| {});
    let mut followed = start(&before);
    let small = |priority: u16, mode: &str, network: &str| {
        policy(
            "small",
            &format!("priority: {priority}, mode: {mode}"),
            &[&rule("Deny", network), &rule("Allow", "10.0.9.9/32")],
        )
    };
    for (what, more) in [
        ("in front", small(1, "Enforce", "10.0.8.0/24")),
        ("between", small(6, "Enforce", "10.0.8.0/24")),
        ("of another name", small(6, "Enforce", "10.0.8.0/24").replace("small", "tiny")),
        ("behind", small(9, "Enforce", "10.0.8.0/24")),
        ("under Audit", small(9, "Audit", "10.0.8.0/24")),
        ("with another rule", small(9, "Audit", "10.0.9.0/24")),
        ("in front, under Audit", small(2, "Audit", "10.0.9.0/24")),
    ] {
        followed = changed(what, followed, &with(before.clone(), &more));
    }
    changed("gone", followed, &before);
}

#[test]
fn where_two_tiers_meet_each_has_room() {
    let admin = |name: &str, rules: &[&str]| cluster(name, "tier: Admin, priority: 5", rules);
    let pass = "{type: Pass, to: {cidrSelector: 10.0.5.0/24}}";
    let before =
        with(policies(|_| {}), &admin("a", &[&rule("Deny", "10.0.7.0/28"), pass, &rule("Deny", "10.0.5.9/32")]));
    let mut followed = start(&before);
    let last = with(before.clone(), &admin("b", &[&rule("Deny", "10.0.5.64/26")]));
    followed = changed("the last one of its tier", followed, &last);
    let first = with(last.clone(), &policy("first", "priority: 1", &[&rule("Deny", "10.0.5.0/25")]));
    followed = changed("the first one of its tier", followed, &first);
    followed = changed("the first one again", followed, &last);
    changed("the last one again", followed, &before);
}

#[test]
fn beside_rules_about_names_others_are_followed_and_no_two_versions_have_one_name() {
    let named = |change: &dyn Fn(&mut Vec<String>)| {
        policies(|rules| {
            rules[60] = NAME.to_owned();
            change(rules);
        })
    };
    let first = named(&|_| {});
    let mut followed = start(&first);
    check("names", &followed, &first);
    let fingerprint = followed.fingerprint();
    followed = changed("a rule more", followed, &named(&|rules| rules.insert(0, rule("Deny", "10.0.1.0/25"))));
    followed = changed("a rule less", followed, &first);
    // The same rules by another way may lie otherwise in the class array, and another agent would not know.
    assert_ne!(followed.fingerprint(), fingerprint);
    let others = |rules: &mut Vec<String>| rules[60] = NAME.replace("www", "api");
    assert!(matches!(next(followed, &named(&others)), Next::Whole), "a rule about a name is another");
    assert!(matches!(next(start(&policies(|_| {})), &first), Next::Whole), "the first rule about a name");
}

#[test]
fn what_reaches_far_or_finds_no_room_is_compiled_as_a_whole() {
    let before = policies(|_| {});
    let whole = |what: &str, set: &PolicySet| assert!(matches!(next(start(&before), set), Next::Whole), "{what}");
    whole("a rule about everything", &policies(|rules| rules.push(rule("Deny", "0.0.0.0/0"))));
    let admin = cluster("first", "tier: Admin", &[&rule("Deny", "192.0.2.0/28")]);
    whole("the first policy of a tier", &with(before.clone(), &admin));
    let mut audited = before.clone();
    audited.policies.values_mut().for_each(|policy| policy.mode = Mode::Audit);
    whole("another mode of everything", &audited);
    let node = NodeContext {
        services: vec![crate::model::ServicePort {
            service: Arc::from("default/web"),
            addresses: Vec::new(),
            protocol: 6,
            port: 443,
            endpoints: Vec::new(),
        }],
        ..NodeContext::default()
    };
    let followed = start(&before);
    assert!(matches!(followed.follow(&before, &before.selected(&pod()), &node), Next::Whole), "services");
    // Without vacant ranks nothing can be added, and everything else can.
    let selection = before.selected(&pod());
    let dense = || {
        let list = before.rule_list_of(&selection, &NodeContext::default());
        Followed::new(list, &before, &selection, &Limits::default()).unwrap().0
    };
    let more = policies(|rules| rules.push(rule("Deny", "172.16.0.0/24")));
    assert!(matches!(next(dense(), &more), Next::Whole), "no room");
    let less = policies(|rules| drop(rules.remove(7)));
    let followed = changed("a rule less", dense(), &less);
    changed("and its rank for another", followed, &policies(|rules| rules[90] = rule("Deny", "172.16.0.0/24")));
}
