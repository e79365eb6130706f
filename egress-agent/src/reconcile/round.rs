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
use crate::discovery::Discovery;
use crate::names::NameReport;
use crate::sources::problem::ProblemLog;
use crate::sources::{EndpointSource, PolicySource, Problem, node};

use super::Work;
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

/// Where everything is read from.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) policies: PolicySource,
    pub(crate) endpoints: EndpointSource,
    pub(crate) discovery: Discovery,
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
    /// What the files have wrong, kept for rounds that do not read them.
    file_problems: Vec<Problem>,
    kept: usize,
    last: Option<Status>,
    /// Inputs changed since the last apply that succeeded.
    pending: bool,
    complete: bool,
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
            file_problems: Vec::new(),
            kept: 0,
            last: None,
            pending: false,
            complete: false,
        }
    }

    /// Whether everything was found and done; if not, the next round should come soon.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Looks at what `work` says, and makes the kernel enforce what follows.
    pub(crate) fn round(&mut self, work: Work) -> Result<Outcome, DatapathError> {
        let started = Instant::now();
        self.complete = false;
        self.pending |= self.read(work) | work.told;
        let changed = self.pending;
        let plan = self.planner.plan(&self.inputs);
        let applied = self.kernel.apply(&plan.desired).inspect_err(|error| self.refused(error))?;
        let took = started.elapsed();
        self.pending = false;
        let before = self.planner.realized().clone();
        let failed: BTreeSet<&str> = applied.problems.iter().map(|problem| problem.endpoint.as_str()).collect();
        self.planner.realize(&plan, &self.inputs.set, &failed);
        let status = self.record(&plan, &applied, changed);
        self.complete = applied.problems.is_empty() && !self.inputs.survey.incomplete;
        // Before anybody is told: an agent that dies now must find it again.
        if changed && plan.fits {
            self.save();
        }
        let generation = self.publish(&status, changed);
        if changed || applied.endpoints_changed + applied.endpoints_removed + applied.tables_built > 0 {
            summarize(generation, &status, &applied, started);
            log_differences(&before, self.planner.realized());
        }
        self.last = Some(status.clone());
        Ok(Outcome { generation, status, changed, took })
    }

    /// Reads the inputs; true if any of them is another one than before.
    fn read(&mut self, work: Work) -> bool {
        let mut changed = false;
        let mut discover = work.discover;
        if work.files {
            let policies = self.sources.policies.read();
            let endpoints = self.sources.endpoints.read();
            let problems = [policies.problems, endpoints.problems].concat();
            let another_set = self.inputs.set != policies.set;
            let other_endpoints = self.inputs.endpoints != endpoints.endpoints;
            // Whether host-network pods are covered is a setting.
            discover |= another_set || other_endpoints;
            changed |= another_set || other_endpoints || self.file_problems != problems;
            self.file_problems = problems;
            self.kept = policies.kept;
            self.inputs.set = policies.set;
            self.inputs.endpoints = endpoints.endpoints;
        }
        if discover {
            let cover = self.inputs.set.config.host_network_pods == HostNetworkPods::Enforce;
            let survey = self.sources.discovery.survey(&self.inputs.endpoints, cover);
            changed |= self.inputs.survey.located != survey.located || self.inputs.survey.problems != survey.problems;
            self.inputs.survey = survey;
        }
        if work.files || discover {
            let node = node_context(&self.inputs.node);
            changed |= self.inputs.node != node;
            self.inputs.node = node;
        }
        changed
    }

    fn record(&mut self, plan: &Plan, applied: &Applied, changed: bool) -> Status {
        let failed = applied.problems.iter();
        let failed = failed.map(|problem| Problem::new("kernel", &problem.message).of(&problem.endpoint));
        let mut problems = self.file_problems.clone();
        problems.extend(self.inputs.survey.problems.iter().cloned());
        problems.extend(plan.problems.iter().cloned());
        problems.extend(failed);
        let names = self.kernel.names();
        problems.extend(names.problems);
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
            endpoints: self.inputs.endpoints.len(),
            covered: plan.covered,
            pending: plan.pending.iter().cloned().chain(failed).collect(),
            enforced: applied.endpoints,
            tables: applied.tables,
            policies: self.inputs.set.policies.len(),
            audit: self.inputs.set.config.enforcement == Mode::Audit,
            kept: self.kept,
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
        let saved: io::Result<()> = self.sources.policies.save().and_then(|()| self.sources.endpoints.save());
        if let Err(error) = saved {
            warn!(%error, "the last good versions cannot be stored; a restarted agent will not know them");
        }
    }
}

/// Resolvers and addresses of this node; what cannot be read stays as it was.
fn node_context(before: &NodeContext) -> NodeContext {
    NodeContext {
        resolvers: node::resolvers(),
        node_addresses: node::addresses().unwrap_or_else(|error| {
            warn!(%error, "the addresses of this machine cannot be read");
            before.node_addresses.clone()
        }),
        nodes: Vec::new(),
    }
}

fn warnings(set: &PolicySet, plan: &Plan) -> BTreeSet<String> {
    let of_objects = set.policies.values().flat_map(|policy| &policy.warnings).chain(&set.config.warnings);
    of_objects.chain(&plan.warnings).map(ToString::to_string).collect()
}

fn summarize(generation: u64, status: &Status, applied: &Applied, started: Instant) {
    info!(
        generation,
        policies = status.policies,
        endpoints = status.endpoints,
        enforced = status.enforced,
        endpoints_changed = applied.endpoints_changed,
        endpoints_removed = applied.endpoints_removed,
        tables = applied.tables,
        tables_built = applied.tables_built,
        tables_freed = applied.tables_freed,
        problems = status.problems.len(),
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
