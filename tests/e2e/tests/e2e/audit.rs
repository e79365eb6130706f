//! Audit policies decide nothing and are recorded (§2.5).

use egress_e2e::{
    ALLOWED, DENIED, Evidence as _, Lab, OFFICE, PORT, RULES, Told, at, config, document, ip, policy, reaches, world,
};
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
fn under_cluster_wide_audit_nothing_is_refused_and_every_view_says_what_would_be() {
    let Some(world) = world(&["default/client", "other/free"]) else {
        return;
    };
    let rules = document("office", &[], &OFFICE);
    let lab = Lab::new(&world, &(config(&["enforcement: Audit", "defaultAction: Deny"]) + &rules));
    let (client, free) = (world.pod("client"), world.pod("free"));
    for (remote, (_, denying)) in DENIED.into_iter().zip(RULES) {
        assert!(reaches(client, at(remote, PORT)) && reaches(free, at(remote, PORT)));
        let told = lab.agent.told(client, ip(remote), protocol::TCP);
        assert_eq!((told.outcome.as_str(), told.rule.contains(denying)), ("would-deny", true), "{told:?}");
        let told = lab.agent.told(free, ip(remote), protocol::TCP);
        assert_eq!(told.outcome, "would-deny");
        assert!(told.rule.contains("default action"), "{told:?}");
        assert!(lab.agent.charged(denying) > 0);
        let (code, why) = lab.agent.ask(&["why", "default/client", &at(remote, PORT).to_string()]);
        assert_eq!((code, &why["verdict"], &why["rules"][0]["audit"]["verdict"]), (0, &"allow".into(), &"deny".into()));
    }
    assert!(lab.agent.records(client).iter().all(|told| told.outcome == "would-deny"));
    let (code, status) = lab.agent.ask(&["status"]);
    assert_eq!((code, &status["policies"]["enforcement"]), (0, &"Audit".into()));
    // One word turns the same objects into force, also for open connections and for the pod without a policy.
    lab.agent.apply(&(config(&["defaultAction: Deny"]) + &rules));
    for remote in DENIED {
        assert!(!reaches(client, at(remote, PORT)) && !reaches(free, at(remote, PORT)));
    }
    for remote in ALLOWED {
        assert!(reaches(client, at(remote, PORT)) && !reaches(free, at(remote, PORT)));
    }
    assert_eq!(lab.agent.ask(&["status"]).1["policies"]["enforcement"], "Enforce");
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
