//! What Prometheus and a kubelet get, asked over HTTP on the node of the world.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use egress_e2e::{ALLOWED, DENIED, Lab, OFFICE, PORT, Samples, at, document, get, policy, reaches, world};
use egress_world::{Agent, World, eventually};

const ADDRESS: &str = "127.0.0.1:9477";

fn address() -> SocketAddr {
    ADDRESS.parse().expect("an address")
}

fn lab<'w>(world: &'w World, policies: &str) -> Lab<'w> {
    let mut agent = Agent::new(world);
    agent.argument(&["--metrics-address", ADDRESS]);
    agent.write("policies.yaml", policies);
    agent.start();
    // The agent is ready before it listens.
    assert!(eventually(|| world.node().enter(|| std::net::TcpStream::connect(address()).is_ok())));
    Lab::with_agent(world, agent)
}

fn rule(number: u8) -> [String; 2] {
    ["policy=\"default/office\"".to_owned(), format!("rule=\"{number}\"")]
}

fn counted(world: &World, number: u8, verdict: &str) -> f64 {
    let [policy, rule] = rule(number);
    let labels = [policy.as_str(), &rule, &format!("verdict=\"{verdict}\""), "direction=\"egress\""];
    Samples::scrape(world, address()).sum("egress_verdicts_total", &labels)
}

#[test]
fn verdicts_are_counted_by_policy_and_rule_and_totals_survive_a_change_and_a_restart() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = lab(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    for ((allowed, denied), (allows, denies)) in ALLOWED.into_iter().zip(DENIED).zip([(1, 3), (2, 4)]) {
        assert!(counted(&world, allows, "allow") < 0.5 && counted(&world, denies, "deny") < 0.5);
        assert!(reaches(pod, at(allowed, PORT)) && !reaches(pod, at(denied, PORT)));
        assert!(counted(&world, allows, "allow") > 0.5, "{allowed}");
        assert!((counted(&world, denies, "deny") - 1.0).abs() < 0.1, "{denied}: {}", counted(&world, denies, "deny"));
    }
    // Another rule list is another table, with counters of its own.
    lab.agent.apply(&policy(&[&OFFICE[..], &["Deny 9.9.9.9/32"]].concat()));
    assert!(!reaches(pod, at(DENIED[0], PORT)));
    assert!((counted(&world, 3, "deny") - 2.0).abs() < 0.1, "{}", counted(&world, 3, "deny"));
    let before = counted(&world, 1, "allow");
    lab.agent.kill();
    assert!(!reaches(pod, at(DENIED[0], PORT)), "counted while nobody looks");
    lab.agent.start();
    assert!(eventually(|| world.node().enter(|| std::net::TcpStream::connect(address()).is_ok())));
    assert!((counted(&world, 3, "deny") - 3.0).abs() < 0.1, "{}", counted(&world, 3, "deny"));
    assert!(counted(&world, 1, "allow") >= before);
}

#[test]
fn maps_pods_rounds_and_events_are_told() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let trial = document("trial", &["mode: Audit", "priority: 1"], &["Deny 1.2.3.0/24"]);
    let lab = lab(&world, &(policy(&OFFICE) + &trial));
    let pod = world.pod("client");
    assert!(reaches(pod, at("1.2.3.4", PORT)) && !reaches(pod, at(DENIED[0], PORT)));
    let told = |labels: &[&str]| Samples::scrape(&world, address()).sum("egress_events_total", labels);
    assert!(eventually(|| told(&["namespace=\"default\"", "outcome=\"denied\""]) > 0.5));
    assert!(eventually(|| told(&["namespace=\"default\"", "outcome=\"would-deny\""]) > 0.5));
    let samples = Samples::scrape(&world, address());
    let one = |metric: &str, labels: &[&str], expected: f64| {
        let value = samples.sum(metric, labels);
        assert!((value - expected).abs() < 0.1, "{metric} {labels:?} is {value}");
    };
    one("egress_map_entries", &["map=\"endpoints\""], 1.0);
    one("egress_map_capacity", &["map=\"endpoints\""], 4096.0);
    one("egress_endpoints_desired", &[], 1.0);
    one("egress_endpoints_realized", &[], 1.0);
    one("egress_endpoints_pending", &[], 0.0);
    one("egress_policies", &[], 2.0);
    one("egress_problems", &[], 0.0);
    one("egress_events_lost_total", &[], 0.0);
    one("egress_hook_attachments", &["hook=\"connect6\""], 1.0);
    one("egress_watch_directories", &["state=\"unwatched\""], 0.0);
    assert!(samples.sum("egress_watch_directories", &["state=\"watched\""]) > 0.5);
    assert!(samples.sum("egress_apply_duration_seconds_count", &[]) > 0.5);
    assert!(samples.sum("egress_verdicts_total", &["policy=\"default/trial\"", "verdict=\"audit-deny\""]) > 0.5);
    assert!(samples.sum("egress_denials_total", &["reason=\"policy\""]) > 0.5);
    lab.agent.apply(&policy(&["Allow non/sense"]));
    assert!(Samples::scrape(&world, address()).sum("egress_problems", &[]) > 0.5);
}

/// Metric names in a text; those of histograms without what Prometheus adds to them.
fn named(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c| !is_name(c)).filter(|word| word.starts_with("egress_"));
    words.map(base).collect()
}

fn base(name: &str) -> String {
    let suffixes = ["_bucket", "_count", "_sum"];
    let bare = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).filter(|bare| bare.ends_with("_seconds"));
    bare.unwrap_or(name).to_owned()
}

#[test]
fn the_dashboard_and_the_alerts_name_only_metrics_that_there_are_and_the_page_names_all() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = lab(&world, &policy(&OFFICE));
    assert!(!reaches(world.pod("client"), at(DENIED[0], PORT)));
    assert!(eventually(|| lab.agent.events().len() == 1));
    let scraped: BTreeSet<String> = Samples::scrape(&world, address()).metrics().map(base).collect();
    let dashboard = include_str!("../../../../deploy/monitoring/dashboard.json");
    let alerts = include_str!("../../../../deploy/monitoring/alerts.yaml");
    for (file, text) in [("dashboard", dashboard), ("alerts", alerts)] {
        let of_files = |name: &String| !name.starts_with("egress_api_");
        let unknown: Vec<_> = named(text).into_iter().filter(of_files).filter(|name| !scraped.contains(name)).collect();
        assert!(named(text).len() >= 6 && unknown.is_empty(), "the {file} names {unknown:?}");
    }
    let page = include_str!("../../../../docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(ToOwned::to_owned));
    // Those of the API server's watches are there under --kubernetes only.
    let rows = rows.filter(|row| !row.starts_with("egress_api_"));
    assert_eq!(rows.collect::<BTreeSet<_>>(), scraped, "docs/metrics.md and the scrape differ");
}

#[test]
fn a_kubelet_is_told_that_the_agent_lives_and_is_ready() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let _lab = lab(&world, &policy(&OFFICE));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(&world, address(), path), (200, "ok\n".to_owned()), "{path}");
    }
    assert_eq!(get(&world, address(), "/nothing").0, 404);
}
