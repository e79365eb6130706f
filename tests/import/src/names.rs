//! A small DNS: which addresses every name has. Wildcards are matched here by each firewall's own rules.

use std::collections::BTreeMap;
use std::net::IpAddr;

use egress_reference::Random;

/// Names with their addresses, lower case and without a trailing dot.
#[derive(Clone, Debug, Default)]
pub struct Names(BTreeMap<String, Vec<IpAddr>>);

/// Names at several depths below each other, and ones that only look alike.
const NAMES: [&str; 9] = [
    "foo.com",
    "www.foo.com",
    "api.www.foo.com",
    "myfoo.com",
    "bar.example.org",
    "a.b.bar.example.org",
    "xn--bcher-kva.example",
    "nowhere.example",
    // No host has such a name, and DNS can carry it: rules of ours refuse it.
    "-odd.example.org",
];

impl Names {
    /// Addresses for every name, some shared, one name without any.
    pub fn random(random: &mut Random) -> Self {
        let address = |random: &mut Random| -> IpAddr {
            let host = u8::try_from(random.between(1, 6)).expect("a byte");
            if random.chance(65) {
                [198, 51, 100, host].into()
            } else {
                [0x2001, 0xdb8, 0x51, 0, 0, 0, 0, u16::from(host)].into()
            }
        };
        let addresses = |random: &mut Random| (0..random.between(1, 3)).map(|_| address(random)).collect();
        let names = NAMES.iter().filter(|name| **name != "nowhere.example");
        let mut map: BTreeMap<_, _> = names.map(|name| ((*name).to_owned(), addresses(random))).collect();
        map.insert("nowhere.example".to_owned(), Vec::new());
        Self(map)
    }

    /// One of the names.
    pub fn pick(random: &mut Random) -> &'static str {
        random.pick::<&str>(&NAMES)
    }

    /// The addresses of every name that `matches`.
    pub fn addresses(&self, matches: impl Fn(&str) -> bool) -> Vec<IpAddr> {
        let found = self.0.iter().filter(|(name, _)| matches(name));
        found.flat_map(|(_, addresses)| addresses.iter().copied()).collect()
    }

    /// The names that have `address`.
    pub fn of(&self, address: IpAddr) -> Vec<String> {
        let found = self.0.iter().filter(|(_, addresses)| addresses.contains(&address));
        found.map(|(name, _)| name.clone()).collect()
    }

    /// Every address of every name.
    pub fn all(&self) -> Vec<IpAddr> {
        self.addresses(|_| true)
    }

    /// §5.1 of our own semantics: `*.` is one label, `**.` one or more, neither the name itself.
    pub fn matches_ours(pattern: &str, name: &str) -> bool {
        let front =
            |parent: &str| name.strip_suffix(parent).and_then(|front| front.strip_suffix('.')).map(str::to_owned);
        if let Some(parent) = pattern.strip_prefix("**.") {
            return front(parent).is_some_and(|front| !front.is_empty());
        }
        match pattern.strip_prefix("*.") {
            Some(parent) => front(parent).is_some_and(|front| !front.is_empty() && !front.contains('.')),
            None => pattern == name,
        }
    }
}
