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
    assert_eq!(rules.len(), 19);
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

/// `docs/metrics.md` is held to what is scraped by an end-to-end test, so every metric that exists is in the dashboard.
#[test]
fn the_dashboard_shows_every_metric() {
    let page = fs::read_to_string(folder().join("../../docs/metrics.md")).unwrap();
    let metrics: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name).collect();
    assert!(metrics.len() > 40, "{metrics:?}");
    let text = fs::read_to_string(folder().join("dashboard.json")).unwrap();
    let shown = |metric: &str| {
        text.match_indices(metric).any(|(at, _)| {
            let rest = text.get(at + metric.len()..).unwrap_or_default();
            rest.strip_prefix("_bucket").unwrap_or(rest).starts_with(['{', ','])
        })
    };
    let missing: Vec<&str> = metrics.into_iter().filter(|metric| !shown(metric)).collect();
    assert!(missing.is_empty(), "{missing:?} are in no panel");
}

#[test]
fn panels_do_not_overlap_and_have_numbers_of_their_own() {
    let text = fs::read_to_string(folder().join("dashboard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut taken = std::collections::BTreeMap::new();
    let mut numbers = std::collections::BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24 && numbers.insert(panel["id"].as_u64().unwrap()), "{}", panel["title"]);
        for (x, y) in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert_eq!(taken.insert((x, y), &panel["title"]), None, "{} lies on another one", panel["title"]);
        }
    }
}
