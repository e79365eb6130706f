//! Finds each endpoint on this machine: its network namespace's cookie, its interface on the host's side, its cgroup.
//!
//! Whatever is missing is a problem of that endpoint alone, and is looked for again when links change and from time to time.
//! Invariant: nothing found here covers the machine itself (its own network namespace, the root cgroup). Called by
//! [`reconcile`](crate::reconcile).

pub(crate) mod cgroup;
pub(crate) mod kubepods;
pub(crate) mod links;
mod netlink;
mod netns;
pub(crate) mod pod_watch;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use crate::sources::{Endpoint, NetnsRef, Problem};

use cgroup::CgroupError;
use netlink::{Link, Netlink};
use netns::{Namespace, NetnsError};

/// Name that container runtimes give a pod's first interface.
const POD_INTERFACE: &str = "eth0";

/// What an endpoint is known by, as far as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Located {
    /// Name and index of the host-side interface.
    pub(crate) interface: Option<(String, u32)>,
    /// Cookie of the network namespace.
    pub(crate) netns: Option<u64>,
    pub(crate) cgroup: Option<cgroup::Found>,
}

impl Located {
    /// Whether there is anything that a packet or a call could be recognised by.
    pub(crate) fn is_known(&self) -> bool {
        self.interface.is_some() || self.netns.is_some() || self.cgroup.is_some()
    }
}

/// Where every endpoint is.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// By endpoint key.
    pub(crate) located: HashMap<String, Located>,
    pub(crate) problems: Vec<Problem>,
    /// Whether something is missing that may come.
    pub(crate) incomplete: bool,
}

/// What pods are known by before anything else is known of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewPods {
    /// The cgroup that all of them are in.
    pub(crate) cgroup: cgroup::Found,
    /// Cookie of the host's network namespace.
    pub(crate) host: u64,
    /// Cgroups of pods in the host's network: what namespaces these make is their business.
    pub(crate) exempt: Vec<cgroup::Found>,
}

/// Looks for endpoints.
#[derive(Debug)]
pub(crate) struct Discovery {
    cgroup_root: PathBuf,
    own_cookie: u64,
    /// The links of the agent's own namespace, as they were when the survey began.
    own: Option<(Vec<Link>, Netlink)>,
    last: HashMap<String, Located>,
}

impl Discovery {
    /// Must be called on a thread in the agent's network namespace.
    pub(crate) fn new(cgroup_root: PathBuf) -> io::Result<Self> {
        Ok(Self { cgroup_root, own_cookie: netns::cookie()?, own: None, last: HashMap::new() })
    }

    /// What new pods are known by, where `kubepods` is the cgroup of all pods.
    pub(crate) fn new_pods(&self, kubepods: Option<&Path>, exempt: &[PathBuf]) -> Option<NewPods> {
        let find = |path: &Path| cgroup::find(path, &self.cgroup_root).ok();
        let exempt = exempt.iter().filter_map(|path| find(path)).collect();
        Some(NewPods { cgroup: find(kubepods?)?, host: self.own_cookie, exempt })
    }

    /// Looks for every endpoint. `cover_host_network`: whether pods in the host's network are covered too (§1.5).
    pub(crate) fn survey(&mut self, endpoints: &[Endpoint], cover_host_network: bool) -> Survey {
        let own = Netlink::open().and_then(|netlink| Ok((netlink.links()?, netlink)));
        self.own = own.inspect_err(|error| tracing::warn!(%error, "the links of this machine cannot be read")).ok();
        let mut survey = Survey::default();
        for endpoint in endpoints {
            let key = endpoint.key();
            let mut search = Search {
                endpoint,
                before: self.last.get(&key),
                discovery: self,
                found: Located::default(),
                problems: Vec::new(),
                incomplete: false,
            };
            search.run(cover_host_network);
            let Search { found, problems, incomplete, .. } = search;
            survey.problems.extend(problems);
            survey.incomplete |= incomplete;
            survey.located.insert(key, found);
        }
        survey.refuse_shared(endpoints);
        self.last.clone_from(&survey.located);
        survey
    }
}

impl Survey {
    /// Two endpoints cannot be told apart by one thing: the first one in the file keeps it.
    fn refuse_shared(&mut self, endpoints: &[Endpoint]) {
        let mut owners: HashMap<(&'static str, u64), String> = HashMap::new();
        for key in endpoints.iter().map(Endpoint::key) {
            let Some(located) = self.located.get_mut(&key) else {
                continue;
            };
            let problems = &mut self.problems;
            let mut shared = |what: &'static str, id: Option<u64>| {
                let Some(id) = id else { return false };
                let owner = owners.entry((what, id)).or_insert_with(|| key.clone());
                let shared = *owner != key;
                if shared {
                    let message = format!("has the same {what} as {owner}, which keeps it");
                    problems
                        .push(problem(&key, message).hint("each endpoint needs its own; correct the endpoints file"));
                }
                shared
            };
            if shared("interface", located.interface.as_ref().map(|&(_, index)| u64::from(index))) {
                located.interface = None;
            }
            if shared("network namespace", located.netns) {
                located.netns = None;
            }
            if shared("cgroup", located.cgroup.as_ref().map(|found| found.id)) {
                located.cgroup = None;
            }
        }
    }
}

fn problem(key: &str, message: impl Into<String>) -> Problem {
    Problem::new("discovery", message).of(key)
}

/// The search for one endpoint.
struct Search<'a> {
    endpoint: &'a Endpoint,
    before: Option<&'a Located>,
    discovery: &'a Discovery,
    found: Located,
    problems: Vec<Problem>,
    incomplete: bool,
}

impl Search<'_> {
    fn run(&mut self, cover_host_network: bool) {
        self.find_cgroup();
        let namespace = self.endpoint.netns.as_ref().and_then(|netns| self.look_into(netns));
        let in_host_network = namespace.as_ref().is_some_and(|found| found.cookie == self.discovery.own_cookie);
        let endpoint = self.endpoint;
        if in_host_network || (endpoint.netns.is_none() && endpoint.interface.is_none()) {
            // A pod of which nothing is known yet may be the API server itself.
            self.host_network(cover_host_network && !endpoint.held);
            return;
        }
        if let Some(namespace) = &namespace {
            self.found.netns = Some(namespace.cookie);
        }
        match (&endpoint.interface, &namespace) {
            (Some(name), _) => self.find_interface(name),
            (None, Some(namespace)) => self.find_peer(namespace),
            (None, None) => {}
        }
        if self.found.interface.is_none() && self.found.cgroup.is_none() && self.found.netns.is_some() {
            self.report(
                "has neither a host-side interface nor a cgroup: socket calls are judged, but raw packets pass unjudged",
                "name its `interface` or its `cgroup`",
            );
        }
    }

    fn report(&mut self, message: impl Into<String>, hint: &str) {
        // What is not known yet has no owner to tell.
        if self.endpoint.held {
            return;
        }
        self.problems.push(problem(&self.endpoint.key(), message).hint(hint));
    }

    /// Only a cgroup can tell such a pod from the rest of the machine.
    fn host_network(&mut self, cover: bool) {
        if !cover {
            self.found = Located::default();
            self.report(
                "is in the host's network and not covered (hostNetworkPods: Ignore)",
                "set hostNetworkPods: Enforce in the EgressConfig, or name its netns or interface if it has its own",
            );
        } else if self.endpoint.cgroup.is_none() {
            self.report("is in the host's network and cannot be recognised", "name its `cgroup`");
        }
    }

    fn find_cgroup(&mut self) {
        let Some(given) = &self.endpoint.cgroup else { return };
        match cgroup::find(given, &self.discovery.cgroup_root) {
            Ok(found) => self.found.cgroup = Some(found),
            Err(error) => {
                self.incomplete |= error.may_pass();
                self.report(error.to_string(), "the agent looks again from time to time");
                if let (CgroupError::Failed { .. }, Some(before)) = (&error, self.before) {
                    self.found.cgroup.clone_from(&before.cgroup);
                }
            }
        }
    }

    fn look_into(&mut self, netns: &NetnsRef) -> Option<Namespace> {
        match netns::look(&netns.path()) {
            Ok(namespace) => Some(namespace),
            Err(error) => {
                self.incomplete = true;
                self.report(error.to_string(), "the agent looks again when links change and from time to time");
                // Not being able to look is no sign that the pod is gone.
                if let (NetnsError::Failed { .. }, Some(before)) = (&error, self.before) {
                    self.found.netns = before.netns;
                    self.found.interface.clone_from(&before.interface);
                }
                None
            }
        }
    }

    fn find_interface(&mut self, name: &str) {
        self.found.interface = match if_nametoindex(name) {
            Ok(index) => Some((name.to_owned(), index)),
            Err(Errno::ENODEV | Errno::ENXIO) => {
                self.incomplete = true;
                self.report(
                    format!("there is no interface {name} in the agent's network namespace"),
                    "create it, or correct `interface`; the agent looks again when links change",
                );
                None
            }
            Err(error) => self.keep_interface(&format!("cannot ask for the interface {name}: {error}")),
        };
    }

    /// Not being able to look is no sign that the interface is gone.
    fn keep_interface(&mut self, message: &str) -> Option<(String, u32)> {
        self.incomplete = true;
        self.report(message, "what was known before stays in force; the agent looks again from time to time");
        self.before.and_then(|before| before.interface.clone())
    }

    /// Finds the host's side of the veth pair whose other side is the pod's `eth0`, or its only one.
    fn find_peer(&mut self, namespace: &Namespace) {
        let own = self.discovery.own.as_ref();
        let numbered = own.map(|(links, netlink)| Ok((links, netlink.namespace_number(&namespace.file)?)));
        let (links, number) = match numbered {
            Some(Ok(found)) => found,
            Some(Err(error)) => return self.found.interface = self.keep_interface(&unreadable_links(&error)),
            None => return self.found.interface = self.keep_interface("the links of this machine cannot be read"),
        };
        let pairs = pairs(&namespace.links, links, number);
        let chosen = match pairs.as_slice() {
            [only] => Some(only),
            several => several.iter().find(|(inside, _)| inside.name == POD_INTERFACE),
        };
        self.found.interface = chosen.map(|(_, outside)| (outside.name.clone(), outside.index));
        let guarded = chosen.map(|(inside, _)| inside.index);
        let others: Vec<&str> = namespace
            .links
            .iter()
            .filter(|link| leads_out(link) && Some(link.index) != guarded)
            .map(|link| link.name.as_str())
            .collect();
        if chosen.is_some() && !others.is_empty() || pairs.len() > 1 && chosen.is_none() {
            let message = format!(
                "has more interfaces ({}) than the one that is guarded: raw packets on them pass unjudged, socket calls are judged",
                others.join(", ")
            );
            self.report(message, "give such a pod no raw sockets, or name the `interface` that matters");
        }
    }
}

fn unreadable_links(error: &io::Error) -> String {
    format!("the links of this machine cannot be read: {error}")
}

/// Whether packets can leave a pod by this link; tunnels that every namespace has (`tunl0`, `sit0`) need an address first.
fn leads_out(link: &Link) -> bool {
    matches!(link.kind.as_str(), "veth" | "macvlan" | "ipvlan" | "vlan") || (link.kind.is_empty() && link.name != "lo")
}

/// The veth pairs between two namespaces; `number` is the pod's namespace as the host's links name it.
fn pairs<'a>(inside: &'a [Link], outside: &'a [Link], number: Option<i32>) -> Vec<(&'a Link, &'a Link)> {
    let is_pair = |inside: &Link, outside: &Link| {
        (inside.kind.as_str(), outside.kind.as_str()) == ("veth", "veth")
            && inside.peer == Some(outside.index)
            && outside.peer == Some(inside.index)
            && number.is_some()
            && outside.peer_namespace == number
    };
    let peer = |link: &'a Link| Some((link, outside.iter().find(|&other| is_pair(link, other))?));
    inside.iter().filter_map(peer).collect()
}

#[cfg(test)]
mod tests;
