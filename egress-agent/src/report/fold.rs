//! From what all nodes say to the status of a policy: pure functions, so that two leaders at once would write the same.
//!
//! A node counts while its Node exists and is ready. One that is ready and whose agent has been silent for
//! [`SILENT`](super::tally::SILENT) is told of, and not counted: its kernel enforces something, and nobody knows what.

use std::collections::{BTreeMap, BTreeSet};

use egress_policy::spec::{DefaultAction, Mode};
use egress_policy::status::{
    Condition, ConditionKind, ConfigStatus, Note, NoteReason, PolicyStatus, ReportedKind, Truth,
};
use k8s_openapi::jiff::Timestamp;

use super::node::shortened;
use super::tally::{Said, Tally, Voice};

/// Names of nodes in a message.
const MOST_NODES: usize = 5;
/// Different messages in a condition.
const MOST_MESSAGES: usize = 4;

/// Which policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PolicyName {
    pub(super) kind: ReportedKind,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
}

/// A policy as the leader knows it.
#[derive(Clone, Debug)]
pub(super) struct PolicyFacts {
    pub(super) uid: String,
    pub(super) generation: i64,
    pub(super) verdict: Verdict,
    /// Whether every node that is concerned had the time to report on this generation.
    pub(super) settled: bool,
    /// What the API server has.
    pub(super) status: PolicyStatus,
}

/// What the reader says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Valid { rules: u32, mode: Mode, names: u32, notes: Vec<Note> },
    Refused(Vec<String>),
}

/// The configuration as the leader knows it.
#[derive(Clone, Debug)]
pub(super) struct ConfigFacts {
    pub(super) uid: String,
    pub(super) generation: i64,
    pub(super) enforcement: Mode,
    pub(super) default_action: DefaultAction,
    /// What is wrong with it.
    pub(super) refused: Vec<String>,
    pub(super) status: ConfigStatus,
}

/// What the nodes say of one policy.
#[derive(Debug, Default)]
struct View<'s> {
    /// Nodes with pods that it selects.
    concerned: usize,
    /// Of these, the ones that enforce the present generation for all of them.
    enforced: usize,
    /// Of these, the ones that do not.
    behind: BTreeSet<&'s str>,
    silent: BTreeSet<&'s str>,
    /// What is said, and by whom.
    notes: BTreeMap<(NoteReason, &'s str), BTreeSet<&'s str>>,
}

impl<'s> View<'s> {
    fn add(&mut self, Voice { node, silent, said }: Voice<'s, &'s Said>, generation: i64) {
        if silent {
            self.silent.insert(node);
            return;
        }
        self.note(node, &said.notes);
        if said.pods == 0 {
            return;
        }
        self.concerned += 1;
        if said.generation == generation && said.enforced == said.pods {
            self.enforced += 1;
        } else {
            self.behind.insert(node);
        }
    }

    fn note(&mut self, node: &'s str, notes: &'s [Note]) {
        for note in notes {
            self.notes.entry((note.reason, &note.message)).or_default().insert(node);
        }
    }

    /// What is said for these reasons: `message (on a, b and 3 more)`.
    fn said(&self, reasons: &[NoteReason]) -> Option<String> {
        let notes = self.notes.iter().filter(|((reason, _), _)| reasons.contains(reason));
        let all: Vec<String> = notes.map(|((_, message), nodes)| format!("{message} (on {})", list(nodes))).collect();
        sentence(&all)
    }
}

/// The first messages, and how many more there are; none if there are none.
fn sentence(all: &[String]) -> Option<String> {
    let shown = all.iter().take(MOST_MESSAGES).cloned().collect::<Vec<_>>().join("; ");
    match all.len().saturating_sub(MOST_MESSAGES) {
        _ if all.is_empty() => None,
        0 => Some(shown),
        more => Some(format!("{shown}; and {more} more")),
    }
}

fn list(nodes: &BTreeSet<&str>) -> String {
    let shown = nodes.iter().take(MOST_NODES).copied().collect::<Vec<_>>().join(", ");
    match nodes.len().saturating_sub(MOST_NODES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// A condition before it has its time.
struct Draft {
    kind: ConditionKind,
    status: Truth,
    reason: &'static str,
    message: String,
}

fn draft(kind: ConditionKind, status: Truth, reason: &'static str, message: impl Into<String>) -> Draft {
    Draft { kind, status, reason, message: message.into() }
}

/// The status of a policy; `audit`: whether the configuration turns enforcement off.
pub(super) fn policy_status(policy: &PolicyFacts, tally: &Tally, audit: bool, now: Timestamp) -> PolicyStatus {
    let before = &policy.status;
    let mut view = View::default();
    for voice in tally.of_policy(&policy.uid) {
        view.add(voice, policy.generation);
    }
    let view = &view;
    let (rules, mode) = match &policy.verdict {
        Verdict::Valid { rules, mode, .. } => (Some(*rules), Some(if audit { Mode::Audit } else { *mode })),
        // Those of the version that stays in force.
        Verdict::Refused(_) => (before.rules, before.mode),
    };
    let drafts = [
        accepted(policy, view),
        enforced(policy, view, audit),
        resolved(policy, view),
        match view.said(&[NoteReason::Capacity]) {
            Some(said) => draft(ConditionKind::Capacity, Truth::False, "DoesNotFit", said),
            None => draft(ConditionKind::Capacity, Truth::True, "Fits", "the rules fit on every node that reports"),
        },
        notice(policy, view, ConditionKind::ShadowedRules, NoteReason::ShadowedRules, "every rule can decide"),
        notice(policy, view, ConditionKind::OrderedByName, NoteReason::OrderedByName, "no order depends on names"),
    ];
    PolicyStatus {
        observed_generation: Some(policy.generation),
        rules,
        mode,
        enforced: Some(format!("{}/{}", view.enforced, view.concerned)),
        conditions: dated(drafts, &before.conditions, policy.generation, now),
    }
}

fn accepted(policy: &PolicyFacts, view: &View<'_>) -> Draft {
    let kind = ConditionKind::Accepted;
    if let Verdict::Refused(problems) = &policy.verdict {
        let problems = sentence(problems).unwrap_or_default();
        let message = format!("{problems}; the last valid version stays in force");
        return draft(kind, Truth::False, "Invalid", message);
    }
    match view.said(&[NoteReason::Refused]) {
        // Agents of another release.
        Some(said) => draft(kind, Truth::False, "RefusedByNodes", said),
        None => match warnings(policy, view) {
            Some(said) => draft(kind, Truth::True, "AcceptedWithWarnings", said),
            None => draft(kind, Truth::True, "Accepted", "the policy is valid"),
        },
    }
}

/// What is legal and probably not meant.
fn warnings(policy: &PolicyFacts, view: &View<'_>) -> Option<String> {
    let Verdict::Valid { notes, .. } = &policy.verdict else { return None };
    let own = notes.iter().filter(|note| note.reason == NoteReason::Warning).map(|note| note.message.clone());
    let own: Vec<String> = own.collect();
    sentence(&own).or_else(|| view.said(&[NoteReason::Warning]))
}

fn enforced(policy: &PolicyFacts, view: &View<'_>, audit: bool) -> Draft {
    let kind = ConditionKind::Enforced;
    let View { concerned, enforced, behind, silent, .. } = view;
    let count = format!("{enforced} of {concerned} nodes with pods that it selects");
    if matches!(policy.verdict, Verdict::Refused(_)) {
        return draft(kind, Truth::False, "NotAccepted", "this version is not valid; see Accepted");
    }
    for (note, reason) in
        [(NoteReason::Refused, "RefusedByNodes"), (NoteReason::Capacity, "DoesNotFit"), (NoteReason::Failed, "Failed")]
    {
        if let Some(said) = view.said(&[note]) {
            return draft(kind, Truth::False, reason, format!("{count}; {said}"));
        }
    }
    if !behind.is_empty() {
        return draft(kind, Truth::False, "Waiting", format!("{count}; not yet: {}", list(behind)));
    }
    if !silent.is_empty() {
        let message = format!("{count}; the agent is silent on {}, which are ready nodes: see its log", list(silent));
        return draft(kind, Truth::Unknown, "AgentSilent", message);
    }
    if !policy.settled {
        return draft(kind, Truth::Unknown, "Waiting", format!("{count} so far; nodes still report on this version"));
    }
    match (*concerned, audit) {
        (0, _) => draft(kind, Truth::True, "NoPods", "no pod is selected on any node that reports"),
        (_, true) => draft(kind, Truth::True, "Audited", format!("{count}; enforcement is Audit: nothing is refused")),
        (_, false) => draft(kind, Truth::True, "Enforced", count),
    }
}

fn resolved(policy: &PolicyFacts, view: &View<'_>) -> Draft {
    let kind = ConditionKind::DnsResolved;
    if let Some(said) = view.said(&[NoteReason::NameFails]) {
        return draft(kind, Truth::False, "NamesFail", said);
    }
    match policy.verdict {
        Verdict::Valid { names: 0, .. } => draft(kind, Truth::True, "NoNames", "the rules have no DNS names"),
        Verdict::Valid { .. } | Verdict::Refused(_) => {
            draft(kind, Truth::True, "Resolved", "no node reports a name that fails")
        }
    }
}

/// A condition that is true if there is something to look at.
fn notice(
    policy: &PolicyFacts,
    view: &View<'_>,
    kind: ConditionKind,
    reason: NoteReason,
    otherwise: &'static str,
) -> Draft {
    let own = match &policy.verdict {
        Verdict::Valid { notes, .. } => {
            notes.iter().filter(|note| note.reason == reason).map(|note| note.message.clone()).collect()
        }
        Verdict::Refused(_) => Vec::new(),
    };
    match sentence(&own).or_else(|| view.said(&[reason])) {
        Some(said) => draft(kind, Truth::True, kind.name(), said),
        None => draft(kind, Truth::False, "None", otherwise),
    }
}

/// The status of the configuration.
pub(super) fn config_status(config: &ConfigFacts, tally: &Tally, now: Timestamp) -> ConfigStatus {
    let mut view = View::default();
    for Voice { node, silent, said } in tally.of_config() {
        view.concerned += 1;
        if silent {
            view.silent.insert(node);
            continue;
        }
        let here = said.filter(|here| here.uid == config.uid);
        view.note(node, here.map(|here| here.notes.as_slice()).unwrap_or_default());
        if here.is_some_and(|here| here.generation == config.generation) {
            view.enforced += 1;
        } else {
            view.behind.insert(node);
        }
    }
    let View { concerned, enforced, behind, silent, .. } = &view;
    let count = format!("{enforced} of {concerned} ready nodes");
    let refused = sentence(&config.refused).map(|said| format!("{said}; the last valid version stays in force"));
    let accepted = match (&refused, view.said(&[NoteReason::Refused])) {
        (Some(said), _) => draft(ConditionKind::Accepted, Truth::False, "Invalid", said),
        (None, Some(said)) => draft(ConditionKind::Accepted, Truth::False, "RefusedByNodes", said),
        (None, None) => draft(ConditionKind::Accepted, Truth::True, "Accepted", "the configuration is valid"),
    };
    let kind = ConditionKind::Enforced;
    let enforced_condition = if refused.is_some() {
        draft(kind, Truth::False, "NotAccepted", "this version is not valid; see Accepted")
    } else if let Some(said) = view.said(&[NoteReason::Refused, NoteReason::Failed]) {
        draft(kind, Truth::False, "Failed", format!("{count}; {said}"))
    } else if !behind.is_empty() {
        draft(kind, Truth::False, "Waiting", format!("{count}; not yet: {}", list(behind)))
    } else if !silent.is_empty() {
        let message = format!("{count}; no agent reports on {}, which are ready: see its pod there", list(silent));
        draft(kind, Truth::Unknown, "AgentSilent", message)
    } else {
        draft(kind, Truth::True, "Enforced", count)
    };
    let before = &config.status;
    let valid = refused.is_none();
    ConfigStatus {
        observed_generation: Some(config.generation),
        default_action: if valid { Some(config.default_action) } else { before.default_action },
        enforcement: if valid { Some(config.enforcement) } else { before.enforcement },
        enforced: Some(format!("{enforced}/{concerned}")),
        conditions: dated([accepted, enforced_condition], &before.conditions, config.generation, now),
    }
}

/// The conditions with the time of their last change: a status that stays keeps its time.
fn dated(
    drafts: impl IntoIterator<Item = Draft>,
    before: &[Condition],
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let dated = |draft: Draft| {
        let old = before.iter().find(|old| old.kind == draft.kind && old.status == draft.status);
        Condition {
            kind: draft.kind,
            status: draft.status,
            observed_generation: Some(generation),
            last_transition_time: old.map_or_else(|| now.to_string(), |old| old.last_transition_time.clone()),
            reason: draft.reason.to_owned(),
            message: shortened(&draft.message),
        }
    };
    drafts.into_iter().map(dated).collect()
}
