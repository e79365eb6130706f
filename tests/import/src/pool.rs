//! Random parts of objects, drawn from few values so that rules interact: nested prefixes, ports that touch, labels that match.

use egress_reference::{Labels, Prefix, Random, Selector};
use serde_json::{Value, json};

const KEYS: [&str; 2] = ["app", "tier"];
const VALUES: [&str; 2] = ["web", "db"];
const PORTS: [u16; 7] = [1, 53, 80, 81, 443, 8080, 65535];

/// Prefixes of both families: everything, nested ones, single addresses, the addresses of names and nodes.
const PREFIXES: [&str; 18] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3/32",
    "198.51.100.0/29",
    "198.51.100.2/31",
    "203.0.113.0/24",
    "203.0.113.128/25",
    "172.16.0.0/12",
    "128.0.0.0/1",
    "::/0",
    "2001:db8::/32",
    "2001:db8:51::/64",
    "2001:db8:51::2/127",
    "2001:db8:1::/48",
    "2001:db8:1:2::3/128",
    "8000::/1",
];

/// A prefix of either family.
pub(crate) fn prefix(random: &mut Random) -> Prefix {
    parse(random.pick::<&str>(&PREFIXES))
}

/// An IPv4 prefix.
pub(crate) fn prefix4(random: &mut Random) -> Prefix {
    loop {
        let prefix = prefix(random);
        if prefix.width() == 32 {
            return prefix;
        }
    }
}

/// Reads a prefix.
pub(crate) fn parse(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').expect("a prefix");
    Prefix::new(address.parse().expect("an address"), length.parse().expect("a length"))
}

/// A port.
pub(crate) fn port(random: &mut Random) -> u16 {
    *random.pick(&PORTS)
}

/// First and last port of a range, which may be one port.
pub(crate) fn port_range(random: &mut Random) -> (u16, u16) {
    let (a, b) = (port(random), port(random));
    (a.min(b), a.max(b))
}

/// Up to two labels.
pub(crate) fn labels(random: &mut Random) -> Labels {
    let mut labels = Labels::new();
    for key in KEYS {
        if random.chance(60) {
            labels.insert(key.to_owned(), (*random.pick(&VALUES)).to_owned());
        }
    }
    labels
}

/// A selector that often matches.
pub(crate) fn selector(random: &mut Random) -> Selector {
    let mut selector = Selector::default();
    if random.chance(60) {
        selector.labels.insert((*random.pick(&KEYS)).to_owned(), (*random.pick(&VALUES)).to_owned());
    }
    selector
}

/// The selector as objects have it.
pub(crate) fn selector_json(selector: &Selector) -> Value {
    if selector.labels.is_empty() { json!({}) } else { json!({"matchLabels": selector.labels}) }
}
