//! What the states of all nodes make of the status of a policy.

use std::collections::BTreeMap;

use egress_policy::spec::{DefaultAction, Mode};
use egress_policy::status::{
    ConditionKind, ConfigOnNode, ConfigStatus, NodeState, Note, NoteReason, PolicyOnNode, PolicyStatus, ReportedKind,
    Truth,
};
use k8s_openapi::jiff::{Timestamp, ToSpan as _};

use super::fold::{ConfigFacts, PolicyFacts, PolicyName, Verdict, config_status, policy_status};
use super::tally::Tally;

const UID: &str = "u";
const GENERATION: i64 = 7;

/// Everything that statuses follow from.
#[derive(Default)]
struct Facts {
    policies: BTreeMap<PolicyName, PolicyFacts>,
    config: Option<ConfigFacts>,
    /// Whether each node is ready.
    nodes: BTreeMap<String, bool>,
    states: BTreeMap<String, NodeState>,
}

struct Folded {
    policies: BTreeMap<PolicyName, PolicyStatus>,
    config: Option<ConfigStatus>,
}

fn fold(facts: &Facts, now: Timestamp) -> Folded {
    let mut tally = Tally::default();
    for (name, ready) in &facts.nodes {
        tally.node(name, Some(*ready));
    }
    for (name, state) in &facts.states {
        tally.state(name, Some(state.clone()));
    }
    tally.changed(now);
    let audit = facts.config.as_ref().is_some_and(|config| config.enforcement == Mode::Audit);
    let status =
        |(name, policy): (&PolicyName, &PolicyFacts)| (name.clone(), policy_status(policy, &tally, audit, now));
    Folded {
        policies: facts.policies.iter().map(status).collect(),
        config: facts.config.as_ref().map(|config| config_status(config, &tally, now)),
    }
}

fn now() -> Timestamp {
    "2026-11-28T08:00:00Z".parse().unwrap()
}

fn name() -> PolicyName {
    PolicyName { kind: ReportedKind::EgressNetworkPolicy, namespace: Some("shop".to_owned()), name: "web".to_owned() }
}

fn valid(names: u32, notes: Vec<Note>) -> Verdict {
    Verdict::Valid { rules: 3, mode: Mode::Enforce, names, notes }
}

fn facts(verdict: Verdict, settled: bool) -> Facts {
    let policy =
        PolicyFacts { uid: UID.to_owned(), generation: GENERATION, verdict, settled, status: PolicyStatus::default() };
    Facts { policies: BTreeMap::from([(name(), policy)]), ..Facts::default() }
}

fn config(enforcement: Mode) -> ConfigFacts {
    ConfigFacts {
        uid: "c".to_owned(),
        generation: 2,
        enforcement,
        default_action: DefaultAction::Deny,
        refused: Vec::new(),
        status: ConfigStatus::default(),
    }
}

/// What a node can be like for one policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    NoNode,
    NotReady,
    NoState,
    Silent,
    NeverRenewed,
    NotConcerned,
    OtherUid,
    Enforced,
    OldGeneration,
    SomePods,
    Refused,
    DoesNotFit,
    Failed,
    NoPodsButRefused,
}

const CASES: [Case; 14] = [
    Case::NoNode,
    Case::NotReady,
    Case::NoState,
    Case::Silent,
    Case::NeverRenewed,
    Case::NotConcerned,
    Case::OtherUid,
    Case::Enforced,
    Case::OldGeneration,
    Case::SomePods,
    Case::Refused,
    Case::DoesNotFit,
    Case::Failed,
    Case::NoPodsButRefused,
];

impl Case {
    fn add(self, facts: &mut Facts, node: &str) {
        if self != Self::NoNode {
            facts.nodes.insert(node.to_owned(), self != Self::NotReady);
        }
        if self == Self::NoState {
            return;
        }
        let because = |reason| vec![Note { reason, message: format!("because {reason:?}") }];
        let entry = PolicyOnNode {
            kind: ReportedKind::EgressNetworkPolicy,
            namespace: Some("shop".to_owned()),
            name: "web".to_owned(),
            uid: if self == Self::OtherUid { "before" } else { UID }.to_owned(),
            generation: if matches!(self, Self::OldGeneration | Self::Refused) { GENERATION - 1 } else { GENERATION },
            pods: if self == Self::NoPodsButRefused { 0 } else { 4 },
            enforced: match self {
                Self::SomePods | Self::DoesNotFit | Self::Failed => 3,
                Self::NoPodsButRefused => 0,
                _ => 4,
            },
            notes: match self {
                Self::Refused | Self::NoPodsButRefused => because(NoteReason::Refused),
                Self::DoesNotFit => because(NoteReason::Capacity),
                Self::Failed => because(NoteReason::Failed),
                _ => Vec::new(),
            },
        };
        let renewed = if self == Self::Silent { now() - 31.minutes() } else { now() - 29.minutes() };
        let state = NodeState {
            renewed_at: (self != Self::NeverRenewed).then(|| renewed.to_string()),
            policies: if self == Self::NotConcerned { Vec::new() } else { vec![entry] },
            ..NodeState::default()
        };
        facts.states.insert(node.to_owned(), state);
    }

    /// Whether the node counts, and whether it enforces.
    fn counts(self) -> (usize, usize) {
        match self {
            Self::Enforced => (1, 1),
            Self::OldGeneration | Self::SomePods | Self::Refused | Self::DoesNotFit | Self::Failed => (1, 0),
            _ => (0, 0),
        }
    }
}

/// The status and reason of Enforced, in the words of the documentation: the first line that fits.
fn expected(cases: &[Case], refused: bool, settled: bool, audit: bool) -> (Truth, &'static str) {
    let any = |wanted: &[Case]| cases.iter().any(|case| wanted.contains(case));
    if refused {
        (Truth::False, "NotAccepted")
    } else if any(&[Case::Refused, Case::NoPodsButRefused]) {
        (Truth::False, "RefusedByNodes")
    } else if any(&[Case::DoesNotFit]) {
        (Truth::False, "DoesNotFit")
    } else if any(&[Case::Failed]) {
        (Truth::False, "Failed")
    } else if any(&[Case::OldGeneration, Case::SomePods]) {
        (Truth::False, "Waiting")
    } else if any(&[Case::Silent, Case::NeverRenewed]) {
        (Truth::Unknown, "AgentSilent")
    } else if !settled {
        (Truth::Unknown, "Waiting")
    } else if !any(&[Case::Enforced]) {
        (Truth::True, "NoPods")
    } else if audit {
        (Truth::True, "Audited")
    } else {
        (Truth::True, "Enforced")
    }
}

#[test]
fn every_combination_of_three_nodes_is_folded_as_documented() {
    let mut checked = 0;
    for a in CASES {
        for b in CASES {
            for c in CASES {
                for bits in 0..8 {
                    let (refused, settled, audit) = (bits & 1 == 1, bits & 2 == 2, bits & 4 == 4);
                    let verdict =
                        if refused { Verdict::Refused(vec!["it is wrong".to_owned()]) } else { valid(0, Vec::new()) };
                    let mut facts = facts(verdict, settled);
                    facts.config = audit.then(|| config(Mode::Audit));
                    let cases = [a, b, c];
                    for (case, node) in cases.iter().zip(["a", "b", "c"]) {
                        case.add(&mut facts, node);
                    }
                    let folded = fold(&facts, now());
                    let status = &folded.policies[&name()];
                    let counts =
                        cases.iter().map(|case| case.counts()).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
                    assert_eq!(status.enforced, Some(format!("{}/{}", counts.1, counts.0)), "{cases:?}");
                    let enforced =
                        status.conditions.iter().find(|condition| condition.kind == ConditionKind::Enforced).unwrap();
                    let wanted = expected(&cases, refused, settled, audit);
                    assert_eq!(
                        (enforced.status, enforced.reason.as_str()),
                        wanted,
                        "{cases:?} {refused} {settled} {audit}"
                    );
                    let kinds: Vec<ConditionKind> = status.conditions.iter().map(|condition| condition.kind).collect();
                    assert_eq!(kinds, ConditionKind::ALL);
                    checked += 1;
                }
            }
        }
    }
    assert_eq!(checked, 14 * 14 * 14 * 8);
}

#[test]
fn what_nodes_say_goes_into_the_condition_that_it_is_about_with_their_names() {
    let mut facts = facts(valid(2, vec![Note { reason: NoteReason::Warning, message: "host bits".to_owned() }]), true);
    for number in 0..8 {
        let node = format!("node-{number}");
        Case::Enforced.add(&mut facts, &node);
        let mut state = facts.states[&node].clone();
        for (reason, message) in [
            (NoteReason::NameFails, "api.example.com: SERVFAIL"),
            (NoteReason::ShadowedRules, "rule 3 never decides"),
            (NoteReason::OrderedByName, "priority 100 is shared"),
        ] {
            state.policies[0].notes.push(Note { reason, message: message.to_owned() });
        }
        facts.states.insert(node, state);
    }
    let folded = fold(&facts, now());
    let said = |kind: ConditionKind| {
        let found = folded.policies[&name()].conditions.iter().find(|condition| condition.kind == kind).unwrap();
        (found.status, found.reason.clone(), found.message.clone())
    };
    let nodes = "(on node-0, node-1, node-2, node-3, node-4 and 3 more)";
    let text = |text: &str| text.to_owned();
    assert_eq!(
        said(ConditionKind::DnsResolved),
        (Truth::False, text("NamesFail"), format!("api.example.com: SERVFAIL {nodes}"))
    );
    assert_eq!(
        said(ConditionKind::ShadowedRules),
        (Truth::True, text("ShadowedRules"), format!("rule 3 never decides {nodes}"))
    );
    assert_eq!(
        said(ConditionKind::OrderedByName),
        (Truth::True, text("OrderedByName"), format!("priority 100 is shared {nodes}"))
    );
    assert_eq!(said(ConditionKind::Accepted), (Truth::True, text("AcceptedWithWarnings"), text("host bits")));
    assert_eq!(
        said(ConditionKind::Enforced),
        (Truth::True, text("Enforced"), text("8 of 8 nodes with pods that it selects"))
    );
    assert_eq!(said(ConditionKind::Capacity).0, Truth::True);
}

#[test]
fn a_condition_keeps_its_time_until_its_status_changes() {
    let mut facts = facts(valid(0, Vec::new()), true);
    Case::OldGeneration.add(&mut facts, "a");
    let first = fold(&facts, now()).policies[&name()].clone();
    let time = |status: &PolicyStatus, index: usize| status.conditions[index].last_transition_time.clone();
    assert_eq!(time(&first, 1), "2026-11-28T08:00:00Z");
    facts.policies.get_mut(&name()).unwrap().status = first.clone();
    let later = now() + 1.minute();
    assert_eq!(fold(&facts, later).policies[&name()], first, "nothing changed, so nothing is to be written");
    Case::Enforced.add(&mut facts, "a");
    let second = fold(&facts, later).policies[&name()].clone();
    assert_eq!((time(&second, 0), time(&second, 1)), (time(&first, 0), "2026-11-28T08:01:00Z".to_owned()));
}

#[test]
fn a_refused_version_keeps_the_figures_of_the_one_in_force() {
    let mut facts = facts(Verdict::Refused((0..9).map(|number| format!("problem {number}")).collect()), true);
    facts.policies.get_mut(&name()).unwrap().status =
        PolicyStatus { rules: Some(12), mode: Some(Mode::Audit), ..PolicyStatus::default() };
    let status = fold(&facts, now()).policies[&name()].clone();
    assert_eq!(
        (status.rules, status.mode, status.observed_generation),
        (Some(12), Some(Mode::Audit), Some(GENERATION))
    );
    let message = &status.conditions[0].message;
    assert_eq!(
        message,
        "problem 0; problem 1; problem 2; problem 3; and 5 more; the last valid version stays in force"
    );
}

#[test]
fn the_configuration_counts_every_ready_node() {
    let mut facts = Facts { config: Some(config(Mode::Enforce)), ..Facts::default() };
    let mut add = |node: &str, ready: bool, generation: Option<i64>| {
        facts.nodes.insert(node.to_owned(), ready);
        let config = generation.map(|generation| ConfigOnNode { uid: "c".to_owned(), generation, notes: Vec::new() });
        let state = NodeState { renewed_at: Some(now().to_string()), config, ..NodeState::default() };
        facts.states.insert(node.to_owned(), state);
    };
    add("a", true, Some(2));
    add("b", true, Some(1));
    add("c", false, None);
    facts.nodes.insert("d".to_owned(), true);
    let said = |facts: &Facts| {
        let status = fold(facts, now()).config.unwrap();
        (
            status.enforced.unwrap(),
            status.conditions[1].status,
            status.conditions[1].reason.clone(),
            status.conditions[1].message.clone(),
        )
    };
    let (count, status, reason, _) = said(&facts);
    assert_eq!((count.as_str(), status, reason.as_str()), ("1/3", Truth::False, "Waiting"));
    facts.states.insert("b".to_owned(), facts.states["a"].clone());
    let (count, status, reason, message) = said(&facts);
    assert_eq!((count.as_str(), status, reason.as_str()), ("2/3", Truth::Unknown, "AgentSilent"));
    assert!(message.contains("no agent reports on d"), "{message}");
    facts.nodes.remove("d");
    let (count, status, ..) = said(&facts);
    assert_eq!((count.as_str(), status), ("2/2", Truth::True));
}
