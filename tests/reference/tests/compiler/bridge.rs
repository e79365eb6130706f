//! Carries worlds over to egress-policy and its answers back. The only place that knows both vocabularies.

use std::collections::BTreeMap;
use std::net::IpAddr;

use egress_common::names::NameLeaf;
use egress_common::table::{Decision, Leaf};
use egress_common::trie::{lookup4, lookup6};
use egress_policy::compile::{Limits, Table, compile, compile_with_coverage};
use egress_policy::document::{self, Object};
use egress_policy::explain::{self, Explanation};
use egress_policy::model::{NodeContext, NodeInfo, Peer, PodIdentity, PolicyKey, PolicyKind, PolicySet, ServicePort};
use egress_policy::places::{Place, Places};
use egress_policy::rules::{self, RankedPeer, RuleList, RuleOrigin};
use egress_policy::trie::{Growing, Pool, items4, items6};
use egress_reference::{Builtin, Decider, File, Kind, Node, Outcome, Packet, Pod, PolicyId, Service, Verdict, World};

/// What the compiler makes of one pod.
pub(crate) struct Compiled {
    pub(crate) rules: RuleList,
    pub(crate) table: Table,
    /// The same prefixes as array tries, which must say the same.
    tries: Tries,
    /// The places of the names of every policy there is, as a node has them.
    pub(crate) union: Places,
}

/// Both families of a table in one pool.
struct Tries {
    units: Growing,
    roots: [u32; 2],
}

impl Tries {
    fn of(table: &Table) -> Self {
        let mut pool = Pool::new(Growing::default());
        let roots = [items4(table), items6(table)].map(|items| pool.insert(&items).expect("room"));
        Self { units: pool.into_store(), roots }
    }

    fn leaf(&self, address: IpAddr) -> Option<Leaf> {
        let [root4, root6] = self.roots;
        match address.to_canonical() {
            IpAddr::V4(address) => lookup4(&self.units, root4, address.octets()),
            IpAddr::V6(address) => {
                let [high, low] =
                    [0, 64].map(|shift| u64::try_from(address.to_bits() << shift >> 64).expect("64 bits"));
                lookup6(&self.units, root6, high, low)
            }
        }
    }
}

/// How the names of an address are turned to what the table says of them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Through {
    /// Each name by itself.
    Names,
    /// The kernel's way: by the places of all policies' names.
    UnionPlaces,
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
        services: node.services.iter().map(service_port).collect(),
    }
}

fn service_port(service: &Service) -> ServicePort {
    ServicePort {
        service: service.name.as_str().into(),
        addresses: service.addresses.clone(),
        protocol: service.protocol,
        port: service.port,
        endpoints: service.endpoints.clone(),
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
    Ok(Compiled::of(rules, table, set))
}

/// The places of the names of one rule list.
pub(crate) fn own_places(list: &RuleList) -> Places {
    let patterns = list.rules.iter().filter_map(|rule| match &rule.peer {
        RankedPeer::DnsName(pattern) => Some(&**pattern),
        RankedPeer::Any | RankedPeer::Networks(_) | RankedPeer::Cidr { .. } | RankedPeer::Nodes { .. } => None,
    });
    patterns.collect()
}

/// The compiled pods of a world, in the order of its pods.
pub(crate) fn compile_world(world: &World) -> Result<Vec<Compiled>, String> {
    let set = read_world(world)?;
    world.pods.iter().map(|pod| compile_pod(&set, world, pod)).collect()
}

impl Compiled {
    /// What `rules`, which follow from `set`, were compiled to.
    pub(crate) fn of(rules: RuleList, table: Table, set: &PolicySet) -> Self {
        let of_all = set.policies.values().flat_map(|policy| policy.rules.iter());
        let union = of_all.filter_map(|rule| match &rule.peer {
            Peer::DnsName(pattern) => Some(&**pattern),
            Peer::Cidr { .. } | Peer::Nodes(_) => None,
        });
        Self { union: union.collect(), tries: Tries::of(&table), rules, table }
    }

    /// Both backends of the prefix lookup give the same leaf.
    fn compare_backends(&self, address: IpAddr) {
        assert_eq!(self.tries.leaf(address), self.table.leaf(address), "{address}");
    }

    /// The table's answer, in the oracle's words.
    pub(crate) fn answer(&self, packet: &Packet) -> Answer {
        self.compare_backends(packet.destination);
        let found = self.table.lookup(packet.destination, packet.protocol, packet.port);
        (self.verdict(found.decision), found.audit.map(|audit| self.verdict(audit)))
    }

    /// The table's answer where the port is not known; none where it depends.
    pub(crate) fn answer_any_port(&self, destination: IpAddr, protocol: u8) -> Option<Answer> {
        self.compare_backends(destination);
        let found = self.table.lookup_any_port(destination, protocol)?;
        Some((self.verdict(found.decision), found.audit.map(|audit| self.verdict(audit))))
    }

    /// The table's answer for an address that has `names`, which are asked for one by one, or by the places that the node knows them by.
    pub(crate) fn answer_named(&self, packet: &Packet, names: &[&str], through: Through) -> Answer {
        self.compare_backends(packet.destination);
        let leaves = self.leaves(names, through);
        let found = self.table.lookup_with(packet.destination, packet.protocol, packet.port, &leaves);
        (self.verdict(found.decision), found.audit.map(|audit| self.verdict(audit)))
    }

    /// The same where the port is not known; none where it depends.
    pub(crate) fn answer_named_any_port(&self, destination: IpAddr, protocol: u8, names: &[&str]) -> Option<Answer> {
        let leaves = self.leaves(names, Through::UnionPlaces);
        let found = self.table.lookup_any_port_with(destination, protocol, &leaves)?;
        Some((self.verdict(found.decision), found.audit.map(|audit| self.verdict(audit))))
    }

    fn leaves(&self, names: &[&str], through: Through) -> Vec<NameLeaf> {
        let places = names.iter().map(|name| Place::of_name(name));
        match through {
            Through::Names => places.map(|place| self.table.name_leaf(&place)).collect(),
            Through::UnionPlaces => {
                let known = places.filter_map(|place| self.union.place_of(&place));
                known.map(|place| self.table.name_leaf(&place)).collect()
            }
        }
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
        RuleOrigin::Service(service) => Decider::Service {
            service: service.service.to_string(),
            endpoint: service.endpoint,
            by: Box::new(decider(&service.by)),
        },
        RuleOrigin::Default => Decider::Default,
        RuleOrigin::Vacant => panic!("no rule decides"),
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
        "## pod {}/{} labels {labels:?} service account {:?}\n## node {:?}\n## live answers {:?}",
        pod.namespace, pod.name, pod.service_account, world.node, world.answers
    );
    text
}
