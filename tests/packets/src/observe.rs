//! Everything that a packet can move: rule counters, drop counters, figures and the event ring, before and after.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use anyhow::Context as _;
use aya::maps::{Array, HashMap, Map, MapData, MapError, RingBuf};
use egress_common::abi::map;
use egress_common::endpoint::TableRef;
use egress_common::event::{Event, Stat};
use egress_common::flow::{Flow, FlowKey, Fragment, FragmentKey};
use egress_common::reason::DropReason;
use egress_common::table::{Counter, TableInfo, flag};
use zerocopy::FromBytes;

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
    counters: MapData,
    drops: MapData,
    stats: MapData,
    infos: Array<MapData, [u8; size_of::<TableInfo>()]>,
    pub(crate) flows: HashMap<MapData, [u8; size_of::<FlowKey>()], [u8; size_of::<Flow>()]>,
    pub(crate) fragments: HashMap<MapData, [u8; size_of::<FragmentKey>()], [u8; size_of::<Fragment>()]>,
    ring: RingBuf<MapData>,
}

impl Maps {
    /// Opens the maps pinned below `bpffs`.
    pub(crate) fn open(bpffs: &Path, ring: RingBuf<MapData>) -> anyhow::Result<Self> {
        Ok(Self {
            counters: pin(bpffs, map::RULE_COUNTERS)?,
            drops: pin(bpffs, map::DROP_COUNTERS)?,
            stats: pin(bpffs, map::STATS)?,
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
            rules: self.rules(info.counter_base, length),
            // Reasons count from 1.
            drops: read_all(&self.drops, 1, DropReason::COUNT - 1, cpus()),
            stats: read_all(&self.stats, 0, u32::try_from(Stat::ALL.len()).expect("few"), cpus()),
        }
    }

    /// Rule counters, of which each CPU has its own part of the array, summed over CPUs.
    fn rules(&self, base: u32, length: u32) -> Vec<Counter> {
        let cpus = u32::try_from(cpus()).expect("few");
        let each = self.counters.info().expect("a map").max_entries() / cpus;
        let parts = (0..cpus).map(|cpu| read_all::<Counter>(&self.counters, cpu * each + base, length, 1));
        let add = |sum: Vec<Counter>, part: Vec<Counter>| sum.into_iter().zip(part).map(|(a, b)| a.add(b)).collect();
        parts.reduce(add).expect("a CPU")
    }

    /// A drop counter.
    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        read_all::<Counter>(&self.drops, reason as u32, 1, cpus()).first().map_or(0, |counter| counter.packets)
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
    Ok(M::try_from(Map::from_map_data(pin(bpffs, name)?)?)?)
}

fn pin(bpffs: &Path, name: &str) -> anyhow::Result<MapData> {
    let path = bpffs.join(format!("abi-{}", egress_common::abi::VERSION)).join("maps").join(name);
    MapData::from_pin(&path).with_context(|| format!("opening {}", path.display()))
}

/// A value that each CPU has one of.
trait PerCpu: FromBytes {
    fn add(self, other: Self) -> Self;
}

impl PerCpu for u64 {
    fn add(self, other: Self) -> Self {
        self + other
    }
}

impl PerCpu for Counter {
    fn add(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

fn cpus() -> usize {
    aya::util::nr_cpus().expect("a number of CPUs")
}

/// Reads `count` elements of an array from `first` on with one call, because a test asks for all of them after every packet. Each is the
/// sum of so many `values`: one, or in a per-CPU array one of each CPU.
fn read_all<T: PerCpu>(map: &MapData, first: u32, count: u32, values: usize) -> Vec<T> {
    const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
    /// `union bpf_attr` for batches (include/uapi/linux/bpf.h).
    #[repr(C)]
    #[derive(Default)]
    struct Attributes {
        in_batch: u64,
        out_batch: u64,
        keys: u64,
        values: u64,
        count: u32,
        map: u32,
        element_flags: u64,
        flags: u64,
    }
    let length = count as usize;
    let (mut keys, mut bytes) = (vec![0_u32; length], vec![0_u8; length * values * size_of::<T>()]);
    let (previous, mut last) = (first.wrapping_sub(1), 0_u32);
    let mut attributes = Attributes {
        in_batch: if first == 0 { 0 } else { (&raw const previous).addr() as u64 },
        out_batch: (&raw mut last).addr() as u64,
        keys: keys.as_mut_ptr().addr() as u64,
        values: bytes.as_mut_ptr().addr() as u64,
        count,
        map: map.fd().as_fd().as_raw_fd().unsigned_abs(),
        ..Attributes::default()
    };
    // SAFETY: the buffers have room for `count` elements and live through the call; the kernel never writes more.
    let status =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut attributes, size_of::<Attributes>()) };
    let error = std::io::Error::last_os_error();
    // "No such entry" says that the map ends here.
    assert!(status == 0 || error.raw_os_error() == Some(libc::ENOENT), "reading counters: {error}");
    assert_eq!(attributes.count, count, "the map is shorter");
    let each = bytes.chunks_exact(values * size_of::<T>());
    each.map(|element| {
        let per_cpu = element.chunks_exact(size_of::<T>()).map(|bytes| T::read_from_bytes(bytes).expect("its size"));
        per_cpu.reduce(T::add).expect("a CPU")
    })
    .collect()
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
