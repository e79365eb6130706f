//! Files of probes with expectations: a list, in YAML or JSON.

use std::path::Path;

use egress_policy::model::PodIdentity;
use egress_policy::selector::Labels;
use serde::Deserialize;

use crate::cli::Failure;
use crate::destination::Asked;
use crate::pods::{ListedPods, PodName};

use super::read_text;

/// A connection, and what is expected of it.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub(super) pod: PodIdentity,
    pub(super) to: Asked,
    pub(super) expected: Option<Expected>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) allow: bool,
    /// What the deciding rule is called: its name, its text or its origin.
    pub(super) rule: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    from: String,
    to: String,
    expect: Action,
    rule: Option<String>,
    labels: Option<Labels>,
    service_account: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Action {
    #[serde(alias = "allow")]
    Allow,
    #[serde(alias = "deny")]
    Deny,
}

/// Reads a file of cases. With `listed` the pods are those of the endpoints file.
pub(super) fn read(path: &Path, listed: Option<&ListedPods>) -> Result<Vec<Probe>, Failure> {
    let file = path.display();
    let text = read_text(path)?;
    let cases: Vec<Case> = serde_saphyr::from_str(&text).map_err(|error| {
        Failure::usage(format!("{file} is not a list of {{from, to, expect: Allow|Deny, rule?}}: {error}"))
    })?;
    if cases.is_empty() {
        return Err(Failure::usage(format!("{file} has no case; a test of nothing proves nothing")));
    }
    let numbered = cases.iter().zip(1_usize..);
    numbered
        .map(|(case, number)| {
            probe(case, listed).map_err(|error| Failure::usage(format!("{file}, case {number}: {error}")))
        })
        .collect()
}

fn probe(case: &Case, listed: Option<&ListedPods>) -> Result<Probe, String> {
    let from: PodName = case.from.parse()?;
    let pod = match listed {
        Some(_) if case.labels.is_some() || case.service_account.is_some() => {
            return Err("labels and serviceAccount are those of the endpoints file; leave them out".to_owned());
        }
        Some(listed) => listed.find(&from).map_err(|failure| failure.to_string())?,
        None => PodIdentity {
            namespace: from.namespace,
            name: from.name,
            labels: case.labels.clone().unwrap_or_default(),
            service_account: case.service_account.clone(),
        },
    };
    let to = case.to.parse::<Asked>().map_err(|error| error.to_string())?;
    let expected = Expected { allow: case.expect == Action::Allow, rule: case.rule.clone() };
    Ok(Probe { pod, to, expected: Some(expected) })
}
