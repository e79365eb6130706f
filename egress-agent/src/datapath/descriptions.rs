//! The texts of tables: the description of each, pinned beside it, so that its rules have names while no agent runs.

use std::os::fd::AsFd as _;

use aya::maps::{Array, Map, MapData};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY;
use egress_common::endpoint::TableRef;
use egress_policy::describe::TableDescription;
use serde::{Deserialize, Serialize};

use super::error::DatapathError;
use super::pins::{self, Pins};
use super::{maps, syscall};

/// A description is stored in pieces of this many bytes.
const PIECE: usize = 4096;

/// What is pinned beside a table.
#[derive(Serialize, Deserialize)]
pub(super) struct Pinned<D> {
    pub(super) generation: u32,
    pub(super) reject: bool,
    pub(super) description: D,
}

/// Pins the description of a table: its length, then its JSON, in pieces.
pub(super) fn write(
    pins: &Pins,
    TableRef { slot, generation }: TableRef,
    reject: bool,
    description: &TableDescription,
) -> Result<(), DatapathError> {
    const LENGTH: usize = size_of::<u64>();
    let pinned = Pinned { generation, reject, description };
    let mut bytes = vec![0; LENGTH];
    serde_json::to_writer(&mut bytes, &pinned)
        .map_err(|error| DatapathError::Syscall { call: "writing a table description", source: error.into() })?;
    let length = (bytes.len() - LENGTH) as u64;
    if let Some(place) = bytes.first_chunk_mut::<LENGTH>() {
        *place = length.to_le_bytes();
    }
    bytes.resize(bytes.len().next_multiple_of(PIECE), 0);
    let (pieces, _) = bytes.as_chunks::<PIECE>();
    let entries = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
    let array = maps::create(BPF_MAP_TYPE_ARRAY, "table_rules", (4, PIECE), entries, 0)?;
    let indices: Vec<u32> = (0..entries).collect();
    syscall::update_batch(array.fd().as_fd(), &indices, pieces)?;
    let path = pins.table(slot);
    pins::unpin(&path)?;
    array.pin(&path)?;
    Ok(())
}

/// Reads the description of the table in `slot`. `None` if there is none, or none of this agent's form.
pub(super) fn read<D: for<'de> Deserialize<'de>>(pins: &Pins, slot: u32) -> Result<Option<Pinned<D>>, DatapathError> {
    let path = pins.table(slot);
    if !path.exists() {
        return Ok(None);
    }
    let failed = DatapathError::map("table_rules");
    let data = MapData::from_pin(&path).map_err(&failed)?;
    let array: Array<MapData, [u8; PIECE]> = Map::from_map_data(data).and_then(TryInto::try_into).map_err(&failed)?;
    let mut bytes = Vec::new();
    for piece in array.iter() {
        bytes.extend(piece.map_err(&failed)?);
    }
    let Some((length, json)) = bytes.split_first_chunk::<8>() else {
        return Ok(None);
    };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    Ok(json.get(..length).and_then(|json| serde_json::from_slice(json).ok()))
}
