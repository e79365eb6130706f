//! How files are read: a broken one changes nothing but itself (§6.3); a deleted one is gone at once (§6.4).

use std::io::Write as _;
use std::time::{Duration, Instant};

use egress_e2e::{CONFIG, Lab, OFFICE, at, document, policy, reaches, world};
use egress_world::Agent;

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

/// The layout of a mounted `ConfigMap`: names that lead through one symbolic link, which is what changes.
#[test]
fn a_mounted_config_map_is_followed_when_its_link_is_swapped() {
    let Some(world) = world(&["default/client"]) else { return };
    let mut agent = Agent::new(&world);
    let folder = agent.policies();
    let publish = |version: &str, text: &str| {
        std::fs::create_dir(folder.join(version)).unwrap();
        std::fs::write(folder.join(version).join("office.yaml"), text).unwrap();
        std::os::unix::fs::symlink(version, folder.join("..data_tmp")).unwrap();
        std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    publish("..one", &policy(&OFFICE));
    std::os::unix::fs::symlink("..data/office.yaml", folder.join("office.yaml")).unwrap();
    agent.start();
    let verdicts =
        || ["1.2.3.4", "2001:db8:1::4", "5.6.7.8", "2001:db8:2::8"].map(|to| reaches(world.pod("client"), at(to, 443)));
    assert_eq!(verdicts(), [true, true, false, false]);
    agent.change(|| publish("..two", &policy(&["Deny 1.2.3.0/24", "Deny 2001:db8:1::/48"])));
    assert_eq!(verdicts(), [false, false, true, true]);
}

#[test]
fn a_file_that_is_still_being_written_is_not_taken_for_a_whole_one() {
    let Some(world) = world(&["default/client"]) else { return };
    let lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    let refused = || DENIED.map(|remote| reaches(pod, at(remote, 443))) == [false; 2];
    let text = policy(&["Allow 5.6.7.0/24", "Allow 2001:db8:2::/48", "Deny 0.0.0.0/0", "Deny ::/0"]);
    // The first part is a whole policy as well, one that would refuse nothing.
    let (first, rest) = text.split_at(text.find("  - {name: 'Deny").unwrap());
    lab.agent.change(|| {
        let mut file = std::fs::File::create(lab.agent.policies().join("policies.yaml")).unwrap();
        file.write_all(first.as_bytes()).unwrap();
        let unfinished = Instant::now();
        while unfinished.elapsed() < Duration::from_millis(400) {
            assert!(refused(), "half a file was applied");
        }
        file.write_all(rest.as_bytes()).unwrap();
    });
    assert!(!refused());
    assert_eq!(["5.6.9.9", "2001:db8:3::9"].map(|remote| reaches(pod, at(remote, 443))), [false; 2]);
}
