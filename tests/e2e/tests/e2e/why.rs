//! `egress-agent why` says what connections really meet, also while the agent is dead.

use std::net::IpAddr;

use egress_e2e::{
    Lab, at, held, insist_reached_by_name, ip, names_policy, names_world, policy, reaches, reaches_udp,
    wait_until_held, world,
};
use egress_world::resolver::Dnsmasq;
use egress_world::{Agent, Pod, eventually};
use serde_json::Value;

const RULES: [&str; 6] = [
    "Deny 1.2.3.128/25",
    "Allow 1.2.3.0/24 TCP/443 UDP/8000-9000",
    "Deny 2001:db8:1:8000::/49",
    "Allow 2001:db8:1::/48 TCP/443 UDP/8000-9000",
    "Deny 0.0.0.0/0",
    "Deny ::/0",
];

/// The exit code and the answer of `why POD DESTINATION -o json`.
fn why(lab: &Lab<'_>, pod: &str, to: &str) -> (i32, Value) {
    let mut command = lab.world.node().command(Agent::binary());
    command.args(["why", pod, to, "-o", "json", "--bpffs"]).arg(lab.world.bpffs());
    command.arg("--state-dir").arg(lab.world.files().join("state"));
    let output = command.output().expect("running the agent");
    let errors = String::from_utf8_lossy(&output.stderr);
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{to}: {error}: {errors}"));
    (output.status.code().expect("an exit code"), answer)
}

/// Connects, and insists that `why` says the same and that its rule counted the attempt.
fn insist_agreement(lab: &Lab<'_>, pod: &Pod, address: &str, port: u16, protocol: &str) -> bool {
    let destination = at(address, port);
    let question = format!("{destination}/{protocol}");
    let (_, before) = why(lab, &pod.full_name(), &question);
    let passes = if protocol == "TCP" { reaches(pod, destination) } else { reaches_udp(pod, destination) };
    let (code, after) = why(lab, &pod.full_name(), &question);
    assert_eq!(after["verdict"], if passes { "allow" } else { "deny" }, "{question}: {after}");
    assert_eq!(code, i32::from(!passes), "{question}");
    let packets = |answer: &Value| answer["rules"][0]["packets"].as_u64().expect("a counter");
    assert!(packets(&after) > packets(&before), "{question}: {} has not counted", after["rules"][0]);
    passes
}

#[test]
fn why_says_what_connections_meet_and_by_which_rule() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = Lab::new(&world, &policy(&RULES));
    let pod = world.pod("client");
    let mut passed = 0;
    let mut asked = 0;
    for address in ["1.2.3.4", "1.2.3.200", "5.6.7.8", "2001:db8:1::4", "2001:db8:1:8000::4", "2001:db8:2::8"] {
        for (port, protocol) in [(443, "TCP"), (80, "TCP"), (8080, "UDP"), (443, "UDP")] {
            passed += usize::from(insist_agreement(&lab, pod, address, port, protocol));
            asked += 1;
        }
    }
    assert_eq!((passed, asked), (4, 24));
    let (_, answer) = why(&lab, "default/client", "[2001:db8:1::4]:443");
    assert_eq!(answer["rules"][0]["origin"], "rule 4 of default/office");
    assert_eq!(answer["rules"][0]["text"], "Allow 2001:db8:1::/48 TCP/443,UDP/8000-9000");
    let (code, answer) = why(&lab, "default/client", "1.2.3.4");
    assert_eq!((code, &answer["verdict"]), (1, &"depends".into()));
    let said: Vec<String> = answer["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| format!("{} {}", rule["verdict"], rule["ports"]))
        .collect();
    assert_eq!(said, ["\"deny\" \"TCP/0-442\"", "\"allow\" \"TCP/443\"", "\"deny\" \"TCP/444-65535\""]);
}

#[test]
fn why_names_exactly_the_prefixes_of_the_table_that_contain_the_destination() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = Lab::new(&world, &policy(&RULES));
    let dump = lab.agent.dump("tables");
    let tables = dump["tables"].as_array().expect("tables");
    for address in
        ["1.2.3.4", "1.2.3.200", "10.244.0.1", "8.8.8.8", "2001:db8:1::4", "2001:db8:1:8000::4", "::1", "fe80::1"]
    {
        let (_, answer) = why(&lab, "default/client", address);
        let told: Vec<&str> =
            answer["prefixes"].as_array().unwrap().iter().map(|prefix| prefix["prefix"].as_str().unwrap()).collect();
        let table = tables.iter().find(|table| table["table"]["slot"] == answer["table"]["slot"]).expect("the table");
        let prefixes = table["prefixes"].as_array().unwrap().iter().map(|prefix| prefix["prefix"].as_str().unwrap());
        let mut expected: Vec<&str> = prefixes.filter(|prefix| contains(prefix, ip(address))).collect();
        expected.sort_by_key(|prefix| std::cmp::Reverse(length(prefix)));
        assert_eq!(told, expected, "{address}");
    }
}

#[test]
fn why_answers_for_a_dead_agent_and_says_so_and_when_files_say_something_else() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&RULES));
    let pod = world.pod("client");
    assert_eq!(why(&lab, "default/client", "1.2.3.4:443").1["agent"]["running"], true);
    assert_eq!(why(&lab, "default/client", "1.2.3.4:443").1["differs"], serde_json::json!([]));
    lab.agent.apply(&policy(&["Allow non/sense"]));
    let (code, answer) = why(&lab, "default/client", "5.6.7.8:443");
    assert_eq!((code, &answer["differs"][0]["path"]), (1, &"spec.egress[0].to.cidrSelector".into()));
    lab.agent.kill();
    assert_eq!(why(&lab, "default/client", "1.2.3.4:443").1["agent"]["running"], false);
    assert!(insist_agreement(&lab, pod, "1.2.3.4", 443, "TCP"));
    assert!(!insist_agreement(&lab, pod, "5.6.7.8", 443, "TCP"));
    assert!(insist_agreement(&lab, pod, "2001:db8:1::4", 443, "TCP"));
    assert!(!insist_agreement(&lab, pod, "2001:db8:2::8", 443, "TCP"));
}

#[test]
fn why_says_that_a_pod_is_not_known() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = Lab::new(&world, &policy(&RULES));
    let (code, answer) = why(&lab, "default/stranger", "1.2.3.4:443");
    assert_eq!((code, &answer["verdict"]), (1, &"unknown".into()));
    let note = answer["note"].as_str().unwrap();
    assert!(note.contains("does not know this pod") && note.contains("known here: default/client"), "{note}");
}

#[test]
fn the_example_of_the_readme_answers_as_written() {
    let Some(world) = world(&["default/curl"]) else {
        return;
    };
    let readme = include_str!("../../../../README.md");
    let policy =
        readme.split("```yaml\n").find(|block| block.starts_with("kind: EgressNetworkPolicy")).expect("a policy");
    let policy = policy.split("```").next().expect("its end");
    let lab = Lab::new(&world, policy);
    let (_, example) = readme.split_once("$ egress-agent why ").expect("an example of why");
    let (question, rest) = example.split_once('\n').expect("an answer");
    let expected = rest.split("  …").next().expect("the beginning of the answer");
    let mut command = lab.world.node().command(Agent::binary());
    command.arg("why").args(question.split(' ')).arg("--bpffs").arg(lab.world.bpffs());
    let output = command.output().expect("running the agent");
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(answer.starts_with(expected), "{answer}");
    assert_eq!(output.status.code(), Some(1));
}

fn length(prefix: &str) -> u32 {
    prefix.rsplit_once('/').and_then(|(_, length)| length.parse().ok()).expect("a prefix")
}

/// Whether the addresses agree in the bits of the prefix.
fn contains(prefix: &str, address: IpAddr) -> bool {
    let (network, _) = prefix.split_once('/').expect("a prefix");
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 4),
        IpAddr::V6(address) => (address.to_bits(), 6),
    };
    let ((network, family), (address, other)) = (bits(ip(network)), bits(address));
    let differing = (network ^ address).leading_zeros();
    family == other && differing >= length(prefix)
}

#[test]
fn why_takes_a_name_and_answers_for_each_address_that_is_known() {
    let Some((world, resolver)) = names_world(&["default/client"]) else {
        return;
    };
    let hosts = "1.2.3.40 www.foo.com\n2001:db8:1::40 www.foo.com\n1.2.3.41 a.wild.test\n2001:db8:1::41 a.wild.test\n\
                 1.2.3.42 half.foo.com\n2001:db8:1::42 half.foo.com\n1.2.3.43 other.test\n";
    let _server = Dnsmasq::start(&resolver, hosts, 60, &[]);
    let rules = [
        "Allow 1.2.3.42/32",
        "Deny half.foo.com",
        "Allow www.foo.com TCP/443",
        "Allow *.wild.test",
        "Deny 0.0.0.0/0",
        "Deny ::/0",
    ];
    let mut lab = Lab::new(&world, &names_policy("", &rules));
    let pod = world.pod("client");
    wait_until_held(&lab.agent, &["1.2.3.40", "2001:db8:1::40", "1.2.3.42", "2001:db8:1::42"]);
    insist_reached_by_name(pod, &resolver, "www.foo.com");
    insist_reached_by_name(pod, &resolver, "a.wild.test");
    let agrees = |name: &str, port: u16, verdict: &str, addresses: [&str; 2]| {
        let (code, answer) = why(&lab, "default/client", &format!("{name}:{port}"));
        assert_eq!((code, &answer["verdict"]), (i32::from(verdict != "allow"), &verdict.into()), "{name}: {answer}");
        let told = answer["addresses"].as_array().expect("addresses");
        assert_eq!(told.len(), 2, "{answer}");
        for (why, address) in told.iter().zip(addresses) {
            let to = at(address, port);
            assert_eq!(why["to"], format!("{to}/TCP"), "{answer}");
            assert_eq!(why["verdict"], if reaches(pod, to) { "allow" } else { "deny" }, "{answer}");
        }
    };
    agrees("www.foo.com", 443, "allow", ["1.2.3.40", "2001:db8:1::40"]);
    agrees("WWW.foo.com.", 80, "deny", ["1.2.3.40", "2001:db8:1::40"]);
    // Whose the addresses of a wildcard are is written down now and then.
    assert!(eventually(|| held(&lab.agent).iter().filter(|(name, ..)| name == "a.wild.test").count() == 2));
    agrees("a.wild.test", 443, "allow", ["1.2.3.41", "2001:db8:1::41"]);
    agrees("half.foo.com", 443, "differs", ["1.2.3.42", "2001:db8:1::42"]);
    // No rule is about it, so nobody remembers its addresses.
    insist_unknown(&lab, "other.test");
    lab.agent.kill();
    assert_eq!(why(&lab, "default/client", "www.foo.com:443").1["verdict"], "allow");
}

fn insist_unknown(lab: &Lab<'_>, name: &str) {
    let mut command = lab.agent.command(&["why", "default/client", name]);
    let output = command.arg("--bpffs").arg(lab.world.bpffs()).output().expect("running the agent");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&format!("no live address of {name} is known on this node")), "{said}");
}
