//! What does not fit is refused and said with its numbers (§6.7); what was enforced stays enforced.

use egress_e2e::{ALLOWED, DENIED, Evidence as _, Lab, OFFICE, PORT, at, document, policy, reaches, world};
use egress_world::{Agent, Pod, World, eventually};

/// An agent whose maps are this small.
fn lab<'a>(world: &'a World, sizes: &[&str], policies: &str) -> Lab<'a> {
    let mut agent = Agent::new(world);
    agent.argument(sizes);
    agent.write("policies.yaml", policies);
    agent.start();
    Lab::with_agent(world, agent)
}

fn verdicts(pod: &Pod) -> [bool; 4] {
    [ALLOWED[0], ALLOWED[1], DENIED[0], DENIED[1]].map(|remote| reaches(pod, at(remote, PORT)))
}

const OFFICE_VERDICTS: [bool; 4] = [true, true, false, false];

#[test]
fn more_pods_than_fit_are_reported_and_those_that_fit_are_guarded() {
    let Some(world) = world(&["default/one", "default/two", "default/three"]) else { return };
    let endpoints = |count: usize| world.pods()[..count].iter().map(Pod::endpoint).collect::<Vec<_>>();
    let mut agent = Agent::new(&world);
    agent.argument(&["--max-endpoints", "2"]);
    agent.write("policies.yaml", &policy(&OFFICE));
    agent.write_endpoints(&endpoints(2));
    agent.start();
    let lab = Lab::with_agent(&world, agent);
    assert_eq!(lab.agent.problems(), "[]");
    lab.agent.change(|| lab.agent.write_endpoints(&endpoints(3)));
    let problems = lab.agent.problems();
    assert!(problems.contains("default/three") && problems.contains('2'), "{problems}");
    assert_eq!(["one", "two"].map(|pod| verdicts(world.pod(pod))), [OFFICE_VERDICTS; 2]);
    // Room comes back when a pod goes.
    let others = [world.pod("one").endpoint(), world.pod("three").endpoint()];
    lab.agent.change(|| lab.agent.write_endpoints(&others));
    assert!(eventually(|| verdicts(world.pod("three")) == OFFICE_VERDICTS), "{}", lab.agent.problems());
    assert!(eventually(|| lab.agent.problems() == "[]"), "{}", lab.agent.problems());
    assert_eq!(verdicts(world.pod("one")), OFFICE_VERDICTS);
}

#[test]
fn a_table_without_a_slot_is_reported_and_the_former_one_stays() {
    let Some(world) = world(&["default/client", "default/other"]) else { return };
    // One slot is in use; the second pod's table would need another.
    let lab = lab(&world, &["--max-tables", "1"], &policy(&OFFICE));
    let special =
        document("special", &["podSelector: {matchLabels: {app: other}}"], &["Allow 0.0.0.0/0", "Allow ::/0"]);
    let special = special.replace("spec:\n", "spec:\n  priority: 1\n");
    lab.agent.apply(&(policy(&OFFICE) + &special));
    assert_ne!(lab.agent.problems(), "[]");
    assert_eq!(["client", "other"].map(|pod| verdicts(world.pod(pod))), [OFFICE_VERDICTS; 2]);
    lab.agent.apply(&policy(&OFFICE));
    assert_eq!(lab.agent.problems(), "[]");
    assert_eq!(["client", "other"].map(|pod| verdicts(world.pod(pod))), [OFFICE_VERDICTS; 2]);
}

#[test]
fn rules_beyond_the_counters_are_enforced_all_the_same() {
    let Some(world) = world(&["default/client"]) else { return };
    let many: Vec<String> = (0..200).map(|n| format!("Deny 100.64.{n}.0/24")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let crowd = document("crowd", &[], &many);
    let lab = lab(&world, &["--max-rule-counters", "64"], &(policy(&OFFICE) + &crowd));
    assert_eq!(verdicts(world.pod("client")), OFFICE_VERDICTS);
    let tables = lab.agent.dump("tables");
    assert_eq!(tables["tables"][0]["sharedCounters"], true, "{tables}");
    assert!(lab.agent.denied(world.pod("client"), egress_e2e::ip(DENIED[0]), 6).rule.contains("Deny 0.0.0.0/0"));
}

#[test]
fn a_policy_of_eight_thousand_rules_is_enforced_to_the_last_one() {
    let Some(world) = world(&["default/client"]) else { return };
    let mut rules: Vec<String> = (0..7998).map(|n| format!("Deny 100.{}.{}.0/24", 64 + n / 256, n % 256)).collect();
    rules.extend(["Deny 5.6.7.8/32".to_owned(), "Deny 2001:db8:2::8/128".to_owned()]);
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let lab = Lab::new(&world, &policy(&rules));
    assert_eq!(lab.agent.problems(), "[]");
    assert_eq!(verdicts(world.pod("client")), OFFICE_VERDICTS);
    assert!(reaches(world.pod("client"), at("5.6.7.9", PORT)));
    assert!(lab.agent.denied(world.pod("client"), egress_e2e::ip(DENIED[0]), 6).rule.contains("rule 7999"));
}

#[test]
fn more_served_clients_than_remembered_flows_lose_only_the_oldest() {
    let Some(world) = world(&["default/server"]) else { return };
    let lab = lab(&world, &["--max-flows", "64"], &policy(&["Deny 0.0.0.0/0", "Deny ::/0"]));
    let pod = world.pod("server");
    pod.serve(8000);
    for client in ALLOWED {
        let to = std::net::SocketAddr::new(pod.address_like(egress_e2e::ip(client)), 8000);
        for _ in 0..300 {
            world.outside().tcp(egress_e2e::ip(client), to).unwrap();
        }
        assert!(!reaches(pod, at(client, PORT)));
    }
    assert_eq!(lab.agent.stat("flows_failed"), 0);
}
