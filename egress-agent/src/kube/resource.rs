//! What is watched: one row per kind of object, with why it is needed.

use std::collections::BTreeSet;

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
    /// Those of services that are asked for by name (under [`Slices::Unmanaged`]).
    NamedSlice,
    /// The service CIDRs (§1.2).
    ServiceCidr,
    /// `kubeadm`'s settings, where the two above say nothing (§1.2).
    KubeadmConfig,
    /// Which foreign kinds the cluster has.
    Definition,
    /// Foreign objects, by `resource.group`.
    Foreign(String),
}

/// Which endpoints of services are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Slices {
    /// All of them.
    #[default]
    All,
    /// Those that no controller of Kubernetes keeps in step with a service's selector: what leads outside, but for pods in the hosts'
    /// network behind a service. For clusters of thousands of nodes (docs/scale.md).
    Unmanaged,
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
            Self::NamedSlice => "endpointslices.discovery.k8s.io by service",
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

    /// The nodes.
    pub(crate) fn nodes() -> Self {
        Self::new(Kind::Node, api("", "v1", "Node", "nodes")).cached()
    }

    /// The slices of services, as far as they are asked for whatever their service.
    fn slices(which: Slices) -> Self {
        let labels = match which {
            Slices::All => SERVICE.to_owned(),
            Slices::Unmanaged => format!("{SERVICE},{MANAGED_BY}!={CONTROLLER}"),
        };
        Self::slices_with(Kind::EndpointSlice, &labels)
    }

    /// The slices of services of these names, whatever their labels say; of more than [`MOST_NAMES`] names, all slices.
    pub(crate) fn slices_of(services: &BTreeSet<String>) -> Self {
        let names: Vec<&str> = services.iter().map(String::as_str).collect();
        let labels =
            if names.len() > MOST_NAMES { SERVICE.to_owned() } else { format!("{SERVICE} in ({})", names.join(",")) };
        Self::slices_with(Kind::NamedSlice, &labels)
    }

    fn slices_with(kind: Kind, labels: &str) -> Self {
        let mut slices = Self::new(kind, api("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")).cached();
        slices.settings = slices.settings.labels(labels);
        slices
    }

    /// A foreign kind.
    pub(crate) fn foreign(api: ApiResource) -> Self {
        let resource = if api.group.is_empty() { api.plural.clone() } else { format!("{}.{}", api.plural, api.group) };
        Self::new(Kind::Foreign(resource), api).optional()
    }
}

/// Of a slice: its service, who keeps it, and the controller that follows selectors.
pub(crate) const SERVICE: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// As many names, of up to 63 characters, have room in a request's address.
const MOST_NAMES: usize = 100;

/// What every agent watches, whatever the policies say. `node`: the name of its own, whose pods alone it asks for.
pub(crate) fn watched(node: &str, slices: Slices) -> Vec<Watched> {
    const OURS: (&str, &str) = ("egress.rs", "v1alpha1");
    let ours = |kind, name, plural| Watched::new(kind, api(OURS.0, OURS.1, name, plural));
    let core = |kind, name, plural| Watched::new(kind, api("", "v1", name, plural)).cached();
    let mut pods = core(Kind::Pod, "Pod", "pods");
    pods.settings = pods.settings.fields(&format!("spec.nodeName={node}"));
    let cidrs = api("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs");
    let mut kubeadm = core(Kind::KubeadmConfig, "ConfigMap", "configmaps").optional();
    kubeadm.settings = kubeadm.settings.fields("metadata.name=kubeadm-config");
    kubeadm.namespace = Some("kube-system");
    vec![
        ours(Kind::Policy, "EgressNetworkPolicy", "egressnetworkpolicies"),
        ours(Kind::ClusterPolicy, "ClusterEgressPolicy", "clusteregresspolicies"),
        ours(Kind::Config, "EgressConfig", "egressconfigs"),
        core(Kind::Namespace, "Namespace", "namespaces"),
        pods,
        core(Kind::Service, "Service", "services"),
        Watched::slices(slices),
        Watched::new(Kind::ServiceCidr, cidrs).cached().optional(),
        kubeadm,
    ]
}
