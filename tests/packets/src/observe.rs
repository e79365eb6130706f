//! Everything that a packet can move: rule counters, drop counters, figures and the event ring, before and after.

use std::path::Path;

use anyhow::Context as _;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use egress_common::abi::map;
use egress_common::endpoint::TableRef;
use egress_common::event::{Event, Stat};
use egress_common::flow::{Flow, FlowKey, Fragment, FragmentKey};
use egress_common::reason::DropReason;
use egress_common::table::{Counter, TableInfo, flag};
use zerocopy::FromBytes as _;

type Counters = PerCpuArray<MapData, [u8; size_of::<Counter>()]>;

/// What one packet did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What the program returned.
    pub action: i32,
    /// Rule counters that moved: rank, packets, bytes.
    pub counted: Vec<(u32, u64, u64)>,
    /// Drop counters that moved: reason, packets, bytes.
    pub drops: Vec<(DropReason, u64, u64)>,
    /// Figures that moved.
    pub stats: Vec<(Stat, u64)>,
    /// Records in the ring.
    pub events: Vec<Event>,
    /// The frame as the program left it.
    pub output: Vec<u8>,
}

/// Every figure at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Figures {
    rules: Vec<Counter>,
    drops: Vec<Counter>,
    stats: Vec<u64>,
}

/// The pinned maps.
pub(crate) struct Maps {
    counters: Counters,
    drops: Counters,
    stats: PerCpuArray<MapData, u64>,
    infos: Array<MapData, [u8; size_of::<TableInfo>()]>,
    pub(crate) flows: HashMap<MapData, [u8; size_of::<FlowKey>()], [u8; size_of::<Flow>()]>,
    pub(crate) fragments: HashMap<MapData, [u8; size_of::<FragmentKey>()], [u8; size_of::<Fragment>()]>,
    ring: RingBuf<MapData>,
}

impl Maps {
    /// Opens the maps pinned below `bpffs`.
    pub(crate) fn open(bpffs: &Path, ring: RingBuf<MapData>) -> anyhow::Result<Self> {
        Ok(Self {
            counters: pinned(bpffs, map::RULE_COUNTERS)?,
            drops: pinned(bpffs, map::DROP_COUNTERS)?,
            stats: pinned(bpffs, map::STATS)?,
            infos: pinned(bpffs, map::TABLE_INFO)?,
            flows: pinned(bpffs, map::FLOWS)?,
            fragments: pinned(bpffs, map::FRAGMENTS)?,
            ring,
        })
    }

    /// The constants of a table.
    pub(crate) fn info(&self, table: TableRef) -> TableInfo {
        zerocopy::transmute!(self.infos.get(&table.slot, 0).expect("a slot"))
    }

    pub(crate) fn figures(&self, table: TableRef) -> Figures {
        let info = self.info(table);
        let length = if info.flags & flag::SHARED_COUNTERS == 0 { info.rules } else { 2 };
        Figures {
            rules: (0..length).map(|rank| counter(&self.counters, info.counter_base + rank)).collect(),
            drops: DropReason::ALL.iter().map(|reason| counter(&self.drops, *reason as u32)).collect(),
            stats: Stat::ALL
                .iter()
                .map(|stat| self.stats.get(&(*stat as u32), 0).expect("a figure").iter().sum())
                .collect(),
        }
    }

    /// Takes every record out of the ring.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(record) = self.ring.next() {
            events.push(Event::read_from_bytes(&record).expect("an event"));
        }
        events
    }
}

/// Opens a pinned map.
pub(crate) fn pinned<M>(bpffs: &Path, name: &str) -> anyhow::Result<M>
where
    M: TryFrom<Map, Error = MapError>,
{
    let path = bpffs.join(format!("abi-{}", egress_common::abi::VERSION)).join("maps").join(name);
    let data = MapData::from_pin(&path).with_context(|| format!("opening {}", path.display()))?;
    Ok(M::try_from(Map::from_map_data(data)?)?)
}

fn counter(counters: &Counters, index: u32) -> Counter {
    let values = counters.get(&index, 0).expect("a counter");
    values.iter().fold(Counter::default(), |sum, bytes| {
        let counter: Counter = zerocopy::transmute!(*bytes);
        Counter { packets: sum.packets + counter.packets, bytes: sum.bytes + counter.bytes }
    })
}

impl Seen {
    /// What moved between two moments.
    pub(crate) fn between(before: &Figures, after: &Figures) -> Self {
        let moved = |before: &[Counter], after: &[Counter]| -> Vec<(usize, u64, u64)> {
            let pairs = before.iter().zip(after).enumerate().filter(|(_, (before, after))| before != after);
            pairs.map(|(at, (b, a))| (at, a.packets - b.packets, a.bytes - b.bytes)).collect()
        };
        let rank = |at: usize| u32::try_from(at).expect("24 bits");
        Self {
            counted: moved(&before.rules, &after.rules).into_iter().map(|(at, p, b)| (rank(at), p, b)).collect(),
            drops: moved(&before.drops, &after.drops)
                .into_iter()
                .map(|(at, packets, bytes)| (DropReason::ALL[at], packets, bytes))
                .collect(),
            stats: Stat::ALL
                .into_iter()
                .zip(before.stats.iter().zip(&after.stats))
                .filter(|(_, (before, after))| before != after)
                .map(|(stat, (before, after))| (stat, after - before))
                .collect(),
            ..Self::default()
        }
    }
}
