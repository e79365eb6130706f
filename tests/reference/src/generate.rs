//! Random worlds. Prefixes come in clusters (chains, siblings, host routes), port ranges touch and overlap, priorities tie,
//! selectors mostly match: what a verdict depends on is likely to interact.
//!
//! Invariant: every world is valid by the semantics, and a seed gives the same world for ever.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::names::Answers;
use crate::object::{
    Action, Config, Expression, Kind, Labels, Mode, Node, NodeAddresses, Operator, Peer, Pod, Policy, PolicyId, Ports,
    Protocol, Rule, Selector, Tier, World,
};
use crate::packets::at_edge;
use crate::prefix::{Prefix, bits_of, from_bits};
use crate::random::Random;

/// How large a world may become.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Most policies.
    pub policies: usize,
    /// Most rules in each.
    pub rules: usize,
    /// Most pods.
    pub pods: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self { policies: 10, rules: 8, pods: 4 }
    }
}

const NAMESPACES: [&str; 3] = ["default", "shop", "a-b"];
/// Chosen for their order: `-` before `.` before digits before letters, prefixes of each other.
const NAMES: [&str; 12] = ["default", "a", "a-b", "a.b", "ab", "a0", "b", "z", "0", "10", "9", "curl"];
const ACCOUNTS: [&str; 3] = ["default", "builder", "reader"];
const KEYS: [&str; 3] = ["app", "tier", "example.com/zone"];
const VALUES: [&str; 4] = ["web", "db", "1", ""];
const ANCHORS: [&str; 10] = [
    "1.2.3.4",
    "10.1.2.3",
    "203.0.113.128",
    "127.255.255.255",
    "224.0.0.5",
    "2001:db8::1",
    "2001:db8:0:1:8000::",
    "fe80::1234",
    "fd00:10:20::53",
    "ff02::1",
];

impl World {
    /// The world of `seed`, of ordinary size.
    pub fn generate(seed: u64) -> Self {
        Self::generate_sized(seed, &Size::default())
    }

    /// The world of `seed`, within `size`.
    pub fn generate_sized(seed: u64, size: &Size) -> Self {
        Generator::new(seed).world(seed, size)
    }

    /// A world that differs from this one as by a user's edit: rules, policies or settings added, removed, swapped, changed.
    #[must_use]
    pub fn edited(&self, seed: u64) -> Self {
        let mut generator = Generator::new(seed);
        for policy in &self.policies {
            generator.pool.extend(policy.rules.iter().filter_map(|rule| match &rule.peer {
                Peer::Cidr { prefix, .. } => Some(*prefix),
                Peer::Dns(_) | Peer::Nodes(_) => None,
            }));
        }
        let mut world = self.clone();
        world.seed = seed;
        for _ in 0..generator.random.between(1, 3) {
            generator.edit(&mut world);
        }
        world
    }
}

struct Generator {
    random: Random,
    /// Prefixes already in use, to derive relatives from.
    pool: Vec<Prefix>,
    /// Ports already in use.
    ports: Vec<u16>,
}

impl Generator {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut pool = Vec::new();
        for _ in 0..3 {
            let anchor: IpAddr = random.pick(&ANCHORS).parse().expect("an address");
            pool.push(Prefix::host(anchor));
        }
        pool.push(Prefix::host(from_bits(32, random.wide())));
        pool.push(Prefix::host(from_bits(128, random.wide())));
        let ports = vec![53, 80, 443, 1, 65535, 67, 547, u16::try_from(random.between(1, 65535)).expect("a port")];
        Self { random, pool, ports }
    }

    fn world(&mut self, seed: u64, size: &Size) -> World {
        let config = self.config();
        let node = self.node();
        let mut namespaces = BTreeMap::new();
        for namespace in NAMESPACES {
            if self.random.chance(70) {
                namespaces.insert(namespace.to_owned(), self.labels());
            }
        }
        let mut world =
            World { seed, config, namespaces, policies: Vec::new(), pods: Vec::new(), node, answers: Answers::new() };
        for _ in 0..self.random.between(1, size.pods) {
            let pod = self.pod(world.pods.len());
            world.pods.push(pod);
        }
        for _ in 0..self.random.between(0, size.policies) {
            self.add_policy(&mut world, size.rules);
        }
        world
    }

    fn config(&mut self) -> Config {
        if self.random.chance(15) {
            return Config::default();
        }
        let default_allow = self.random.chance(50);
        // Deny by default must say what is internal (§1.2).
        let internal = (!default_allow || self.random.chance(60)).then(|| self.narrow_prefixes(3));
        Config {
            default_allow,
            excluded: if self.random.chance(50) { self.narrow_prefixes(3) } else { Vec::new() },
            internal,
            resolvers: self.random.chance(30).then(|| self.resolvers()),
            allow_resolvers: self.random.chance(75),
            audit: self.random.chance(10),
        }
    }

    fn node(&mut self) -> Node {
        let nodes =
            (0..self.random.below(3)).map(|_| NodeAddresses { labels: self.labels(), addresses: self.addresses(2) });
        let nodes = nodes.collect();
        Node { resolvers: self.addresses(2), addresses: self.addresses(2), nodes, services: Vec::new() }
    }

    fn pod(&mut self, index: usize) -> Pod {
        Pod {
            namespace: (*self.random.pick(&NAMESPACES)).to_owned(),
            name: format!("pod-{index}"),
            labels: self.labels(),
            service_account: self.random.chance(70).then(|| (*self.random.pick(&ACCOUNTS)).to_owned()),
        }
    }

    /// Adds a policy unless its name is taken.
    fn add_policy(&mut self, world: &mut World, rules: usize) {
        let tier = *self.random.pick(&[Tier::Admin, Tier::Namespace, Tier::Namespace, Tier::Baseline]);
        let namespaced = tier == Tier::Namespace;
        // Mostly the namespace of a pod, or there would be little to judge.
        let namespace = match world.pods.first() {
            Some(pod) if self.random.chance(70) => pod.namespace.clone(),
            _ => (*self.random.pick(&NAMESPACES)).to_owned(),
        };
        let id = PolicyId {
            kind: if namespaced { Kind::EgressNetworkPolicy } else { Kind::ClusterEgressPolicy },
            namespace: namespaced.then_some(namespace),
            name: (*self.random.pick(&NAMES)).to_owned(),
        };
        if world.policies.iter().any(|policy| policy.id == id) {
            return;
        }
        let count = self.random.between(1, rules);
        let policy = Policy {
            tier,
            priority: if self.random.chance(50) { 100 } else { *self.random.pick(&[0, 1, 99, 101, 1000]) },
            mode: if self.random.chance(20) { Mode::Audit } else { Mode::Enforce },
            pod_selector: self.random.chance(35).then(|| self.selector()),
            namespace_selector: (!namespaced && self.random.chance(35)).then(|| self.namespace_selector()),
            service_accounts: self.random.chance(20).then(|| self.service_accounts()),
            rules: self.rules(tier, count),
            id,
        };
        world.policies.push(policy);
    }

    fn service_accounts(&mut self) -> Vec<String> {
        let mut names = ACCOUNTS.map(str::to_owned).to_vec();
        self.random.shuffle(&mut names);
        names.truncate(self.random.below(ACCOUNTS.len() + 1));
        names
    }

    fn labels(&mut self) -> Labels {
        let count = self.random.below(KEYS.len());
        (0..count).map(|_| ((*self.random.pick(&KEYS)).to_owned(), (*self.random.pick(&VALUES)).to_owned())).collect()
    }

    fn selector(&mut self) -> Selector {
        let expressions = (0..self.random.below(3)).map(|_| self.expression()).collect();
        let labels = if self.random.chance(40) { self.labels() } else { Labels::new() };
        Selector { labels, expressions }
    }

    fn namespace_selector(&mut self) -> Selector {
        if self.random.chance(50) {
            return self.selector();
        }
        let name = (*self.random.pick(&NAMESPACES)).to_owned();
        Selector { labels: Labels::from([("kubernetes.io/metadata.name".to_owned(), name)]), expressions: Vec::new() }
    }

    fn expression(&mut self) -> Expression {
        let operator = *self.random.pick(&[Operator::In, Operator::NotIn, Operator::Exists, Operator::DoesNotExist]);
        let mut values = Vec::new();
        if matches!(operator, Operator::In | Operator::NotIn) {
            values = VALUES.map(str::to_owned).to_vec();
            self.random.shuffle(&mut values);
            values.truncate(self.random.between(1, VALUES.len()));
        }
        Expression { key: (*self.random.pick(&KEYS)).to_owned(), operator, values }
    }

    /// Rules of which a few come as two halves of a prefix before the whole of it, which they may leave nothing to decide.
    fn rules(&mut self, tier: Tier, count: usize) -> Vec<Rule> {
        let mut rules: Vec<Rule> = (0..count).map(|_| self.rule(tier)).collect();
        if self.random.chance(15) {
            let whole = self.prefix().masked();
            let whole = Prefix::new(whole.address, whole.length.min(whole.width() - 1));
            let [low, high] =
                [whole.first(), whole.last()].map(|address| Prefix::new(address, whole.length + 1).masked());
            for prefix in [low, high, whole] {
                let ports = if self.random.chance(75) { None } else { Some(vec![self.ports()]) };
                let Rule { action, .. } = self.rule(tier);
                rules.push(Rule { ports, ..Rule::cidr(action, prefix) });
            }
        }
        rules
    }

    fn rule(&mut self, tier: Tier) -> Rule {
        let action = match self.random.below(10) {
            0..5 => Action::Deny,
            5 | 6 if tier == Tier::Admin => Action::Pass,
            _ => Action::Allow,
        };
        let peer = match self.random.below(20) {
            0 => Peer::Dns((*self.random.pick(&["example.com", "*.example.com", "**.example.org"])).to_owned()),
            1 => Peer::Nodes(self.selector()),
            _ => self.cidr(),
        };
        let ports = self.random.chance(50).then(|| {
            let count = self.random.between(1, 4);
            (0..count).map(|_| self.ports()).collect()
        });
        let name = self.random.chance(20).then(|| (*self.random.pick(&["web", "no-smtp", "r1"])).to_owned());
        Rule { action, peer, ports, name }
    }

    fn cidr(&mut self) -> Peer {
        let prefix = self.prefix();
        let mut except = Vec::new();
        if prefix.length < prefix.width() && self.random.chance(30) {
            for _ in 0..self.random.between(1, 3) {
                let length = self.random.between(usize::from(prefix.length) + 1, prefix.width().into());
                let inside = at_inside(prefix, &self.pool, &mut self.random);
                except.push(Prefix::new(inside, u8::try_from(length).expect("at most 128")).masked());
            }
        }
        self.pool.extend(&except);
        Peer::Cidr { prefix, except }
    }

    fn ports(&mut self) -> Ports {
        let protocol = match self.random.below(16) {
            0..7 => Protocol::Tcp,
            7..11 => Protocol::Udp,
            11 | 12 => Protocol::Sctp,
            13 => Protocol::Icmp,
            14 => Protocol::Icmpv6,
            _ => Protocol::Any,
        };
        if !protocol.has_ports() || self.random.chance(15) {
            return Ports::all(protocol);
        }
        let port = self.port();
        let end = self.random.chance(50).then(|| match self.random.below(5) {
            0 => port,
            1 => 65535,
            2 => port.saturating_add(1),
            _ => self.port().max(port),
        });
        self.ports.push(port);
        self.ports.extend(end);
        Ports { protocol, port: Some(port), end }
    }

    /// A port that is in use, or one beside it; never 0.
    fn port(&mut self) -> u16 {
        let near = *self.random.pick(&self.ports);
        match self.random.below(4) {
            0 => near.saturating_add(1),
            1 => near.saturating_sub(1).max(1),
            _ => near,
        }
    }

    /// A relative of a prefix in use: the same, a parent, a child, a sibling, the whole family; host bits are sometimes left set.
    fn prefix(&mut self) -> Prefix {
        let relative = *self.random.pick(&self.pool);
        let width = relative.width();
        let length = usize::from(relative.length);
        let any = self.random.between(0, width.into());
        let (bits, length) = match self.random.below(20) {
            0 => (bits_of(relative.address), 0),
            1..4 => (bits_of(relative.address), length),
            4..8 => (bits_of(relative.address), self.random.between(length.saturating_sub(9), length)),
            8..12 => {
                let longer = self.random.between(length, (length + 9).min(width.into()));
                (bits_of(at_edge(relative, &mut self.random)), longer)
            }
            12..16 if length > 0 => (bits_of(relative.address) ^ (1 << (usize::from(width) - length)), length),
            16 | 17 => {
                (bits_of(relative.address), *self.random.pick(&[8, 16, 24, usize::from(width) - 8, width.into()]))
            }
            18 => (self.random.wide(), any),
            _ => (bits_of(relative.address), any),
        };
        let prefix = Prefix::new(from_bits(width, bits), u8::try_from(length).expect("at most 128"));
        let prefix = if self.random.chance(85) { prefix.masked() } else { prefix };
        self.pool.push(prefix);
        prefix
    }

    /// Up to `most` prefixes that do not cover everything that rules are about.
    fn narrow_prefixes(&mut self, most: usize) -> Vec<Prefix> {
        let count = self.random.below(most + 1);
        let mut prefixes: Vec<Prefix> = (0..count).map(|_| self.prefix().masked()).collect();
        for prefix in &mut prefixes {
            let least = if prefix.width() == 32 { 20 } else { 60 };
            *prefix = Prefix::new(prefix.address, prefix.length.max(least));
        }
        prefixes.sort();
        prefixes.dedup();
        prefixes
    }

    /// Addresses that a configuration may name as resolvers.
    fn resolvers(&mut self) -> Vec<IpAddr> {
        let mut addresses = self.addresses(3);
        addresses.retain(|address| !address.is_multicast() && !address.is_unspecified());
        addresses
    }

    fn addresses(&mut self, most: usize) -> Vec<IpAddr> {
        let count = self.random.below(most + 1);
        let mut addresses: Vec<IpAddr> = (0..count)
            .map(|_| {
                let near = *self.random.pick(&self.pool);
                at_edge(near, &mut self.random)
            })
            .collect();
        addresses.sort();
        addresses.dedup();
        self.pool.extend(addresses.iter().map(|address| Prefix::host(*address)));
        addresses
    }

    fn edit(&mut self, world: &mut World) {
        if world.policies.is_empty() {
            self.add_policy(world, 4);
            return;
        }
        let at = self.random.below(world.policies.len());
        let policy = &mut world.policies[at];
        let rule = self.random.below(policy.rules.len());
        match self.random.below(8) {
            0 => self.add_policy(world, 4),
            1 => drop(world.policies.remove(at)),
            2 => policy.rules.insert(rule, self.rule(policy.tier)),
            3 if policy.rules.len() > 1 => drop(policy.rules.remove(rule)),
            4 => policy.rules.swap(0, rule),
            5 => policy.priority = *self.random.pick(&[0, 50, 100, 101]),
            6 => policy.mode = if policy.mode == Mode::Audit { Mode::Enforce } else { Mode::Audit },
            _ => {
                let config = self.config();
                world.config = config;
            }
        }
    }
}

/// An address inside `prefix`, one of the pool's where there is one.
fn at_inside(prefix: Prefix, pool: &[Prefix], random: &mut Random) -> IpAddr {
    let candidate = *random.pick(pool);
    if prefix.contains(candidate.address) && random.chance(70) {
        return candidate.address;
    }
    let host_bits = bits_of(prefix.first()) ^ bits_of(prefix.last());
    from_bits(prefix.width(), bits_of(prefix.first()) | (random.wide() & host_bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_world_again() {
        for seed in 0..50 {
            assert_eq!(World::generate(seed), World::generate(seed));
            let world = World::generate(seed);
            assert_eq!(world.edited(seed), world.edited(seed));
        }
    }

    #[test]
    fn exceptions_lie_strictly_inside_their_prefix() {
        let worlds = (0..300).map(World::generate);
        let mut seen = 0;
        for policy in worlds.flat_map(|world| world.policies) {
            for rule in policy.rules {
                if let Peer::Cidr { prefix, except } = rule.peer {
                    assert!(except.iter().all(|inner| prefix.covers(inner) && inner.length > prefix.length));
                    seen += except.len();
                }
            }
        }
        assert!(seen > 100);
    }
}
