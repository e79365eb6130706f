//! The cluster as a source: what the API server said, and which of its pods run on this node.
//!
//! What was last in force is stored, so that an agent that starts while the API server is away goes on from there. A pod that runs and
//! that the API server has not told of is an endpoint that is held (§6.6).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use egress_policy::model::{DefaultAction, HostNetworkPods, NodeInfo, PolicySet, ServicePort};
use egress_policy::ranges::Ranges;
use tracing::info;

use crate::discovery::kubepods::{Kubepods, PodCgroup, Sighting};
use crate::kube::{Pod, Version, View};
use crate::report::ForeignRound;

use super::endpoints::{Endpoint, NetnsRef};
use super::foreign::Foreign;
use super::policies::PolicySource;
use super::problem::Problem;
use super::stored::Stored;

/// How long the API server may take to say what there is, before what was stored is taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the latest view is left for the reconciler.
#[derive(Clone, Debug, Default)]
pub(crate) struct Feed(Arc<Mutex<Option<Arc<View>>>>);

impl Feed {
    /// Leaves a view in place of the one before.
    pub(crate) fn put(&self, view: View) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(view));
    }

    pub(crate) fn latest(&self) -> Option<Arc<View>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The cluster, and the last good version of its objects.
#[derive(Debug)]
pub(crate) struct ClusterSource {
    feed: Feed,
    policies: PolicySource,
    foreign: Foreign,
    kubepods: Kubepods,
    stored: Stored,
    view: Arc<View>,
    ready: bool,
    started: Instant,
}

/// What the cluster says beside its pods.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) set: PolicySet,
    pub(crate) dns: Vec<std::net::IpAddr>,
    pub(crate) nodes: Vec<NodeInfo>,
    /// How many there are.
    pub(crate) node_count: usize,
    pub(crate) services: Vec<ServicePort>,
    pub(crate) problems: Vec<Problem>,
    /// Newest versions of our objects, by title.
    pub(crate) versions: BTreeMap<String, Version>,
    pub(crate) kept: usize,
    /// Foreign objects that there is something to say of.
    pub(crate) foreign: Vec<ForeignRound>,
}

/// The pods of this node.
#[derive(Debug, Default)]
pub(crate) struct Running {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) problems: Vec<Problem>,
    /// The cgroup that the pods of this node are in, and no others; none if that is not known.
    pub(crate) kubepods: Option<PathBuf>,
    /// The cgroups of pods in the host's network that are not judged.
    pub(crate) exempt: Vec<PathBuf>,
}

impl ClusterSource {
    pub(crate) fn new(feed: Feed, kubepods: Kubepods, compat: &[String], state_dir: &Path) -> Self {
        let policies = PolicySource::of_cluster(state_dir);
        let stored = Stored::new(state_dir);
        Self {
            feed,
            policies,
            foreign: Foreign::new(compat),
            kubepods,
            stored,
            view: Arc::default(),
            ready: false,
            started: Instant::now(),
        }
    }

    /// What was in force when [`ClusterSource::save`] was last called, be it by an earlier agent.
    pub(crate) fn last_good(&self) -> PolicySet {
        self.policies.last_good()
    }

    /// Whether anything is known of the cluster: until then the kernel is left as it is. If the API server says nothing for a while
    /// after the start, what an earlier agent stored is known.
    pub(crate) fn is_ready(&mut self) -> bool {
        self.ready = self.ready || self.feed.latest().is_some();
        if self.ready || self.started.elapsed() < PATIENCE {
            return self.ready;
        }
        let Some(view) = self.stored.load() else { return false };
        info!("going on from what was stored, until the API server can be reached");
        self.view = Arc::new(view);
        self.ready = true;
        true
    }

    /// What the cluster says now.
    pub(crate) fn read(&mut self) -> Said {
        if let Some(view) = self.feed.latest() {
            self.view = view;
        }
        let view = Arc::clone(&self.view);
        let foreign = self.foreign.convert(&view.foreign);
        let mut policies = self.policies.take(&[view.texts.as_slice(), &foreign.texts].concat());
        policies.set.namespaces.clone_from(&view.namespaces);
        let mut problems = policies.problems;
        problems.extend(view.problems.iter().cloned());
        let foreign_rounds = foreign_rounds(&view, &foreign.problems, &problems);
        // Of an object that could not be converted nothing was left to read, which is said already, and better.
        let is_said = |read: &Problem| foreign.problems.iter().any(|found| found.source == read.source);
        problems.retain(|read| read.object.is_some() || !is_said(read));
        problems.extend(foreign.problems);
        problems.extend(know_internal(&mut policies.set, &view));
        let internal: Ranges = policies.set.config.internal_cidrs.iter().flatten().collect();
        Said {
            set: policies.set,
            dns: view.dns.clone(),
            nodes: view.nodes.clone(),
            node_count: view.node_count,
            services: view.services.iter().filter(|service| service.leads_outside(&internal)).cloned().collect(),
            problems,
            versions: view.versions.clone(),
            kept: policies.kept,
            foreign: foreign_rounds,
        }
    }

    /// Which pods run here, and where. `host_network`: whether pods in the host's network are judged too (§1.5).
    pub(crate) fn pods(&self, host_network: HostNetworkPods) -> Running {
        let seen = self.kubepods.look();
        let mut running = Running::default();
        let mut known = BTreeSet::new();
        for pod in &self.view.pods {
            known.insert(pod.uid.as_str());
            running.add(pod, seen.pods.get(&pod.uid), host_network == HostNetworkPods::Enforce);
        }
        running.hold(&seen, &known);
        running.kubepods = seen.directory.filter(|_| seen.own);
        let hint = "name kubelet's cgroup below the root of the hierarchy with --kubepods";
        running.problems.extend(seen.problem.map(|problem| Problem::new("discovery", problem).hint(hint)));
        running
    }

    /// Remembers what is in force for the next start of the agent.
    pub(crate) fn save(&mut self) -> std::io::Result<()> {
        self.policies.save()?;
        self.stored.save(&self.view)
    }
}

impl Running {
    /// Adds a pod that the API server told of, if it is there.
    fn add(&mut self, pod: &Pod, cgroup: Option<&PodCgroup>, cover_host_network: bool) {
        let key = format!("{}/{}", pod.namespace, pod.name);
        let Some(cgroup) = cgroup.filter(|cgroup| cgroup.populated) else {
            if pod.running && (cover_host_network || !pod.host_network) {
                let hint = "its containers are looked for again when something changes there, and from time to time";
                let problem = Problem::new("discovery", "runs, but no process is in a cgroup of this pod");
                self.problems.push(problem.of(key).hint(hint));
            }
            return;
        };
        let (netns, path) = if pod.host_network {
            if !cover_host_network {
                return self.exempt.extend(cgroup.path.clone());
            }
            (None, cgroup.path.clone())
        } else {
            // Without a process in a namespace of its own nothing of it runs yet.
            let Some(process) = cgroup.process else { return };
            (Some(NetnsRef::Pid(process)), cgroup.path.clone())
        };
        self.endpoints.push(Endpoint {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            labels: pod.labels.clone(),
            service_account: pod.service_account.clone(),
            netns,
            interface: None,
            cgroup: path,
            addresses: pod.addresses.clone(),
            held: false,
        });
    }

    /// Pods that run and are not known. Those in the host's network are not held: the API server may be one of them.
    fn hold(&mut self, seen: &Sighting, known: &BTreeSet<&str>) {
        if !seen.own {
            return;
        }
        let unknown: BTreeMap<&String, &PodCgroup> =
            seen.pods.iter().filter(|(uid, _)| !known.contains(uid.as_str())).collect();
        for (uid, cgroup) in unknown {
            let Some(process) = cgroup.process else { continue };
            self.endpoints.push(Endpoint {
                namespace: UNKNOWN.to_owned(),
                name: uid.clone(),
                netns: Some(NetnsRef::Pid(process)),
                cgroup: cgroup.path.clone(),
                held: true,
                ..Endpoint::default()
            });
        }
    }
}

/// Foreign objects that were refused, or that mean something else here; `found` when they were converted, `read` when what became of them
/// was read.
fn foreign_rounds(view: &View, found: &[Problem], read: &[Problem]) -> Vec<ForeignRound> {
    let told = |name: &str, problems: &[Problem]| -> Vec<String> {
        let own = problems.iter().filter(|problem| problem.source == name);
        own.map(|problem| {
            let path = problem.path.as_ref().map(|path| format!("{path}: ")).unwrap_or_default();
            let hint = problem.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
            format!("{path}{}{hint}", problem.message)
        })
        .collect()
    };
    let refused = |name: &str| read.iter().any(|problem| problem.source == name);
    let rounds = view.references.iter().map(|(name, reference)| {
        let found = told(name, found);
        let messages = if found.is_empty() { told(name, read) } else { found };
        ForeignRound { object: reference.clone(), is_refused: refused(name), messages }
    });
    rounds.filter(|round| !round.messages.is_empty()).collect()
}

/// Stands for the namespace of pods that are not known; no namespace is called so.
pub(crate) const UNKNOWN: &str = "?";

/// Fills in the internal CIDRs that the cluster tells, unless the configuration lists its own. Where some of them are not known, a
/// Deny by default would cut pods off from their own cluster, and is not enforced (§1.2).
fn know_internal(set: &mut PolicySet, view: &View) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    if !view.internal.refused.is_empty() {
        let refused: Vec<String> = view.internal.refused.iter().map(ToString::to_string).collect();
        let message =
            format!("{} is too wide to be the cluster's own, and is not taken as internal", refused.join(", "));
        problems.push(Problem::new("cluster", message).of(CONFIG).hint("list internalCIDRs in the EgressConfig"));
    }
    if set.config.internal_cidrs.is_some() {
        return problems;
    }
    let found: Vec<ipnet::IpNet> = view.internal.pods.union(&view.internal.services).copied().collect();
    if let Some(missing) = view.internal.missing() {
        let denies = set.config.default_action == DefaultAction::Deny;
        let mut message =
            format!("the cluster tells {missing} (looked at nodes, ServiceCIDRs and kubeadm's ConfigMap)");
        if denies {
            message.push_str("; defaultAction: Deny is not enforced");
            set.config.default_action = DefaultAction::Allow;
        }
        problems.push(Problem::new("cluster", message).of(CONFIG).hint("list internalCIDRs in the EgressConfig"));
    }
    set.config.internal_cidrs = Some(found).filter(|found| !found.is_empty());
    problems
}

const CONFIG: &str = "EgressConfig default";

/// Roots of the v1 hierarchies beside v2 that kubelets use for every pod.
pub(crate) fn version1_roots(mountinfo: &str) -> Vec<PathBuf> {
    let wanted = ["pids", "memory", "name=systemd"];
    let mounts = mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?;
        let mut fields = after.split(' ');
        let (kind, options) = (fields.next()?, fields.nth(1)?);
        let is_wanted = kind == "cgroup" && options.split(',').any(|option| wanted.contains(&option));
        is_wanted.then(|| PathBuf::from(point))
    });
    mounts.collect()
}
