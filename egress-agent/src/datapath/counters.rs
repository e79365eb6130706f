//! Hands out regions of the rule counters: one counter per rule of a table, zero when the table is published.

use std::os::fd::AsFd as _;

use aya::maps::{MapData, PerCpuValues};
use egress_common::abi::map;
use egress_common::table::{Counter, TableInfo, flag};

use super::error::DatapathError;
use super::maps::{self, Counters};
use super::pins::Pins;
use super::syscall;

/// Counters of a table that got no region of its own: one for everything allowed, one for everything denied.
const SHARED: u32 = 2;
/// Counters that are read with one call.
const BATCH: u32 = 4096;

/// Which counters are in use.
pub(super) struct CounterRegions {
    counters: Counters,
    /// The same map.
    data: MapData,
    processors: usize,
    /// Regions in use as (start, length), sorted by start.
    used: Vec<(u32, u32)>,
}

impl CounterRegions {
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        let processors = aya::util::nr_cpus()
            .map_err(|(_, source)| DatapathError::Syscall { call: "counting the processors", source })?;
        let data = maps::data(pins, map::RULE_COUNTERS)?;
        Ok(Self { counters: maps::open(pins, map::RULE_COUNTERS)?, data, processors, used: Vec::new() })
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
        let mut counters = Vec::new();
        self.each(info.counter_base, Self::length(info), |_, values| {
            counters.push(values.iter().fold(Counter::default(), |sum, value| Counter {
                packets: sum.packets + value.packets,
                bytes: sum.bytes + value.bytes,
            }));
        })?;
        Ok(counters)
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
        let mut used = Vec::new();
        self.each(start, length, |index, values| {
            if values.iter().any(|value| *value != Counter::default()) {
                used.push(index);
            }
        })?;
        for index in used {
            let zeroes = vec![[0; size_of::<Counter>()]; self.processors];
            let zeroes = PerCpuValues::try_from(zeroes)
                .map_err(|source| DatapathError::Syscall { call: "clearing rule counters", source })?;
            self.counters.set(index, zeroes, 0).map_err(DatapathError::map(map::RULE_COUNTERS))?;
        }
        Ok(())
    }

    /// Calls `take` with the index of each counter of a region and what it says on every processor.
    fn each(&self, start: u32, length: u32, mut take: impl FnMut(u32, &[Counter])) -> Result<(), DatapathError> {
        let map = self.data.fd().as_fd();
        let end = start + length;
        for first in (start..end).step_by(BATCH as usize) {
            let count = BATCH.min(end - first);
            let values: Vec<Counter> = syscall::read_batch(map, first, count, self.processors)?;
            (first..).zip(values.chunks(self.processors)).for_each(|(index, values)| take(index, values));
        }
        Ok(())
    }
}
