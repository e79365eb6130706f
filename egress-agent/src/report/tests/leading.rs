//! Who folds: the Lease, how it is taken, kept, lost and given up.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::server::{LEASE_PATH, conditions, node, node_path, policy, policy_path, state_path};
use super::writing::round;
use super::*;
use crate::kube::Reference;

struct Lab {
    server: Server,
    clock: Clock,
    agents: Vec<Agent>,
}

/// What its rounds are told by, its task, and what ends it.
type Agent = (watch::Sender<Option<Round>>, JoinHandle<()>, oneshot::Sender<()>);

/// Agents as they run, each with its node.
fn lab(nodes: &[&str]) -> Lab {
    let mut lab = Lab { server: Server::default(), clock: clock(), agents: Vec::new() };
    for name in nodes {
        lab.server.put(&node_path(name), node(name));
        lab.start(name);
    }
    lab
}

impl Lab {
    fn start(&mut self, node: &str) {
        let (rounds, receiver) = watch::channel(Some(Round { nodes: 2, ..Round::default() }));
        let (stop, stopped) = oneshot::channel();
        let stopped = async { drop(stopped.await) };
        let agent = run(self.server.client(), reporter(node, &self.clock), receiver, stopped);
        self.agents.push((rounds, tokio::spawn(agent), stop));
    }

    fn put(&self, rules: &Value) -> (String, i64) {
        let path = policy_path("shop", "web");
        let mut object = policy("shop", "web", rules);
        if let Some(before) = self.server.object(&path) {
            object["status"] = before["status"].clone();
        }
        self.server.put(&path, object);
        let metadata = self.policy()["metadata"].clone();
        (metadata["uid"].as_str().unwrap().to_owned(), metadata["generation"].as_i64().unwrap())
    }

    fn policy(&self) -> Value {
        self.server.object(&policy_path("shop", "web")).unwrap()
    }

    fn say(&self, agent: usize, uid: &str, generation: i64, enforced: u32) {
        self.agents[agent].0.send_replace(Some(round(&[("web", uid, generation, 2, enforced)], 2)));
    }

    fn condition(&self, kind: &str) -> (String, String) {
        conditions(&self.policy()).get(kind).cloned().unwrap_or_default()
    }
}

fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

fn rules() -> Value {
    json!([{"type": "Allow", "to": {"cidrSelector": "192.0.2.0/24"}}, {"type": "Deny", "to": {"cidrSelector": "0.0.0.0/0"}}])
}

#[tokio::test(start_paused = true)]
async fn a_policy_becomes_enforced_when_every_node_has_it_and_says_so_until_then() {
    let lab = lab(&["a", "b"]);
    let (uid, first) = lab.put(&rules());
    lab.say(0, &uid, first, 2);
    lab.say(1, &uid, first, 1);
    sleep(Duration::from_mins(2)).await;
    assert_eq!(lab.policy()["status"]["enforced"], "1/2");
    assert_eq!(lab.policy()["status"]["rules"], 2);
    assert_eq!(lab.condition("Accepted"), pair("True", "Accepted"));
    assert_eq!(lab.condition("Enforced"), pair("False", "Waiting"));
    lab.say(1, &uid, first, 2);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(lab.policy()["status"]["enforced"], "2/2");
    assert_eq!(lab.condition("Enforced"), pair("True", "Enforced"));
    // Another version, not everywhere.
    let (_, second) = lab.put(&json!([]));
    lab.say(0, &uid, second, 2);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(lab.policy()["status"]["observedGeneration"], second);
    assert_eq!(lab.policy()["status"]["enforced"], "1/2");
    assert_eq!(lab.condition("Enforced"), pair("False", "Waiting"));
}

#[tokio::test(start_paused = true)]
async fn a_new_policy_is_not_called_enforced_before_its_nodes_could_speak() {
    let lab = lab(&["a"]);
    sleep(Duration::from_mins(1)).await;
    let (uid, generation) = lab.put(&rules());
    sleep(Duration::from_secs(7)).await;
    assert_eq!(lab.condition("Enforced"), pair("Unknown", "Waiting"));
    lab.say(0, &uid, generation, 2);
    // Two nodes spread their writes over a hundredth of a second, and have a second and ten more: nobody waits for the next review.
    sleep(Duration::from_secs(12)).await;
    assert_eq!(lab.condition("Enforced"), pair("True", "Enforced"));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_says_why_and_is_announced_once() {
    let lab = lab(&["a"]);
    let (uid, first) = lab.put(&rules());
    lab.say(0, &uid, first, 2);
    sleep(Duration::from_mins(2)).await;
    lab.server.counts();
    lab.put(&json!([{"type": "Allow", "to": {"cidrSelector": "192.0.2.0/24"}, "prot": []}]));
    sleep(Duration::from_mins(5)).await;
    assert_eq!(lab.condition("Accepted"), pair("False", "Invalid"));
    assert_eq!(lab.condition("Enforced"), pair("False", "NotAccepted"));
    let accepted = &lab.policy()["status"]["conditions"][0]["message"];
    assert!(accepted.as_str().unwrap().contains("prot: this field is not known"), "{accepted}");
    assert_eq!(lab.policy()["status"]["rules"], 2, "the last valid version stays in force");
    let events = lab.server.counts().get(&("POST".to_owned(), "events".to_owned())).copied().unwrap_or_default();
    assert_eq!(events.requests, 1);
    lab.put(&rules());
    sleep(Duration::from_secs(30)).await;
    assert_eq!(lab.condition("Accepted"), pair("True", "Accepted"));
}

#[tokio::test(start_paused = true)]
async fn many_broken_policies_make_no_storm_of_events_and_none_is_forgotten() {
    let lab = lab(&["a"]);
    for number in 0..60 {
        let broken = policy("shop", &format!("broken-{number}"), &json!([{"type": "Perhaps"}]));
        lab.server.put(&policy_path("shop", &format!("broken-{number}")), broken);
    }
    let events = || lab.server.below("/apis/events.k8s.io/v1/namespaces/shop/events/").len();
    sleep(Duration::from_secs(30)).await;
    let at_once = events();
    assert!((25..=31).contains(&at_once), "{at_once}: 25, and one more in five seconds");
    sleep(Duration::from_mins(4)).await;
    assert_eq!(events(), 60);
    lab.server.counts();
    sleep(Duration::from_mins(30)).await;
    assert!(!lab.server.counts().keys().any(|(_, resource)| resource == "events"), "each is said once");
}

#[tokio::test(start_paused = true)]
async fn foreign_objects_that_are_refused_or_mean_something_else_get_an_event_each() {
    let lab = lab(&["a", "b"]);
    let object = |name: &str, generation| Reference {
        api_version: "k8s.ovn.org/v1".to_owned(),
        kind: "EgressFirewall".to_owned(),
        namespace: Some("shop".to_owned()),
        name: name.to_owned(),
        uid: format!("uid-of-{name}"),
        generation,
    };
    let say = |generation| {
        let broken = vec!["spec.egress[0]: nonsense is no CIDR".to_owned()];
        let broken = ForeignRound { object: object("broken", generation), is_refused: true, messages: broken };
        let other = vec!["a rule is wider here".to_owned()];
        let other = ForeignRound { object: object("other", 1), is_refused: false, messages: other };
        let round = Round { nodes: 2, foreign: vec![broken, other], ..Round::default() };
        for (rounds, ..) in &lab.agents {
            rounds.send_replace(Some(round.clone()));
        }
    };
    say(1);
    sleep(Duration::from_mins(5)).await;
    let events = || lab.server.below("/apis/events.k8s.io/v1/namespaces/shop/events/");
    let told = |events: &[Value]| {
        let text = |event: &Value, pointer: &str| event.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        let fields = ["/regarding/kind", "/regarding/name", "/regarding/uid", "/reason", "/type"];
        let mut told: Vec<_> = events.iter().map(|event| fields.map(|field| text(event, field)).join(" ")).collect();
        told.sort_unstable();
        told
    };
    let expected =
        ["EgressFirewall broken uid-of-broken Invalid Warning", "EgressFirewall other uid-of-other Differs Warning"];
    assert_eq!(told(&events()), expected, "by one of the two agents, once");
    assert!(events().iter().any(|event| event["note"].as_str().unwrap().contains("nonsense")));
    lab.server.counts();
    sleep(Duration::from_mins(5)).await;
    say(2);
    sleep(Duration::from_mins(5)).await;
    let counts = lab.server.counts();
    let asked = |verb: &str| counts.get(&(verb.to_owned(), "events".to_owned())).map_or(0, |count| count.requests);
    // The second of its kind: the client makes it a series.
    assert_eq!((asked("POST"), asked("PATCH"), events().len()), (0, 1, 2), "another version is another matter");
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_right_is_not_written_again() {
    let lab = lab(&["a", "b"]);
    let (uid, generation) = lab.put(&rules());
    lab.say(0, &uid, generation, 2);
    lab.say(1, &uid, generation, 2);
    sleep(Duration::from_mins(3)).await;
    let before = lab.policy();
    lab.server.counts();
    sleep(Duration::from_hours(1)).await;
    let counts = lab.server.counts();
    assert!(!counts.keys().any(|(_, resource)| resource == "egressnetworkpolicies/status"), "{counts:?}");
    assert_eq!(lab.policy(), before);
}

#[tokio::test(start_paused = true)]
async fn the_next_leader_goes_on_and_keeps_the_times() {
    let mut lab = lab(&["a"]);
    let (uid, generation) = lab.put(&rules());
    lab.say(0, &uid, generation, 2);
    sleep(Duration::from_mins(2)).await;
    let before = lab.policy();
    lab.agents[0].1.abort();
    lab.server.put(&node_path("b"), node("b"));
    lab.start("b");
    sleep(Duration::from_mins(3)).await;
    assert_eq!(lab.policy()["status"], before["status"]);
    // The agent of a is silent, and its node ready: nobody knows.
    sleep(Duration::from_mins(40)).await;
    assert_eq!(lab.condition("Enforced"), pair("Unknown", "AgentSilent"));
    assert_eq!(lab.policy()["status"]["enforced"], "0/0");
    // A node that is gone takes its state with it, and leaves the count.
    lab.server.remove(&state_path("a"));
    lab.server.remove(&node_path("a"));
    sleep(Duration::from_mins(2)).await;
    assert_eq!(lab.condition("Enforced"), pair("True", "NoPods"));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_ends_gives_the_lease_up_and_the_next_one_leads_at_its_next_question() {
    let mut lab = lab(&["a"]);
    let (uid, first) = lab.put(&rules());
    lab.say(0, &uid, first, 2);
    sleep(Duration::from_mins(2)).await;
    lab.server.put(&node_path("b"), node("b"));
    lab.start("b");
    sleep(Duration::from_mins(1)).await;
    let holder = |lab: &Lab| lab.server.object(LEASE_PATH).unwrap()["spec"]["holderIdentity"].clone();
    assert_eq!(holder(&lab), "a");
    let (_, second) = lab.put(&json!([]));
    let (_, agent, stop) = lab.agents.remove(0);
    let began = Instant::now();
    stop.send(()).unwrap();
    agent.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(holder(&lab), "");
    // Ten seconds, and a fifth of them, are the longest between two questions.
    sleep(Duration::from_secs(13)).await;
    assert_eq!(holder(&lab), "b");
    lab.say(0, &uid, second, 2);
    sleep(Duration::from_mins(1)).await;
    assert_eq!(lab.policy()["status"]["observedGeneration"], second);
    assert_eq!(lab.condition("Enforced"), pair("False", "Waiting"), "b says so, and not what a said last");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_lead_or_cannot_say_so_ends_all_the_same() {
    let mut lab = lab(&["a"]);
    sleep(Duration::from_mins(1)).await;
    lab.server.put(&node_path("b"), node("b"));
    lab.start("b");
    sleep(Duration::from_mins(1)).await;
    lab.server.counts();
    let (_, follower, stop) = lab.agents.remove(1);
    stop.send(()).unwrap();
    follower.await.unwrap();
    assert_eq!(lab.server.object(LEASE_PATH).unwrap()["spec"]["holderIdentity"], "a");
    for (method, code) in [(Method::GET, 500), (Method::PUT, 409), (Method::PUT, 429)] {
        lab.server.fail(method, "leases", code, usize::MAX);
        let (_, leader, stop) = lab.agents.remove(0);
        let began = Instant::now();
        stop.send(()).unwrap();
        leader.await.unwrap();
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "the time that a pod is given to end: {:?}",
            began.elapsed()
        );
        assert_eq!(lab.server.object(LEASE_PATH).unwrap()["spec"]["holderIdentity"], "a", "{code}");
        lab = self::lab(&["a"]);
        sleep(Duration::from_mins(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn statuses_that_cannot_be_written_are_tried_again() {
    for code in [409, 429, 500] {
        let lab = lab(&["a"]);
        lab.server.fail(Method::PATCH, "egressnetworkpolicies", code, 3);
        let (uid, generation) = lab.put(&rules());
        lab.say(0, &uid, generation, 2);
        sleep(Duration::from_mins(5)).await;
        assert_eq!(lab.condition("Enforced"), pair("True", "Enforced"), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_may_not_watch_everything_writes_nothing_until_it_may() {
    for kind in ["egressnodestates", "nodes", "egressconfigs"] {
        let lab = lab(&["a"]);
        // The agent's own Node is read by its name when its state is made.
        lab.server.fail_listing(kind, 403, 20);
        let (uid, generation) = lab.put(&rules());
        lab.say(0, &uid, generation, 2);
        sleep(Duration::from_secs(20)).await;
        assert_eq!(lab.policy().get("status"), None, "{kind}: half of what there is would make a wrong count");
        lab.server.counts();
        sleep(Duration::from_mins(5)).await;
        let asked = lab.server.counts()[&("GET".to_owned(), kind.to_owned())].requests;
        assert!(asked < 300 / 10, "{kind}: {asked} in 300 s: who is refused asks ever less often");
        sleep(Duration::from_mins(15)).await;
        assert_eq!(lab.condition("Enforced"), pair("True", "Enforced"), "{kind}");
        assert_eq!(lab.policy()["status"]["enforced"], "1/1", "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_that_lead_at_once_write_the_same() {
    let lab = lab(&["a"]);
    let (uid, generation) = lab.put(&rules());
    lab.say(0, &uid, generation, 2);
    sleep(Duration::from_mins(2)).await;
    let other = reporter("z", &lab.clock);
    // One that believes that it leads, because it was stopped while it did.
    let (_rounds, nothing) = watch::channel(None);
    let other = leader::lead(lab.server.client(), &other, &nothing);
    lab.server.counts();
    let before = lab.policy();
    assert!(Box::pin(tokio::time::timeout(Duration::from_mins(10), other)).await.is_err());
    assert_eq!(lab.policy(), before);
    let counts = lab.server.counts();
    assert!(!counts.keys().any(|(_, resource)| resource == "egressnetworkpolicies/status"), "{counts:?}");
}
