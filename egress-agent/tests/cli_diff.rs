//! `egress-agent diff` from outside: exact prefixes and ports, grouped pods, exit codes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod cli_files;

use cli_files::{Files, WEB};
use serde_json::json;

const ENDPOINTS: &str = "\
endpoints:
- {namespace: shop, name: web-1, labels: {app: web}}
- {namespace: shop, name: web-2, labels: {app: web, zone: a}}
- {namespace: shop, name: db-1}
";

/// [`WEB`] with another port for IPv4 and a larger network for IPv6.
fn changed() -> String {
    WEB.replacen("port: 443", "port: 8443", 1).replace("2001:db8::/32", "2001:db8::/31")
}

#[test]
fn the_change_is_said_by_prefix_and_port_once_for_equal_pods() {
    let files = Files::new(&[("old/web.yaml", WEB), ("new/web.yaml", &changed()), ("endpoints.yaml", ENDPOINTS)]);
    let run = files.agent(&["diff", "old", "new", "--endpoints", "endpoints.yaml"]);
    assert_eq!(run.code, 1);
    assert_eq!(
        run.out,
        "shop/web-1, shop/web-2\n  \
         destinations                        ports     old    by                  new    by\n  \
         1.2.3.0/24                          TCP/443   allow  rule 1 of shop/web  deny   rule 3 of shop/web\n  \
         1.2.3.0/24                          TCP/8443  deny   rule 3 of shop/web  allow  rule 1 of shop/web\n  \
         2001:db8::/31 except 2001:db8::/32  TCP/443   deny   rule 4 of shop/web  allow  rule 2 of shop/web\n\n\
         verdicts change for 2 of 3 pods\n"
    );
}

#[test]
fn programs_get_the_same_with_a_version() {
    let files = Files::new(&[("old.yaml", WEB), ("new.yaml", &changed()), ("endpoints.yaml", ENDPOINTS)]);
    let run = files.agent(&["diff", "old.yaml", "new.yaml", "--endpoints", "endpoints.yaml", "-o", "json"]);
    assert_eq!(run.code, 1);
    let json = run.json();
    assert_eq!((&json["version"], &json["pods"], &json["examples"]), (&json!(1), &json!(3), &json!(false)));
    assert_eq!(json["groups"][0]["pods"], json!(["shop/web-1", "shop/web-2"]));
    assert_eq!(
        json["groups"][0]["changes"][2],
        json!({
            "prefix": "2001:db8::/31",
            "except": ["2001:db8::/32"],
            "ports": ["TCP/443"],
            "old": {"verdict": "deny", "by": "rule 4 of shop/web"},
            "new": {"verdict": "allow", "by": "rule 2 of shop/web"},
        })
    );
}

#[test]
fn what_only_moves_or_renames_is_no_difference() {
    let mut lines: Vec<&str> = WEB.lines().collect();
    lines.swap(6, 7);
    let moved = lines.join("\n").replace("name: web,", "name: site,");
    let files = Files::new(&[("old.yaml", WEB), ("new.yaml", &moved), ("endpoints.yaml", ENDPOINTS)]);
    let run = files.agent(&["diff", "old.yaml", "new.yaml", "--endpoints", "endpoints.yaml"]);
    assert_eq!((run.code, run.out.as_str()), (0, "verdicts change for 0 of 3 pods\n"));
}

#[test]
fn without_endpoints_there_is_a_pod_for_each_selector() {
    let files = Files::new(&[("old.yaml", WEB), ("new.yaml", &changed())]);
    let run = files.agent(&["diff", "old.yaml", "new.yaml"]);
    assert_eq!(run.code, 1);
    assert!(run.out.starts_with("shop/* (app=web)\n"), "{}", run.out);
    assert!(run.out.contains("verdicts change for 1 of 3 example pods\n"), "{}", run.out);
    let json = files.agent(&["diff", "old.yaml", "new.yaml", "-o", "json"]).json();
    assert_eq!(json["examples"], true);
}

#[test]
fn one_side_may_come_from_standard_input_and_broken_ones_are_refused() {
    let files = Files::new(&[("new.yaml", WEB), ("broken.yaml", &WEB.replace("Deny", "Dony"))]);
    assert_eq!(files.agent_reading(&["diff", "-", "new.yaml"], WEB).code, 0);
    assert_eq!(files.agent_reading(&["diff", "-", "new.yaml"], &changed()).code, 1);
    let run = files.agent(&["diff", "broken.yaml", "new.yaml"]);
    assert_eq!(run.code, 2);
    assert!(run.err.contains("broken.yaml, line 9"), "{}", run.err);
    let run = files.agent(&["diff", "-", "-"]);
    assert_eq!(run.code, 2);
    assert_eq!(files.agent(&["diff", "new.yaml"]).code, 2);
}

#[test]
fn a_change_for_the_addresses_of_a_name_is_said_under_the_name() {
    let rule = "  egress:\n  - {type: Allow, to: {dnsName: '*.foo.com'}, ports: [{protocol: TCP, port: 443}]}\n";
    let new = WEB.replacen("  egress:\n", rule, 1);
    let files = Files::new(&[("old.yaml", WEB), ("new.yaml", &new), ("endpoints.yaml", ENDPOINTS)]);
    let question = ["diff", "old.yaml", "new.yaml", "--endpoints", "endpoints.yaml"];
    let run = files.agent(&question);
    assert_eq!(run.code, 1);
    assert_eq!(
        run.out,
        "shop/web-1, shop/web-2 to addresses of *.foo.com\n  \
         destinations                                                       ports    old   by                  new    by\n  \
         0.0.0.0/0 except 1.2.3.0/24, 127.0.0.0/8, 224.0.0.0/24 and 1 more  TCP/443  deny  rule 3 of shop/web  allow  rule 1 of shop/web\n  \
         ::/0 except ::1/128, 2001:db8::/32, fe80::/10 and 1 more           TCP/443  deny  rule 4 of shop/web  allow  rule 1 of shop/web\n\n\
         verdicts change for 2 of 3 pods\n"
    );
    let json = files.agent(&[&question[..], &["-o", "json"]].concat()).json();
    assert_eq!(json["groups"][0]["changes"], json!([]));
    assert_eq!(json["groups"][0]["names"][0]["names"], json!(["*.foo.com"]));
    assert_eq!(json["groups"][0]["names"][0]["changes"].as_array().unwrap().len(), 2);
}
