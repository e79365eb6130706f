//! The agent that holds the Lease: watches policies, nodes and the states of nodes, folds them, and writes the statuses that changed.
//!
//! When it loses the Lease all of this is dropped at once, with the request that may be under way. Two that lead for a moment write the
//! same, because what they write follows from what both see.

use std::time::Duration;

use egress_policy::spec::API_VERSION;
use egress_policy::status::{Condition, ConditionKind, Truth};
use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::api::{Api, DynamicObject};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource, ResourceExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use super::announce::Announcer;
use super::api::{self, kind_name, resource};
use super::board::{Board, Change, Due, Source};
use super::fold::PolicyName;
use super::lease::Election;
use super::node::shortened;
use super::patient::patient;
use super::seen::{self, Seen};
use super::{Reporter, Round};

/// Statuses are written at most once in this time.
const PACE: Duration = Duration::from_secs(5);
/// What follows from time alone (silent agents) is looked at this often.
const REVIEW: Duration = Duration::from_mins(1);
/// A request that takes longer has failed.
const REQUEST: Duration = Duration::from_secs(10);
/// Changes on their way.
const QUEUE: usize = 1024;
/// States that are listed at once: each is large where many policies are.
const PAGE: u32 = 100;

/// Stands for leader, leads, and stands again, until `stopped`; then another one may begin at once.
pub(super) async fn run(
    client: Client,
    reporter: Reporter,
    rounds: watch::Receiver<Option<Round>>,
    mut stopped: impl Future<Output = ()> + Unpin,
) {
    let mut election = Election::new(client.clone(), &reporter);
    let nodes = || rounds.borrow().as_ref().map_or(1, |round| round.nodes);
    loop {
        let until = tokio::select! {
            until = election.won(&nodes) => until,
            () = &mut stopped => break,
        };
        tokio::select! {
            () = election.keep(until) => {}
            () = lead(client.clone(), &reporter, &rounds) => {}
            () = &mut stopped => break,
        }
    }
    // What this agent was writing is dropped by now.
    election.give_up().await;
}

/// Watches and writes, for as long as it is let.
pub(super) async fn lead(client: Client, reporter: &Reporter, rounds: &watch::Receiver<Option<Round>>) {
    let (told, mut changes) = mpsc::channel(QUEUE);
    let follow = async {
        let dynamic = |kind| Api::<DynamicObject>::all_with(client.clone(), &resource(kind));
        let config = || watcher::Config::default().any_semantic();
        // The API server's memory has no pages.
        let paged = watcher::Config::default().page_size(PAGE);
        tokio::join!(
            feed(Source::Policies, watcher(dynamic("EgressNetworkPolicy"), config()), seen::namespaced_policy, &told),
            feed(
                Source::ClusterPolicies,
                watcher(dynamic("ClusterEgressPolicy"), config()),
                seen::cluster_policy,
                &told
            ),
            feed(Source::Configs, watcher(dynamic("EgressConfig"), config()), seen::config, &told),
            feed(Source::Nodes, watcher(Api::<Node>::all(client.clone()), config()), seen::node, &told),
            feed(Source::States, watcher(dynamic("EgressNodeState"), paged), seen::state, &told),
        )
    };
    let write = async {
        let mut board = Board::default();
        let mut announcer = Announcer::new(client.clone(), &reporter.node);
        let mut next = Instant::now();
        loop {
            let review = next.max(Instant::now()) + REVIEW;
            let due =
                board.settles().filter(|_| board.is_whole()).map_or(review, |settles| settles.clamp(next, review));
            match timeout_at(due, changes.recv()).await {
                Ok(Some(change)) => board.apply(change, Instant::now()),
                Ok(None) => return,
                Err(_) => {}
            }
            // Until it is time to write, everything else that comes.
            while let Ok(Some(change)) = timeout_at(next, changes.recv()).await {
                board.apply(change, Instant::now());
            }
            while let Ok(change) = changes.try_recv() {
                board.apply(change, Instant::now());
            }
            if board.is_whole() {
                publish(&client, reporter, &mut board, &mut announcer).await;
                announce_foreign(rounds, &mut announcer).await;
                next = Instant::now() + PACE;
            }
        }
    };
    tokio::select! {
        _ = follow => {}
        () = write => {}
    }
}

/// Passes what a watch says on.
async fn feed<K>(
    source: Source,
    watch: impl Stream<Item = watcher::Result<Event<K>>>,
    read: fn(&K) -> Seen,
    told: &mpsc::Sender<Change>,
) where
    K: Resource + Clone,
{
    let mut events = std::pin::pin!(patient(watch, source.name()));
    while let Some(event) = events.next().await {
        let change = match event {
            Event::Init => Change::Begun(source),
            Event::InitApply(object) | Event::Apply(object) => {
                Change::Put(source, key(&object), Box::new(read(&object)))
            }
            Event::Delete(object) => Change::Gone(source, key(&object)),
            Event::InitDone => Change::Done(source),
        };
        if told.send(change).await.is_err() {
            return;
        }
    }
}

fn key<K: Resource>(object: &K) -> String {
    match object.meta().namespace.as_deref() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}

/// Writes every status that is not what it should be. What is not written or announced now is tried again.
async fn publish(client: &Client, reporter: &Reporter, board: &mut Board, announcer: &mut Announcer) {
    for due in board.due(Instant::now(), reporter.clock.now()) {
        let Due { name, uid, status, differs } = &due;
        let written =
            if *differs { timeout(REQUEST, api::write_policy(client, name, status)).await } else { Ok(Ok(())) };
        let told = announcer.announce(&reference(name, uid), &status.conditions).await;
        if !told || !matches!(written, Ok(Ok(()))) {
            board.again(name);
        }
        if matches!(written, Ok(Ok(()))) {
            board.written(due);
        } else {
            note_failure(written, &due.name.name);
        }
    }
    if let Some(status) = board.config(reporter.clock.now()) {
        note_failure(timeout(REQUEST, api::write_config(client, &status)).await, "default");
    }
}

/// Says what this agent finds wrong with foreign objects. Their own status belongs to whoever else enforces them.
async fn announce_foreign(rounds: &watch::Receiver<Option<Round>>, announcer: &mut Announcer) {
    let foreign = rounds.borrow().as_ref().map(|round| round.foreign.clone()).unwrap_or_default();
    for round in foreign {
        let object = round.object;
        let condition = Condition {
            kind: ConditionKind::Accepted,
            status: Truth::False,
            observed_generation: Some(object.generation),
            last_transition_time: String::new(),
            reason: if round.is_refused { "Invalid" } else { "Differs" }.to_owned(),
            message: shortened(&round.messages.join("; ")),
        };
        let reference = ObjectReference {
            api_version: Some(object.api_version),
            kind: Some(object.kind),
            namespace: object.namespace,
            name: Some(object.name),
            uid: Some(object.uid),
            ..ObjectReference::default()
        };
        announcer.announce(&reference, &[condition]).await;
    }
}

fn note_failure(written: Result<Result<(), kube::Error>, tokio::time::error::Elapsed>, name: &str) {
    match written {
        Ok(Err(error)) if !api::is_missing(&error) => warn!(%error, name, "a status is not written"),
        Ok(Ok(()) | Err(_)) => {}
        Err(_) => warn!(name, "a status is not written: no answer"),
    }
}

fn reference(name: &PolicyName, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(API_VERSION.to_owned()),
        kind: Some(kind_name(name.kind).to_owned()),
        namespace: name.namespace.clone(),
        name: Some(name.name.clone()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}
