//! The flow log: its fields as documented, its rotation, and standard output in place of a file.

use std::collections::BTreeSet;

use egress_e2e::{DENIED, Evidence as _, Lab, OFFICE, PORT, at, policy, reaches, world};
use egress_world::{Agent, Pod, eventually, probe};
use serde_json::Value;

const SIZE: u64 = 4096;

#[test]
fn every_field_of_a_line_is_documented() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    for remote in DENIED {
        assert!(!reaches(pod, at(remote, PORT)));
    }
    assert!(eventually(|| lab.agent.records(pod).len() >= DENIED.len()));
    let page = include_str!("../../../../docs/flow-log.md");
    let fields: BTreeSet<String> =
        lab.agent.events().iter().flat_map(|line| line.as_object().expect("an object").keys().cloned()).collect();
    assert!(fields.len() > 15, "{fields:?}");
    for field in fields {
        assert!(page.contains(&format!("| `{field}` |")), "{field} is not in docs/flow-log.md");
    }
}

fn refuse(pod: &Pod, remote: &str, times: usize) {
    let refused = pod.run(|| {
        let tries = (0..times).map(|_| probe::tcp(at(remote, PORT), probe::SILENCE));
        tries.filter(probe::Attempt::is_refused).count()
    });
    assert_eq!(refused, times);
}

#[test]
fn a_full_file_is_put_aside_and_no_more_is_kept_than_asked_for() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut agent = Agent::new(&world);
    let path = agent.state("flows.jsonl");
    let path = path.to_str().expect("a path");
    agent.argument(&["--flow-log", path, "--flow-log-size", &SIZE.to_string(), "--flow-log-files", "2"]);
    agent.argument(&["--events-per-second", "1000000"]);
    agent.write("policies.yaml", &policy(&OFFICE));
    agent.start();
    let pod = world.pod("client");
    let rotated = eventually(|| {
        refuse(pod, DENIED[0], 20);
        agent.state("flows.jsonl.2").exists()
    });
    assert!(rotated, "{}", agent.log());
    refuse(pod, DENIED[1], 40);
    let whole = |name: &str| {
        let text = std::fs::read_to_string(agent.state(name)).unwrap_or_default();
        text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()) && text.len() as u64 <= SIZE
    };
    for name in ["flows.jsonl", "flows.jsonl.1", "flows.jsonl.2"] {
        assert!(eventually(|| whole(name)), "{name} has half a line, or is too large");
    }
    assert!(!agent.state("flows.jsonl.3").exists());
    assert!(!agent.state("events.jsonl").exists());
}

#[test]
fn standard_output_gets_the_same_lines() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut agent = Agent::new(&world);
    agent.argument(&["--flow-log", "-"]);
    agent.write("policies.yaml", &policy(&OFFICE));
    agent.start();
    assert!(!reaches(world.pod("client"), at(DENIED[0], PORT)));
    // The world lets both streams of the agent go to one file.
    let said = eventually(|| {
        let lines = agent.log().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect::<Vec<_>>();
        lines.iter().any(|line| line["egress.outcome"] == "denied" && line["destination.address"] == DENIED[0])
    });
    assert!(said, "{}", agent.log());
    assert!(!agent.state("events.jsonl").exists());
}
