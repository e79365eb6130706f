//! Which pods are compared, and what a line of the answer covers.

use egress_common::class;
use egress_common::table::Decision;
use egress_policy::document::{self, Object};
use egress_reference::{Random, World};

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

/// Every packet whose verdict changes is in exactly one line, and no other packet is in any.
#[test]
fn the_lines_cover_exactly_the_packets_whose_verdict_changes() {
    let (mut changed, mut unchanged) = (0, 0);
    for seed in 0..60 {
        let worlds = [World::generate(seed), World::generate(seed + 1000)];
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
            let tables = [side(&sets[0]).table, side(&sets[1]).table];
            for _ in 0..60 {
                let packet = world.packet(pod, &mut random);
                let address = packet.destination.to_canonical();
                let said = tables.each_ref().map(|table| table.lookup(address, packet.protocol, packet.port));
                let action = |decision: Decision| (decision.is_deny(), decision.is_internal());
                let [old, new] = said.map(|lookup| (action(lookup.decision), lookup.audit.map(action)));
                let key = class::key(packet.protocol, packet.port);
                let covers = |row: &&&view::Row| {
                    row.prefix.contains(&address)
                        && !row.except.iter().any(|except| except.contains(&address))
                        && row.ports.iter().any(|ports| ports.contains(key))
                };
                assert_eq!(rows.iter().filter(covers).count(), usize::from(old != new), "seed {seed}: {packet}");
                *(if old == new { &mut unchanged } else { &mut changed }) += 1;
            }
        }
    }
    assert!(changed > 1000 && unchanged > 1000, "{changed} changed, {unchanged} did not");
}
