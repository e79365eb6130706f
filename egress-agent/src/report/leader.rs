//! The agent that holds the Lease: watches policies, nodes and the states of nodes, folds them, and writes the statuses that changed.
//!
//! When it loses the Lease all of this is dropped at once, with the request that may be under way. Two that lead for a moment write the
//! same, because what they write follows from what both see.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use egress_policy::document::{self, Object};
use egress_policy::model::{Peer, Policy};
use egress_policy::spec::API_VERSION;
use egress_policy::status::{Condition, ConditionKind, NodeState, Note, NoteReason, PolicyStatus, ReportedKind, Truth};
use egress_policy::warnings::{Warning, WarningReason};
use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::api::{Api, DynamicObject};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use super::announce::Announcer;
use super::api::{self, kind_name, resource};
use super::fold::{ConfigFacts, Facts, PolicyFacts, PolicyName, Verdict, fold};
use super::lease::Election;
use super::node::shortened;
use super::{Reporter, Round, writer};

/// Statuses are written at most once in this time.
const PACE: Duration = Duration::from_secs(5);
/// What follows from time alone (silent agents) is looked at this often.
const REVIEW: Duration = Duration::from_mins(1);
/// A request that takes longer has failed.
const REQUEST: Duration = Duration::from_secs(10);
/// Changes on their way.
const QUEUE: usize = 1024;
/// The time beyond the nodes' own that a new version is given to be reported.
const MARGIN: Duration = Duration::from_secs(10);

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

/// Something that a watch said.
#[derive(Debug)]
enum Change {
    /// A listing begins.
    Begun(Source),
    Put(Source, String, Box<Seen>),
    Gone(Source, String),
    /// The listing is whole: what it did not have is gone.
    Done(Source),
}

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    Policies,
    ClusterPolicies,
    Configs,
    Nodes,
    States,
}

const SOURCES: [Source; 5] =
    [Source::Policies, Source::ClusterPolicies, Source::Configs, Source::Nodes, Source::States];

/// An object as far as it is needed.
#[derive(Debug)]
enum Seen {
    Policy(Box<(PolicyName, PolicyFacts)>),
    Config(Box<ConfigFacts>),
    Node { ready: bool },
    State(Arc<NodeState>),
}

/// Everything that was seen, by source and key.
#[derive(Debug, Default)]
struct Board {
    seen: HashMap<(Source, String), Seen>,
    /// Keys of a listing that is not whole yet.
    listing: HashMap<Source, Vec<String>>,
    listed: Vec<Source>,
    /// When a version of a policy was first seen, by UID.
    since: HashMap<String, (i64, Instant)>,
}

impl Board {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Begun(source) => drop(self.listing.insert(source, Vec::new())),
            Change::Put(source, key, seen) => {
                if let Some(listing) = self.listing.get_mut(&source) {
                    listing.push(key.clone());
                }
                self.seen.insert((source, key), *seen);
            }
            Change::Gone(source, key) => drop(self.seen.remove(&(source, key))),
            Change::Done(source) => {
                let keys: HashSet<String> = self.listing.remove(&source).unwrap_or_default().into_iter().collect();
                self.seen.retain(|(of, key), _| *of != source || keys.contains(key));
                if !self.listed.contains(&source) {
                    self.listed.push(source);
                }
            }
        }
    }

    fn is_whole(&self) -> bool {
        SOURCES.iter().all(|source| self.listed.contains(source))
    }

    /// What statuses follow from.
    fn facts(&mut self, now: Instant) -> Facts {
        let mut facts = Facts::default();
        for ((_, key), seen) in &self.seen {
            match seen {
                Seen::Policy(policy) => {
                    let (name, policy) = policy.as_ref();
                    facts.policies.insert(name.clone(), policy.clone());
                }
                Seen::Config(config) => facts.config = Some(config.as_ref().clone()),
                Seen::Node { ready } => drop(facts.nodes.insert(key.clone(), *ready)),
                Seen::State(state) => drop(facts.states.insert(key.clone(), Arc::clone(state))),
            }
        }
        let settling = writer::spread(facts.nodes.len()) + MARGIN;
        let mut since = HashMap::new();
        for policy in facts.policies.values_mut() {
            let known = self.since.get(&policy.uid).filter(|(generation, _)| *generation == policy.generation);
            let (_, first) = known.copied().unwrap_or((policy.generation, now));
            // A version of which another leader said that it is in force had its time.
            policy.settled |= now.duration_since(first) >= settling;
            since.insert(policy.uid.clone(), (policy.generation, first));
        }
        self.since = since;
        facts
    }
}

/// Watches and writes, for as long as it is let.
pub(super) async fn lead(client: Client, reporter: &Reporter, rounds: &watch::Receiver<Option<Round>>) {
    let (told, mut changes) = mpsc::channel(QUEUE);
    let follow = async {
        let dynamic = |kind| Api::<DynamicObject>::all_with(client.clone(), &resource(kind));
        let config = || watcher::Config::default().any_semantic();
        tokio::join!(
            feed(Source::Policies, watcher(dynamic("EgressNetworkPolicy"), config()), namespaced_policy, &told),
            feed(Source::ClusterPolicies, watcher(dynamic("ClusterEgressPolicy"), config()), cluster_policy, &told),
            feed(Source::Configs, watcher(dynamic("EgressConfig"), config()), self::config, &told),
            feed(Source::Nodes, watcher(Api::<Node>::all(client.clone()), config()), node, &told),
            feed(Source::States, watcher(dynamic("EgressNodeState"), config()), state, &told),
        )
    };
    let write = async {
        let mut board = Board::default();
        let mut announcer = Announcer::new(client.clone(), &reporter.node);
        let mut next = Instant::now();
        loop {
            let due = if board.is_whole() { next.max(Instant::now()) + REVIEW } else { Instant::now() + REVIEW };
            match timeout_at(due, changes.recv()).await {
                Ok(Some(change)) => board.apply(change),
                Ok(None) => return,
                Err(_) => {}
            }
            // Until it is time to write, everything else that comes.
            while let Ok(Some(change)) = timeout_at(next, changes.recv()).await {
                board.apply(change);
            }
            while let Ok(change) = changes.try_recv() {
                board.apply(change);
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

/// Passes what a watch says on; a failed watch is begun again, later and later.
async fn feed<K>(
    source: Source,
    watch: impl Stream<Item = watcher::Result<Event<K>>>,
    read: fn(&K) -> Seen,
    told: &mpsc::Sender<Change>,
) where
    K: Resource + Clone,
{
    let mut watch = std::pin::pin!(watch.default_backoff());
    while let Some(event) = watch.next().await {
        let change = match event {
            Ok(Event::Init) => Change::Begun(source),
            Ok(Event::InitApply(object) | Event::Apply(object)) => {
                Change::Put(source, key(&object), Box::new(read(&object)))
            }
            Ok(Event::Delete(object)) => Change::Gone(source, key(&object)),
            Ok(Event::InitDone) => Change::Done(source),
            Err(error) => {
                debug!(%error, ?source, "a watch of the leader failed");
                continue;
            }
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

fn typed<T: DeserializeOwned + Default>(data: &Value) -> T {
    // A status that somebody else broke is written anew.
    data.get("status").and_then(|status| serde_json::from_value(status.clone()).ok()).unwrap_or_default()
}

/// What the reader of policies says of an object, as it does for files.
fn judged(object: &DynamicObject, kind: &str) -> document::Documents {
    let mut whole = serde_json::to_value(object).unwrap_or_default();
    if let Some(fields) = whole.as_object_mut() {
        fields.remove("status");
        // Items of a list may come without.
        fields.insert("apiVersion".to_owned(), Value::from(API_VERSION));
        fields.insert("kind".to_owned(), Value::from(kind));
    }
    document::read_in_cluster(&whole.to_string())
}

fn problems(documents: &document::Documents) -> Vec<String> {
    let said = |problem: &document::Problem| {
        let place = if problem.path.is_empty() { String::new() } else { format!("{}: ", problem.path) };
        format!("{place}{}; {}", problem.message, problem.hint)
    };
    documents.problems.iter().map(said).collect()
}

fn namespaced_policy(object: &DynamicObject) -> Seen {
    policy(object, ReportedKind::EgressNetworkPolicy)
}

fn cluster_policy(object: &DynamicObject) -> Seen {
    policy(object, ReportedKind::ClusterEgressPolicy)
}

fn policy(object: &DynamicObject, kind: ReportedKind) -> Seen {
    let documents = judged(object, kind_name(kind));
    let verdict = match documents.objects.first() {
        Some(Object::Policy(policy)) if documents.problems.is_empty() => valid(policy),
        _ => Verdict::Refused(problems(&documents)),
    };
    let name = PolicyName { kind, namespace: object.namespace(), name: object.name_any() };
    let status: PolicyStatus = typed(&object.data);
    let generation = object.metadata.generation.unwrap_or_default();
    let settled = status.observed_generation == Some(generation)
        && status.conditions.iter().any(|old| old.kind == ConditionKind::Enforced && old.reason != "Waiting");
    let facts = PolicyFacts { uid: object.uid().unwrap_or_default(), generation, verdict, settled, status };
    Seen::Policy(Box::new((name, facts)))
}

fn valid(policy: &Policy) -> Verdict {
    let names = policy.rules.iter().filter(|rule| matches!(rule.peer, Peer::DnsName(_))).count();
    Verdict::Valid {
        rules: u32::try_from(policy.rules.len()).unwrap_or(u32::MAX),
        mode: policy.mode,
        names: u32::try_from(names).unwrap_or(u32::MAX),
        notes: policy.warnings.iter().map(noted).collect(),
    }
}

/// A warning as a note.
pub(super) fn noted(warning: &Warning) -> Note {
    let reason = match warning.reason {
        WarningReason::ShadowedRules => NoteReason::ShadowedRules,
        WarningReason::OrderedByName => NoteReason::OrderedByName,
        WarningReason::HostBitsMasked
        | WarningReason::SingleZeroAddress
        | WarningReason::OpenShiftZeroAddress
        | WarningReason::MappedPrefix
        | WarningReason::NothingLeft
        | WarningReason::ProtocolOfOtherFamily
        | WarningReason::SelectsNothing
        | WarningReason::DenyByName
        | WarningReason::WildcardNeedsLookups
        | WarningReason::SharedAddress
        | WarningReason::NothingJudged
        | WarningReason::NoNodeSelected => NoteReason::Warning,
    };
    let place = if warning.path.is_empty() { String::new() } else { format!("{}: ", warning.path) };
    Note { reason, message: format!("{place}{}", warning.message) }
}

fn config(object: &DynamicObject) -> Seen {
    let documents = judged(object, "EgressConfig");
    let read = match documents.objects.first() {
        Some(Object::Config(config)) => Some(config),
        _ => None,
    };
    Seen::Config(Box::new(ConfigFacts {
        uid: object.uid().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or_default(),
        enforcement: read.map(|config| config.enforcement).unwrap_or_default(),
        default_action: read.map(|config| config.default_action).unwrap_or_default(),
        refused: problems(&documents),
        status: typed(&object.data),
    }))
}

fn node(object: &Node) -> Seen {
    let conditions = object.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready =
        conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    Seen::Node { ready }
}

fn state(object: &DynamicObject) -> Seen {
    Seen::State(Arc::new(typed(&object.data)))
}

/// Writes every status that is not what it should be.
async fn publish(client: &Client, reporter: &Reporter, board: &mut Board, announcer: &mut Announcer) {
    let facts = board.facts(Instant::now());
    let folded = fold(&facts, reporter.clock.now());
    for (name, status) in &folded.policies {
        let Some(policy) = facts.policies.get(name) else { continue };
        if *status != policy.status {
            let written = timeout(REQUEST, api::write_policy(client, name, status)).await;
            note_failure(written, &name.name);
        }
        announcer.announce(&reference(name, &policy.uid), &status.conditions).await;
    }
    if let (Some(status), Some(config)) = (&folded.config, &facts.config)
        && *status != config.status
    {
        note_failure(timeout(REQUEST, api::write_config(client, status)).await, "default");
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

/// What is not written now is tried again with the next change, or at the next review.
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
