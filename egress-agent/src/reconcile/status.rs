//! `status.json`: what was read and what is in force, replaced as a whole after every apply.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::atomic_file;
use crate::events::rfc3339;
use crate::sources::Problem;

/// Version of the file's layout.
const VERSION: u32 = 1;

/// Counts for people and numbers for those who wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Status {
    /// Endpoints in the endpoints file.
    pub(crate) endpoints: usize,
    /// Of these, the ones that the kernel judges; the others are covered by no policy, or could not be found.
    pub(crate) enforced: usize,
    /// Distinct tables in the kernel.
    pub(crate) tables: usize,
    pub(crate) policies: usize,
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

#[derive(Deserialize)]
struct Read {
    generation: u64,
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
        let read = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Read>(&bytes).ok());
        Self { generation: read.map_or(0, |read| read.generation), path }
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
