//! Truth tables for §2 to §4 of the semantics, each case in both families, each answer from the table and from the rule-by-rule
//! explanation; then the shape of tables and the limits.

use egress_common::class::{self, ClassEntry};

use super::*;
use crate::model::{NodeContext, NodeInfo};
use crate::ports::KeyRange;
use crate::sample::{ICMP, ICMPV6, TCP, UDP, World, cluster, config, list, pod, policy, port_rule, rule, set};
use crate::spec::MAX_PORTS;
use crate::warnings::shadowed;

mod layout;

/// An address, its `/24` or `/48`, and the prefixes around it, in both families.
const FAMILIES: [[&str; 5]; 2] = [
    ["10.1.2.3", "10.1.2.0/24", "10.1.0.0/16", "10.0.0.0/8", "0.0.0.0/0"],
    ["fd00:1:2::3", "fd00:1:2::/48", "fd00:1::/32", "fd00::/16", "::/0"],
];

fn one(rules: &[String]) -> String {
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    policy("p", "", &rules)
}

// §2.1, §2.4
#[test]
fn tiers_are_asked_in_order_and_the_next_one_only_without_a_match() {
    for [address, near, ..] in FAMILIES {
        let text = |admin: &str, namespace: &str, baseline: &str| {
            let rules = |action: &str| match action {
                "" => String::new(),
                action => rule(action, near),
            };
            cluster("a", "tier: Admin", &[&rules(admin)])
                + &policy("n", "", &[&rules(namespace)])
                + &cluster("b", "tier: Baseline", &[&rules(baseline)])
        };
        for (admin, namespace, baseline, decider, allowed) in [
            ("Allow", "Deny", "Deny", "rule 1 of a", true),
            ("Deny", "Allow", "Allow", "rule 1 of a", false),
            ("", "Allow", "Deny", "rule 1 of default/n", true),
            ("", "Deny", "Allow", "rule 1 of default/n", false),
            ("", "", "Allow", "rule 1 of b", true),
            ("", "", "Deny", "rule 1 of b", false),
            ("", "", "", "default action", true),
        ] {
            let world = World::new(&text(admin, namespace, baseline));
            let decided = (world.decider(address, TCP, 443), world.allows(address, TCP, 443));
            assert_eq!(decided, (decider.to_owned(), allowed), "{admin} {namespace} {baseline} {address}");
        }
    }
}

// §2.1
#[test]
fn the_default_action_is_for_what_no_rule_matches() {
    for [address, near, ..] in FAMILIES {
        let other = if address.contains(':') { "2001:db8::1" } else { "192.0.2.1" };
        let deny = config("defaultAction: Deny, internalCIDRs: []");
        let world = World::new(&(deny + &one(&[rule("Allow", near)])));
        assert!(world.allows(address, UDP, 9));
        assert!(!world.allows(other, UDP, 9));
        assert_eq!(world.decider(other, UDP, 9), "default action");
        let world = World::new(&one(&[rule("Deny", near)]));
        assert!(!world.allows(address, UDP, 9));
        assert!(world.allows(other, UDP, 9));
    }
}

// §2.2
#[test]
fn policies_follow_by_priority_and_then_by_name() {
    for [address, near, ..] in FAMILIES {
        let first = |policies: &[(&str, &str)]| {
            let text: String = policies.iter().map(|(name, spec)| policy(name, spec, &[&rule("Deny", near)])).collect();
            World::new(&text).decider(address, TCP, 1)
        };
        assert_eq!(first(&[("b", "priority: 5"), ("a", "priority: 6")]), "rule 1 of default/b");
        assert_eq!(first(&[("b", ""), ("a", "")]), "rule 1 of default/a");
        assert_eq!(first(&[("a", ""), ("z", "priority: 99")]), "rule 1 of default/z", "the default priority is 100");
        assert_eq!(first(&[("a", "priority: 0"), ("b", "priority: 1000")]), "rule 1 of default/a");
    }
}

// §2.2
#[test]
fn a_cluster_policy_of_high_priority_does_not_leave_its_tier() {
    for [address, near, ..] in FAMILIES {
        let text = cluster("late", "tier: Admin, priority: 1000", &[&rule("Deny", near)])
            + &policy("early", "priority: 0", &[&rule("Allow", near)]);
        assert_eq!(World::new(&text).decider(address, TCP, 1), "rule 1 of late");
    }
}

// §2.3
#[test]
fn the_first_match_wins_inside_a_policy() {
    for [address, near, ..] in FAMILIES {
        assert!(World::new(&one(&[rule("Allow", near), rule("Deny", near)])).allows(address, TCP, 80));
        assert!(!World::new(&one(&[rule("Deny", near), rule("Allow", near)])).allows(address, TCP, 80));
    }
}

// §2.3
#[test]
fn pass_skips_the_rest_of_the_admin_tier_and_nothing_else() {
    for [address, near, ..] in FAMILIES {
        let pass = cluster("a", "tier: Admin, priority: 1", &[&rule("Pass", near), &rule("Deny", near)]);
        let denied = cluster("b", "tier: Admin, priority: 2", &[&rule("Deny", near)]);
        let baseline = cluster("z", "tier: Baseline", &[&rule("Deny", near)]);
        let world = World::new(&format!("{pass}{denied}"));
        assert_eq!(world.decider(address, TCP, 1), "default action");
        let world = World::new(&format!("{pass}{denied}{baseline}"));
        assert_eq!(world.decider(address, TCP, 1), "rule 1 of z");
        let world = World::new(&format!("{pass}{denied}{baseline}{}", policy("n", "", &[&rule("Allow", near)])));
        assert_eq!(world.decider(address, TCP, 1), "rule 1 of default/n");
    }
}

// §2.3
#[test]
fn pass_for_some_ports_leaves_the_others_to_the_admin_tier() {
    for [address, near, ..] in FAMILIES {
        let text =
            cluster("a", "tier: Admin", &[&port_rule("Pass", near, "protocol: TCP, port: 443"), &rule("Deny", near)]);
        let world = World::new(&text);
        assert!(world.allows(address, TCP, 443));
        assert!(!world.allows(address, TCP, 442));
        assert!(!world.allows(address, UDP, 443));
    }
}

// §2.3
#[test]
fn a_decision_before_pass_stands() {
    for [address, near, far, ..] in FAMILIES {
        let text = cluster("a", "tier: Admin", &[&rule("Deny", near), &rule("Pass", far), &rule("Allow", near)]);
        assert_eq!(World::new(&text).decider(address, TCP, 1), "rule 1 of a");
    }
}

// §2.5
#[test]
fn a_policy_under_audit_decides_nothing_and_is_recorded() {
    for [address, near, ..] in FAMILIES {
        let audit = policy("a", "mode: Audit", &[&rule("Deny", near)]);
        let world = World::new(&audit);
        assert!(world.allows(address, TCP, 80));
        assert_eq!(world.audit(address, TCP, 80), Some((false, "rule 1 of default/a".to_owned())));
        // An earlier rule in force decides both.
        let world = World::new(&format!("{audit}{}", policy("b", "priority: 1", &[&rule("Allow", near)])));
        assert_eq!(world.audit(address, TCP, 80), None);
        // A rule under Audit that agrees is told too: it would take over the decision.
        let world = World::new(&policy("a", "mode: Audit", &[&rule("Allow", near)]));
        assert!(world.allows(address, TCP, 80));
        assert_eq!(world.audit(address, TCP, 80), Some((true, "rule 1 of default/a".to_owned())));
    }
}

// §2.5
#[test]
fn an_audited_pass_shows_what_it_would_change() {
    for [address, near, ..] in FAMILIES {
        let pass = cluster("a", "tier: Admin, priority: 1, mode: Audit", &[&rule("Pass", near)]);
        let deny = cluster("b", "tier: Admin, priority: 2", &[&rule("Deny", near)]);
        let world = World::new(&format!("{pass}{deny}"));
        assert!(!world.allows(address, TCP, 80));
        assert_eq!(world.audit(address, TCP, 80), Some((true, "default action".to_owned())));
        // The same action by another rule in force is no difference.
        let world = World::new(&format!("{pass}{deny}{}", policy("n", "", &[&rule("Deny", near)])));
        assert!(!world.allows(address, TCP, 80));
        assert_eq!(world.audit(address, TCP, 80), None);
    }
}

// §2.5
#[test]
fn audit_is_judged_per_port() {
    for [address, near, ..] in FAMILIES {
        let text = policy("a", "mode: Audit, priority: 1", &[&port_rule("Deny", near, "protocol: TCP, port: 25")])
            + &policy("b", "", &[&rule("Allow", near)]);
        let world = World::new(&text);
        assert_eq!(world.audit(address, TCP, 25), Some((false, "rule 1 of default/a".to_owned())));
        assert_eq!(world.audit(address, TCP, 26), None);
        assert_eq!(world.audit(address, UDP, 25), None);
    }
}

// §3.2
#[test]
fn an_exception_is_not_matched_and_the_rules_behind_it_are_asked() {
    for [address, near, far, ..] in FAMILIES {
        let other = if address.contains(':') { "fd00:1:3::1" } else { "10.1.3.1" };
        let except = |action: &str| format!("{{type: {action}, to: {{cidrSelector: '{far}', except: ['{near}']}}}}");
        let world = World::new(&one(&[except("Deny"), rule("Allow", far)]));
        assert!(world.allows(address, TCP, 1));
        assert!(!world.allows(other, TCP, 1));
        let world = World::new(&one(&[except("Allow"), rule("Deny", far)]));
        assert!(!world.allows(address, TCP, 1));
        assert!(world.allows(other, TCP, 1));
        assert_eq!(World::new(&one(&[except("Deny")])).decider(address, TCP, 1), "default action");
    }
}

// §3.2
#[test]
fn a_rule_inside_an_exception_is_asked_without_the_excepted_rule() {
    for [address, near, far, ..] in FAMILIES {
        let host = if address.contains(':') { "fd00:1:2::3/128" } else { "10.1.2.3/32" };
        let sibling = if address.contains(':') { "fd00:1:2::4" } else { "10.1.2.4" };
        let except = format!("{{type: Deny, to: {{cidrSelector: '{far}', except: ['{near}']}}}}");
        let world = World::new(&one(&[except, port_rule("Allow", host, "protocol: TCP, port: 1"), rule("Deny", host)]));
        assert_eq!(world.decider(address, TCP, 1), "rule 2 of default/p");
        assert_eq!(world.decider(address, TCP, 2), "rule 3 of default/p");
        assert_eq!(world.decider(sibling, TCP, 2), "default action");
    }
}

// §3.2
#[test]
fn exceptions_of_several_rules_at_one_prefix_all_hold() {
    for [address, near, far, wide, _] in FAMILIES {
        let except = |action: &str, cidr: &str| {
            format!("{{type: {action}, to: {{cidrSelector: '{cidr}', except: ['{near}']}}}}")
        };
        let world = World::new(&one(&[except("Deny", far), except("Allow", wide), rule("Deny", wide)]));
        assert_eq!(world.decider(address, TCP, 1), "rule 3 of default/p");
        let outside = if address.contains(':') { "fd00:9::1" } else { "10.9.0.1" };
        assert_eq!(world.decider(outside, TCP, 1), "rule 2 of default/p");
    }
}

// §3.2
#[test]
fn a_rule_whose_exception_is_everything_matches_nothing() {
    for [address, near, ..] in FAMILIES {
        let except = format!("{{type: Deny, to: {{cidrSelector: '{near}', except: ['{near}']}}}}");
        assert!(World::new(&one(&[except])).allows(address, TCP, 1));
    }
}

// §3.4
#[test]
fn a_port_range_has_exact_ends() {
    for [address, near, ..] in FAMILIES {
        let world = World::new(&one(&[port_rule("Deny", near, "protocol: TCP, port: 1000, endPort: 2000")]));
        for (port, allowed) in [(0, true), (999, true), (1000, false), (2000, false), (2001, true), (65535, true)] {
            assert_eq!(world.allows(address, TCP, port), allowed, "{port}");
            assert!(world.allows(address, UDP, port));
        }
        let world = World::new(&one(&[port_rule("Deny", near, "protocol: UDP, port: 7, endPort: 7")]));
        assert!(!world.allows(address, UDP, 7));
        assert!(world.allows(address, UDP, 8));
        let world = World::new(&one(&[port_rule("Deny", near, "protocol: UDP, port: 65535")]));
        assert!(!world.allows(address, UDP, 65535));
        assert!(world.allows(address, UDP, 65534));
        assert!(world.allows(address, 18, 0), "the protocol after UDP begins where UDP's ports end");
    }
}

// §3.4
#[test]
fn a_protocol_without_port_is_every_port_and_icmp_every_type() {
    for [address, near, ..] in FAMILIES {
        for (name, number) in [("TCP", TCP), ("UDP", UDP), ("SCTP", 132), ("ICMP", ICMP), ("ICMPv6", ICMPV6)] {
            let world = World::new(&one(&[port_rule("Deny", near, &format!("protocol: {name}"))]));
            for protocol in 0..=255 {
                for port in [0, 1, 8, 65535] {
                    assert_eq!(world.allows(address, protocol, port), protocol != number, "{name} {protocol} {port}");
                }
            }
        }
    }
}

// §3.4
#[test]
fn several_port_entries_are_alternatives() {
    for [address, near, ..] in FAMILIES {
        let rules = [format!(
            "{{type: Deny, to: {{cidrSelector: '{near}'}}, ports: [{{protocol: TCP, port: 80}}, {{protocol: UDP}}, {{protocol: TCP, port: 443}}]}}"
        )];
        let world = World::new(&one(&rules));
        assert!(!world.allows(address, TCP, 80));
        assert!(!world.allows(address, TCP, 443));
        assert!(!world.allows(address, UDP, 1));
        assert!(world.allows(address, TCP, 81));
    }
}

// §3.5
#[test]
fn any_and_no_ports_cover_protocols_without_ports() {
    for [address, near, ..] in FAMILIES {
        for rules in [rule("Deny", near), port_rule("Deny", near, "protocol: Any")] {
            let world = World::new(&one(&[rules]));
            for protocol in 0..=255 {
                assert!(!world.allows(address, protocol, 0), "{protocol}");
            }
        }
    }
}

// §3.6
#[test]
fn an_unknown_port_has_a_verdict_only_where_ports_do_not_matter() {
    for [address, near, ..] in FAMILIES {
        let world = World::new(&one(&[port_rule("Deny", near, "protocol: TCP, port: 25"), rule("Allow", near)]));
        let address = address.parse().unwrap();
        assert_eq!(world.table.lookup_any_port(address, TCP), None);
        let udp = world.table.lookup_any_port(address, UDP).unwrap();
        assert!(!udp.decision.is_deny());
        // Two ranges of one rule that touch are one interval.
        let touching = "{type: Deny, to: {cidrSelector: '0.0.0.0/0'}, ports: [{protocol: UDP, port: 1, endPort: 9}, {protocol: UDP}]}";
        let world = World::new(&one(&[touching.to_owned()]));
        assert!(world.table.lookup_any_port("192.0.2.1".parse().unwrap(), UDP).is_some());
    }
}

// §4.1
#[test]
fn order_decides_and_never_the_prefix_length() {
    for [address, near, far, wide, all] in FAMILIES {
        let prefixes = [near, far, wide, all];
        for first in prefixes {
            for second in prefixes {
                let world = World::new(&one(&[rule("Deny", first), rule("Allow", second)]));
                assert!(!world.allows(address, TCP, 1), "Deny {first} before Allow {second}");
                let world = World::new(&one(&[rule("Allow", first), rule("Deny", second)]));
                assert!(world.allows(address, TCP, 1), "Allow {first} before Deny {second}");
            }
        }
    }
}

// §4.1
#[test]
fn the_openshift_example_allows_one_prefix_and_denies_the_rest() {
    let world = World::new(&one(&[rule("Allow", "1.2.3.0/24"), rule("Deny", "0.0.0.0/0")]));
    assert!(world.allows("1.2.3.4", TCP, 443));
    assert!(!world.allows("1.2.4.4", TCP, 443));
    assert!(world.allows("2001:db8::1", TCP, 443), "0.0.0.0/0 says nothing about IPv6");
    let world = World::new(&one(&[rule("Allow", "2001:db8::/32"), rule("Deny", "::/0")]));
    assert!(world.allows("2001:db8::1", TCP, 443));
    assert!(!world.allows("2001:db9::1", TCP, 443));
    assert!(world.allows("1.2.3.4", TCP, 443), "::/0 says nothing about IPv4");
}

// §4.2
#[test]
fn a_name_rule_keeps_its_rank_and_matches_nothing_yet() {
    let name = "{type: Allow, to: {dnsName: www.foo.com}}".to_owned();
    let world = World::new(&one(&[name, rule("Deny", "0.0.0.0/0")]));
    assert_eq!(world.decider("1.2.3.4", TCP, 443), "rule 2 of default/p");
}

// §1.2, §1.3
#[test]
fn builtin_rules_come_before_every_policy() {
    let deny = cluster("a", "tier: Admin", &[&rule("Deny", "0.0.0.0/0"), &rule("Deny", "::/0")]);
    let config = config(
        "defaultAction: Deny, internalCIDRs: [10.0.0.0/8, 'fd00::/16'], excludedCIDRs: [192.0.2.0/24, '2001:db8::/32'], \
         resolvers: [198.51.100.53, '2001:db9::53']",
    );
    let node = NodeContext {
        node_addresses: vec!["203.0.113.7".parse().unwrap(), "2001:dba::7".parse().unwrap()],
        resolvers: vec!["8.8.8.8".parse().unwrap()],
        nodes: Vec::new(),
        services: Vec::new(),
    };
    let world = World::of(set(&(config + &deny)).rule_list(&pod(), &node));
    let cases = [
        ("10.9.8.7", TCP, 1, "internal CIDRs"),
        ("fd00::1", TCP, 1, "internal CIDRs"),
        ("127.0.0.1", UDP, 1, "internal CIDRs"),
        ("::1", UDP, 1, "internal CIDRs"),
        ("fe80::1", ICMPV6, 135, "link control (neighbour discovery)"),
        ("ff02::16", ICMPV6, 143, "link control (neighbour discovery)"),
        ("2001:dba::7", ICMPV6, 136, "link control (neighbour discovery)"),
        ("fe80::1", ICMPV6, 128, "rule 2 of a"),
        ("fe80::1", ICMPV6, 138, "rule 2 of a"),
        ("2001:dba::8", ICMPV6, 136, "rule 2 of a"),
        ("ff02::1:2", UDP, 547, "link control (DHCPv6)"),
        ("ff02::1:2", UDP, 546, "rule 2 of a"),
        ("224.0.0.22", 2, 0, "link control (IGMP)"),
        ("224.0.1.22", 2, 0, "rule 1 of a"),
        ("255.255.255.255", UDP, 67, "link control (DHCPv4)"),
        ("255.255.255.255", UDP, 68, "rule 1 of a"),
        ("198.51.100.53", UDP, 53, "DNS to trusted resolvers"),
        ("198.51.100.53", TCP, 53, "DNS to trusted resolvers"),
        ("198.51.100.53", TCP, 54, "rule 1 of a"),
        ("2001:db9::53", UDP, 53, "DNS to trusted resolvers"),
        ("203.0.113.7", UDP, 53, "DNS to trusted resolvers"),
        ("8.8.8.8", UDP, 53, "rule 1 of a"),
        ("192.0.2.1", TCP, 1, "excluded CIDRs"),
        ("2001:db8::1", TCP, 1, "excluded CIDRs"),
        ("192.0.3.1", TCP, 1, "rule 1 of a"),
    ];
    for (address, protocol, port, decider) in cases {
        assert_eq!(world.decider(address, protocol, port), decider, "{address} {protocol} {port}");
        let internal = decider == "internal CIDRs" || decider.starts_with("link control");
        assert_eq!(world.lookup(address, protocol, port).decision.is_internal(), internal, "{address}");
    }
}

// §1.3
#[test]
fn the_switch_for_resolvers_takes_their_rule_away() {
    let deny = policy("p", "", &[&rule("Deny", "0.0.0.0/0")]);
    let node = NodeContext { resolvers: vec!["8.8.8.8".parse().unwrap()], ..NodeContext::default() };
    let with = World::of(set(&deny).rule_list(&pod(), &node));
    assert!(with.allows("8.8.8.8", UDP, 53), "found resolvers count where none are configured");
    let without = World::of(set(&(config("dns: {allowResolvers: false}") + &deny)).rule_list(&pod(), &node));
    assert!(!without.allows("8.8.8.8", UDP, 53));
}

// §3.1
#[test]
fn a_node_rule_matches_every_address_of_the_selected_nodes() {
    let text = policy("p", "", &["{type: Deny, to: {nodeSelector: {matchLabels: {pool: a}}}}"]);
    let info = |pool: &str, addresses: [&str; 2]| NodeInfo {
        labels: [("pool".to_owned(), pool.to_owned())].into(),
        addresses: addresses.map(|address| address.parse().unwrap()).to_vec(),
    };
    let node = NodeContext {
        nodes: vec![info("a", ["192.0.2.1", "2001:db8::1"]), info("b", ["192.0.2.2", "2001:db8::2"])],
        ..NodeContext::default()
    };
    let world = World::of(set(&text).rule_list(&pod(), &node));
    for (address, allowed) in [("192.0.2.1", false), ("2001:db8::1", false), ("192.0.2.2", true), ("2001:db8::2", true)]
    {
        assert_eq!(world.allows(address, TCP, 1), allowed, "{address}");
    }
}

#[test]
fn an_ipv4_mapped_address_is_judged_as_ipv4() {
    let world =
        World::new(&one(&[rule("Deny", "1.2.3.0/24"), rule("Deny", "::ffff:1.2.4.0/120"), rule("Allow", "::/0")]));
    assert!(!world.allows("::ffff:1.2.3.4", TCP, 1));
    assert!(!world.allows("1.2.4.4", TCP, 1), "an IPv4-mapped prefix is an IPv4 prefix");
    assert!(world.allows("::ffff:1.2.5.4", TCP, 1));
}
