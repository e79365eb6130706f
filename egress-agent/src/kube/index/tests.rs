//! The view depends on what the objects are, not on how it was told.

use std::collections::BTreeSet;

use egress_policy::ranges::Ranges;
use kube::core::DynamicObject;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::kube::resource::{Slices, Watched, watched};

fn resource(kind: &Kind) -> Watched {
    let mut all = watched("node-a", Slices::All);
    all.extend([Watched::nodes(), Watched::slices_of(&BTreeSet::new())]);
    all.into_iter().find(|watched| watched.kind == *kind).unwrap()
}

/// An object as the API server writes it.
fn object(kind: &Kind, body: Value) -> (String, Decoded) {
    let object: DynamicObject = serde_json::from_value(body).unwrap();
    decode(&resource(kind), object)
}

fn policy(name: &str, version: u8) -> (String, Decoded) {
    let cidr = format!("1.2.{version}.0/24");
    let spec = json!({"egress": [{"type": "Allow", "to": {"cidrSelector": cidr}}]});
    let metadata = json!({"name": name, "namespace": "default", "generation": version, "resourceVersion": "7", "managedFields": []});
    object(&Kind::Policy, json!({"metadata": metadata, "spec": spec, "status": {"rules": 1}}))
}

fn node(name: &str, version: u8) -> (String, Decoded) {
    let status = json!({"addresses": [{"type": "InternalIP", "address": format!("192.0.2.{version}")}, {"type": "Hostname", "address": name}]});
    let spec = json!({"podCIDRs": [format!("10.0.{version}.0/24"), "fd00:10::/64"]});
    object(
        &Kind::Node,
        json!({"metadata": {"name": name, "labels": {"v": version.to_string()}}, "spec": spec, "status": status}),
    )
}

fn pod(name: &str, version: u8) -> (String, Decoded) {
    let metadata = json!({"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": {"v": version.to_string()}});
    object(
        &Kind::Pod,
        json!({"metadata": metadata, "spec": {"serviceAccountName": "sa"}, "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.9"}]}}),
    )
}

fn service(name: &str, version: u8) -> (String, Decoded) {
    let spec = json!({"clusterIPs": ["10.96.0.7", "fd00:96::7"], "ports": [{"port": 443, "targetPort": version}]});
    object(&Kind::Service, json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}))
}

fn slice(name: &str, version: u8) -> (String, Decoded) {
    let metadata =
        json!({"name": format!("{name}-x"), "namespace": "default", "labels": {"kubernetes.io/service-name": name}});
    let endpoints = json!([{"addresses": [format!("203.0.113.{version}")]}, {"addresses": ["203.0.113.99"], "conditions": {"ready": false}}]);
    object(
        &Kind::EndpointSlice,
        json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 8443, "protocol": "TCP", "name": ""}]}),
    )
}

/// Makes a version of an object of a kind.
type Make = fn(&str, u8) -> (String, Decoded);

const KINDS: [Kind; 5] = [Kind::Policy, Kind::Node, Kind::Pod, Kind::Service, Kind::EndpointSlice];
const MAKES: [Make; 5] = [policy, node, pod, service, slice];
const NAMES: [&str; 3] = ["a", "b", "c"];

fn make(kind: &Kind, name: &str, version: u8) -> (String, Decoded) {
    let at = KINDS.iter().position(|known| known == kind).unwrap();
    MAKES[at](name, version)
}

/// What a cluster has: per kind, each name in a version, or not at all.
type Cluster = Vec<[Option<u8>; 3]>;

fn listing(index: &mut Index, cluster: &Cluster, reversed: bool) {
    for (kind, versions) in KINDS.iter().zip(cluster) {
        index.apply(kind, Change::Begin);
        let mut names: Vec<_> = NAMES.iter().zip(versions).collect();
        if reversed {
            names.reverse();
        }
        for (name, version) in names {
            if let Some(version) = version {
                let (key, decoded) = make(kind, name, *version);
                index.apply(kind, Change::Listed(key, decoded));
            }
        }
        index.apply(kind, Change::Done);
    }
}

fn fresh(cluster: &Cluster) -> View {
    let mut index = Index::default();
    listing(&mut index, cluster, false);
    index.view()
}

/// Something that happens in a cluster, or to what is told of it.
#[derive(Clone, Debug)]
enum Step {
    Put {
        kind: usize,
        name: usize,
        version: u8,
    },
    Gone {
        kind: usize,
        name: usize,
    },
    /// The event is told twice.
    Repeat {
        kind: usize,
        name: usize,
        version: u8,
    },
    /// The connection is lost: what happens is not told until the next listing.
    Silence,
    Relist {
        reversed: bool,
    },
    /// A listing that breaks off.
    HalfListing {
        kind: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (kind, name, version) = (0..KINDS.len(), 0..NAMES.len(), 1_u8..4);
    let step = prop_oneof![
        4 => (kind.clone(), name.clone(), version.clone()).prop_map(|(kind, name, version)| Step::Put { kind, name, version }),
        2 => (kind.clone(), name.clone()).prop_map(|(kind, name)| Step::Gone { kind, name }),
        1 => (kind.clone(), name, version).prop_map(|(kind, name, version)| Step::Repeat { kind, name, version }),
        1 => Just(Step::Silence),
        1 => any::<bool>().prop_map(|reversed| Step::Relist { reversed }),
        1 => kind.prop_map(|kind| Step::HalfListing { kind }),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_way_of_telling_leads_to_the_view_that_a_fresh_listing_gives(steps in steps()) {
        let mut cluster: Cluster = vec![[None; 3]; KINDS.len()];
        let mut index = Index::default();
        listing(&mut index, &cluster, false);
        let mut heard = true;
        for step in steps {
            match step {
                Step::Put { kind, name, version } | Step::Repeat { kind, name, version } => {
                    cluster[kind][name] = Some(version);
                    let (key, decoded) = make(&KINDS[kind], NAMES[name], version);
                    for _ in 0..if matches!(step, Step::Repeat { .. }) { 2 } else { 1 } {
                        if heard {
                            index.apply(&KINDS[kind], Change::Put(key.clone(), decoded.clone()));
                        }
                    }
                }
                Step::Gone { kind, name } => {
                    cluster[kind][name] = None;
                    if heard {
                        index.apply(&KINDS[kind], Change::Gone(make(&KINDS[kind], NAMES[name], 1).0));
                    }
                }
                Step::Silence => heard = false,
                Step::Relist { reversed } => {
                    listing(&mut index, &cluster, reversed);
                    heard = true;
                }
                Step::HalfListing { kind } => {
                    let before = index.view();
                    index.apply(&KINDS[kind], Change::Begin);
                    let (key, decoded) = make(&KINDS[kind], "c", 3);
                    index.apply(&KINDS[kind], Change::Listed(key, decoded));
                    prop_assert_eq!(index.view(), before, "a listing counts when it is whole");
                }
            }
            if heard {
                prop_assert_eq!(index.view(), fresh(&cluster));
            }
        }
        listing(&mut index, &cluster, true);
        prop_assert_eq!(index.view(), fresh(&cluster));
    }
}

#[test]
fn an_object_that_cannot_be_read_keeps_its_last_version_and_touches_no_other() {
    let mut index = Index::default();
    let cluster = vec![[None; 3], [None; 3], [Some(1), Some(1), None], [None; 3], [None; 3]];
    listing(&mut index, &cluster, false);
    let broken = json!({"metadata": {"name": "a", "namespace": "default"}, "spec": {"hostNetwork": "perhaps"}});
    let (key, decoded) = object(&Kind::Pod, broken);
    assert!(decoded.is_err());
    assert!(index.apply(&Kind::Pod, Change::Put(key.clone(), decoded.clone())));
    let view = index.view();
    assert_eq!(view.pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(view.problems[0].source, "pods default/a");
    // The same in a listing.
    index.apply(&Kind::Pod, Change::Begin);
    index.apply(&Kind::Pod, Change::Listed(key, decoded));
    index.apply(&Kind::Pod, Change::Done);
    assert_eq!(index.view().pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["a"]);
    let (key, decoded) = pod("a", 2);
    index.apply(&Kind::Pod, Change::Put(key, decoded));
    assert_eq!(index.view().problems, []);
}

#[test]
fn a_policy_is_text_without_what_the_server_keeps_for_itself_and_unknown_fields_stay() {
    let mut index = Index::default();
    let body = json!({"metadata": {"name": "p", "namespace": "default", "generation": 3, "uid": "u", "managedFields": [], "annotations": {"a": "b"}},
        "spec": {"egress": []}, "status": {"x": 1}, "surprise": true});
    let (key, decoded) = object(&Kind::Policy, body);
    index.apply(&Kind::Policy, Change::Put(key, decoded));
    let view = index.view();
    let text: Value = serde_json::from_str(&view.texts[0].text.as_ref().unwrap().body).unwrap();
    assert_eq!(
        text,
        json!({"apiVersion": "egress.rs/v1alpha1", "kind": "EgressNetworkPolicy",
            "metadata": {"name": "p", "namespace": "default"}, "spec": {"egress": []}, "surprise": true})
    );
    assert_eq!(view.versions["EgressNetworkPolicy default/p"], view::Version { generation: 3, uid: "u".into() });
}

#[test]
fn a_kind_that_is_absent_counts_as_listed_and_what_was_known_of_it_stays() {
    let mut index = Index::default();
    assert!(!index.has_listed([&Kind::ServiceCidr]));
    index.apply(&Kind::ServiceCidr, Change::Absent);
    assert!(index.has_listed([&Kind::ServiceCidr]));
    let (key, decoded) =
        object(&Kind::ServiceCidr, json!({"metadata": {"name": "k"}, "spec": {"cidrs": ["10.96.0.0/16"]}}));
    index.apply(&Kind::ServiceCidr, Change::Put(key, decoded));
    index.apply(&Kind::ServiceCidr, Change::Absent);
    assert_eq!(index.view().internal.services.len(), 1, "an API server that has just started says 403 for a while");
    index.apply(&Kind::ServiceCidr, Change::Closed);
    assert_eq!(index.view().internal.services.len(), 0);
}

/// §1.2.
#[test]
fn internal_cidrs_come_from_nodes_and_service_cidrs_and_from_kubeadm_only_where_these_say_nothing() {
    let mut index = Index::default();
    let text = "networking:\n  podSubnet: 10.244.0.0/16,fd00:244::/56\n  serviceSubnet: 10.96.0.0/12\n";
    let (key, decoded) = object(
        &Kind::KubeadmConfig,
        json!({"metadata": {"name": "kubeadm-config", "namespace": "kube-system"}, "data": {"ClusterConfiguration": text}}),
    );
    index.apply(&Kind::KubeadmConfig, Change::Put(key, decoded));
    let all =
        |index: &Index| index.view().internal.all().map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(all(&index).unwrap(), ["10.96.0.0/12", "10.244.0.0/16", "fd00:244::/56"]);
    let (key, decoded) = node("a", 1);
    index.apply(&Kind::Node, Change::Put(key, decoded));
    assert_eq!(all(&index).unwrap(), ["10.0.1.0/24", "10.96.0.0/12", "fd00:10::/64"]);
    index.apply(&Kind::KubeadmConfig, Change::Closed);
    assert_eq!(all(&index), None, "services are not known: nothing is guessed");
    assert_eq!(index.view().internal.missing(), Some("the pods' CIDRs, but not the services'"));
}

#[test]
fn a_prefix_that_would_make_the_internet_internal_is_not_believed() {
    let mut index = Index::default();
    for (name, cidrs) in
        [("a", json!(["0.0.0.0/0", "10.1.0.0/24"])), ("b", json!(["128.0.0.0/1", "2000::/3", "10.1.1.0/24"]))]
    {
        let (key, decoded) = object(&Kind::Node, json!({"metadata": {"name": name}, "spec": {"podCIDRs": cidrs}}));
        index.apply(&Kind::Node, Change::Put(key, decoded));
    }
    let internal = index.view().internal;
    assert_eq!(internal.pods.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.0.0/23"]);
    assert_eq!(internal.refused.len(), 3);
}

#[test]
fn static_pods_are_known_by_the_hash_that_their_cgroup_has_and_no_pod_passes_for_another() {
    let uid = |annotations: Value| {
        let metadata = json!({"name": "p", "namespace": "n", "uid": "own", "annotations": annotations});
        let (_, decoded) = object(&Kind::Pod, json!({"metadata": metadata, "spec": {"hostNetwork": true}}));
        let Ok(Object::Pod(pod)) = decoded else { panic!("{decoded:?}") };
        pod.uid
    };
    let (hash, other) = ("0123456789abcdef0123456789abcdef", "0c5b4f6e-1d2c-4e5f-8a9b-0123456789ab");
    let (mirror, config) = ("kubernetes.io/config.mirror", "kubernetes.io/config.hash");
    assert_eq!(uid(json!({mirror: hash, config: hash})), hash);
    assert_eq!(uid(json!({config: hash})), "own");
    assert_eq!(uid(json!({mirror: other, config: other})), "own");
    assert_eq!(uid(json!({})), "own");
}

/// §1.6.
#[test]
fn a_service_leads_to_the_endpoints_of_its_slices_by_the_name_of_the_port() {
    let mut index = Index::default();
    let spec = json!({"clusterIP": "10.96.0.7", "externalIPs": ["198.51.100.1"],
        "ports": [{"name": "web", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]});
    let status = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.2"}, {"hostname": "x"}]}});
    let (key, decoded) =
        object(&Kind::Service, json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec, "status": status}));
    index.apply(&Kind::Service, Change::Put(key, decoded));
    let body = json!({"metadata": {"name": "by-hand", "namespace": "n", "labels": {"kubernetes.io/service-name": "s"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["203.0.113.1"], "conditions": {"ready": false}}], "ports": [{"name": "web", "port": 8080}]});
    let (key, decoded) = object(&Kind::EndpointSlice, body);
    index.apply(&Kind::EndpointSlice, Change::Put(key, decoded));
    let ports = index.view().services;
    assert_eq!(ports.len(), 1);
    let port = &ports[0];
    assert_eq!((&*port.service, port.protocol, port.port), ("n/s", 6, 80));
    assert_eq!(port.addresses.len(), 3);
    assert_eq!(port.endpoints, ["203.0.113.1:8080".parse().unwrap()]);
    let networks = |text: &str| -> Ranges { [text.parse().unwrap()].iter().collect() };
    assert!(port.leads_outside(&networks("10.0.0.0/8")));
    assert!(!port.leads_outside(&networks("203.0.113.0/24")));
}

/// In a large cluster these change all the time, and nothing follows from them.
#[test]
fn what_surely_leads_to_internal_addresses_alone_is_not_told_and_in_doubt_everything_is() {
    let mut index = Index::default();
    let mut put = |kind: Kind, body: Value| {
        let (key, decoded) = object(&kind, body);
        index.apply(&kind, Change::Put(key, decoded));
        let mut said: Vec<String> = index.view().services.iter().map(|port| port.service.to_string()).collect();
        said.dedup();
        said
    };
    let slice = |service: &str, addresses: &Value| {
        let labels = json!({"kubernetes.io/service-name": service});
        json!({"metadata": {"name": format!("{service}-1"), "namespace": "n", "labels": labels}, "addressType": "IPv4",
            "endpoints": [{"addresses": addresses}], "ports": [{"port": 8080}]})
    };
    for (service, addresses) in
        [("in", json!(["10.244.0.7"])), ("half", json!(["10.244.0.7", "5.6.7.8"])), ("out", json!(["5.6.7.8"]))]
    {
        let spec = json!({"clusterIP": "10.96.0.7", "ports": [{"port": 80}]});
        put(Kind::Service, json!({"metadata": {"name": service, "namespace": "n"}, "spec": spec}));
        put(Kind::EndpointSlice, slice(service, &addresses));
    }
    let cidrs = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}});
    assert_eq!(put(Kind::ServiceCidr, cidrs), ["n/half", "n/in", "n/out"], "the pods' CIDRs are not known");
    let node = json!({"metadata": {"name": "a"}, "spec": {"podCIDRs": ["10.244.0.0/16"]}});
    assert_eq!(put(Kind::Node, node), ["n/half", "n/out"]);
    let mut config = |spec: Value| put(Kind::Config, json!({"metadata": {"name": "default"}, "spec": spec}));
    assert_eq!(config(json!({})), ["n/half", "n/out"]);
    assert_eq!(config(json!({"internalCIDRs": ["5.6.7.0/24"]})), ["n/half", "n/in"]);
    assert_eq!(config(json!({"internalCIDRs": ["10.0.0.0/8", "5.6.7.0/24"]})), [""; 0]);
    // An earlier version is in force, whatever it says.
    assert_eq!(config(json!({"internalCIDRs": ["5.6.7.0/24"], "nope": 1})), ["n/half", "n/in", "n/out"]);
}

#[test]
fn the_cluster_dns_is_trusted_with_its_endpoints_and_a_service_of_that_name_elsewhere_is_not() {
    let mut index = Index::default();
    for (namespace, address) in [("kube-system", "10.96.0.10"), ("default", "10.96.0.66")] {
        let spec = json!({"clusterIP": address, "ports": [{"port": 53, "protocol": "UDP"}]});
        let metadata = json!({"name": "kube-dns", "namespace": namespace, "labels": {"k8s-app": "kube-dns"}});
        let (key, decoded) = object(&Kind::Service, json!({"metadata": metadata, "spec": spec}));
        index.apply(&Kind::Service, Change::Put(key, decoded));
    }
    let metadata =
        json!({"name": "x", "namespace": "kube-system", "labels": {"kubernetes.io/service-name": "kube-dns"}});
    let body = json!({"metadata": metadata, "endpoints": [{"addresses": ["10.0.0.5"]}], "ports": [{"port": 53, "protocol": "UDP"}]});
    let (key, decoded) = object(&Kind::EndpointSlice, body);
    index.apply(&Kind::EndpointSlice, Change::Put(key, decoded));
    let expected: Vec<std::net::IpAddr> = ["10.0.0.5", "10.96.0.10"].map(|address| address.parse().unwrap()).into();
    assert_eq!(index.view().dns, expected);
}
