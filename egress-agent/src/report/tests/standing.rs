//! Who leads: one of all that stand for the Lease, and how often thousands of them ask.

use std::time::Duration;

use hyper::Method;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::{Timestamp, ToSpan as _};
use tokio::time::{Instant, sleep, timeout};

use super::lease::{Candidate, DURATION, Election, LEAD, Step};
use super::server::LEASE_PATH;
use super::*;

fn lease(step: Step, version: &str) -> Lease {
    let (Step::Create(mut lease) | Step::Replace(mut lease)) = step else { panic!("{step:?}") };
    lease.metadata.resource_version = Some(version.to_owned());
    lease
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().unwrap().holder_identity.as_deref().unwrap()
}

#[test]
fn a_lease_is_free_when_it_was_seen_unchanged_for_its_duration_whatever_the_clocks_say() {
    let now = Instant::now();
    let time: Timestamp = "2026-11-28T08:00:00Z".parse().unwrap();
    let mut a = Candidate::new("a", "egress-system");
    let mut b = Candidate::new("b", "egress-system");
    let first = lease(a.step(None, now, time), "1");
    assert_eq!(holder(&first), "a");
    // b's clock is an hour ahead, and a's an hour behind: neither makes the Lease free.
    for skew in [1.hour(), (-1).hour()] {
        let mut b = Candidate::new("b", "egress-system");
        assert_eq!(b.step(Some(first.clone()), now, time + skew), Step::Wait);
    }
    assert_eq!(b.step(Some(first.clone()), now, time), Step::Wait);
    let almost = DURATION.checked_sub(Duration::from_millis(1)).unwrap();
    assert_eq!(b.step(Some(first.clone()), now + almost, time), Step::Wait);
    // A renewal begins the wait anew.
    let renewed = lease(a.step(Some(first), now + almost, time), "2");
    assert_eq!(renewed.spec.as_ref().unwrap().lease_transitions, Some(1));
    assert_eq!(b.step(Some(renewed.clone()), now + DURATION, time), Step::Wait);
    let taken = lease(b.step(Some(renewed), now + DURATION + DURATION, time), "3");
    assert_eq!((holder(&taken), taken.spec.as_ref().unwrap().lease_transitions), ("b", Some(2)));
    assert_eq!(a.step(Some(taken), now + DURATION + DURATION, time), Step::Wait);
    // Whoever leads stops before anybody else can begin.
    assert!(LEAD < DURATION);
}

#[test]
fn a_lease_that_was_given_up_or_deleted_is_free_at_once() {
    let (now, time) = (Instant::now(), Timestamp::UNIX_EPOCH);
    let mut a = Candidate::new("a", "egress-system");
    let mut given_up = lease(a.step(None, now, time), "1");
    given_up.spec.as_mut().unwrap().holder_identity = Some(String::new());
    let mut b = Candidate::new("b", "egress-system");
    assert!(matches!(b.step(Some(given_up), now, time), Step::Replace(_)));
    assert!(matches!(b.step(None, now, time), Step::Create(_)));
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_the_other_takes_over_when_it_is_gone() {
    let server = Server::default();
    let clock = clock();
    let mut a = Election::new(server.client(), &reporter("a", &clock));
    let mut b = Election::new(server.client(), &reporter("b", &clock));
    let until = a.won(|| 2).await;
    assert!(timeout(Duration::from_mins(10), async { tokio::join!(a.keep(until), b.won(|| 2)) }).await.is_err());
    let gone = Instant::now();
    b.won(|| 2).await;
    let waited = gone.elapsed();
    assert!(waited > LEAD && waited < DURATION + Duration::from_secs(25), "{waited:?}");
    assert_eq!(server.object(LEASE_PATH).unwrap()["spec"]["holderIdentity"], "b");
    // a finds that out at its next try, and does not write.
    let until = Instant::now() + LEAD;
    a.keep(until).await;
    assert!(Instant::now() < until);
    assert_eq!(server.object(LEASE_PATH).unwrap()["spec"]["holderIdentity"], "b");
}

#[tokio::test(start_paused = true)]
async fn who_cannot_renew_stops_leading_in_time_and_who_can_again_goes_on() {
    let server = Server::default();
    let mut a = Election::new(server.client(), &reporter("a", &clock()));
    let until = a.won(|| 1).await;
    server.fail(Method::PUT, "leases", 500, usize::MAX);
    let started = Instant::now();
    a.keep(until).await;
    let led = started.elapsed();
    assert!(led <= LEAD + Duration::from_secs(1), "{led:?}");
    // Some failures in between are no reason to stop.
    let server = Server::default();
    let mut a = Election::new(server.client(), &reporter("a", &clock()));
    let until = a.won(|| 1).await;
    server.fail(Method::PUT, "leases", 429, 5);
    server.fail(Method::GET, "leases", 503, 5);
    assert!(timeout(Duration::from_mins(10), a.keep(until)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn of_two_that_try_at_once_one_wins() {
    let server = Server::default();
    let clock = clock();
    for _ in 0..20 {
        server.remove(LEASE_PATH);
        let mut a = Election::new(server.client(), &reporter("a", &clock));
        let mut b = Election::new(server.client(), &reporter("b", &clock));
        let winner = tokio::select! { _ = a.won(|| 2) => "a", _ = b.won(|| 2) => "b" };
        let holder = server.object(LEASE_PATH).unwrap()["spec"]["holderIdentity"].clone();
        assert_eq!(holder, winner);
    }
}

#[tokio::test(start_paused = true)]
async fn thousands_that_wait_ask_seldom() {
    let server = Server::default();
    let clock = clock();
    let mut leader = Election::new(server.client(), &reporter("leader", &clock));
    let until = leader.won(|| 3000).await;
    for number in 0..3000 {
        let mut waiting = Election::new(server.client(), &reporter(&format!("node-{number}"), &clock));
        tokio::spawn(async move { waiting.won(|| 3000).await });
    }
    let leading = tokio::spawn(async move { leader.keep(until).await });
    sleep(Duration::from_mins(3)).await;
    server.counts();
    sleep(Duration::from_mins(10)).await;
    let asked: u64 = server.counts().iter().filter(|(kind, _)| kind.0 == "GET").map(|(_, count)| count.requests).sum();
    assert!(asked < 600 * 14, "{asked} in 600 s");
    assert!(!leading.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_thousands_is_not_free_for_longer_than_one_of_two() {
    let server = Server::default();
    let clock = clock();
    let leading = |name: String| {
        let mut election = Election::new(server.client(), &reporter(&name, &clock));
        async move { election.won(|| 3000).await }
    };
    leading("leader".to_owned()).await;
    let (told, mut wins) = tokio::sync::mpsc::unbounded_channel();
    let mut agents = tokio::task::JoinSet::new();
    for number in 0..3000 {
        let (won, told) = (leading(format!("node-{number}")), told.clone());
        agents.spawn(async move {
            won.await;
            told.send(Instant::now()).unwrap();
        });
    }
    let began = Instant::now();
    let first = wins.recv().await.unwrap();
    assert!(first - began < DURATION + Duration::from_secs(25), "{:?}", first - began);
}

#[tokio::test(start_paused = true)]
async fn an_old_answer_from_the_memory_of_the_api_server_makes_no_second_leader() {
    let server = Server::default();
    let clock = clock();
    let mut a = Election::new(server.client(), &reporter("a", &clock));
    let until = a.won(|| 2).await;
    let keeping = tokio::spawn(async move { a.keep(until).await });
    server.freeze(LEASE_PATH);
    let mut b = Election::new(server.client(), &reporter("b", &clock));
    assert!(timeout(Duration::from_mins(10), b.won(|| 2)).await.is_err());
    assert!(!keeping.is_finished());
    assert!(server.counts()[&("PUT".to_owned(), "leases".to_owned())].requests > 30, "a went on");
}
