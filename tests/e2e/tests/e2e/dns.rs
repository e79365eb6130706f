//! Names against a real name server and real stub resolvers: what is asked for by the agent, what is learned from the pods' own
//! lookups, and who wins against a CIDR (§5.1–§5.5).

use std::process::Command;

use egress_e2e::{
    Evidence as _, Lab, Way, at, held, holds, insist_reached_by_name, insist_refused_by_name, ip, look_up_and_connect,
    names_policy, names_world, reaches, reaches_udp, wait_until_held,
};
use egress_world::eventually;
use egress_world::packet::protocol;
use egress_world::probe::{self, Outcome};
use egress_world::resolver::{self, Dnsmasq, RESOLVERS, Resolver};

const DENY_ALL: [&str; 2] = ["Deny 0.0.0.0/0", "Deny ::/0"];

/// Rules, and then [`DENY_ALL`].
fn only(rules: &[&str]) -> String {
    names_policy("", &[rules, &DENY_ALL].concat())
}

#[test]
fn an_exact_name_is_allowed_before_any_pod_has_looked_it_up() {
    let Some((world, resolver)) = names_world(&["default/client"]) else {
        return;
    };
    let hosts = "1.2.3.40 www.foo.com\n2001:db8:1::40 www.foo.com\n1.2.3.41 foo.com\n2001:db8:1::41 foo.com\n";
    let _server = Dnsmasq::start(&resolver, hosts, 60, &[]);
    let mut lab = Lab::new(&world, &only(&["Allow www.foo.com"]));
    let pod = world.pod("client");
    wait_until_held(&lab.agent, &["1.2.3.40", "2001:db8:1::40"]);
    for (way, remote) in [(Way::Tcp, "1.2.3.40"), (Way::Tcp, "2001:db8:1::40"), (Way::UdpUnconnected, "1.2.3.40")] {
        lab.insist_allowed(pod, way, remote, "Allow www.foo.com");
    }
    for (remote, rule) in [("1.2.3.41", DENY_ALL[0]), ("2001:db8:1::41", DENY_ALL[1])] {
        lab.insist_denied(pod, Way::Tcp, remote, rule);
        lab.insist_denied(pod, Way::Frame, remote, rule);
    }
    insist_reached_by_name(pod, &resolver, "www.foo.com");
    insist_refused_by_name(pod, &resolver, "foo.com");
}

/// `name` with one address of each family that ends in `number`.
fn host(number: u32, name: &str) -> String {
    format!("1.2.3.{number} {name}\n2001:db8:1::{number} {name}\n")
}

#[test]
fn wildcards_are_learned_from_the_pods_own_lookups_before_it_connects() {
    let Some((world, resolver)) = names_world(&["default/client"]) else {
        return;
    };
    let allowed = ["a.one.test", "b.any.test", "c.d.e.any.test"];
    let refused = ["one.test", "a.b.one.test", "any.test", "other.test"];
    let hosts: String = (60..).zip(allowed.iter().chain(&refused)).map(|(number, name)| host(number, name)).collect();
    let _server = Dnsmasq::start(&resolver, &hosts, 60, &[]);
    let lab = Lab::new(&world, &only(&["Allow *.one.test", "Allow **.any.test"]));
    let pod = world.pod("client");
    for (number, name) in (60..).zip(allowed) {
        let [remote4, remote6] = [format!("1.2.3.{number}"), format!("2001:db8:1::{number}")];
        let before = [&remote4, &remote6].map(|remote| reaches(pod, at(remote, 443)));
        assert_eq!(before, [false; 2], "{name} before its lookup");
        insist_reached_by_name(pod, &resolver, name);
        assert!(holds(&lab.agent, ip(&remote4)) && holds(&lab.agent, ip(&remote6)));
    }
    for name in refused {
        insist_refused_by_name(pod, &resolver, name);
    }
    insist_reached_by_name(pod, &resolver, "A.One.TEST");
}

/// A program of the pod that looks `name` up in its own way and prints the addresses, before this process connects to them.
fn with_program(lab: &Lab<'_>, resolver: &Resolver, program: &[&str]) -> Option<Vec<(std::net::IpAddr, Outcome)>> {
    let conf = resolver.conf();
    lab.world.pod("client").run(|| {
        resolver::use_resolvers(&conf);
        let output = Command::new(program[0]).args(&program[1..]).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{program:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
        let addresses = text.lines().map(|line| line.trim().parse().expect("an address"));
        Some(addresses.map(|address| (address, probe::tcp_echo((address, 443).into()).outcome)).collect())
    })
}

#[test]
fn dig_and_python_teach_as_the_c_library_does() {
    let Some((world, resolver)) = names_world(&["default/client"]) else {
        return;
    };
    let hosts: String = ["dig4", "dig6", "digtcp", "python", "nobody"]
        .iter()
        .zip(70..)
        .map(|(label, number)| host(number, &format!("{label}.any.test")))
        .collect();
    let _server = Dnsmasq::start(&resolver, &hosts, 60, &[]);
    let lab = Lab::new(&world, &only(&["Allow *.any.test"]));
    let [server4, server6] = RESOLVERS.map(|address| format!("@{address}"));
    let python =
        "import socket\nfor a in socket.getaddrinfo('python.any.test', 443, type=socket.SOCK_STREAM): print(a[4][0])";
    let programs: [&[&str]; 4] = [
        &["dig", "+short", &server4, "dig4.any.test", "A"],
        &["dig", "+short", &server6, "dig6.any.test", "AAAA"],
        &["dig", "+short", "+tcp", &server4, "digtcp.any.test", "AAAA"],
        &["python3", "-c", python],
    ];
    for program in programs {
        match with_program(&lab, &resolver, program) {
            None => eprintln!("SKIPPED: this machine has no {}", program[0]),
            Some(got) => {
                assert!(!got.is_empty(), "{program:?}");
                assert!(got.iter().all(|(_, outcome)| *outcome == Outcome::Answered), "{program:?}: {got:?}");
            }
        }
    }
    // What nobody has looked up, and what was asked for in the other family only.
    for remote in ["1.2.3.74", "2001:db8:1::74", "2001:db8:1::70", "1.2.3.71"] {
        assert!(!reaches(world.pod("client"), at(remote, 443)), "{remote}");
    }
}

#[test]
fn names_and_cidrs_compete_by_the_number_of_their_rule_only() {
    let Some((world, resolver)) = names_world(&["default/client"]) else {
        return;
    };
    let _server = Dnsmasq::start(&resolver, &host(80, "www.foo.com"), 60, &[]);
    let rules = |first: &[&'static str], then: &[&'static str]| names_policy("", &[first, then].concat());
    let (deny_name, allow_name) = (&["Deny www.foo.com"][..], &["Allow www.foo.com"][..]);
    let (allow, deny) = (&["Allow 1.2.3.0/24", "Allow 2001:db8:1::/48"][..], &DENY_ALL[..]);
    let mut lab = Lab::new(&world, &rules(deny_name, allow));
    let pod = world.pod("client");
    wait_until_held(&lab.agent, &["1.2.3.80", "2001:db8:1::80"]);
    for (index, remote) in ["1.2.3.80", "2001:db8:1::80"].into_iter().enumerate() {
        lab.agent.apply(&rules(allow, deny_name));
        lab.insist_allowed(pod, Way::Tcp, remote, allow[index]);
        lab.agent.apply(&rules(allow_name, deny));
        lab.insist_allowed(pod, Way::Tcp, remote, allow_name[0]);
        lab.agent.apply(&rules(deny, allow_name));
        lab.insist_denied(pod, Way::Tcp, remote, deny[index]);
        lab.agent.apply(&rules(deny_name, allow));
        assert!(!reaches(pod, at(remote, 443)) && reaches(pod, at(&remote.replace("80", "81"), 443)));
        assert!(lab.agent.charged(deny_name[0]) > 0);
    }
}

#[test]
fn the_record_of_a_refusal_has_the_name_and_not_only_the_pattern() {
    let Some((world, resolver)) = names_world(&["default/client"]) else {
        return;
    };
    let _server = Dnsmasq::start(&resolver, &(host(80, "a.bad.test") + &host(81, "bad.com")), 60, &[]);
    let mut lab = Lab::new(&world, &names_policy("", &["Deny *.bad.test", "Deny bad.com"]));
    let pod = world.pod("client");
    for remote in ["1.2.3.80", "2001:db8:1::80"] {
        assert!(reaches(pod, at(remote, 443)), "nobody has looked the name up: {remote}");
    }
    insist_refused_by_name(pod, &resolver, "a.bad.test");
    wait_until_held(&lab.agent, &["1.2.3.81", "2001:db8:1::81"]);
    let remotes = [("1.2.3.80", "a.bad.test"), ("2001:db8:1::80", "a.bad.test"), ("1.2.3.81", "bad.com")];
    for (remote, name) in remotes {
        let known = eventually(|| held(&lab.agent).iter().any(|(of, address, _)| of == name && *address == ip(remote)));
        assert!(known, "{:?}", held(&lab.agent));
        lab.insist_denied(pod, Way::Frame, remote, &format!("Deny {}", name.replace("a.bad", "*.bad")));
        let names =
            |event: &serde_json::Value| event["destination.address"] == remote && event["dns.question.name"] == name;
        lab.agent.wait_for_event(names);
    }
}

#[test]
fn a_name_with_ports_is_open_at_these_only() {
    let Some((world, resolver)) = names_world(&["default/client"]) else {
        return;
    };
    let _server = Dnsmasq::start(&resolver, &host(90, "api.foo.com"), 60, &[]);
    let lab = Lab::new(&world, &only(&["Allow api.foo.com TCP/443 UDP/9000"]));
    let pod = world.pod("client");
    wait_until_held(&lab.agent, &["1.2.3.90", "2001:db8:1::90"]);
    for remote in ["1.2.3.90", "2001:db8:1::90"] {
        assert!(reaches(pod, at(remote, 443)) && reaches_udp(pod, at(remote, 9000)));
        assert!(!reaches(pod, at(remote, 80)) && !reaches_udp(pod, at(remote, 443)));
        assert!(!reaches(pod, at(remote, 9000)));
        let told = lab.agent.denied(pod, ip(remote), protocol::UDP);
        assert!(told.rule.contains("Deny"), "{told:?}");
    }
}

#[test]
fn the_addresses_behind_an_alias_belong_to_the_name_that_was_asked_for() {
    let Some((world, resolver)) = names_world(&["default/client"]) else {
        return;
    };
    let hosts = host(100, "edge1.cdn.test") + &host(101, "edge2.cdn.test") + &host(102, "edge3.cdn.test");
    let aliases = [
        "--cname=a.foo.test,middle.foo.example,edge1.cdn.test",
        "--cname=www.bar.test,edge2.cdn.test",
        "--cname=polled.test,edge3.cdn.test",
    ];
    let _server = Dnsmasq::start(&resolver, &hosts, 60, &aliases);
    // Only the name of the target is allowed of www.bar.test, and that of the question of a.foo.test.
    let lab = Lab::new(&world, &only(&["Allow *.foo.test", "Allow *.cdn.test", "Allow polled.test"]));
    let pod = world.pod("client");
    insist_reached_by_name(pod, &resolver, "a.foo.test");
    insist_refused_by_name(pod, &resolver, "www.bar.test");
    insist_reached_by_name(pod, &resolver, "edge2.cdn.test");
    wait_until_held(&lab.agent, &["1.2.3.102", "2001:db8:1::102"]);
    assert!(reaches(pod, at("1.2.3.102", 443)) && reaches(pod, at("2001:db8:1::102", 443)));
}

#[test]
fn a_truncated_reply_is_followed_over_tcp_and_all_its_addresses_are_learned() {
    let Some((world, resolver)) = names_world(&["default/client"]) else {
        return;
    };
    let hosts: String = (1..=60)
        .flat_map(|n| {
            [
                format!(
                    "10.2.0.{n} many.any.test
"
                ),
                format!(
                    "2001:db8:9::{n} many.any.test
"
                ),
            ]
        })
        .collect();
    let hosts = hosts + "10.2.1.1 many.other.test\n2001:db8:a::1 many.other.test\n";
    let _server = Dnsmasq::start(&resolver, &hosts, 60, &[]);
    let lab = Lab::new(&world, &only(&["Allow *.any.test"]));
    let got = look_up_and_connect(world.pod("client"), &resolver, "many.any.test");
    assert_eq!(got.len(), 120);
    let refused: Vec<_> = got.iter().filter(|(_, outcome)| *outcome != Outcome::Answered).collect();
    assert!(refused.is_empty(), "{refused:?}\n{}", lab.agent.log());
    insist_refused_by_name(world.pod("client"), &resolver, "many.other.test");
}
