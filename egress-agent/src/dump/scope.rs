//! Which pods and policies are asked for. Pure.

use egress_policy::describe::{RuleDescription, TableDescription};
use egress_policy::name::NamePattern;

use crate::cli::{DumpArgs, Failure, Subject};
use crate::datapath::inspect::{EndpointView, TableView};

use super::names::NameView;

/// What narrows an answer; nothing narrows it if all are `None`.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// `namespace/name`.
    pod: Option<String>,
    namespace: Option<String>,
    policy: Option<String>,
}

impl Scope {
    /// What the arguments ask for. A subject that is the node's cannot be narrowed.
    pub(super) fn new(arguments: &DumpArgs) -> Result<Self, Failure> {
        let scope = Self {
            pod: arguments.pod.as_ref().map(ToString::to_string),
            namespace: arguments.namespace.clone(),
            policy: arguments.policy.clone(),
        };
        match arguments.subject {
            Subject::Config | Subject::Stats if scope.narrows() => {
                Err(Failure::usage("config and stats are of the whole node; leave out --pod, --namespace and --policy"))
            }
            Subject::Endpoints
            | Subject::Tables
            | Subject::Rules
            | Subject::Counters
            | Subject::Flows
            | Subject::Names
            | Subject::Config
            | Subject::Stats
            | Subject::All => Ok(scope),
        }
    }

    #[cfg(test)]
    pub(super) fn of(pod: Option<&str>, namespace: Option<&str>, policy: Option<&str>) -> Self {
        let [pod, namespace, policy] = [pod, namespace, policy].map(|text| text.map(ToOwned::to_owned));
        Self { pod, namespace, policy }
    }

    pub(super) const fn narrows(&self) -> bool {
        self.pod.is_some() || self.namespace.is_some() || self.policy.is_some()
    }

    /// Whether the pod is asked for, judged by `table`.
    pub(super) fn admits(&self, endpoint: &EndpointView, table: Option<&TableView>) -> bool {
        let namespace = endpoint.name.split_once('/').map(|(namespace, _)| namespace);
        self.pod.as_ref().is_none_or(|pod| *pod == endpoint.name)
            && self.namespace.is_none_or_is(namespace)
            && self.admits_description(table.and_then(|table| table.description.as_deref()))
    }

    /// Whether a rule of the policy is in the table, if one is asked for.
    fn admits_description(&self, description: Option<&TableDescription>) -> bool {
        self.policy.is_none() || description.is_some_and(|table| table.ranked().any(|(_, rule)| self.admits_rule(rule)))
    }

    pub(super) fn admits_rule(&self, rule: &RuleDescription) -> bool {
        let policy = rule.policy.as_ref().map(ToString::to_string);
        self.policy.is_none_or_is(policy.as_deref())
    }

    /// The names that the tables' rules are about, as far as they are asked for.
    pub(super) fn patterns(&self, tables: &[TableView]) -> Vec<NamePattern> {
        let rules = tables.iter().filter_map(|table| table.description.as_deref()).flat_map(TableDescription::ranked);
        let mut texts: Vec<&str> =
            rules.filter(|(_, rule)| self.admits_rule(rule)).filter_map(|(_, rule)| rule.dns_name.as_deref()).collect();
        texts.sort_unstable();
        texts.dedup();
        texts.into_iter().filter_map(|text| NamePattern::parse(text).ok()).collect()
    }

    /// What to say where nothing fits. `known`: pods that there are.
    pub(super) fn nothing(&self, known: &[EndpointView]) -> Failure {
        let mut wanted = Vec::new();
        wanted.extend(self.pod.iter().map(|pod| format!("the pod {pod}")));
        wanted.extend(self.namespace.iter().map(|namespace| format!("a pod of namespace {namespace}")));
        if wanted.is_empty() {
            wanted.push("a pod".to_owned());
        }
        wanted.extend(self.policy.iter().map(|policy| format!("with rules of {policy}")));
        let names: Vec<&str> = known.iter().map(|endpoint| endpoint.name.as_str()).take(10).collect();
        let more = if known.len() > names.len() { ", …" } else { "" };
        let known =
            if names.is_empty() { "no pod is".to_owned() } else { format!("known here: {}{more}", names.join(", ")) };
        Failure::negative(format!("the kernel does not know {}; {known}", wanted.join(" ")))
    }
}

/// Whether a name, or the names that a place stands for, are among those that the patterns mean.
pub(super) fn is_meant(view: &NameView, patterns: &[NamePattern]) -> bool {
    let name = if view.concrete { view.name.as_str() } else { view.place.as_deref().unwrap_or_default() };
    // Any name of the place will do: patterns match all of them or none.
    let sample = match (name.strip_prefix("**.*."), name.strip_prefix("*.")) {
        (Some(suffix), _) => format!("x.x.{suffix}"),
        (None, Some(suffix)) => format!("x.{suffix}"),
        (None, None) => name.to_owned(),
    };
    patterns.iter().any(|pattern| pattern.matches(&sample))
}

trait Narrows {
    /// Whether nothing is wanted, or exactly this.
    fn is_none_or_is(&self, found: Option<&str>) -> bool;
}

impl Narrows for Option<String> {
    fn is_none_or_is(&self, found: Option<&str>) -> bool {
        self.as_deref().is_none_or(|wanted| found == Some(wanted))
    }
}
