//! From an object as the API server writes it to what is needed of it. Each by itself: one that cannot be read stalls nothing.
//!
//! Policies stay text, which the reader of policy files validates: what is valid in a file is valid here, and nothing else (§6.3).
//! Of other objects only the fields below are read, and unknown ones are ignored, as every client of Kubernetes does.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use egress_policy::document;
use egress_policy::selector::Labels;
use ipnet::IpNet;
use kube::core::{DynamicObject, ObjectMeta};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::kube::resource::{SERVICE, Watched};
use crate::sources::Text;

use super::super::resource::Kind;

/// An object, or why it cannot be read.
pub(crate) type Decoded = Result<Object, String>;

/// What is kept of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Object {
    /// A policy, a configuration or a foreign object, as text.
    Policy(Policy),
    /// Its labels.
    Namespace(Labels),
    Node(Node),
    Pod(Pod),
    Service(Service),
    Slice(Slice),
    /// Of a `ServiceCIDR`.
    Cidrs(Vec<IpNet>),
    Kubeadm(Kubeadm),
    Definition(Definition),
}

/// An object that the reader of policies judges.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Policy {
    pub(crate) text: Arc<Text>,
    /// Changes with the spec, not with the status.
    pub(crate) generation: i64,
    pub(crate) uid: String,
    pub(crate) api_version: String,
    pub(crate) kind: String,
    /// Whether it may be about nodes.
    pub(crate) selects_nodes: bool,
    /// What is internal, if it is the configuration.
    pub(crate) internal: Listed,
}

/// What a configuration says of the internal CIDRs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Listed {
    /// It is not valid, so that an earlier version is in force.
    #[default]
    Unknown,
    /// Nothing: what the cluster tells is internal.
    Nothing,
    /// These are.
    Networks(Vec<IpNet>),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Node {
    pub(crate) labels: Labels,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) pod_cidrs: Vec<IpNet>,
}

/// A pod of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// As its cgroup is named: of a static pod, the hash of its file, which only the kubelet's copy in the API has as its UID.
    pub(crate) uid: String,
    pub(crate) labels: Labels,
    pub(crate) service_account: Option<String>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) host_network: bool,
    /// Whether kubelet says that it runs.
    pub(crate) running: bool,
    /// Whether it ended for good.
    pub(crate) ended: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Service {
    /// Addresses that clients use: cluster, external, load balancer.
    pub(crate) addresses: Vec<IpAddr>,
    /// Of these, the ones of the cluster.
    pub(crate) cluster_addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<Port>,
    /// The label `k8s-app`.
    pub(crate) app: Option<String>,
    /// Whether a controller finds its endpoints by labels of pods.
    pub(crate) selects: bool,
}

/// A port of a service or of a slice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Port {
    /// Empty if it is the only one.
    pub(crate) name: String,
    pub(crate) protocol: u8,
    pub(crate) number: u16,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Slice {
    /// `namespace/name`.
    pub(crate) service: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<Port>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Kubeadm {
    pub(crate) pods: Vec<IpNet>,
    pub(crate) services: Vec<IpNet>,
}

/// A kind that the cluster knows by a `CustomResourceDefinition`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Definition {
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    /// The versions that are served.
    pub(crate) versions: Vec<String>,
}

/// `namespace/name`, or only the name.
pub(crate) fn key(metadata: &ObjectMeta) -> String {
    let name = metadata.name.as_deref().unwrap_or_default();
    metadata.namespace.as_ref().map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}

/// Reads an object of the watched kind.
pub(crate) fn decode(watched: &Watched, object: DynamicObject) -> (String, Decoded) {
    let key = key(&object.metadata);
    let DynamicObject { metadata, data, .. } = object;
    let labels = |metadata: ObjectMeta| metadata.labels.unwrap_or_default();
    let decoded = match watched.kind {
        Kind::Policy | Kind::ClusterPolicy | Kind::Config | Kind::Foreign(_) => Ok(policy(watched, metadata, data)),
        Kind::Namespace => Ok(Object::Namespace(labels(metadata))),
        Kind::Node => node(labels(metadata), data),
        Kind::Pod => pod(metadata, data),
        Kind::Service => service(&labels(metadata), data),
        Kind::EndpointSlice | Kind::NamedSlice => slice(&metadata, data),
        Kind::ServiceCidr => service_cidr(data),
        Kind::KubeadmConfig => kubeadm(data),
        Kind::Definition => definition(data),
    };
    (key, decoded)
}

/// Everything but what the API server and other clients keep for themselves.
fn policy(watched: &Watched, metadata: ObjectMeta, data: Value) -> Object {
    let mut object = match data {
        Value::Object(fields) => fields,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    };
    object.remove("status");
    let mut named = Map::new();
    named.extend(metadata.name.map(|name| ("name".to_owned(), Value::String(name))));
    named.extend(metadata.namespace.map(|namespace| ("namespace".to_owned(), Value::String(namespace))));
    object.insert("apiVersion".to_owned(), Value::String(watched.api.api_version.clone()));
    object.insert("kind".to_owned(), Value::String(watched.api.kind.clone()));
    object.insert("metadata".to_owned(), Value::Object(named));
    let text = Value::Object(object).to_string();
    Object::Policy(Policy {
        selects_nodes: text.contains("nodeSelector"),
        internal: if watched.kind == Kind::Config { listed(&text) } else { Listed::Unknown },
        text: Text::new(text),
        generation: metadata.generation.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
        api_version: watched.api.api_version.clone(),
        kind: watched.api.kind.clone(),
    })
}

fn listed(config: &str) -> Listed {
    let documents = document::read_in_cluster(config);
    match documents.objects.as_slice() {
        [document::Object::Config(config)] if documents.problems.is_empty() => {
            config.internal_cidrs.clone().map_or(Listed::Nothing, Listed::Networks)
        }
        _ => Listed::Unknown,
    }
}

fn read<T: DeserializeOwned>(data: Value) -> Result<T, String> {
    serde_json::from_value(data).map_err(|error| error.to_string())
}

/// What can be read of a list of texts; the rest is no address.
fn parse_all<T: std::str::FromStr>(texts: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<T> {
    texts.into_iter().filter_map(|text| text.as_ref().parse().ok()).collect()
}

fn node(labels: Labels, data: Value) -> Decoded {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        spec: Spec,
        #[serde(default)]
        status: Status,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        #[serde(default, rename = "podCIDRs")]
        pod_cidrs: Vec<String>,
        #[serde(rename = "podCIDR")]
        pod_cidr: Option<String>,
    }
    #[derive(Default, Deserialize)]
    struct Status {
        #[serde(default)]
        addresses: Vec<Address>,
    }
    #[derive(Deserialize)]
    struct Address {
        address: String,
    }
    let Body { spec, status } = read(data)?;
    let mut pod_cidrs: Vec<IpNet> = parse_all(spec.pod_cidrs.iter().chain(&spec.pod_cidr));
    pod_cidrs.sort_unstable();
    pod_cidrs.dedup();
    // Host names are among them and are no addresses.
    let addresses = parse_all(status.addresses.iter().map(|address| &address.address));
    Ok(Object::Node(Node { labels, addresses, pod_cidrs }))
}

fn pod(metadata: ObjectMeta, data: Value) -> Decoded {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        spec: Spec,
        #[serde(default)]
        status: Status,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        service_account_name: Option<String>,
        #[serde(default)]
        host_network: bool,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Status {
        #[serde(default)]
        phase: String,
        #[serde(default, rename = "podIPs")]
        pod_ips: Vec<PodIp>,
    }
    #[derive(Deserialize)]
    struct PodIp {
        ip: String,
    }
    let Body { spec, status } = read(data)?;
    let annotations = metadata.annotations.unwrap_or_default();
    let uid = static_uid(&annotations).or(metadata.uid).unwrap_or_default();
    Ok(Object::Pod(Pod {
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
        uid,
        labels: metadata.labels.unwrap_or_default(),
        service_account: spec.service_account_name.filter(|name| !name.is_empty()),
        addresses: parse_all(status.pod_ips.iter().map(|ip| &ip.ip)),
        host_network: spec.host_network,
        running: status.phase == "Running",
        ended: matches!(status.phase.as_str(), "Succeeded" | "Failed"),
    }))
}

/// What the cgroup of a static pod is called: the hash of its file. Whoever may make pods can write annotations, so one that has the
/// form of an API object's UID is not believed: a pod could pass for another one.
fn static_uid(annotations: &BTreeMap<String, String>) -> Option<String> {
    const HASH: &str = "kubernetes.io/config.hash";
    const MIRROR: &str = "kubernetes.io/config.mirror";
    let hash = annotations.get(HASH).filter(|_| annotations.contains_key(MIRROR))?;
    (hash.len() == 32 && hash.chars().all(|c| c.is_ascii_hexdigit())).then(|| hash.clone())
}

#[derive(Deserialize)]
struct RawPort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

/// Protocols are TCP where none is named. A port of a slice may be absent, which means none that is forwarded to.
fn ports(raw: Vec<RawPort>) -> Vec<Port> {
    let number = |protocol: Option<&str>| match protocol {
        None | Some("TCP") => Some(6),
        Some("UDP") => Some(17),
        Some("SCTP") => Some(132),
        Some(_) => None,
    };
    let port = |raw: RawPort| {
        let protocol = number(raw.protocol.as_deref())?;
        Some(Port { name: raw.name.unwrap_or_default(), protocol, number: raw.port? })
    };
    raw.into_iter().filter_map(port).collect()
}

fn service(labels: &Labels, data: Value) -> Decoded {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        spec: Spec,
        #[serde(default)]
        status: Status,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        #[serde(default, rename = "clusterIPs")]
        cluster_ips: Vec<String>,
        #[serde(rename = "clusterIP")]
        cluster_ip: Option<String>,
        #[serde(default, rename = "externalIPs")]
        external_ips: Vec<String>,
        #[serde(default)]
        ports: Vec<RawPort>,
        #[serde(default)]
        selector: BTreeMap<String, String>,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Status {
        #[serde(default)]
        load_balancer: LoadBalancer,
    }
    #[derive(Default, Deserialize)]
    struct LoadBalancer {
        #[serde(default)]
        ingress: Vec<Ingress>,
    }
    #[derive(Deserialize)]
    struct Ingress {
        ip: Option<String>,
    }
    let Body { spec, status } = read(data)?;
    // `None`, of headless services, is no address.
    let mut cluster_addresses: Vec<IpAddr> = parse_all(spec.cluster_ips.iter().chain(&spec.cluster_ip));
    cluster_addresses.sort_unstable();
    cluster_addresses.dedup();
    let balanced = status.load_balancer.ingress.iter().filter_map(|ingress| ingress.ip.as_ref());
    let mut addresses: Vec<IpAddr> = parse_all(spec.external_ips.iter().chain(balanced));
    addresses.extend(&cluster_addresses);
    addresses.sort_unstable();
    addresses.dedup();
    let app = labels.get("k8s-app").cloned();
    let selects = !spec.selector.is_empty();
    Ok(Object::Service(Service { addresses, cluster_addresses, ports: ports(spec.ports), app, selects }))
}

fn slice(metadata: &ObjectMeta, data: Value) -> Decoded {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        endpoints: Option<Vec<Endpoint>>,
        #[serde(default)]
        ports: Option<Vec<RawPort>>,
    }
    #[derive(Deserialize)]
    struct Endpoint {
        #[serde(default)]
        addresses: Vec<String>,
    }
    let Body { endpoints, ports: raw } = read(data)?;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let service = metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE)).ok_or("has no service")?;
    // Whether an endpoint is ready changes often and may change at any time: all of them count.
    let endpoints = endpoints.unwrap_or_default();
    let mut addresses: Vec<IpAddr> = parse_all(endpoints.iter().flat_map(|endpoint| &endpoint.addresses));
    addresses.sort_unstable();
    addresses.dedup();
    let service = format!("{namespace}/{service}");
    Ok(Object::Slice(Slice { service, addresses, ports: ports(raw.unwrap_or_default()) }))
}

fn service_cidr(data: Value) -> Decoded {
    #[derive(Deserialize)]
    struct Body {
        spec: Spec,
    }
    #[derive(Deserialize)]
    struct Spec {
        #[serde(default)]
        cidrs: Vec<String>,
    }
    let Body { spec } = read(data)?;
    Ok(Object::Cidrs(parse_all(spec.cidrs)))
}

/// `ClusterConfiguration` is YAML in a field of the `ConfigMap`.
fn kubeadm(data: Value) -> Decoded {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        data: BTreeMap<String, String>,
    }
    #[derive(Default, Deserialize)]
    struct Settings {
        #[serde(default)]
        networking: Networking,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Networking {
        pod_subnet: Option<String>,
        service_subnet: Option<String>,
    }
    let Body { data } = read(data)?;
    let text = data.get("ClusterConfiguration").ok_or("has no ClusterConfiguration")?;
    let Settings { networking } = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let both = |text: &Option<String>| parse_all(text.iter().flat_map(|text| text.split(',')).map(str::trim));
    Ok(Object::Kubeadm(Kubeadm { pods: both(&networking.pod_subnet), services: both(&networking.service_subnet) }))
}

fn definition(data: Value) -> Decoded {
    #[derive(Deserialize)]
    struct Body {
        spec: Spec,
    }
    #[derive(Deserialize)]
    struct Spec {
        group: String,
        names: Names,
        versions: Vec<Version>,
    }
    #[derive(Deserialize)]
    struct Names {
        kind: String,
        plural: String,
    }
    #[derive(Deserialize)]
    struct Version {
        name: String,
        served: bool,
    }
    let Body { spec } = read(data)?;
    let versions = spec.versions.into_iter().filter(|version| version.served).map(|version| version.name).collect();
    Ok(Object::Definition(Definition { group: spec.group, kind: spec.names.kind, plural: spec.names.plural, versions }))
}
