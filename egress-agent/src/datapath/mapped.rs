//! Array maps in this process's memory: a store is seen by the next packet on any CPU, without a system call.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use egress_common::endpoint::{Endpoint, InterfaceSlot};
use egress_common::table::Counter;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::error::DatapathError;

/// A `BPF_F_MMAPABLE` array of `T`, which is a multiple of eight bytes.
#[derive(Debug)]
struct Mapped<T> {
    start: NonNull<T>,
    length: usize,
}

// SAFETY: the mapping is plain shared memory, and every access goes through atomics.
unsafe impl<T> Send for Mapped<T> {}

impl<T> Mapped<T> {
    fn new(map: impl AsFd, length: u32, name: &'static str) -> Result<Self, DatapathError> {
        let length = length as usize;
        let failed = |source| DatapathError::Syscall { call: name, source };
        let bytes =
            NonZeroUsize::new(length * size_of::<T>()).ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping of a BPF_F_MMAPABLE array; nothing else in this process knows its address.
        let start = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, map, 0) };
        Ok(Self { start: start.map_err(|error| failed(error.into()))?.cast(), length })
    }

    fn at(&self, index: u32) -> Option<NonNull<T>> {
        // SAFETY: the index is inside the mapping.
        ((index as usize) < self.length).then(|| unsafe { self.start.add(index as usize) })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and no reference into it outlives `self`.
        let _ = unsafe { munmap(self.start.cast(), self.length * size_of::<T>()) };
    }
}

/// The `endpoints` array: a table is published with one store.
#[derive(Debug)]
pub(super) struct EndpointArray(Mapped<Endpoint>);

impl EndpointArray {
    /// Maps the array of `length` endpoints.
    pub(super) fn map(map: impl AsFd, length: u32) -> Result<Self, DatapathError> {
        Mapped::new(map, length, "mmap of the endpoints map").map(Self)
    }

    fn table(&self, slot: u32) -> Option<&AtomicU64> {
        // SAFETY: the field is aligned and inside the mapping, which lives as long as `self`; the kernel only reads it.
        self.0.at(slot).map(|endpoint| unsafe { AtomicU64::from_ptr(&raw mut (*endpoint.as_ptr()).table) })
    }

    fn id(&self, slot: u32) -> Option<&AtomicU32> {
        // SAFETY: as in `table`.
        self.0.at(slot).map(|endpoint| unsafe { AtomicU32::from_ptr(&raw mut (*endpoint.as_ptr()).id) })
    }

    fn flags(&self, slot: u32) -> Option<&AtomicU32> {
        // SAFETY: as in `table`.
        self.0.at(slot).map(|endpoint| unsafe { AtomicU32::from_ptr(&raw mut (*endpoint.as_ptr()).flags) })
    }

    /// Number of slots.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.0.length).unwrap_or(u32::MAX)
    }

    /// Reads a slot.
    pub(super) fn get(&self, slot: u32) -> Option<Endpoint> {
        let table = self.table(slot)?.load(Ordering::Acquire);
        Some(Endpoint {
            table,
            id: self.id(slot)?.load(Ordering::Acquire),
            flags: self.flags(slot)?.load(Ordering::Acquire),
        })
    }

    /// Names the endpoint in a slot; `table` publishes it afterwards.
    pub(super) fn store_id(&self, slot: u32, id: u32) {
        if let Some(word) = self.id(slot) {
            word.store(id, Ordering::Release);
        }
    }

    /// Says what the endpoint is ([`egress_common::endpoint::flag`]).
    pub(super) fn store_flags(&self, slot: u32, flags: u32) {
        if let Some(word) = self.flags(slot) {
            word.store(flags, Ordering::Release);
        }
    }

    /// Publishes a table for a slot: the next packet is judged by it.
    pub(super) fn store_table(&self, slot: u32, bits: u64) {
        if let Some(word) = self.table(slot) {
            word.store(bits, Ordering::Release);
        }
    }
}

/// The `interfaces` array: a shorter way to the endpoints of interfaces.
#[derive(Debug)]
pub(super) struct InterfaceArray(Mapped<u64>);

impl InterfaceArray {
    /// Maps the array.
    pub(super) fn map(map: impl AsFd, length: u32) -> Result<Self, DatapathError> {
        Mapped::new(map, length, "mmap of the interfaces map").map(Self)
    }

    fn word(&self, interface: u32) -> Option<&AtomicU64> {
        // SAFETY: aligned and inside the mapping, which lives as long as `self`; the kernel only reads it.
        self.0.at(InterfaceSlot::place(interface)).map(|word| unsafe { AtomicU64::from_ptr(word.as_ptr()) })
    }

    /// Lets packets of `interface` find the endpoint in `slot` here. Another interface at the same place is found by its key again.
    pub(super) fn set(&self, interface: u32, slot: u32) {
        if let Some(word) = self.word(interface) {
            word.store(InterfaceSlot { interface, slot }.to_bits(), Ordering::Release);
        }
    }

    /// Takes `interface` out.
    pub(super) fn remove(&self, interface: u32) {
        if let Some(word) = self.word(interface)
            && InterfaceSlot::from_bits(word.load(Ordering::Acquire)).interface == interface
        {
            word.store(0, Ordering::Release);
        }
    }
}

/// The `rule_counters` array: read and cleared while the kernel counts.
#[derive(Debug)]
pub(super) struct CounterArray(Mapped<Counter>);

impl CounterArray {
    /// Maps the array.
    pub(super) fn map(map: impl AsFd, length: u32) -> Result<Self, DatapathError> {
        Mapped::new(map, length, "mmap of the rule counters").map(Self)
    }

    fn words(&self, index: u32) -> Option<[&AtomicU64; 2]> {
        // SAFETY: both fields are aligned and inside the mapping, which lives as long as `self`; the kernel writes each as a whole word.
        self.0.at(index).map(|counter| unsafe {
            let counter = counter.as_ptr();
            [AtomicU64::from_ptr(&raw mut (*counter).packets), AtomicU64::from_ptr(&raw mut (*counter).bytes)]
        })
    }

    /// Reads a counter. A packet that is counted meanwhile may be in one of its words and not in the other.
    pub(super) fn get(&self, index: u32) -> Option<Counter> {
        let [packets, bytes] = self.words(index)?.map(|word| word.load(Ordering::Relaxed));
        Some(Counter { packets, bytes })
    }

    /// Sets a counter to zero, into which no processor writes at this time.
    pub(super) fn clear(&self, index: u32) {
        // Most are zero: no line of memory is taken away from another processor for those.
        for word in self.words(index).into_iter().flatten().filter(|word| word.load(Ordering::Relaxed) != 0) {
            word.store(0, Ordering::Relaxed);
        }
    }
}
