//! Audit policies decide nothing and are recorded (§2.5).

use egress_e2e::{DENIED, Evidence as _, Lab, PORT, Told, at, document, ip, policy, reaches, world};
use egress_world::eventually;
use egress_world::packet::protocol;

#[test]
fn a_policy_under_audit_passes_what_it_would_deny_and_says_so() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = Lab::new(&world, &document("trial", &["mode: Audit"], &["Deny 0.0.0.0/0", "Deny ::/0"]));
    let pod = world.pod("client");
    for (remote, rule) in DENIED.into_iter().zip(["Deny 0.0.0.0/0", "Deny ::/0"]) {
        assert!(reaches(pod, at(remote, PORT)));
        let told = lab.agent.told(pod, ip(remote), protocol::TCP);
        assert_eq!(told.outcome, "would-deny", "{told:?}");
        assert!(told.rule.contains(rule), "{told:?}");
    }
}

#[test]
fn a_policy_under_audit_does_not_open_what_another_denies_and_says_so() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let trial = document("a-trial", &["mode: Audit"], &["Allow 5.6.7.0/24", "Allow 2001:db8:2::/48"]);
    let lab = Lab::new(&world, &(policy(&["Deny 0.0.0.0/0", "Deny ::/0"]) + &trial));
    let pod = world.pod("client");
    for remote in DENIED {
        assert!(!reaches(pod, at(remote, PORT)));
        lab.agent.denied(pod, ip(remote), protocol::TCP);
        let says_so = |told: &Told| told.outcome == "would-allow" && told.remote == remote;
        assert!(eventually(|| lab.agent.records(pod).iter().any(says_so)), "{:?}", lab.agent.records(pod));
    }
}
