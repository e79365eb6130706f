//! A broken file changes nothing but itself (§6.3); a deleted one is gone at once (§6.4).

use egress_e2e::{CONFIG, Lab, OFFICE, at, document, policy, reaches, world};

const DENIED: [&str; 2] = egress_e2e::DENIED;

#[test]
fn a_broken_file_keeps_the_last_good_version_and_says_why() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    let refused = || DENIED.map(|remote| reaches(pod, at(remote, 443))) == [false; 2];
    assert!(refused());
    lab.agent.apply(&policy(&["Deny 5.6.7.0/33"]));
    assert!(refused());
    let problems = lab.agent.problems();
    assert!(problems.contains("spec.egress[0].to.cidrSelector"), "{problems}");
    assert!(problems.contains("policies.yaml"), "{problems}");

    lab.agent.kill();
    lab.agent.start();
    assert!(refused(), "the last good version outlives the agent");
    assert!(lab.agent.problems().contains("spec.egress[0].to.cidrSelector"), "{}", lab.agent.problems());

    lab.agent.apply(&policy(&["Deny 1.2.3.0/24"]));
    assert!(!refused());
    assert_eq!(lab.agent.problems(), "[]");
}

#[test]
fn a_file_that_is_no_yaml_keeps_the_last_good_version() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    for text in ["{", "", "spec: [", "\u{0}"] {
        lab.agent.apply(text);
        assert_eq!(DENIED.map(|remote| reaches(pod, at(remote, 443))), [false; 2], "{text:?}");
        assert_ne!(lab.agent.problems(), "[]", "{text:?}");
    }
}

#[test]
fn an_unknown_field_is_an_error_and_never_a_lost_narrowing() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = Lab::new(&world, CONFIG);
    let pod = world.pod("client");
    lab.agent.apply(&document("office", &["podSelectr: {matchLabels: {app: none}}"], &["Deny 0.0.0.0/0", "Deny ::/0"]));
    assert!(lab.agent.problems().contains("podSelectr"), "{}", lab.agent.problems());
    assert_eq!(DENIED.map(|remote| reaches(pod, at(remote, 443))), [true; 2]);
}

#[test]
fn one_bad_object_does_not_affect_another() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let broken = document("broken", &["priority: -1"], &["Allow 0.0.0.0/0", "Allow ::/0"]);
    let lab = Lab::new(&world, &(policy(&OFFICE) + &broken));
    assert_eq!(DENIED.map(|remote| reaches(world.pod("client"), at(remote, 443))), [false; 2]);
    assert!(lab.agent.problems().contains("default/broken"), "{}", lab.agent.problems());
}

#[test]
fn a_deleted_file_takes_its_policies_with_it_at_once() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = Lab::new(&world, CONFIG);
    let pod = world.pod("client");
    lab.agent.change(|| lab.agent.write("office.yaml", &document("office", &[], &OFFICE)));
    assert_eq!(DENIED.map(|remote| reaches(pod, at(remote, 443))), [false; 2]);
    lab.agent.change(|| lab.agent.remove("office.yaml"));
    assert_eq!(DENIED.map(|remote| reaches(pod, at(remote, 443))), [true; 2]);
    assert_eq!(lab.agent.problems(), "[]");
}
