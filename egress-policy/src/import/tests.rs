//! What all kinds have in common: lists, names, namespaces, several kinds at once. What each kind means is tested in tests/import.

use super::*;

const FIREWALL: &str = "\
apiVersion: k8s.ovn.org/v1
kind: EgressFirewall
metadata: {name: default, namespace: shop}
spec: {egress: [{type: Deny, to: {cidrSelector: 203.0.113.0/24}}]}
";
const POLICY: &str = "\
apiVersion: network.openshift.io/v1
kind: EgressNetworkPolicy
metadata: {name: default, namespace: shop}
spec: {egress: [{type: Deny, to: {cidrSelector: 203.0.113.7/24}}]}
";

fn imported(texts: &[&str], options: &Options) -> Imported {
    let names = ["a.yaml", "b.yaml"];
    let sources: Vec<Source<'_>> = texts.iter().zip(names).map(|(text, name)| Source { name, text }).collect();
    import(&sources, options)
}

fn titles(imported: &Imported) -> Vec<String> {
    imported.objects.iter().map(Manifest::title).collect()
}

#[test]
fn lists_are_opened_also_those_whose_items_leave_out_what_they_are() {
    let item = "{metadata: {name: default, namespace: NS}, spec: {egress: [{type: Deny, to: {cidrSelector: '::/0'}}]}}";
    let items = format!("[{}, {}]", item.replace("NS", "a"), item.replace("NS", "b"));
    let list = format!("{{apiVersion: k8s.ovn.org/v1, kind: EgressFirewallList, items: {items}}}");
    let text = format!("apiVersion: v1\nkind: List\nitems:\n- {list}\n");
    let imported = imported(&[&text], &Options::default());
    assert_eq!(imported.report.problems, []);
    assert_eq!(titles(&imported), ["EgressNetworkPolicy a/default", "EgressNetworkPolicy b/default"]);
    let row = imported.report.rows.last().unwrap();
    assert_eq!((row.path.as_str(), row.line), ("items[0].items[1].spec.egress[0]", Some(4)));
}

#[test]
fn lists_in_lists_end_somewhere() {
    let text = (0..6).fold(FIREWALL.trim().replace('\n', "\n  "), |inner, _| {
        format!("apiVersion: v1\nkind: List\nitems:\n- {}", inner.replace('\n', "\n  "))
    });
    let imported = imported(&[&text], &Options::default());
    assert_eq!(imported.objects, []);
    assert_eq!(imported.report.problems.len(), 1, "{:?}", imported.report.problems);
}

#[test]
fn an_object_that_is_there_twice_counts_once_and_is_a_problem() {
    let imported = imported(&[FIREWALL, FIREWALL], &Options::default());
    assert_eq!(titles(&imported), ["EgressNetworkPolicy shop/default"]);
    let problem = &imported.report.problems[0];
    assert_eq!(problem.source, "b.yaml");
    assert!(problem.problem.message.contains("second time"));
}

#[test]
fn two_kinds_in_a_namespace_get_names_of_their_own_and_are_said_to_be_wider() {
    let mixed = imported(&[FIREWALL, POLICY], &Options::default());
    assert_eq!(titles(&mixed), ["EgressNetworkPolicy shop/default", "EgressNetworkPolicy shop/default-2"]);
    let row = mixed.report.rows.last().unwrap();
    assert_eq!((row.outcome, row.rule.as_str()), (Outcome::Wider, "rules of openshift and ovn"));
    let apart = POLICY.replace("shop", "web");
    assert_eq!(imported(&[FIREWALL, &apart], &Options::default()).report.outcome(), Outcome::Exact);
}

#[test]
fn only_the_kind_that_is_asked_for_is_read_and_the_others_are_named() {
    let options = Options { from: kind("ovn"), namespace: None };
    let imported = imported(&[POLICY, FIREWALL], &options);
    assert_eq!(titles(&imported), ["EgressNetworkPolicy shop/default"]);
    assert_eq!(imported.report.skipped[0].object, "EgressNetworkPolicy shop/default");
    assert_eq!(imported.report.skipped[0].source, "a.yaml");
}

#[test]
fn a_namespace_is_given_to_the_objects_that_name_none() {
    let options = Options { from: None, namespace: Some("web".to_owned()) };
    let nowhere = FIREWALL.replace(", namespace: shop", "");
    assert_eq!(titles(&imported(&[&nowhere], &options)), ["EgressNetworkPolicy web/default"]);
    assert_eq!(titles(&imported(&[FIREWALL], &options)), ["EgressNetworkPolicy shop/default"]);
    assert_eq!(titles(&imported(&[&nowhere], &Options::default())), ["EgressNetworkPolicy default"]);
}

#[test]
fn a_broken_document_does_not_touch_the_others_and_what_is_noticed_goes_to_its_rule() {
    let text = format!("kind: [\n---\n{POLICY}---\nnothing: known\n");
    let imported = imported(&[&text], &Options::default());
    assert_eq!(titles(&imported), ["EgressNetworkPolicy shop/default"]);
    assert_eq!(imported.report.problems.len(), 2);
    assert!(imported.report.rows[0].why[0].contains("host bits"), "{:?}", imported.report.rows);
    assert_eq!(imported.report.notes, []);
}

#[test]
fn every_kind_has_a_name_of_its_own_and_every_object_one_kind() {
    let names: BTreeSet<&str> = KINDS.iter().map(|kind| kind.name).collect();
    assert_eq!(names.len(), KINDS.len());
    let apis: Vec<(&str, &str)> = KINDS
        .iter()
        .flat_map(|kind| kind.apis)
        .flat_map(|api| api.versions.iter().map(|version| (*version, api.kind)))
        .collect();
    assert_eq!(apis.iter().collect::<BTreeSet<_>>().len(), apis.len());
    assert!(KINDS.iter().all(|kind| kind.apis.is_empty() == kind.list.is_some()));
}
