//! The answer of `diff`: for each group of pods, prefixes and ports with the verdicts before and after.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::ops::Bound;

use egress_common::table::Decision;
use egress_policy::compile::Lookup;
use egress_policy::diff::{Change, diff};
use egress_policy::ports::KeyRange;
use egress_policy::rules::RuleList;
use ipnet::IpNet;
use serde::{Serialize, Serializer};

use crate::columns::{self, Cell, Tone};
use crate::output::Answer;

use super::Side;

const VERSION: u32 = 1;
/// Excepted prefixes that a line for people names.
const SHOWN: usize = 3;

/// Every difference.
#[derive(Debug, Serialize)]
pub(super) struct Compared {
    version: u32,
    /// Pods that were compared.
    pods: usize,
    /// Whether these are examples made from the selectors, because no endpoints file was given.
    examples: bool,
    groups: Vec<Group>,
}

/// Pods for which the same changes.
#[derive(Debug, Serialize)]
pub(super) struct Group {
    pub(super) pods: Vec<String>,
    pub(super) changes: Vec<Row>,
}

/// For the addresses of `prefix` that are in none of `except`.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) prefix: IpNet,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) except: Vec<IpNet>,
    /// `TCP/443`, `UDP/1-1023`, `any protocol`.
    #[serde(serialize_with = "texts")]
    pub(super) ports: Vec<KeyRange>,
    pub(super) old: Said,
    pub(super) new: Said,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Said {
    /// `allow`, `deny` or `internal`.
    pub(super) verdict: &'static str,
    /// `rule 2 of shop/web`.
    pub(super) by: String,
    /// The verdict with the policies under Audit enforced, where that is reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) audit: Option<&'static str>,
}

fn texts<S: Serializer>(ports: &[KeyRange], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ports.iter().map(ToString::to_string))
}

impl Group {
    /// What changes from `old` to `new`; `None` if no verdict does.
    pub(super) fn new(pods: Vec<&str>, old: &Side, new: &Side) -> Option<Self> {
        let changes = diff(&old.table, &new.table);
        if changes.is_empty() {
            return None;
        }
        let prefixes: BTreeSet<IpNet> =
            old.table.entries().chain(new.table.entries()).map(|(prefix, _)| prefix).collect();
        let mut rows: Vec<Row> = Vec::new();
        let mut places: HashMap<(IpNet, Lookup, Lookup), usize> = HashMap::new();
        for Change { prefix, keys, old: before, new: after } in changes {
            let place = *places.entry((prefix, before, after)).or_insert(rows.len());
            match rows.get_mut(place) {
                Some(row) => row.ports.push(keys),
                None => rows.push(Row {
                    prefix,
                    except: inside(&prefixes, prefix),
                    ports: vec![keys],
                    old: Said::new(before, &old.list),
                    new: Said::new(after, &new.list),
                }),
            }
        }
        Some(Self { pods: pods.into_iter().map(ToOwned::to_owned).collect(), changes: rows })
    }
}

/// The widest of `prefixes` inside `prefix`. A change of `prefix` says nothing about them.
fn inside(prefixes: &BTreeSet<IpNet>, prefix: IpNet) -> Vec<IpNet> {
    let mut found: Vec<IpNet> = Vec::new();
    let after = prefixes.range((Bound::Excluded(prefix), Bound::Unbounded));
    for longer in after.take_while(|longer| prefix.contains(*longer)) {
        if !found.last().is_some_and(|last| last.contains(longer)) {
            found.push(*longer);
        }
    }
    found
}

impl Said {
    fn new(lookup: Lookup, list: &RuleList) -> Self {
        let rank = lookup.decision.rank();
        let rule = usize::try_from(rank).ok().and_then(|rank| list.rules.get(rank));
        Self {
            verdict: word(lookup.decision),
            by: rule.map_or_else(|| format!("rank {rank}"), |rule| rule.origin.to_string()),
            audit: lookup.audit.map(word),
        }
    }

    fn cell(&self) -> Cell {
        let audit = self.audit.map(|audit| format!(" (audit: {audit})")).unwrap_or_default();
        let tone = if self.verdict == "deny" { Tone::Bad } else { Tone::Good };
        Cell::text(format!("{}{audit}", self.verdict)).tone(tone)
    }
}

const fn word(decision: Decision) -> &'static str {
    if decision.is_deny() {
        "deny"
    } else if decision.is_internal() {
        "internal"
    } else {
        "allow"
    }
}

impl Row {
    fn cells(&self) -> Vec<Cell> {
        let mut place = self.prefix.to_string();
        if !self.except.is_empty() {
            let shown: Vec<String> = self.except.iter().take(SHOWN).map(ToString::to_string).collect();
            place = format!("{place} except {}", shown.join(", "));
            if let Some(more) = self.except.len().checked_sub(SHOWN).filter(|more| *more > 0) {
                place = format!("{place} and {more} more");
            }
        }
        vec![
            Cell::text(place),
            Cell::text(self.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
            self.old.cell(),
            Cell::text(&self.old.by),
            self.new.cell(),
            Cell::text(&self.new.by),
        ]
    }
}

impl Compared {
    pub(super) fn new(groups: Vec<Group>, pods: usize, examples: bool) -> Self {
        Self { version: VERSION, pods, examples, groups }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

impl Answer for Compared {
    fn text(&self, out: &mut dyn Write, colours: bool) -> io::Result<()> {
        for group in &self.groups {
            let title = group.pods.join(", ");
            let rows: Vec<_> = group.changes.iter().map(Row::cells).collect();
            columns::write(out, &title, &["destinations", "ports", "old", "by", "new", "by"], &rows, colours)?;
            writeln!(out)?;
        }
        let changed: usize = self.groups.iter().map(|group| group.pods.len()).sum();
        let word = if self.examples { "example pods" } else { "pods" };
        writeln!(out, "verdicts change for {changed} of {} {word}", self.pods)?;
        if self.examples {
            writeln!(
                out,
                "without --endpoints one pod is compared for each selector, and none that several selectors meet"
            )?;
        }
        Ok(())
    }
}
