//! `egress-agent suggest`: what was seen under Audit becomes a policy under which the same traffic passes and nothing else.

use egress_e2e::{DENIED, Lab, PORT, at, config, document, reaches, world};
use egress_world::eventually;
use serde_json::Value;

/// The rules of the policy that is suggested for namespace `default`.
fn rules(lab: &Lab<'_>, arguments: &[&str]) -> (i32, Vec<Value>) {
    let mut command = lab.agent.command(&["suggest", "--namespace", "default", "-o", "json"]);
    let output = command.args(arguments).output().expect("running the agent");
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let rules = answer["policy"]["spec"]["egress"].as_array().expect("rules").clone();
    (output.status.code().expect("an exit code"), rules)
}

#[test]
fn the_suggested_policy_allows_what_was_seen_and_nothing_else_also_after_a_kill() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let trial = config(&["enforcement: Audit"]) + &document("trial", &[], &["Deny 0.0.0.0/0", "Deny ::/0"]);
    let mut lab = Lab::new(&world, &trial);
    let pod = world.pod("client");
    assert_eq!(rules(&lab, &[]), (1, Vec::new()), "nothing was seen yet");
    for remote in DENIED {
        assert!(reaches(pod, at(remote, PORT)));
    }
    assert!(eventually(|| rules(&lab, &["--since", "1h"]).1.len() == DENIED.len()));
    assert!(eventually(|| lab.agent.state("observed.json").exists()), "it is stored now and then");
    lab.agent.kill();
    let (code, stored) = rules(&lab, &["--since", "1h", "--deny-rest"]);
    assert_eq!((code, stored.len()), (0, DENIED.len() + 2), "{stored:?}");
    lab.agent.start();
    let text =
        lab.agent.command(&["suggest", "--namespace", "default", "--deny-rest"]).output().expect("running the agent");
    let suggested = String::from_utf8(text.stdout).expect("text");
    assert!(suggested.contains("times by client, last") || suggested.contains("once by client, last"), "{suggested}");
    // In place of the trial, in force.
    lab.agent.apply(&(config(&[]) + "---\n" + &suggested));
    assert_eq!(lab.agent.problems(), "[]");
    for remote in DENIED {
        assert!(reaches(pod, at(remote, PORT)), "{remote} was seen\n{suggested}");
    }
    for other in ["5.6.7.9", "2001:db8:2::9", "1.2.3.4", "2001:db8:1::4"] {
        assert!(!reaches(pod, at(other, PORT)), "{other} was not seen\n{suggested}");
    }
}
