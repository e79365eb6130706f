//! The flow log: its fields as documented, its rotation, and standard output in place of a file.

use std::collections::BTreeSet;

use egress_e2e::{ALLOWED, DENIED, Evidence as _, Lab, OFFICE, PORT, at, policy, reaches, world};
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

#[test]
fn the_first_packet_of_an_allowed_connection_is_told_if_asked_for_and_no_other() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut agent = Agent::new(&world);
    agent.write("policies.yaml", &policy(&OFFICE));
    agent.start();
    let pod = world.pod("client");
    let told = |agent: &Agent<'_>, remote: &str, transport: &str| {
        let of = |line: &Value| line["destination.address"] == remote && line["network.transport"] == transport;
        agent.events().iter().filter(|line| of(line)).map(|line| line["egress.outcome"].clone()).collect::<Vec<_>>()
    };
    assert!(reaches(pod, at(ALLOWED[0], PORT)) && !reaches(pod, at(DENIED[0], PORT)));
    assert!(eventually(|| told(&agent, DENIED[0], "tcp") == ["denied"]));
    assert_eq!(told(&agent, ALLOWED[0], "tcp"), [""; 0], "nobody asked for it");
    // The tables that are there are told, too.
    agent.kill();
    agent.argument(&["--flow-log-allowed"]);
    agent.start();
    for remote in ALLOWED {
        assert!(reaches(pod, at(remote, PORT)));
        pod.run(|| {
            let socket = std::net::UdpSocket::bind(if remote.contains(':') { "[::]:0" } else { "0.0.0.0:0" });
            let socket = socket.expect("a socket");
            for _ in 0..5 {
                socket.send_to(b"x", at(remote, PORT)).expect("sent");
            }
        });
        assert!(
            eventually(|| told(&agent, remote, "tcp") == ["allowed"] && told(&agent, remote, "udp") == ["allowed"])
        );
    }
    for remote in DENIED {
        assert!(!reaches(pod, at(remote, PORT)));
        assert!(eventually(|| told(&agent, remote, "tcp").last().is_some_and(|outcome| outcome == "denied")));
    }
    let first = agent.wait_for_event(|line| line["egress.outcome"] == "allowed");
    assert_eq!((&first["egress.reason"], &first["egress.rule.name"]), (&Value::Null, &OFFICE[0].into()), "{first}");
    for remote in ALLOWED {
        assert_eq!(told(&agent, remote, "udp"), ["allowed"], "five packets, one connection");
    }
}
