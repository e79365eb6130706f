//! From the values of an object to its policies.

use ipnet::IpNet;

use super::{Destinations, Groups, Policy, Rule, ports, selector};
use crate::document::{Fields, Node, Report as Reader, Value};
use crate::import::build::{EVERYTHING, to_cidr, to_cidr_except, to_name, words};
use crate::import::report::{INSIDE, Judgement, Outcome};
use crate::name::NamePattern;
use crate::spec::{Action, LabelSelector};

const ANY_DEPTH: &str =
    "there `**.` is one label or more since Cilium 1.19, and one before, as `*.`; here it is one or more";

/// `spec` of a `CiliumCIDRGroup`.
pub(super) fn group<'n>(reader: &mut Reader<'n>, object: Fields<'n>) -> Option<Vec<IpNet>> {
    reader.required(object, "spec", "add a spec with externalCIDRs", |reader, node| {
        let fields = reader.fields(node, &["externalCIDRs"])?;
        reader.required(fields, "externalCIDRs", "list the prefixes", |reader, node| reader.list(node, Reader::cidr))
    })
}

/// `spec` and every one of `specs`.
pub(super) fn policies<'n>(reader: &mut Reader<'n>, object: Fields<'n>, groups: &Groups) -> Vec<Policy> {
    if object.get("spec").is_none() && object.get("specs").is_none() {
        reader.problem_at("spec", "the field is required", "add a spec, or specs");
    }
    let mut policies: Vec<Policy> = Vec::new();
    policies.extend(reader.optional(object, "spec", |reader, node| policy(reader, node, groups)));
    let several =
        reader.optional(object, "specs", |reader, node| reader.list(node, |reader, node| policy(reader, node, groups)));
    policies.extend(several.into_iter().flatten());
    policies
}

fn policy<'n>(reader: &mut Reader<'n>, node: &'n Node, groups: &Groups) -> Option<Policy> {
    const FIELDS: [&str; 10] = [
        "endpointSelector",
        "nodeSelector",
        "ingress",
        "ingressDeny",
        "egress",
        "egressDeny",
        "enableDefaultDeny",
        "labels",
        "description",
        "log",
    ];
    let place = reader.here();
    let fields = reader.fields(node, &FIELDS)?;
    let is_host_policy = fields.get("nodeSelector").is_some();
    if is_host_policy == fields.get("endpointSelector").is_some() {
        reader.problem("exactly one of endpointSelector and nodeSelector must be there", "write endpointSelector");
    }
    let subject = if is_host_policy {
        reader.optional(fields, "nodeSelector", selector::nodes).map(|_| super::Subject::Nodes)
    } else {
        reader.optional(fields, "endpointSelector", selector::endpoints)
    };
    let of_ingress = ["ingress", "ingressDeny"].into_iter().find(|name| is_filled(fields, name));
    let ingress = of_ingress.map(|name| reader.within(name, |reader| reader.here()));
    let mut rules = Vec::new();
    for (name, deny) in [("egressDeny", true), ("egress", false)] {
        let some = reader.optional(fields, name, |reader, node| {
            reader.placed(node, |reader, node| rule(reader, node, deny, groups))
        });
        rules.extend(some.unwrap_or_default());
    }
    let by_default = is_filled(fields, "egress") || is_filled(fields, "egressDeny");
    let said = reader.optional(fields, "enableDefaultDeny", |reader, node| {
        let fields = reader.fields(node, &["ingress", "egress"])?;
        reader.optional(fields, "ingress", Reader::truth);
        reader.optional(fields, "egress", Reader::truth)
    });
    Some(Policy { place, subject: subject?, isolates: said.unwrap_or(by_default), ingress, rules })
}

/// Whether the list `name` has an item; an empty one has no effect.
fn is_filled(fields: Fields<'_>, name: &str) -> bool {
    fields.get(name).is_some_and(|node| !matches!(&node.value, Value::List(items) if items.is_empty()))
}

/// The destinations, of which one rule has one at most.
const DESTINATIONS: [&str; 8] =
    ["toEndpoints", "toCIDR", "toCIDRSet", "toEntities", "toServices", "toGroups", "toNodes", "toFQDNs"];

fn rule<'n>(reader: &mut Reader<'n>, node: &'n Node, deny: bool, groups: &Groups) -> Option<Rule> {
    // A name cannot be denied, and an authentication cannot be asked for what is denied.
    let known: Vec<&str> = DESTINATIONS
        .into_iter()
        .chain(["toPorts", "icmps", "authentication"])
        .filter(|name| !(deny && ["toFQDNs", "authentication"].contains(name)))
        .collect();
    let fields = reader.fields(node, &known)?;
    let there: Vec<&str> = DESTINATIONS.into_iter().filter(|name| fields.get(name).is_some()).collect();
    let mut judgement = Judgement::exact();
    let to = match there.as_slice() {
        // Without destination and ports a rule matches nothing: `egress: [{}]` is how all is refused there.
        [] if !is_filled(fields, "toPorts") && !is_filled(fields, "icmps") => {
            judgement.add(Outcome::Exact, "a rule without anything in it matches nothing there, and is left out");
            Some(Destinations::default())
        }
        [] => Some(Destinations { outside: EVERYTHING.map(to_cidr).to_vec(), nodes: vec![LabelSelector::default()] }),
        [name] => reader.optional(fields, name, |reader, node| {
            Reading { reader, deny, judgement: &mut judgement, groups }.destinations(name, node)
        }),
        names => {
            reader.problem(format!("{} cannot be in one rule", names.join(" and ")), "write a rule for each");
            None
        }
    };
    let mut of_ports = Judgement::exact();
    let ports = ports::read(reader, fields, deny, &mut of_ports);
    if fields.get("authentication").is_some() {
        of_ports.add(Outcome::Wider, "nobody is asked to authenticate here");
    }
    let to = to?;
    // What is said of ports counts only where there is a destination.
    if !(to.outside.is_empty() && to.nodes.is_empty()) {
        judgement.merge(of_ports);
    }
    let names = match there.as_slice() {
        [] if to.outside.is_empty() => "nothing".to_owned(),
        [] => "everything".to_owned(),
        _ => to.words(),
    };
    let action = if deny { Action::Deny } else { Action::Allow };
    let words = words(action, &names, ports.as_deref().filter(|ports| !ports.is_empty()));
    Some(Rule { deny, to, ports, judgement, words })
}

impl Destinations {
    fn words(&self) -> String {
        let peer = |peer: &crate::spec::EgressPeer| peer.cidr_selector.clone().or_else(|| peer.dns_name.clone());
        let mut words: Vec<String> = self.outside.iter().filter_map(peer).collect();
        words.extend((!self.nodes.is_empty()).then(|| "nodes".to_owned()));
        if words.is_empty() { "no destination outside".to_owned() } else { words.join(",") }
    }
}

/// What is known while the destinations of a rule are read.
struct Reading<'r, 'n> {
    reader: &'r mut Reader<'n>,
    deny: bool,
    judgement: &'r mut Judgement,
    groups: &'r Groups,
}

impl<'n> Reading<'_, 'n> {
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the methods are not general enough in their lifetimes"
    )]
    fn destinations(&mut self, name: &str, node: &'n Node) -> Option<Destinations> {
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            self.reader.problem("the list is empty, which versions of Cilium read differently", "remove the field");
        }
        match name {
            "toCIDR" => self.each(node, |reading, node| reading.address_or_prefix(node)),
            "toCIDRSet" => self.each(node, |reading, node| reading.cidr_set(node)),
            "toEntities" => self.entities(node),
            "toNodes" => self.each(node, |reading, node| reading.nodes(node)),
            "toFQDNs" => self.each(node, |reading, node| reading.name(node)),
            "toEndpoints" => self.each(node, |reading, node| {
                selector::endpoints(reading.reader, node)?;
                reading.judgement.add(Outcome::NotExpressed, INSIDE);
                Some(Destinations::default())
            }),
            _ => {
                self.leave_out(&format!("{name} asks for what only the cluster or the cloud knows"));
                Some(Destinations::default())
            }
        }
    }

    fn each(
        &mut self,
        node: &'n Node,
        mut decode: impl FnMut(&mut Reading<'_, 'n>, &'n Node) -> Option<Destinations>,
    ) -> Option<Destinations> {
        let (deny, groups) = (self.deny, self.groups);
        let judgement = &mut *self.judgement;
        let several = self.reader.list(node, |reader, node| {
            decode(&mut Reading { reader, deny, judgement: &mut *judgement, groups }, node)
        })?;
        let mut all = Destinations::default();
        for mut one in several {
            all.outside.append(&mut one.outside);
            all.nodes.append(&mut one.nodes);
        }
        Some(all)
    }

    /// Says that a destination is left out, which makes a Deny wider.
    fn leave_out(&mut self, why: &str) {
        let outcome = if self.deny { Outcome::Wider } else { Outcome::Narrower };
        self.judgement.add(outcome, format!("{why}; left out"));
    }

    /// An element of `toCIDR`, which may be an address.
    fn address_or_prefix(&mut self, node: &'n Node) -> Option<Destinations> {
        let is_address = matches!(&node.value, Value::Text(text) if text.parse::<std::net::IpAddr>().is_ok());
        let cidr = if is_address { self.reader.address(node).map(IpNet::from) } else { self.reader.cidr(node) }?;
        Some(Destinations { outside: vec![to_cidr(cidr)], nodes: Vec::new() })
    }

    fn cidr_set(&mut self, node: &'n Node) -> Option<Destinations> {
        let reader = &mut *self.reader;
        let fields = reader.fields(node, &["cidr", "cidrGroupRef", "cidrGroupSelector", "except"])?;
        let cidr = reader.optional(fields, "cidr", Reader::cidr);
        let group = reader.optional(fields, "cidrGroupRef", Reader::text);
        let by_labels = fields.get("cidrGroupSelector").is_some();
        let except = reader.optional(fields, "except", |reader, node| reader.except(node, cidr)).unwrap_or_default();
        let named = ["cidr", "cidrGroupRef", "cidrGroupSelector"].into_iter().filter(|name| fields.get(name).is_some());
        if named.count() != 1 {
            reader.problem("exactly one of cidr, cidrGroupRef and cidrGroupSelector must be there", "write cidr");
            return None;
        }
        if by_labels {
            self.leave_out("groups of prefixes are read only by name");
            return Some(Destinations::default());
        }
        let cidrs = match group {
            Some(group) => self.groups.get(group).cloned().unwrap_or_else(|| {
                self.leave_out(&format!("the CiliumCIDRGroup {group} is not in these files"));
                Vec::new()
            }),
            None => vec![cidr?],
        };
        let inside = |cidr: &IpNet| except.iter().copied().filter(|prefix| cidr.contains(prefix)).collect::<Vec<_>>();
        // An exception that covers a whole prefix of a group leaves nothing of it.
        let left = |cidr: &&IpNet| !except.iter().any(|prefix| prefix.contains(*cidr));
        let outside = cidrs.iter().filter(left).map(|cidr| to_cidr_except(*cidr, &inside(cidr))).collect();
        Some(Destinations { outside, nodes: Vec::new() })
    }

    fn nodes(&mut self, node: &'n Node) -> Option<Destinations> {
        let nodes = match selector::nodes(self.reader, node)? {
            Ok(selector) => vec![selector],
            Err(why) => {
                self.leave_out(&why);
                Vec::new()
            }
        };
        Some(Destinations { outside: Vec::new(), nodes })
    }

    fn name(&mut self, node: &'n Node) -> Option<Destinations> {
        let reader = &mut *self.reader;
        let fields = reader.fields(node, &["matchName", "matchPattern"])?;
        let exact = reader.optional(fields, "matchName", Reader::text);
        let pattern = reader.optional(fields, "matchPattern", Reader::text);
        let text = match (exact, pattern) {
            (Some(text), None) if !text.contains('*') => text,
            (None, Some(text)) => text,
            _ => {
                reader.problem("names no name, or two", "write matchName or matchPattern");
                return None;
            }
        };
        let outside = match NamePattern::parse(text.trim()) {
            Ok(name) => {
                if text.trim().starts_with("**.") {
                    self.judgement.add(Outcome::Wider, ANY_DEPTH);
                }
                vec![to_name(&name)]
            }
            Err(error) => {
                self.leave_out(&format!("{text:?} cannot be a dnsName here: {error}"));
                Vec::new()
            }
        };
        Some(Destinations { outside, nodes: Vec::new() })
    }

    fn entities(&mut self, node: &'n Node) -> Option<Destinations> {
        const ENTITIES: [&str; 13] = [
            "all",
            "world",
            "world-ipv4",
            "world-ipv6",
            "cluster",
            "host",
            "remote-node",
            "kube-apiserver",
            "ingress",
            "init",
            "health",
            "unmanaged",
            "none",
        ];
        let choices = ENTITIES.map(|entity| (entity, entity));
        let named = self.reader.list(node, |reader, node| reader.choice(node, &choices))?;
        let has = |names: &[&str]| named.iter().any(|name| names.contains(name));
        let mut to = Destinations::default();
        if has(&["all", "world", "world-ipv4"]) {
            to.outside.extend(EVERYTHING.first().copied().map(to_cidr));
        }
        if has(&["all", "world", "world-ipv6"]) {
            to.outside.extend(EVERYTHING.last().copied().map(to_cidr));
        }
        if has(&["all", "cluster"]) || (has(&["host"]) && has(&["remote-node"])) {
            to.nodes.push(LabelSelector::default());
        } else if has(&["host", "remote-node"]) && self.deny {
            let why = "every node is refused: a pod's own node and the others cannot be told apart here";
            self.judgement.add(Outcome::Narrower, why);
            to.nodes.push(LabelSelector::default());
        } else if has(&["host", "remote-node"]) {
            self.leave_out("a pod's own node and the others cannot be told apart here");
        }
        if has(&["kube-apiserver"]) && !has(&["all"]) {
            self.leave_out("the addresses of the API server are known only to the cluster");
        }
        if has(&["cluster", "ingress", "init", "health", "unmanaged", "none"]) {
            self.judgement.add(Outcome::NotExpressed, INSIDE);
        }
        Some(to)
    }
}
