//! Alibaba Cloud Service Mesh's `ASMEgressTrafficPolicy`. See docs/import/asm.md.
//!
//! Which workloads may reach which hosts at which ports, each by way of an egress gateway. What is compared is what a workload may ask its
//! sidecar for; the way through the gateway is not taken here. The sidecar takes TCP, and under `REGISTRY_ONLY`, which the policies' own
//! documentation asks for, what no rule is for is refused.

use super::Import;
use super::build::{everything, ports as port_range, protocol, rule, to_name, words};
use super::draft::Draft;
use super::gather::Foreign;
use super::kind::{Api, Kind};
use super::pods::Pods;
use super::report::{Judgement, NAME_OF_REQUEST, Outcome, Place};
use crate::document::{Fields, Node, Report as Reader};
use crate::name::NamePattern;
use crate::spec::{Action, EgressPeer, LabelSelector, MAX_PRIORITY, Protocol};

pub(super) const KIND: Kind = Kind {
    name: "asm",
    title: "Alibaba Cloud ASMEgressTrafficPolicy",
    apis: &[Api {
        versions: &["istio.alibabacloud.com/v1beta1", "istio.alibabacloud.com/v1"],
        kind: "ASMEgressTrafficPolicy",
        fields: &["spec"],
    }],
    convert,
    list: None,
};

const GATEWAY: &str = "there the way leads through an egress gateway, here straight to the host; the gateway's own pods need an Allow too";
const UPGRADE: &str = "there the gateway makes HTTPS of HTTP, here requests leave as they are";
const CLOSED: &str = "REGISTRY_ONLY is taken, which these policies ask for; under ALLOW_ANY leave this object out. For pods with a sidecar, \
                      which are what is compared; others are refused too";

struct EgressRule {
    from: Vec<(String, Pods)>,
    to: Vec<(Place, Service)>,
}

struct Service {
    hosts: Vec<String>,
    port: u16,
    /// Whether the name in the request counts, of HTTP and TLS; plain TCP goes by address.
    by_request: bool,
    judgement: Judgement,
}

fn convert(objects: &[&Foreign<'_>], import: &mut Import<'_>) {
    let mut first = None;
    for object in objects {
        let Some(rules) = import.read(object, read) else { continue };
        for rule in &rules {
            write(object, rule, import);
        }
        first = first.or(Some(object));
    }
    if let Some(object) = first {
        let mut draft = Draft::default();
        let tcp = [protocol(Protocol::TCP)];
        let refused = everything(Action::Deny, Some(&tcp));
        draft.add(object, &object.place(), "nothing else", Judgement::of(Outcome::Exact, CLOSED), refused);
        import.cluster_policy(draft, "asm-registry-only", Pods::default().baseline(Some(MAX_PRIORITY)));
    }
}

/// A policy for each of the rule's sources.
fn write(object: &Foreign<'_>, of: &EgressRule, import: &mut Import<'_>) {
    for (namespace, pods) in &of.from {
        let mut draft = Draft::default();
        for (place, service) in &of.to {
            let mut judgement = service.judgement.clone();
            let peers: Vec<EgressPeer> = service.hosts.iter().filter_map(|host| named(host, &mut judgement)).collect();
            if service.by_request && !peers.is_empty() {
                judgement.add(Outcome::Wider, NAME_OF_REQUEST);
            }
            let ports = [port_range(Protocol::TCP, service.port, service.port)];
            let words = words(Action::Allow, &service.hosts.join(","), Some(&ports));
            let rules = peers.into_iter().map(|peer| rule(Action::Allow, peer, Some(ports.to_vec())));
            draft.add(&object, place, words, judgement, rules);
        }
        if draft.is_empty() {
            import.said(draft);
        } else {
            import.policy(draft, Some(namespace), &object.name, pods.clone().policy(None));
        }
    }
}

/// A host; a star in front is one label or more.
fn named(host: &str, judgement: &mut Judgement) -> Option<EgressPeer> {
    let text = host.strip_prefix("*.").map_or_else(|| host.to_owned(), |parent| format!("**.{parent}"));
    match NamePattern::parse(&text) {
        Ok(name) => Some(to_name(&name)),
        Err(error) => {
            judgement.add(Outcome::Narrower, format!("{host:?} cannot be a dnsName here: {error}; left out"));
            None
        }
    }
}

fn read<'n>(reader: &mut Reader<'n>, object: Fields<'n>) -> Option<Vec<EgressRule>> {
    reader.required(object, "spec", "add a spec with egressRules", |reader, node| {
        let fields = reader.fields(node, &["byEgressGateway", "egressRules"])?;
        reader.optional(fields, "byEgressGateway", Reader::open_fields);
        reader.required(fields, "egressRules", "list the rules", |reader, node| reader.list(node, egress_rule))
    })
}

fn egress_rule<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<EgressRule> {
    let fields = reader.fields(node, &["from", "to"])?;
    let from = reader.required(fields, "from", "list the workloads", |reader, node| reader.list(node, workloads));
    let to = reader.required(fields, "to", "list the services", |reader, node| reader.placed(node, service));
    Some(EgressRule { from: from?, to: to? })
}

fn workloads<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<(String, Pods)> {
    let fields = reader.fields(node, &["namespace", "workloadSelector"])?;
    let namespace =
        reader.required(fields, "namespace", "name the namespace", |reader, node| reader.object_name(node, 63));
    let match_labels = reader.optional(fields, "workloadSelector", Reader::labels).unwrap_or_default();
    let labels = LabelSelector { match_labels, ..LabelSelector::default() };
    Some((namespace?, Pods { labels, ..Pods::default() }))
}

fn service<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Service> {
    let fields = reader.fields(node, &["name", "hosts", "port", "byEgressGateway"])?;
    reader.optional(fields, "name", Reader::text);
    let hosts = reader.required(fields, "hosts", "list the hosts", |reader, node| {
        reader.list(node, |reader, node| reader.text(node).map(str::to_owned))
    });
    let port = reader.required(fields, "port", "write the port", |reader, node| {
        let fields = reader.fields(node, &["name", "number", "protocol"])?;
        reader.optional(fields, "name", Reader::text);
        let by_request =
            reader.optional(fields, "protocol", Reader::text).is_none_or(|name| !name.eq_ignore_ascii_case("TCP"));
        let number =
            reader.required(fields, "number", "write the port", |reader, node| reader.number(node, 1..=u16::MAX));
        number.map(|number| (number, by_request))
    });
    let mut judgement = Judgement::exact();
    reader.optional(fields, "byEgressGateway", |reader, node| {
        judgement.add(Outcome::NotExpressed, GATEWAY);
        let fields = reader.open_fields(node)?;
        if fields.get("httpsUpgrade").is_some() {
            judgement.add(Outcome::NotExpressed, UPGRADE);
        }
        Some(())
    });
    let (port, by_request) = port?;
    Some(Service { hosts: hosts?, port, by_request, judgement })
}
