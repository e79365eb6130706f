//! What does not fit is refused and said with its numbers (§6.7); what was enforced stays enforced.

use std::collections::BTreeMap;

use egress_e2e::{DENIED, Lab, OFFICE, PORT, at, document, policy, reaches, world};
use egress_world::{Endpoint, eventually};

/// Endpoints that the kernel's maps have room for.
const ENDPOINTS: usize = egress_common::abi::capacity::ENDPOINTS as usize;

#[test]
fn more_pods_than_fit_are_reported_and_those_that_fitted_stay_guarded() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    let refused = || DENIED.map(|remote| reaches(pod, at(remote, PORT))) == [false; 2];
    assert!(refused());
    let mut endpoints = vec![pod.endpoint()];
    endpoints.extend((0..ENDPOINTS + 10).map(|number| {
        let cgroup = world.cgroup().join(format!("crowd-{number}"));
        std::fs::create_dir(&cgroup).unwrap();
        Endpoint {
            namespace: "default".to_owned(),
            name: format!("crowd-{number}"),
            labels: BTreeMap::new(),
            service_account: None,
            netns: None,
            interface: None,
            cgroup: Some(cgroup),
        }
    }));
    lab.agent.change(|| lab.agent.write_endpoints(&endpoints));
    let problems = lab.agent.problems();
    assert!(problems.contains("default/crowd-") && problems.contains(&ENDPOINTS.to_string()), "{problems:.2000}");
    assert!(refused());
    lab.agent.change(|| lab.agent.write_endpoints(&[pod.endpoint()]));
    assert!(eventually(|| lab.agent.problems() == "[]"), "{}", lab.agent.problems());
    assert!(refused());
}

#[test]
fn rules_beyond_the_counters_are_enforced_and_counted_together() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    // More rules than there are counters; the last ones decide.
    let many: Vec<String> = (0..8000).map(|n| format!("Deny 100.{}.{}.0/24", 64 + n / 256, n % 256)).collect();
    let rules: Vec<&str> = many.iter().map(String::as_str).collect();
    let crowd: String = (0..9).map(|n| document(&format!("crowd-{n}"), &[], &rules)).collect();
    let lab = Lab::new(&world, &(policy(&OFFICE) + &crowd));
    let pod = world.pod("client");
    assert_eq!(DENIED.map(|remote| reaches(pod, at(remote, PORT))), [false; 2]);
    assert_eq!(lab.agent.problems(), "[]");
    assert!(reaches(pod, at("1.2.3.4", PORT)) && reaches(pod, at("2001:db8:1::4", PORT)));
}
