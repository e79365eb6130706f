//! `status.json`: what was read and what is in force, replaced as a whole after every apply; read by the command line.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::atomic_file;
use crate::events::rfc3339;
use crate::pods::PodName;
use crate::sources::Problem;

/// Version of the file's layout.
const VERSION: u32 = 1;
/// Name of the agent's process, as the kernel has it.
const PROCESS: &str = "egress-agent";

/// Counts for people and numbers for those who wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    /// Endpoints in the endpoints file.
    pub(crate) endpoints: usize,
    /// Of these, the ones that policies or the default action have something to say about.
    pub(crate) covered: usize,
    /// Of these, the ones that the kernel does not judge by what the files say: not found, or their rules do not fit.
    pub(crate) pending: BTreeSet<String>,
    /// Of these, the ones that the kernel judges; the others are covered by no policy, or could not be found.
    pub(crate) enforced: usize,
    /// Distinct tables in the kernel.
    pub(crate) tables: usize,
    pub(crate) policies: usize,
    /// Whether nothing is refused by policies or by the default action (`enforcement: Audit`).
    pub(crate) audit: bool,
    /// Pods that run and are not known yet: held to internal traffic (§6.6).
    pub(crate) held: usize,
    /// Objects of which an older version is in force, because the present one is broken.
    pub(crate) kept: usize,
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<String>,
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    generation: u64,
    applied_at: String,
    pid: u32,
    #[serde(flatten)]
    status: &'a Status,
}

/// What an agent last wrote of itself.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct LastStatus {
    pub(crate) generation: u64,
    pub(crate) applied_at: String,
    pub(crate) pid: u32,
    #[serde(flatten)]
    pub(crate) status: Status,
}

impl LastStatus {
    /// The status in `state_dir`; `None` if there is none that can be read.
    pub(crate) fn read(state_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(state_dir.join("status.json")).ok()?).ok()
    }

    /// Whether the agent that wrote it still runs.
    pub(crate) fn is_running(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/comm", self.pid)).is_ok_and(|name| name.trim_end() == PROCESS)
    }

    /// Problems for which what the pod is judged by may differ from what the files say: its own, those of objects that can select it,
    /// and those of the node as a whole.
    pub(crate) fn problems_of(&self, pod: &PodName) -> Vec<Problem> {
        let name = pod.to_string();
        let own_policy = format!("EgressNetworkPolicy {}/", pod.namespace);
        let namespace = format!("Namespace {}", pod.namespace);
        let concerns = |problem: &&Problem| {
            problem.object.as_ref().is_none_or(|object| {
                *object == name
                    || *object == namespace
                    || object.starts_with(&own_policy)
                    || object.starts_with("ClusterEgressPolicy")
                    || object.starts_with("EgressConfig")
            })
        };
        self.status.problems.iter().filter(concerns).cloned().collect()
    }
}

/// The file, and the number of what was last applied.
#[derive(Debug)]
pub(crate) struct StatusFile {
    path: PathBuf,
    generation: u64,
}

impl StatusFile {
    /// Numbers go on where an earlier agent stopped.
    pub(crate) fn new(state_dir: &Path) -> Self {
        let path = state_dir.join("status.json");
        Self { generation: LastStatus::read(state_dir).map_or(0, |last| last.generation), path }
    }

    /// The number of what was last written.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Writes `status` under the next number, which it returns, or under the present one if nothing `changed`.
    pub(crate) fn write(&mut self, status: &Status, changed: bool) -> io::Result<u64> {
        let generation = self.generation + u64::from(changed);
        let written = Written {
            version: VERSION,
            generation,
            applied_at: rfc3339(SystemTime::now()),
            pid: std::process::id(),
            status,
        };
        let mut bytes = serde_json::to_vec_pretty(&written)?;
        bytes.push(b'\n');
        atomic_file::write(&self.path, &bytes)?;
        self.generation = generation;
        Ok(generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_go_up_with_changes_only_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = StatusFile::new(folder.path());
        assert_eq!(file.write(&Status::default(), true).unwrap(), 1);
        assert_eq!(file.write(&Status::default(), false).unwrap(), 1);
        assert_eq!(StatusFile::new(folder.path()).write(&Status::default(), true).unwrap(), 2);
    }

    #[test]
    fn the_file_says_how_many_and_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let status = Status {
            endpoints: 2,
            policies: 3,
            problems: vec![Problem::new("a.yaml", "is broken")],
            ..Status::default()
        };
        StatusFile::new(folder.path()).write(&status, true).unwrap();
        let bytes = fs::read(folder.path().join("status.json")).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["endpoints"], 2);
        assert_eq!(value["policies"], 3);
        assert_eq!(value["problems"][0]["message"], "is broken");
        assert!(value["applied_at"].as_str().unwrap().ends_with('Z'));
    }
}
