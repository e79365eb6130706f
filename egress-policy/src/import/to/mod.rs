//! The way back: our objects as those of OpenShift, OVN-Kubernetes or network-policy-api, as far as these can say it.
//!
//! Reported as an import is, with the same words. What the target cannot say is left out of a rule or leaves the rule out, and never
//! added: a shorter Allow is narrower, a shorter Deny is wider, and so is a shorter Pass, which may do either.

mod cnp;
mod listed;

use std::collections::BTreeSet;

use serde_json::Value;

use super::manifest::{Manifest, RuleSource, Spec};
use super::report::{Judgement, Outcome, Row};
use super::{Imported, Report};
use crate::spec::{Action, DefaultAction, EgressConfigSpec, EgressRule, Mode};

/// Whose objects are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// OpenShift's `EgressNetworkPolicy`.
    OpenShift,
    /// OVN-Kubernetes' `EgressFirewall`.
    Ovn,
    /// network-policy-api's `ClusterNetworkPolicy`.
    Cnp,
}

impl Target {
    /// What the command line calls the targets.
    pub const NAMES: [(&'static str, Self); 3] =
        [("openshift", Self::OpenShift), ("ovn", Self::Ovn), ("cnp", Self::Cnp)];

    /// The target of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
    }

    const fn title(self) -> &'static str {
        match self {
            Self::OpenShift => "an OpenShift EgressNetworkPolicy",
            Self::Ovn => "an EgressFirewall",
            Self::Cnp => "a ClusterNetworkPolicy",
        }
    }
}

/// Writes the objects of an import as those of `target`; the differences are added to its report.
pub fn export(imported: &Imported, target: Target) -> Imported {
    let mut written = Written { target, objects: Vec::new(), report: imported.report.clone(), names: BTreeSet::new() };
    // That our own objects were read as themselves is no news.
    let is_itself = |row: &Row| row.why.is_empty() && row.into.iter().all(|into| into.ends_with(&row.object));
    written.report.rows.retain(|row| row.outcome != Outcome::Exact || row.into.is_empty() || !is_itself(row));
    for object in &imported.objects {
        if let Spec::Config(config) = &object.spec {
            written.config(object, config);
        }
    }
    match target {
        Target::OpenShift | Target::Ovn => listed::write(&imported.objects, &mut written),
        Target::Cnp => cnp::write(&imported.objects, &mut written),
    }
    Imported { objects: written.objects, report: written.report }
}

/// What is written so far.
struct Written {
    target: Target,
    objects: Vec<Manifest>,
    report: Report,
    /// Names that are taken.
    names: BTreeSet<String>,
}

impl Written {
    /// Says of a rule of ours what became of it.
    fn said(&mut self, rule: Rule<'_>, judgement: Judgement, into: Vec<String>) {
        let source = rule.source.clone();
        self.report.rows.push(Row {
            source: source.source,
            document: source.document,
            line: source.line,
            object: rule.object.title(),
            path: format!("spec.egress[{}]", rule.number - 1),
            rule: rule.words(),
            outcome: judgement.outcome,
            why: judgement.why,
            into,
        });
    }

    /// `name`, or something like it that no object has.
    fn name_apart(&mut self, name: &str) -> String {
        let mut apart = name.to_owned();
        let mut number = 2;
        while !self.names.insert(apart.clone()) {
            apart = format!("{name}-{number}");
            number += 1;
        }
        apart
    }

    /// Leaves out every rule of `object`.
    fn leave_out(&mut self, object: &Manifest, why: &str) {
        for rule in rules(object) {
            let outcome = if is_audit(object) { Outcome::NotExpressed } else { shorter(rule.said.action) };
            self.said(rule, Judgement::of(outcome, why), Vec::new());
        }
    }

    fn config(&mut self, object: &Manifest, config: &EgressConfigSpec) {
        let mut judgement = Judgement::exact();
        if config.default_action == Some(DefaultAction::Deny) {
            judgement.add(Outcome::Wider, format!("what no rule matches passes in {}", self.target.title()));
        }
        if config.excluded_cidrs.as_ref().is_some_and(|cidrs| !cidrs.is_empty()) {
            judgement.add(Outcome::Narrower, "excludedCIDRs are left out; write an Allow for them at the front");
        }
        judgement
            .add(Outcome::NotExpressed, format!("the other settings have no counterpart in {}", self.target.title()));
        self.report.rows.push(Row {
            source: String::new(),
            document: 0,
            line: None,
            object: object.title(),
            path: "spec".to_owned(),
            rule: "settings".to_owned(),
            outcome: judgement.outcome,
            why: judgement.why,
            into: Vec::new(),
        });
    }
}

/// A rule of ours with its place.
#[derive(Clone, Copy)]
struct Rule<'m> {
    object: &'m Manifest,
    /// From 1.
    number: usize,
    said: &'m EgressRule,
    source: &'m RuleSource,
}

impl Rule<'_> {
    fn words(&self) -> String {
        let except = self.said.to.except.as_deref().filter(|except| !except.is_empty());
        let except = except.map(|except| format!(" except {}", except.join(","))).unwrap_or_default();
        super::build::words(self.said.action, &(self.said.to.words() + &except), self.said.ports.as_deref())
    }
}

fn rules(object: &Manifest) -> impl Iterator<Item = Rule<'_>> {
    static NOWHERE: RuleSource = RuleSource { source: String::new(), document: 0, line: None };
    let rules: &[EgressRule] = match &object.spec {
        Spec::Policy(spec) => &spec.egress,
        Spec::Cluster(spec) => &spec.egress,
        Spec::Config(_) | Spec::Foreign(_) => &[],
    };
    let sources = object.sources.iter().chain(std::iter::repeat(&NOWHERE));
    rules.iter().zip(1..).zip(sources).map(move |((rule, number), source)| Rule { object, number, said: rule, source })
}

fn is_audit(object: &Manifest) -> bool {
    let mode = match &object.spec {
        Spec::Policy(spec) => spec.mode,
        Spec::Cluster(spec) => spec.mode,
        Spec::Config(_) | Spec::Foreign(_) => None,
    };
    mode == Some(Mode::Audit)
}

/// What it means that a rule matches less than it should, or nothing.
const fn shorter(action: Action) -> Outcome {
    match action {
        Action::Allow => Outcome::Narrower,
        Action::Deny | Action::Pass => Outcome::Wider,
    }
}

/// What is left of a rule's ports.
enum Ports {
    Any,
    Listed(Vec<Value>),
    /// There were some, and none of them can be said.
    Nothing,
}

impl Ports {
    fn of(listed: Vec<Value>) -> Self {
        if listed.is_empty() { Self::Nothing } else { Self::Listed(listed) }
    }

    /// The value of the field for ports, if the rule is to have it.
    fn field(&self) -> Option<Value> {
        match self {
            Self::Listed(ports) => Some(Value::Array(ports.clone())),
            Self::Any | Self::Nothing => None,
        }
    }
}

/// An object of the fields that have a value.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let there = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(there.collect())
}

const AUDIT: &str = "a policy under Audit decides nothing, and is left out";

fn foreign(
    api_version: &'static str,
    kind: &'static str,
    namespace: Option<String>,
    name: &str,
    spec: Value,
) -> Manifest {
    let mut object = Manifest::new(namespace, name, Spec::Foreign(spec));
    object.api_version = api_version;
    object.kind = kind;
    object
}
