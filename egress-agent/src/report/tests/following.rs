//! The leader's board, which follows changes: whatever came in whatever order, the statuses are those of one that sees only the end.

use std::collections::BTreeMap;
use std::time::Duration;

use egress_policy::spec::Mode;
use egress_policy::status::{NodeState, Note, NoteReason, PolicyOnNode, PolicyStatus, ReportedKind};
use k8s_openapi::jiff::{Timestamp, ToSpan as _};
use proptest::prelude::*;
use tokio::time::Instant;

use super::board::{Board, Change, Source};
use super::fold::{ConfigFacts, PolicyFacts, PolicyName, Verdict};
use super::seen::Seen;

const POLICIES: u8 = 3;
const NODES: u8 = 4;
/// Long enough for an agent to fall silent in a few steps.
const STEP: Duration = Duration::from_mins(7);

/// Something that happens in the cluster, or to what is heard of it.
#[derive(Clone, Debug)]
enum Happens {
    /// A policy is made or changed.
    Policy(u8),
    /// A policy goes; the next of its name is another one.
    PolicyGone(u8),
    Node(u8, bool),
    NodeGone(u8),
    /// An agent writes its state: for each policy a version it has (or none) and whether for all pods and with a note.
    State(u8, Vec<(bool, bool, bool)>),
    StateGone(u8),
    Audit(bool),
    /// Everything of a source is listed again, what happened since the last look was missed.
    Relisted(u8),
    /// An event comes twice.
    Again,
    Passes,
}

fn happens() -> impl Strategy<Value = Happens> {
    let said = prop::collection::vec((any::<bool>(), any::<bool>(), prop::bool::weighted(0.2)), usize::from(POLICIES));
    prop_oneof![
        2 => (0..POLICIES).prop_map(Happens::Policy),
        1 => (0..POLICIES).prop_map(Happens::PolicyGone),
        2 => (0..NODES, prop::bool::weighted(0.8)).prop_map(|(node, ready)| Happens::Node(node, ready)),
        1 => (0..NODES).prop_map(Happens::NodeGone),
        6 => (0..NODES, said).prop_map(|(node, said)| Happens::State(node, said)),
        1 => (0..NODES).prop_map(Happens::StateGone),
        1 => any::<bool>().prop_map(Happens::Audit),
        1 => (0..5_u8).prop_map(Happens::Relisted),
        1 => Just(Happens::Again),
        2 => Just(Happens::Passes),
    ]
}

/// The objects as they are.
#[derive(Default)]
struct Cluster {
    policies: BTreeMap<u8, (String, i64, PolicyStatus)>,
    nodes: BTreeMap<u8, bool>,
    states: BTreeMap<u8, NodeState>,
    audit: bool,
    made: u32,
}

fn name(policy: u8) -> PolicyName {
    let kind = if policy == 0 { ReportedKind::ClusterEgressPolicy } else { ReportedKind::EgressNetworkPolicy };
    PolicyName { kind, namespace: (policy != 0).then(|| "shop".to_owned()), name: format!("policy-{policy}") }
}

fn key(policy: u8) -> String {
    if policy == 0 { "policy-0".to_owned() } else { format!("shop/policy-{policy}") }
}

impl Cluster {
    fn all(&self, source: Source) -> Vec<Change> {
        let put = |key: String, seen| Change::Put(source, key, Box::new(seen));
        let policies =
            self.policies.iter().filter(|(policy, _)| (**policy == 0) == (source == Source::ClusterPolicies));
        match source {
            Source::Policies | Source::ClusterPolicies => policies
                .map(|(policy, (uid, generation, status))| {
                    let verdict = Verdict::Valid { rules: 1, mode: Mode::Enforce, names: 0, notes: Vec::new() };
                    let (uid, status) = (uid.clone(), status.clone());
                    let facts = PolicyFacts { uid, generation: *generation, verdict, settled: true, status };
                    put(key(*policy), Seen::Policy(Box::new((name(*policy), facts))))
                })
                .collect(),
            Source::Configs => {
                let config = ConfigFacts {
                    uid: "c".to_owned(),
                    generation: 1,
                    enforcement: if self.audit { Mode::Audit } else { Mode::Enforce },
                    default_action: egress_policy::spec::DefaultAction::Allow,
                    refused: Vec::new(),
                    status: egress_policy::status::ConfigStatus::default(),
                };
                vec![put("default".to_owned(), Seen::Config(Box::new(config)))]
            }
            Source::Nodes => self
                .nodes
                .iter()
                .map(|(node, ready)| put(format!("node-{node}"), Seen::Node { ready: *ready }))
                .collect(),
            Source::States => self
                .states
                .iter()
                .map(|(node, state)| put(format!("node-{node}"), Seen::State(Box::new(state.clone()))))
                .collect(),
        }
    }

    fn listed(&self, source: Source) -> Vec<Change> {
        let mut changes = vec![Change::Begun(source)];
        changes.extend(self.all(source));
        changes.push(Change::Done(source));
        changes
    }

    /// The one change of this source about the object with this key.
    fn of(&self, source: Source, wanted: &str) -> Vec<Change> {
        let mut changes = self.all(source);
        changes.retain(|change| matches!(change, Change::Put(_, key, _) if key == wanted));
        if changes.is_empty() { vec![Change::Gone(source, wanted.to_owned())] } else { changes }
    }

    /// What a watch says about what happens.
    fn happen(&mut self, what: &Happens, time: Timestamp) -> Vec<Change> {
        let source = |policy: u8| if policy == 0 { Source::ClusterPolicies } else { Source::Policies };
        match what {
            Happens::Policy(policy) => {
                self.made += 1;
                let fresh = (format!("uid-{}", self.made), 0, PolicyStatus::default());
                self.policies.entry(*policy).or_insert(fresh).1 += 1;
                self.of(source(*policy), &key(*policy))
            }
            Happens::PolicyGone(policy) => {
                self.policies.remove(policy);
                self.of(source(*policy), &key(*policy))
            }
            Happens::Node(node, ready) => {
                self.nodes.insert(*node, *ready);
                self.of(Source::Nodes, &format!("node-{node}"))
            }
            Happens::NodeGone(node) => {
                self.nodes.remove(node);
                self.of(Source::Nodes, &format!("node-{node}"))
            }
            Happens::State(node, said) => {
                let entry = |(policy, (current, whole, noted)): (&u8, &(bool, bool, bool))| {
                    let (uid, generation, _) = self.policies.get(policy)?;
                    let failed = Note { reason: NoteReason::Failed, message: "no memory".to_owned() };
                    let name = name(*policy);
                    Some(PolicyOnNode {
                        kind: name.kind,
                        namespace: name.namespace,
                        name: name.name,
                        uid: uid.clone(),
                        generation: generation - i64::from(!*current),
                        pods: 2,
                        enforced: 1 + u32::from(*whole),
                        notes: if *noted { vec![failed] } else { Vec::new() },
                    })
                };
                let policies: Vec<u8> = (0..POLICIES).collect();
                let policies = policies.iter().zip(said).filter_map(entry).collect();
                let state = NodeState { renewed_at: Some(time.to_string()), policies, ..NodeState::default() };
                self.states.insert(*node, state);
                self.of(Source::States, &format!("node-{node}"))
            }
            Happens::StateGone(node) => {
                self.states.remove(node);
                self.of(Source::States, &format!("node-{node}"))
            }
            Happens::Audit(audit) => {
                self.audit = *audit;
                self.all(Source::Configs)
            }
            Happens::Relisted(_) | Happens::Again | Happens::Passes => Vec::new(),
        }
    }

    /// What is due is written, and comes back by the watch.
    fn write(&mut self, board: &mut Board, now: Instant, time: Timestamp) {
        for due in board.due(now, time) {
            let policy = (0..POLICIES).find(|policy| name(*policy) == due.name).unwrap();
            let Some((uid, _, status)) = self.policies.get_mut(&policy).filter(|(uid, ..)| *uid == due.uid) else {
                continue;
            };
            assert_eq!(due.differs, due.status != *status, "the board knows what is written: {uid}");
            *status = due.status.clone();
            board.written(due);
        }
    }
}

const SOURCES: [Source; 5] =
    [Source::Policies, Source::ClusterPolicies, Source::Configs, Source::Nodes, Source::States];

/// Without the times of changes, which depend on what was seen in between.
fn timeless(mut status: PolicyStatus) -> PolicyStatus {
    for condition in &mut status.conditions {
        condition.last_transition_time.clear();
    }
    status
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn what_is_followed_step_by_step_is_what_one_that_begins_now_would_say(steps in prop::collection::vec(happens(), 1..40)) {
        let start: Timestamp = "2026-11-28T08:00:00Z".parse().unwrap();
        let began = Instant::now();
        let mut cluster = Cluster::default();
        let mut board = Board::default();
        for change in SOURCES.iter().flat_map(|source| cluster.listed(*source)) {
            board.apply(change, began);
        }
        prop_assert!(board.is_whole());
        let mut minutes = 0;
        let mut last = Happens::Passes;
        for what in steps {
            let (now, time) = (began + Duration::from_mins(minutes), start + i64::try_from(minutes).unwrap().minutes());
            let changes = match &what {
                Happens::Passes => {
                    minutes += STEP.as_secs() / 60;
                    Vec::new()
                }
                Happens::Relisted(source) => cluster.listed(SOURCES[usize::from(*source)]),
                Happens::Again => cluster.happen(&last, time),
                _ => cluster.happen(&what, time),
            };
            for change in changes {
                board.apply(change, now);
            }
            let (now, time) = (began + Duration::from_mins(minutes), start + i64::try_from(minutes).unwrap().minutes());
            cluster.write(&mut board, now, time);
            let mut fresh = Board::default();
            for change in SOURCES.iter().flat_map(|source| cluster.listed(*source)) {
                fresh.apply(change, now);
            }
            for due in fresh.due(now, time) {
                let policy = (0..POLICIES).find(|policy| name(*policy) == due.name).unwrap();
                prop_assert_eq!(timeless(due.status), timeless(cluster.policies[&policy].2.clone()), "{:?}", what);
            }
            prop_assert!(board.due(now, time).is_empty(), "what was looked at is not due again");
            last = what;
        }
    }
}
