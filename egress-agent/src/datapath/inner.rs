//! The inner maps that a table is made of, beside its tries and its leaves for names: made, filled, and put into nothing yet.

use std::os::fd::AsFd as _;

use aya::maps::MapData;
use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_LPM_TRIE};
use egress_common::abi::{capacity, map};
use egress_common::class::{Block, ClassEntry};
use egress_common::table::Leaf;
use egress_policy::compile::{Entries, Table};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::error::DatapathError;
use super::pins::Pins;
use super::{chunks, leaves, maps, syscall};

const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_F_INNER_MAP: u32 = 0x1000;
/// Entries in one element of a class array.
pub(super) const BLOCK_LENGTH: usize = size_of::<Block>() / size_of::<ClassEntry>();

/// Key of an LPM trie as the kernel lays it out: prefix length, then the address.
#[repr(C)]
#[derive(IntoBytes, Immutable, Unaligned)]
struct PrefixKey<const BYTES: usize> {
    length: [u8; 4],
    address: [u8; BYTES],
}

/// Makes the maps that hold the tables, where they are not pinned yet.
pub(super) fn create_outer(pins: &Pins, entries: u32) -> Result<(), DatapathError> {
    for (name, inner) in [
        (map::TABLES4, prefixes::<4>(map::TABLES4, &[])?),
        (map::TABLES6, prefixes::<16>(map::TABLES6, &[])?),
        (map::CLASSES, classes(1)?),
        (map::NAME_LEAVES, leaves::array(1)?),
        (map::TRIES, chunks::array()?),
    ] {
        let path = pins.map(name);
        if !path.exists() {
            let entries = if name == map::TRIES { capacity::CHUNKS } else { entries };
            syscall::pin(&syscall::create_array_of_maps(name, &inner, entries)?, &path)?;
        }
    }
    Ok(())
}

/// A class array of so many blocks.
pub(super) fn classes(blocks: u32) -> Result<MapData, DatapathError> {
    let sizes = (size_of::<u32>(), size_of::<Block>());
    maps::create(BPF_MAP_TYPE_ARRAY, map::CLASSES, sizes, blocks, BPF_F_INNER_MAP)
}

/// The IPv4 prefixes of a table.
pub(super) fn prefixes4(table: &Table) -> Result<MapData, DatapathError> {
    let prefix = |(net, leaf): &(ipnet::Ipv4Net, Leaf)| (net.prefix_len(), net.network().octets(), *leaf);
    prefixes(map::TABLES4, &table.prefixes4.iter().map(prefix).collect::<Vec<_>>())
}

/// Its IPv6 prefixes.
pub(super) fn prefixes6(table: &Table) -> Result<MapData, DatapathError> {
    let prefix = |(net, leaf): &(ipnet::Ipv6Net, Leaf)| (net.prefix_len(), net.network().octets(), *leaf);
    prefixes(map::TABLES6, &table.prefixes6.iter().map(prefix).collect::<Vec<_>>())
}

fn prefixes<const BYTES: usize>(
    name: &'static str,
    prefixes: &[(u8, [u8; BYTES], Leaf)],
) -> Result<MapData, DatapathError> {
    let key = |(length, address, _): &(u8, [u8; BYTES], Leaf)| PrefixKey {
        length: u32::from(*length).to_ne_bytes(),
        address: *address,
    };
    let keys: Vec<PrefixKey<BYTES>> = prefixes.iter().map(key).collect();
    let leaves: Vec<Leaf> = prefixes.iter().map(|(.., leaf)| *leaf).collect();
    let entries = u32::try_from(keys.len().max(1)).unwrap_or(u32::MAX);
    let sizes = (size_of::<PrefixKey<BYTES>>(), size_of::<Leaf>());
    let trie = maps::create(BPF_MAP_TYPE_LPM_TRIE, name, sizes, entries, BPF_F_NO_PREALLOC)?;
    syscall::update_batch(trie.fd().as_fd(), &keys, &leaves)?;
    Ok(trie)
}

/// Writes the blocks of classes that entries from `first` on are in. Those before it in the first block are written as they are.
pub(super) fn write_classes(array: &MapData, first: usize, classes: &Entries) -> Result<(), DatapathError> {
    let first = first / BLOCK_LENGTH;
    let mut entries = classes.iter().skip(first * BLOCK_LENGTH).peekable();
    let mut blocks: Vec<Block> = Vec::new();
    while entries.peek().is_some() {
        let mut block: Block = Default::default();
        block.iter_mut().zip(&mut entries).for_each(|(to, from)| *to = *from);
        blocks.push(block);
    }
    let indices: Vec<u32> = (u32::try_from(first).unwrap_or(u32::MAX)..).take(blocks.len()).collect();
    syscall::update_batch(array.fd().as_fd(), &indices, &blocks)
}
