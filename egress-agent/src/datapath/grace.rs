//! Waits for the packets that are under way.
//!
//! A packet reads once which table judges it (one load) and then looks into that table's maps. After another table has been
//! published, packets that have read the old reference may still be before their first look: its maps may be taken out only when
//! those are through, or they would find nothing there and be dropped (§6.1).

use aya::maps::{ArrayOfMaps, Map, MapData};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY;

use super::error::DatapathError;
use super::{maps, syscall};

const NAME: &str = "grace";

/// A map of maps that no program knows: the kernel ends each of its updates by waiting for every program that was running when
/// the update came (`maybe_wait_bpf_programs`, Linux commit 1ae80cf31938).
pub(super) struct Grace {
    outer: ArrayOfMaps<MapData>,
    inner: MapData,
}

impl Grace {
    /// Makes the map. It is pinned nowhere and ends with this process.
    pub(super) fn new() -> Result<Self, DatapathError> {
        let inner = maps::create(BPF_MAP_TYPE_ARRAY, NAME, (4, 4), 1, 0)?;
        let outer = MapData::from_fd(syscall::create_array_of_maps(NAME, &inner, 1)?);
        let failed = DatapathError::map(NAME);
        let outer = outer.and_then(Map::from_map_data).and_then(TryInto::try_into).map_err(failed)?;
        Ok(Self { outer, inner })
    }

    /// Returns when every packet and call is through that was being judged.
    pub(super) fn wait(&mut self) -> Result<(), DatapathError> {
        self.outer.set(0, &self.inner, 0).map_err(DatapathError::map(NAME))
    }
}
