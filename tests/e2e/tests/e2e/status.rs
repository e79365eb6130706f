//! `egress-agent status`: of a running agent over its socket, of a dead one from the pins.

use std::os::unix::fs::PermissionsExt as _;

use egress_e2e::{DENIED, Lab, OFFICE, PORT, at, policy, reaches, world};
use egress_world::eventually;
use serde_json::{Value, json};

fn map<'v>(status: &'v Value, name: &str) -> &'v Value {
    status["maps"].as_array().expect("maps").iter().find(|row| row["map"] == name).expect("the map")
}

fn places(status: &Value, hook: &str) -> u64 {
    let hooks = status["hooks"].as_array().expect("hooks");
    hooks.iter().find(|row| row["hook"] == hook).and_then(|row| row["places"].as_u64()).expect("the hook")
}

#[test]
fn a_running_agent_says_that_all_is_well_and_what_is_in_the_kernel() {
    let Some(world) = world(&["default/client", "other/free"]) else {
        return;
    };
    let lab = Lab::new(&world, &policy(&OFFICE));
    let socket = lab.agent.state("agent.sock");
    assert_eq!(socket.metadata().expect("the socket").permissions().mode() & 0o777, 0o600);
    let (code, status) = lab.agent.ask(&["status"]);
    assert_eq!((code, &status["version"]), (0, &json!(1)), "{status}");
    assert_eq!((&status["agent"]["running"], &status["agent"]["error"]), (&json!(true), &Value::Null));
    assert_eq!(status["pods"], json!({"listed": 2, "covered": 1, "enforced": 1, "pending": []}));
    assert_eq!(status["policies"], json!({"inForce": 1, "kept": 0, "tables": 1, "enforcement": "Enforce"}));
    for (hook, expected) in [("connect4", 1), ("sendmsg6", 1), ("tc_from_pod", 1), ("tc_to_pod", 1), ("cg_egress", 0)] {
        assert_eq!(places(&status, hook), expected, "{hook}");
    }
    assert_eq!((&map(&status, "endpoints")["entries"], &map(&status, "table_info")["entries"]), (&json!(1), &json!(1)));
    let prefixes = lab.agent.dump("tables")["tables"][0]["prefixes"].as_array().expect("prefixes").len();
    assert_eq!(map(&status, "table_prefixes")["entries"], json!(prefixes));
    assert_eq!(status["problems"], json!([]));
}

#[test]
fn problems_and_pods_that_wait_for_their_rules_are_a_no() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = Lab::new(&world, &policy(&OFFICE));
    let mut absent = world.pod("client").endpoint();
    (absent.name, absent.interface) = ("ghost".to_owned(), Some("nowhere0".to_owned()));
    (absent.netns, absent.cgroup) = (None, None);
    lab.agent.change(|| lab.agent.write_endpoints(&[world.pod("client").endpoint(), absent]));
    let (code, status) = lab.agent.ask(&["status"]);
    assert_eq!((code, &status["pods"]["pending"]), (1, &json!(["default/ghost"])), "{status}");
    lab.agent.change(|| lab.agent.write_endpoints(&[world.pod("client").endpoint()]));
    assert_eq!(lab.agent.ask(&["status"]).0, 0);
    lab.agent.apply(&policy(&["Allow nonsense"]));
    let (code, status) = lab.agent.ask(&["status"]);
    assert_eq!((code, &status["problems"][0]["path"]), (1, &json!("spec.egress[0].to.cidrSelector")), "{status}");
    assert_eq!(status["policies"]["kept"], 1);
}

#[test]
fn of_a_dead_agent_the_pins_are_told_and_that_it_is_dead() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    let (_, alive) = lab.agent.ask(&["status"]);
    lab.agent.kill();
    assert!(lab.agent.state("agent.sock").exists(), "nobody could remove it");
    let (code, status) = lab.agent.ask(&["status"]);
    assert_eq!((code, &status["agent"]["running"]), (1, &json!(false)), "{status}");
    for part in ["hooks", "pods", "policies", "problems", "kernel"] {
        assert_eq!(status[part], alive[part], "{part}");
    }
    assert!(!reaches(world.pod("client"), at(DENIED[0], PORT)));
    lab.agent.start();
    assert!(eventually(|| lab.agent.ask(&["status"]).0 == 0), "the socket of the dead one is replaced");
    assert!(lab.agent.terminate().success());
    assert!(!lab.agent.state("agent.sock").exists());
}
