//! Prints how long rule lists of several shapes and sizes take to compile, and what they need. Run it with
//! `cargo run --release -p egress-policy --example compile_time`; nothing is asserted.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use egress_policy::compile::{Limits, compile_with_coverage};
use egress_policy::model::{Action, Mode, Tier};
use egress_policy::model::{PolicyKey, PolicyKind};
use egress_policy::ports::{KeyRange, Ports};
use egress_policy::rules::{RankedPeer, RankedRule, RuleList, RuleOrigin};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A generator (xorshift), so that every run compiles the same lists.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// The mix of performance.md: 45 % /32, 35 % /24, 10 % /25–31, 10 % /20–23.
    fn prefix4(&mut self) -> IpNet {
        let length = match self.below(100) {
            0..45 => 32,
            45..80 => 24,
            80..90 => 25 + self.small(7),
            _ => 20 + self.small(4),
        };
        let address = u32::try_from(self.next() & 0xffff_ffff).unwrap_or_default();
        IpNet::V4(Ipv4Net::new(Ipv4Addr::from(address), length).unwrap_or_default().trunc())
    }

    fn prefix6(&mut self) -> IpNet {
        let length = [32, 48, 56, 64, 128].get(usize::from(self.small(5))).copied().unwrap_or(64);
        let bits = (0x2001_u128 << 112) | u128::from(self.next()) << 64 | u128::from(self.next());
        IpNet::V6(Ipv6Net::new(Ipv6Addr::from(bits), length).unwrap_or_default().trunc())
    }

    fn small(&mut self, limit: u64) -> u8 {
        u8::try_from(self.below(limit)).unwrap_or_default()
    }
}

fn rule(number: u32, action: Action, cidr: IpNet, except: Vec<IpNet>, ports: Ports) -> RankedRule {
    RankedRule {
        origin: RuleOrigin::Policy {
            key: Arc::new(PolicyKey {
                kind: PolicyKind::ClusterEgressPolicy,
                namespace: None,
                name: "bench".to_owned(),
            }),
            number,
            name: None,
        },
        tier: Tier::Admin,
        action,
        mode: Mode::Enforce,
        peer: RankedPeer::Cidr { cidr, except: except.into() },
        ports,
    }
}

fn default_action() -> RankedRule {
    RankedRule {
        origin: RuleOrigin::Default,
        tier: Tier::Default,
        action: Action::Deny,
        mode: Mode::Enforce,
        peer: RankedPeer::Any,
        ports: Ports::Any,
    }
}

fn everything() -> IpNet {
    IpNet::V4(Ipv4Net::default())
}

/// `count` prefixes with alternating actions.
fn flat(count: u32, v6: bool) -> Vec<RankedRule> {
    let mut random = Random(1);
    (1..=count)
        .map(|number| {
            let action = if number % 3 == 0 { Action::Deny } else { Action::Allow };
            let cidr = if v6 { random.prefix6() } else { random.prefix4() };
            rule(number, action, cidr, Vec::new(), Ports::Any)
        })
        .collect()
}

/// Every third rule with a port of its own choice.
fn ported(count: u32) -> Vec<RankedRule> {
    let mut random = Random(2);
    (1..=count)
        .map(|number| {
            let ports = match number % 3 {
                0 => Ports::new(vec![KeyRange::ports(6, 443, 443), KeyRange::ports(6, 8000, 8080)]),
                _ => Ports::Any,
            };
            rule(number, Action::Allow, random.prefix4(), Vec::new(), ports)
        })
        .collect()
}

/// One rule for everything with `count` exceptions, before 2,000 rules with ports for everything.
fn excepted(count: u32) -> Vec<RankedRule> {
    let mut random = Random(3);
    let except = (0..count).map(|_| random.prefix4()).collect();
    let first = rule(1, Action::Deny, everything(), except, Ports::Any);
    let ports = (0..2000_u16).map(|port| Ports::new(vec![KeyRange::ports(6, port * 3, port * 3)]));
    let rest = ports.zip(2..).map(|(ports, number)| rule(number, Action::Allow, everything(), Vec::new(), ports));
    std::iter::once(first).chain(rest).collect()
}

/// 8,000 rules for everything, each with exceptions of its own: 100k in all.
fn many_exceptions() -> Vec<RankedRule> {
    let mut random = Random(4);
    (1..=8000)
        .map(|number| {
            let except = (0..13).map(|_| random.prefix4()).collect();
            rule(number, Action::Allow, everything(), except, Ports::Any)
        })
        .collect()
}

/// 2,000 rules with ports and one without, all for everything, before `count` rules with ports that they cover.
fn covered(count: u32) -> Vec<RankedRule> {
    let mut random = Random(5);
    let ports = |number: u32| {
        let port = u16::try_from(number % 30_000).unwrap_or_default() * 2;
        Ports::new(vec![KeyRange::ports(6, port, port)])
    };
    let first = (1..=2000).map(|number| rule(number, Action::Allow, everything(), Vec::new(), ports(number)));
    let all = rule(2001, Action::Deny, everything(), Vec::new(), Ports::Any);
    let rest =
        (2002..2002 + count).map(|number| rule(number, Action::Allow, random.prefix4(), Vec::new(), ports(number)));
    first.chain([all]).chain(rest.collect::<Vec<_>>()).collect()
}

fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.map(|line| line.trim_start_matches("VmHWM:").trim().to_owned()).unwrap_or_default()
}

#[expect(clippy::print_stdout, reason = "printing is what this program is for")]
fn measure(name: &str, mut rules: Vec<RankedRule>) {
    rules.push(default_action());
    let list = RuleList { rules, policies: Vec::new() };
    let begin = Instant::now();
    let compiled = compile_with_coverage(&list, &Limits::default());
    let time = begin.elapsed();
    let begin = Instant::now();
    let _ = list.fingerprint();
    let fingerprint = begin.elapsed();
    match compiled {
        Ok((table, _)) => println!(
            "{name:<34} compile {time:>10.2?}  fingerprint {fingerprint:>9.2?}  {:>8} prefixes  {:>7} class entries  kernel {:>4} MiB  peak so far {}",
            table.prefixes(),
            table.classes.len(),
            table.kernel_memory() >> 20,
            peak_memory()
        ),
        Err(error) => println!("{name:<34} refused after {time:.2?}: {error}"),
    }
}

fn main() {
    measure("1k IPv4", flat(1_000, false));
    measure("10k IPv4", flat(10_000, false));
    measure("100k IPv4", flat(100_000, false));
    measure("100k IPv6", flat(100_000, true));
    measure("100k IPv4, a third with ports", ported(100_000));
    measure("100k exceptions of one rule", excepted(100_000));
    measure("100k exceptions of 8,000 rules", many_exceptions());
    measure("100k covered rules with ports", covered(100_000));
    measure("1M IPv4", flat(999_000, false));
    measure("1M IPv6", flat(999_000, true));
    measure("1.2M IPv4", flat(1_200_000, false));
}
