//! Random policies and destinations: what connections meet, what `why` says of them, what `test` says, and what `test --kernel` says, with
//! the same rule each time.

use egress_e2e::{Lab, at, policy, reaches, reaches_udp, world};
use egress_reference::Random;
use egress_world::Agent;
use serde_json::{Value, json};

/// Networks that contain each other, and the destinations below.
const NETWORKS: [&str; 17] = [
    "0.0.0.0/0",
    "1.0.0.0/8",
    "1.2.3.0/24",
    "1.2.3.0/25",
    "1.2.3.4/32",
    "5.6.7.0/24",
    "5.6.7.8/31",
    "10.1.0.0/16",
    "10.1.2.0/23",
    "198.51.100.0/24",
    "::/0",
    "2001:db8::/32",
    "2001:db8:1::/48",
    "2001:db8:1::4/128",
    "2001:db8:2::/48",
    "2001:db8:2:8000::/49",
    "2001:db8:2::8/127",
];
const PORTS: [&str; 9] = ["", "", "", " TCP", " UDP", " TCP/443", " TCP/80-443 UDP/53", " UDP/8080-9000", " Any"];
const ADDRESSES: [&str; 10] = [
    "1.2.3.4",
    "1.2.3.200",
    "5.6.7.8",
    "5.6.7.200",
    "10.1.2.3",
    "198.51.100.7",
    "2001:db8:1::4",
    "2001:db8:1::99",
    "2001:db8:2::8",
    "2001:db8:2:8000::1",
];
/// Those that the outside serves.
const SERVED: [u16; 5] = [53, 80, 443, 8080, 9000];
const POLICIES: u64 = 5;
const PROBES: usize = 30;

fn rules(random: &mut Random) -> Vec<String> {
    let mut rule = || {
        let action = if random.chance(50) { "Allow" } else { "Deny" };
        format!("{action} {}{}", random.pick(&NETWORKS), random.pick(&PORTS))
    };
    // The same rule twice has the same name, which tells nothing apart.
    let mut rules: Vec<String> = Vec::new();
    while rules.len() < 12 {
        let next = rule();
        if !rules.contains(&next) {
            rules.push(next);
        }
    }
    rules
}

#[test]
fn why_and_test_say_what_real_connections_meet_under_random_policies() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let pod = world.pod("client");
    let lab = Lab::new(&world, &policy(&["Deny 9.9.9.9/32"]));
    let mut met = [0, 0];
    for seed in 0..POLICIES {
        let mut random = Random::new(seed);
        let rules = rules(&mut random);
        let text = policy(&rules.iter().map(String::as_str).collect::<Vec<_>>());
        lab.agent.apply(&text);
        let mut cases: Vec<Value> = Vec::new();
        for _ in 0..PROBES {
            let address = *random.pick(&ADDRESSES);
            let destination = at(address, *random.pick(&SERVED));
            let tcp = random.chance(60);
            let to = format!("{destination}/{}", if tcp { "TCP" } else { "UDP" });
            let passes = if tcp { reaches(pod, destination) } else { reaches_udp(pod, destination) };
            met[usize::from(passes)] += 1;
            let (code, why) = lab.agent.ask(&["why", "default/client", &to]);
            let expected = if passes { "allow" } else { "deny" };
            assert_eq!(
                (code, &why["verdict"]),
                (i32::from(!passes), &expected.into()),
                "seed {seed}, {to}: {rules:?}\n{why}"
            );
            assert_eq!(why["rules"].as_array().map(Vec::len), Some(1), "{why}");
            let rule = why["rules"][0]["origin"].clone();
            cases.push(json!({"from": "default/client", "to": to, "expect": if passes { "Allow" } else { "Deny" }, "rule": rule}));
        }
        let folder = world.files().join(format!("agreement-{seed}"));
        std::fs::create_dir_all(&folder).expect("a folder of the world");
        std::fs::write(folder.join("policies.yaml"), &text).expect("a file of the world");
        std::fs::write(folder.join("cases.json"), Value::from(cases).to_string()).expect("a file of the world");
        let mut command = world.node().command(Agent::binary());
        command.args(["test", "policies.yaml", "--cases", "cases.json", "--kernel"]).current_dir(&folder);
        let output = command.output().expect("running the agent");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "seed {seed}: {rules:?}\n{said}");
        let kernel = format!("the kernel's programs judged {PROBES} packets, each as the table says");
        assert!(said.contains(&kernel), "{said}");
    }
    assert!(met.iter().all(|count| *count > 20), "denied and allowed: {met:?}");
}
