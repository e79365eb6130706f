//! What the agent last wrote of itself in `status.json`, as far as it concerns one pod.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::pods::PodName;

/// Name of the agent's process, as the kernel has it.
const PROCESS: &str = "egress-agent";

/// The file.
#[derive(Debug, Deserialize)]
pub(super) struct Status {
    pub(super) pid: u32,
    pub(super) applied_at: String,
    pub(super) generation: u64,
    problems: Vec<Told>,
}

/// A problem that the agent reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Told {
    pub(super) source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) object: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
    pub(super) message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
}

impl Status {
    /// The status in `state_dir`; `None` if there is none that can be read.
    pub(super) fn read(state_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(state_dir.join("status.json")).ok()?).ok()
    }

    /// Whether the agent that wrote it still runs.
    pub(super) fn is_running(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/comm", self.pid)).is_ok_and(|name| name.trim_end() == PROCESS)
    }

    /// Problems for which what the pod is judged by may differ from what the files say: its own, those of objects that can select it,
    /// and those of the node as a whole.
    pub(super) fn problems_of(&self, pod: &PodName) -> Vec<Told> {
        let name = pod.to_string();
        let own_policy = format!("EgressNetworkPolicy {}/", pod.namespace);
        let namespace = format!("Namespace {}", pod.namespace);
        let concerns = |told: &&Told| {
            told.object.as_ref().is_none_or(|object| {
                *object == name
                    || *object == namespace
                    || object.starts_with(&own_policy)
                    || object.starts_with("ClusterEgressPolicy")
                    || object.starts_with("EgressConfig")
            })
        };
        self.problems.iter().filter(concerns).cloned().collect()
    }
}
