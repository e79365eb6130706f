//! What each rule has counted in all. The kernel's counters belong to a table version and start at zero with it; what retired versions
//! had counted is kept here and in `totals.json`, so that totals go on over changes of policies and restarts of the agent.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use egress_common::table::Counter;
use egress_policy::describe::RuleDescription;
use egress_policy::model::{Action, Mode};
use serde::{Deserialize, Serialize};

use crate::atomic_file;
use crate::datapath::Counted;

/// Rules of retired tables that are remembered; further ones are added up under [`OTHER`].
const MOST_RULES: usize = 10_000;
/// What is counted under no name of its own.
pub(crate) const OTHER: &str = "other";

/// Which rule, over all tables that it is in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct RuleKey {
    /// `default/curl`; empty for builtin rules and the default action.
    pub(crate) policy: String,
    /// The rule's number in the policy, or what messages call it.
    pub(crate) rule: String,
    /// `allow` or `deny`; `audit-allow` or `audit-deny` for a rule that decides nothing.
    pub(crate) verdict: String,
}

impl RuleKey {
    fn new(rule: &RuleDescription) -> Self {
        let verdict = match (rule.mode, rule.action) {
            (Mode::Enforce, Action::Deny) => "deny",
            (Mode::Enforce, Action::Allow | Action::Pass) => "allow",
            (Mode::Audit, Action::Deny) => "audit-deny",
            (Mode::Audit, Action::Allow | Action::Pass) => "audit-allow",
        };
        Self {
            policy: rule.policy.as_ref().map(ToString::to_string).unwrap_or_default(),
            rule: rule.number.map_or_else(|| rule.origin.clone(), |number| number.to_string()),
            verdict: verdict.to_owned(),
        }
    }

    /// Of a table that counts only allowed and denied.
    fn shared(index: u32) -> Self {
        let verdict = if index == 0 { "allow" } else { "deny" };
        Self { policy: OTHER.to_owned(), rule: OTHER.to_owned(), verdict: verdict.to_owned() }
    }

    /// The same verdict under no rule's name.
    pub(crate) fn other(&self) -> Self {
        Self { policy: OTHER.to_owned(), rule: OTHER.to_owned(), verdict: self.verdict.clone() }
    }
}

/// Packets or refused calls, and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, packets: u64, bytes: u64) {
        self.packets = self.packets.saturating_add(packets);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Tallies by rule.
pub(crate) type ByRule = BTreeMap<RuleKey, Tally>;

#[derive(Default, Serialize, Deserialize)]
struct Stored {
    version: u32,
    rules: Vec<(RuleKey, Tally)>,
}

const VERSION: u32 = 1;

/// What retired tables had counted.
#[derive(Debug)]
pub(crate) struct Totals {
    path: PathBuf,
    retired: ByRule,
}

impl Totals {
    /// Goes on where an earlier agent stopped.
    pub(crate) fn load(state_dir: &Path) -> Self {
        let path = file(state_dir);
        let stored: Option<Stored> = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let rules = stored.filter(|stored| stored.version == VERSION).map(|stored| stored.rules).unwrap_or_default();
        Self { path, retired: rules.into_iter().collect() }
    }

    /// Forgets what was stored: the counters that it belongs to are gone.
    pub(crate) fn forget(state_dir: &Path) -> io::Result<()> {
        match std::fs::remove_file(file(state_dir)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Adds what tables had counted that are gone.
    pub(crate) fn retire(&mut self, tables: &[Counted]) -> io::Result<()> {
        if tables.is_empty() {
            return Ok(());
        }
        let retired = &mut self.retired;
        each(tables, |key, counter| {
            if counter.packets == 0 {
                return;
            }
            let key = if retired.len() < MOST_RULES || retired.contains_key(&key) { key } else { key.other() };
            retired.entry(key).or_default().add(counter.packets, counter.bytes);
        });
        self.save()
    }

    fn save(&self) -> io::Result<()> {
        let rules = self.retired.iter().map(|(key, tally)| (key.clone(), *tally)).collect();
        atomic_file::write(&self.path, &serde_json::to_vec(&Stored { version: VERSION, rules })?)
    }

    /// Everything: what is gone and what the tables in the kernel have counted.
    pub(crate) fn with(&self, live: &[Counted]) -> ByRule {
        let mut all = self.retired.clone();
        each(live, |key, counter| all.entry(key).or_default().add(counter.packets, counter.bytes));
        all
    }
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("totals.json")
}

fn each(tables: &[Counted], mut take: impl FnMut(RuleKey, Counter)) {
    for table in tables {
        for (rank, counter) in (0..).zip(&table.counters) {
            if table.shared {
                take(RuleKey::shared(rank), *counter);
            } else if let Some(rule) = table.description.rule(rank) {
                take(RuleKey::new(rule), *counter);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use egress_policy::describe::TableDescription;
    use egress_policy::model::{NodeContext, PodIdentity, PolicySet};

    use super::*;

    fn counted(packets: u64) -> Counted {
        let list = PolicySet::default().rule_list(&PodIdentity::default(), &NodeContext::default());
        let description = TableDescription::new(&list);
        let counters = description.rules.iter().map(|_| Counter { packets, bytes: packets * 100 }).collect();
        Counted { description: Arc::new(description), counters, shared: false }
    }

    fn default_action(all: &ByRule) -> Tally {
        all.iter().find(|(key, _)| key.rule == "default action").map(|(_, tally)| *tally).unwrap_or_default()
    }

    #[test]
    fn totals_go_on_over_table_versions_and_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let mut totals = Totals::load(folder.path());
        assert_eq!(default_action(&totals.with(&[counted(3)])), Tally { packets: 3, bytes: 300 });
        totals.retire(&[counted(3)]).unwrap();
        assert_eq!(default_action(&totals.with(&[counted(1), counted(2)])), Tally { packets: 6, bytes: 600 });
        let again = Totals::load(folder.path());
        assert_eq!(default_action(&again.with(&[])), Tally { packets: 3, bytes: 300 });
        Totals::forget(folder.path()).unwrap();
        assert_eq!(default_action(&Totals::load(folder.path()).with(&[])), Tally::default());
        Totals::forget(folder.path()).unwrap();
    }

    #[test]
    fn a_table_without_a_counter_per_rule_is_counted_under_no_rule() {
        let folder = tempfile::tempdir().unwrap();
        let counters = vec![Counter { packets: 5, bytes: 1 }, Counter { packets: 7, bytes: 2 }];
        let table = Counted { counters, shared: true, ..counted(0) };
        let all = Totals::load(folder.path()).with(&[table]);
        let denied = all.iter().find(|(key, _)| key.verdict == "deny" && key.rule == OTHER).unwrap();
        assert_eq!(denied.1.packets, 7);
        assert_eq!(all.values().map(|tally| tally.packets).sum::<u64>(), 12);
    }
}
