//! The judges and the answer of small worlds. That they agree on random ones is tested through the binary.

use egress_policy::document::{self, Object};
use egress_policy::explain;

use super::cases::Expected;
use super::*;

const POLICY: &str = "
apiVersion: egress.rs/v1alpha1
kind: EgressNetworkPolicy
metadata: {name: web}
spec:
  egress:
  - {name: site, type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: TCP, port: 443}]}
  - {type: Deny, to: {cidrSelector: 0.0.0.0/0}}
  - {type: Deny, to: {cidrSelector: '::/0'}}
";

fn set() -> PolicySet {
    let mut set = PolicySet::default();
    for object in document::read(POLICY).objects {
        if let Object::Policy(policy) = object {
            set.insert(policy);
        }
    }
    set
}

fn pod() -> PodIdentity {
    PodIdentity { namespace: "default".into(), name: "curl".into(), ..PodIdentity::default() }
}

fn row(to: &str, expected: Option<Expected>) -> serde_json::Value {
    let probe = Probe { pod: pod(), to: to.parse().unwrap(), expected };
    let probes = [probe];
    let rows = judge_all(&judges(&set(), &probes).unwrap(), &probes, None, false).unwrap();
    serde_json::to_value(Tested::new(rows, false, None)).unwrap()
}

#[test]
fn a_verdict_without_a_port_says_whether_the_port_matters() {
    let judge = Judge::new(&set(), &pod()).unwrap();
    let verdict = |to: &str| judge.ask(to.parse().unwrap(), &[]).unwrap().verdict;
    assert_eq!(verdict("1.2.3.4"), explain::Verdict::DependsOnPort);
    assert_eq!(verdict("1.2.3.4/UDP"), explain::Verdict::Deny);
    assert_eq!(verdict("1.2.3.4:443"), explain::Verdict::Allow);
    assert_eq!(verdict("1.2.3.4:80"), explain::Verdict::Deny);
    assert_eq!(verdict("2001:db8::1"), explain::Verdict::Deny);
    assert_eq!(verdict("127.0.0.1"), explain::Verdict::Allow);
    assert_eq!(verdict("::1"), explain::Verdict::Allow);
}

#[test]
fn only_an_allow_without_conditions_passes() {
    assert_eq!(row("1.2.3.4:443", None)["passed"], true);
    assert_eq!(row("1.2.3.4", None)["passed"], false);
    assert_eq!(row("1.2.3.4", None)["probes"][0]["verdict"], "depends");
    assert_eq!(row("2001:db8::1", None)["passed"], false);
}

#[test]
fn an_expected_rule_is_known_by_name_text_or_origin() {
    let expect = |allow, rule: Option<&str>| {
        row("1.2.3.4:443", Some(Expected { allow, rule: rule.map(ToOwned::to_owned) }))["passed"] == true
    };
    assert!(expect(true, None));
    assert!(!expect(false, None));
    for rule in ["site", "Allow 1.2.3.0/24 TCP/443", "rule 1 of default/web"] {
        assert!(expect(true, Some(rule)), "{rule}");
    }
    assert!(!expect(true, Some("rule 2 of default/web")));
}
