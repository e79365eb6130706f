//! What the commands that need only files print, whole, in every format: `golden/NAME.txt`, `.json`, `.yaml`.
//!
//! `EGRESS_GOLDEN=write` accepts what comes out now. What the commands that ask the kernel print is held to files of the same folder by
//! tests beside their code.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod cli_files;

use std::fs;
use std::path::Path;

use cli_files::{Files, WEB};

const BROKEN: &str = "\
apiVersion: egress.rs/v1alpha1
kind: EgressNetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  egress:
  - {type: Allow, to: {cidrSelector: 1.2.3.4/24}}
  - {type: Deny, to: {dnsName: ads.foo.com}}
  - {type: Deny, to: {cidrSelector: 1.2.3.0/25}}
---
apiVersion: egress.rs/v1alpha1
kind: EgressNetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  egress:
  - {type: Maybe, to: {cidrSelector: 1.2.3.0/33}}
";

const CASES: &str = "\
- {from: shop/web, labels: {app: web}, to: '1.2.3.4:443', expect: Allow, rule: rule 1 of shop/web}
- {from: shop/web, labels: {app: web}, to: '2001:db8::1/UDP', expect: Allow}
";

const FOREIGN: &str = "\
apiVersion: k8s.ovn.org/v1
kind: EgressFirewall
metadata: {name: default, namespace: shop}
spec:
  egress:
  - {type: Allow, to: {dnsName: www.foo.com}}
  - {type: Deny, to: {cidrSelector: 0.0.0.0/0}}
";

const ENDPOINTS: &str =
    "endpoints:\n- {namespace: shop, name: web-1, labels: {app: web}}\n- {namespace: shop, name: db-1}\n";

/// The cases: their names and their arguments, but for `-o`.
const COMMANDS: [(&str, i32, &str); 11] = [
    ("check", 1, "check broken.yaml --dns answers.yaml"),
    ("check-clean", 0, "check web.yaml"),
    (
        "test",
        1,
        "test web.yaml --from shop/web --labels app=web --to 1.2.3.4:443 --to [2001:db8::1]:53/UDP --to 8.8.8.8",
    ),
    ("test-explain", 1, "test web.yaml --from shop/web --labels app=web --to 1.2.3.4:80 --explain"),
    ("test-names", 0, "test web.yaml --dns answers.yaml --from shop/web --labels app=web --to www.foo.com:443"),
    ("test-cases", 1, "test web.yaml --cases cases.yaml"),
    ("diff", 1, "diff web.yaml other.yaml --endpoints endpoints.yaml"),
    ("diff-names", 1, "diff web.yaml named.yaml"),
    ("diff-nothing", 0, "diff web.yaml web.yaml"),
    ("import", 0, "import ovn.yaml"),
    ("import-to", 0, "import ovn.yaml --to cnp"),
];

#[test]
fn every_answer_is_written_as_it_was() {
    let other = WEB.replacen("port: 443", "port: 8443", 1).replace("2001:db8::/32", "2001:db8::/31");
    let named = WEB.replacen("  egress:\n", "  egress:\n  - {type: Allow, to: {dnsName: '*.foo.com'}}\n", 1);
    let files = Files::new(&[
        ("web.yaml", WEB),
        ("other.yaml", &other),
        ("named.yaml", &named),
        ("broken.yaml", BROKEN),
        ("cases.yaml", CASES),
        ("ovn.yaml", FOREIGN),
        ("endpoints.yaml", ENDPOINTS),
        ("answers.yaml", "www.foo.com: [1.2.3.4, '2001:db8::1']\nads.foo.com: [1.2.3.4]\n"),
    ]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let write = std::env::var("EGRESS_GOLDEN").is_ok_and(|value| value == "write");
    let mut different = Vec::new();
    for (name, code, line) in COMMANDS {
        for (format, ending) in [("table", "txt"), ("json", "json"), ("yaml", "yaml")] {
            let arguments: Vec<&str> = line.split(' ').chain(["-o", format]).collect();
            let run = files.agent(&arguments);
            assert_eq!(run.code, code, "{line}: {run:?}");
            if format == "json" {
                assert!(run.json()["version"].is_u64(), "{line} has no version");
            }
            // The report of `import -o yaml` is on standard error.
            let text = if run.err.is_empty() { run.out } else { format!("{}--- standard error\n{}", run.out, run.err) };
            let path = folder.join(format!("{name}.{ending}"));
            if write {
                fs::write(&path, text).unwrap();
            } else if fs::read_to_string(&path).unwrap_or_default() != text {
                different.push(format!("{} is now\n{text}", path.display()));
            }
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
