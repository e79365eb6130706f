//! What people are told of refusals: who, where, which rule; repeats counted, none lost silently (§7.3).

use egress_e2e::{DENIED, Evidence as _, Lab, OFFICE, PORT, RULES, at, ip, policy, reaches, world};
use egress_world::eventually;
use egress_world::packet::protocol;
use egress_world::probe;

#[test]
fn a_refusal_is_recorded_with_who_where_and_which_rule() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    for (remote, (_, denying)) in DENIED.into_iter().zip(RULES) {
        assert!(!reaches(pod, at(remote, PORT)));
        let told = lab.agent.denied(pod, ip(remote), protocol::TCP);
        assert_eq!(told.pod, "default/client");
        assert!(told.rule.contains(denying), "{told:?}");
        assert_eq!(told.port, PORT);
        assert_eq!(told.reason, "policy");
        assert_eq!(told.hook, if remote.contains(':') { "connect6" } else { "connect4" });
        assert_eq!(told.comm, "client", "the name of the calling thread");
    }
}

#[test]
fn many_refusals_are_few_records_and_a_true_count() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    let mut tries = 500;
    let refused = pod.run(|| {
        let results = (0..500).map(|_| probe::tcp(at("5.6.7.8", PORT), probe::SILENCE));
        results.filter(probe::Attempt::is_refused).count()
    });
    assert_eq!(refused, 500);
    assert!(lab.agent.records(pod).len() < 250, "{}", lab.agent.records(pod).len());
    // Repeats are told with the next record, when its second has begun.
    let told_all = eventually(|| {
        assert!(!reaches(pod, at("5.6.7.8", PORT)));
        tries += 1;
        lab.agent.records(pod).iter().any(|told| told.repeats > 0)
    });
    assert!(told_all, "{:?}", lab.agent.records(pod));
    let counted = |records: &[egress_e2e::Told]| records.iter().map(|told| 1 + told.repeats).sum::<u64>();
    let right = eventually(|| counted(&lab.agent.records(pod)) == tries);
    assert!(right, "{} told, {tries} tried", counted(&lab.agent.records(pod)));
    assert_eq!(lab.agent.stat("events_lost"), 0);
}
