//! The units of all tries: the arrays in the map of maps `tries`, side by side in this process's memory, each there while it is needed.
//!
//! What an earlier agent left is looked for where a trie leads, and nowhere else: before Linux 6.8 the kernel waits for every running program
//! in each lookup in a map of maps (`bpf_map_copy_value`), and there are thousands of places. A chunk that nothing leads to stays until its
//! place is needed.

use std::cell::Cell;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use aya::maps::MapData;
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY;
use egress_common::abi::map;
use egress_common::trie::{CHUNK_UNITS, Unit, Units};
use egress_policy::trie::Store;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use super::error::DatapathError;
use super::maps;
use super::outer::Outer;
use super::pins::Pins;

const BPF_F_MMAPABLE: u32 = 0x400;
/// Bytes of a chunk: whole pages, also where these have 64 KiB.
const CHUNK_BYTES: NonZeroUsize = NonZeroUsize::new(CHUNK_UNITS as usize * size_of::<Unit>()).unwrap();
const _: () = assert!(CHUNK_BYTES.get().is_multiple_of(65_536));
const CALL: &str = "mmap of the tries";

/// Every chunk there is, and room in the address space for those to come.
#[derive(Debug)]
pub(super) struct Chunks {
    outer: Outer,
    start: NonNull<Unit>,
    /// By number.
    known: Vec<Cell<Known>>,
    /// Why the last chunk that was wanted could not be made.
    failed: Option<DatapathError>,
}

/// What is known of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Nobody has looked.
    Nothing,
    Absent,
    Mapped,
}

// SAFETY: the mapping is plain shared memory. Other processes only read it, and only units that are not written while they can be reached.
unsafe impl Send for Chunks {}

impl Chunks {
    /// Opens them; maps none yet.
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        let (outer, most) = (Outer::open(pins, map::TRIES)?, maps::entries(pins, map::TRIES)? as usize);
        let bytes = CHUNK_BYTES
            .checked_mul(NonZeroUsize::new(most).ok_or_else(|| failed(io::ErrorKind::InvalidInput))?)
            .ok_or_else(|| failed(io::ErrorKind::InvalidInput))?;
        // SAFETY: a fresh mapping that nobody can read or write and that takes no memory.
        let start = unsafe {
            mmap_anonymous(None, bytes, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE)
        };
        let start = start.map_err(failed)?.cast();
        Ok(Self { outer, start, known: vec![Cell::new(Known::Nothing); most], failed: None })
    }

    /// Why the last write failed.
    pub(super) fn take_error(&mut self) -> Option<DatapathError> {
        self.failed.take()
    }

    fn map(&self, number: u32, array: &MapData) -> Result<(), DatapathError> {
        let known = self.known.get(number as usize).ok_or_else(|| failed(io::ErrorKind::InvalidInput))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the place is inside the range that `open` reserved, as `known` has this index, and no reference into it exists: nobody could
        // read what was not mapped.
        let place = unsafe { self.start.add((number * CHUNK_UNITS) as usize) };
        let address = NonZeroUsize::new(place.as_ptr().addr());
        // SAFETY: as above; the array has exactly this length.
        let mapped = unsafe {
            mmap(address, CHUNK_BYTES, protection, MapFlags::MAP_SHARED | MapFlags::MAP_FIXED, array.fd(), 0)
        };
        mapped.map_err(failed)?;
        known.set(Known::Mapped);
        Ok(())
    }

    /// Makes the chunk, if none is mapped. One that an earlier agent left there leads nowhere, or it would be.
    fn need(&mut self, number: u32) -> Result<(), DatapathError> {
        if self.known(number) == Known::Mapped {
            return Ok(());
        }
        let array = array()?;
        self.outer.set(number, &array)?;
        self.map(number, &array)
    }

    fn known(&self, number: u32) -> Known {
        self.known.get(number as usize).map_or(Known::Absent, Cell::get)
    }

    /// Whether the chunk can be read. Looks for it, if nobody has.
    fn is_there(&self, number: u32) -> bool {
        if self.known(number) == Known::Nothing
            && let Some(known) = self.known.get(number as usize)
        {
            known.set(Known::Absent);
            let found = self.outer.get(number).and_then(|array| array.map_or(Ok(()), |array| self.map(number, &array)));
            found.unwrap_or_else(|error| tracing::error!(chunk = number, %error, "a part of the tries cannot be read"));
        }
        self.known(number) == Known::Mapped
    }
}

fn failed(source: impl Into<io::Error>) -> DatapathError {
    DatapathError::Syscall { call: CALL, source: source.into() }
}

/// A new chunk.
pub(super) fn array() -> Result<MapData, DatapathError> {
    let sizes = (size_of::<u32>(), size_of::<Unit>());
    maps::create(BPF_MAP_TYPE_ARRAY, map::TRIES, sizes, CHUNK_UNITS, BPF_F_MMAPABLE)
}

impl Units for Chunks {
    fn unit(&self, index: u32) -> Option<&Unit> {
        // SAFETY: the chunk is mapped and lives as long as `self` is not changed; only `write` and `vacate` change it, which borrow `self` alone.
        self.is_there(index / CHUNK_UNITS).then(|| unsafe { self.start.add(index as usize).as_ref() })
    }
}

impl Store for Chunks {
    fn length(&self) -> u32 {
        u32::try_from(self.known.len()).unwrap_or(0).saturating_mul(CHUNK_UNITS)
    }

    fn write(&mut self, index: u32, units: &[Unit]) -> Option<()> {
        let number = index / CHUNK_UNITS;
        if (index % CHUNK_UNITS) as usize + units.len() > CHUNK_UNITS as usize {
            return None;
        }
        if let Err(error) = self.need(number) {
            self.failed = Some(error);
            return None;
        }
        // SAFETY: the range is inside the chunk, which is mapped, and does not overlap the caller's slice; no reference into it exists
        // meanwhile.
        unsafe {
            self.start.add(index as usize).copy_from_nonoverlapping(NonNull::from(units).cast(), units.len());
        }
        Some(())
    }

    fn vacate(&mut self, number: u32) {
        if self.known(number) != Known::Mapped {
            return;
        }
        if let Err(error) = self.outer.remove(number) {
            // It is filled again when it is needed.
            tracing::warn!(chunk = number, %error, "the memory of a part of the tries was not given back");
            return;
        }
        if let Some(known) = self.known.get(number as usize) {
            known.set(Known::Absent);
        }
        // SAFETY: the place is inside the reserved range, and no reference into it exists.
        let _ = unsafe {
            let place = self.start.add((number * CHUNK_UNITS) as usize);
            let address = NonZeroUsize::new(place.as_ptr().addr());
            let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED;
            mmap_anonymous(address, CHUNK_BYTES, ProtFlags::PROT_NONE, flags)
        };
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        // SAFETY: the range was reserved by `open`, and no reference into it outlives `self`.
        let _ = unsafe { munmap(self.start.cast(), self.known.len() * CHUNK_BYTES.get()) };
    }
}
