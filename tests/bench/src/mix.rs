//! The prefixes, rules and destinations of a run: the same on every machine, from a fixed seed.
//!
//! 45 % /32, 35 % /24, 10 % /25–31, 10 % /20–23 (above 100k no shorter than /24, or interval sets merge into few); 7 % lie inside
//! another one. The rules are ordered, inner prefixes first, 90 % Allow and 10 % Deny under a default of Deny, and every fourth one
//! names ports. They become policy files of the largest size, and are read as such: the production path.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use anyhow::Context as _;
use egress_common::abi::capacity;
use egress_common::packet::protocol;
use egress_policy::compile::Table;
use egress_policy::document::{self, Object};
use egress_policy::model::PolicySet;
use egress_policy::spec::MAX_RULES;
use ipnet::Ipv4Net;

/// Port of the UDP packets that are measured.
pub(crate) const PORT: u16 = 4242;
/// Port of the TCP segments that are measured.
pub(crate) const TCP_PORT: u16 = 443;
/// Destinations of the cold regime.
pub(crate) const DESTINATIONS: usize = 1 << 16;
/// Above this many prefixes none is shorter than /24.
const NO_SHORT_ABOVE: usize = 100_000;
/// Prefixes of a full table that builtin rules and the measured updates need.
const RESERVED: usize = 64;

/// A generator (`SplitMix64`) whose sequence never changes.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Starts a sequence.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn word(&mut self) -> u32 {
        (self.next() >> 32) as u32
    }

    /// Below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or(0)
    }

    fn length(&mut self, range: RangeInclusive<u8>) -> u8 {
        let count = usize::from(range.end() - range.start()) + 1;
        range.start() + u8::try_from(self.below(count)).unwrap_or(0)
    }

    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// An address inside `prefix`.
    fn inside(&mut self, prefix: Ipv4Net) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(prefix.network()) | (self.word() & u32::from(prefix.hostmask())))
    }
}

/// What one size is measured with.
#[derive(Debug)]
pub(crate) struct Mix {
    /// Prefixes, inner ones first: one rule each.
    pub(crate) prefixes: Vec<Ipv4Net>,
    /// Policy files, in the order of evaluation.
    pub(crate) files: Vec<String>,
}

/// Whether packets can be sent there, and the firewall has no opinion of its own about it.
fn is_ordinary(prefix: Ipv4Net) -> bool {
    let [first, second, ..] = prefix.network().octets();
    !matches!(first, 0 | 10 | 127 | 224..=255) && !matches!((first, second), (198, 18..=19 | 51) | (203 | 192, 0))
}

impl Mix {
    /// Prefixes and rules of a size.
    pub(crate) fn new(size: usize) -> Self {
        let size = size.min(capacity::TABLE_PREFIXES - RESERVED);
        let mut random = Random::new(size as u64);
        let mut prefixes = prefixes(size, &mut random);
        // An inner prefix is made after the one around it, and only decides if it stands before it.
        prefixes.reverse();
        let files = prefixes.chunks(MAX_RULES).enumerate();
        let files = files.map(|(number, prefixes)| policy(number, prefixes, &mut random)).collect();
        Self { prefixes, files }
    }
}

/// Prefixes of the mix, the outer ones first.
pub(crate) fn prefixes(size: usize, random: &mut Random) -> Vec<Ipv4Net> {
    let mut found = Vec::with_capacity(size);
    let mut known = HashSet::with_capacity(size);
    while found.len() < size {
        let around = if random.percent(7) && !found.is_empty() {
            let around: Ipv4Net = found[random.below(found.len())];
            if around.prefix_len() > 30 {
                continue;
            }
            Some(around)
        } else {
            None
        };
        let (length, address) = match around {
            Some(around) => (random.length(around.prefix_len() + 1..=32), random.inside(around)),
            None => (length(size, random), Ipv4Addr::from(random.word())),
        };
        let prefix = Ipv4Net::new_assert(address, length).trunc();
        if is_ordinary(prefix) && known.insert(prefix) {
            found.push(prefix);
        }
    }
    found
}

fn length(size: usize, random: &mut Random) -> u8 {
    match random.below(100) {
        0..45 => 32,
        45..80 => 24,
        80..90 => random.length(25..=31),
        _ if size > NO_SHORT_ABOVE => 24,
        _ => random.length(20..=23),
    }
}

/// A policy file of these prefixes.
fn policy(number: usize, prefixes: &[Ipv4Net], random: &mut Random) -> String {
    let mut text = format!(
        "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata:\n  name: part-{number:04}\n  \
         namespace: bench\nspec:\n  priority: {}\n  egress:\n",
        number + 1
    );
    for prefix in prefixes {
        let action = if random.percent(10) { "Deny" } else { "Allow" };
        let ports = match random.below(16) {
            0 => "[{protocol: TCP, port: 443}]",
            1 => "[{protocol: TCP, port: 80}, {protocol: TCP, port: 443}, {protocol: UDP, port: 4000, endPort: 5000}]",
            2 => "[{protocol: UDP, port: 4242}, {protocol: UDP, port: 53}]",
            3 => "[{protocol: UDP}, {protocol: TCP, port: 1024, endPort: 65535}]",
            _ => "",
        };
        let _ = writeln!(text, "  - type: {action}\n    to: {{cidrSelector: {prefix}}}");
        if !ports.is_empty() {
            let _ = writeln!(text, "    ports: {ports}");
        }
    }
    text
}

/// Reads policy files as the agent does, under a default of Deny.
pub(crate) fn read(files: &[String]) -> anyhow::Result<PolicySet> {
    const CONFIG: &str = "apiVersion: egress.rs/v1alpha1\nkind: EgressConfig\nmetadata: {name: default}\n\
                          spec: {defaultAction: Deny, internalCIDRs: [10.0.0.0/8]}\n";
    let mut set = PolicySet::default();
    for text in files.iter().map(String::as_str).chain([CONFIG]) {
        let documents = document::read(text);
        anyhow::ensure!(documents.problems.is_empty(), "{:?}", documents.problems.first());
        for object in documents.objects {
            match object {
                Object::Policy(policy) => drop(set.insert(policy)),
                Object::Config(config) => set.config = config,
                Object::Namespace { .. } => {}
            }
        }
    }
    Ok(set)
}

/// What the table says of a measured UDP packet.
fn allows(table: &Table, address: Ipv4Addr) -> bool {
    !table.lookup(IpAddr::V4(address), protocol::UDP, PORT).decision.is_deny()
}

/// What the table says of a measured TCP segment.
fn allows_tcp(table: &Table, address: Ipv4Addr) -> bool {
    !table.lookup(IpAddr::V4(address), protocol::TCP, TCP_PORT).decision.is_deny()
}

/// Destinations, in random order.
#[derive(Debug)]
pub(crate) struct Destinations {
    /// Inside random prefixes, all of them allowed: every packet takes the whole way.
    pub(crate) allowed: Vec<Ipv4Addr>,
    /// Like `allowed`, and a TCP segment may go there too: the other peers know no ports.
    pub(crate) allowed_tcp: Vec<Ipv4Addr>,
    /// Inside random prefixes, and one in eight anywhere; with the expected verdicts.
    pub(crate) mixed: Vec<(Ipv4Addr, bool)>,
}

impl Destinations {
    /// Destinations for a table.
    pub(crate) fn new(prefixes: &[Ipv4Net], table: &Table) -> anyhow::Result<Self> {
        let mut random = Random::new(0xd057 ^ prefixes.len() as u64);
        let mut draw = |is_allowed: &dyn Fn(Ipv4Addr) -> bool| -> anyhow::Result<Vec<Ipv4Addr>> {
            let tries = std::iter::repeat_with(|| {
                let prefix = prefixes[random.below(prefixes.len())];
                random.inside(prefix)
            });
            let drawn: Vec<_> =
                tries.take(DESTINATIONS * 100).filter(|address| is_allowed(*address)).take(DESTINATIONS).collect();
            anyhow::ensure!(drawn.len() == DESTINATIONS, "too few destinations are allowed");
            Ok(drawn)
        };
        let allowed = draw(&|address| allows(table, address))?;
        let allowed_tcp = draw(&|address| allows(table, address) && allows_tcp(table, address))?;
        let mut mixed = Vec::with_capacity(DESTINATIONS);
        while mixed.len() < DESTINATIONS {
            let anywhere = Ipv4Net::from(Ipv4Addr::from(random.word()));
            let prefix = if random.below(8) == 0 { anywhere } else { prefixes[random.below(prefixes.len())] };
            if is_ordinary(prefix) {
                let address = random.inside(prefix);
                mixed.push((address, allows(table, address)));
            }
        }
        Ok(Self { allowed, allowed_tcp, mixed })
    }
}

/// The allowed addresses of a table as disjoint intervals, merged where they touch: what an interval set can hold.
pub(crate) fn allowed_intervals(table: &Table) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    // Prefixes are sorted and nested: a stack of those that are open at the sweep's position.
    let mut spans: Vec<(u32, u32)> = Vec::new();
    let mut open: Vec<(Ipv4Net, bool)> = Vec::new();
    let mut position = 0_u64;
    let mut emit = |to: u64, position: &mut u64, allowed: bool| {
        if allowed && to > *position {
            let (first, last) =
                (u32::try_from(*position).unwrap_or(u32::MAX), u32::try_from(to - 1).unwrap_or(u32::MAX));
            match spans.last_mut() {
                Some(span) if u64::from(span.1) + 1 == *position => span.1 = last,
                _ => spans.push((first, last)),
            }
        }
        *position = to;
    };
    for (prefix, leaf) in table.prefixes4.iter() {
        while let Some((around, allowed)) = open.last().copied().filter(|(around, _)| !around.contains(prefix)) {
            emit(u64::from(u32::from(around.broadcast())) + 1, &mut position, allowed);
            open.pop();
        }
        if let Some((_, allowed)) = open.last() {
            emit(u64::from(u32::from(prefix.network())), &mut position, *allowed);
        }
        let key = egress_common::class::key(protocol::UDP, PORT);
        let allowed = table.open(*leaf, key).is_some_and(|found| !found.decision.is_deny());
        open.push((*prefix, allowed));
    }
    while let Some((around, allowed)) = open.pop() {
        emit(u64::from(u32::from(around.broadcast())) + 1, &mut position, allowed);
    }
    spans.into_iter().map(|(first, last)| (first.into(), last.into())).collect()
}

/// One file with one rule, evaluated before all others, that allows one address.
pub(crate) fn update_file(address: Ipv4Addr) -> String {
    format!(
        "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: update, namespace: bench}}\n\
         spec: {{priority: 0, egress: [{{type: Allow, to: {{cidrSelector: {address}/32}}}}]}}\n"
    )
}

/// Reads a number or names an error.
pub(crate) fn parse_size(text: &str) -> anyhow::Result<usize> {
    let (digits, factor) = match text.trim().to_ascii_lowercase() {
        text if text.ends_with('k') => (text.trim_end_matches('k').to_owned(), 1_000),
        text if text.ends_with('m') => (text.trim_end_matches('m').to_owned(), 1_000_000),
        text => (text, 1),
    };
    let number: usize = digits.parse().with_context(|| format!("{text} is not a size; write 1k, 100k, 1M"))?;
    anyhow::ensure!((100..=1_000_000).contains(&(number * factor)), "{text}: sizes from 100 to 1M can be measured");
    Ok(number * factor)
}
