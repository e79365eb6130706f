//! Differences of small tables, written out, and of random ones, against a comparison address by address.

use super::*;
use crate::places::Place;
use crate::sample::{TCP, UDP, World, policy, port_rule, rule};

fn world(rules: &[&str]) -> World {
    World::new(&policy("p", "", rules))
}

fn texts(old: &[&str], new: &[&str]) -> Vec<String> {
    diff(&world(old).table, &world(new).table).iter().map(ToString::to_string).collect()
}

#[test]
fn equal_tables_have_no_difference() {
    let rules = [rule("Deny", "1.2.3.0/24"), port_rule("Allow", "::/0", "protocol: TCP, port: 1")];
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    assert_eq!(texts(&rules, &rules), [""; 0]);
    let table = world(&rules).table;
    assert_eq!(summary(&table, &table), Summary { kept: table.prefixes(), ..Summary::default() });
}

#[test]
fn a_changed_action_is_one_change_in_each_family() {
    assert_eq!(
        texts(&[&rule("Allow", "1.2.3.0/24")], &[&rule("Deny", "1.2.3.0/24")]),
        ["1.2.3.0/24 any protocol: allow → deny"]
    );
    assert_eq!(
        texts(&[&rule("Deny", "2001:db8::/32")], &[&rule("Allow", "2001:db8::/32")]),
        ["2001:db8::/32 any protocol: deny → allow"]
    );
}

#[test]
fn only_the_ports_that_change_are_reported() {
    assert_eq!(
        texts(
            &[&port_rule("Deny", "1.2.3.0/24", "protocol: TCP, port: 10, endPort: 20")],
            &[&port_rule("Deny", "1.2.3.0/24", "protocol: TCP, port: 15, endPort: 30")]
        ),
        ["1.2.3.0/24 TCP/10-14: deny → allow", "1.2.3.0/24 TCP/21-30: allow → deny"]
    );
}

#[test]
fn a_change_around_a_longer_prefix_leaves_that_prefix_out() {
    let allow = rule("Allow", "10.1.0.0/16");
    assert_eq!(
        texts(&[&allow], &[&allow, &rule("Deny", "10.0.0.0/8")]),
        // 10.1.0.0/16 itself is not among the changes.
        ["10.0.0.0/8 any protocol: allow → deny"]
    );
}

#[test]
fn a_longer_prefix_that_only_one_table_has_is_compared_with_what_surrounds_it_in_the_other() {
    let wide = rule("Deny", "10.0.0.0/8");
    assert_eq!(texts(&[&wide], &[&rule("Allow", "10.1.0.0/16"), &wide]), ["10.1.0.0/16 any protocol: deny → allow"]);
    assert_eq!(texts(&[&rule("Allow", "10.1.0.0/16"), &wide], &[&wide]), ["10.1.0.0/16 any protocol: allow → deny"]);
}

#[test]
fn a_prefix_whose_addresses_are_all_in_longer_ones_has_no_change() {
    let halves = [rule("Allow", "10.0.0.0/9"), rule("Allow", "10.128.0.0/9")];
    let with =
        |last: &str| vec![halves[0].clone(), halves[1].clone(), rule(last, "10.0.0.0/8"), rule("Deny", "0.0.0.0/0")];
    let (old, new) = (with("Allow"), with("Deny"));
    let refs = |rules: &[String]| rules.iter().map(String::clone).collect::<Vec<_>>();
    let (old, new) = (refs(&old), refs(&new));
    let old: Vec<&str> = old.iter().map(String::as_str).collect();
    let new: Vec<&str> = new.iter().map(String::as_str).collect();
    assert_eq!(texts(&old, &new), [""; 0]);
    let old = ["::/1", "8000::/1"].map(|cidr| rule("Allow", cidr));
    let changed = diff(
        &world(&[&old[0], &old[1], &rule("Allow", "::/0")]).table,
        &world(&[&old[0], &old[1], &rule("Deny", "::/0")]).table,
    );
    assert_eq!(changed, []);
}

#[test]
fn a_rule_that_moves_without_effect_is_no_difference_but_another_decider_can_be_asked_for() {
    let (a, b) = (rule("Deny", "1.2.3.0/24"), rule("Deny", "1.2.0.0/16"));
    assert_eq!(texts(&[&a, &b], &[&b, &a]), [""; 0]);
    let (old, new) = (world(&[&a, &b]).table, world(&[&b, &a]).table);
    let changes = diff_by(&old, &new, |before, after| before == after);
    assert!(changes.iter().any(|change| change.prefix.to_string() == "1.2.0.0/16"), "{changes:?}");
}

#[test]
fn an_audit_verdict_that_appears_is_a_difference() {
    let old = world(&[]).table;
    let new = World::new(&policy("p", "mode: Audit", &[&rule("Deny", "1.2.3.0/24")])).table;
    let texts: Vec<String> = diff(&old, &new).iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["1.2.3.0/24 any protocol: allow → allow (audit: deny)"]);
}

#[test]
fn the_summary_counts_prefixes() {
    let old = world(&[&rule("Deny", "1.2.3.0/24"), &rule("Deny", "1.2.4.0/24"), &rule("Deny", "2001:db8::/32")]).table;
    let new = world(&[
        &rule("Deny", "1.2.3.0/24"),
        &rule("Allow", "1.2.5.0/24"),
        &rule("Deny", "1.2.6.0/24"),
        &rule("Deny", "2001:db8::/32"),
    ])
    .table;
    let found = summary(&old, &new);
    // The default action and the rules behind the new one have other ranks.
    assert_eq!((found.added, found.removed), (2, 1));
    assert_eq!(found.added + found.changed + found.kept, new.prefixes());
    assert!(found.to_string().starts_with("2 prefixes added, 1 removed"), "{found}");
}

#[test]
fn a_difference_is_reported_exactly_where_lookups_differ() {
    let pairs = [
        (
            vec![
                rule("Deny", "10.0.0.0/30"),
                port_rule("Allow", "10.0.0.0/29", "protocol: TCP, port: 3, endPort: 9"),
                rule("Deny", "10.0.0.0/28"),
            ],
            vec![
                rule("Allow", "10.0.0.2/31"),
                port_rule("Deny", "10.0.0.4/30", "protocol: TCP, port: 5"),
                rule("Deny", "10.0.0.0/28"),
            ],
        ),
        (
            vec![
                rule("Deny", "fd00::/126"),
                port_rule("Allow", "fd00::/125", "protocol: TCP, port: 3, endPort: 9"),
                rule("Deny", "fd00::/124"),
            ],
            vec![
                rule("Allow", "fd00::2/127"),
                port_rule("Deny", "fd00::4/126", "protocol: TCP, port: 5"),
                rule("Deny", "fd00::/124"),
            ],
        ),
    ];
    for (old, new) in pairs {
        let refs = |rules: &'_ [String]| {
            World::new(&policy("p", "", &rules.iter().map(String::as_str).collect::<Vec<_>>())).table
        };
        let (old, new) = (refs(&old), refs(&new));
        let changes = diff(&old, &new);
        let mut different = 0;
        for host in 0..20 {
            for (protocol, port) in (0..12).map(|port| (TCP, port)).chain([(UDP, 5)]) {
                let v6 = changes.iter().any(|change| change.prefix.addr().is_ipv6());
                let address: std::net::IpAddr =
                    if v6 { format!("fd00::{host:x}") } else { format!("10.0.0.{host}") }.parse().unwrap();
                let (before, after) = (old.lookup(address, protocol, port), new.lookup(address, protocol, port));
                let key = egress_common::class::key(protocol, port);
                let longest =
                    changes.iter().filter(|change| change.prefix.contains(&address) && change.keys.contains(key));
                let reported = longest.max_by_key(|change| change.prefix.prefix_len());
                let differs = before.decision.is_deny() != after.decision.is_deny();
                if differs {
                    different += 1;
                    assert_eq!(
                        reported.map(|change| (change.old, change.new)),
                        Some((before, after)),
                        "{address} {protocol} {port}"
                    );
                }
            }
        }
        assert!(different > 20, "the pair is not vacuous: {different}");
        for change in changes {
            assert_ne!(change.old.decision.is_deny(), change.new.decision.is_deny(), "{change}");
        }
    }
}

// §4.2
#[test]
fn a_name_is_compared_wherever_its_addresses_lie() {
    let name = |action: &str| {
        format!("{{type: {action}, to: {{dnsName: '*.foo.com'}}, ports: [{{protocol: TCP, port: 443}}]}}")
    };
    for [inside, outside] in [["10.0.0.0/8", "0.0.0.0/0"], ["fd00::/16", "::/0"]] {
        let allow = rule("Allow", inside);
        let [old, new] = [world(&[&allow]), world(&[&allow, &name("Deny")])];
        let named = |name: &str| {
            let leaf = |world: &World| world.table.name_leaf(&Place::of_name(name));
            diff_named(&old.table, &new.table, leaf(&old), leaf(&new))
        };
        assert_eq!(diff(&old.table, &new.table), []);
        assert_eq!(named("foo.com"), []);
        let texts: Vec<String> = named("a.foo.com").iter().map(ToString::to_string).collect();
        // The rule before it still allows inside, and neither internal address is touched.
        assert!(texts.contains(&format!("{outside} TCP/443: allow → deny")), "{texts:?}");
        assert!(!texts.iter().any(|text| text.starts_with(inside) || text.starts_with("127.")), "{texts:?}");
        let back =
            diff_named(&new.table, &old.table, new.table.name_leaf(&Place::of_name("a.foo.com")), NameLeaf::NOTHING);
        assert_eq!(back.len(), texts.len());
    }
}
