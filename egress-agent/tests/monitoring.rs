//! What is in deploy/monitoring is accepted by Prometheus's own tool, and the alerts fire where they should.
#![expect(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/monitoring")
}

fn promtool(arguments: &[&str], folder: &std::path::Path) -> (bool, String) {
    let output = Command::new("promtool").args(arguments).current_dir(folder).output();
    let output = output.expect("promtool is in Debian's package prometheus: run `cargo xtask setup`");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn the_alert_rules_are_valid_and_fire_where_they_should() {
    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts-test.yaml"]] {
        let (good, said) = promtool(&arguments, &folder());
        assert!(good, "{arguments:?}: {said}");
    }
}

#[test]
fn the_tests_of_the_alerts_fail_if_any_alert_goes() {
    let alerts = fs::read_to_string(folder().join("alerts.yaml")).unwrap();
    let (head, rest) = alerts.split_once("  - alert: ").unwrap();
    let rules: Vec<&str> = rest.split("  - alert: ").collect();
    assert_eq!(rules.len(), 14);
    for absent in &rules {
        let kept: Vec<&str> =
            rules.iter().filter(|rule| *rule != absent).flat_map(|rule| ["  - alert: ", rule]).collect();
        let copy = tempfile::tempdir().unwrap();
        fs::write(copy.path().join("alerts.yaml"), format!("{head}{}", kept.concat())).unwrap();
        fs::copy(folder().join("alerts-test.yaml"), copy.path().join("alerts-test.yaml")).unwrap();
        let (good, said) = promtool(&["test", "rules", "alerts-test.yaml"], copy.path());
        assert!(!good, "nobody misses {}: {said}", absent.lines().next().unwrap());
    }
}

#[test]
fn the_dashboard_has_a_query_in_every_panel() {
    let text = fs::read_to_string(folder().join("dashboard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() >= 15);
    for panel in panels {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{}", panel["title"]);
        for target in targets {
            let query = target["expr"].as_str().unwrap();
            // Variables of Grafana, filled in as it would.
            let query = query.replace("$__rate_interval", "5m").replace("$instance", ".*");
            let rule =
                format!("groups: [{{name: x, rules: [{{record: 'a:b', expr: '{}'}}]}}]", query.replace('\'', "''"));
            let copy = tempfile::tempdir().unwrap();
            fs::write(copy.path().join("rule.yaml"), rule).unwrap();
            let (good, said) = promtool(&["check", "rules", "rule.yaml"], copy.path());
            assert!(good, "{}: {said}", panel["title"]);
        }
    }
}
