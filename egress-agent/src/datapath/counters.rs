//! Hands out regions of the rule counters: one counter per rule of a table, zero when the table is published.

use aya::maps::PerCpuValues;
use egress_common::abi::map;
use egress_common::table::{Counter, TableInfo, flag};

use super::error::DatapathError;
use super::maps::{self, Counters};
use super::pins::Pins;

/// Counters of a table that got no region of its own: one for everything allowed, one for everything denied.
const SHARED: u32 = 2;

/// Which counters are in use.
pub(super) struct CounterRegions {
    counters: Counters,
    /// Regions in use as (start, length), sorted by start.
    used: Vec<(u32, u32)>,
}

impl CounterRegions {
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self { counters: maps::open(pins, map::RULE_COUNTERS)?, used: Vec::new() })
    }

    /// Counters that a table of `info` occupies.
    fn length(info: &TableInfo) -> u32 {
        if info.flags & flag::SHARED_COUNTERS == 0 { info.rules } else { SHARED }
    }

    /// Marks the region of an adopted table.
    pub(super) fn reserve(&mut self, info: &TableInfo) {
        self.used.push((info.counter_base, Self::length(info)));
        self.used.sort_unstable();
    }

    /// A zeroed region for `rules` counters, or a shared pair where there is no room for so many.
    pub(super) fn allocate(&mut self, rules: u32) -> Result<(u32, bool), DatapathError> {
        let (length, start, shared) = match (self.gap(rules), self.gap(SHARED)) {
            (Some(start), _) => (rules, start, false),
            (None, Some(start)) => (SHARED, start, true),
            (None, None) => {
                return Err(DatapathError::Full {
                    what: "the map of rule counters",
                    needed: u64::from(SHARED),
                    limit: u64::from(self.counters.len()),
                    advice: "fewer distinct rule lists, or more rule counters",
                });
            }
        };
        self.clear(start, length)?;
        self.used.push((start, length));
        self.used.sort_unstable();
        Ok((start, shared))
    }

    /// What the counters of a table say, summed over CPUs.
    pub(super) fn read(&self, info: &TableInfo) -> Result<Vec<Counter>, DatapathError> {
        (0..Self::length(info)).map(|rank| maps::counter(&self.counters, info.counter_base + rank)).collect()
    }

    /// Frees the region of a table that is gone.
    pub(super) fn release(&mut self, info: &TableInfo) {
        self.used.retain(|&(start, _)| start != info.counter_base);
    }

    fn gap(&self, length: u32) -> Option<u32> {
        let mut start = 0_u32;
        for &(used, used_length) in &self.used {
            if used.saturating_sub(start) >= length {
                break;
            }
            start = used.saturating_add(used_length);
        }
        (self.counters.len().checked_sub(start)? >= length).then_some(start)
    }

    fn clear(&mut self, start: u32, length: u32) -> Result<(), DatapathError> {
        let failed = DatapathError::map(map::RULE_COUNTERS);
        for index in start..start + length {
            let values = self.counters.get(&index, 0).map_err(&failed)?;
            let is_clear = values.iter().all(|bytes| *bytes == [0; size_of::<Counter>()]);
            if !is_clear {
                let zeroes = vec![[0; size_of::<Counter>()]; values.len()];
                let zeroes = PerCpuValues::try_from(zeroes)
                    .map_err(|source| DatapathError::Syscall { call: "clearing rule counters", source })?;
                self.counters.set(index, zeroes, 0).map_err(&failed)?;
            }
        }
        Ok(())
    }
}
