//! Pods as a command line knows them: by name, from an endpoints file, or with labels that the command line itself gives.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use egress_policy::model::PodIdentity;

use crate::cli::Failure;
use crate::sources::{Endpoint, read_once};

/// `namespace/name` of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PodName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl FromStr for PodName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |part: &str| !part.is_empty() && !part.contains(|c: char| c == '/' || c.is_whitespace());
        match text.split_once('/') {
            Some((namespace, name)) if fits(namespace) && fits(name) => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(format!("{text:?} is not a pod; write NAMESPACE/POD, such as default/curl")),
        }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// `key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label(pub(crate) String, pub(crate) String);

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self(key.to_owned(), value.to_owned())),
            _ => Err(format!("{text:?} is not a label; write KEY=VALUE, such as app=web")),
        }
    }
}

/// The pods of an endpoints file, by name.
#[derive(Debug)]
pub(crate) struct ListedPods(BTreeMap<String, PodIdentity>);

impl ListedPods {
    /// Reads an endpoints file; one with problems is of no use.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let read = read_once(path);
        if !read.problems.is_empty() {
            let problems: Vec<String> = read.problems.iter().map(|problem| format!("\n  {problem}")).collect();
            return Err(Failure::usage(format!(
                "the endpoints file has problems; correct them first:{}",
                problems.concat()
            )));
        }
        Ok(Self(read.endpoints.iter().map(|endpoint| (endpoint.key(), identity(endpoint))).collect()))
    }

    /// The pod of this name.
    pub(crate) fn find(&self, name: &PodName) -> Result<PodIdentity, Failure> {
        self.0.get(&name.to_string()).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.0.keys().take(10).map(String::as_str).collect();
            let more = if self.0.len() > known.len() { ", …" } else { "" };
            Failure::usage(format!("{name} is not in the endpoints file, which has {}{more}", known.join(", ")))
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &PodIdentity)> {
        self.0.iter()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_read_and_others_are_told_what_to_write() {
        assert_eq!("default/curl".parse::<PodName>().unwrap().to_string(), "default/curl");
        for wrong in ["curl", "/curl", "default/", "a/b/c", ""] {
            assert!(wrong.parse::<PodName>().unwrap_err().contains("NAMESPACE/POD"), "{wrong}");
        }
        assert_eq!("app=a=b".parse(), Ok(Label("app".into(), "a=b".into())));
        assert_eq!("app=".parse(), Ok(Label("app".into(), String::new())));
        assert!("app".parse::<Label>().unwrap_err().contains("KEY=VALUE"));
    }
}
