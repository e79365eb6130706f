//! The node's taint: taken off once, and never from under somebody else.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::server::{node, node_path};
use super::taint::TAINT;
use super::*;

struct Lab {
    server: Server,
    rounds: watch::Sender<Option<Round>>,
}

fn taint(key: &str) -> Value {
    json!({"key": key, "effect": "NoSchedule"})
}

fn tainted(name: &str, keys: &[&str]) -> Value {
    let mut node = node(name);
    node["spec"] = json!({"taints": keys.iter().map(|key| taint(key)).collect::<Vec<_>>(), "podCIDR": "10.244.0.0/24"});
    node
}

/// An agent on a node with these taints, before its first round.
fn lab(keys: &[&str]) -> Lab {
    let server = Server::default();
    server.put(&node_path("a"), tainted("a", keys));
    server.put(&node_path("b"), tainted("b", keys));
    let (rounds, receiver) = watch::channel(None);
    let client = server.client();
    tokio::spawn(async move { taint::remove(client, "a", receiver).await });
    Lab { server, rounds }
}

impl Lab {
    fn enforces(&self) {
        self.rounds.send_replace(Some(Round::default()));
    }

    fn node(&self, name: &str) -> Value {
        self.server.object(&node_path(name)).unwrap()
    }

    fn keys(&self, name: &str) -> Vec<String> {
        let taints = self.node(name)["spec"]["taints"].as_array().cloned().unwrap_or_default();
        taints.iter().map(|taint| taint["key"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn the_taint_goes_when_the_kernel_enforces_and_not_before() {
    let lab = lab(&["dedicated", TAINT, TAINT]);
    sleep(Duration::from_mins(10)).await;
    assert_eq!(lab.keys("a").len(), 3);
    lab.enforces();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(lab.keys("a"), ["dedicated"]);
    assert_eq!(lab.node("a")["spec"]["podCIDR"], "10.244.0.0/24");
    assert_eq!(lab.keys("b").len(), 3, "another node is its own agent's affair");
    // The Node is deleted and registered anew.
    lab.server.put(&node_path("a"), tainted("a", &[TAINT]));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(lab.keys("a"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_node_without_it_is_not_written() {
    let lab = lab(&["dedicated"]);
    lab.enforces();
    sleep(Duration::from_mins(1)).await;
    lab.server.put(&node_path("a"), tainted("a", &["dedicated", "other"]));
    sleep(Duration::from_mins(1)).await;
    assert_eq!(lab.server.writes(), []);
}

#[tokio::test(start_paused = true)]
async fn a_taint_that_somebody_adds_meanwhile_is_not_lost() {
    let lab = lab(&[TAINT]);
    lab.server.surprise(Method::PATCH, &node_path("a"), tainted("a", &[TAINT, "node.kubernetes.io/unschedulable"]));
    lab.enforces();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(lab.keys("a"), ["node.kubernetes.io/unschedulable"]);
    assert_eq!(lab.server.writes().len(), 2, "the first was refused");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_or_fails_is_tried_again() {
    for (method, code) in [(Method::PATCH, 403), (Method::PATCH, 409), (Method::PATCH, 500), (Method::GET, 503)] {
        let lab = lab(&[TAINT]);
        lab.server.fail(method.clone(), "/nodes", code, 5);
        lab.enforces();
        sleep(Duration::from_mins(5)).await;
        assert_eq!(lab.keys("a"), [""; 0], "{method} {code}");
    }
}
