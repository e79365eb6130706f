//! Compiles an ordered rule list to prefixes: the longest-prefix match of an address *is* the first match of the list.
//!
//! For each prefix that occurs in the list, the rules whose prefix contains it are folded into disjoint (protocol, port) intervals
//! (`fold`); `walk` visits the prefixes as a nested tree so that each fold starts from its parent's; equal folds share one class
//! (`classes`). Near-linear in the number of prefixes; while it runs it needs about 80 bytes per mention of a prefix beside the rules,
//! and the table 12 bytes per IPv4 and 24 per IPv6 prefix. Called by the agent for each distinct list, and held to the oracle of
//! `tests/reference`.

mod classes;
mod fold;
mod table;
mod walk;

use egress_common::abi::capacity;
use egress_common::table::MAX_RANK;

pub use self::table::{Lookup, Table};
use self::walk::{Family, Walk};
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
}

impl Default for Limits {
    /// What the kernel's maps hold.
    fn default() -> Self {
        Self {
            prefixes: capacity::TABLE_PREFIXES,
            class_entries: capacity::TABLE_CLASS_ENTRIES,
            rules: capacity::TABLE_RULES,
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
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rules => "rules",
            Self::Prefixes => "prefixes",
            Self::ClassEntries => "class entries",
            Self::ClassIntervals => "port intervals at one prefix",
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

/// Which ranks decide anything; see [`shadowed`](crate::warnings::shadowed).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage(Vec<bool>);

impl Coverage {
    /// Whether at least one packet exists that the rule of `rank` decides (for Pass: sends past its tier). Rules of policies under
    /// Audit are looked for in the audit verdicts, others in the real ones.
    pub fn decides(&self, rank: u32) -> bool {
        usize::try_from(rank).ok().and_then(|index| self.0.get(index)).copied().unwrap_or(false)
    }
}

/// Compiles `list`, or says what does not fit into `limits`.
pub fn compile(list: &RuleList, limits: &Limits) -> Result<Table, CompileError> {
    compile_with_coverage(list, limits).map(|(table, _)| table)
}

/// [`compile`], with the ranks that decide anything.
pub fn compile_with_coverage(list: &RuleList, limits: &Limits) -> Result<(Table, Coverage), CompileError> {
    let most_rules = limits.rules.min(usize::try_from(MAX_RANK).unwrap_or(usize::MAX));
    if list.rules.len() > most_rules {
        return Err(CompileError::Capacity { what: Resource::Rules, needed: list.rules.len(), limit: most_rules });
    }
    let mut walk = Walk::new(&list.rules, limits);
    walk.run(Family::V4)?;
    walk.run(Family::V6)?;
    let (table, coverage) = walk.finish()?;
    Ok((table, Coverage(coverage)))
}

#[cfg(test)]
mod tests;
