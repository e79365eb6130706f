//! Compiles an ordered rule list to prefixes: the longest-prefix match of an address *is* the first match of the list.
//!
//! For each prefix that occurs in the list, the rules whose prefix contains it are folded into disjoint (protocol, port) intervals
//! (`fold`); `walk` visits the prefixes as a nested tree so that each fold starts from its parent's; equal folds share one class
//! (`classes`). Rules about DNS names are folded the same way for the places of their names (`names`), and joined with the prefixes at
//! lookup (`verdicts`). Near-linear in the number of prefixes; while it runs it needs about 80 bytes per mention of a prefix beside the rules,
//! and the table 12 bytes per IPv4 and 24 per IPv6 prefix. Called by the agent for each distinct list, and held to the oracle of
//! `tests/reference`.

mod classes;
mod coverage;
mod edit;
mod entries;
mod fold;
mod names;
mod table;
mod verdicts;
mod walk;

use std::sync::Arc;

use egress_common::abi::capacity;
use egress_common::table::MAX_RANK;

use self::classes::Classes;
pub use self::coverage::Coverage;
use self::coverage::Open;
pub use self::edit::{Editable, Exchange};
pub use self::entries::Entries;
use self::names::Names;
pub use self::table::{Lookup, Table};
use self::verdicts::Verdicts;
use self::walk::{FAMILIES, Mention, Walk, mentions};
use crate::rules::RuleList;

/// Most that one table may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Prefixes, both families together.
    pub prefixes: usize,
    /// Class entries, headers included.
    pub class_entries: usize,
    /// Rules, builtin rules and the default action included.
    pub rules: usize,
    /// Different DNS names in rules, wildcards apart.
    pub names: usize,
}

impl Default for Limits {
    /// What the kernel's maps hold.
    fn default() -> Self {
        Self {
            prefixes: capacity::TABLE_PREFIXES,
            class_entries: capacity::TABLE_CLASS_ENTRIES,
            rules: capacity::TABLE_RULES,
            names: usize::try_from(capacity::NAMES).unwrap_or(usize::MAX),
        }
    }
}

/// What of a table there was too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Rules in the list.
    Rules,
    /// Prefixes in the table.
    Prefixes,
    /// Class entries in the table.
    ClassEntries,
    /// Intervals of (protocol, port) in one class.
    ClassIntervals,
    /// DNS names in rules.
    Names,
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rules => "rules",
            Self::Prefixes => "prefixes",
            Self::ClassEntries => "class entries",
            Self::ClassIntervals => "port intervals at one prefix",
            Self::Names => "DNS names",
        })
    }
}

/// Why a rule list has no table (§6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// It does not fit.
    #[error(
        "the rules need at least {needed} {what} and {limit} fit into one table; split the policy or use fewer, larger prefixes and port ranges"
    )]
    Capacity {
        /// What there was too much of.
        what: Resource,
        /// How many there would be; a lower bound where the count was broken off.
        needed: usize,
        /// How many fit.
        limit: usize,
    },
}

/// Compiles `list`, or says what does not fit into `limits`.
pub fn compile(list: &RuleList, limits: &Limits) -> Result<Table, CompileError> {
    compile_with_coverage(list, limits).map(|(table, _)| table)
}

/// [`compile`], with the ranks that decide anything.
pub fn compile_with_coverage(list: &RuleList, limits: &Limits) -> Result<(Table, Coverage), CompileError> {
    let (Whole { classes, mut table, .. }, coverage) = whole(list, limits)?;
    table.classes = classes.into_entries();
    Ok((table, coverage))
}

/// A table, and what it was made with.
struct Whole {
    mentions: [Vec<Mention>; 2],
    verdicts: Verdicts,
    /// The class array of `table`, which has none itself.
    classes: Classes,
    table: Table,
}

fn whole(list: &RuleList, limits: &Limits) -> Result<(Whole, Coverage), CompileError> {
    let most_rules = limits.rules.min(usize::try_from(MAX_RANK).unwrap_or(usize::MAX));
    if list.rules.len() > most_rules {
        return Err(CompileError::Capacity { what: Resource::Rules, needed: list.rules.len(), limit: most_rules });
    }
    let verdicts = Verdicts::of(&list.rules);
    let names = Names::of(&list.rules, limits)?;
    let (mut classes, mut open) = (Classes::new(limits.class_entries), Open::new());
    let mut coverage = Coverage::new(list.rules.len());
    let mentions = FAMILIES.map(|family| mentions((0..).zip(&list.rules), family));
    let (classes_of, coverage_of) = (&mut classes, Some(&mut coverage));
    let mut walk = Walk::new(&list.rules, limits.prefixes, &verdicts, classes_of, coverage_of, Some(&mut open));
    for (mentions, family) in mentions.iter().zip(FAMILIES) {
        walk.run(mentions, family)?;
    }
    let (prefixes4, prefixes6) = walk.finish()?;
    open.finish();
    let names = names.leaves(&verdicts, &mut classes, &open, &mut coverage)?;
    let rules = u32::try_from(list.rules.len()).unwrap_or(u32::MAX);
    let (prefixes4, prefixes6) = (Arc::new(prefixes4), Arc::new(prefixes6));
    let table =
        Table { prefixes4, prefixes6, classes: Entries::default(), names, rules, head_rules: verdicts.head_rules };
    Ok((Whole { mentions, verdicts, classes, table }, coverage))
}

#[cfg(test)]
mod tests;
