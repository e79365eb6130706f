//! What the agents of a large cluster ask of its API server, counted while the code of all of them runs.

use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::simulation::{Row, Size, float, record};

use super::server::{Count, node, node_path, policy, policy_path};
use super::writing::round;
use super::*;

/// What was asked since then, for the table; and the sum.
fn told(rows: &mut Vec<Row>, phase: &str, server: &Server, since: Instant) -> Count {
    let seconds = since.elapsed().as_secs_f64();
    let mut sum = Count::default();
    for ((verb, resource), count) in server.counts() {
        rows.push(Row {
            phase: format!("{phase} ({seconds:.0} s)"),
            what: format!("{verb} {resource}"),
            per_second: true,
            requests: if verb == "EVENT" { 0.0 } else { float(count.requests) / seconds },
            sent: float(count.sent) / seconds,
            received: float(count.received) / seconds,
        });
        if verb != "EVENT" {
            sum.requests += count.requests;
        }
    }
    sum
}

#[tokio::test(start_paused = true)]
async fn the_status_of_a_large_cluster_is_a_bounded_load() {
    let size = Size::read();
    let nodes = size.nodes;
    let mut rows = Vec::new();
    let server = Server::default();
    let clock = clock();
    let mut uids = Vec::new();
    for number in 0..size.policies {
        let name = format!("policy-{number:03}");
        let rules: Vec<_> = (0..10)
            .map(|rule| json!({"type": "Allow", "to": {"cidrSelector": format!("192.0.2.{rule}/32")}}))
            .collect();
        server.put(&policy_path("shop", &name), policy("shop", &name, &json!(rules)));
        let object = server.object(&policy_path("shop", &name)).unwrap();
        uids.push((name, object["metadata"]["uid"].as_str().unwrap().to_owned()));
    }
    // 50 pods, each under two policies of its own namespace's many.
    let generations = |changed: i64, all: bool| {
        let entry = |(index, (name, uid)): (usize, &(String, String))| {
            let generation = if all || index == 0 { changed } else { 1 };
            (name.clone(), uid.clone(), generation)
        };
        let entries: Vec<(String, String, i64)> = uids.iter().enumerate().map(entry).collect();
        let pods = u32::try_from(size.pods).unwrap() / 50;
        let entries: Vec<(&str, &str, i64, u32, u32)> = entries
            .iter()
            .map(|(name, uid, generation)| (name.as_str(), uid.as_str(), *generation, pods, pods))
            .collect();
        round(&entries, nodes)
    };
    let (rounds, receiver) = watch::channel(None);
    for number in 0..nodes {
        let name = format!("node-{number}");
        server.put(&node_path(&name), node(&name));
        tokio::spawn(run(server.client(), reporter(&name, &clock), receiver.clone(), std::future::pending()));
    }
    let began = Instant::now();
    rounds.send_replace(Some(generations(1, true)));
    sleep(Duration::from_mins(5)).await;
    told(&mut rows, "every agent starts", &server, began);

    let began = Instant::now();
    sleep(Duration::from_mins(30)).await;
    let quiet = told(&mut rows, "nothing changes", &server, began);
    // A renewal or two of each state; and who waits for the Lease: about ten ask every ten seconds, the others once a minute or, all
    // together, ten times a second.
    let asked = nodes.min(25) * 1800 / 10 + nodes.min(600) * 1800 / 60;
    let allowed = u64::try_from(nodes * 4 + asked * 5 / 4 + 1000).unwrap();
    assert!(quiet.requests < allowed, "{} requests where {allowed} are enough", quiet.requests);

    let path = policy_path("shop", "policy-000");
    let mut object = server.object(&path).unwrap();
    object["spec"]["egress"] = json!([]);
    server.put(&path, object);
    server.counts();
    let began = Instant::now();
    rounds.send_replace(Some(generations(2, false)));
    sleep(Duration::from_mins(1)).await;
    told(&mut rows, "a policy of every node changes", &server, began);
    record("status", size, &rows);
    let status = &server.object(&path).unwrap()["status"];
    assert_eq!(status["enforced"], format!("{nodes}/{nodes}"));
    assert_eq!(status["observedGeneration"], 2);
}
