//! What OpenShift's `EgressNetworkPolicy` and OVN-Kubernetes' `EgressFirewall` have in common: a list of Allow and Deny rules, each for
//! one destination, of which the first that matches decides; what none matches passes.

use ipnet::IpNet;

use super::build::{rule, to_cidr, to_name, to_nodes, words};
use super::report::{Judgement, Outcome};
use crate::document::{Fields, Node, Report as Reader, Value};
use crate::name::NamePattern;
use crate::spec::{Action, EgressPort, EgressRule, LabelSelector};

/// The destination of a rule.
pub(super) enum To {
    Cidr(IpNet),
    Name(NamePattern),
    Nodes(LabelSelector),
    /// A name that rules of ours cannot have, and why.
    Unsayable {
        name: String,
        why: String,
    },
    /// A destination that matches nothing where it comes from, and why.
    Nothing {
        name: String,
        why: String,
    },
}

/// A rule of either kind.
pub(super) struct Ordered {
    pub(super) action: Action,
    pub(super) to: To,
    pub(super) ports: Option<Vec<EgressPort>>,
    /// What is known of it so far.
    pub(super) judgement: Judgement,
}

impl Ordered {
    /// The rule in words.
    pub(super) fn words(&self) -> String {
        let to = match &self.to {
            To::Cidr(cidr) => cidr.to_string(),
            To::Name(name) => name.to_string(),
            To::Nodes(selector) => format!("nodes ({selector})"),
            To::Unsayable { name, .. } | To::Nothing { name, .. } => name.clone(),
        };
        words(self.action, &to, self.ports.as_deref())
    }

    /// Our rule, and what is to be said of it. What cannot be said is left out, which a Deny rule makes wider.
    pub(super) fn convert(self) -> (Judgement, Option<EgressRule>) {
        let mut judgement = self.judgement;
        let peer = match self.to {
            To::Cidr(cidr) => to_cidr(cidr),
            To::Nodes(selector) => to_nodes(selector),
            To::Name(name) => {
                if self.action == Action::Deny {
                    judgement.add(Outcome::Exact, DENY_BY_NAME);
                }
                to_name(&name)
            }
            To::Unsayable { name, why } => {
                let outcome = if self.action == Action::Deny { Outcome::Wider } else { Outcome::Narrower };
                judgement.add(outcome, format!("{name:?} cannot be a dnsName here: {why}; the rule is left out"));
                return (judgement, None);
            }
            To::Nothing { why, .. } => {
                judgement.add(Outcome::NotExpressed, why);
                return (judgement, None);
            }
        };
        (judgement, Some(rule(self.action, peer, self.ports)))
    }
}

const DENY_BY_NAME: &str =
    "a Deny by name is open while no address of the name is known, there as here; deny by prefix and allow by name";

impl<'n> Reader<'n> {
    /// `type` of a rule.
    pub(super) fn allow_or_deny(&mut self, fields: Fields<'n>) -> Option<Action> {
        let actions = [("Allow", Action::Allow), ("Deny", Action::Deny)];
        self.required(fields, "type", "write type: Allow or type: Deny", |reader, node| reader.choice(node, &actions))
    }

    /// `dnsName`.
    pub(super) fn dns_destination(&mut self, node: &'n Node) -> Option<To> {
        let text = self.text(node)?;
        Some(match NamePattern::parse(text) {
            Ok(name) => To::Name(name),
            Err(error) => To::Unsayable { name: text.to_owned(), why: error.to_string() },
        })
    }

    /// Whether the field `name` says something; old servers write what is not meant as an empty text.
    pub(super) fn is_meant(fields: Fields<'n>, name: &str) -> bool {
        fields.get(name).is_some_and(|node| node.value != Value::Text(String::new()))
    }
}
