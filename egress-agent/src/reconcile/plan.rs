//! From what the files say and where the pods are to what the kernel should enforce: pure but for the cache of compiled tables.
//!
//! Each distinct rule list is compiled once. Rules that do not fit leave an endpoint's table as it is; an endpoint without one gets
//! the table of the last policies that fitted, or is held to internal traffic (§6.6, §6.7).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use egress_policy::compile::{CompileError, Limits, compile_with_coverage};
use egress_policy::follow::{Followed, Next};
use egress_policy::model::{
    Config, DefaultAction, DenyResponse, NodeContext, PodIdentity, Policy, PolicyKey, PolicySet, UnknownPods,
};
use egress_policy::rules::RuleList;
use egress_policy::warnings::{Warning, shadowed};

use crate::datapath::{
    Cgroup, Desired, DesiredDns, DesiredEndpoint, DesiredHold, DesiredNames, DesiredTable, FreePod, Interface,
};
use crate::discovery::cgroup::Found;
use crate::discovery::{Located, NewPods, Survey};
use crate::report::Selected;
use crate::sources::{Endpoint, NetnsRef, Problem};

/// Rules from which on a list is kept with all that its next version can go on with, about 250 bytes for each.
const FOLLOWED_FROM: usize = 1000;

/// A fingerprint and whether refusals are answered.
type TableKey = ([u8; 32], bool);

/// Everything that a plan depends on.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    pub(crate) set: PolicySet,
    pub(crate) node: NodeContext,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) survey: Survey,
    /// What pods are known by that nobody has told of; none where pods are not looked for.
    pub(crate) new_pods: Option<NewPods>,
}

/// What should be in force.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) desired: Desired,
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: BTreeSet<Warning>,
    /// Endpoints that are not known yet and held.
    pub(crate) held: usize,
    /// The endpoints that each policy selects.
    pub(crate) selected: Selected,
    /// Endpoints that the rules have something to say about.
    pub(crate) covered: usize,
    /// Of these, the ones that `desired` does not have, or not under their own rules.
    pub(crate) pending: BTreeSet<String>,
    /// Whether every rule list fitted.
    pub(crate) fits: bool,
    /// Rule lists that were compiled as a whole, and such that were changed where their rules did.
    pub(crate) compiled: usize,
    pub(crate) edited: usize,
    /// Tables whose warnings are not known yet: see [`Planner::review`].
    unreviewed: BTreeSet<TableKey>,
}

/// Compiles and remembers.
#[derive(Debug)]
pub(crate) struct Planner {
    limits: Limits,
    events_per_second: u32,
    compiled: HashMap<TableKey, Compiled>,
    /// Long rule lists by the policies that they are made of, for their next versions.
    followed: HashMap<Vec<Arc<PolicyKey>>, Followed>,
    /// What `followed` depends on beside the policies.
    basis: (Config, NodeContext),
    /// Lists that were compiled as a whole, and edited, since the plan was begun.
    work: [usize; 2],
    /// What each endpoint is judged by in the kernel.
    realized: HashMap<String, Arc<DesiredTable>>,
    /// The last policies that fitted as a whole.
    fitting: PolicySet,
}

/// A compiled list, or why there is none.
#[derive(Clone, Debug)]
struct Compiled {
    table: Result<Arc<DesiredTable>, CompileError>,
    /// `None`: nobody has looked yet.
    warnings: Option<Arc<[Warning]>>,
}

/// How a rule list judges.
enum Judgement {
    /// It has nothing to say.
    Trivial,
    List(Compiled),
}

impl Planner {
    /// `fitting`: the policies that an earlier agent had in force.
    pub(crate) fn new(limits: Limits, events_per_second: u32, fitting: PolicySet) -> Self {
        Self {
            limits,
            events_per_second,
            compiled: HashMap::new(),
            followed: HashMap::new(),
            basis: (Config::default(), NodeContext::default()),
            work: [0; 2],
            realized: HashMap::new(),
            fitting,
        }
    }

    /// What should be in force now.
    pub(crate) fn plan(&mut self, inputs: &Inputs) -> Plan {
        let mut plan = Plan {
            desired: Desired {
                endpoints: Vec::new(),
                free: Vec::new(),
                hold: None,
                events_per_second: self.events_per_second,
                dns: dns(&inputs.set.config, &inputs.node),
                names: DesiredNames::default(),
            },
            problems: Vec::new(),
            warnings: BTreeSet::new(),
            held: 0,
            selected: Selected::new(),
            covered: 0,
            pending: BTreeSet::new(),
            fits: true,
            compiled: 0,
            edited: 0,
            unreviewed: BTreeSet::new(),
        };
        self.work = [0; 2];
        if self.basis.0 != inputs.set.config || self.basis.1 != inputs.node {
            self.basis = (inputs.set.config.clone(), inputs.node.clone());
            self.followed.clear();
        }
        let hold = self.hold(&inputs.set, &inputs.node);
        if let (Some(new_pods), Some(table)) = (&inputs.new_pods, hold.clone()) {
            let NewPods { cgroup: found, host, exempt } = new_pods;
            plan.desired.hold = Some(DesiredHold { cgroup: cgroup(found), host: *host, table });
            plan.desired.free.extend(exempt.iter().map(|found| FreePod { netns: None, cgroup: Some(cgroup(found)) }));
        }
        let mut judged: HashMap<Vec<Arc<PolicyKey>>, Judgement> = HashMap::new();
        for endpoint in &inputs.endpoints {
            let located = inputs.survey.located.get(&endpoint.key()).filter(|located| located.is_known());
            if endpoint.held {
                if let (Some(located), Some(table)) = (located, hold.clone()) {
                    plan.held += 1;
                    plan.desired.endpoints.push(desired(endpoint, located, table, hold.clone()));
                }
                continue;
            }
            let selection = inputs.set.selected(&identity(endpoint));
            for policy in &selection {
                plan.selected.entry(Arc::clone(&policy.key)).or_default().insert(endpoint.key());
            }
            let keys = selection.iter().map(|policy| Arc::clone(&policy.key)).collect();
            let judgement = judged.entry(keys).or_insert_with_key(|keys| {
                let followed = self.followed.remove(keys);
                self.follow(followed, &inputs.set, &selection, &inputs.node)
            });
            let Judgement::List(compiled) = judgement else {
                plan.desired.free.extend(
                    located
                        .map(|located| FreePod { netns: located.netns, cgroup: located.cgroup.as_ref().map(cgroup) }),
                );
                continue;
            };
            match (&compiled.warnings, &compiled.table) {
                (Some(warnings), _) => plan.warnings.extend(warnings.iter().cloned()),
                (None, Ok(table)) => drop(plan.unreviewed.insert((table.fingerprint, table.reject))),
                (None, Err(_)) => {}
            }
            plan.covered += 1;
            if located.is_none() || compiled.table.is_err() {
                plan.pending.insert(endpoint.key());
            }
            let table = match &compiled.table {
                Ok(table) => Some(Arc::clone(table)),
                Err(error) => {
                    plan.fits = false;
                    plan.problems.push(too_large(endpoint, *error));
                    self.substitute(endpoint, &inputs.node).or_else(|| hold.clone())
                }
            };
            if let (Some(located), Some(table)) = (located, table) {
                let mut desired = desired(endpoint, located, table, hold.clone());
                desired.is_resolver = endpoint.addresses.iter().any(|own| plan.desired.dns.resolvers.contains(own));
                plan.desired.endpoints.push(desired);
            }
        }
        // Namespaces that such a pod makes lead through its interface, where its packets are judged.
        let judged_there = |pod: &&DesiredEndpoint| pod.interface.is_some() && pod.netns.is_some();
        let cgroups = plan.desired.endpoints.iter().filter(judged_there).filter_map(|pod| pod.cgroup.clone());
        plan.desired.free.extend(cgroups.map(|cgroup| FreePod { netns: None, cgroup: Some(cgroup) }));
        self.forget_unused(&plan.desired);
        self.followed.retain(|keys, _| judged.contains_key(keys));
        [plan.compiled, plan.edited] = self.work;
        plan
    }

    /// Looks for the warnings of tables that were edited: all of their rules are gone through, so it comes after they are in force.
    pub(crate) fn review(&mut self, plan: &mut Plan) {
        let lists: Vec<Arc<RuleList>> = self.followed.values().map(|followed| Arc::clone(followed.list())).collect();
        let fingerprints: Vec<[u8; 32]> = self.followed.values().map(Followed::fingerprint).collect();
        for key in std::mem::take(&mut plan.unreviewed) {
            let list = fingerprints.iter().zip(&lists).find(|(fingerprint, _)| **fingerprint == key.0);
            let (Some((_, list)), Some(compiled)) = (list, self.compiled.get_mut(&key)) else { continue };
            let mut warnings = list.warnings();
            if let Ok((_, coverage)) = compile_with_coverage(list, &self.limits) {
                warnings.extend(shadowed(list, &coverage));
            }
            plan.warnings.extend(warnings.iter().cloned());
            compiled.warnings = Some(warnings.into());
        }
    }

    /// Notes what the kernel confirmed. `failed`: endpoints of which it did not.
    pub(crate) fn realize(&mut self, plan: &Plan, set: &PolicySet, failed: &BTreeSet<&str>) {
        let mut realized = HashMap::new();
        for endpoint in &plan.desired.endpoints {
            let table = if failed.contains(endpoint.name.as_str()) {
                self.realized.get(&endpoint.name).cloned()
            } else {
                Some(Arc::clone(&endpoint.table))
            };
            realized.extend(table.map(|table| (endpoint.name.clone(), table)));
        }
        self.realized = realized;
        if plan.fits {
            self.fitting.clone_from(set);
        }
    }

    /// What each endpoint is judged by in the kernel, by its name.
    pub(crate) fn realized(&self) -> &HashMap<String, Arc<DesiredTable>> {
        &self.realized
    }

    /// Takes a list over from the last plan, as far as it is the same.
    fn follow(
        &mut self,
        followed: Option<Followed>,
        set: &PolicySet,
        selection: &[&Policy],
        node: &NodeContext,
    ) -> Judgement {
        let followed = match followed.map(|followed| followed.follow(set, selection, node)) {
            Some(Next::Same(followed)) => followed,
            Some(Next::Changed(followed)) => {
                let [_, edited] = &mut self.work;
                *edited += 1;
                followed
            }
            Some(Next::Whole) | None => return self.judge(set, selection, node, true),
        };
        let (fingerprint, reject) = (followed.fingerprint(), set.config.deny_response == DenyResponse::Reject);
        let compiled = self.compiled.entry((fingerprint, reject)).or_insert_with(|| {
            let table = DesiredTable::new(Arc::clone(followed.list()), fingerprint, followed.table(), reject);
            Compiled { table: Ok(Arc::new(table)), warnings: None }
        });
        let compiled = compiled.clone();
        self.followed.insert(selection.iter().map(|policy| Arc::clone(&policy.key)).collect(), followed);
        Judgement::List(compiled)
    }

    /// Orders and compiles a list. `stays`: its next version is to be expected.
    fn judge(&mut self, set: &PolicySet, selection: &[&Policy], node: &NodeContext, stays: bool) -> Judgement {
        let list = set.rule_list_of(selection, node);
        if list.is_trivial() {
            return Judgement::Trivial;
        }
        let reject = set.config.deny_response == DenyResponse::Reject;
        let follow = stays && list.rules.len() >= FOLLOWED_FROM;
        let list = if follow { list.with_vacancies(self.limits.rules) } else { list };
        Judgement::List(self.compile(list, reject, follow.then_some((set, selection))))
    }

    fn compile(&mut self, list: RuleList, reject: bool, follow: Option<(&PolicySet, &[&Policy])>) -> Compiled {
        let fingerprint = list.fingerprint();
        if let Some(compiled) = self.compiled.get(&(fingerprint, reject)) {
            return compiled.clone();
        }
        let [whole, _] = &mut self.work;
        *whole += 1;
        let mut warnings = list.warnings();
        let table = match follow {
            Some((set, selection)) => Followed::new(list, set, selection, &self.limits).map(|(followed, coverage)| {
                let (list, table) = (Arc::clone(followed.list()), followed.table());
                self.followed.insert(selection.iter().map(|policy| Arc::clone(&policy.key)).collect(), followed);
                (list, table, coverage)
            }),
            None => {
                compile_with_coverage(&list, &self.limits).map(|(table, coverage)| (Arc::new(list), table, coverage))
            }
        };
        let table = table.map(|(list, table, coverage)| {
            warnings.extend(shadowed(&list, &coverage));
            Arc::new(DesiredTable::new(list, fingerprint, table, reject))
        });
        let compiled = Compiled { table, warnings: Some(warnings.into()) };
        self.compiled.insert((fingerprint, reject), compiled.clone());
        compiled
    }

    /// The table of an endpoint whose present rules do not fit.
    fn substitute(&mut self, endpoint: &Endpoint, node: &NodeContext) -> Option<Arc<DesiredTable>> {
        if let Some(realized) = self.realized.get(&endpoint.key()) {
            return Some(Arc::clone(realized));
        }
        let set = self.fitting.clone();
        match self.judge(&set, &set.selected(&identity(endpoint)), node, false) {
            Judgement::List(compiled) => compiled.table.ok(),
            // That nothing applied to it before does not mean that it may do anything now.
            Judgement::Trivial => None,
        }
    }

    /// The table of a pod whose policy is not known: internal traffic only, if the configuration says so (§6.6).
    fn hold(&mut self, set: &PolicySet, node: &NodeContext) -> Option<Arc<DesiredTable>> {
        if set.config.unknown_pods == UnknownPods::Allow {
            return None;
        }
        let mut nothing = PolicySet::default();
        nothing.config.clone_from(&set.config);
        nothing.config.default_action = DefaultAction::Deny;
        let list = nothing.rule_list_of(&[], node);
        self.compile(list, set.config.deny_response == DenyResponse::Reject, None).table.ok()
    }

    fn forget_unused(&mut self, desired: &Desired) {
        let tables = desired.endpoints.iter().flat_map(|endpoint| [Some(&endpoint.table), endpoint.fallback.as_ref()]);
        let tables = tables.chain([desired.hold.as_ref().map(|hold| &hold.table)]);
        let used: BTreeSet<TableKey> = tables.flatten().map(|table| (table.fingerprint, table.reject)).collect();
        // Failures are kept until the list changes, so that a policy that is too large is not compiled again and again.
        self.compiled.retain(|key, compiled| used.contains(key) || compiled.table.is_err());
    }
}

fn identity(endpoint: &Endpoint) -> PodIdentity {
    PodIdentity {
        namespace: endpoint.namespace.clone(),
        name: endpoint.name.clone(),
        labels: endpoint.labels.clone(),
        service_account: endpoint.service_account.clone(),
    }
}

fn cgroup(found: &Found) -> Cgroup {
    Cgroup { path: found.path.clone(), id: found.id }
}

fn desired(
    endpoint: &Endpoint,
    located: &Located,
    table: Arc<DesiredTable>,
    fallback: Option<Arc<DesiredTable>>,
) -> DesiredEndpoint {
    DesiredEndpoint {
        name: endpoint.key(),
        interface: located.interface.clone().map(|(name, index)| Interface { name, index }),
        netns: located.netns,
        namespace: located.netns.and(endpoint.netns.as_ref()).map(NetnsRef::path),
        cgroup: located.cgroup.as_ref().map(cgroup),
        is_resolver: false,
        table,
        fallback,
    }
}

/// What the kernel and the poller need to know of the configuration.
fn dns(config: &Config, node: &NodeContext) -> DesiredDns {
    let internal = if config.dns.allow_internal { None } else { config.internal_cidrs.clone() };
    DesiredDns {
        resolvers: config.resolvers.as_ref().unwrap_or(&node.resolvers).clone(),
        lifetimes: config.dns,
        internal: internal.unwrap_or_default(),
    }
}

fn too_large(endpoint: &Endpoint, error: CompileError) -> Problem {
    let CompileError::Capacity { .. } = error;
    Problem::new("policies", error.to_string())
        .of(endpoint.key())
        .hint("the pod stays under the rules it had; a pod that had none is held to internal traffic (unknownPods)")
}
