//! Cilium's `CiliumNetworkPolicy` and `CiliumClusterwideNetworkPolicy`, the egress part. See docs/import/cilium.md.
//!
//! There all policies that select a pod are one set: what a deny rule of any of them matches is refused, then what an allow rule of any
//! matches passes, then a pod that some policy isolates may do nothing else. Here that order is one of priorities ([`stages`]). No CIDR
//! and no name matches a node there, so nodes have stages of their own, before the others.

mod ports;
mod read;
mod selector;
mod stages;

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::Import;
use super::gather::Foreign;
use super::kind::{Api, Kind};
use super::pods::Pods;
use super::report::{INGRESS, Judgement, Outcome, Place};
use crate::spec::{EgressPeer, EgressPort, LabelSelector};

const CLUSTERWIDE: &str = "CiliumClusterwideNetworkPolicy";
const GROUP: &str = "CiliumCIDRGroup";

pub(super) const KIND: Kind = Kind {
    name: "cilium",
    title: "Cilium network policies (egress)",
    apis: &[
        Api { versions: &["cilium.io/v2"], kind: "CiliumNetworkPolicy", fields: &["spec", "specs"] },
        Api { versions: &["cilium.io/v2"], kind: CLUSTERWIDE, fields: &["spec", "specs"] },
        Api { versions: &["cilium.io/v2", "cilium.io/v2alpha1"], kind: GROUP, fields: &["spec"] },
    ],
    convert,
    list: None,
};

/// The prefixes of `CiliumCIDRGroup`s, by name.
type Groups = BTreeMap<String, Vec<IpNet>>;

/// One `spec` of an object.
struct Policy {
    place: Place,
    subject: Subject,
    /// Whether the pods may do nothing but what rules allow.
    isolates: bool,
    /// Where it speaks of ingress.
    ingress: Option<Place>,
    rules: Vec<(Place, Rule)>,
}

/// Whom a policy is for.
enum Subject {
    Pods(Pods),
    /// Nodes: a host policy.
    Nodes,
    /// Pods that no selector of ours can select, and why.
    Unsayable(String),
}

struct Rule {
    deny: bool,
    to: Destinations,
    /// None means any; an empty list, that nothing of what was given can match.
    ports: Option<Vec<EgressPort>>,
    judgement: Judgement,
    /// The destinations in words.
    words: String,
}

#[derive(Default)]
struct Destinations {
    /// Addresses and names; no node is among them.
    outside: Vec<EgressPeer>,
    nodes: Vec<LabelSelector>,
}

fn convert(objects: &[&Foreign<'_>], import: &mut Import<'_>) {
    let (groups, policies): (Vec<_>, Vec<_>) = objects.iter().copied().partition(|object| object.api.kind == GROUP);
    let mut prefixes = Groups::new();
    for object in groups {
        prefixes.extend(import.read(object, read::group).map(|group| (object.name.clone(), group)));
    }
    let mut weighed = Vec::new();
    for object in policies {
        for policy in
            import.read(object, |reader, fields| Some(read::policies(reader, fields, &prefixes))).unwrap_or_default()
        {
            weighed.extend(for_pods(object, policy, import));
        }
    }
    stages::write(weighed, import);
}

/// The policy, if it says something of what pods may send and to whom it applies can be said.
fn for_pods<'o, 'n>(
    object: &'o Foreign<'n>,
    policy: Policy,
    import: &mut Import<'_>,
) -> Option<(&'o Foreign<'n>, Pods, Policy)> {
    if let Some(place) = &policy.ingress {
        import.row(object, place, "ingress", Judgement::of(Outcome::NotExpressed, INGRESS));
    }
    if !policy.isolates && policy.rules.is_empty() {
        return None;
    }
    let (outcome, why) = match &policy.subject {
        Subject::Pods(pods) => match selector::within(object, pods) {
            Ok(pods) => return Some((object, pods, policy)),
            Err(why) => (Outcome::Wider, why),
        },
        Subject::Nodes => (Outcome::NotExpressed, "nodes are not judged here, only pods".to_owned()),
        Subject::Unsayable(why) => (Outcome::Wider, format!("{why}; the policy is left out")),
    };
    import.row(object, &policy.place, "every rule", Judgement::of(outcome, why));
    None
}
