//! The requests: what is applied where, under which field manager.

use std::time::Duration;

use egress_policy::crd::{GROUP, VERSION};
use egress_policy::status::{ConfigStatus, NodeState, PolicyStatus, ReportedKind};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Client, Error};
use serde_json::{Value, json};

use super::fold::PolicyName;

/// Who owns the fields.
pub(super) const MANAGER: &str = "egress.rs";

/// The kinds that are spoken of here.
pub(super) fn resource(kind: &str) -> ApiResource {
    let plural = egress_policy::crd::DEFINITIONS.iter().find(|known| known.kind == kind).map(|known| known.plural);
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, kind), plural.unwrap_or_default())
}

/// The kind of a policy.
pub(super) const fn kind_name(kind: ReportedKind) -> &'static str {
    match kind {
        ReportedKind::EgressNetworkPolicy => "EgressNetworkPolicy",
        ReportedKind::ClusterEgressPolicy => "ClusterEgressPolicy",
    }
}

fn applied() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}

fn object(kind: &str, name: &str, rest: Value) -> Value {
    let mut object = json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": kind, "metadata": {"name": name}});
    if let (Value::Object(object), Value::Object(rest)) = (&mut object, rest) {
        for (name, value) in rest {
            object.insert(name, value);
        }
    }
    object
}

fn policies(client: &Client, name: &PolicyName) -> Api<DynamicObject> {
    let resource = resource(kind_name(name.kind));
    match &name.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Writes the status of a policy.
pub(super) async fn write_policy(client: &Client, name: &PolicyName, status: &PolicyStatus) -> Result<(), Error> {
    let patch = object(kind_name(name.kind), &name.name, json!({"status": status}));
    policies(client, name).patch_status(&name.name, &applied(), &Patch::Apply(patch)).await.map(drop)
}

/// Writes the status of the configuration.
pub(super) async fn write_config(client: &Client, status: &ConfigStatus) -> Result<(), Error> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource("EgressConfig"));
    let patch = object("EgressConfig", "default", json!({"status": status}));
    api.patch_status("default", &applied(), &Patch::Apply(patch)).await.map(drop)
}

/// The state of one node on the API server.
#[derive(Clone)]
pub(super) struct NodeStates {
    client: Client,
    api: Api<DynamicObject>,
    node: String,
}

impl NodeStates {
    pub(super) fn new(client: Client, node: &str) -> Self {
        let api = Api::all_with(client.clone(), &resource("EgressNodeState"));
        Self { client, api, node: node.to_owned() }
    }

    /// Makes the object, owned by the Node, so that it goes with it.
    pub(super) async fn create(&self) -> Result<(), Error> {
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(self.client.clone());
        let node = nodes.get(&self.node).await?;
        let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": self.node, "uid": node.metadata.uid}]);
        let metadata = json!({"name": self.node, "ownerReferences": owner});
        let patch = object("EgressNodeState", &self.node, json!({"metadata": metadata}));
        self.api.patch(&self.node, &applied(), &Patch::Apply(patch)).await.map(drop)
    }

    /// Writes the whole state.
    pub(super) async fn write(&self, state: &NodeState) -> Result<(), Error> {
        let patch = object("EgressNodeState", &self.node, json!({"status": state}));
        self.api.patch_status(&self.node, &applied(), &Patch::Apply(patch)).await.map(drop)
    }

    /// Says only that the agent lives.
    pub(super) async fn renew(&self, time: &str) -> Result<(), Error> {
        let patch = json!({"status": {"renewedAt": time}});
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        self.api.patch_status(&self.node, &params, &Patch::Merge(patch)).await.map(drop)
    }
}

/// Whether the object, or its kind, is not there.
pub(super) fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 404)
}

/// Waits that grow while a request fails, so that an API server in trouble is left alone.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    const LONGEST: u64 = 120;

    /// How long to wait before the next try.
    pub(super) fn failed(&mut self) -> Duration {
        let seconds = 1_u64.checked_shl(self.failures.min(10)).unwrap_or(Self::LONGEST).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        Duration::from_secs(seconds).mul_f64(rand::random_range(0.5..1.0))
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }
}
