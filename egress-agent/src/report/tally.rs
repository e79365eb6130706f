//! What the nodes say of each policy, kept in step with every change; the leader's [`super::board`] owns it.
//!
//! Thousands of nodes renew their states all the time, and nearly nothing in them is new. So a state is compared with what its node said
//! before, and only policies of which something else is said now are marked. Kept is only what statuses follow from.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use egress_policy::status::{ConfigOnNode, NodeState, Note, PolicyOnNode};
use k8s_openapi::jiff::Timestamp;

use super::clock::{age, time};

/// An agent renews its state every ten minutes; after three it counts as silent.
pub(super) const SILENT: Duration = Duration::from_mins(30);

/// All nodes and all that they say.
#[derive(Debug, Default)]
pub(super) struct Tally {
    nodes: BTreeMap<Arc<str>, OnNode>,
    /// By the UID of the policy and by node, also of nodes that do not count now.
    said: HashMap<Arc<str>, BTreeMap<Arc<str>, Said>>,
    /// UIDs of policies of which something else is said than when they were last asked for.
    changed: HashSet<Arc<str>>,
}

/// A node, or what is left of one.
#[derive(Debug, Default)]
struct OnNode {
    /// Whether its Node is ready; none if there is no Node.
    ready: Option<bool>,
    /// Whether its agent was silent for too long when that was last looked at, or never spoke.
    silent: bool,
    state: Option<State>,
}

/// What is kept of the state of a node, beside what it says of policies.
#[derive(Debug)]
struct State {
    renewed: Option<Timestamp>,
    config: Option<ConfigOnNode>,
    /// UIDs.
    policies: Vec<Arc<str>>,
}

/// What a node says of a policy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// Of the version in force.
    pub(super) generation: i64,
    /// Pods that it selects.
    pub(super) pods: u32,
    /// Of these, the ones that the kernel judges by it.
    pub(super) enforced: u32,
    pub(super) notes: Box<[Note]>,
}

/// What a node that counts says of something.
#[derive(Debug)]
pub(super) struct Voice<'s, T> {
    pub(super) node: &'s str,
    /// Whether its agent was silent for too long since.
    pub(super) silent: bool,
    pub(super) said: T,
}

impl Tally {
    /// Whether the Node of this name is ready; none if it is gone.
    pub(super) fn node(&mut self, name: &str, ready: Option<bool>) {
        let node = self.nodes.entry(name.into()).or_default();
        let before = std::mem::replace(&mut node.ready, ready);
        if (before == Some(true)) != (ready == Some(true)) {
            self.changed.extend(node.state.iter().flat_map(|state| state.policies.iter().cloned()));
        }
        self.forget(name);
    }

    /// The state of a node; none if it is gone.
    pub(super) fn state(&mut self, name: &str, state: Option<NodeState>) {
        let name: Arc<str> = self.nodes.get_key_value(name).map_or_else(|| name.into(), |(name, _)| Arc::clone(name));
        let before = self.nodes.get_mut(&name).and_then(|node| node.state.take());
        let state = state.map(|state| State {
            renewed: state.renewed_at.as_deref().and_then(time),
            policies: state.policies.into_iter().map(|entry| self.put(&name, entry)).collect(),
            config: state.config,
        });
        let kept: HashSet<&Arc<str>> = state.iter().flat_map(|state| &state.policies).collect();
        for uid in before.iter().flat_map(|before| &before.policies).filter(|uid| !kept.contains(uid)) {
            self.take(&name, uid);
        }
        self.nodes.entry(Arc::clone(&name)).or_default().state = state;
        self.forget(&name);
    }

    fn put(&mut self, node: &Arc<str>, entry: PolicyOnNode) -> Arc<str> {
        let PolicyOnNode { uid, generation, pods, enforced, notes, .. } = entry;
        let said = Said { generation, pods, enforced, notes: notes.into() };
        let uid = self.said.get_key_value(uid.as_str()).map_or_else(|| uid.into(), |(uid, _)| Arc::clone(uid));
        let nodes = self.said.entry(Arc::clone(&uid)).or_default();
        if nodes.get(node) != Some(&said) {
            nodes.insert(Arc::clone(node), said);
            self.changed.insert(Arc::clone(&uid));
        }
        uid
    }

    fn take(&mut self, node: &Arc<str>, uid: &Arc<str>) {
        let Some(nodes) = self.said.get_mut(uid) else { return };
        if nodes.remove(node).is_some() {
            self.changed.insert(Arc::clone(uid));
        }
        if nodes.is_empty() {
            self.said.remove(uid);
        }
    }

    fn forget(&mut self, name: &str) {
        if self.nodes.get(name).is_some_and(|node| node.ready.is_none() && node.state.is_none()) {
            self.nodes.remove(name);
        }
    }

    /// Finds out who is silent, which follows from time alone; then the policies of which something else is said than when this was
    /// last asked for.
    pub(super) fn changed(&mut self, now: Timestamp) -> HashSet<Arc<str>> {
        for node in self.nodes.values_mut() {
            let renewed = node.state.as_ref().and_then(|state| state.renewed);
            let silent = renewed.is_none_or(|renewed| age(renewed, now) > SILENT);
            if silent != node.silent {
                node.silent = silent;
                self.changed.extend(node.state.iter().flat_map(|state| state.policies.iter().cloned()));
            }
        }
        std::mem::take(&mut self.changed)
    }

    /// How many Nodes there are.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.values().filter(|node| node.ready.is_some()).count()
    }

    /// What is said of a policy by nodes that are ready.
    pub(super) fn of_policy(&self, uid: &str) -> impl Iterator<Item = Voice<'_, &Said>> {
        let nodes = self.said.get(uid).into_iter().flatten();
        nodes.filter_map(|(name, said)| {
            let node = self.nodes.get(name).filter(|node| node.ready == Some(true))?;
            Some(Voice { node: name, silent: node.silent, said })
        })
    }

    /// What is said of the configuration by nodes that are ready, also by those that say nothing.
    pub(super) fn of_config(&self) -> impl Iterator<Item = Voice<'_, Option<&ConfigOnNode>>> {
        self.nodes.iter().filter(|(_, node)| node.ready == Some(true)).map(|(name, node)| {
            let said = node.state.as_ref().and_then(|state| state.config.as_ref());
            Voice { node: name, silent: node.silent, said }
        })
    }
}
