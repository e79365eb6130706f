//! What a node writes of itself: when, how often, and after failures.

use std::time::Duration;

use egress_policy::status::{PodCounts, ReportedKind};
use hyper::Method;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::server::{node, node_path, state_path};
use super::*;

pub(super) fn round(policies: &[(&str, &str, i64, u32, u32)], nodes: usize) -> Round {
    let policy = |(name, uid, generation, pods, enforced): &(&str, &str, i64, u32, u32)| PolicyRound {
        kind: ReportedKind::EgressNetworkPolicy,
        namespace: Some("shop".to_owned()),
        name: (*name).to_owned(),
        uid: (*uid).to_owned(),
        generation: *generation,
        pods: *pods,
        enforced: *enforced,
        notes: Vec::new(),
    };
    let policies: Vec<PolicyRound> = policies.iter().map(policy).collect();
    let sum = |count: fn(&PolicyRound) -> u32| policies.iter().map(count).sum();
    let pods = PodCounts { covered: sum(|policy| policy.pods), enforced: sum(|policy| policy.enforced) };
    Round { pods, policies, nodes, ..Round::default() }
}

struct Lab {
    server: Server,
    rounds: watch::Sender<Option<Round>>,
}

/// A writer at work, and a Node that owns what it writes.
fn lab() -> Lab {
    let server = Server::default();
    server.put(&node_path("a"), node("a"));
    let (rounds, receiver) = watch::channel(None);
    tokio::spawn(writer::Writer::new(server.client(), reporter("a", &clock())).run(receiver));
    Lab { server, rounds }
}

impl Lab {
    fn say(&self, generation: i64) {
        self.rounds.send_replace(Some(round(&[("web", "u", generation, 2, 2)], 3)));
    }

    fn generation(&self) -> Option<i64> {
        self.server.object(&state_path("a"))?["status"]["policies"][0]["generation"].as_i64()
    }
}

#[tokio::test(start_paused = true)]
async fn the_state_is_made_with_its_owner_and_written_once_for_many_rounds() {
    let lab = lab();
    sleep(Duration::from_mins(1)).await;
    assert_eq!(lab.server.writes(), [], "nothing is written before the first round");
    for generation in 1..=50 {
        lab.say(generation);
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(lab.generation(), Some(50));
    let object = lab.server.object(&state_path("a")).unwrap();
    assert_eq!(
        object["metadata"]["ownerReferences"][0]["uid"],
        lab.server.object(&node_path("a")).unwrap()["metadata"]["uid"]
    );
    assert!(object["status"]["renewedAt"].as_str().unwrap().starts_with("2026-11-28T08:01:"));
    let writes: Vec<String> = lab.server.writes().into_iter().map(|(_, what)| what).collect();
    let path = state_path("a");
    assert_eq!(writes, [format!("PATCH {path}/status"), format!("PATCH {path}"), format!("PATCH {path}/status")]);
    // A round that says the same is no write, one that says something else is.
    lab.say(50);
    sleep(Duration::from_mins(1)).await;
    assert_eq!(lab.server.writes(), []);
    lab.say(51);
    sleep(Duration::from_secs(10)).await;
    assert_eq!((lab.generation(), lab.server.writes().len()), (Some(51), 1));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_node_says_that_it_lives_and_nothing_more() {
    let lab = lab();
    lab.say(1);
    sleep(Duration::from_mins(1)).await;
    lab.server.counts();
    sleep(Duration::from_hours(1)).await;
    let counts = lab.server.counts();
    let (kind, count) = counts.iter().next().unwrap();
    assert_eq!((counts.len(), kind.0.as_str(), kind.1.as_str()), (1, "PATCH", "egressnodestates/status"));
    assert!((6..=8).contains(&count.requests), "{count:?}");
    assert!(count.sent / count.requests < 100, "{count:?}");
    assert_eq!(lab.generation(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_tried_again_ever_less_often() {
    for code in [409, 429, 500, 503] {
        let lab = lab();
        lab.server.fail(Method::PATCH, "egressnodestates", code, 6);
        let started = Instant::now();
        lab.say(1);
        while lab.generation() != Some(1) {
            sleep(Duration::from_millis(100)).await;
            assert!(started.elapsed() < Duration::from_mins(5), "{code}");
        }
        assert!(started.elapsed() > Duration::from_secs(25), "{code}: six failures take time: {:?}", started.elapsed());
        let writes = lab.server.writes();
        assert!(writes.len() <= 4, "{code}: {writes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_state_that_was_deleted_is_written_again() {
    let lab = lab();
    lab.say(1);
    sleep(Duration::from_secs(30)).await;
    lab.server.remove(&state_path("a"));
    lab.say(2);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(lab.generation(), Some(2));
    // Also one that nobody said anything about after.
    lab.server.remove(&state_path("a"));
    sleep(Duration::from_mins(11)).await;
    assert_eq!(lab.generation(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn many_nodes_share_the_time_in_which_they_write() {
    const NODES: usize = 2000;
    let server = Server::default();
    let (rounds, receiver) = watch::channel(Some(round(&[("web", "u", 1, 1, 1)], NODES)));
    let clock = clock();
    for number in 0..NODES {
        let name = format!("node-{number}");
        server.put(&node_path(&name), node(&name));
        tokio::spawn(writer::Writer::new(server.client(), reporter(&name, &clock)).run(receiver.clone()));
    }
    sleep(Duration::from_mins(2)).await;
    server.writes();
    rounds.send_replace(Some(round(&[("web", "u", 2, 1, 1)], NODES)));
    let started = Instant::now();
    sleep(Duration::from_mins(2)).await;
    let writes = server.writes();
    assert_eq!(writes.len(), NODES);
    let mut by_second = [0_usize; 120];
    for (at, _) in &writes {
        by_second[usize::try_from(at.duration_since(started).as_secs()).unwrap()] += 1;
    }
    let busiest = by_second.iter().max().unwrap();
    assert!(*busiest < writer::RATE * 3 / 2, "{by_second:?}");
    assert!(writes.iter().all(|(at, _)| at.duration_since(started) <= writer::spread(NODES) + Duration::from_secs(5)));
}

#[test]
fn a_state_has_only_what_is_to_be_said_in_an_order_of_its_own() {
    use egress_policy::status::{MAX_MESSAGE, MAX_NOTES, Note, NoteReason};
    let mut round = round(&[("web", "1", 1, 2, 2), ("idle", "2", 1, 0, 0), ("api", "3", 1, 1, 0)], 1);
    let note = |number: usize| Note { reason: NoteReason::Warning, message: format!("{number:02}") };
    round.policies[1].notes = Vec::new();
    round.policies[2].notes = (0..20).rev().map(note).collect();
    round.policies[2].notes.push(Note { reason: NoteReason::Refused, message: "é".repeat(2000) });
    let state = round.state();
    let names: Vec<&str> = state.policies.iter().map(|policy| policy.name.as_str()).collect();
    assert_eq!(names, ["api", "web"], "a policy that selects nothing here is left out");
    let notes = &state.policies[0].notes;
    assert_eq!(
        (notes.len(), notes[0].reason, notes[0].message.chars().count()),
        (MAX_NOTES, NoteReason::Refused, MAX_MESSAGE)
    );
    assert_eq!(notes.last().unwrap().message, "and 12 more");
    round.policies.reverse();
    assert_eq!(round.state(), state);
}
