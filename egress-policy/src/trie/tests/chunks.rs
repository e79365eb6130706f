//! Chunks come when they are written and go when nothing leads to them.

use std::collections::BTreeMap;

use egress_common::trie::CHUNK_UNITS;

use super::*;

/// Units in chunks that come and go, as in the agent.
#[derive(Default)]
struct Chunked {
    chunks: BTreeMap<u32, Vec<Unit>>,
    /// How many there may be at a time.
    most: usize,
}

impl Units for Chunked {
    fn unit(&self, index: u32) -> Option<&Unit> {
        self.chunks.get(&(index / CHUNK_UNITS))?.as_slice().unit(index % CHUNK_UNITS)
    }
}

impl Store for Chunked {
    fn length(&self) -> u32 {
        64 * CHUNK_UNITS
    }

    fn write(&mut self, index: u32, units: &[Unit]) -> Option<()> {
        let (chunk, start) = (index / CHUNK_UNITS, usize::try_from(index % CHUNK_UNITS).expect("small"));
        if !self.chunks.contains_key(&chunk) && self.chunks.len() == self.most {
            return None;
        }
        let empty = || vec![Unit::default(); usize::try_from(CHUNK_UNITS).expect("small")];
        self.chunks.entry(chunk).or_insert_with(empty)[start..start + units.len()].copy_from_slice(units);
        Some(())
    }

    fn vacate(&mut self, chunk: u32) {
        self.chunks.remove(&chunk);
    }
}

#[test]
fn chunks_come_when_they_are_written_and_go_with_their_last_unit() {
    let random = &mut Random(41);
    let small = random_items(random, Family::V4, 300, 50);
    let mut pool = Pool::new(Chunked { most: usize::MAX, ..Chunked::default() });
    let kept = pool.insert(&small).expect("room");
    assert_eq!(pool.store().chunks.len(), 1);
    for round in 0..6 {
        let family = FAMILIES[round % 2];
        let large = random_items(random, family, 50_000, 5000);
        let root = pool.insert(&large).expect("room");
        let needed = usize::try_from(pool.used().div_ceil(CHUNK_UNITS)).expect("small");
        assert!(
            (needed..=needed + 2).contains(&pool.store().chunks.len()),
            "{} for {needed}",
            pool.store().chunks.len()
        );
        assert!(needed > 5, "{needed}");
        for bits in probes(&large, family, random).into_iter().step_by(997) {
            assert_eq!(family.look_up(pool.store(), root, bits), Some(expected(&large, bits)));
        }
        pool.remove(root);
        assert_eq!(pool.store().chunks.len(), 1, "what the small table is in");
        check("beside a large one", pool.store(), kept, Family::V4, &small);
        if round % 3 == 2 {
            // The next agent finds the same.
            pool = adopt(pool.into_store(), kept);
        }
    }
    pool.remove(kept);
    assert!(pool.store().chunks.is_empty());
}

#[test]
fn without_memory_for_a_chunk_nothing_changes() {
    let random = &mut Random(42);
    let small = random_items(random, Family::V4, 500, 50);
    let large = random_items(random, Family::V4, 30_000, 5000);
    let mut pool = Pool::new(Chunked { most: 3, ..Chunked::default() });
    let root = pool.insert(&small).expect("room");
    let used = pool.used();
    assert!(pool.insert(&large).is_err());
    assert_eq!((pool.used(), pool.store().chunks.len()), (used, 1));
    check("the one that fits", pool.store(), root, Family::V4, &small);
    pool.store_mut().most = usize::MAX;
    let other = pool.insert(&large).expect("room now");
    check("the one that fits", pool.store(), root, Family::V4, &small);
    for bits in probes(&large, Family::V4, random).into_iter().step_by(997) {
        assert_eq!(Family::V4.look_up(pool.store(), other, bits), Some(expected(&large, bits)));
    }
}

/// Many edits of tables of which some are large: neither do blocks get lost, nor chunks.
#[test]
fn chunks_do_not_pile_up_over_many_versions() {
    let random = &mut Random(43);
    let mut pool = Pool::new(Chunked { most: usize::MAX, ..Chunked::default() });
    let mut items = random_items(random, Family::V4, 12_000, 500);
    let mut root = pool.insert(&items).expect("room");
    let first = pool.store().chunks.len();
    for _ in 0..300 {
        let mut next = items.clone();
        let at = usize::try_from(1 + random.below(items.len() as u64 - 1)).expect("small");
        next[at].leaf = u32::try_from(random.below(500)).expect("small");
        let new = pool.insert_like(&next, root, Changed::between(&items, &next)).expect("room");
        pool.remove(root);
        (items, root) = (next, new);
    }
    let chunks = pool.store().chunks.len();
    assert!(chunks <= first + 1, "{chunks} chunks after 300 versions, {first} before");
    for bits in probes(&items, Family::V4, random).into_iter().step_by(997) {
        assert_eq!(Family::V4.look_up(pool.store(), root, bits), Some(expected(&items, bits)));
    }
}
