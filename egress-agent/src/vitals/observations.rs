//! What policies under Audit would have refused, added up by who and where to: what `suggest` is made from.
//!
//! Bounded, least recently seen out first; kept in `observed.json`, so that `--since 1h` holds over a restart of the agent.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::atomic_file;
use crate::events::Record;

/// Distinct (pod, destination, protocol, port, policy) that are remembered.
const MOST: usize = 16_384;
/// As many go at once when there is no room, so that making room stays cheap.
const GO: usize = MOST / 16;
const VERSION: u32 = 1;

/// Who would have been refused, where to, and by which policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) remote: IpAddr,
    /// The name that the address was learned for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// `TCP`, or a number.
    pub(crate) protocol: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// Tier of the rule that would have refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tier: Option<String>,
    /// Its policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<String>,
}

/// How often, and when: seconds after 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) count: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// One attempt with its times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Observation {
    #[serde(flatten)]
    pub(crate) attempt: Attempt,
    #[serde(flatten)]
    pub(crate) times: Times,
}

/// What is stored, and what the socket answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Observed {
    pub(crate) version: u32,
    /// Attempts that made room for others.
    pub(crate) forgotten: u64,
    /// Events that the kernel only counted, so that nobody knows where they went.
    pub(crate) only_counted: u64,
    pub(crate) observations: Vec<Observation>,
}

/// Which observations are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Asked {
    pub(crate) namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<String>,
    /// Seen last at this second after 1970 or later.
    pub(crate) since: u64,
}

/// The store.
#[derive(Debug)]
pub(crate) struct Observations {
    path: PathBuf,
    seen: HashMap<Attempt, Times>,
    forgotten: u64,
    only_counted: u64,
    changed: bool,
}

impl Observed {
    /// What an agent last stored in `state_dir`; `None` if it cannot be read.
    pub(crate) fn read(state_dir: &Path) -> Option<Self> {
        let observed: Self = serde_json::from_slice(&fs::read(file(state_dir)).ok()?).ok()?;
        (observed.version == VERSION).then_some(observed)
    }

    /// Only what is asked for.
    pub(crate) fn only(mut self, asked: &Asked) -> Self {
        let pod = asked.pod.as_deref();
        self.observations.retain(|Observation { attempt, times }| {
            attempt.namespace == asked.namespace
                && pod.is_none_or(|pod| attempt.pod == pod)
                && times.last >= asked.since
        });
        self
    }
}

impl Observations {
    /// Goes on where an earlier agent stopped.
    pub(crate) fn load(state_dir: &Path) -> Self {
        let stored = Observed::read(state_dir).unwrap_or_default();
        Self {
            path: file(state_dir),
            seen: stored.observations.into_iter().map(|seen| (seen.attempt, seen.times)).collect(),
            forgotten: stored.forgotten,
            only_counted: stored.only_counted,
            changed: false,
        }
    }

    /// Notes what would have been refused; other events are none of its business.
    pub(super) fn saw(&mut self, record: &Record) {
        if record.outcome != "would-deny" {
            return;
        }
        let Some(namespace) = record.namespace.clone() else { return };
        let attempt = Attempt {
            namespace,
            pod: record.pod.clone(),
            remote: record.destination,
            name: record.name.clone(),
            protocol: record.protocol(),
            port: record.port,
            tier: record.tier.clone().map(std::borrow::Cow::into_owned),
            policy: record.policy.clone(),
        };
        self.note(attempt, now());
        self.only_counted += u64::from(record.repeats);
    }

    fn note(&mut self, attempt: Attempt, now: u64) {
        self.changed = true;
        if let Some(times) = self.seen.get_mut(&attempt) {
            (times.count, times.last) = (times.count + 1, now);
            return;
        }
        if self.seen.len() >= MOST {
            self.make_room();
        }
        self.seen.insert(attempt, Times { count: 1, first: now, last: now });
    }

    fn make_room(&mut self) {
        let mut last: Vec<u64> = self.seen.values().map(|times| times.last).collect();
        let (_, oldest, _) = last.select_nth_unstable(GO);
        let (oldest, mut left) = (*oldest, GO);
        // Of those that were seen in the same second only as many as have to.
        self.seen.retain(|_, times| {
            let goes = left > 0 && times.last <= oldest;
            left -= usize::from(goes);
            !goes
        });
        self.forgotten += u64::try_from(GO - left).unwrap_or(u64::MAX);
    }

    /// Everything that is remembered, in an order that does not depend on chance.
    pub(crate) fn all(&self) -> Observed {
        let seen = self.seen.iter();
        let mut observations: Vec<Observation> =
            seen.map(|(attempt, times)| Observation { attempt: attempt.clone(), times: *times }).collect();
        observations.sort_by(|a, b| a.attempt.cmp(&b.attempt));
        Observed { version: VERSION, forgotten: self.forgotten, only_counted: self.only_counted, observations }
    }

    /// What is to be stored, and where; `None` if nothing is new.
    pub(super) fn unsaved(&mut self) -> Option<(PathBuf, Observed)> {
        std::mem::take(&mut self.changed).then(|| (self.path.clone(), self.all()))
    }
}

/// Stores observations for the next agent.
pub(super) fn save(path: &Path, observed: &Observed) -> io::Result<()> {
    atomic_file::write(path, &serde_json::to_vec(observed)?)
}

/// Seconds after 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("observed.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::sample;

    fn attempt(number: u32) -> Attempt {
        Attempt {
            namespace: "shop".into(),
            pod: "web".into(),
            remote: IpAddr::V4(number.into()),
            name: None,
            protocol: "TCP".into(),
            port: Some(443),
            tier: None,
            policy: None,
        }
    }

    #[test]
    fn the_same_attempt_is_one_entry_that_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Observations::load(folder.path());
        assert_eq!(store.unsaved(), None);
        for repeats in [0, 5] {
            store.saw(&Record { outcome: "would-deny".into(), repeats, ..sample() });
        }
        store.saw(&sample());
        let all = store.all();
        assert_eq!((all.observations.len(), all.only_counted), (1, 5));
        assert_eq!(all.observations[0].times.count, 2);
        let (path, unsaved) = store.unsaved().unwrap();
        save(&path, &unsaved).unwrap();
        assert_eq!(store.unsaved(), None);
        assert_eq!(Observations::load(folder.path()).all(), all);
    }

    #[test]
    fn what_was_seen_least_recently_makes_room_and_that_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Observations::load(folder.path());
        let most = u32::try_from(MOST).unwrap();
        for number in 0..=most {
            store.note(attempt(number), u64::from(number));
        }
        assert_eq!((store.seen.len(), store.forgotten), (MOST - GO + 1, GO as u64));
        assert!(!store.seen.contains_key(&attempt(0)) && store.seen.contains_key(&attempt(most)));
        // Many in one second: no more than needed go.
        for number in 0..2 * most {
            store.note(attempt(number), u64::from(most) + 1);
        }
        assert!(store.seen.len() > MOST - GO);
    }

    #[test]
    fn a_question_is_about_a_namespace_a_pod_and_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Observations::load(folder.path());
        store.note(attempt(1), 100);
        store.note(Attempt { pod: "db".into(), ..attempt(2) }, 200);
        store.note(Attempt { namespace: "other".into(), ..attempt(3) }, 300);
        let count = |pod: Option<&str>, since| {
            let asked = Asked { namespace: "shop".into(), pod: pod.map(ToOwned::to_owned), since };
            store.all().only(&asked).observations.len()
        };
        assert_eq!((count(None, 0), count(None, 150), count(Some("web"), 0), count(Some("web"), 150)), (2, 1, 1, 0));
    }
}
