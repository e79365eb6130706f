//! `egress-agent diff`: for which pods, destinations and ports two sets of policies give different verdicts.
//!
//! The tables of each pod are compared by [`egress_policy::diff`], which is exact; pods whose rules are the same before and after are
//! compared once, and so for the names that rules are about ([`names`]). [`pods`] finds pods to compare where no endpoints file says which there are. Reads files and nothing else.

mod names;
mod pods;
mod view;

use std::collections::BTreeMap;

use egress_policy::compile::{CompileError, Limits, Table, compile};
use egress_policy::model::{NodeContext, PodIdentity, PolicySet};
use egress_policy::rules::RuleList;

use crate::cli::{DiffArgs, Failure, Verdict};
use crate::output;
use crate::pods::ListedPods;
use crate::policy_files::PolicyFiles;

use view::{Compared, Group};

/// Prints the differences. No: there are some.
pub(crate) fn run(arguments: &DiffArgs) -> Result<Verdict, Failure> {
    let old = PolicyFiles::read_valid(std::slice::from_ref(&arguments.old))?.set;
    let new = PolicyFiles::read_valid(std::slice::from_ref(&arguments.new))?.set;
    let listed = arguments.endpoints.as_deref().map(ListedPods::read).transpose()?;
    let named: Vec<(String, PodIdentity)> = match &listed {
        Some(listed) => listed.iter().map(|(name, pod)| (name.clone(), pod.clone())).collect(),
        None => pods::examples(&[&old, &new]),
    };
    let compared = Compared::new(groups(&old, &new, &named).map_err(Failure::usage)?, named.len(), listed.is_none());
    output::print(&compared, arguments.output)?;
    Ok(if compared.is_empty() { Verdict::Yes } else { Verdict::No })
}

/// One side of a comparison.
struct Side {
    list: RuleList,
    table: Table,
}

impl Side {
    fn new(list: RuleList) -> Result<Self, CompileError> {
        let table = compile(&list, &Limits::default())?;
        Ok(Self { list, table })
    }
}

/// Names of the rule lists before and after.
type Fingerprints = ([u8; 32], [u8; 32]);
/// Pods with these rule lists.
type Pods<'p> = (RuleList, RuleList, Vec<&'p str>);

/// The pods by their rule lists before and after, with what changes for them.
fn groups(old: &PolicySet, new: &PolicySet, pods: &[(String, PodIdentity)]) -> Result<Vec<Group>, CompileError> {
    let node = NodeContext::default();
    let mut by_rules: BTreeMap<Fingerprints, Pods<'_>> = BTreeMap::new();
    for (name, pod) in pods {
        let (before, after) = (old.rule_list(pod, &node), new.rule_list(pod, &node));
        let key = (before.fingerprint(), after.fingerprint());
        if key.0 != key.1 {
            by_rules.entry(key).or_insert_with(|| (before, after, Vec::new())).2.push(name);
        }
    }
    let mut groups = Vec::new();
    for (before, after, names) in by_rules.into_values() {
        groups.extend(Group::new(names, &Side::new(before)?, &Side::new(after)?));
    }
    groups.sort_by(|a, b| a.pods.cmp(&b.pods));
    Ok(groups)
}

#[cfg(test)]
mod tests;
