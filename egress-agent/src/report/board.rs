//! Everything that the leader sees, and which statuses follow from it that are not looked at yet. No I/O; owned by [`super::leader`].
//!
//! A status is worked out when its policy, what nodes say of it, or the configuration's mode changed, so that the work of a leader grows with
//! what happens in the cluster and not with its size.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use egress_policy::spec::Mode;
use egress_policy::status::{ConfigStatus, PolicyStatus, ReportedKind};
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::fold::{ConfigFacts, PolicyFacts, PolicyName, config_status, policy_status};
use super::seen::Seen;
use super::tally::Tally;
use super::writer;

/// The time beyond the nodes' own that a new version is given to be reported.
const MARGIN: Duration = Duration::from_secs(10);

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Source {
    Policies,
    ClusterPolicies,
    Configs,
    Nodes,
    States,
}

const SOURCES: [Source; 5] =
    [Source::Policies, Source::ClusterPolicies, Source::Configs, Source::Nodes, Source::States];

impl Source {
    /// What messages call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Policies => "egressnetworkpolicies",
            Self::ClusterPolicies => "clusteregresspolicies",
            Self::Configs => "egressconfigs",
            Self::Nodes => "nodes",
            Self::States => "egressnodestates",
        }
    }
}

/// Something that a watch said; objects by source and `namespace/name`.
#[derive(Debug)]
pub(super) enum Change {
    /// A listing begins.
    Begun(Source),
    Put(Source, String, Box<Seen>),
    Gone(Source, String),
    /// The listing is whole: what it did not have is gone.
    Done(Source),
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub(super) struct Board {
    policies: BTreeMap<PolicyName, Entry>,
    config: Option<ConfigFacts>,
    tally: Tally,
    /// Whether the configuration turned enforcement off when policies were last looked at.
    audit: bool,
    /// What there is, by source.
    keys: HashMap<Source, HashSet<String>>,
    /// Keys of a listing that is not whole yet.
    listing: HashMap<Source, HashSet<String>>,
    listed: HashSet<Source>,
}

/// A policy.
#[derive(Debug)]
struct Entry {
    facts: PolicyFacts,
    /// When this version was first seen.
    since: Instant,
    /// Whether its status is to be worked out anew.
    due: bool,
}

/// A status that was worked out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) name: PolicyName,
    pub(super) uid: String,
    pub(super) status: PolicyStatus,
    /// Whether the API server has another one.
    pub(super) differs: bool,
}

/// How long a new version is given until every node has reported on it.
fn settling(tally: &Tally) -> Duration {
    writer::spread(tally.nodes()) + MARGIN
}

/// The name of the policy with this key.
fn named(source: Source, key: &str) -> PolicyName {
    let (namespace, name) = key.split_once('/').map_or((None, key), |(namespace, name)| (Some(namespace), name));
    let kind =
        if source == Source::Policies { ReportedKind::EgressNetworkPolicy } else { ReportedKind::ClusterEgressPolicy };
    PolicyName { kind, namespace: namespace.map(str::to_owned), name: name.to_owned() }
}

impl Board {
    /// Takes note of a change at this time.
    pub(super) fn apply(&mut self, change: Change, now: Instant) {
        match change {
            Change::Begun(source) => drop(self.listing.insert(source, HashSet::new())),
            Change::Put(source, key, seen) => {
                if let Some(listing) = self.listing.get_mut(&source) {
                    listing.insert(key.clone());
                }
                self.put(&key, *seen, now);
                self.keys.entry(source).or_default().insert(key);
            }
            Change::Gone(source, key) => {
                if let Some(keys) = self.keys.get_mut(&source) {
                    keys.remove(&key);
                }
                self.gone(source, &key);
            }
            Change::Done(source) => {
                let present = self.listing.remove(&source).unwrap_or_default();
                let before = self.keys.remove(&source).unwrap_or_default();
                for key in before.difference(&present) {
                    self.gone(source, key);
                }
                self.keys.insert(source, present);
                self.listed.insert(source);
            }
        }
    }

    fn put(&mut self, key: &str, seen: Seen, now: Instant) {
        match seen {
            Seen::Policy(policy) => {
                let (name, facts) = *policy;
                let same = |entry: &&Entry| entry.facts.uid == facts.uid && entry.facts.generation == facts.generation;
                let since = self.policies.get(&name).filter(same).map_or(now, |entry| entry.since);
                self.policies.insert(name, Entry { facts, since, due: true });
            }
            Seen::Config(config) => self.config = Some(*config),
            Seen::Node { ready } => self.tally.node(key, Some(ready)),
            Seen::State(state) => self.tally.state(key, Some(*state)),
        }
    }

    fn gone(&mut self, source: Source, key: &str) {
        match source {
            Source::Policies | Source::ClusterPolicies => drop(self.policies.remove(&named(source, key))),
            Source::Configs => self.config = None,
            Source::Nodes => self.tally.node(key, None),
            Source::States => self.tally.state(key, None),
        }
    }

    /// Whether everything was listed once; before that nothing can be said.
    pub(super) fn is_whole(&self) -> bool {
        SOURCES.iter().all(|source| self.listed.contains(source))
    }

    /// The statuses of policies that are to be looked at, at this time by both clocks. They are not due any more.
    pub(super) fn due(&mut self, now: Instant, time: Timestamp) -> Vec<Due> {
        let changed = self.tally.changed(time);
        let settling = settling(&self.tally);
        let audit = self.config.as_ref().is_some_and(|config| config.enforcement == Mode::Audit);
        let all = audit != std::mem::replace(&mut self.audit, audit);
        let mut due = Vec::new();
        for (name, entry) in &mut self.policies {
            // A version of which another leader said that it is in force had its time.
            let settles = !entry.facts.settled && now.duration_since(entry.since) >= settling;
            entry.facts.settled |= settles;
            if all || settles || entry.due || changed.contains(entry.facts.uid.as_str()) {
                let status = policy_status(&entry.facts, &self.tally, audit, time);
                let differs = status != entry.facts.status;
                due.push(Due { name: name.clone(), uid: entry.facts.uid.clone(), status, differs });
                entry.due = false;
            }
        }
        due
    }

    /// When the next version will have had its time to be reported, if nothing else happens; none if all have had it.
    pub(super) fn settles(&self) -> Option<Instant> {
        let first = self.policies.values().filter(|entry| !entry.facts.settled).map(|entry| entry.since).min();
        first.map(|first| first + settling(&self.tally))
    }

    /// The API server has this status now.
    pub(super) fn written(&mut self, due: Due) {
        if let Some(entry) = self.policies.get_mut(&due.name).filter(|entry| entry.facts.uid == due.uid) {
            entry.facts.status = due.status;
        }
    }

    /// This policy is to be looked at again.
    pub(super) fn again(&mut self, name: &PolicyName) {
        if let Some(entry) = self.policies.get_mut(name) {
            entry.due = true;
        }
    }

    /// The status of the configuration, if the API server has another one.
    pub(super) fn config(&self, time: Timestamp) -> Option<ConfigStatus> {
        let config = self.config.as_ref()?;
        let status = config_status(config, &self.tally, time);
        (status != config.status).then_some(status)
    }
}
