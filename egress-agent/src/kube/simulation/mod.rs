//! The watches of an agent in a large cluster: what it asks for when it starts, and what it is sent while pods come and go.

mod objects;
mod server;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::simulation::{Row, Size, float, floats, record};
use server::Server;

const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/pods";
const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const POLICIES: &str = "/apis/egress.rs/v1alpha1/egressnetworkpolicies";
const CONFIGS: &str = "/apis/egress.rs/v1alpha1/egressconfigs";

/// A node's object changes so often if nothing happens (kubelet's `nodeStatusReportFrequency`).
const NODE_REPORTS: f64 = 300.0;
/// How long a pod lives.
const POD_LIFE: f64 = 86_400.0;
/// Versions of a pod's object in its life, as its node sees them; and of its service's slice, of which a controller makes fewer where many
/// pods change at once.
const POD_VERSIONS: f64 = 6.0;
const SLICE_VERSIONS: f64 = 4.0;
/// Versions of policies in a second: one change in a minute, and its status twice.
const POLICY_VERSIONS: f64 = 3.0 / 60.0;
/// Between two bookmarks of a watch.
const BOOKMARKS: u64 = 60;
/// Longer than a watch lasts.
const WATCHED: u64 = 300;

fn cluster(size: Size) -> Server {
    let server = Server::default();
    let pods = size.nodes * size.pods;
    let services = pods.div_ceil(objects::ENDPOINTS);
    server.hold(NODES, (0..size.nodes).map(|node| objects::node(node, 1)).collect());
    server.hold(PODS, (0..size.pods).map(|pod| objects::pod(pod, "node-0", 1)).collect());
    server.hold(SERVICES, (0..services).map(objects::service).collect());
    server.hold(SLICES, (0..services).map(|service| objects::slice(service, objects::ENDPOINTS, 1)).collect());
    server.hold("/api/v1/namespaces", (0..size.nodes.div_ceil(10)).map(objects::namespace).collect());
    server.hold(POLICIES, (0..size.policies).map(|policy| objects::policy(policy, 1)).collect());
    let cidrs = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16", "fd00:96::/112"]}});
    server.hold("/apis/networking.k8s.io/v1/servicecidrs", vec![cidrs]);
    server
}

fn config(spec: &Value) -> Vec<Value> {
    vec![json!({"metadata": {"name": "default", "generation": 1, "resourceVersion": "2"}, "spec": spec})]
}

fn internal() -> Vec<Value> {
    config(&json!({"internalCIDRs": ["10.128.0.0/9", "10.96.0.0/16", "fd00::/16"]}))
}

/// An agent's half that speaks to the API server.
fn agent(server: &Server, slices: Slices) -> (Feed, JoinHandle<()>) {
    let settings =
        Settings { kubeconfig: None, node: "node-0".into(), compat: Vec::new(), slices, remove_taint: false };
    let (client, feed) = (server.client(), Feed::default());
    let filled = feed.clone();
    let task = tokio::spawn(async move { follow(client, &settings, &filled, &Arc::default(), || ()).await });
    (feed, task)
}

/// What changes in a while, evenly spread.
async fn live(server: &Server, size: Size) {
    let pods = floats(size.nodes * size.pods);
    let services = (size.nodes * size.pods).div_ceil(objects::ENDPOINTS);
    let rates = [
        floats(size.nodes) / NODE_REPORTS,
        pods / POD_LIFE * SLICE_VERSIONS,
        floats(size.pods) / POD_LIFE * POD_VERSIONS,
        POLICY_VERSIONS,
    ];
    let mut due = [0.0; 4];
    let mut version = 1000;
    for second in 1..=WATCHED {
        for (kind, rate) in rates.iter().enumerate() {
            due[kind] += rate;
            while due[kind] >= 1.0 {
                due[kind] -= 1.0;
                version += 1;
                let number = usize::try_from(version).unwrap();
                match kind {
                    0 => server.tell(NODES, &objects::node(number % size.nodes, version)),
                    1 => server.tell(SLICES, &objects::slice(number % services, objects::ENDPOINTS, version)),
                    2 => server.tell(PODS, &objects::pod(number % size.pods, "node-0", version)),
                    _ => server.tell(POLICIES, &objects::policy(number % size.policies, version)),
                }
            }
        }
        if second % BOOKMARKS == 0 {
            server.bookmark(version);
        }
        sleep(Duration::from_secs(1)).await;
    }
}

fn rows(server: &Server, phase: &str, size: Size, seconds: Option<f64>) -> Vec<Row> {
    let all = floats(size.nodes) / seconds.unwrap_or(1.0);
    let row = |((verb, resource), count): ((&str, String), server::Count)| Row {
        phase: phase.to_owned(),
        what: format!("{verb} {resource}"),
        per_second: seconds.is_some(),
        requests: float(count.requests) * all,
        sent: 0.0,
        received: float(count.received) * all,
    };
    server.counts().into_iter().map(row).collect()
}

fn received(rows: &[Row], what: &str) -> f64 {
    rows.iter().filter(|row| row.what.ends_with(what)).map(|row| row.received).sum()
}

#[tokio::test(start_paused = true)]
async fn what_an_agent_watches_is_counted_and_can_be_less() {
    let size = Size::read();
    let mut all = Vec::new();
    let mut lives = Vec::new();
    for (name, settings, slices) in
        [("as installed", Vec::new(), Slices::All), ("for large clusters", internal(), Slices::Unmanaged)]
    {
        let server = cluster(size);
        server.hold(CONFIGS, settings);
        let (feed, task) = agent(&server, slices);
        while feed.latest().is_none() {
            sleep(Duration::from_millis(100)).await;
        }
        let first = feed.latest().unwrap();
        assert_eq!((first.node_count, first.services.len()), (size.nodes, 0), "every service leads to pods");
        all.extend(rows(&server, &format!("{name}: every agent starts"), size, None));
        live(&server, size).await;
        let living = rows(&server, &format!("{name}: every second"), size, Some(float(WATCHED)));
        assert!(
            received(&living, "EVENT policies").abs() < f64::EPSILON
                && received(&living, "egressnetworkpolicies") > 0.0
        );
        all.extend(living.clone());
        lives.push(living);
        task.abort();
    }
    record("watch", size, &all);
    let [installed, large] = lives.as_slice() else { panic!("two ways") };
    assert!(received(installed, "EVENT nodes") > 0.0 && received(installed, "EVENT endpointslices") > 0.0);
    assert!(received(large, "EVENT nodes").abs() < f64::EPSILON, "nodes are not watched");
    assert!(received(large, "EVENT endpointslices").abs() < f64::EPSILON, "nor what the controller keeps");
}

#[tokio::test(start_paused = true)]
async fn nodes_are_watched_while_somebody_needs_them_and_counted_otherwise() {
    let size = Size { nodes: 7, policies: 2, pods: 3 };
    let server = cluster(size);
    server.hold(CONFIGS, internal());
    let (feed, _task) = agent(&server, Slices::All);
    let settle = || sleep(Duration::from_secs(10));
    settle().await;
    let view = feed.latest().unwrap();
    assert_eq!((server.watches(NODES), view.nodes.len(), view.node_count), (0, 0, 7));
    assert!(server.requests().iter().any(|request| request.starts_with(NODES) && request.contains("limit=1")));
    // A rule that selects nodes, here in a version that is not valid: whatever may need them counts.
    let mut selects = objects::policy(0, 2000);
    selects["spec"]["egress"][0] =
        json!({"type": "Deny", "to": {"nodeSelector": {"matchLabels": {"a": "b"}}, "nope": 1}});
    server.tell(POLICIES, &selects);
    settle().await;
    assert_eq!((server.watches(NODES), feed.latest().unwrap().nodes.len()), (1, 7));
    server.tell(POLICIES, &objects::policy(0, 2001));
    settle().await;
    let view = feed.latest().unwrap();
    assert_eq!((server.watches(NODES), view.nodes.len(), view.node_count), (0, 0, 7));
    // Settings that no longer say what is internal, or that are broken.
    for (version, spec) in [("2002", json!({})), ("2003", json!({"internalCIDRs": ["10.0.0.0/8"], "nope": 1}))] {
        for (version, spec, watched) in [(version, spec, 1), ("2010", json!({"internalCIDRs": ["10.0.0.0/8"]}), 0)] {
            let mut config = config(&spec).remove(0);
            config["metadata"]["resourceVersion"] = json!(version);
            server.tell(CONFIGS, &config);
            settle().await;
            assert_eq!(server.watches(NODES), watched, "{spec}");
        }
    }
}

/// §1.2: without the nodes the pods' CIDRs would be external for a moment, and a Deny would cut pods off from their cluster.
#[tokio::test(start_paused = true)]
async fn no_view_is_published_between_the_end_of_internal_cidrs_and_the_listing_of_the_nodes() {
    let server = cluster(Size { nodes: 3, policies: 1, pods: 1 });
    server.hold(CONFIGS, internal());
    let (feed, _task) = agent(&server, Slices::All);
    sleep(Duration::from_secs(10)).await;
    let mut config = config(&json!({})).remove(0);
    config["metadata"]["resourceVersion"] = json!("2002");
    server.tell(CONFIGS, &config);
    for _ in 0..2000 {
        sleep(Duration::from_millis(1)).await;
        let view = feed.latest().unwrap();
        let lists =
            view.texts.iter().any(|text| text.text.as_ref().is_ok_and(|text| text.body.contains("internalCIDRs")));
        assert!(lists || view.internal.all().is_some(), "{:?}", view.internal);
    }
    assert!(feed.latest().unwrap().internal.all().is_some());
}

/// §1.6: who writes a slice writes its labels too.
#[tokio::test(start_paused = true)]
async fn slices_that_pretend_to_be_kept_by_the_controller_are_seen_where_no_selector_finds_endpoints() {
    let server = cluster(Size { nodes: 2, policies: 1, pods: 50 });
    let mut by_hand = objects::service(7);
    by_hand["metadata"]["name"] = json!("by-hand");
    by_hand["spec"].as_object_mut().unwrap().remove("selector");
    let mut pretends = objects::slice(7, 1, 1);
    pretends["metadata"]["name"] = json!("by-hand-1");
    pretends["metadata"]["labels"]["kubernetes.io/service-name"] = json!("by-hand");
    pretends["endpoints"][0]["addresses"] = json!(["5.6.7.8"]);
    // Beside the controller's own slices of a service with a selector.
    let mut beside = objects::slice(0, 1, 1);
    beside["metadata"]["name"] = json!("beside");
    beside["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] = json!("somebody");
    beside["endpoints"][0]["addresses"] = json!(["1.2.3.4"]);
    server.hold(SERVICES, vec![objects::service(0), by_hand.clone()]);
    server.hold(SLICES, vec![objects::slice(0, 100, 1), pretends, beside]);
    let (feed, _task) = agent(&server, Slices::Unmanaged);
    sleep(Duration::from_secs(10)).await;
    let endpoints = |feed: &Feed| {
        let view = feed.latest().unwrap();
        let all = view.services.iter().flat_map(|service| &service.endpoints).map(|endpoint| endpoint.ip().to_string());
        let mut all: Vec<String> = all.collect();
        all.sort_unstable();
        all
    };
    assert_eq!(endpoints(&feed), ["1.2.3.4", "5.6.7.8"]);
    // A service that loses its selector is looked at from then on.
    let mut bare = objects::service(0);
    bare["metadata"]["resourceVersion"] = json!("3000");
    bare["spec"].as_object_mut().unwrap().remove("selector");
    server.tell(SERVICES, &bare);
    sleep(Duration::from_secs(10)).await;
    assert!(server.requests().iter().any(|request| request.contains("service-0") && request.contains("by-hand")));
}
