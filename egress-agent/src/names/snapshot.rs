//! `names.json`: what the running agent knows of concrete names, for `dump names`, `why` and people. Replaced as a whole.
//!
//! The kernel has only ids; without this file, an address is shown with the pattern of its id.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::answer::Family;
use super::directory::Directory;
use super::figures::Figures;
use super::known::{Held, Name, Question};
use super::lifetime::Moment;
use crate::atomic_file;
use crate::events::rfc3339;

/// Version of the file's layout.
const VERSION: u32 = 1;
/// Name of the file in the state folder.
const FILE: &str = "names.json";

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Snapshot {
    version: u32,
    /// When it was written, RFC 3339.
    pub(crate) time: String,
    pub(crate) figures: Figures,
    pub(crate) names: Vec<NameRow>,
}

/// A concrete name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NameRow {
    pub(crate) name: String,
    /// Its name id now; none if no rule is about it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<u32>,
    /// The most exact pattern of the rules that matches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pattern: Option<String>,
    pub(crate) addresses: Vec<AddressRow>,
    /// One for each type of records that the agent asks for.
    pub(crate) lookups: Vec<LookupRow>,
}

/// An address of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AddressRow {
    pub(crate) address: IpAddr,
    /// Second of `CLOCK_MONOTONIC` at which it ends, as in the kernel's map.
    pub(crate) ends: u64,
    /// `polled`, `learned` or `polled and learned`.
    pub(crate) source: String,
}

/// How the lookups of one type of records went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LookupRow {
    /// `A` or `AAAA`.
    pub(crate) records: String,
    /// Second of `CLOCK_MONOTONIC` of the last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_success: Option<u64>,
    /// What the last answer was, if it was no address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) absence: Option<String>,
    /// Failures since the last answer.
    pub(crate) failures: u32,
    /// What the last failure was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_error: Option<String>,
    /// Second of `CLOCK_MONOTONIC` at which the next lookup is due.
    pub(crate) next: u64,
}

impl Snapshot {
    /// The file in `state_dir`; `None` if there is none that can be read.
    pub(crate) fn read(state_dir: &Path) -> Option<Self> {
        let snapshot: Self = serde_json::from_slice(&fs::read(state_dir.join(FILE)).ok()?).ok()?;
        (snapshot.version == VERSION).then_some(snapshot)
    }

    /// What is known now.
    pub(crate) fn new(directory: &Directory, now: Moment) -> Self {
        Self {
            version: VERSION,
            time: rfc3339(SystemTime::now()),
            figures: directory.figures.clone(),
            names: directory.known.iter().map(|(text, name)| row(directory, text, name, now)).collect(),
        }
    }
}

fn row(directory: &Directory, text: &str, name: &Name, now: Moment) -> NameRow {
    let id = directory.registry.id_of(text);
    let lookups = Family::ALL.into_iter().filter_map(|family| Some(lookup(family, name.question(family)?)));
    NameRow {
        name: text.to_owned(),
        id,
        pattern: id.and_then(|id| directory.registry.pattern(id)),
        addresses: name.live(now).map(|(address, held)| held_row(address, held)).collect(),
        lookups: lookups.collect(),
    }
}

fn held_row(address: IpAddr, held: &Held) -> AddressRow {
    let source = match (held.polled, held.learned) {
        (true, true) => "polled and learned",
        (false, true) => "learned",
        (true | false, false) => "polled",
    };
    AddressRow { address, ends: held.end.as_secs(), source: source.to_owned() }
}

fn lookup(family: Family, question: &Question) -> LookupRow {
    LookupRow {
        records: family.to_string(),
        last_success: question.answered.as_ref().map(Moment::as_secs),
        absence: question.absence.map(|absence| absence.to_string()),
        failures: question.failures,
        last_error: question.error.clone(),
        next: question.due.as_secs(),
    }
}

/// The file, written when it would say something new.
#[derive(Debug)]
pub(crate) struct SnapshotFile {
    path: PathBuf,
    written: Option<Snapshot>,
}

impl SnapshotFile {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join(FILE), written: None }
    }

    /// Replaces the file, unless it says the same.
    pub(crate) fn write(&mut self, snapshot: Snapshot) -> io::Result<()> {
        let same = |written: &Snapshot| written.names == snapshot.names && written.figures == snapshot.figures;
        if self.written.as_ref().is_some_and(same) {
            return Ok(());
        }
        let mut bytes = serde_json::to_vec(&snapshot)?;
        bytes.push(b'\n');
        atomic_file::write(&self.path, &bytes)?;
        self.written = Some(snapshot);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
