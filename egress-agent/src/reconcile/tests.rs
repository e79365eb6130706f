//! Rounds against a kernel that only remembers what it was told.

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use egress_policy::compile::Limits;
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::datapath::{Applied, DatapathError, Desired, Problem};
use crate::discovery::Discovery;
use crate::sources::{EndpointSource, PolicySource};

/// What a kernel would have, and what it refuses.
#[derive(Clone, Default)]
struct Remembering(Arc<Mutex<Memory>>);

#[derive(Default)]
struct Memory {
    desired: Option<Desired>,
    refuse_all: bool,
    refuse: Option<String>,
    unattached: Option<String>,
}

impl Kernel for Remembering {
    fn apply(&mut self, desired: &Desired) -> Result<Applied, DatapathError> {
        let mut memory = self.0.lock().unwrap();
        if memory.refuse_all {
            return Err(DatapathError::Missing("anything"));
        }
        memory.desired = Some(desired.clone());
        let problem = |endpoint: &String| Problem { endpoint: endpoint.clone(), message: "no room".into() };
        Ok(Applied {
            endpoints: desired.endpoints.len(),
            problems: memory.refuse.iter().map(problem).collect(),
            unattached: memory.unattached.iter().cloned().collect(),
            ..Applied::default()
        })
    }
}

struct Lab {
    files: TempDir,
    kernel: Remembering,
    reconciler: Reconciler<Remembering>,
}

fn reconciler(files: &Path, kernel: &Remembering, limits: Limits) -> Reconciler<Remembering> {
    let policies = PolicySource::new(&files.join("policies"), None, files);
    let planner = Planner::new(limits, 10, policies.last_good());
    let endpoints = EndpointSource::new(&files.join("endpoints.yaml"), files);
    let sources = Sources {
        origin: Origin::Files { policies: Box::new(policies), endpoints },
        discovery: Discovery::new("/".into()).unwrap(),
    };
    Reconciler::new(sources, planner, kernel.clone(), StatusFile::new(files))
}

impl Lab {
    /// Two pods on the loopback interface of this machine would be one too many, so `b` has none.
    fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    fn with_limits(limits: Limits) -> Self {
        let files = tempfile::tempdir().unwrap();
        fs::create_dir(files.path().join("policies")).unwrap();
        let kernel = Remembering::default();
        let lab = Self { reconciler: reconciler(files.path(), &kernel, limits), files, kernel };
        lab.write("endpoints.yaml", "endpoints: [{namespace: default, name: a, interface: lo, labels: {app: a}}]");
        lab
    }

    fn restart(&mut self, limits: Limits) {
        self.reconciler = reconciler(self.files.path(), &self.kernel, limits);
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.files.path().join(name), text).unwrap();
    }

    fn round(&mut self) -> Status {
        self.reconciler.round(Work::ALL).unwrap().status
    }

    fn status(&self) -> Value {
        serde_json::from_slice(&fs::read(self.files.path().join("status.json")).unwrap()).unwrap()
    }

    /// The verdict for `address` TCP/80 of the only endpoint; none if it is not judged.
    fn allows(&self, address: &str) -> Option<bool> {
        let memory = self.kernel.0.lock().unwrap();
        let endpoint = memory.desired.as_ref().unwrap().endpoints.first()?;
        let lookup = endpoint.table.table.lookup(address.parse().unwrap(), 6, 80);
        Some(!lookup.decision.is_deny())
    }
}

use status::Status;

fn policy(rules: &str) -> String {
    format!(
        "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: p, namespace: default}}\nspec: {{egress: [{rules}]}}\n"
    )
}

fn rule(action: &str, cidr: &str) -> String {
    format!("{{type: {action}, to: {{cidrSelector: \"{cidr}\"}}}},")
}

#[test]
fn a_pod_without_a_policy_is_not_judged_and_one_with_a_policy_is() {
    let mut lab = Lab::new();
    let status = lab.round();
    assert_eq!((status.endpoints, status.enforced, status.policies), (1, 0, 0));
    lab.write(
        "policies/p.yaml",
        &policy(&(rule("Allow", "1.2.3.0/24") + &rule("Deny", "0.0.0.0/0") + &rule("Deny", "::/0"))),
    );
    let status = lab.round();
    assert_eq!((status.enforced, status.policies), (1, 1));
    assert_eq!(lab.allows("1.2.3.4"), Some(true));
    assert_eq!(lab.allows("8.8.8.8"), Some(false));
    assert_eq!(lab.allows("2001:db8::1"), Some(false));
    fs::remove_file(lab.files.path().join("policies/p.yaml")).unwrap();
    lab.round();
    assert_eq!(lab.allows("8.8.8.8"), None);
}

#[test]
fn the_generation_goes_up_with_every_change_that_was_told_and_not_without() {
    let mut lab = Lab::new();
    lab.round();
    assert_eq!(lab.status()["generation"], 1);
    lab.reconciler.round(Work { discover: true, ..Work::default() }).unwrap();
    assert_eq!(lab.status()["generation"], 1);
    lab.reconciler.round(Work { files: true, told: false, discover: true }).unwrap();
    assert_eq!(lab.status()["generation"], 1);
    lab.round();
    assert_eq!(lab.status()["generation"], 2);
    lab.restart(Limits::default());
    lab.round();
    assert_eq!(lab.status()["generation"], 3);
}

#[test]
fn a_broken_file_changes_nothing_and_the_status_says_why() {
    let mut lab = Lab::new();
    lab.write("policies/p.yaml", &policy(&rule("Deny", "0.0.0.0/0")));
    lab.round();
    lab.write("policies/p.yaml", &policy(&rule("Deny", "nonsense")));
    let status = lab.round();
    assert_eq!(lab.allows("8.8.8.8"), Some(false));
    assert_eq!(status.kept, 1);
    let problem = &lab.status()["problems"][0];
    assert_eq!(problem["source"], "p.yaml");
    assert_eq!(problem["path"], "spec.egress[0].to.cidrSelector");
}

fn too_many() -> String {
    let rules: Vec<String> = (0..40).map(|i| rule("Allow", &format!("10.{i}.0.0/16"))).collect();
    policy(&rules.concat())
}

const FEW: Limits = Limits { prefixes: 30, class_entries: 1 << 20, rules: 1 << 20, names: 1 << 16 };

#[test]
fn a_policy_that_does_not_fit_leaves_the_table_in_force_and_says_the_numbers() {
    let mut lab = Lab::with_limits(FEW);
    lab.write("policies/p.yaml", &policy(&rule("Deny", "8.0.0.0/8")));
    lab.round();
    lab.write("policies/p.yaml", &too_many());
    let status = lab.round();
    assert_eq!(lab.allows("8.8.8.8"), Some(false));
    assert_eq!(lab.allows("9.9.9.9"), Some(true));
    assert!(status.problems[0].message.contains("30 fit"), "{}", status.problems[0]);
    // A restarted agent knows only what is stored: the policies that fitted.
    lab.restart(FEW);
    lab.round();
    assert_eq!(lab.allows("8.8.8.8"), Some(false));
    assert_eq!(lab.allows("9.9.9.9"), Some(true));
}

#[test]
fn a_pod_whose_first_policy_does_not_fit_is_held_to_internal_traffic() {
    let mut lab = Lab::with_limits(FEW);
    lab.write("policies/p.yaml", &too_many());
    lab.round();
    assert_eq!(lab.allows("9.9.9.9"), Some(false));
    assert_eq!(lab.allows("2001:db8::1"), Some(false));
    assert_eq!(lab.allows("127.0.0.1"), Some(true));
    let config =
        "apiVersion: egress.rs/v1alpha1\nkind: EgressConfig\nmetadata: {name: default}\nspec: {unknownPods: Allow}\n";
    lab.write("policies/config.yaml", config);
    lab.restart(FEW);
    lab.round();
    assert_eq!(lab.allows("9.9.9.9"), None);
}

#[test]
fn a_failed_apply_is_in_the_status_and_is_made_up_for() {
    let mut lab = Lab::new();
    lab.round();
    lab.kernel.0.lock().unwrap().refuse_all = true;
    lab.write("policies/p.yaml", &policy(&rule("Deny", "0.0.0.0/0")));
    assert!(lab.reconciler.round(Work::ALL).is_err());
    assert!(!lab.reconciler.is_complete());
    assert_eq!(lab.status()["generation"], 1);
    assert_eq!(lab.status()["problems"][0]["source"], "kernel");
    lab.kernel.0.lock().unwrap().refuse_all = false;
    lab.reconciler.round(Work::default()).unwrap();
    assert_eq!(lab.status()["generation"], 2);
    assert_eq!(lab.status()["problems"].as_array().map(Vec::len), Some(0));
    assert_eq!(lab.allows("8.8.8.8"), Some(false));
}

#[test]
fn an_endpoint_that_the_kernel_refused_is_not_realized_and_is_tried_again() {
    let mut lab = Lab::new();
    lab.kernel.0.lock().unwrap().refuse = Some("default/a".into());
    lab.write("policies/p.yaml", &policy(&rule("Deny", "0.0.0.0/0")));
    let status = lab.round();
    assert_eq!(status.problems[0].object.as_deref(), Some("default/a"));
    assert!(!lab.reconciler.is_complete());
    lab.kernel.0.lock().unwrap().refuse = None;
    lab.round();
    assert!(lab.reconciler.is_complete());
}

#[test]
fn equal_rules_share_one_table_and_unchanged_ones_are_not_compiled_again() {
    let mut lab = Lab::new();
    lab.write("policies/p.yaml", &policy(&rule("Deny", "0.0.0.0/0")));
    lab.round();
    let table = |lab: &Lab| Arc::clone(&lab.kernel.0.lock().unwrap().desired.as_ref().unwrap().endpoints[0].table);
    let first = table(&lab);
    lab.round();
    assert!(Arc::ptr_eq(&first, &table(&lab)));
}

/// Rules with a port, each about an address of its own, and then `last`.
fn long_policy(first_port: u16, last: &str) -> String {
    let of = |number: u32| {
        let port = if number == 0 { first_port } else { 80 };
        let address = std::net::Ipv4Addr::from(0x1400_0001 + number * 77);
        format!("{{type: Allow, to: {{cidrSelector: {address}/32}}, ports: [{{protocol: TCP, port: {port}}}]}},")
    };
    policy(
        &((0..1100).map(of).collect::<String>()
            + &rule("Allow", "198.51.100.0/24")
            + last
            + &rule("Deny", "0.0.0.0/0")),
    )
}

#[test]
fn of_a_long_list_what_changed_is_compiled_and_its_warnings_come_after() {
    let mut lab = Lab::new();
    let table = |lab: &Lab| Arc::clone(&lab.kernel.0.lock().unwrap().desired.as_ref().unwrap().endpoints[0].table);
    let shadowed = |status: &Status| status.warnings.iter().any(|warning| warning.contains("rule 1102"));
    lab.write("policies/p.yaml", &long_policy(80, &rule("Deny", "203.0.113.0/24")));
    assert!(!shadowed(&lab.round()));
    let first = table(&lab);
    assert_eq!((lab.allows("20.0.0.1"), lab.allows("203.0.113.1")), (Some(true), Some(false)));
    // The second of these rules is covered by one before it.
    lab.write("policies/p.yaml", &long_policy(443, &rule("Deny", "198.51.100.7/32")));
    let status = lab.round();
    assert!(shadowed(&status), "{:?}", status.warnings);
    let second = table(&lab);
    assert_eq!((lab.allows("20.0.0.1"), lab.allows("198.51.100.7")), (Some(false), Some(true)));
    assert_ne!(first.fingerprint, second.fingerprint);
    // New classes stand behind those that were there: nothing else was compiled.
    assert!(second.table.classes.begins_with(&first.table.classes));
    let added = second.table.classes.len() - first.table.classes.len();
    assert!((1..10).contains(&added), "{added}");
    // An agent that starts now compiles all of it, under the same name.
    lab.restart(Limits::default());
    assert!(shadowed(&lab.round()));
    let again = table(&lab);
    assert_eq!(again.fingerprint, second.fingerprint);
    assert!(again.table.classes.len() < second.table.classes.len());
    assert_eq!(again.table.prefixes(), second.table.prefixes());
}

#[test]
fn what_one_round_has_no_time_for_is_pending_and_the_next_round_comes_at_once() {
    let mut lab = Lab::new();
    lab.kernel.0.lock().unwrap().unattached = Some("default/a".into());
    lab.write("policies/p.yaml", &policy(&rule("Deny", "0.0.0.0/0")));
    let status = lab.round();
    assert_eq!(status.pending.iter().map(String::as_str).collect::<Vec<_>>(), ["default/a"]);
    assert!(lab.reconciler.has_more() && !lab.reconciler.is_complete());
    lab.kernel.0.lock().unwrap().unattached = None;
    let outcome = lab.reconciler.round(Work::default()).unwrap();
    assert!(outcome.status.pending.is_empty() && !outcome.changed);
    assert!(!lab.reconciler.has_more() && lab.reconciler.is_complete());
    // It takes what has come meanwhile, and waits for nothing.
    let (sender, wakes) = mpsc::channel();
    assert_eq!(take(&wakes, Work::default()), Some(Work::default()));
    sender.send(Wake::Links).unwrap();
    assert_eq!(take(&wakes, Work::default()), Some(Work { discover: true, ..Work::default() }));
}

#[test]
fn wakes_that_came_together_are_one_round_and_stop_ends_all() {
    let (sender, wakes) = mpsc::channel();
    let soon = Duration::ZERO;
    sender.send(Wake::Links).unwrap();
    sender.send(Wake::Files).unwrap();
    assert_eq!(next(&wakes, soon), Some(Work::ALL));
    assert_eq!(next(&wakes, soon), Some(Work { discover: true, ..Work::default() }));
    sender.send(Wake::Rescan).unwrap();
    assert_eq!(next(&wakes, soon), Some(Work { told: false, ..Work::ALL }));
    sender.send(Wake::Files).unwrap();
    sender.send(Wake::Stop).unwrap();
    assert_eq!(next(&wakes, soon), None);
}
