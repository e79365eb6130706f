//! OVN-Kubernetes' `EgressFirewall`. See docs/import/ovn.md.
//!
//! Rule for rule ours: the first that matches decides, what none matches passes, `*.` is one label. Only the object named default counts.

use super::build::ports;
use super::draft::Draft;
use super::gather::Foreign;
use super::kind::{Api, Kind};
use super::ordered::{Ordered, To};
use super::report::{Judgement, Outcome, Place};
use super::{Import, policy_spec};
use crate::document::{Fields, Node, Report as Reader};
use crate::spec::{EgressPort, Protocol};

pub(super) const KIND: Kind = Kind {
    name: "ovn",
    title: "OVN-Kubernetes EgressFirewall",
    apis: &[Api { versions: &["k8s.ovn.org/v1"], kind: "EgressFirewall", fields: &["spec"] }],
    convert,
    list: None,
};

const IGNORED: &str = "OVN-Kubernetes takes only the EgressFirewall that is named default, so this one says nothing there and nothing is written";

fn convert(objects: &[&Foreign<'_>], import: &mut Import<'_>) {
    for object in objects {
        let Some(rules) = import.read(object, read) else { continue };
        if object.name == "default" {
            firewall(object, rules, import);
        } else {
            import.row(object, &object.place(), "every rule", Judgement::of(Outcome::NotExpressed, IGNORED));
        }
    }
}

fn firewall(object: &Foreign<'_>, rules: Vec<(Place, Ordered)>, import: &mut Import<'_>) {
    let mut draft = Draft::default();
    for (place, rule) in rules {
        let words = rule.words();
        let (judgement, rule) = rule.convert();
        draft.add(object, &place, words, judgement, rule);
    }
    import.policy(draft, object.namespace.as_deref(), &object.name, policy_spec());
}

fn read<'n>(reader: &mut Reader<'n>, object: Fields<'n>) -> Option<Vec<(Place, Ordered)>> {
    reader.required(object, "spec", "add a spec with the list egress", |reader, node| {
        let fields = reader.fields(node, &["egress"])?;
        reader.required(fields, "egress", "list the rules", |reader, node| reader.placed(node, firewall_rule))
    })
}

fn firewall_rule<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Ordered> {
    let fields = reader.fields(node, &["type", "to", "ports"])?;
    let action = reader.allow_or_deny(fields);
    let to = reader.required(fields, "to", "add cidrSelector, dnsName or nodeSelector", destination);
    let ports =
        reader.optional(fields, "ports", |reader, node| reader.list(node, port)).filter(|ports| !ports.is_empty());
    Some(Ordered { action: action?, to: to?, ports, judgement: Judgement::exact() })
}

fn destination<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<To> {
    const DESTINATIONS: [&str; 3] = ["cidrSelector", "dnsName", "nodeSelector"];
    let fields = reader.fields(node, &DESTINATIONS)?;
    let meant: Vec<&str> = DESTINATIONS.into_iter().filter(|name| Reader::is_meant(fields, name)).collect();
    match meant.as_slice() {
        ["cidrSelector"] => reader.optional(fields, "cidrSelector", |reader, node| reader.cidr(node).map(To::Cidr)),
        ["dnsName"] => reader.optional(fields, "dnsName", |reader, node| {
            let to = reader.dns_destination(node)?;
            // Our own `**.` is no name there, and its API refuses it.
            if let To::Name(name) = &to
                && name.wildcard == crate::name::Wildcard::AnyDepth
            {
                reader.problem("** is not possible in an EgressFirewall", "write *. for one label");
                return None;
            }
            Some(to)
        }),
        ["nodeSelector"] => {
            reader.optional(fields, "nodeSelector", |reader, node| reader.selector(node).map(To::Nodes))
        }
        _ => {
            reader.problem(
                format!("names {} destinations", meant.len()),
                "write one of cidrSelector, dnsName, nodeSelector",
            );
            None
        }
    }
}

fn port<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<EgressPort> {
    let fields = reader.fields(node, &["protocol", "port"])?;
    let protocols = [("TCP", Protocol::TCP), ("UDP", Protocol::UDP), ("SCTP", Protocol::SCTP)];
    let protocol =
        reader.required(fields, "protocol", "write TCP, UDP or SCTP", |reader, node| reader.choice(node, &protocols));
    let port = reader.required(fields, "port", "write the port", |reader, node| reader.number(node, 1..=u16::MAX));
    port.zip(protocol).map(|(port, protocol)| ports(protocol, port, port))
}
