//! Every edited table is held to the table that is compiled from the same rules.

use std::collections::BTreeSet;
use std::sync::Arc;

use egress_common::class::ClassEntry;
use egress_common::names::{Effect, State};
use egress_common::table::Leaf;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Editable, Exchange};
use crate::compile::{Limits, Table, compile};
use crate::model::{Action, Mode, PolicyKey, PolicyKind, Tier};
use crate::name::NamePattern;
use crate::ports::{KeyRange, Ports};
use crate::rules::{RankedPeer, RankedRule, RuleList, RuleOrigin};

/// A generator whose sequence depends on nothing else (`SplitMix64`).
struct Random(u64, Named);

/// Whether there are rules about names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    No,
    Yes,
}

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    /// Few bits differ, so that prefixes nest.
    fn network(&mut self, within: Option<IpNet>) -> IpNet {
        let v4 = within.map_or_else(|| !self.one_in(3), |within| matches!(within, IpNet::V4(_)));
        let shortest = within.map_or(if self.one_in(60) { 0 } else { 4 }, |within| u64::from(within.prefix_len()));
        let low = u32::try_from(self.below(1 << 12)).unwrap();
        let around = within.map(|within| within.network());
        if v4 {
            let length = u8::try_from(shortest + self.below(33 - shortest)).unwrap();
            let base = around.map_or(0x5000_0000, |address| match address {
                std::net::IpAddr::V4(address) => address.to_bits(),
                std::net::IpAddr::V6(_) => 0,
            });
            let spread = low << 20 ^ low >> 6;
            let mask = u32::MAX.checked_shr(u32::try_from(shortest).unwrap()).unwrap_or(0);
            Ipv4Net::new((base | spread & mask).into(), length).unwrap().trunc().into()
        } else {
            let length = u8::try_from(shortest + self.below(129 - shortest)).unwrap();
            let base = around.map_or(0x2001_u128 << 112, |address| match address {
                std::net::IpAddr::V6(address) => address.to_bits(),
                std::net::IpAddr::V4(_) => 0,
            });
            let spread = u128::from(low) << 100 ^ u128::from(low >> 6);
            let mask = u128::MAX.checked_shr(u32::try_from(shortest).unwrap()).unwrap_or(0);
            Ipv6Net::new((base | spread & mask).into(), length).unwrap().trunc().into()
        }
    }

    fn ports(&mut self) -> Ports {
        match self.below(6) {
            0 => Ports::new(vec![KeyRange::ports(6, 443, 443)]),
            1 => Ports::new(vec![KeyRange::ports(6, 80, 8080), KeyRange::ports(17, 53, 53)]),
            2 => Ports::new(vec![KeyRange::ports(17, 0, u16::MAX)]),
            _ => Ports::Any,
        }
    }

    fn rule(&mut self, tier: Tier) -> RankedRule {
        let action = match self.below(10) {
            0 if tier == Tier::Admin => Action::Pass,
            0..5 => Action::Deny,
            _ => Action::Allow,
        };
        let peer = match self.below(12) {
            0 => RankedPeer::Networks((0..self.below(4)).map(|_| self.network(None)).collect()),
            1 | 2 => {
                let cidr = self.network(None);
                let except = (0..self.below(3)).map(|_| self.network(Some(cidr))).collect();
                RankedPeer::Cidr { cidr, except }
            }
            3 if self.1 == Named::Yes => RankedPeer::DnsName(Arc::new(NamePattern::parse("www.example.com").unwrap())),
            _ => RankedPeer::Cidr { cidr: self.network(None), except: Arc::from([]) },
        };
        let mode = if self.one_in(5) { Mode::Audit } else { Mode::Enforce };
        RankedRule { origin: origin(), tier, action, mode, peer, ports: self.ports() }
    }

    fn list(&mut self, count: u64) -> RuleList {
        let tier = |index| match index * 4 / count {
            0 => Tier::Admin,
            1 | 2 => Tier::Namespace,
            _ => Tier::Baseline,
        };
        let mut rules: Vec<RankedRule> = (0..count).map(|index| self.rule(tier(index))).collect();
        rules.push(RankedRule {
            origin: RuleOrigin::Default,
            tier: Tier::Default,
            action: Action::Deny,
            mode: Mode::Enforce,
            peer: RankedPeer::Any,
            ports: Ports::Any,
        });
        RuleList { rules, policies: Vec::new() }
    }
}

fn origin() -> RuleOrigin {
    let key = PolicyKey { kind: PolicyKind::ClusterEgressPolicy, namespace: None, name: "edited".to_owned() };
    RuleOrigin::Policy { key: Arc::new(key), number: 1, name: None }
}

/// What an interval says, from its first key on: an effect, or a state wherever it lies.
type Content = (u32, Option<Result<Effect, State>>);

/// What a leaf says, without where in the class array it says so.
fn content(table: &Table, leaf: Leaf) -> Vec<Content> {
    match leaf.open() {
        Ok(decision) => vec![(0, Some(Ok(Effect::decide(decision))))],
        Err(base) => class(table, base),
    }
}

fn class(table: &Table, base: u32) -> Vec<Content> {
    let base = usize::try_from(base).unwrap();
    let count = usize::try_from(table.classes.get(base).unwrap().from).unwrap();
    let state = |index| State::read(&table.classes, index).unwrap();
    let said = |entry: ClassEntry| entry.open().map(|said| said.map_err(state));
    table.classes.iter().copied().skip(base + 1).take(count).map(|entry| (entry.from, said(entry))).collect()
}

fn check(what: &str, edited: &Editable) {
    let (table, fresh) = (edited.table(), compile(edited.list(), &Limits::default()).unwrap());
    assert_eq!((table.rules, table.head_rules), (fresh.rules, fresh.head_rules), "{what}");
    let names = |table: &Table| {
        let said = table.names.iter().map(|(place, leaf)| {
            let said = leaf.open().map(|said| said.map_err(|base| class(table, base)));
            (place.clone(), said)
        });
        said.collect::<Vec<_>>()
    };
    assert_eq!(names(&table), names(&fresh), "{what}");
    let say = |table: &Table| {
        table.entries().map(|(net, leaf)| (net, content(table, leaf))).collect::<Vec<(IpNet, Vec<_>)>>()
    };
    assert_eq!(say(&table), say(&fresh), "{what}");
}

#[test]
fn an_edited_table_is_leaf_for_leaf_the_one_that_is_compiled_from_its_rules() {
    let (mut local, mut whole) = (0, 0);
    for seed in 0..30 {
        let random = &mut Random(seed, if seed % 5 == 4 { Named::Yes } else { Named::No });
        let count = [30, 120, 400][usize::try_from(seed % 3).unwrap()];
        let mut edited = Editable::new(Arc::new(random.list(count)), &Limits::default()).unwrap().0;
        for round in 0..30 {
            let most = if random.one_in(6) { 30 } else { 3 };
            let ranks: BTreeSet<u64> = (0..=random.below(most)).map(|_| random.below(count)).collect();
            let exchanges: Vec<Exchange> = ranks
                .into_iter()
                .map(|rank| {
                    let tier = edited.list().rules[usize::try_from(rank).unwrap()].tier;
                    (u32::try_from(rank).unwrap(), random.rule(tier))
                })
                .collect();
            let mut list = edited.list().as_ref().clone();
            for (rank, rule) in &exchanges {
                list.rules[usize::try_from(*rank).unwrap()] = rule.clone();
            }
            edited = if let Some(edited) = edited.exchange(exchanges) {
                local += 1;
                assert_eq!(**edited.list(), list, "seed {seed}, round {round}");
                edited
            } else {
                whole += 1;
                Editable::new(Arc::new(list), &Limits::default()).unwrap().0
            };
            check(&format!("seed {seed}, round {round}"), &edited);
        }
    }
    println!("{local} exchanges were local, {whole} were not");
    assert!(local > 400 && whole > 20, "{local} local, {whole} whole");
}

fn cidr(text: &str, ports: Ports) -> RankedRule {
    let peer = RankedPeer::Cidr { cidr: text.parse().unwrap(), except: Arc::from([]) };
    let (tier, action, mode) = (Tier::Namespace, Action::Allow, Mode::Enforce);
    RankedRule { origin: origin(), tier, action, mode, peer, ports }
}

#[test]
fn what_reaches_further_is_no_exchange() {
    let start = || {
        let random = &mut Random(3, Named::No);
        let mut list = random.list(400);
        // Nothing about names and nothing about everything, so that only what is put in decides.
        list.rules[300] = cidr("80.0.0.0/32", Ports::Any);
        list.rules[301] = cidr("80.0.0.1/32", Ports::Any);
        Editable::new(Arc::new(list), &Limits::default()).unwrap().0
    };
    assert!(start().exchange(vec![(300, cidr("80.0.0.2/32", Ports::Any))]).is_some());
    for text in ["0.0.0.0/0", "::/0", "64.0.0.0/2"] {
        assert!(start().exchange(vec![(300, cidr(text, Ports::Any))]).is_none(), "{text}");
    }
    let name = RankedPeer::DnsName(Arc::new(NamePattern::parse("a.example").unwrap()));
    let named = RankedRule { peer: name, ..cidr("80.0.0.0/32", Ports::Any) };
    assert!(start().exchange(vec![(300, named.clone())]).is_none(), "a rule about a name");
    let mut list = start().list().as_ref().clone();
    list.rules[301] = named;
    let beside = Editable::new(Arc::new(list), &Limits::default()).unwrap().0;
    check("beside a rule about a name", &beside.exchange(vec![(300, cidr("80.0.0.2/32", Ports::Any))]).unwrap());
    let pass = RankedRule { action: Action::Pass, tier: Tier::Admin, ..cidr("80.0.0.0/32", Ports::Any) };
    assert!(start().exchange(vec![(1, pass)]).is_none(), "a Pass");
    assert!(start().exchange(vec![(4000, cidr("80.0.0.2/32", Ports::Any))]).is_none(), "no such rank");
}

#[test]
fn classes_do_not_pile_up_without_end() {
    let mut list = Random(5, Named::No).list(50);
    list.rules[25] = cidr("80.0.0.0/32", Ports::Any);
    let limits = Limits { class_entries: 400, ..Limits::default() };
    let mut edited = Editable::new(Arc::new(list), &limits).unwrap().0;
    for port in 1.. {
        assert!(port < 1000, "the limit of the class array is kept");
        let rule = cidr("80.0.0.0/32", Ports::new(vec![KeyRange::ports(6, port, port)]));
        match edited.exchange(vec![(25, rule)]) {
            Some(next) => edited = next,
            None => break,
        }
        assert!(edited.table().classes.len() <= 400);
    }
}
