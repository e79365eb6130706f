//! Truth tables for rules about DNS names (§2.3–2.5, §4.2, §4.3, §5.9), each in both families.

use std::collections::BTreeSet;
use std::net::IpAddr;

use egress_common::names::{Effect, State as Matches};
use egress_common::table::{Decision, Leaf};

use super::*;
use crate::compile::{Lookup, Table, compile, compile_with_coverage};
use crate::explain::explain_named;
use crate::places::Places;
use crate::rules::{RuleList, RuleOrigin};
use crate::sample::{TCP, UDP, cluster, config, list, policy, rule};
use crate::warnings::shadowed;

/// An address and its surroundings, in both families.
const FAMILIES: [[&str; 3]; 2] = [["10.1.2.3", "10.1.2.0/24", "0.0.0.0/0"], ["fd00:1:2::3", "fd00:1:2::/48", "::/0"]];

fn name(action: &str, name: &str) -> String {
    format!("{{type: {action}, to: {{dnsName: '{name}'}}}}")
}

fn name_port(action: &str, name: &str, port: u16) -> String {
    format!("{{type: {action}, to: {{dnsName: '{name}'}}, ports: [{{protocol: TCP, port: {port}}}]}}")
}

fn own(rules: &[String]) -> String {
    policy("p", "", &rules.iter().map(String::as_str).collect::<Vec<_>>())
}

fn admin(rules: &[String]) -> String {
    cluster("a", "tier: Admin", &rules.iter().map(String::as_str).collect::<Vec<_>>())
}

struct Named {
    list: RuleList,
    table: Table,
}

impl Named {
    fn new(text: &str) -> Self {
        let list = list(text);
        let table = compile(&list, &Limits::default()).unwrap();
        Self { list, table }
    }

    fn leaves(&self, names: &[&str]) -> Vec<NameLeaf> {
        names.iter().map(|name| self.table.name_leaf(&Place::of_name(name))).collect()
    }

    fn origin(&self, decision: Decision) -> String {
        let allow = if decision.is_deny() { "denies" } else { "allows" };
        let rule = &self.list.rules[usize::try_from(decision.rank()).unwrap()];
        format!("{} {allow}", rule.origin)
    }

    /// What the table says of TCP to `address` while it belongs to `names`. The explanation must agree.
    fn lookup(&self, address: &str, port: u16, names: &[&str]) -> Lookup {
        let address: IpAddr = address.parse().unwrap();
        let found = self.table.lookup_with(address, TCP, port, &self.leaves(names));
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let explanation = explain_named(&self.list, address, &names, TCP, Some(port));
        assert_eq!(explanation.rank, Some(found.decision.rank()), "{explanation}");
        assert_eq!(explanation.audit.map(|audit| audit.1), found.audit.map(Decision::rank), "{explanation}");
        found
    }

    /// Who decides about TCP to `address` while it belongs to `names`, and what.
    fn decider(&self, address: &str, port: u16, names: &[&str]) -> String {
        self.origin(self.lookup(address, port, names).decision)
    }

    fn audit(&self, address: &str, names: &[&str]) -> Option<String> {
        self.lookup(address, 443, names).audit.map(|audit| self.origin(audit))
    }

    fn any_port(&self, address: &str, protocol: u8, names: &[&str]) -> Option<String> {
        let found = self.table.lookup_any_port_with(address.parse().unwrap(), protocol, &self.leaves(names))?;
        Some(self.origin(found.decision))
    }

    fn shadowed(&self) -> Vec<u32> {
        let (_, coverage) = compile_with_coverage(&self.list, &Limits::default()).unwrap();
        let ranked = self.list.rules.iter().zip(0..).filter(|(_, rank)| !coverage.decides(*rank));
        let numbers = ranked.filter_map(|(rule, _)| match &rule.origin {
            RuleOrigin::Policy { number, .. } => Some(*number),
            RuleOrigin::Builtin(_) | RuleOrigin::Service(_) | RuleOrigin::Default | RuleOrigin::Vacant => None,
        });
        let numbers: Vec<u32> = numbers.collect();
        assert_eq!(shadowed(&self.list, &coverage).is_empty(), numbers.is_empty());
        numbers
    }
}

// §4.2
#[test]
fn a_name_and_a_prefix_compete_by_order_alone() {
    for [address, near, _] in FAMILIES {
        let first = Named::new(&own(&[name("Allow", "www.foo.com"), rule("Deny", near)]));
        assert_eq!(first.decider(address, 443, &["www.foo.com"]), "rule 1 of default/p allows");
        assert_eq!(first.decider(address, 443, &["foo.com"]), "rule 2 of default/p denies");
        assert_eq!(first.decider(address, 443, &[]), "rule 2 of default/p denies");
        let last = Named::new(&own(&[rule("Deny", near), name("Allow", "www.foo.com")]));
        assert_eq!(last.decider(address, 443, &["www.foo.com"]), "rule 1 of default/p denies");
        let deny = Named::new(&own(&[name("Deny", "www.foo.com"), rule("Allow", near)]));
        assert_eq!(deny.decider(address, 443, &["www.foo.com"]), "rule 1 of default/p denies");
        assert_eq!(deny.decider(address, 443, &[]), "rule 2 of default/p allows");
    }
}

// §5.1
#[test]
fn wildcards_mean_the_names_in_front() {
    let table = Named::new(&own(&[name("Deny", "a.foo.com"), name("Allow", "*.foo.com"), name("Deny", "**.foo.com")]));
    for [address, ..] in FAMILIES {
        for (name, decider) in [
            ("a.foo.com", "rule 1 of default/p denies"),
            ("b.foo.com", "rule 2 of default/p allows"),
            ("x.a.foo.com", "rule 3 of default/p denies"),
            ("x.b.foo.com", "rule 3 of default/p denies"),
            ("foo.com", "default action allows"),
            ("bar.com", "default action allows"),
        ] {
            assert_eq!(table.decider(address, 443, &[name]), decider, "{name}");
        }
    }
}

// §5.9
#[test]
fn every_name_of_an_address_counts_and_the_first_rule_wins() {
    let table = Named::new(&own(&[name("Deny", "a.com"), name("Allow", "b.com"), name("Deny", "c.com")]));
    for [address, ..] in FAMILIES {
        assert_eq!(table.decider(address, 443, &["b.com", "c.com"]), "rule 2 of default/p allows");
        assert_eq!(table.decider(address, 443, &["c.com", "b.com"]), "rule 2 of default/p allows");
        assert_eq!(table.decider(address, 443, &["c.com", "b.com", "a.com"]), "rule 1 of default/p denies");
        assert_eq!(table.decider(address, 443, &["c.com", "d.com"]), "rule 3 of default/p denies");
    }
}

#[test]
fn ports_count_for_names_too() {
    for [address, near, _] in FAMILIES {
        let table = Named::new(&own(&[name_port("Allow", "a.com", 443), rule("Deny", near)]));
        assert_eq!(table.decider(address, 443, &["a.com"]), "rule 1 of default/p allows");
        assert_eq!(table.decider(address, 444, &["a.com"]), "rule 2 of default/p denies");
        assert_eq!(table.any_port(address, TCP, &["a.com"]), None);
        assert_eq!(table.any_port(address, UDP, &["a.com"]).as_deref(), Some("rule 2 of default/p denies"));
        assert_eq!(table.any_port(address, TCP, &["b.com"]).as_deref(), Some("rule 2 of default/p denies"));
        let behind = Named::new(&own(&[rule("Allow", near), name_port("Deny", "a.com", 443)]));
        assert_eq!(behind.any_port(address, TCP, &["a.com"]).as_deref(), Some("rule 1 of default/p allows"));
    }
}

// §2.3
#[test]
fn a_pass_by_name_leads_past_the_admin_tier() {
    for [address, near, all] in FAMILIES {
        let text =
            admin(&[name("Pass", "a.com"), rule("Deny", all)]) + &own(&[name("Deny", "b.com"), rule("Allow", near)]);
        let table = Named::new(&text);
        assert_eq!(table.decider(address, 443, &[]), "rule 2 of a denies");
        assert_eq!(table.decider(address, 443, &["b.com"]), "rule 2 of a denies");
        assert_eq!(table.decider(address, 443, &["a.com"]), "rule 2 of default/p allows");
        assert_eq!(table.decider(address, 443, &["b.com", "a.com"]), "rule 1 of default/p denies");
        // Rules of the Admin tier before the Pass still decide.
        let before = Named::new(&(admin(&[rule("Deny", near), name("Pass", "a.com")]) + &own(&[rule("Allow", all)])));
        assert_eq!(before.decider(address, 443, &["a.com"]), "rule 1 of a denies");
    }
}

// §2.3
#[test]
fn a_pass_by_prefix_hides_the_names_behind_it_in_the_admin_tier_only() {
    for [address, near, _] in FAMILIES {
        let text =
            admin(&[rule("Pass", near), name("Deny", "a.com")]) + &own(&[name("Allow", "a.com"), rule("Deny", near)]);
        let table = Named::new(&text);
        assert_eq!(table.decider(address, 443, &["a.com"]), "rule 1 of default/p allows");
        assert_eq!(table.decider(address, 443, &[]), "rule 2 of default/p denies");
        let other = if address.contains(':') { "2001:db8::1" } else { "192.0.2.1" };
        assert_eq!(table.decider(other, 443, &["a.com"]), "rule 2 of a denies");
    }
}

// §2.5
#[test]
fn a_name_of_a_policy_under_audit_decides_nothing_and_is_recorded() {
    for [address, near, _] in FAMILIES {
        let audited = policy("q", "priority: 1, mode: Audit", &[&name("Deny", "a.com")]);
        let table = Named::new(&(audited + &own(&[rule("Allow", near)])));
        assert_eq!(table.decider(address, 443, &["a.com"]), "rule 1 of default/p allows");
        assert_eq!(table.audit(address, &["a.com"]).as_deref(), Some("rule 1 of default/q denies"));
        assert_eq!(table.audit(address, &[]), None);
        // A rule in force about a name hides an audited rule about the prefix.
        let audited = policy("q", "priority: 200, mode: Audit", &[&rule("Deny", near)]);
        let table = Named::new(&(own(&[name("Allow", "a.com")]) + &audited));
        assert_eq!(table.audit(address, &[]).as_deref(), Some("rule 1 of default/q denies"));
        assert_eq!(table.audit(address, &["a.com"]), None);
    }
}

#[test]
fn internal_destinations_come_before_every_name() {
    let text = config("internalCIDRs: [10.1.0.0/16, 'fd00:1::/32']") + &own(&[name("Deny", "a.com")]);
    let table = Named::new(&text);
    for [address, ..] in FAMILIES {
        assert_eq!(table.decider(address, 443, &["a.com"]), "internal CIDRs allows");
    }
    assert_eq!(table.decider("192.0.2.1", 443, &["a.com"]), "rule 1 of default/p denies");
}

/// The states that intervals lead to.
fn states(table: &Table) -> Vec<Matches> {
    let leads = table.classes.iter().filter_map(|entry| entry.open()?.err());
    let indexes: BTreeSet<u32> = leads.collect();
    indexes.into_iter().map(|index| Matches::read(&table.classes, index).unwrap()).collect()
}

#[test]
fn names_alone_need_no_class_and_no_state() {
    let rules =
        [rule("Deny", "10.0.0.0/8"), name("Allow", "*.foo.com"), rule("Allow", "fd00::/16"), name("Deny", "b.com")];
    let table = Named::new(&(admin(&[rule("Allow", "10.1.0.0/16")]) + &own(&rules))).table;
    // Only the builtin rules have ports.
    assert_eq!(table.classes.len(), Named::new(&own(&[rule("Deny", "10.0.0.0/8")])).table.classes.len());
    assert_eq!(states(&table), []);
    let rank = table.head_rules + 1;
    assert_eq!(
        table.names,
        [
            (
                Place { suffix: "b.com".to_owned(), depth: Depth::Exact },
                NameLeaf::effect(Effect::decide(Decision::deny(rank + 2)))
            ),
            (
                Place { suffix: "foo.com".to_owned(), depth: Depth::One },
                NameLeaf::effect(Effect::decide(Decision::allow(rank)))
            ),
        ]
    );
}

#[test]
fn a_list_without_names_has_states_for_audit_only_and_they_are_verdicts() {
    let text = admin(&[rule("Pass", "10.0.0.0/8"), rule("Deny", "10.0.0.0/7")])
        + &policy("a", "mode: Audit", &[&rule("Deny", "10.1.0.0/16")])
        + &own(&[rule("Allow", "10.0.0.0/8")]);
    let table = Named::new(&text).table;
    assert!(!table.has_names());
    let states = states(&table);
    assert_eq!(states.len(), 1);
    for Matches { head, tail, audit_head, audit_tail } in states {
        assert!(head.is_none() != tail.is_none() && audit_head.is_none() != audit_tail.is_none());
        assert!(![head, tail, audit_head, audit_tail].iter().any(|effect| effect.is_pass() && !effect.is_none()));
    }
    let passed = table.leaf("10.2.0.1".parse().unwrap()).unwrap();
    assert_eq!(passed, Leaf::decision(Decision::allow(table.rules - 2)));
}

#[test]
fn the_places_of_other_policies_lead_to_the_same_leaf() {
    let table = Named::new(&own(&[name("Deny", "a.foo.com"), name_port("Allow", "**.foo.com", 443)])).table;
    let patterns = ["a.foo.com", "**.foo.com", "*.b.foo.com", "x.y.b.foo.com", "*.a.foo.com", "org"];
    let patterns: Vec<_> = patterns.iter().map(|text| crate::name::NamePattern::parse(text).unwrap()).collect();
    let union: Places = patterns.iter().collect();
    for name in ["a.foo.com", "b.foo.com", "z.b.foo.com", "x.y.b.foo.com", "c.a.foo.com", "foo.com", "org", "d.foo.com"]
    {
        let direct = table.name_leaf(&Place::of_name(name));
        let place = union.place_of(&Place::of_name(name));
        let through = place.map_or(NameLeaf::NOTHING, |place| table.name_leaf(&place));
        assert_eq!(through, direct, "{name}");
        assert_eq!(direct == NameLeaf::NOTHING, ["foo.com", "org"].contains(&name), "{name}");
    }
}

// §4.3
#[test]
fn a_name_is_shadowed_only_by_rules_for_every_address_or_for_the_name() {
    let (all4, all6) = (rule("Deny", "0.0.0.0/0"), rule("Deny", "::/0"));
    let www = name("Allow", "www.foo.com");
    for (rules, expected) in [
        (vec![all4.clone(), all6.clone(), www.clone()], vec![3]),
        (vec![all4.clone(), www.clone(), all6.clone()], vec![]),
        (vec![www.clone(), all4.clone(), all6.clone()], vec![]),
        (vec![name("Deny", "**.foo.com"), www.clone()], vec![2]),
        (vec![name("Deny", "*.foo.com"), www.clone()], vec![2]),
        (vec![name("Deny", "foo.com"), www.clone()], vec![]),
        (vec![name_port("Deny", "**.foo.com", 443), www.clone()], vec![]),
        (vec![name_port("Deny", "**.foo.com", 443), name_port("Allow", "www.foo.com", 443)], vec![2]),
        (vec![name_port("Deny", "**.foo.com", 443), name_port("Allow", "www.foo.com", 444)], vec![]),
        // The names of a wildcard are never all known, so the rules before it leave it some.
        (vec![www.clone(), name("Deny", "*.foo.com")], vec![]),
        (vec![name("Deny", "*.foo.com"), name("Deny", "**.foo.com")], vec![]),
        (vec![name("Deny", "**.foo.com"), name("Deny", "*.foo.com")], vec![2]),
        (vec![www.clone(), www.clone()], vec![2]),
        // A rule about prefixes is not shadowed by names.
        (vec![name("Deny", "**.foo.com"), rule("Allow", "1.2.3.0/24")], vec![]),
    ] {
        assert_eq!(Named::new(&own(&rules)).shadowed(), expected, "{rules:?}");
    }
}

// §4.3
#[test]
fn ports_of_rules_for_everything_shadow_the_same_ports_of_names() {
    let all = |ports: &str| {
        ["0.0.0.0/0", "::/0"].map(|cidr| {
            format!("{{type: Deny, to: {{cidrSelector: '{cidr}'}}, ports: [{{protocol: TCP, port: 440, endPort: {ports}}}]}}")
        })
    };
    let with = |ports: &str, last: String| {
        let [v4, v6] = all(ports);
        Named::new(&own(&[v4, v6, last])).shadowed()
    };
    assert_eq!(with("443", name_port("Allow", "a.com", 443)), [3]);
    assert_eq!(with("442", name_port("Allow", "a.com", 443)), [] as [u32; 0]);
    assert_eq!(with("443", name("Allow", "a.com")), [] as [u32; 0]);
}

// §4.3
#[test]
fn an_earlier_tier_shadows_names_unless_it_is_passed() {
    let deny = [rule("Deny", "0.0.0.0/0"), rule("Deny", "::/0")];
    let www = own(&[name("Allow", "www.foo.com")]);
    assert_eq!(Named::new(&(admin(&deny) + &www)).shadowed(), [1]);
    assert_eq!(Named::new(&(admin(&[name("Deny", "**.foo.com")]) + &www)).shadowed(), [1]);
    let [v4, v6] = deny;
    let none: [u32; 0] = [];
    assert_eq!(Named::new(&(admin(&[name("Pass", "a.com"), v4.clone(), v6.clone()]) + &www)).shadowed(), none);
    assert_eq!(Named::new(&(admin(&[rule("Pass", "10.0.0.0/8"), v4, v6]) + &www)).shadowed(), none);
    // An audited rule is looked for in the audit verdicts.
    let audited = policy("q", "mode: Audit, priority: 1", &[&name("Deny", "www.foo.com")]);
    assert_eq!(Named::new(&(audited.clone() + &www)).shadowed(), none);
    assert_eq!(Named::new(&(admin(&[name("Deny", "www.foo.com")]) + &audited)).shadowed(), [1]);
}

#[test]
fn too_many_names_are_refused_with_their_number() {
    let list = list(&own(&[name("Allow", "a.com"), name("Allow", "*.a.com"), name("Allow", "b.com")]));
    assert!(compile(&list, &Limits { names: 2, ..Limits::default() }).is_ok());
    let error = compile(&list, &Limits { names: 1, ..Limits::default() }).unwrap_err();
    assert_eq!(error, CompileError::Capacity { what: Resource::Names, needed: 2, limit: 1 });
}

#[test]
fn states_count_as_class_entries() {
    let text = admin(&[name("Pass", "a.com"), rule("Deny", "10.0.0.0/8")]) + &own(&[rule("Allow", "10.1.0.0/16")]);
    let list = list(&text);
    let needed = compile(&list, &Limits::default()).unwrap().classes.len();
    assert!(compile(&list, &Limits { class_entries: needed, ..Limits::default() }).is_ok());
    let error = compile(&list, &Limits { class_entries: needed - 1, ..Limits::default() }).unwrap_err();
    assert_eq!(error, CompileError::Capacity { what: Resource::ClassEntries, needed, limit: needed - 1 });
}

#[test]
fn thousands_of_names_and_rules_above_them_compile() {
    let mut rules: Vec<String> = (0..4000).map(|number| name_port("Allow", "**.com", number % 100 + 1)).collect();
    rules.extend((0..4000).map(|number| name("Allow", &format!("a{number}.com"))));
    let table = Named::new(&own(&rules)).table;
    assert_eq!(table.names.len(), 4000 * 3 + 2);
}

#[test]
fn names_are_told_apart_where_one_is_allowed_what_the_other_is_refused() {
    let rules = [
        name("Allow", "good.com"),
        name("Deny", "bad.com"),
        name_port("Allow", "https.com", 443),
        name_port("Deny", "nossh.com", 22),
        name("Allow", "nossh.com"),
    ];
    let table = Named::new(&own(&rules)).table;
    for (allowed, refused, expected) in [
        ("good.com", "bad.com", true),
        ("bad.com", "good.com", false),
        ("https.com", "bad.com", true),
        ("good.com", "nossh.com", true),
        // Of port 22 nothing is said about the first.
        ("https.com", "nossh.com", false),
        ("good.com", "https.com", false),
        // No rule is about it: that is not refused by a rule about names.
        ("good.com", "other.com", false),
    ] {
        let told = table.tells_apart(&Place::of_name(allowed), &Place::of_name(refused));
        assert_eq!(told, expected, "{allowed} {refused}");
    }
}
