//! Maps byte by byte, for whoever mistrusts what this program makes of them: `dump --raw`.

use std::os::fd::AsFd as _;

use aya::maps::{ArrayOfMaps, MapData, MapType};
use aya::util::nr_cpus;

use super::super::error::DatapathError;
use super::super::{maps, syscall};
use super::Inspector;

/// A map, or one inner map of a map of maps.
pub struct RawMap {
    /// Its name.
    pub name: &'static str,
    /// The slot that it is in, if it is an inner map.
    pub slot: Option<u32>,
    data: MapData,
    key_size: usize,
    /// Bytes that one lookup gives: a value, or one for each CPU.
    value_bytes: usize,
    values: usize,
    is_array: bool,
}

/// A key and its value, or its values by CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEntry {
    /// The key's bytes.
    pub key: Vec<u8>,
    /// The value's bytes, for each CPU where the map has a value for each.
    pub values: Vec<Vec<u8>>,
}

impl Inspector {
    /// The map of this name, or the inner maps that it leads to. None for rings, which have no entries.
    pub fn raw(&self, name: &'static str) -> Result<Vec<RawMap>, DatapathError> {
        let data = maps::data(&self.pins, name)?;
        let kind = data.info().and_then(|info| info.map_type()).map_err(DatapathError::map(name))?;
        if kind == MapType::RingBuf {
            return Ok(Vec::new());
        }
        if kind != MapType::ArrayOfMaps {
            return Ok(vec![RawMap::new(name, None, data)?]);
        }
        let outer: ArrayOfMaps<MapData> = maps::open(&self.pins, name)?;
        let mut found = Vec::new();
        for slot in 0..maps::entries(&self.pins, name)? {
            if let Ok(inner) = outer.get(&slot, 0) {
                found.push(RawMap::new(name, Some(slot), inner)?);
            }
        }
        Ok(found)
    }
}

impl RawMap {
    fn new(name: &'static str, slot: Option<u32>, data: MapData) -> Result<Self, DatapathError> {
        let info = data.info().map_err(DatapathError::map(name))?;
        let kind = info.map_type().map_err(DatapathError::map(name))?;
        let size = |bytes: u32| usize::try_from(bytes).unwrap_or(usize::MAX);
        let (key_size, value_size) = (size(info.key_size()), size(info.value_size()));
        let per_cpu = matches!(kind, MapType::PerCpuArray | MapType::PerCpuHash | MapType::LruPerCpuHash);
        let cpus = || nr_cpus().map_err(|(_, source)| DatapathError::Syscall { call: "counting CPUs", source });
        // The kernel gives values of CPUs in multiples of eight bytes.
        let (value_bytes, values) = if per_cpu { (value_size.next_multiple_of(8), cpus()?) } else { (value_size, 1) };
        let is_array = matches!(kind, MapType::Array | MapType::PerCpuArray);
        Ok(Self { name, slot, data, key_size, value_bytes, values, is_array })
    }

    /// Every entry; of arrays those that are not zero throughout. Entries that come and go meanwhile may be seen or not.
    pub fn entries(&self) -> impl Iterator<Item = Result<RawEntry, DatapathError>> + '_ {
        let mut last: Option<Vec<u8>> = None;
        let mut ended = false;
        let next = move || loop {
            if ended {
                return None;
            }
            let found = match syscall::next_key(self.data.fd().as_fd(), last.as_deref(), self.key_size) {
                Ok(key) => key,
                Err(error) => {
                    ended = true;
                    return Some(Err(error));
                }
            };
            let Some(key) = found else {
                ended = true;
                return None;
            };
            last = Some(key.clone());
            match syscall::lookup(self.data.fd().as_fd(), &key, self.value_bytes * self.values) {
                Ok(Some(bytes)) if self.is_array && bytes.iter().all(|byte| *byte == 0) => {}
                Ok(Some(bytes)) => {
                    let values = bytes.chunks(self.value_bytes.max(1)).map(<[u8]>::to_vec).collect();
                    return Some(Ok(RawEntry { key, values }));
                }
                // Gone since its key was read.
                Ok(None) => {}
                Err(error) => {
                    ended = true;
                    return Some(Err(error));
                }
            }
        };
        std::iter::from_fn(next)
    }
}
