//! Foreign kinds: watched while the cluster has them, whether they come before the agent or after.

use std::collections::BTreeMap;
use std::sync::Arc;

use egress_policy::import;
use kube::Client;
use kube::core::{ApiResource, GroupVersionKind};
use tokio::sync::mpsc::Sender;
use tokio::task::AbortHandle;
use tracing::info;

use super::health::Health;
use super::index::Definition;
use super::resource::{Kind, Watched};
use super::watch::{self, Told};

/// The kind that every cluster has without a definition.
const BUILT_IN: (&str, &str, &str, &str) = ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies");

/// The foreign kinds that are asked for.
pub(super) struct Compat {
    client: Client,
    /// `apiVersion` and `kind` of every object that belongs to them.
    wanted: Vec<(&'static str, &'static str)>,
    told: Sender<Told>,
    health: Arc<Health>,
    /// By kind, with the API that is watched.
    running: BTreeMap<Kind, (ApiResource, AbortHandle)>,
}

/// Names of the foreign kinds that can be watched: those that are objects.
pub(crate) fn names() -> Vec<&'static str> {
    let objects = import::KINDS.iter().filter(|kind| !kind.apis.is_empty() && kind.name != "egress");
    objects.map(|kind| kind.name).collect()
}

impl Compat {
    pub(super) fn new(client: Client, names: &[String], told: Sender<Told>, health: Arc<Health>) -> Self {
        let kinds = names.iter().filter_map(|name| import::kind(name));
        let apis = kinds.flat_map(|kind| kind.apis);
        let wanted = apis.flat_map(|api| api.versions.iter().map(|version| (*version, api.kind))).collect();
        Self { client, wanted, told, health, running: BTreeMap::new() }
    }

    /// Begins with what needs no definition; which kinds must be listed before anything is known.
    pub(super) fn start(&mut self) -> Vec<Kind> {
        if self.wanted.is_empty() {
            return Vec::new();
        }
        let (group, version, kind, plural) = BUILT_IN;
        if self.wanted.contains(&("networking.k8s.io/v1", kind)) {
            self.watch(ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural));
        }
        let definitions = Watched::definitions();
        let kind = definitions.kind.clone();
        tokio::spawn(watch::follow(self.client.clone(), definitions, self.told.clone(), Arc::clone(&self.health)));
        vec![kind]
    }

    /// Whether changes of `kind` count: of a foreign kind that ended, some may still be on their way.
    pub(super) fn wants(&self, kind: &Kind) -> bool {
        !matches!(kind, Kind::Foreign(_)) || self.running.contains_key(kind)
    }

    /// The kinds that are watched now.
    pub(super) fn watched(&self) -> impl Iterator<Item = &Kind> {
        self.running.keys()
    }

    /// Begins and ends watches as the cluster has the kinds. Returns those that ended.
    pub(super) fn follow<'d>(&mut self, definitions: impl Iterator<Item = &'d Definition>) -> Vec<Kind> {
        if self.wanted.is_empty() {
            return Vec::new();
        }
        let found: BTreeMap<Kind, ApiResource> = definitions
            .filter_map(|definition| {
                let api = self.served(definition)?;
                Some((Watched::foreign(api.clone()).kind, api))
            })
            .collect();
        let is_built_in = |api: &ApiResource| api.group == BUILT_IN.0;
        let ended: Vec<Kind> = self
            .running
            .iter()
            .filter(|(kind, (api, _))| !is_built_in(api) && found.get(kind) != Some(api))
            .map(|(kind, _)| kind.clone())
            .collect();
        for kind in &ended {
            if let Some((_, task)) = self.running.remove(kind) {
                info!(resource = kind.resource(), "this foreign kind is gone");
                task.abort();
                self.health.ended(kind.resource());
            }
        }
        for (kind, api) in found {
            if !self.running.contains_key(&kind) {
                self.watch(api);
            }
        }
        ended
    }

    /// The first of the versions that can be read, if the definition is of a wanted kind.
    fn served(&self, definition: &Definition) -> Option<ApiResource> {
        let is_served = |(version, kind): &&(&str, &str)| {
            let served = version.split_once('/').filter(|(group, _)| *group == definition.group);
            *kind == definition.kind
                && served.is_some_and(|(_, version)| definition.versions.iter().any(|served| served == version))
        };
        let (version, kind) = self.wanted.iter().find(is_served)?;
        let (group, version) = version.split_once('/')?;
        let gvk = GroupVersionKind::gvk(group, version, kind);
        Some(ApiResource::from_gvk_with_plural(&gvk, &definition.plural))
    }

    fn watch(&mut self, api: ApiResource) {
        let watched = Watched::foreign(api.clone());
        let kind = watched.kind.clone();
        info!(resource = kind.resource(), version = api.version, "watching this foreign kind");
        let (client, told, health) = (self.client.clone(), self.told.clone(), Arc::clone(&self.health));
        let task = tokio::spawn(watch::follow(client, watched, told, health));
        self.running.insert(kind, (api, task.abort_handle()));
    }
}
