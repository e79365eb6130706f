//! Why a destination is allowed or denied: the rules in order, each with the reason why it does or does not decide.
//!
//! This walks the rule list itself and not the compiled table, one rule after the other, so it also shows what the table left out. Used
//! by the CLI; the tests hold it against the table.

use std::fmt;
use std::net::IpAddr;

use egress_common::table::Decision;
use ipnet::IpNet;
use serde::Serialize;

use crate::model::{Mode, Tier};
use crate::ports::{KeyRange, Ports, has_ports, protocol_name};
use crate::rules::{RankedPeer, RankedRule, RuleList};

/// What a rule has to do with the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Outcome {
    /// It matches and decides.
    Decides,
    /// It matches and sends the traffic past the rest of the Admin tier.
    Passes,
    /// It matches some of the ports that are possible, and decides for those.
    DecidesForSomePorts,
    /// It is of a policy under Audit and would decide if that were enforced.
    WouldDecide,
    /// It is of a policy under Audit and would pass if that were enforced.
    WouldPass,
    /// It is of a policy under Audit, matches, and an earlier rule of the audit verdict already decided.
    OnlyRecorded,
    /// A Pass rule before it skipped it.
    Skipped,
    /// The address is not one of its destinations.
    OtherAddress,
    /// The address is excepted from its destinations.
    Excepted,
    /// The protocol or port is not one of its own.
    OtherPort,
    /// It names a DNS name, and the address is not a known one of it.
    OtherName,
    /// It selects nodes, and none of them is known.
    NoNodeSelected,
}

/// A rule that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Considered {
    /// Its rank.
    pub rank: u32,
    /// "rule 3 of default/curl".
    pub origin: String,
    /// `Allow 1.2.3.0/24 TCP/443`.
    pub text: String,
    /// What it has to do with the verdict.
    pub outcome: Outcome,
    /// The outcome in words.
    pub reason: String,
}

/// The verdict about one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// It passes.
    Allow,
    /// It is refused.
    Deny,
    /// It depends on the port, and none was given.
    DependsOnPort,
}

/// The verdict and how it came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Destination, in its IPv4 form if it was IPv4-mapped.
    pub address: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Port, or ICMP type.
    pub port: Option<u16>,
    /// The verdict.
    pub verdict: Verdict,
    /// Rank of the deciding rule; none if the rule, or the verdict too, depends on the port. Then a packet whose port cannot be known is
    /// dropped (§3.6).
    pub rank: Option<u32>,
    /// Rank of the rule that gives the audit verdict, where that is reported: another action, or a rule of a policy under Audit.
    pub audit: Option<(Verdict, u32)>,
    /// Every rule up to the deciding one, and up to the one that gives the audit verdict.
    pub considered: Vec<Considered>,
}

/// Explains what `list` says about a destination that no DNS name is known for. Without a port every port is meant (for ICMP every
/// type).
pub fn explain(list: &RuleList, address: IpAddr, protocol: u8, port: Option<u16>) -> Explanation {
    explain_named(list, address, &[], protocol, port)
}

/// [`explain`] for an address that is a live answer for `names` (§3.3).
pub fn explain_named(
    list: &RuleList,
    address: IpAddr,
    names: &[String],
    protocol: u8,
    port: Option<u16>,
) -> Explanation {
    let address = address.to_canonical();
    let target = Target { address, names, protocol, port };
    let keys = match port {
        Some(port) => KeyRange::ports(protocol, port, port),
        None if has_ports(protocol) => KeyRange::protocol(protocol),
        None => KeyRange::ports(protocol, 0, 0),
    };
    let mut real = Evaluation::new(keys);
    let mut audit = Evaluation::new(keys);
    let mut considered = Vec::new();
    for (rule, rank) in list.rules.iter().zip(0..).filter(|(rule, _)| !rule.is_vacant()) {
        if real.is_done() && audit.is_done() {
            break;
        }
        let outcome = consider(rule, rank, &target, &mut real, &mut audit);
        considered.push(Considered {
            rank,
            origin: rule.origin.to_string(),
            text: rule.text(),
            outcome,
            reason: reason(rule, outcome, &target),
        });
    }
    let (verdict, rank) = real.verdict();
    let audit = audited(list, &real, &audit);
    Explanation { address, protocol, port, verdict, rank, audit, considered }
}

/// The two verdicts about a destination: whether it is denied, and the deciding rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    /// What is enforced; none if nothing decides.
    pub(crate) real: Option<(bool, u32)>,
    /// What would be if policies under Audit were enforced.
    pub(crate) audit: Option<(bool, u32)>,
}

/// [`explain`] without the explanation.
pub(crate) fn judge(list: &RuleList, address: IpAddr, protocol: u8, port: u16) -> Judged {
    let target = Target { address: address.to_canonical(), names: &[], protocol, port: Some(port) };
    let keys = KeyRange::ports(protocol, port, port);
    let (mut real, mut audit) = (Evaluation::new(keys), Evaluation::new(keys));
    for (rule, rank) in list.rules.iter().zip(0..).filter(|(rule, _)| !rule.is_vacant()) {
        if real.is_done() && audit.is_done() {
            break;
        }
        consider(rule, rank, &target, &mut real, &mut audit);
    }
    let verdict = |evaluation: &Evaluation| {
        let (verdict, rank) = evaluation.verdict();
        Some((verdict == Verdict::Deny, rank?))
    };
    Judged { real: verdict(&real), audit: verdict(&audit) }
}

/// What is asked for.
struct Target<'a> {
    address: IpAddr,
    names: &'a [String],
    protocol: u8,
    port: Option<u16>,
}

/// One of the two evaluations, over the keys that are not decided yet.
struct Evaluation {
    open: Vec<KeyRange>,
    /// The open keys for which a Pass rule ended the Admin tier.
    passed: Vec<KeyRange>,
    decided: Vec<(KeyRange, Decision)>,
}

/// What a rule did to an evaluation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// It had nothing left to match.
    None,
    Skipped,
    Passes,
    Decides,
}

impl Evaluation {
    fn new(keys: KeyRange) -> Self {
        Self { open: vec![keys], passed: Vec::new(), decided: Vec::new() }
    }

    fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    fn apply(&mut self, rule: &RankedRule, rank: u32) -> Effect {
        let matched = intersection(&self.open, rule.ports.ranges());
        if matched.is_empty() {
            return Effect::None;
        }
        let (skipped, matched) = if rule.tier == Tier::Admin {
            (intersection(&matched, &self.passed), difference(&matched, &self.passed))
        } else {
            (Vec::new(), matched)
        };
        if matched.is_empty() {
            return if skipped.is_empty() { Effect::None } else { Effect::Skipped };
        }
        match rule.decision(rank) {
            None => {
                self.passed.extend(matched);
                self.passed.sort_unstable();
                Effect::Passes
            }
            Some(decision) => {
                self.open = difference(&self.open, &matched);
                self.decided.extend(matched.into_iter().map(|keys| (keys, decision)));
                Effect::Decides
            }
        }
    }

    fn verdict(&self) -> (Verdict, Option<u32>) {
        let Some((_, first)) = self.decided.first() else {
            return (Verdict::DependsOnPort, None);
        };
        if self.decided.iter().all(|(_, decision)| decision == first) {
            (word(*first), Some(first.rank()))
        } else if self.decided.iter().all(|(_, decision)| decision.is_deny() == first.is_deny()) {
            (word(*first), None)
        } else {
            (Verdict::DependsOnPort, None)
        }
    }
}

const fn word(decision: Decision) -> Verdict {
    if decision.is_deny() { Verdict::Deny } else { Verdict::Allow }
}

/// Where the audit verdict is worth telling (§2.5).
fn audited(list: &RuleList, real: &Evaluation, audit: &Evaluation) -> Option<(Verdict, u32)> {
    let ((before, _), (after, rank)) = (real.verdict(), audit.verdict());
    let rule = list.rules.get(usize::try_from(rank?).ok()?)?;
    (before != after || rule.mode == Mode::Audit).then_some((after, rank?))
}

fn consider(
    rule: &RankedRule,
    rank: u32,
    target: &Target<'_>,
    real: &mut Evaluation,
    audit: &mut Evaluation,
) -> Outcome {
    if let Some(outcome) = misses(rule, target) {
        return outcome;
    }
    let all = real.open.clone();
    let in_audit = audit.apply(rule, rank);
    if rule.mode == Mode::Audit {
        return match in_audit {
            Effect::Decides => Outcome::WouldDecide,
            Effect::Passes => Outcome::WouldPass,
            Effect::Skipped => Outcome::Skipped,
            Effect::None if intersection(&all, rule.ports.ranges()).is_empty() => Outcome::OtherPort,
            Effect::None => Outcome::OnlyRecorded,
        };
    }
    match (real.apply(rule, rank), in_audit) {
        (Effect::Decides, _) if real.is_done() && real.decided.iter().all(|(_, decision)| decision.rank() == rank) => {
            Outcome::Decides
        }
        (Effect::Decides, _) => Outcome::DecidesForSomePorts,
        (Effect::Passes, _) => Outcome::Passes,
        (Effect::Skipped, _) | (Effect::None, Effect::Skipped) => Outcome::Skipped,
        (Effect::None, Effect::Decides) => Outcome::WouldDecide,
        (Effect::None, Effect::Passes) => Outcome::WouldPass,
        (Effect::None, Effect::None) => Outcome::OtherPort,
    }
}

/// Why the rule cannot match the address, if it cannot.
fn misses(rule: &RankedRule, target: &Target<'_>) -> Option<Outcome> {
    let holds = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&target.address));
    match &rule.peer {
        RankedPeer::DnsName(pattern) if target.names.iter().any(|name| pattern.matches(name)) => None,
        RankedPeer::DnsName(_) => Some(Outcome::OtherName),
        RankedPeer::Nodes { networks, .. } if networks.is_empty() => Some(Outcome::NoNodeSelected),
        RankedPeer::Any | RankedPeer::Networks(_) | RankedPeer::Cidr { .. } | RankedPeer::Nodes { .. } => {
            if !holds(rule.networks()) {
                Some(Outcome::OtherAddress)
            } else if holds(rule.except()) {
                Some(Outcome::Excepted)
            } else {
                None
            }
        }
    }
}

fn reason(rule: &RankedRule, outcome: Outcome, target: &Target<'_>) -> String {
    let Target { address, protocol, port, .. } = *target;
    let matched = || match &rule.ports {
        Ports::Any => found(rule, target),
        Ports::Listed(_) => {
            format!("{} and {} is in {}", found(rule, target), transport(protocol, port), rule.ports)
        }
    };
    match outcome {
        Outcome::Decides => matched(),
        Outcome::DecidesForSomePorts => {
            format!("{}, for {} as far as earlier rules left it", found(rule, target), rule.ports.words())
        }
        Outcome::Passes => format!("{}, so the rest of the Admin tier is skipped", matched()),
        Outcome::WouldDecide if rule.mode == Mode::Audit => format!("{}, but the policy is under Audit", matched()),
        Outcome::WouldDecide => format!("{}, and it would decide if the policies under Audit were enforced", matched()),
        Outcome::WouldPass if rule.mode == Mode::Audit => {
            format!("{}, but the policy is under Audit, so nothing is skipped", matched())
        }
        Outcome::WouldPass => format!("{}, and it would pass if the policies under Audit were enforced", matched()),
        Outcome::OnlyRecorded => "an earlier rule already gives the audit verdict".to_owned(),
        Outcome::Skipped => "a Pass rule before it skips the rest of the Admin tier".to_owned(),
        Outcome::OtherAddress => format!("{address} is not in {}", rule.peer),
        Outcome::Excepted => format!("{address} is in {}, which is excepted", holding(rule.except(), address)),
        Outcome::OtherPort => format!("{} is not in {}", transport(protocol, port), rule.ports.words()),
        Outcome::OtherName => format!("{address} is not known as an address of {}", rule.peer),
        Outcome::NoNodeSelected => "no known node has the labels that it selects".to_owned(),
    }
}

/// Where the rule finds the address.
fn found(rule: &RankedRule, target: &Target<'_>) -> String {
    let address = target.address;
    match &rule.peer {
        RankedPeer::Any => "it matches everything".to_owned(),
        RankedPeer::Networks(_) | RankedPeer::Cidr { .. } | RankedPeer::Nodes { .. } => {
            format!("{address} is in {}", holding(rule.networks(), address))
        }
        RankedPeer::DnsName(pattern) => {
            let names = target.names.iter().filter(|name| pattern.matches(name));
            let names: Vec<&str> = names.map(String::as_str).collect();
            format!("{address} is an address of {}", names.join(", "))
        }
    }
}

/// The longest of the prefixes that hold the address.
fn holding(networks: &[IpNet], address: IpAddr) -> String {
    let holding =
        networks.iter().filter(|network| network.contains(&address)).max_by_key(|network| network.prefix_len());
    holding.map(ToString::to_string).unwrap_or_default()
}

/// `TCP/443`.
fn transport(protocol: u8, port: Option<u16>) -> String {
    match port {
        Some(port) if has_ports(protocol) => KeyRange::ports(protocol, port, port).to_string(),
        _ => protocol_name(protocol),
    }
}

fn intersection(a: &[KeyRange], b: &[KeyRange]) -> Vec<KeyRange> {
    let pairs = a
        .iter()
        .flat_map(|x| b.iter().map(move |y| KeyRange { first: x.first.max(y.first), last: x.last.min(y.last) }));
    pairs.filter(|range| range.first <= range.last).collect()
}

fn difference(a: &[KeyRange], b: &[KeyRange]) -> Vec<KeyRange> {
    let mut rest = a.to_vec();
    for hole in b {
        rest = rest.into_iter().flat_map(|range| without(range, *hole)).collect();
    }
    rest
}

fn without(range: KeyRange, hole: KeyRange) -> impl Iterator<Item = KeyRange> {
    let before =
        (range.first < hole.first).then(|| KeyRange { first: range.first, last: range.last.min(hole.first - 1) });
    let after = (range.last > hole.last).then(|| KeyRange { first: range.first.max(hole.last + 1), last: range.last });
    before.into_iter().chain(after)
}

impl Explanation {
    /// The rule of the verdict.
    fn decider(&self) -> Option<&Considered> {
        self.considered.iter().find(|considered| Some(considered.rank) == self.rank)
    }

    /// `1.2.3.4:443/TCP`, `[2001:db8::1]:443/TCP`, `1.2.3.4 ICMP`.
    fn destination(&self) -> String {
        let name = protocol_name(self.protocol);
        match (self.address, self.port) {
            (_, Some(kind)) if is_icmp(self.protocol) => format!("{} {name} type {kind}", self.address),
            (IpAddr::V4(address), Some(port)) if has_ports(self.protocol) => format!("{address}:{port}/{name}"),
            (IpAddr::V6(address), Some(port)) if has_ports(self.protocol) => format!("[{address}]:{port}/{name}"),
            (address, _) => format!("{address} {name}"),
        }
    }
}

const fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, egress_common::packet::protocol::ICMP | egress_common::packet::protocol::ICMPV6)
}

/// "rule 3 of default/curl allows 1.2.3.4:443/TCP because …", then the rules before it, one per line.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let destination = self.destination();
        match (self.decider(), self.verdict) {
            (Some(rule), Verdict::Deny) => writeln!(f, "{} denies {destination} because {}", rule.origin, rule.reason)?,
            (Some(rule), _) => writeln!(f, "{} allows {destination} because {}", rule.origin, rule.reason)?,
            (None, Verdict::Allow) => writeln!(f, "several rules allow {destination}, which one depends on the port")?,
            (None, Verdict::Deny) => writeln!(f, "several rules deny {destination}, which one depends on the port")?,
            (None, Verdict::DependsOnPort) => writeln!(f, "whether {destination} is allowed depends on the port")?,
        }
        if let Some((verdict, rank)) = self.audit
            && let Some(rule) = self.considered.iter().find(|considered| considered.rank == rank)
        {
            let word = if verdict == Verdict::Deny { "denied" } else { "allowed" };
            writeln!(f, "with the policies under Audit enforced it would be {word} by {}", rule.origin)?;
        }
        for considered in &self.considered {
            let word = match considered.outcome {
                Outcome::Decides => "decides",
                Outcome::Passes => "passes",
                Outcome::DecidesForSomePorts => "decides for some ports",
                Outcome::WouldDecide => "would decide",
                Outcome::WouldPass => "would pass",
                Outcome::OnlyRecorded | Outcome::Skipped => "is skipped",
                Outcome::OtherAddress
                | Outcome::Excepted
                | Outcome::OtherPort
                | Outcome::OtherName
                | Outcome::NoNodeSelected => "does not match",
            };
            writeln!(f, "  {} ({}) {word}: {}", considered.origin, considered.text, considered.reason)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
