//! One round: read what may have changed, plan, apply, and say what was done.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use egress_policy::diff;
use egress_policy::model::{HostNetworkPods, Mode, NodeContext, PolicySet};
use tracing::{info, warn};

use crate::cli::chain;
use crate::datapath::{Applied, DatapathError, Desired, DesiredTable};
use crate::names::NameReport;
use crate::report::{InForce, Parts, Round};
use crate::sources::problem::ProblemLog;
use crate::sources::{Problem, node};

use super::Work;
use super::inputs::{Read, Sources};
use super::plan::{Inputs, Plan, Planner};
use super::status::{Status, StatusFile};

/// Differences of tables larger than this are not counted for the log: the counting would take longer than the apply.
const LARGEST_DIFF: usize = 200_000;

/// The kernel, as the reconciler sees it.
pub(crate) trait Kernel {
    /// Makes the kernel enforce `desired`.
    fn apply(&mut self, desired: &Desired) -> Result<Applied, DatapathError>;

    /// What there is to say of the DNS names of what was last applied.
    fn names(&self) -> NameReport {
        NameReport::default()
    }
}

/// Owner of all inputs and of what follows from them.
#[derive(Debug)]
pub(crate) struct Reconciler<K> {
    sources: Sources,
    planner: Planner,
    kernel: K,
    status: StatusFile,
    inputs: Inputs,
    problems: ProblemLog,
    policy_warnings: BTreeSet<String>,
    warned: BTreeSet<String>,
    /// What was last read, without its policies, which are among the inputs.
    said: Read,
    in_force: InForce,
    /// What is wrong with the endpoints.
    endpoint_problems: Vec<Problem>,
    last: Option<Status>,
    /// Inputs changed since the last apply that succeeded.
    pending: bool,
    complete: bool,
    /// Something is left that needs no look at anything, only another round.
    more: bool,
}

/// What a round did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) generation: u64,
    pub(crate) status: Status,
    /// Whether the inputs had changed.
    pub(crate) changed: bool,
    /// From the reading of the inputs to the kernel's confirmation.
    pub(crate) took: Duration,
    /// What is told to the cluster; none where nothing is read from one.
    pub(crate) report: Option<Round>,
}

impl<K: Kernel> Reconciler<K> {
    pub(crate) fn new(sources: Sources, planner: Planner, kernel: K, status: StatusFile) -> Self {
        Self {
            sources,
            planner,
            kernel,
            status,
            inputs: Inputs::default(),
            problems: ProblemLog::default(),
            policy_warnings: BTreeSet::new(),
            warned: BTreeSet::new(),
            said: Read::default(),
            in_force: InForce::default(),
            endpoint_problems: Vec::new(),
            last: None,
            pending: false,
            complete: false,
            more: false,
        }
    }

    /// Whether there is anything to go by. If not, the kernel stays as it is.
    pub(crate) fn is_ready(&mut self) -> bool {
        self.sources.origin.is_ready()
    }

    /// Whether everything was found and done; if not, the next round should come soon.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether another round should come at once.
    pub(crate) fn has_more(&self) -> bool {
        self.more
    }

    /// Looks at what `work` says, and makes the kernel enforce what follows.
    pub(crate) fn round(&mut self, work: Work) -> Result<Outcome, DatapathError> {
        let started = Instant::now();
        (self.complete, self.more) = (false, false);
        self.pending |= self.read(work) | work.told;
        let changed = self.pending;
        let mut plan = self.planner.plan(&self.inputs);
        let applied = self.kernel.apply(&plan.desired).inspect_err(|error| self.refused(error))?;
        let took = started.elapsed();
        self.pending = false;
        self.more = !applied.unattached.is_empty();
        plan.pending.extend(applied.unattached.iter().cloned());
        let before = self.planner.realized().clone();
        let failed: BTreeSet<&str> = applied.problems.iter().map(|problem| problem.endpoint.as_str()).collect();
        self.planner.realize(&plan, &self.inputs.set, &failed);
        self.planner.review(&mut plan);
        let names = self.kernel.names();
        let status = self.record(&plan, &applied, &names, changed);
        let report = self.sources.origin.finds_pods().then(|| self.report(&plan, &status, &names));
        self.complete = applied.problems.is_empty() && !self.inputs.survey.incomplete && !self.more;
        // Before anybody is told: an agent that dies now must find it again.
        if changed && plan.fits {
            self.save();
        }
        let generation = self.publish(&status, changed);
        if changed || applied.endpoints_changed + applied.endpoints_removed + applied.tables_built > 0 {
            summarize(generation, &status, &plan, &applied, started);
            log_differences(&before, self.planner.realized());
        }
        self.last = Some(status.clone());
        Ok(Outcome { generation, status, changed, took, report })
    }

    /// Reads the inputs; true if any of them is another one than before.
    fn read(&mut self, work: Work) -> bool {
        let mut changed = false;
        let mut discover = work.discover;
        if work.files {
            let mut read = self.sources.origin.read();
            let another_set = self.inputs.set != read.set;
            // Whether host-network pods are covered is a setting.
            discover |= another_set;
            changed |= another_set || self.said.problems != read.problems;
            self.inputs.set = std::mem::take(&mut read.set);
            self.in_force.follow(&read.versions, &read.problems);
            self.said = read;
        }
        if work.files || (discover && self.sources.origin.finds_pods()) {
            let running = self.sources.origin.endpoints(self.inputs.set.config.host_network_pods);
            let new_pods = self.sources.discovery.new_pods(running.kubepods.as_deref(), &running.exempt);
            let others = self.inputs.endpoints != running.endpoints;
            discover |= others;
            changed |= others || self.endpoint_problems != running.problems || self.inputs.new_pods != new_pods;
            self.inputs.endpoints = running.endpoints;
            self.inputs.new_pods = new_pods;
            self.endpoint_problems = running.problems;
        }
        if discover {
            let cover = self.inputs.set.config.host_network_pods == HostNetworkPods::Enforce;
            let survey = self.sources.discovery.survey(&self.inputs.endpoints, cover);
            changed |= self.inputs.survey.located != survey.located || self.inputs.survey.problems != survey.problems;
            self.inputs.survey = survey;
        }
        if work.files || discover {
            let node = node_context(&self.inputs.node, &self.said);
            changed |= self.inputs.node != node;
            self.inputs.node = node;
        }
        changed
    }

    /// What the cluster is told of this round.
    fn report(&self, plan: &Plan, status: &Status, names: &NameReport) -> Round {
        let of_objects = self.inputs.set.policies.values().flat_map(|policy| &policy.warnings);
        let parts = Parts {
            in_force: &self.in_force,
            set: &self.inputs.set,
            selected: &plan.selected,
            pending: &status.pending,
            covered: status.covered,
            warnings: &of_objects.chain(&plan.warnings).cloned().collect(),
            name_warnings: &names.warnings,
            problems: &status.problems,
            namespaces: &self.inputs.endpoints.iter().map(|endpoint| endpoint.namespace.clone()).collect(),
            nodes: self.said.node_count,
        };
        Round { foreign: self.said.foreign.clone(), ..parts.round() }
    }

    fn record(&mut self, plan: &Plan, applied: &Applied, names: &NameReport, changed: bool) -> Status {
        let failed = applied.problems.iter();
        let failed = failed.map(|problem| Problem::new("kernel", &problem.message).of(&problem.endpoint));
        let mut problems = [self.said.problems.as_slice(), &self.endpoint_problems].concat();
        problems.extend(self.inputs.survey.problems.iter().cloned());
        problems.extend(plan.problems.iter().cloned());
        problems.extend(failed);
        problems.extend(names.problems.iter().cloned());
        self.problems.report(&problems);
        if changed {
            self.policy_warnings = warnings(&self.inputs.set, plan);
        }
        let warnings = &self.policy_warnings | &names.warnings;
        for warning in warnings.difference(&self.warned) {
            warn!("{warning}");
        }
        self.warned.clone_from(&warnings);
        let failed = applied.problems.iter().map(|problem| problem.endpoint.clone());
        Status {
            endpoints: self.inputs.endpoints.iter().filter(|endpoint| !endpoint.held).count(),
            covered: plan.covered,
            pending: plan.pending.iter().cloned().chain(failed).collect(),
            enforced: applied.endpoints.saturating_sub(plan.held),
            tables: applied.tables,
            policies: self.inputs.set.policies.len(),
            audit: self.inputs.set.config.enforcement == Mode::Audit,
            kept: self.said.kept,
            held: plan.held,
            problems,
            warnings: warnings.into_iter().collect(),
        }
    }

    fn publish(&mut self, status: &Status, changed: bool) -> u64 {
        let news = changed || self.last.as_ref() != Some(status);
        if !news {
            return self.status.generation();
        }
        self.status.write(status, news).unwrap_or_else(|error| {
            warn!(%error, "status.json cannot be written; is the state folder full or gone?");
            self.status.generation()
        })
    }

    /// Nothing was applied: the numbers stay, the problem is added.
    fn refused(&mut self, error: &DatapathError) {
        let mut status = self.last.clone().unwrap_or_default();
        status.problems =
            vec![Problem::new("kernel", chain(error)).hint("what was in force stays so; the agent tries again")];
        if let Err(error) = self.status.write(&status, false) {
            warn!(%error, "status.json cannot be written");
        }
    }

    fn save(&mut self) {
        let saved: io::Result<()> = self.sources.origin.save();
        if let Err(error) = saved {
            warn!(%error, "the last good versions cannot be stored; a restarted agent will not know them");
        }
    }
}

/// Resolvers and addresses of this node; what cannot be read stays as it was.
fn node_context(before: &NodeContext, said: &Read) -> NodeContext {
    let mut resolvers = said.resolvers.clone();
    for resolver in node::local_dns().into_iter().chain(node::resolvers()) {
        if !resolvers.contains(&resolver) {
            resolvers.push(resolver);
        }
    }
    NodeContext {
        resolvers,
        node_addresses: node::addresses().unwrap_or_else(|error| {
            warn!(%error, "the addresses of this machine cannot be read");
            before.node_addresses.clone()
        }),
        nodes: said.nodes.clone(),
        services: said.services.clone(),
    }
}

fn warnings(set: &PolicySet, plan: &Plan) -> BTreeSet<String> {
    let of_objects = set.policies.values().flat_map(|policy| &policy.warnings).chain(&set.config.warnings);
    of_objects.chain(&plan.warnings).map(ToString::to_string).collect()
}

fn summarize(generation: u64, status: &Status, plan: &Plan, applied: &Applied, started: Instant) {
    info!(
        generation,
        policies = status.policies,
        endpoints = status.endpoints,
        enforced = status.enforced,
        endpoints_changed = applied.endpoints_changed,
        endpoints_removed = applied.endpoints_removed,
        tables = applied.tables,
        lists_compiled = plan.compiled,
        lists_edited = plan.edited,
        tables_built = applied.tables_built,
        tables_freed = applied.tables_freed,
        problems = status.problems.len(),
        enforced_after_milliseconds = u64::try_from(applied.enforced.as_millis()).unwrap_or(u64::MAX),
        milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "applied"
    );
}

/// Says what another table means for its endpoints, once per pair of tables.
fn log_differences(before: &HashMap<String, Arc<DesiredTable>>, now: &HashMap<String, Arc<DesiredTable>>) {
    let mut said = BTreeSet::new();
    for (endpoint, new) in now {
        let Some(old) = before.get(endpoint) else { continue };
        let pair = (old.fingerprint, new.fingerprint);
        if pair.0 == pair.1 || old.table.prefixes() + new.table.prefixes() > LARGEST_DIFF || !said.insert(pair) {
            continue;
        }
        let summary = diff::summary(&old.table, &new.table);
        info!(
            endpoint,
            prefixes_added = summary.added,
            prefixes_removed = summary.removed,
            prefixes_changed = summary.changed,
            "the table of this pod changed"
        );
    }
}
