//! One egress rule: destinations, exceptions, ports.

use ipnet::IpNet;

use crate::document::{Fields, Node, Report as Reader, Value};
use crate::import::build::{EVERYTHING, ports as port_range, protocol, rule, to_cidr_except, words};
use crate::import::report::{Judgement, NAMED_PORT, Outcome};
use crate::spec::{Action, EgressPort, EgressRule, Protocol};

const PASS: &str = "a Pass ends at the profile of the namespace, which lets out; written as Allow";

/// What the rule says of a packet that it matches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    Allow,
    Deny,
    Pass,
    /// Nothing.
    Log,
}

pub(super) struct Rule {
    says: Says,
    to: Vec<(IpNet, Vec<IpNet>)>,
    /// None means any.
    ports: Option<Vec<EgressPort>>,
    judgement: Judgement,
    /// Why the rule is left out, if it is.
    left_out: Option<String>,
}

impl Rule {
    pub(super) fn convert(self) -> (String, Judgement, Vec<EgressRule>) {
        let mut judgement = self.judgement;
        let action = if self.says == Says::Deny { Action::Deny } else { Action::Allow };
        let to: Vec<String> = self.to.iter().map(|(cidr, _)| cidr.to_string()).collect();
        let of_ports = self.ports.as_deref().filter(|ports| !ports.is_empty());
        let to = if to.is_empty() { "nothing".to_owned() } else { to.join(",") };
        let said = words(action, &to, of_ports);
        if self.says == Says::Log {
            judgement.add(Outcome::NotExpressed, "logging is no verdict; a policy under mode Audit records");
            return ("Log".to_owned(), judgement, Vec::new());
        }
        if let Some(why) = self.left_out {
            let outcome = if self.says == Says::Deny { Outcome::Wider } else { Outcome::Narrower };
            judgement.add(outcome, format!("{why}; the rule is left out"));
            return (said, judgement, Vec::new());
        }
        if self.says == Says::Pass {
            judgement.add(Outcome::Exact, PASS);
        }
        if self.ports.as_ref().is_some_and(Vec::is_empty) {
            return (said, judgement, Vec::new());
        }
        let peers = self.to.iter().map(|(cidr, except)| to_cidr_except(*cidr, except));
        let rules = peers.map(|peer| rule(action, peer, self.ports.clone())).collect();
        (said, judgement, rules)
    }
}

pub(super) fn read<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Rule> {
    const FIELDS: [&str; 10] = [
        "action",
        "ipVersion",
        "protocol",
        "notProtocol",
        "icmp",
        "notICMP",
        "source",
        "destination",
        "http",
        "metadata",
    ];
    let fields = reader.fields(node, &FIELDS)?;
    let actions = [("Allow", Says::Allow), ("Deny", Says::Deny), ("Pass", Says::Pass), ("Log", Says::Log)];
    let says = reader
        .required(fields, "action", "write Allow, Deny, Pass or Log", |reader, node| reader.choice(node, &actions));
    let family = reader.optional(fields, "ipVersion", |reader, node| reader.number(node, 4..=6));
    let named = reader.optional(fields, "protocol", transport);
    let mut rule = Rule { says: says?, to: Vec::new(), ports: None, judgement: Judgement::exact(), left_out: None };
    for name in ["notProtocol", "notICMP", "http"].into_iter().filter(|name| fields.get(name).is_some()) {
        rule.left_out = Some(format!("{name} cannot be said here"));
    }
    let is_empty = |node: &Node| matches!(&node.value, Value::Map(entries) if entries.is_empty());
    if fields.get("source").is_some_and(|node| !is_empty(node)) {
        rule.left_out = Some("a rule is for all pods of its policy here, whatever source says".to_owned());
    }
    match named {
        Some(Some(of)) => rule.ports = Some(vec![protocol(of)]),
        Some(None) => rule.left_out = Some("a protocol by number cannot be named here".to_owned()),
        None => {}
    }
    icmp(fields, &mut rule);
    let mut to = To::default();
    reader
        .optional(fields, "destination", |reader, node| destination(reader, node, named.flatten(), &mut to, &mut rule));
    let is_of_family = |cidr: &IpNet| family.is_none_or(|family| cidr.addr().is_ipv4() == (family == 4));
    let nets = to.nets.unwrap_or_else(|| EVERYTHING.to_vec());
    let left = nets.into_iter().filter(is_of_family).filter(|cidr| !to.not.iter().any(|not| not.contains(cidr)));
    rule.to = left.map(|cidr| (cidr, to.not.iter().copied().filter(|not| cidr.contains(not)).collect())).collect();
    Some(rule)
}

/// Single types cannot be named: a Deny becomes one of all types.
fn icmp(fields: Fields<'_>, rule: &mut Rule) {
    if fields.get("icmp").is_none() {
        return;
    }
    if rule.says == Says::Deny {
        rule.judgement.add(Outcome::Narrower, "every ICMP type is refused here, since rules name no types");
    } else {
        rule.left_out = Some("single ICMP types cannot be named here".to_owned());
    }
}

#[derive(Default)]
struct To {
    nets: Option<Vec<IpNet>>,
    not: Vec<IpNet>,
}

fn destination<'n>(
    reader: &mut Reader<'n>,
    node: &'n Node,
    of: Option<Protocol>,
    to: &mut To,
    rule: &mut Rule,
) -> Option<()> {
    const SELECTING: [&str; 5] = ["selector", "notSelector", "namespaceSelector", "serviceAccounts", "services"];
    let known: Vec<&str> = ["nets", "notNets", "ports", "notPorts"].into_iter().chain(SELECTING).collect();
    let fields = reader.fields(node, &known)?;
    to.nets =
        reader.optional(fields, "nets", |reader, node| reader.list(node, Reader::cidr)).filter(|nets| !nets.is_empty());
    to.not = reader.optional(fields, "notNets", |reader, node| reader.list(node, Reader::cidr)).unwrap_or_default();
    let is_meant = |name: &&str| fields.get(name).is_some_and(|node| node.value != Value::Text(String::new()));
    if let Some(name) = SELECTING.into_iter().find(|name| is_meant(name)) {
        rule.left_out = Some(format!("which pods, network sets or services {name} means is known only to the cluster"));
    }
    let ports = reader.optional(fields, "ports", |reader, node| reader.list(node, range)).filter(|all| !all.is_empty());
    let not =
        reader.optional(fields, "notPorts", |reader, node| reader.list(node, range)).filter(|all| !all.is_empty());
    if ports.is_none() && not.is_none() {
        return Some(());
    }
    let Some(of) = of.filter(|of| matches!(of, Protocol::TCP | Protocol::UDP | Protocol::SCTP)) else {
        reader.problem("ports need a protocol that has them", "write protocol: TCP, UDP or SCTP");
        return None;
    };
    let all = ports.iter().chain(&not).flatten();
    if all.clone().any(Option::is_none) {
        rule.judgement.add(Outcome::NotExpressed, NAMED_PORT);
    }
    let mut is_in = vec![ports.is_none(); 65536];
    for (first, last) in ports.iter().flatten().flatten() {
        is_in.iter_mut().take(usize::from(*last) + 1).skip(usize::from(*first)).for_each(|port| *port = true);
    }
    for (first, last) in not.iter().flatten().flatten() {
        is_in.iter_mut().take(usize::from(*last) + 1).skip(usize::from(*first)).for_each(|port| *port = false);
    }
    rule.ports = Some(ranges(&is_in).into_iter().map(|(first, last)| port_range(of, first, last)).collect());
    Some(())
}

/// The ranges of the ports that are in; port 0 is none that a packet has.
fn ranges(is_in: &[bool]) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for (port, _) in (0..=u16::MAX).zip(is_in).skip(1).filter(|(_, is_in)| **is_in) {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
            _ => ranges.push((port, port)),
        }
    }
    ranges
}

/// First and last port; none is a port name.
type Range = Option<(u16, u16)>;

/// A port or a range of ports.
fn range<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Range> {
    if let Value::Number(_) = &node.value {
        return reader.number(node, 1..=u16::MAX).map(|port| Some((port, port)));
    }
    let text = reader.text(node)?;
    if let Ok(port) = text.parse::<u16>() {
        return Some(Some((port, port)));
    }
    if let Some((first, last)) = text.split_once(':') {
        return match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) if first <= last => Some(Some((first, last))),
            _ => {
                reader.problem(format!("{text:?} is no range of ports"), "write first:last");
                None
            }
        };
    }
    Some(None)
}

/// A protocol; none is one that rules of ours cannot name.
type Transport = Option<Protocol>;

fn transport<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Transport> {
    let text = if let Value::Number(text) = &node.value { text } else { reader.text(node)? };
    Some(match text.to_ascii_lowercase().as_str() {
        "tcp" | "6" => Some(Protocol::TCP),
        "udp" | "17" => Some(Protocol::UDP),
        "sctp" | "132" => Some(Protocol::SCTP),
        "icmp" | "1" => Some(Protocol::ICMP),
        "icmpv6" | "58" => Some(Protocol::ICMPv6),
        _ => None,
    })
}
