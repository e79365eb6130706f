//! `egress-agent test` from outside: what it says, how it ends, and that its verdicts are those of the independent oracle.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod cli_files;

use std::net::IpAddr;

use cli_files::{Files, WEB};
use egress_reference::{Decider, Node, Oracle, Packet, Random, Size, World};
use serde_json::{Value, json};

const ENDPOINTS: &str =
    "endpoints: [{namespace: shop, name: web-1, labels: {app: web}}, {namespace: shop, name: db-1}]\n";

#[test]
fn verdicts_name_the_rule_and_every_allow_makes_zero() {
    let files = Files::new(&[("policies/web.yaml", WEB)]);
    let question = ["test", "policies", "--from", "shop/web-1", "--labels", "app=web"];
    let run = files.agent(&[&question[..], &["--to", "1.2.3.4:443", "--to", "[2001:db8::1]:443"]].concat());
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(
        run.out,
        "verdicts\n  \
         from        to                     verdict  by                  rule\n  \
         shop/web-1  1.2.3.4:443/TCP        allow    rule 1 of shop/web  Allow 1.2.3.0/24 TCP/443\n  \
         shop/web-1  [2001:db8::1]:443/TCP  allow    rule 2 of shop/web  Allow 2001:db8::/32 TCP/443\n"
    );
    let denied = files.agent(&[&question[..], &["--to", "1.2.3.4:443", "--to", "[2001:db8::1]:80"]].concat());
    assert_eq!(denied.code, 1);
    assert!(denied.out.contains("deny     rule 4 of shop/web  Deny ::/0\n"), "{}", denied.out);
}

#[test]
fn an_endpoints_file_says_what_pods_are() {
    let files = Files::new(&[("web.yaml", WEB), ("endpoints.yaml", ENDPOINTS)]);
    let ask = |pod: &str| {
        files.agent(&["test", "web.yaml", "--endpoints", "endpoints.yaml", "--from", pod, "--to", "8.8.8.8:443"])
    };
    assert_eq!(ask("shop/web-1").code, 1);
    assert_eq!(ask("shop/db-1").code, 0);
    let unknown = ask("shop/web");
    assert_eq!(unknown.code, 2);
    assert!(
        unknown.err.contains("shop/web is not in the endpoints file, which has shop/db-1, shop/web-1"),
        "{unknown:?}"
    );
}

#[test]
fn the_explanation_shows_each_rule_and_why() {
    let files = Files::new(&[("web.yaml", WEB)]);
    let question = ["test", "web.yaml", "--from", "shop/web", "--labels", "app=web", "--to", "1.2.3.4:80", "--explain"];
    let run = files.agent(&question);
    let (_, explanation) = run.out.split_once("\n\n").unwrap();
    let lines: Vec<&str> = explanation.lines().collect();
    assert_eq!(
        lines.first(),
        Some(&"shop/web: rule 3 of shop/web denies 1.2.3.4:80/TCP because 1.2.3.4 is in 0.0.0.0/0")
    );
    assert_eq!(
        lines.iter().rev().take(3).rev().collect::<Vec<_>>(),
        [
            &"  rule 1 of shop/web (Allow 1.2.3.0/24 TCP/443) does not match: TCP/80 is not in TCP/443",
            &"  rule 2 of shop/web (Allow 2001:db8::/32 TCP/443) does not match: 1.2.3.4 is not in 2001:db8::/32",
            &"  rule 3 of shop/web (Deny 0.0.0.0/0) decides: 1.2.3.4 is in 0.0.0.0/0",
        ]
    );
    let json = files.agent(&[&question[..], &["-o", "json"]].concat()).json();
    let considered = json["probes"][0]["considered"].as_array().unwrap();
    assert_eq!(considered.last().unwrap()["outcome"], "Decides");
}

#[test]
fn programs_get_the_verdicts_with_a_version() {
    let files = Files::new(&[("web.yaml", WEB)]);
    let question = ["test", "web.yaml", "--from", "shop/web", "--labels", "app=web", "--to", "[2001:db8::1]:443"];
    let run = files.agent(&[&question[..], &["-o", "json"]].concat());
    assert_eq!(
        run.json(),
        json!({
            "version": 1,
            "passed": true,
            "probes": [{
                "from": "shop/web",
                "to": "[2001:db8::1]:443/TCP",
                "verdict": "allow",
                "rule": {"rank": 6, "origin": "rule 2 of shop/web", "text": "Allow 2001:db8::/32 TCP/443"},
            }],
        })
    );
    let yaml = files.agent(&[&question[..], &["-o", "yaml"]].concat());
    assert!(yaml.out.contains("version: 1\n"), "{}", yaml.out);
}

#[test]
fn cases_pass_or_fail_one_by_one() {
    let cases = "\
- {from: shop/web, labels: {app: web}, to: '1.2.3.4:443', expect: Allow, rule: rule 1 of shop/web}
- {from: shop/web, labels: {app: web}, to: '[2001:db8::1]:80', expect: Deny}
- {from: shop/db, to: '8.8.8.8:53/UDP', expect: Deny}
- {from: shop/web, labels: {app: web}, to: '1.2.3.4:80', expect: Deny, rule: 'Deny ::/0'}
";
    let files = Files::new(&[("web.yaml", WEB), ("cases/web.yaml", cases)]);
    let run = files.agent(&["test", "web.yaml", "--cases", "cases/web.yaml"]);
    assert_eq!(run.code, 1);
    assert_eq!(
        run.out,
        "verdicts\n  \
         from      to                    expected  verdict  by                  rule                      result\n  \
         shop/web  1.2.3.4:443/TCP       allow     allow    rule 1 of shop/web  Allow 1.2.3.0/24 TCP/443  ok\n  \
         shop/web  [2001:db8::1]:80/TCP  deny      deny     rule 4 of shop/web  Deny ::/0                 ok\n  \
         shop/db   8.8.8.8:53/UDP        deny      allow    default action      Allow everything          FAILED\n  \
         shop/web  1.2.3.4:80/TCP        deny      deny     rule 3 of shop/web  Deny 0.0.0.0/0            FAILED, expected by Deny ::/0\n\
         2 of 4 as expected\n"
    );
    let good: String = cases.split_inclusive('\n').take(2).collect();
    let files = Files::new(&[("web.yaml", WEB), ("cases/web.yaml", &good)]);
    assert_eq!(files.agent(&["test", "web.yaml", "--cases", "cases/web.yaml"]).code, 0);
}

#[test]
fn wrong_questions_are_usage_errors_that_say_what_to_write() {
    let broken = WEB.replace("1.2.3.0/24", "1.2.3.0/33");
    let files = Files::new(&[
        ("web.yaml", WEB),
        ("broken.yaml", &broken),
        ("none.yaml", "[]"),
        ("odd.yaml", "[{from: a/b, to: '1.2.3.4:443', expect: Maybe}]"),
        ("name.yaml", "[{from: a/b, to: 'www.foo.com:443', expect: Deny}]"),
    ]);
    for (arguments, said) in [
        (vec!["test", "web.yaml"], "--from"),
        (vec!["test", "web.yaml", "--from", "web", "--to", "1.2.3.4"], "write NAMESPACE/POD"),
        (vec!["test", "web.yaml", "--from", "a/b", "--to", "1.2.3.0/24"], "is a prefix"),
        (vec!["test", "web.yaml", "--from", "a/b", "--to", "1.2.3.4", "--cases", "none.yaml"], "cannot be used with"),
        (vec!["test", "broken.yaml", "--from", "a/b", "--to", "1.2.3.4"], "broken.yaml, line 7"),
        (vec!["test", "web.yaml", "--cases", "none.yaml"], "has no case"),
        (vec!["test", "web.yaml", "--cases", "odd.yaml"], "Maybe"),
        (
            vec!["test", "web.yaml", "--cases", "name.yaml"],
            "www.foo.com:443/TCP is a name, and names are not resolved here",
        ),
        (
            vec!["test", "web.yaml", "--cases", "name.yaml", "--dns", "odd.yaml"],
            "odd.yaml: it is neither a map of names",
        ),
    ] {
        let run = files.agent(&arguments);
        assert_eq!(run.code, 2, "{arguments:?}: {run:?}");
        assert!(run.err.contains(said), "{arguments:?}: {}", run.err);
    }
}

/// [`WEB`] with a name before its networks.
fn by_name() -> String {
    let rule = "  egress:\n  - {type: Deny, to: {dnsName: '*.foo.com'}, ports: [{protocol: TCP, port: 443}]}\n";
    WEB.replacen("  egress:\n", rule, 1)
}

#[test]
fn a_name_is_judged_at_each_of_its_addresses_with_all_their_names() {
    let answers = "ok.bar.com: [1.2.3.4, '2001:db8::1']\nwww.foo.com: [1.2.3.4]\nnone.com: []\n";
    let files = Files::new(&[("web.yaml", &by_name()), ("answers.yaml", answers)]);
    let ask = |to: &str, more: &[&str]| {
        let question =
            ["test", "web.yaml", "--dns", "answers.yaml", "--from", "shop/web", "--labels", "app=web", "--to", to];
        files.agent(&[&question[..], more].concat())
    };
    let run = ask("OK.bar.com:443", &[]);
    assert_eq!(run.code, 1);
    assert_eq!(
        run.out,
        "verdicts\n  \
         from      to                                  verdict  by                  rule\n  \
         shop/web  1.2.3.4:443/TCP (ok.bar.com)        deny     rule 1 of shop/web  Deny *.foo.com TCP/443\n  \
         shop/web  [2001:db8::1]:443/TCP (ok.bar.com)  allow    rule 3 of shop/web  Allow 2001:db8::/32 TCP/443\n\
         shop/web to ok.bar.com:443/TCP: deny at 1 of 2 addresses\n"
    );
    // The address alone has the same names.
    assert_eq!(ask("1.2.3.4:443", &[]).code, 1);
    assert_eq!(ask("[2001:db8::1]:443", &[]).code, 0);
    let explained = ask("ok.bar.com:443", &["--explain"]);
    let reason = "denies 1.2.3.4:443/TCP because 1.2.3.4 is an address of www.foo.com and TCP/443 is in TCP/443";
    assert!(explained.out.contains(reason), "{}", explained.out);
    let json = ask("ok.bar.com:443", &["-o", "json"]).json();
    assert_eq!(json["probes"][0]["name"], "ok.bar.com:443/TCP");
    assert_eq!(json["probes"][0]["names"], json!(["ok.bar.com", "www.foo.com"]));
    let names =
        json!([{"from": "shop/web", "to": "ok.bar.com:443/TCP", "verdict": "deny", "count": 1, "addresses": 2}]);
    assert_eq!(json["names"], names);
    for (to, said) in [
        ("other.com:443", "no address of other.com is known"),
        ("none.com:443", "no address of none.com is known"),
        ("www.foo.com/ICMPv6", "no address of www.foo.com is of the family"),
    ] {
        let run = ask(to, &[]);
        assert!(run.code == 2 && run.err.contains(said), "{to}: {run:?}");
    }
}

#[test]
fn records_as_dig_prints_them_are_answers() {
    let answers = "www.foo.com.\t\t60\tIN\tCNAME\tcdn.bar.net.\ncdn.bar.net.\t\t60\tIN\tA\t1.2.3.4\n";
    let files = Files::new(&[("web.yaml", &by_name()), ("answers.txt", answers)]);
    let question = ["test", "web.yaml", "--dns", "answers.txt", "--from", "shop/web", "--labels", "app=web"];
    let ask = |to: &str| files.agent(&[&question[..], &["--to", to]].concat());
    assert!(ask("www.foo.com:443").out.contains("Deny *.foo.com TCP/443"));
    // The end of a CNAME is no name of its own (§5.5).
    assert!(ask("cdn.bar.net:443").err.contains("no address of cdn.bar.net is known"));
}

/// Random worlds, without anything that only a node knows: each verdict must be the oracle's, by the oracle's rule. That table and
/// explanation agree is checked by the command itself, which would end with 3.
#[test]
fn verdicts_are_those_of_the_oracle() {
    let is_root = nix::unistd::Uid::effective().is_root();
    let (mut asked, mut denied, mut named, mut judged) = (0, 0, 0, 0);
    for seed in 0..40 {
        let mut world = World::generate_named(seed, &Size::default());
        world.node = Node::default();
        for live in world.answers.values_mut() {
            live.retain(|address| !is_special(*address));
        }
        let texts = world.files(seed);
        let mut files: Vec<(String, String)> =
            texts.iter().map(|file| (format!("policies/{}", file.name), file.text.clone())).collect();
        let mut random = Random::new(seed);
        let oracle = Oracle::new(&world);
        let mut cases: Vec<Value> = Vec::new();
        for pod in &world.pods {
            for _ in 0..40 {
                let packet = world.packet(pod, &mut random);
                let Some(to) = destination(&packet) else { continue };
                let outcome = oracle.evaluate(pod, &packet);
                let verdict = outcome.verdict;
                let rule = match &verdict.decider {
                    Decider::Rule { policy, number } => Some(match &policy.namespace {
                        Some(namespace) => format!("rule {number} of {namespace}/{}", policy.name),
                        None => format!("rule {number} of {}", policy.name),
                    }),
                    Decider::Default => Some("default action".to_owned()),
                    Decider::Builtin(_) | Decider::Service { .. } => None,
                };
                denied += usize::from(!verdict.allow);
                named += usize::from(outcome.trace.by_name);
                cases.push(json!({
                    "from": format!("{}/{}", pod.namespace, pod.name),
                    "labels": pod.labels,
                    "serviceAccount": pod.service_account,
                    "to": to,
                    "expect": if verdict.allow { "Allow" } else { "Deny" },
                    "rule": rule,
                }));
            }
        }
        asked += cases.len();
        files.push(("cases.json".to_owned(), Value::from(cases).to_string()));
        files.push(("answers.json".to_owned(), json!(world.answers).to_string()));
        let texts: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let mut arguments = vec!["test", "policies", "--cases", "cases.json", "--dns", "answers.json", "-o", "table"];
        // To load the programs costs the verifier's time, so not every world is put to the kernel too.
        let by_kernel = is_root && seed % 8 == 0;
        arguments.extend(by_kernel.then_some("--kernel"));
        let run = Files::new(&texts).agent(&arguments);
        let said: Vec<&str> = run.out.lines().filter(|line| line.starts_with("the kernel's programs judged")).collect();
        assert_eq!(said.len(), usize::from(by_kernel), "seed {seed}: {}", run.err);
        judged += said.iter().filter_map(|line| line.split(' ').nth(4)?.parse::<usize>().ok()).sum::<usize>();
        let failed: Vec<&str> = run.out.lines().filter(|line| line.contains("FAILED")).collect();
        assert_eq!((run.code, failed), (0, vec![]), "seed {seed}: {}", run.err);
    }
    if !is_root {
        eprintln!("SKIPPED: only root can put packets to the kernel");
    }
    assert!(!is_root || judged > 400, "{judged} packets judged by the kernel");
    assert!(asked > 2000 && denied > 300 && denied < asked - 300, "{denied} of {asked} denied");
    assert!(named > 100, "{named} by name");
}

/// Addresses that no name can have (§5.6).
fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => matches!(v4.octets(), [0 | 127 | 224.., ..] | [169, 254, ..]),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local(),
    }
}

/// The packet as the command line writes it, if it can.
fn destination(packet: &Packet) -> Option<String> {
    let Packet { destination, protocol, port } = *packet;
    let port = match (protocol, destination) {
        (1, IpAddr::V6(_)) | (58, IpAddr::V4(_)) => return None,
        (1 | 58, _) => Some(port).filter(|port| *port <= 255)?.to_string(),
        (6 | 17 | 132, _) => Some(port).filter(|port| *port != 0)?.to_string(),
        _ => return Some(format!("{destination}/proto-{protocol}")),
    };
    Some(match destination {
        IpAddr::V4(address) => format!("{address}:{port}/proto-{protocol}"),
        IpAddr::V6(address) => format!("[{address}]:{port}/proto-{protocol}"),
    })
}
