//! The answer of `diff`: for each group of pods, prefixes and ports with the verdicts before and after; then the names for whose addresses
//! something else changes ([`super::names`]).

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

use super::{Side, names};

const VERSION: u32 = 1;
/// Excepted prefixes, or names, that a line for people names.
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
    /// For addresses that no rule's name has.
    pub(super) changes: Vec<Row>,
    /// For the addresses of names, where that is not the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) names: Vec<Named>,
}

/// What changes for the addresses of some names.
#[derive(Debug, Serialize)]
pub(super) struct Named {
    /// `www.foo.com`, `*.foo.com`, `**.*.foo.com`: without the names that are in lines of their own.
    pub(super) names: Vec<String>,
    /// Nothing, if the verdicts stay.
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
        let names = names::changes(old, new, &changes);
        if changes.is_empty() && names.is_empty() {
            return None;
        }
        let prefixes: BTreeSet<IpNet> =
            old.table.entries().chain(new.table.entries()).map(|(prefix, _)| prefix).collect();
        let rows = |changes| rows(changes, &prefixes, old, new);
        Some(Self {
            pods: pods.into_iter().map(ToOwned::to_owned).collect(),
            names: names.into_iter().map(|(names, changes)| Named { names, changes: rows(changes) }).collect(),
            changes: rows(changes),
        })
    }
}

/// A row for the ports of a prefix that change in the same way.
fn rows(changes: Vec<Change>, prefixes: &BTreeSet<IpNet>, old: &Side, new: &Side) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut places: HashMap<(IpNet, Lookup, Lookup), usize> = HashMap::new();
    for Change { prefix, keys, old: before, new: after } in changes {
        let place = *places.entry((prefix, before, after)).or_insert(rows.len());
        match rows.get_mut(place) {
            Some(row) => row.ports.push(keys),
            None => rows.push(Row {
                prefix,
                except: inside(prefixes, prefix),
                ports: vec![keys],
                old: Said::new(before, &old.list),
                new: Said::new(after, &new.list),
            }),
        }
    }
    rows
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
            place = format!("{place} except {}", shown(&self.except));
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

/// The first few, and how many more there are.
fn shown<T: ToString>(items: &[T]) -> String {
    let shown: Vec<String> = items.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = items.len().checked_sub(SHOWN).filter(|more| *more > 0);
    more.map_or_else(|| shown.join(", "), |more| format!("{} and {more} more", shown.join(", ")))
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
        const HEADERS: [&str; 6] = ["destinations", "ports", "old", "by", "new", "by"];
        for group in &self.groups {
            let title = group.pods.join(", ");
            if !group.changes.is_empty() {
                let rows: Vec<_> = group.changes.iter().map(Row::cells).collect();
                columns::write(out, &title, &HEADERS, &rows, colours)?;
                writeln!(out)?;
            }
            for Named { names, changes } in &group.names {
                let title = format!("{title} to addresses of {}", shown(names));
                if changes.is_empty() {
                    writeln!(out, "{title}: no change\n")?;
                    continue;
                }
                let rows: Vec<_> = changes.iter().map(Row::cells).collect();
                columns::write(out, &title, &HEADERS, &rows, colours)?;
                writeln!(out)?;
            }
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
