//! What a node says of itself: the `EgressNodeState` out of the policies and the last round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use egress_policy::document::{self, Object};
use egress_policy::model::PolicySet;
use egress_policy::status::{NoteReason, ReportedKind};

use crate::kube::Version;
use crate::report::compose::{InForce, Parts, Selected};
use crate::sources::Problem;

const TEXT: &str = "
apiVersion: egress.rs/v1alpha1
kind: EgressNetworkPolicy
metadata: {name: web, namespace: shop}
spec: {egress: [{type: Allow, to: {dnsName: api.example.com}}, {type: Deny, to: {cidrSelector: 10.0.0.1/8}}]}
---
apiVersion: egress.rs/v1alpha1
kind: ClusterEgressPolicy
metadata: {name: base}
spec: {tier: Baseline, egress: []}
";

fn set() -> PolicySet {
    let mut set = PolicySet::default();
    for object in document::read(TEXT).objects {
        if let Object::Policy(policy) = object {
            set.insert(policy);
        }
    }
    set
}

fn versions(web: i64) -> BTreeMap<String, Version> {
    let version = |generation, uid: &str| Version { generation, uid: uid.to_owned() };
    BTreeMap::from([
        ("EgressNetworkPolicy shop/web".to_owned(), version(web, "w")),
        ("ClusterEgressPolicy base".to_owned(), version(1, "b")),
        ("EgressConfig default".to_owned(), version(4, "c")),
    ])
}

#[test]
fn problems_and_pods_go_to_the_policies_that_they_are_about() {
    let set = set();
    let web = set.policies.values().find(|policy| policy.key.name == "web").unwrap();
    let selected = Selected::from([(Arc::clone(&web.key), BTreeSet::from(["shop/a".to_owned(), "shop/b".to_owned()]))]);
    let problems = [
        Problem::new("dns", "SERVFAIL").of("api.example.com"),
        Problem::new("dns", "SERVFAIL").of("other.example.com"),
        Problem::new("policies", "too many").of("shop/b"),
        Problem::new("kernel", "no room").of("other/x"),
    ];
    let mut in_force = InForce::default();
    in_force.follow(&versions(3), &problems);
    let parts = Parts {
        in_force: &in_force,
        set: &set,
        selected: &selected,
        pending: &BTreeSet::from(["shop/b".to_owned()]),
        covered: 2,
        warnings: &web.warnings.iter().cloned().collect(),
        name_warnings: &BTreeSet::from(["EgressNetworkPolicy shop/web: shared".to_owned(), "other".to_owned()]),
        problems: &problems,
        namespaces: &BTreeSet::from(["shop".to_owned()]),
        nodes: 5,
    };
    let round = parts.round();
    assert_eq!((round.pods.covered, round.pods.enforced, round.nodes), (2, 1, 5));
    assert_eq!(round.config.as_ref().map(|config| (config.uid.as_str(), config.generation)), Some(("c", 4)));
    let of = |kind| round.policies.iter().find(|policy| policy.kind == kind).unwrap();
    let web = of(ReportedKind::EgressNetworkPolicy);
    assert_eq!((web.uid.as_str(), web.generation, web.pods, web.enforced), ("w", 3, 2, 1));
    let said: Vec<(NoteReason, &str)> = web.notes.iter().map(|note| (note.reason, note.message.as_str())).collect();
    assert_eq!(said[0], (NoteReason::NameFails, "api.example.com: SERVFAIL"));
    assert_eq!(said[1], (NoteReason::Capacity, "shop/b: too many"));
    assert!(said[2].1.contains("host bits"), "{said:?}");
    assert_eq!((said[3], said.len()), ((NoteReason::Warning, "shared"), 4));
    assert_eq!((of(ReportedKind::ClusterEgressPolicy).pods, round.policies.len()), (0, 2));
    let left: Vec<&str> = round.problems.iter().map(|note| note.message.as_str()).collect();
    assert_eq!(left, ["other.example.com: SERVFAIL", "other/x: no room"]);
}

#[test]
fn a_refused_version_leaves_the_one_before_in_force() {
    let mut in_force = InForce::default();
    let problem = Problem::new("x", "is wrong").of("EgressNetworkPolicy shop/web").at(1, "spec.egress");
    let round = |in_force: &InForce, problems: &[Problem], namespace: &str| {
        let parts = Parts {
            in_force,
            set: &set(),
            selected: &Selected::new(),
            pending: &BTreeSet::new(),
            covered: 0,
            warnings: &BTreeSet::new(),
            name_warnings: &BTreeSet::new(),
            problems,
            namespaces: &BTreeSet::from([namespace.to_owned()]),
            nodes: 1,
        };
        let round = parts.round();
        let web = round.policies.into_iter().find(|policy| policy.name == "web").unwrap();
        (web.generation, web.notes.into_iter().map(|note| note.message).collect::<Vec<_>>())
    };
    in_force.follow(&versions(1), std::slice::from_ref(&problem));
    assert_eq!(round(&in_force, std::slice::from_ref(&problem), "shop"), (0, vec!["spec.egress: is wrong".to_owned()]));
    // A node without pods in the namespace has nothing to say about it.
    assert_eq!(round(&in_force, std::slice::from_ref(&problem), "other"), (0, Vec::new()));
    in_force.follow(&versions(2), &[]);
    in_force.follow(&versions(3), std::slice::from_ref(&problem));
    assert_eq!(round(&in_force, &[problem], "shop").0, 2);
    in_force.follow(&versions(4), &[]);
    assert_eq!(round(&in_force, &[], "shop"), (4, Vec::new()));
}
