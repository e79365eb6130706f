//! A `Sidecar`: which entries some pods see, and what becomes of other traffic.

use super::{Mode, mode};
use crate::document::{Fields, Node, Report as Reader};
use crate::import::report::{Judgement, Outcome, Place};
use crate::spec::LabelSelector;

const LISTENER: &str = "a listener with a port or an address of its own cannot be said here; its hosts are left out";

pub(super) struct Sidecar {
    pub(super) place: Place,
    /// Its pods; none means all of the namespace.
    pub(super) labels: Option<LabelSelector>,
    /// `namespace/host` of what is imported; none means everything.
    hosts: Option<Vec<(String, String)>>,
    pub(super) mode: Option<Mode>,
    /// What is to be said of listeners.
    pub(super) said: Vec<(Place, Judgement)>,
}

impl Sidecar {
    /// Whether `host` of an entry in namespace `from` is imported by a `Sidecar` of namespace `own`.
    pub(super) fn imports(&self, own: &str, from: &str, host: &str) -> bool {
        let is_from = |namespace: &str| match namespace {
            "*" => true,
            "." => from == own,
            name => name == from,
        };
        let is_inside = |wanted: &str| match wanted.strip_prefix('*') {
            Some("") => true,
            Some(parent) => host == wanted || host.strip_prefix('*').unwrap_or(host).ends_with(parent),
            None => host == wanted,
        };
        self.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(|(space, name)| is_from(space) && is_inside(name)))
    }
}

pub(super) fn read<'n>(reader: &mut Reader<'n>, object: Fields<'n>) -> Option<Sidecar> {
    const FIELDS: [&str; 5] =
        ["workloadSelector", "ingress", "egress", "inboundConnectionPool", "outboundTrafficPolicy"];
    reader.required(object, "spec", "add a spec; an empty one ({}) is valid", |reader, node| {
        let place = reader.here();
        let fields = reader.fields(node, &FIELDS)?;
        let labels = reader.optional(fields, "workloadSelector", |reader, node| {
            let fields = reader.fields(node, &["labels"])?;
            let match_labels = reader.optional(fields, "labels", Reader::labels).unwrap_or_default();
            Some(LabelSelector { match_labels, ..LabelSelector::default() })
        });
        let mut said = Vec::new();
        let listeners = reader.optional(fields, "egress", |reader, node| {
            reader.list(node, |reader, node| listener(reader, node, &mut said))
        });
        let listeners = listeners.filter(|listeners| !listeners.is_empty());
        let hosts = listeners.map(|listeners| listeners.into_iter().flatten().collect());
        let mode = reader.optional(fields, "outboundTrafficPolicy", mode);
        Some(Sidecar { place, labels, hosts, mode, said })
    })
}

fn listener<'n>(
    reader: &mut Reader<'n>,
    node: &'n Node,
    said: &mut Vec<(Place, Judgement)>,
) -> Option<Vec<(String, String)>> {
    let fields = reader.fields(node, &["port", "bind", "captureMode", "hosts"])?;
    let hosts = reader.required(fields, "hosts", "list the hosts", |reader, node| reader.list(node, host))?;
    if ["port", "bind", "captureMode"].iter().any(|name| fields.get(name).is_some()) {
        said.push((reader.here(), Judgement::of(Outcome::Narrower, LISTENER)));
        return Some(Vec::new());
    }
    Some(hosts)
}

fn host<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<(String, String)> {
    let text = reader.text(node)?;
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Some((namespace.to_owned(), name.to_owned()))
        }
        _ => {
            reader.problem(
                format!("{text:?} has no namespace"),
                "write namespace/host, such as ./* or */www.example.com",
            );
            None
        }
    }
}
