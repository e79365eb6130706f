//! Handles to the pinned maps, each with the types of its key and value.
//!
//! Map values cross aya's interface as byte arrays; the layouts are `egress_common`'s and are read and written with zerocopy.

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use egress_common::abi::{Config, map};
use egress_common::endpoint::EndpointKey;
use egress_common::flow::{Flow, FlowKey};
use egress_common::table::{Counter, TableInfo};

use super::error::DatapathError;
use super::pins::Pins;

/// Bytes of an endpoint's name: a namespace (63), a slash and a pod name (253), NUL-padded.
pub(super) const NAME_BYTES: usize = 320;
/// Map that only the agent and its CLI use: endpoint slot → name.
pub(super) const ENDPOINT_NAMES: &str = "endpoint_names";

pub(super) type EndpointIds = HashMap<MapData, [u8; size_of::<EndpointKey>()], u32>;
pub(super) type TableInfos = Array<MapData, [u8; size_of::<TableInfo>()]>;
pub(super) type DropCounters = PerCpuArray<MapData, [u8; size_of::<Counter>()]>;
pub(super) type Stats = PerCpuArray<MapData, u64>;
pub(super) type Flows = HashMap<MapData, [u8; size_of::<FlowKey>()], [u8; size_of::<Flow>()]>;
pub(super) type Configs = Array<MapData, [u8; size_of::<Config>()]>;
pub(super) type EndpointNames = Array<MapData, [u8; NAME_BYTES]>;

/// Opens a pinned map as `M`.
pub(super) fn open<M>(pins: &Pins, name: &'static str) -> Result<M, DatapathError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let failed = DatapathError::map(name);
    M::try_from(Map::from_map_data(data(pins, name)?).map_err(&failed)?).map_err(&failed)
}

/// Opens a pinned map without a type.
pub(super) fn data(pins: &Pins, name: &'static str) -> Result<MapData, DatapathError> {
    MapData::from_pin(pins.map(name)).map_err(DatapathError::map(name))
}

/// Creates a map that is in no object: inner maps and the agent's own.
pub(super) fn create(
    kind: aya_obj::generated::bpf_map_type,
    name: &'static str,
    (key, value): (usize, usize),
    entries: u32,
    flags: u32,
) -> Result<MapData, DatapathError> {
    let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let map = aya_obj::Map::new_from_params(kind as u32, size(key), size(value), entries, flags);
    MapData::create(map, name, None).map_err(DatapathError::map(name))
}

/// Opens the endpoint names, making the map if it is not there.
pub(super) fn endpoint_names(pins: &Pins, entries: u32) -> Result<EndpointNames, DatapathError> {
    let path = pins.map(ENDPOINT_NAMES);
    if !path.exists() {
        let kind = aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY;
        create(kind, ENDPOINT_NAMES, (4, NAME_BYTES), entries, 0)?.pin(&path)?;
    }
    open(pins, ENDPOINT_NAMES)
}

/// Entries that a pinned map really has, which may differ from what the object asks for.
pub(super) fn entries(pins: &Pins, name: &'static str) -> Result<u32, DatapathError> {
    data(pins, name)?.info().map(|info| info.max_entries()).map_err(DatapathError::map(name))
}

/// The sum over all CPUs.
pub(super) fn counter(counters: &DropCounters, index: u32) -> Result<Counter, DatapathError> {
    let values = counters.get(&index, 0).map_err(DatapathError::map(map::DROP_COUNTERS))?;
    Ok(values.iter().fold(Counter::default(), |sum, bytes| {
        let counter: Counter = zerocopy::transmute!(*bytes);
        Counter { packets: sum.packets + counter.packets, bytes: sum.bytes + counter.bytes }
    }))
}
