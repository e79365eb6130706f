//! From what the reconciler knows after a round to the [`Round`] that is reported.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use egress_policy::model::{Peer, Policy, PolicyKey, PolicyKind, PolicySet};
use egress_policy::status::{Note, NoteReason, PodCounts, ReportedKind};
use egress_policy::warnings::Warning;

use crate::kube::Version;
use crate::sources::Problem;

use super::node::{ConfigRound, PolicyRound, Round};
use super::seen::noted;

/// The endpoints that each policy selects.
pub(crate) type Selected = BTreeMap<Arc<PolicyKey>, BTreeSet<String>>;

const CONFIG: &str = "EgressConfig default";

/// Which versions of the objects are in force: the newest that was valid.
#[derive(Clone, Debug, Default)]
pub(crate) struct InForce(BTreeMap<String, Version>);

impl InForce {
    /// Takes the newest versions, by title; an object that `problems` are about stays as it was.
    pub(crate) fn follow(&mut self, newest: &BTreeMap<String, Version>, problems: &[Problem]) {
        let refused: BTreeSet<&str> = problems.iter().filter_map(|problem| problem.object.as_deref()).collect();
        let version = |(title, version): (&String, &Version)| {
            if refused.contains(title.as_str()) {
                let before = self.0.get(title).filter(|before| before.uid == version.uid);
                let generation = before.map_or(0, |before| before.generation);
                return (title.clone(), Version { generation, uid: version.uid.clone() });
            }
            (title.clone(), version.clone())
        };
        self.0 = newest.iter().map(version).collect();
    }
}

/// What a round is composed of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'r> {
    pub(crate) in_force: &'r InForce,
    pub(crate) set: &'r PolicySet,
    pub(crate) selected: &'r Selected,
    /// Endpoints that are not judged by their present rules.
    pub(crate) pending: &'r BTreeSet<String>,
    pub(crate) covered: usize,
    pub(crate) warnings: &'r BTreeSet<Warning>,
    /// Warnings about names, each beginning with the title of its policy.
    pub(crate) name_warnings: &'r BTreeSet<String>,
    pub(crate) problems: &'r [Problem],
    /// Namespaces of the node's pods.
    pub(crate) namespaces: &'r BTreeSet<String>,
    pub(crate) nodes: usize,
}

impl Parts<'_> {
    /// What is to be reported.
    pub(crate) fn round(&self) -> Round {
        let mut told = BTreeSet::new();
        let policies = self.in_force.0.iter().filter_map(|(title, version)| self.policy(title, version, &mut told));
        let policies: Vec<PolicyRound> = policies.collect();
        let config = self.in_force.0.get(CONFIG).map(|version| ConfigRound {
            uid: version.uid.clone(),
            generation: version.generation,
            notes: Vec::new(),
        });
        let left = self.problems.iter().filter(|problem| {
            let object = problem.object.as_deref().unwrap_or_default();
            !self.in_force.0.contains_key(object) && !told.contains(object)
        });
        Round {
            pods: PodCounts {
                covered: count(self.covered),
                enforced: count(self.covered.saturating_sub(self.pending.len())),
            },
            config,
            policies,
            problems: left.map(|problem| note(NoteReason::Failed, problem)).collect(),
            nodes: self.nodes,
            foreign: Vec::new(),
        }
    }

    fn policy<'p>(&'p self, title: &str, version: &Version, told: &mut BTreeSet<&'p str>) -> Option<PolicyRound> {
        let (kind, name) = title.split_once(' ')?;
        let (kind, of) = match kind {
            "EgressNetworkPolicy" => (ReportedKind::EgressNetworkPolicy, PolicyKind::EgressNetworkPolicy),
            "ClusterEgressPolicy" => (ReportedKind::ClusterEgressPolicy, PolicyKind::ClusterEgressPolicy),
            _ => return None,
        };
        let (namespace, name) =
            name.split_once('/').map_or((None, name), |(namespace, name)| (Some(namespace.to_owned()), name));
        let key = PolicyKey { kind: of, namespace: namespace.clone(), name: name.to_owned() };
        let policy = self.set.policies.values().find(|policy| *policy.key == key);
        let nothing = BTreeSet::new();
        let endpoints = self.selected.get(&key).unwrap_or(&nothing);
        let here = !endpoints.is_empty();
        let mut notes: Vec<Note> = Vec::new();
        for problem in self.problems {
            let object = problem.object.as_deref().unwrap_or_default();
            let reason = match problem.source.as_str() {
                _ if object == title => {
                    let concerned =
                        here || namespace.as_ref().is_none_or(|namespace| self.namespaces.contains(namespace));
                    Some(NoteReason::Refused).filter(|_| concerned)
                }
                "dns" => Some(NoteReason::NameFails).filter(|_| here && names(policy, object)),
                "policies" => Some(NoteReason::Capacity).filter(|_| endpoints.contains(object)),
                _ => Some(NoteReason::Failed).filter(|_| endpoints.contains(object)),
            };
            let Some(reason) = reason else { continue };
            told.insert(object);
            notes.push(note(reason, problem));
        }
        let own = self.warnings.iter().filter(|warning| warning.policy.as_deref() == Some(&key));
        notes.extend(own.map(noted));
        let about = format!("{title}: ");
        let of_names = self.name_warnings.iter().filter_map(|warning| warning.strip_prefix(&about));
        notes.extend(of_names.map(|message| Note { reason: NoteReason::Warning, message: message.to_owned() }));
        let pending = endpoints.intersection(self.pending).count();
        Some(PolicyRound {
            kind,
            namespace,
            name: name.to_owned(),
            uid: version.uid.clone(),
            generation: version.generation,
            pods: count(endpoints.len()),
            enforced: count(endpoints.len() - pending),
            notes,
        })
    }
}

/// Whether a rule of the policy is about the name.
fn names(policy: Option<&Policy>, name: &str) -> bool {
    let mut rules = policy.into_iter().flat_map(|policy| policy.rules.iter());
    rules.any(|rule| matches!(&rule.peer, Peer::DnsName(pattern) if pattern.to_string() == name))
}

fn note(reason: NoteReason, problem: &Problem) -> Note {
    let object = match (&problem.object, reason) {
        (_, NoteReason::Refused) | (None, _) => String::new(),
        (Some(object), _) => format!("{object}: "),
    };
    let path = problem.path.as_ref().map(|path| format!("{path}: ")).unwrap_or_default();
    let hint = problem.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
    Note { reason, message: format!("{object}{path}{}{hint}", problem.message) }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
