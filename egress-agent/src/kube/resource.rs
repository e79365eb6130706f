//! What is watched: one row per kind of object, with why it is needed.

use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher;

/// Kinds of objects that the index knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Our policies of namespaces.
    Policy,
    /// Our policies of the cluster.
    ClusterPolicy,
    /// Our settings.
    Config,
    /// Labels for `namespaceSelector`.
    Namespace,
    /// Addresses for `nodeSelector`, and the pod CIDRs (§1.2).
    Node,
    /// The pods of this node.
    Pod,
    /// Ports and addresses of services (§1.6), and the cluster's DNS (§5.2).
    Service,
    /// The endpoints behind them.
    EndpointSlice,
    /// The service CIDRs (§1.2).
    ServiceCidr,
    /// `kubeadm`'s settings, where the two above say nothing (§1.2).
    KubeadmConfig,
    /// Which foreign kinds the cluster has.
    Definition,
    /// Foreign objects, by `resource.group`.
    Foreign(String),
}

/// One thing to watch.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) kind: Kind,
    pub(crate) api: ApiResource,
    pub(crate) settings: watcher::Config,
    /// Only in this namespace.
    pub(crate) namespace: Option<&'static str>,
    /// Whether a cluster without this kind, or one that keeps it from the agent, is a cluster without such objects.
    pub(crate) optional: bool,
}

impl Kind {
    /// What metrics and messages call it: the resource with its group.
    pub(crate) fn resource(&self) -> &str {
        match self {
            Self::Policy => "egressnetworkpolicies.egress.rs",
            Self::ClusterPolicy => "clusteregresspolicies.egress.rs",
            Self::Config => "egressconfigs.egress.rs",
            Self::Namespace => "namespaces",
            Self::Node => "nodes",
            Self::Pod => "pods",
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices.discovery.k8s.io",
            Self::ServiceCidr => "servicecidrs.networking.k8s.io",
            Self::KubeadmConfig => "configmaps",
            Self::Definition => "customresourcedefinitions.apiextensions.k8s.io",
            Self::Foreign(resource) => resource,
        }
    }
}

fn api(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

impl Watched {
    fn new(kind: Kind, api: ApiResource) -> Self {
        Self { kind, api, settings: watcher::Config::default(), namespace: None, optional: false }
    }

    /// From the API server's memory instead of its database: what thousands of agents list when they start together.
    fn cached(mut self) -> Self {
        // With pages the server would go to its database after all.
        self.settings = self.settings.any_semantic();
        self.settings.page_size = None;
        self
    }

    fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    /// Custom resource definitions, for `--compat`.
    pub(crate) fn definitions() -> Self {
        let kind = api("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions");
        Self::new(Kind::Definition, kind).cached().optional()
    }

    /// A foreign kind.
    pub(crate) fn foreign(api: ApiResource) -> Self {
        let resource = if api.group.is_empty() { api.plural.clone() } else { format!("{}.{}", api.plural, api.group) };
        Self::new(Kind::Foreign(resource), api).optional()
    }
}

/// What every agent watches. `node`: the name of its own, whose pods alone it asks for.
pub(crate) fn watched(node: &str) -> Vec<Watched> {
    const OURS: (&str, &str) = ("egress.rs", "v1alpha1");
    let ours = |kind, name, plural| Watched::new(kind, api(OURS.0, OURS.1, name, plural));
    let core = |kind, name, plural| Watched::new(kind, api("", "v1", name, plural)).cached();
    let mut pods = core(Kind::Pod, "Pod", "pods");
    pods.settings = pods.settings.fields(&format!("spec.nodeName={node}"));
    let slices = api("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices");
    let mut slices = Watched::new(Kind::EndpointSlice, slices).cached();
    slices.settings = slices.settings.labels("kubernetes.io/service-name");
    let cidrs = api("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs");
    let mut kubeadm = core(Kind::KubeadmConfig, "ConfigMap", "configmaps").optional();
    kubeadm.settings = kubeadm.settings.fields("metadata.name=kubeadm-config");
    kubeadm.namespace = Some("kube-system");
    vec![
        ours(Kind::Policy, "EgressNetworkPolicy", "egressnetworkpolicies"),
        ours(Kind::ClusterPolicy, "ClusterEgressPolicy", "clusteregresspolicies"),
        ours(Kind::Config, "EgressConfig", "egressconfigs"),
        core(Kind::Namespace, "Namespace", "namespaces"),
        core(Kind::Node, "Node", "nodes"),
        pods,
        core(Kind::Service, "Service", "services"),
        slices,
        Watched::new(Kind::ServiceCidr, cidrs).cached().optional(),
        kubeadm,
    ]
}
