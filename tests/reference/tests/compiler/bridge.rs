//! Carries worlds over to egress-policy and its answers back. The only place that knows both vocabularies.

use std::collections::BTreeMap;
use std::net::IpAddr;

use egress_common::table::Decision;
use egress_policy::compile::{Limits, Table, compile, compile_with_coverage};
use egress_policy::document::{self, Object};
use egress_policy::explain::{self, Explanation};
use egress_policy::model::{NodeContext, NodeInfo, PodIdentity, PolicyKey, PolicyKind, PolicySet};
use egress_policy::rules::{self, RuleList, RuleOrigin};
use egress_reference::{Builtin, Decider, File, Kind, Node, Outcome, Packet, Pod, PolicyId, Verdict, World};

/// What the compiler makes of one pod.
pub(crate) struct Compiled {
    pub(crate) rules: RuleList,
    pub(crate) table: Table,
}

/// A verdict and an audit verdict, from either side.
pub(crate) type Answer = (Verdict, Option<Verdict>);

/// Reads files as the agent would. Every problem is a failure: the worlds are valid.
pub(crate) fn read(files: &[File]) -> Result<PolicySet, String> {
    let mut set = PolicySet::default();
    for file in files {
        let documents = document::read(&file.text);
        if let Some(problem) = documents.problems.first() {
            return Err(format!("{}: refused: {problem:?}", file.name));
        }
        for object in documents.objects {
            match object {
                Object::Policy(policy) => drop(set.insert(policy)),
                Object::Config(config) => set.config = config,
                Object::Namespace { name, labels, .. } => drop(set.namespaces.insert(name, labels)),
            }
        }
    }
    Ok(set)
}

pub(crate) fn read_world(world: &World) -> Result<PolicySet, String> {
    read(&world.files(world.seed))
}

pub(crate) fn node_context(node: &Node) -> NodeContext {
    NodeContext {
        resolvers: node.resolvers.clone(),
        node_addresses: node.addresses.clone(),
        nodes: node
            .nodes
            .iter()
            .map(|node| NodeInfo { labels: node.labels.clone(), addresses: node.addresses.clone() })
            .collect(),
    }
}

pub(crate) fn identity(pod: &Pod) -> PodIdentity {
    PodIdentity {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        labels: pod.labels.clone(),
        service_account: pod.service_account.clone(),
    }
}

/// Compiles what `set` means for `pod` of `world`.
pub(crate) fn compile_pod(set: &PolicySet, world: &World, pod: &Pod) -> Result<Compiled, String> {
    let rules = set.rule_list(&identity(pod), &node_context(&world.node));
    let table = compile(&rules, &Limits::default()).map_err(|error| format!("does not compile: {error}"))?;
    Ok(Compiled { rules, table })
}

/// The compiled pods of a world, in the order of its pods.
pub(crate) fn compile_world(world: &World) -> Result<Vec<Compiled>, String> {
    let set = read_world(world)?;
    world.pods.iter().map(|pod| compile_pod(&set, world, pod)).collect()
}

impl Compiled {
    /// The table's answer, in the oracle's words.
    pub(crate) fn answer(&self, packet: &Packet) -> Answer {
        let found = self.table.lookup(packet.destination, packet.protocol, packet.port);
        (self.verdict(found.decision), found.audit.map(|audit| self.verdict(audit)))
    }

    /// The table's answer where the port is not known; none where it depends.
    pub(crate) fn answer_any_port(&self, destination: IpAddr, protocol: u8) -> Option<Answer> {
        let found = self.table.lookup_any_port(destination, protocol)?;
        Some((self.verdict(found.decision), found.audit.map(|audit| self.verdict(audit))))
    }

    /// An explanation's answer; none where it depends on a port that was not given.
    pub(crate) fn explained(&self, explanation: &Explanation) -> Option<Answer> {
        let verdict = |said: explain::Verdict, rank: u32| {
            let at = usize::try_from(rank).expect("24 bits");
            let decision = self.rules.rules[at].decision(rank).expect("the deciding rule is not Pass");
            let verdict = self.verdict(decision);
            assert_eq!(
                said == explain::Verdict::Allow,
                verdict.allow,
                "the explanation contradicts itself: {explanation}"
            );
            verdict
        };
        let audit = explanation.audit.map(|(said, rank)| verdict(said, rank));
        Some((verdict(explanation.verdict, explanation.rank?), audit))
    }

    pub(crate) fn verdict(&self, decision: Decision) -> Verdict {
        let rank = usize::try_from(decision.rank()).expect("24 bits");
        Verdict {
            allow: !decision.is_deny(),
            internal: decision.is_internal(),
            decider: decider(&self.rules.rules[rank].origin),
        }
    }
}

pub(crate) fn decider(origin: &RuleOrigin) -> Decider {
    match origin {
        RuleOrigin::Builtin(builtin) => Decider::Builtin(match builtin {
            rules::Builtin::InternalCidrs => Builtin::Internal,
            rules::Builtin::NeighbourDiscovery
            | rules::Builtin::Dhcpv6
            | rules::Builtin::Igmp
            | rules::Builtin::Dhcpv4 => Builtin::LinkControl,
            rules::Builtin::Dns => Builtin::Dns,
            rules::Builtin::ExcludedCidrs => Builtin::Excluded,
        }),
        RuleOrigin::Policy { key, number, .. } => {
            Decider::Rule { policy: policy_id(key), number: usize::try_from(*number).expect("a rule number") }
        }
        RuleOrigin::Default => Decider::Default,
    }
}

fn policy_id(key: &PolicyKey) -> PolicyId {
    PolicyId {
        kind: match key.kind {
            PolicyKind::EgressNetworkPolicy | PolicyKind::OpenShiftEgressNetworkPolicy => Kind::EgressNetworkPolicy,
            PolicyKind::ClusterEgressPolicy => Kind::ClusterEgressPolicy,
        },
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

/// The policy rules that the compiler calls shadowed.
pub(crate) fn shadowed(list: &RuleList) -> Vec<Decider> {
    let (_, coverage) = compile_with_coverage(list, &Limits::default()).expect("it compiled before");
    let ranked = list.rules.iter().zip(0..).filter(|(rule, rank)| rule.has_addresses() && !coverage.decides(*rank));
    ranked.map(|(rule, _)| decider(&rule.origin)).filter(|decider| matches!(decider, Decider::Rule { .. })).collect()
}

pub(crate) fn expected(outcome: &Outcome) -> Answer {
    (outcome.verdict.clone(), outcome.audit.clone())
}

/// Every object of a world and what was asked, for a person who has to find out who is wrong.
pub(crate) fn picture(world: &World, pod: &Pod) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for file in world.files(world.seed) {
        let _ = writeln!(text, "## {}\n{}", file.name, file.text);
    }
    let labels: &BTreeMap<String, String> = &pod.labels;
    let _ = writeln!(
        text,
        "## pod {}/{} labels {labels:?} service account {:?}\n## node {:?}",
        pod.namespace, pod.name, pod.service_account, world.node
    );
    text
}
