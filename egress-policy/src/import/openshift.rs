//! OpenShift's `EgressNetworkPolicy`, as OpenShift SDN enforced it. See docs/import/openshift.md.
//!
//! Field for field ours. What differs is what the node's agent did with odd objects: it read 0.0.0.0/32 as every address, took
//! cidrSelector where both destinations were set, dropped all traffic of a project with two objects, and ignored the project `default`.

use std::collections::BTreeMap;

use super::build::everything;
use super::draft::Draft;
use super::gather::Foreign;
use super::kind::{Api, Kind};
use super::ordered::{Ordered, To};
use super::report::{Judgement, Outcome, Place};
use super::{Import, policy_spec};
use crate::document::{Fields, Node, Report as Reader};
use crate::name::Wildcard;
use crate::spec::{Action, OPENSHIFT_API_VERSIONS};

pub(super) const KIND: Kind = Kind {
    name: "openshift",
    title: "OpenShift EgressNetworkPolicy",
    apis: &[Api { versions: &OPENSHIFT_API_VERSIONS, kind: "EgressNetworkPolicy", fields: &["spec"] }],
    convert,
    list: None,
};

type Rules = Vec<(Place, Ordered)>;

fn convert(objects: &[&Foreign<'_>], import: &mut Import<'_>) {
    let mut projects: BTreeMap<Option<&str>, Vec<&Foreign<'_>>> = BTreeMap::new();
    for object in objects {
        projects.entry(object.namespace.as_deref()).or_default().push(object);
    }
    for (project, objects) in projects {
        match objects.as_slice() {
            _ if project == Some("default") => ignored(&objects, import),
            [object] => one(object, import),
            _ => dropped(&objects, import),
        }
    }
}

fn one(object: &Foreign<'_>, import: &mut Import<'_>) {
    let Some(rules) = import.read(object, read) else { return };
    let mut draft = Draft::default();
    for (place, rule) in rules {
        let words = rule.words();
        let (judgement, rule) = rule.convert();
        draft.add(object, &place, words, judgement, rule);
    }
    import.policy(draft, object.namespace.as_deref(), &object.name, policy_spec());
}

/// The network of `default` is global, and the node's agent ignores objects there.
fn ignored(objects: &[&Foreign<'_>], import: &mut Import<'_>) {
    for object in objects {
        let why = "OpenShift ignores an EgressNetworkPolicy in the project default, whose network is global, so nothing is written; to \
                   enforce it, change its apiVersion to egress.rs/v1alpha1";
        if import.read(object, read).is_some() {
            import.row(object, &object.place(), "every rule", Judgement::of(Outcome::NotExpressed, why));
        }
    }
}

/// Several objects in a project: the node's agent drops everything.
fn dropped(objects: &[&Foreign<'_>], import: &mut Import<'_>) {
    let mut draft = Draft::default();
    for object in objects {
        // Their problems are told; what they say does not count.
        import.read(object, read);
        let why = format!(
            "OpenShift drops all traffic to outside of a project with several of these objects ({} here), and so does what is written; \
             keep one of them and import it again",
            objects.len()
        );
        let rules = draft.is_empty().then(|| everything(Action::Deny, None)).into_iter().flatten();
        draft.add(object, &object.place(), "every rule", Judgement::of(Outcome::Exact, why), rules);
    }
    if let Some(first) = objects.first() {
        import.policy(draft, first.namespace.as_deref(), &first.name, policy_spec());
    }
}

fn read<'n>(reader: &mut Reader<'n>, object: Fields<'n>) -> Option<Rules> {
    reader.required(object, "spec", "add a spec with the list egress", |reader, node| {
        let fields = reader.fields(node, &["egress"])?;
        reader.required(fields, "egress", "list the rules", |reader, node| reader.placed(node, openshift_rule))
    })
}

fn openshift_rule<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Ordered> {
    let fields = reader.fields(node, &["type", "to"])?;
    let action = reader.allow_or_deny(fields);
    let mut judgement = Judgement::exact();
    let to = reader.required(fields, "to", "add cidrSelector or dnsName", |reader, node| {
        destination(reader, node, &mut judgement)
    });
    let (action, to) = (action?, to?);
    if action == Action::Deny && matches!(&to, To::Cidr(cidr) if cidr.addr().is_ipv4() && cidr.prefix_len() == 0) {
        judgement.add(Outcome::Exact, "IPv4 only, as OpenShift's network; where pods have IPv6, add a Deny for ::/0");
    }
    Some(Ordered { action, to, ports: None, judgement })
}

fn destination<'n>(reader: &mut Reader<'n>, node: &'n Node, judgement: &mut Judgement) -> Option<To> {
    let fields = reader.fields(node, &["cidrSelector", "dnsName"])?;
    let is_meant = |name| Reader::is_meant(fields, name);
    match (is_meant("cidrSelector"), is_meant("dnsName")) {
        (true, both) => {
            if both {
                judgement.add(
                    Outcome::Exact,
                    "dnsName is left out: OpenShift's node looks only at cidrSelector where both are set",
                );
            }
            reader.optional(fields, "cidrSelector", |reader, node| {
                let cidr = reader.cidr(node)?;
                if cidr.addr().is_unspecified() && cidr.prefix_len() == 32 {
                    judgement.add(Outcome::Exact, "0.0.0.0/32 is written as 0.0.0.0/0, as OpenShift's node reads it");
                    return Some(To::Cidr(super::build::EVERYTHING[0]));
                }
                Some(To::Cidr(cidr))
            })
        }
        (false, true) => reader.optional(fields, "dnsName", |reader, node| {
            let to = reader.dns_destination(node)?;
            if let To::Name(name) = &to
                && name.wildcard != Wildcard::Exact
            {
                let why =
                    "OpenShift resolves no wildcards, so the rule matches nothing there and is left out".to_owned();
                return Some(To::Nothing { name: name.to_string(), why });
            }
            Some(to)
        }),
        (false, false) => {
            reader.problem("names no destination", "add cidrSelector or dnsName");
            None
        }
    }
}
