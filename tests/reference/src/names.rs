//! DNS names: which patterns mean which names (§5.1), and worlds whose rules name names and whose addresses have some.
//!
//! Which answers are live is part of a world, like its policies: what teaches them is not this package's matter.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::generate::Size;
use crate::object::{Peer, Rule, World};
use crate::packets::at_edge;
use crate::prefix::Prefix;
use crate::random::Random;

/// The live answers: name (lower case, without a trailing dot) → addresses.
pub type Answers = BTreeMap<String, BTreeSet<IpAddr>>;

/// Whether a rule's `dnsName` means `name`: label by label, as §5.1 says it.
pub fn pattern_means(pattern: &str, name: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    let mut pattern: Vec<&str> = pattern.split('.').filter(|label| !label.is_empty()).collect();
    let name = name.to_ascii_lowercase();
    let mut name: Vec<&str> = name.split('.').filter(|label| !label.is_empty()).collect();
    while pattern.last().is_some_and(|label| !label.starts_with('*')) && pattern.last() == name.last() {
        pattern.pop();
        name.pop();
    }
    match pattern.as_slice() {
        [] => name.is_empty(),
        ["*"] => name.len() == 1,
        ["**"] => !name.is_empty(),
        _ => false,
    }
}

const TOPS: [&str; 4] = ["foo.com", "com", "bar.org", "b.foo.com"];
const LABELS: [&str; 4] = ["a", "b", "www", "x-1"];

impl World {
    /// The world of `seed`, some of its rules turned to names, and with live answers that share addresses with its prefixes and with
    /// each other.
    pub fn generate_named(seed: u64, size: &Size) -> Self {
        let mut world = Self::generate_sized(seed, size);
        let mut random = Random::new(seed ^ 0x0064_6e73);
        for rule in world.policies.iter_mut().flat_map(|policy| &mut policy.rules) {
            if random.chance(35) || matches!(rule.peer, Peer::Dns(_)) {
                rule.peer = Peer::Dns(pattern(&mut random));
            }
        }
        world.answers = world.some_answers(&mut random);
        world
    }

    fn some_answers(&self, random: &mut Random) -> Answers {
        let mut addresses: Vec<IpAddr> = self.node.resolvers.clone();
        let rules = self.policies.iter().flat_map(|policy| &policy.rules);
        let prefixes = rules.filter_map(|rule| match &rule.peer {
            Peer::Cidr { prefix, .. } => Some(*prefix),
            Peer::Dns(_) | Peer::Nodes(_) => None,
        });
        let prefixes: Vec<Prefix> = prefixes.chain(self.config.internal.iter().flatten().copied()).collect();
        addresses.extend(["192.0.2.7", "2001:db8:7::7"].map(|text| text.parse::<IpAddr>().expect("an address")));
        addresses.extend(prefixes.iter().map(|prefix| at_edge(*prefix, random)));
        let mut answers = Answers::new();
        for _ in 0..random.between(1, 10) {
            // Some of the addresses that the names before have.
            let known = answers.values().flatten().copied();
            addresses.extend(known.collect::<BTreeSet<IpAddr>>());
            let count = random.between(1, 4);
            let live = (0..count).map(|_| *random.pick(&addresses)).collect();
            answers.insert(name(random), live);
        }
        answers
    }

    /// The names that `address` is a live answer of.
    pub fn names_of(&self, address: IpAddr) -> Vec<&str> {
        let address = address.to_canonical();
        let live = self.answers.iter().filter(|(_, live)| live.contains(&address));
        live.map(|(name, _)| name.as_str()).collect()
    }
}

impl Rule {
    /// The `dnsName`, if the rule has one.
    pub fn dns_name(&self) -> Option<&str> {
        match &self.peer {
            Peer::Dns(name) => Some(name),
            Peer::Cidr { .. } | Peer::Nodes(_) => None,
        }
    }
}

fn name(random: &mut Random) -> String {
    let mut name = (*random.pick(&TOPS)).to_owned();
    for _ in 0..random.below(4) {
        name = format!("{}.{name}", random.pick(&LABELS));
    }
    name
}

/// A pattern, not always written in lower case.
fn pattern(random: &mut Random) -> String {
    let wildcard = *random.pick(&["", "", "*.", "**."]);
    let mut name = (*random.pick(&TOPS)).to_owned();
    for _ in 0..random.below(3) {
        name = format!("{}.{name}", random.pick(&LABELS));
    }
    match random.below(10) {
        0 => format!("{wildcard}{}", name.to_ascii_uppercase()),
        1 => format!("{wildcard}{name}."),
        _ => format!("{wildcard}{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_section_5_1_says() {
        for (name, exact, one, any) in [
            ("foo.com", true, false, false),
            ("FOO.com.", true, false, false),
            ("a.foo.com", false, true, true),
            ("b.a.foo.com", false, false, true),
            ("afoo.com", false, false, false),
            ("com", false, false, false),
            ("foo.com.org", false, false, false),
        ] {
            let found = ["foo.com", "*.Foo.com", "**.foo.com."].map(|pattern| pattern_means(pattern, name));
            assert_eq!(found, [exact, one, any], "{name}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_names_again_and_addresses_are_shared() {
        let mut shared = 0;
        for seed in 0..100 {
            let world = World::generate_named(seed, &Size::default());
            assert_eq!(world, World::generate_named(seed, &Size::default()));
            assert!(!world.answers.is_empty());
            let addresses: BTreeSet<&IpAddr> = world.answers.values().flatten().collect();
            shared += addresses.iter().filter(|address| world.names_of(***address).len() > 1).count();
        }
        assert!(shared > 50, "{shared}");
    }
}
