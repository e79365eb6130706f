//! `egress-agent check` from outside: what it says, word by word, and how it ends.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod cli_files;

use cli_files::{Files, WEB};

const BROKEN: &str = "\
apiVersion: egress.rs/v1alpha1
kind: EgressNetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  egress:
  - {type: Allow, to: {cidrSelector: 1.2.3.4/24}}
---
apiVersion: egress.rs/v1alpha1
kind: EgressNetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  egress:
  - type: Allow
    to: {cidrSelector: 1.2.3.0/33}
  - type: Maybe
    to: {cidrSelector: '::/0'}
";

#[test]
fn a_clean_file_is_said_to_be_clean() {
    let files = Files::new(&[("web.yaml", WEB)]);
    let run = files.agent(&["check", "web.yaml"]);
    assert_eq!(run.code, 0);
    assert_eq!(run.out, "1 file, 1 valid object: 0 problems, 0 warnings\n");
    assert_eq!(files.agent(&["check", "--strict", "."]).code, 0);
}

#[test]
fn every_problem_has_its_line_document_and_field_and_what_to_do() {
    let files = Files::new(&[("shop.yaml", BROKEN)]);
    let run = files.agent(&["check", "shop.yaml"]);
    assert_eq!(run.code, 1);
    assert_eq!(
        run.out,
        "shop.yaml:14: error: (document 2) EgressNetworkPolicy shop/api: spec.egress[0].to.cidrSelector: \
         \"1.2.3.0/33\" is not an IPv4 or IPv6 prefix\n    \
         write an address and a length, such as 1.2.3.0/24 or 2001:db8::/32\n\
         shop.yaml:15: error: (document 2) EgressNetworkPolicy shop/api: spec.egress[1].type: \
         \"Maybe\" is not one of Allow, Deny\n    write one of Allow, Deny\n\
         shop.yaml:6: warning: EgressNetworkPolicy shop/web: spec.egress[0].to.cidrSelector: \
         1.2.3.4/24 has host bits and is read as 1.2.3.0/24; write 1.2.3.0/24 [HostBitsMasked]\n\
         1 file, 1 valid object: 2 problems, 1 warning\n"
    );
}

#[test]
fn programs_get_the_same_with_a_version() {
    let files = Files::new(&[("shop.yaml", BROKEN)]);
    let run = files.agent(&["check", "shop.yaml", "-o", "json"]);
    assert_eq!(run.code, 1);
    let json = run.json();
    assert_eq!((&json["version"], &json["files"], &json["objects"]), (&1.into(), &1.into(), &1.into()));
    assert_eq!(
        json["problems"][0],
        serde_json::json!({
            "source": "shop.yaml",
            "document": 2,
            "line": 14,
            "object": "EgressNetworkPolicy shop/api",
            "path": "spec.egress[0].to.cidrSelector",
            "message": "\"1.2.3.0/33\" is not an IPv4 or IPv6 prefix",
            "hint": "write an address and a length, such as 1.2.3.0/24 or 2001:db8::/32",
        })
    );
    assert_eq!(
        json["warnings"],
        serde_json::json!([{
            "source": "shop.yaml",
            "line": 6,
            "object": "EgressNetworkPolicy shop/web",
            "path": "spec.egress[0].to.cidrSelector",
            "reason": "HostBitsMasked",
            "message": "1.2.3.4/24 has host bits and is read as 1.2.3.0/24; write 1.2.3.0/24",
        }])
    );
    assert!(files.agent(&["check", "shop.yaml", "-o", "yaml"]).out.contains("version: 1\n"));
}

#[test]
fn warnings_are_allowed_unless_strict() {
    let text = WEB.replace("1.2.3.0/24", "1.2.3.4/24");
    let files = Files::new(&[("web.yaml", &text)]);
    assert_eq!(files.agent(&["check", "web.yaml"]).code, 0);
    assert_eq!(files.agent(&["check", "web.yaml", "--strict"]).code, 1);
}

#[test]
fn standard_input_is_read_and_must_not_be_empty() {
    let files = Files::new(&[]);
    let run = files.agent_reading(&["check", "-"], WEB);
    assert_eq!((run.code, run.out.as_str()), (0, "1 file, 1 valid object: 0 problems, 0 warnings\n"));
    let run = files.agent_reading(&["check", "-"], "");
    assert_eq!(run.code, 1);
    assert!(run.out.starts_with("standard input: error: the file is empty\n"), "{}", run.out);
}

#[test]
fn a_path_that_is_not_there_is_a_usage_error() {
    let run = Files::new(&[]).agent(&["check", "nowhere.yaml"]);
    assert_eq!(run.code, 2);
    assert!(run.err.contains("nowhere.yaml cannot be read"), "{}", run.err);
    assert_eq!(Files::new(&[]).agent(&["check"]).code, 2);
}

#[test]
fn answers_show_which_names_share_an_address() {
    let rule = "  egress:\n  - {type: Allow, to: {dnsName: www.foo.com}}\n";
    let files = Files::new(&[
        ("web.yaml", &WEB.replacen("  egress:\n", rule, 1)),
        ("answers.txt", "www.foo.com. 60 IN A 192.0.2.1\nads.bar.com. 60 IN A 192.0.2.1\n"),
    ]);
    assert_eq!(files.agent(&["check", "web.yaml", "--strict"]).code, 0);
    let run = files.agent(&["check", "web.yaml", "--strict", "--dns", "answers.txt"]);
    assert_eq!(run.code, 1);
    assert!(run.out.contains("www.foo.com, which the rules allow, and ads.bar.com, which they do not"), "{}", run.out);
}
