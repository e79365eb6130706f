//! `dump --raw`: the maps behind a subject, byte by byte.

use std::io::{self, Write};

use egress_common::abi::map;
use serde::ser::{Error as _, SerializeSeq as _};
use serde::{Serialize, Serializer};

use crate::cli::Subject;
use crate::columns::{self, Cell};
use crate::datapath::DatapathError;
use crate::datapath::inspect::{Inspector, RawEntry, RawMap};
use crate::output::Answer;

const VERSION: u32 = 1;

/// The maps, opened; their entries are read while they are written.
pub(super) struct Raw {
    maps: Vec<RawMap>,
}

impl Raw {
    pub(super) fn new(inspector: &Inspector, subject: Subject) -> Result<Self, DatapathError> {
        let maps = maps_of(subject).iter().map(|name| inspector.raw(name)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { maps: maps.into_iter().flatten().collect() })
    }
}

/// The maps that a subject is read from.
fn maps_of(subject: Subject) -> &'static [&'static str] {
    match subject {
        Subject::Endpoints => &[map::ENDPOINTS, map::ENDPOINT_IDS],
        Subject::Tables => &[map::TABLE_INFO, map::TABLES4, map::TABLES6, map::TRIES, map::CLASSES, map::NAME_LEAVES],
        Subject::Rules => &[map::TABLE_INFO, map::RULE_COUNTERS],
        Subject::Counters => &[map::RULE_COUNTERS, map::DROP_COUNTERS],
        Subject::Flows => &[map::FLOWS, map::FRAGMENTS],
        Subject::Names => &[map::NAMES, map::ADDRESSES, map::RESOLVERS, map::QUERIES, map::STREAMS],
        Subject::Config => &[map::CONFIG],
        Subject::Stats => &[map::STATS, map::DNS_COUNTERS, map::EVENT_LIMITS],
        Subject::All => &map::ALL,
    }
}

/// An entry as programs get it.
#[derive(Serialize)]
struct Row {
    map: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<u32>,
    key: String,
    /// One, or one for each CPU.
    values: Vec<String>,
}

impl Row {
    fn new(map: &RawMap, entry: &RawEntry) -> Self {
        let RawEntry { key, values } = entry;
        Self { map: map.name, slot: map.slot, key: hex::encode(key), values: values.iter().map(hex::encode).collect() }
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Entries<'r>(&'r [RawMap]);
        impl Serialize for Entries<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut rows = serializer.serialize_seq(None)?;
                for map in self.0 {
                    for entry in map.entries() {
                        rows.serialize_element(&Row::new(map, &entry.map_err(S::Error::custom)?))?;
                    }
                }
                rows.end()
            }
        }
        #[derive(Serialize)]
        struct Answer<'r> {
            version: u32,
            raw: Entries<'r>,
        }
        Answer { version: VERSION, raw: Entries(&self.maps) }.serialize(serializer)
    }
}

impl Answer for Raw {
    fn text(&self, out: &mut dyn Write, colours: bool) -> io::Result<()> {
        for (number, map) in self.maps.iter().enumerate() {
            if number > 0 {
                writeln!(out)?;
            }
            let slot = map.slot.map(|slot| format!(" in slot {slot}")).unwrap_or_default();
            let entries = map.entries().collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
            let rows = || {
                entries.iter().flat_map(|RawEntry { key, values }| {
                    let several = values.len() > 1;
                    values.iter().enumerate().map(move |(cpu, value)| {
                        let key = if cpu == 0 { hex::encode(key) } else { String::new() };
                        let cpu = if several { cpu.to_string() } else { "-".to_owned() };
                        vec![Cell::text(key), Cell::number(&cpu), Cell::text(hex::encode(value))]
                    })
                })
            };
            columns::write_each(out, &format!("{}{slot}", map.name), &["key", "cpu", "value"], rows, colours)?;
        }
        Ok(())
    }
}
