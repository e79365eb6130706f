//! Which pods are compared, and what a line of the answer covers.

use egress_common::class;
use egress_common::table::Decision;
use egress_policy::document::{self, Object};
use egress_policy::places::Place;
use egress_reference::{Random, Size, World};

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
    let ports: Vec<String> = groups[0].changes[0].ports.iter().map(ToString::to_string).collect();
    assert_eq!(ports, ["TCP/443", "UDP/53"]);
}

const DENY_ALL: &str = "{type: Deny, to: {cidrSelector: 0.0.0.0/0}}, {type: Deny, to: {cidrSelector: '::/0'}}";

fn name(action: &str, name: &str) -> String {
    format!("{{type: {action}, to: {{dnsName: '{name}'}}}}")
}

/// The names of a block, and its lines without the deciders.
fn blocks(group: &Group) -> Vec<(Vec<&str>, Vec<String>)> {
    let line = |row: &view::Row| format!("{} {} {}", row.prefix, row.old.verdict, row.new.verdict);
    let block = |named: &view::Named| named.changes.iter().map(line).collect();
    group.names.iter().map(|named| (named.names.iter().map(String::as_str).collect(), block(named))).collect()
}

#[test]
fn a_rule_about_a_name_changes_only_lines_of_that_name() {
    let old = policy("a", "", DENY_ALL);
    let new = policy("a", "", &format!("{}, {}, {DENY_ALL}", name("Allow", "www.foo.com"), name("Allow", "*.bar.com")));
    let groups = compared(&old, &new);
    assert_eq!(groups.len(), 1);
    assert!(groups[0].changes.is_empty());
    let lines = || vec!["0.0.0.0/0 deny allow".to_owned(), "::/0 deny allow".to_owned()];
    assert_eq!(blocks(&groups[0]), [(vec!["*.bar.com"], lines()), (vec!["www.foo.com"], lines())]);
    assert_eq!(groups[0].names[1].changes[0].new.by, "rule 1 of shop/a");
}

#[test]
fn a_name_that_keeps_its_verdict_while_prefixes_change_is_told_to_stay() {
    let www = name("Allow", "www.foo.com");
    for prefix in ["10.0.0.0/8", "2001:db8::/32"] {
        let deny = format!("{{type: Deny, to: {{cidrSelector: '{prefix}'}}}}");
        let groups = compared(&policy("a", "", &www), &policy("a", "", &format!("{www}, {deny}")));
        assert_eq!(groups[0].changes.len(), 1);
        assert_eq!(blocks(&groups[0]), [(vec!["www.foo.com"], vec![])]);
        // A rule for the prefix before it changes both alike, so nothing is said of the name.
        let groups = compared(&policy("a", "", &www), &policy("a", "", &format!("{deny}, {www}")));
        assert_eq!(groups[0].changes.len(), 1);
        assert_eq!(blocks(&groups[0]), []);
    }
}

#[test]
fn a_narrower_name_leaves_the_wildcard_around_it_out() {
    let wide = name("Allow", "**.foo.com");
    let new = format!("{}, {wide}, {DENY_ALL}", name("Deny", "ads.foo.com"));
    let groups = compared(&policy("a", "", &format!("{wide}, {DENY_ALL}")), &policy("a", "", &new));
    let lines = vec!["0.0.0.0/0 allow deny".to_owned(), "::/0 allow deny".to_owned()];
    assert_eq!(blocks(&groups[0]), [(vec!["ads.foo.com"], lines)]);
}

#[test]
fn a_name_inside_a_wildcard_that_changes_is_told_to_stay() {
    let new = format!("{}, {}, {DENY_ALL}", name("Deny", "ads.foo.com"), name("Allow", "*.foo.com"));
    let groups = compared(&policy("a", "", DENY_ALL), &policy("a", "", &new));
    let lines = vec!["0.0.0.0/0 deny allow".to_owned(), "::/0 deny allow".to_owned()];
    assert_eq!(blocks(&groups[0]), [(vec!["*.foo.com"], lines), (vec!["ads.foo.com"], vec![])]);
}

/// The lines that a reader takes for those of `name`: of the longest suffix that it ends with.
fn told_of<'g>(groups: &'g [Group], name: &str) -> Option<&'g view::Named> {
    let suffixes = std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, rest)| rest));
    let fronts = ["", "*."].into_iter().chain(std::iter::repeat("**.*."));
    let texts = suffixes.zip(fronts).map(|(suffix, front)| format!("{front}{suffix}"));
    let blocks = || groups.iter().flat_map(|group| &group.names);
    texts.into_iter().find_map(|text| blocks().find(|named| named.names.contains(&text)))
}

/// Every packet whose verdict changes is in exactly one line, and no other packet is in any: without names, and to addresses of one name.
#[test]
fn the_lines_cover_exactly_the_packets_whose_verdict_changes() {
    let (mut changed, mut unchanged, mut by_name) = (0, 0, 0);
    for seed in 0..60 {
        let worlds = [seed, seed + 1000].map(|seed| World::generate_named(seed, &Size::default()));
        let sets = worlds.each_ref().map(|world| {
            let texts: Vec<String> = world.files(seed).iter().map(|file| file.text.clone()).collect();
            texts.iter().fold(PolicySet::default(), |mut set, text| {
                for object in document::read(text).objects {
                    match object {
                        Object::Policy(policy) => drop(set.insert(policy)),
                        Object::Config(config) => set.config = config,
                        Object::Namespace { name, labels } => drop(set.namespaces.insert(name, labels)),
                    }
                }
                set
            })
        });
        let mut random = Random::new(seed);
        for (world, pod) in worlds.iter().flat_map(|world| world.pods.iter().map(move |pod| (world, pod))) {
            let identity = PodIdentity {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                labels: pod.labels.clone(),
                service_account: pod.service_account.clone(),
            };
            let groups = groups(&sets[0], &sets[1], &[("pod".to_owned(), identity.clone())]).unwrap();
            let rows: Vec<&view::Row> = groups.iter().flat_map(|group| &group.changes).collect();
            let side = |set: &PolicySet| Side::new(set.rule_list(&identity, &NodeContext::default())).unwrap();
            let sides = sets.each_ref().map(side);
            let tables = sides.map(|side| side.table);
            for _ in 0..60 {
                let packet = world.packet(pod, &mut random);
                let address = packet.destination.to_canonical();
                let names = world.names_of(address);
                if names.len() > 1 {
                    continue;
                }
                let said = tables.each_ref().map(|table| {
                    let leaves: Vec<_> = names.iter().map(|name| table.name_leaf(&Place::of_name(name))).collect();
                    table.lookup_with(address, packet.protocol, packet.port, &leaves)
                });
                let action = |decision: Decision| (decision.is_deny(), decision.is_internal());
                let [old, new] = said.map(|lookup| (action(lookup.decision), lookup.audit.map(action)));
                let key = class::key(packet.protocol, packet.port);
                let covers = |row: &&&view::Row| {
                    row.prefix.contains(&address)
                        && !row.except.iter().any(|except| except.contains(&address))
                        && row.ports.iter().any(|ports| ports.contains(key))
                };
                let own = names.first().and_then(|name| told_of(&groups, name));
                let rows: Vec<&view::Row> = own.map_or_else(|| rows.clone(), |own| own.changes.iter().collect());
                // Nothing is said of names at addresses that they cannot have.
                let special = !names.is_empty() && is_special(address);
                let expected = usize::from(old != new);
                assert!(
                    special || rows.iter().filter(covers).count() == expected,
                    "seed {seed}: {packet} {names:?} {own:?}"
                );
                by_name += usize::from(own.is_some() && old != new);
                *(if old == new { &mut unchanged } else { &mut changed }) += 1;
            }
        }
    }
    assert!(changed > 1000 && unchanged > 1000, "{changed} changed, {unchanged} did not");
    assert!(by_name > 200, "{by_name} changed by name");
}

fn is_special(address: std::net::IpAddr) -> bool {
    let bytes = match address {
        std::net::IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(address) => address.octets(),
    };
    egress_common::names::is_special(&bytes)
}
