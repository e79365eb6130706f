//! What follows from the index, for the reconciler: no Kubernetes type in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use egress_policy::model::{NodeInfo, ServicePort};
use egress_policy::ranges::Ranges;
use egress_policy::selector::Labels;

use super::decode::{Listed, Policy};
use super::{Index, Internal, Object, Pod};
use crate::kube::resource::Kind;
use crate::sources::{FileText, Problem};

/// Everything that the agent needs to know of the cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct View {
    /// Policies and settings; each object is a text of its own.
    pub(crate) texts: Vec<FileText>,
    /// Foreign objects, by `resource.group`.
    pub(crate) foreign: BTreeMap<String, Foreign>,
    /// What the API server calls the foreign objects, by the names of their texts.
    pub(crate) references: BTreeMap<String, Reference>,
    /// Which versions of our objects these are, by the object's title ("`EgressNetworkPolicy` default/curl").
    pub(crate) versions: BTreeMap<String, Version>,
    pub(crate) namespaces: BTreeMap<String, Labels>,
    /// The nodes, if anybody needs to know them.
    pub(crate) nodes: Vec<NodeInfo>,
    /// How many there are.
    pub(crate) node_count: usize,
    pub(crate) internal: Internal,
    /// Addresses of the cluster's DNS service and of its endpoints.
    pub(crate) dns: ServiceDns,
    /// Without what surely leads to nothing but internal addresses: in a large cluster that changes all the time.
    pub(crate) services: Vec<ServicePort>,
    /// The pods of this node.
    pub(crate) pods: Vec<Pod>,
    pub(crate) problems: Vec<Problem>,
}

/// An object as Events refer to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) generation: i64,
}

/// Foreign objects of one kind, by key.
pub(crate) type Foreign = Vec<FileText>;

/// Addresses of a DNS service.
pub(crate) type ServiceDns = Vec<IpAddr>;

/// Which version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// Changes with the spec.
    pub(crate) generation: i64,
    /// Changes if the object is deleted and made again.
    pub(crate) uid: String,
}

/// Names of DNS services in `kube-system`, and of OpenShift's in `openshift-dns`.
const DNS: [&str; 3] = ["kube-dns", "coredns", "kube-dns-upstream"];
const OPENSHIFT_DNS: &str = "dns-default";

/// The services that the pods' resolv.conf may lead to.
fn is_dns(key: &str, app: Option<&str>) -> bool {
    let is_openshifts = key.strip_prefix("openshift-dns/") == Some(OPENSHIFT_DNS);
    let kubernetes = key.strip_prefix("kube-system/");
    is_openshifts || kubernetes.is_some_and(|name| app == Some("kube-dns") || DNS.contains(&name))
}

impl Index {
    /// Whether it matters which nodes there are: for what is internal, or for rules that select nodes.
    pub(crate) fn needs_nodes(&self) -> bool {
        let mut policies =
            self.kinds.keys().flat_map(|kind| self.objects(kind)).filter_map(|(_, object)| policy(object));
        let mut settings = self.objects(&Kind::Config).filter_map(|(_, object)| policy(object));
        !settings.any(|config| matches!(config.internal, Listed::Networks(_)))
            || policies.any(|policy| policy.selects_nodes)
    }

    /// Names of the services whose slices count whatever the slices' labels say: those whose endpoints no selector finds, because
    /// whoever writes such a slice writes its labels too, and DNS services.
    pub(crate) fn services_to_look_at(&self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = DNS.iter().chain([&OPENSHIFT_DNS]).map(|name| (*name).to_owned()).collect();
        for (key, object) in self.objects(&Kind::Service) {
            if let Object::Service(service) = object
                && !service.selects
            {
                names.extend(key.split_once('/').map(|(_, name)| name.to_owned()));
            }
        }
        names
    }

    /// What follows from everything that was said.
    pub(crate) fn view(&self) -> View {
        let internal = Internal::of(self);
        let services = super::services::service_ports(self, &self.surely_internal(&internal));
        let mut view = View { internal, services, ..View::default() };
        for kind in self.kinds.keys() {
            for (key, object) in self.objects(kind) {
                view.add(kind, key, object);
            }
            view.problems.extend(self.problems(kind));
        }
        view.nodes.sort_unstable();
        view.node_count = view.nodes.len();
        view.dns.sort_unstable();
        view.dns.dedup();
        view
    }

    /// What is internal for the reconciler, which knows the version of the settings that is in force; nothing where this is not known here.
    fn surely_internal(&self, found: &Internal) -> Ranges {
        let mut settings = self.objects(&Kind::Config).filter_map(|(_, object)| policy(object));
        match (settings.next().map(|config| &config.internal), settings.next()) {
            (None | Some(Listed::Nothing), None) => found.pods.iter().chain(&found.services).collect(),
            (Some(Listed::Networks(networks)), None) => networks.iter().collect(),
            (_, Some(_)) | (Some(Listed::Unknown), None) => Ranges::default(),
        }
    }

    fn problems(&self, kind: &Kind) -> impl Iterator<Item = Problem> {
        let objects = self.kinds.get(kind).into_iter().flat_map(|objects| &objects.live);
        objects.filter_map(|(key, known)| {
            let problem = known.problem.as_ref()?;
            let source = format!("{} {key}", kind.resource());
            let hint = "its last version that could be read stays in force; correct the object";
            Some(Problem::new(source, format!("cannot be read: {problem}")).hint(hint))
        })
    }
}

impl View {
    fn add(&mut self, kind: &Kind, key: &str, object: &Object) {
        match object {
            Object::Policy(policy) => {
                let name = format!("{} {key}", kind.resource());
                let text = FileText { name, text: Ok(policy.text.clone()) };
                if let Kind::Foreign(resource) = kind {
                    self.references.insert(text.name.clone(), reference(key, policy));
                    self.foreign.entry(resource.clone()).or_default().push(text);
                } else {
                    let version = Version { generation: policy.generation, uid: policy.uid.clone() };
                    self.versions.insert(format!("{} {key}", title(kind)), version);
                    self.texts.push(text);
                }
            }
            Object::Namespace(labels) => drop(self.namespaces.insert(key.to_owned(), labels.clone())),
            Object::Node(node) => {
                self.nodes.push(NodeInfo { labels: node.labels.clone(), addresses: node.addresses.clone() });
            }
            Object::Pod(pod) => self.pods.push(pod.clone()),
            Object::Service(service) => {
                if is_dns(key, service.app.as_deref()) {
                    self.dns.extend(&service.cluster_addresses);
                }
            }
            Object::Slice(slice) => {
                if is_dns(&slice.service, None) {
                    self.dns.extend(&slice.addresses);
                }
            }
            Object::Cidrs(_) | Object::Kubeadm(_) | Object::Definition(_) => {}
        }
    }
}

fn reference(key: &str, policy: &Policy) -> Reference {
    let (namespace, name) =
        key.split_once('/').map_or((None, key), |(namespace, name)| (Some(namespace.to_owned()), name));
    Reference {
        api_version: policy.api_version.clone(),
        kind: policy.kind.clone(),
        namespace,
        name: name.to_owned(),
        uid: policy.uid.clone(),
        generation: policy.generation,
    }
}

fn policy(object: &Object) -> Option<&Policy> {
    if let Object::Policy(policy) = object { Some(policy) } else { None }
}

/// What messages call our kinds.
fn title(kind: &Kind) -> &'static str {
    match kind {
        Kind::Policy => "EgressNetworkPolicy",
        Kind::ClusterPolicy => "ClusterEgressPolicy",
        Kind::Config => "EgressConfig",
        Kind::Namespace
        | Kind::Node
        | Kind::Pod
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::NamedSlice
        | Kind::ServiceCidr
        | Kind::KubeadmConfig
        | Kind::Definition
        | Kind::Foreign(_) => "",
    }
}
