//! Which addresses and ports of services lead to which endpoints (§1.6).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use egress_policy::model::ServicePort;
use egress_policy::ranges::Ranges;

use super::decode::{Service, Slice};
use super::{Index, Object};
use crate::kube::resource::Kind;

/// Every port of every service with addresses and endpoints, but those whose endpoints are all `internal`.
pub(super) fn service_ports(index: &Index, internal: &Ranges) -> Vec<ServicePort> {
    let mut slices: BTreeMap<&str, Vec<&Slice>> = BTreeMap::new();
    // A slice that two watches tell of is there twice, which changes nothing.
    for (_, object) in index.objects(&Kind::EndpointSlice).chain(index.objects(&Kind::NamedSlice)) {
        if let Object::Slice(slice) = object {
            slices.entry(slice.service.as_str()).or_default().push(slice);
        }
    }
    let services = index.objects(&Kind::Service).filter_map(|(key, object)| match object {
        Object::Service(service) => Some((key, service, slices.get(key.as_str())?)),
        Object::Policy(_)
        | Object::Namespace(_)
        | Object::Node(_)
        | Object::Pod(_)
        | Object::Slice(_)
        | Object::Cidrs(_)
        | Object::Kubeadm(_)
        | Object::Definition(_) => None,
    });
    let ports = services.flat_map(|(key, service, slices)| ports(key, service, slices, internal));
    ports.collect()
}

/// A service's port belongs to the slices' ports of the same name and protocol, as kube-proxy has it.
fn ports(key: &str, service: &Service, slices: &[&Slice], internal: &Ranges) -> Vec<ServicePort> {
    let outside = |slice: &&Slice| slice.addresses.iter().any(|address| !internal.contains(*address));
    if service.addresses.is_empty() || !slices.iter().any(outside) {
        return Vec::new();
    }
    let name: Arc<str> = key.into();
    let one = |port: &super::decode::Port| {
        let mut endpoints: Vec<SocketAddr> = Vec::new();
        for slice in slices {
            let same = |target: &&super::decode::Port| target.name == port.name && target.protocol == port.protocol;
            for target in slice.ports.iter().filter(same) {
                endpoints.extend(slice.addresses.iter().map(|&address| SocketAddr::new(address, target.number)));
            }
        }
        endpoints.sort_unstable();
        endpoints.dedup();
        (!endpoints.is_empty())
            .then(|| ServicePort {
                service: Arc::clone(&name),
                addresses: service.addresses.clone(),
                protocol: port.protocol,
                port: port.number,
                endpoints,
            })
            .filter(|port| port.leads_outside(internal))
    };
    service.ports.iter().filter_map(one).collect()
}
