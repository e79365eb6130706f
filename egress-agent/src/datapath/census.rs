//! How full the maps are and what is attached where, counted on the pins. Called by `status` and by the metrics.

use std::path::Path;

use egress_common::abi::{capacity, map};
use egress_common::class::BLOCK;
use egress_common::table::flag;

use super::counters::RuleCounters;
use super::error::DatapathError;
use super::inspect::Inspector;
use super::maps;
use super::pins::{self, Pins};
use super::programs::{CGROUP_HOOKS, SOCKET_HOOKS, TC_HOOKS};
use super::syscall;

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Name of the map.
    pub map: &'static str,
    /// Entries in use.
    pub entries: u64,
    /// Entries that it can hold.
    pub capacity: u64,
}

/// Where a program runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Name of the program.
    pub hook: &'static str,
    /// Number of cgroups or interfaces that it is attached to.
    pub places: usize,
}

/// Maps whose entries come and go with keys.
const KEYED: [&str; 7] =
    [map::ENDPOINT_IDS, map::FLOWS, map::FRAGMENTS, map::EVENT_LIMITS, map::ADDRESSES, map::QUERIES, map::STREAMS];

impl Inspector {
    /// How full each map is that can be full. Costs a system call per entry of the keyed ones.
    pub fn fill(&self) -> Result<Vec<Fill>, DatapathError> {
        let pins = self.pins();
        let tables = self.tables(false)?;
        let capacity_of = |name| maps::entries(pins, name).map(u64::from);
        let counters = |table: &super::inspect::TableView| {
            u64::from(if table.info.flags & flag::SHARED_COUNTERS == 0 { table.info.rules } else { 2 })
        };
        let mut fill = vec![
            Fill {
                map: map::ENDPOINTS,
                entries: u64::try_from(self.endpoints()?.len()).unwrap_or(u64::MAX),
                capacity: capacity_of(map::ENDPOINTS)?,
            },
            Fill {
                map: map::TABLE_INFO,
                entries: u64::try_from(tables.len()).unwrap_or(u64::MAX),
                capacity: capacity_of(map::TABLE_INFO)?,
            },
            Fill {
                map: map::RULE_COUNTERS,
                entries: tables.iter().map(counters).sum(),
                capacity: u64::from(RuleCounters::open(pins)?.len()),
            },
        ];
        for name in KEYED {
            let data = maps::data(pins, name)?;
            let info = data.info().map_err(DatapathError::map(name))?;
            let entries = syscall::count_keys(data.fd(), info.key_size(), info.max_entries())?;
            fill.push(Fill { map: name, entries: u64::from(entries), capacity: u64::from(info.max_entries()) });
        }
        fill.extend(self.fullest_table(&tables)?);
        Ok(fill)
    }

    /// Prefixes and class entries of the table that has most of them, against the limits of a table (ARCHITECTURE, "Limits").
    fn fullest_table(&self, tables: &[super::inspect::TableView]) -> Result<[Fill; 2], DatapathError> {
        let (mut prefixes, mut classes) = (0, 0);
        for table in tables {
            let slot = table.reference.slot;
            prefixes = prefixes.max(u64::from(table.info.prefixes));
            // The inner map is made as large as what it holds, in blocks; a large one has room for an eighth more.
            classes = classes.max(self.inner_entries(map::CLASSES, slot)? * u64::from(BLOCK));
        }
        let limit = |limit: usize| u64::try_from(limit).unwrap_or(u64::MAX);
        Ok([
            Fill { map: "table_prefixes", entries: prefixes, capacity: limit(capacity::TABLE_PREFIXES) },
            Fill { map: "table_classes", entries: classes, capacity: limit(capacity::TABLE_CLASS_ENTRIES) },
        ])
    }

    /// Every program with the number of places where it is attached.
    pub fn attached(&self) -> Vec<Attached> {
        let pins = self.pins();
        let sockets = SOCKET_HOOKS.into_iter();
        let sockets = sockets.map(|hook| Attached { hook, places: usize::from(pins.links().join(hook).exists()) });
        let count = |folder: &str, hook: &'static str| Attached { hook, places: pinned(pins, folder, hook) };
        let interfaces = TC_HOOKS.iter().map(|(hook, _)| count("tc", hook));
        let cgroups = CGROUP_HOOKS.iter().map(|(hook, _)| count("cgroup", hook));
        sockets.chain(interfaces).chain(cgroups).collect()
    }
}

fn pinned(pins: &Pins, folder: &str, hook: &str) -> usize {
    let is_of = |path: &Path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.split_once('-').is_some_and(|(_, of)| of == hook)
    };
    pins::entries(&pins.links().join(folder)).iter().filter(|path| is_of(path)).count()
}
