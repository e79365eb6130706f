//! `toPorts` and `icmps`: what of them rules of ours can say.

use crate::document::{Fields, Node, Report as Reader, Value};
use crate::import::build::{ports as port_range, protocol};
use crate::import::report::{Judgement, NAMED_PORT, Outcome};
use crate::spec::{EgressPort, Protocol};

const LAYER_7: &str = "requests are not looked into here, so what the rules of layer 7 and TLS names refuse passes";
const LISTENER: &str = "the traffic is handed to a listener there, which may refuse it; here it passes";
const TLS: &str = "TLS is not opened and not made here";

/// The ports of a rule; none means any.
pub(super) fn read<'n>(
    reader: &mut Reader<'n>,
    fields: Fields<'n>,
    deny: bool,
    judgement: &mut Judgement,
) -> Option<Vec<EgressPort>> {
    let ports = reader.optional(fields, "toPorts", |reader, node| {
        let rules = reader.list(node, |reader, node| port_rule(reader, node, deny, judgement))?;
        (!rules.is_empty()).then(|| rules.into_iter().flatten().collect::<Vec<_>>())
    });
    let icmps = reader.optional(fields, "icmps", |reader, node| {
        let rules = reader.list(node, icmp_rule)?;
        (!rules.is_empty()).then(|| rules.into_iter().flatten().collect::<Vec<_>>())
    });
    if ports.is_some() && icmps.is_some() {
        reader.problem_at("icmps", "toPorts and icmps cannot be in one rule", "write a rule for each");
    }
    let Some(families) = icmps else { return ports };
    if deny {
        judgement.add(Outcome::Narrower, "every ICMP type is refused here, since rules name no types");
        return Some(families.into_iter().map(protocol).collect());
    }
    judgement.add(Outcome::Narrower, "single ICMP types cannot be named here, so they are left out");
    Some(Vec::new())
}

fn port_rule<'n>(
    reader: &mut Reader<'n>,
    node: &'n Node,
    deny: bool,
    judgement: &mut Judgement,
) -> Option<Vec<EgressPort>> {
    const ALLOW: &[&str] = &["ports", "rules", "serverNames", "terminatingTLS", "originatingTLS", "listener"];
    let fields = reader.fields(node, if deny { &["ports"] } else { ALLOW })?;
    for name in fields.keys() {
        match name {
            "rules" | "serverNames" => judgement.add(Outcome::Wider, LAYER_7),
            "listener" => judgement.add(Outcome::Wider, LISTENER),
            "terminatingTLS" | "originatingTLS" => judgement.add(Outcome::NotExpressed, TLS),
            _ => {}
        }
    }
    let ports = reader.required(fields, "ports", "list the ports", |reader, node| {
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            reader.problem("the list is empty, which versions of Cilium read differently", "list the ports");
        }
        reader.list(node, port)
    })?;
    if ports.iter().any(Option::is_none) {
        judgement.add(Outcome::NotExpressed, NAMED_PORT);
    }
    Some(ports.into_iter().flatten().flatten().collect())
}

/// A port for each of its protocols; `None` stands for a port name.
type Ports = Option<Vec<EgressPort>>;

fn port<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Ports> {
    let fields = reader.fields(node, &["port", "endPort", "protocol"])?;
    let of =
        if fields.get("protocol").is_some() { reader.optional(fields, "protocol", protocols) } else { Some(&ANY[..]) };
    let first = reader.required(fields, "port", "write the port, in quotes", |reader, node| {
        let text = reader.text(node)?;
        let is_name = text.chars().any(|letter| letter.is_ascii_alphabetic())
            && text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
        match text.parse::<u16>() {
            Ok(number) => Some(Some(number)),
            Err(_) if is_name => Some(None),
            Err(_) => {
                reader.problem(format!("{text:?} is neither a port nor a port name"), "write a number, in quotes");
                None
            }
        }
    });
    let last = reader.optional(fields, "endPort", |reader, node| reader.number(node, 0..=u16::MAX));
    let (of, Some(first)) = (of?, first?) else { return Some(None) };
    let last = last.filter(|last| *last > 0).unwrap_or(first);
    if last < first || (first == 0 && last > 0) {
        reader.problem_at("endPort", format!("{first} to {last} is no range of ports"), "correct the range");
        return None;
    }
    // Port 0 is every port.
    let one = |of: &Protocol| if first == 0 { protocol(*of) } else { port_range(*of, first, last) };
    Some(Some(of.iter().map(one).collect()))
}

/// What ANY stands for beside a port.
const ANY: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];

fn protocols<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<&'static [Protocol]> {
    let text = reader.text(node)?;
    match text.to_ascii_uppercase().as_str() {
        "" | "ANY" => Some(&ANY),
        "TCP" => Some(&[Protocol::TCP]),
        "UDP" => Some(&[Protocol::UDP]),
        "SCTP" => Some(&[Protocol::SCTP]),
        _ => {
            reader.problem(format!("{text:?} is no protocol with ports"), "write TCP, UDP, SCTP or ANY");
            None
        }
    }
}

fn icmp_rule<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Vec<Protocol>> {
    let fields = reader.fields(node, &["fields"])?;
    reader.required(fields, "fields", "list the types", |reader, node| reader.list(node, icmp_type))
}

fn icmp_type<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Protocol> {
    let fields = reader.fields(node, &["type", "family"])?;
    reader.required(fields, "type", "write the type", |reader, node| {
        if let Value::Text(text) = &node.value
            && !text.is_empty()
        {
            return Some(());
        }
        reader.number(node, 0..=255).map(|_| ())
    });
    let families = [("IPv4", Protocol::ICMP), ("IPv6", Protocol::ICMPv6)];
    let family = reader.optional(fields, "family", |reader, node| reader.choice(node, &families));
    if fields.get("family").is_some() { family } else { Some(Protocol::ICMP) }
}
