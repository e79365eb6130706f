//! Whom a policy concerns: namespaces, selectors, settings that hold for all (§1, §2).

use egress_e2e::{Lab, OFFICE, at, config, document, policy, reaches, world};

#[test]
fn a_policy_holds_in_its_own_namespace_only() {
    let Some(world) = world(&["default/client", "other/stranger"]) else {
        return;
    };
    let _lab = Lab::new(&world, &policy(&OFFICE));
    for remote in ["5.6.7.8", "2001:db8:2::8"] {
        assert!(!reaches(world.pod("client"), at(remote, 443)));
        assert!(reaches(world.pod("stranger"), at(remote, 443)));
    }
}

#[test]
fn a_pod_selector_chooses_pods_by_their_labels() {
    let Some(world) = world(&["default/client", "default/other"]) else {
        return;
    };
    let text = document("office", &["podSelector: {matchLabels: {app: client}}"], &["Deny 0.0.0.0/0", "Deny ::/0"]);
    let _lab = Lab::new(&world, &text);
    for remote in ["5.6.7.8", "2001:db8:2::8"] {
        assert!(!reaches(world.pod("client"), at(remote, 443)));
        assert!(reaches(world.pod("other"), at(remote, 443)));
    }
}

#[test]
fn pods_with_equal_rules_share_one_table() {
    let Some(world) = world(&["default/client", "default/other", "prod/web"]) else { return };
    let lab = Lab::new(&world, &policy(&OFFICE));
    let endpoints = lab.agent.dump("endpoints");
    let tables = endpoints["endpoints"].as_array().unwrap().iter().map(|endpoint| &endpoint["table"]["generation"]);
    let tables: Vec<_> = tables.collect();
    // The third pod has no policy, and so no table.
    assert_eq!(tables.len(), 2, "{endpoints}");
    assert_eq!(tables[0], tables[1], "{endpoints}");
    for remote in ["5.6.7.8", "2001:db8:2::8"] {
        assert_eq!(
            ["client", "other", "web"].map(|pod| reaches(world.pod(pod), at(remote, 443))),
            [false, false, true]
        );
    }
}

#[test]
fn excluded_cidrs_take_effect_on_running_pods() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    let remotes = [at("5.6.7.8", 443), at("2001:db8:2::8", 443)];
    assert_eq!(remotes.map(|to| reaches(pod, to)), [false; 2]);
    let office = document("office", &[], &OFFICE);
    lab.agent.apply(&(config(&["excludedCIDRs: [5.6.7.8/32, '2001:db8:2::8/128']"]) + &office));
    assert_eq!(remotes.map(|to| reaches(pod, to)), [true; 2]);
    assert!(!reaches(pod, at("5.6.7.9", 443)) && !reaches(pod, at("2001:db8:2::9", 443)));
    lab.agent.apply(&policy(&OFFICE));
    assert_eq!(remotes.map(|to| reaches(pod, to)), [false; 2]);
}

#[test]
fn two_agents_in_two_worlds_do_not_meddle_with_each_other() {
    let (Some(one), Some(other)) = (world(&["default/client"]), world(&["default/client"])) else {
        return;
    };
    let reverse = ["Deny 1.2.3.0/24", "Deny 2001:db8:1::/48"];
    let _first = Lab::new(&one, &policy(&OFFICE));
    let second = Lab::new(&other, &policy(&reverse));
    let verdicts = |world: &egress_world::World| {
        ["1.2.3.4", "2001:db8:1::4", "5.6.7.8", "2001:db8:2::8"]
            .map(|remote| reaches(world.pod("client"), at(remote, 443)))
    };
    assert_eq!(verdicts(&one), [true, true, false, false]);
    assert_eq!(verdicts(&other), [false, false, true, true]);
    assert!(second.agent.cleanup().status.success() || second.agent.status().is_some());
    assert_eq!(verdicts(&one), [true, true, false, false]);
}
