//! Rule counters: what they say, and which table has which of them. One counter per rule of a table, zero when the table is published.

use std::ops::Range;

use egress_common::abi::map;
use egress_common::table::{Counter, TableInfo, flag};

use super::error::DatapathError;
use super::mapped::CounterArray;
use super::maps;
use super::pins::Pins;

/// Counters of a table that got no region of its own: one for everything allowed, one for everything denied.
const SHARED: u32 = 2;

/// Counters that a table of `info` occupies.
fn length(info: &TableInfo) -> u32 {
    if info.flags & flag::SHARED_COUNTERS == 0 { info.rules } else { SHARED }
}

/// How many counters the map has, if each processor has at least `wanted`.
pub(super) fn entries(wanted: u32) -> Result<u32, DatapathError> {
    let processors = processors()?;
    let entries = wanted.checked_next_power_of_two().and_then(|each| each.checked_mul(processors));
    entries.ok_or(DatapathError::Full {
        what: "an array of counters of each processor",
        needed: u64::from(wanted) * u64::from(processors),
        limit: u64::from(u32::MAX),
        advice: "fewer rule counters",
    })
}

fn processors() -> Result<u32, DatapathError> {
    let failed = |source| DatapathError::Syscall { call: "counting the processors", source };
    let processors = aya::util::nr_cpus().map_err(|(_, source)| failed(source))?;
    u32::try_from(processors).map_err(|error| failed(std::io::Error::other(error)))
}

/// The counters, of which each processor has its own.
pub(super) struct RuleCounters {
    array: CounterArray,
    processors: u32,
    /// Binary logarithm of how many each processor has.
    shift: u32,
}

impl RuleCounters {
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        let (entries, processors) = (maps::entries(pins, map::RULE_COUNTERS)?, processors()?);
        let array = CounterArray::map(maps::data(pins, map::RULE_COUNTERS)?.fd(), entries)?;
        Ok(Self { array, processors, shift: (entries / processors).checked_ilog2().unwrap_or(0) })
    }

    /// How many rules can be counted.
    pub(super) fn len(&self) -> u32 {
        1 << self.shift
    }

    /// How many rules can be counted, in the bits of a table's flags that say so.
    pub(super) fn flags(&self) -> u32 {
        self.shift << flag::COUNTERS_SHIFT
    }

    /// What the counters of a table say by rank, summed over CPUs; with shared ones, of everything allowed and everything denied.
    pub(super) fn read(&self, info: &TableInfo) -> Vec<Counter> {
        self.sums(info.counter_base, length(info))
    }

    /// What the counter of a rule says; `None` if it has none of its own.
    pub(super) fn of_rule(&self, info: &TableInfo, rank: u32) -> Option<Counter> {
        let is_counted = info.flags & flag::SHARED_COUNTERS == 0 && rank < info.rules;
        is_counted.then(|| self.sums(info.counter_base + rank, 1).first().copied().unwrap_or_default())
    }

    fn sums(&self, start: u32, length: u32) -> Vec<Counter> {
        let mut sums = vec![Counter::default(); length as usize];
        for places in self.places(start, length) {
            for (sum, place) in sums.iter_mut().zip(places) {
                let counter = self.array.get(place).unwrap_or_default();
                sum.packets += counter.packets;
                sum.bytes += counter.bytes;
            }
        }
        sums
    }

    fn clear(&self, start: u32, length: u32) {
        self.places(start, length).flatten().for_each(|place| self.array.clear(place));
    }

    /// Where the counters are, processor by processor.
    fn places(&self, start: u32, length: u32) -> impl Iterator<Item = Range<u32>> {
        let shift = self.shift;
        (0..self.processors).map(move |processor| processor << shift | start).map(move |first| first..first + length)
    }
}

/// Which counters are in use.
pub(super) struct CounterRegions {
    counters: RuleCounters,
    /// Regions in use as (start, length), sorted by start.
    used: Vec<(u32, u32)>,
}

impl CounterRegions {
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self { counters: RuleCounters::open(pins)?, used: Vec::new() })
    }

    /// Marks the region of an adopted table.
    pub(super) fn reserve(&mut self, info: &TableInfo) {
        self.used.push((info.counter_base, length(info)));
        self.used.sort_unstable();
    }

    /// A zeroed region for `rules` counters, or a shared pair where there is no room for so many: its start, and flags of the table.
    pub(super) fn allocate(&mut self, rules: u32) -> Result<(u32, u32), DatapathError> {
        let (length, start, shared) = match (self.gap(rules), self.gap(SHARED)) {
            (Some(start), _) => (rules, start, 0),
            (None, Some(start)) => (SHARED, start, flag::SHARED_COUNTERS),
            (None, None) => {
                return Err(DatapathError::Full {
                    what: "the map of rule counters",
                    needed: u64::from(SHARED),
                    limit: u64::from(self.counters.len()),
                    advice: "fewer distinct rule lists, or more rule counters",
                });
            }
        };
        // Whoever had them is gone for a grace period: no processor writes into them any more.
        self.counters.clear(start, length);
        self.used.push((start, length));
        self.used.sort_unstable();
        Ok((start, shared | self.counters.flags()))
    }

    /// What the counters of a table say.
    pub(super) fn read(&self, info: &TableInfo) -> Vec<Counter> {
        self.counters.read(info)
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
}
