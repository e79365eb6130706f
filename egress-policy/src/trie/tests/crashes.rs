//! Writers that stop anywhere, and units that somebody else wrote.

use super::*;

/// Units of a writer that dies: after so many of them nothing is written any more.
struct Dying {
    units: Fixed,
    left: u64,
}

impl Units for Dying {
    fn unit(&self, index: u32) -> Option<&Unit> {
        self.units.unit(index)
    }
}

impl Store for Dying {
    fn length(&self) -> u32 {
        self.units.length()
    }

    fn write(&mut self, index: u32, units: &[Unit]) -> Option<()> {
        for (index, unit) in (index..).zip(units) {
            if self.left > 0 {
                self.left -= 1;
                self.units.write(index, &[*unit])?;
            }
        }
        Some(())
    }
}

/// Addresses and what a table says of them.
struct Answers(Family, Vec<(u128, Leaf)>);

impl Answers {
    fn of(items: &[Item], family: Family) -> Self {
        let probes = probes(items, family, &mut Random(9)).into_iter();
        Self(family, probes.map(|bits| (bits, expected(items, bits))).collect())
    }

    fn check<U: Units + ?Sized>(&self, what: &str, units: &U, root: u32) {
        for (bits, leaf) in &self.1 {
            assert_eq!(self.0.look_up(units, root, *bits), Some(*leaf), "{what}, {:?}, {bits:032x}", self.0);
        }
    }
}

/// What the kernel maps hold after a crash is the store, and the roots that were published.
#[test]
fn a_writer_that_stops_at_any_write_leaves_the_published_version() {
    for (family, like) in FAMILIES.into_iter().flat_map(|family| [(family, false), (family, true)]) {
        let random = &mut Random(21);
        let items = random_items(random, family, 150, 300);
        let mut pool = Pool::new(Dying { units: Fixed(vec![Unit::default(); 6000]), left: u64::MAX });
        // A version before it, so that freed units are written again.
        let first = pool.insert(&random_items(random, family, 150, 300)).expect("room");
        let published = pool.insert(&items).expect("room");
        pool.remove(first);
        let units = pool.into_store().units;
        let mut changed = items.clone();
        changed.iter_mut().skip(40).step_by(9).for_each(|item| item.leaf ^= 1);
        let (before, after) = (Answers::of(&items, family), Answers::of(&changed, family));
        let mut writes = 0;
        loop {
            let store = Dying { units: units.clone(), left: writes };
            let mut pool = adopt(store, published);
            let next = if like {
                pool.insert_like(&changed, published, Changed::between(&items, &changed))
            } else {
                pool.insert(&changed)
            };
            let next = next.expect("room");
            let store = pool.into_store();
            let complete = store.left > 0;
            if complete {
                after.check("complete", &store.units, next);
            }
            before.check("published", &store.units, published);
            // The next agent finds the same and goes on.
            let mut pool = adopt(store.units, published);
            let again = pool.insert(&changed).expect("room");
            before.check("published", pool.store(), published);
            after.check("the next version", pool.store(), again);
            pool.remove(published);
            after.check("the next version", pool.store(), again);
            if complete {
                break;
            }
            writes += 1;
        }
        println!("{family:?}, like {like}: stopped at each of {writes} writes");
        assert!(writes > 20, "{family:?}: {writes} writes");
    }
}

#[test]
fn a_damaged_trie_is_noticed_and_says_nothing_wrong() {
    let random = &mut Random(8);
    let items = random_items(random, Family::V6, 300, 300);
    let mut pool = Pool::new(Growing::default());
    let root = pool.insert(&items).expect("room");
    let units = Fixed(pool.into_store().0);
    let outside = u32::MAX >> 3;
    let found = Pool::new(units.clone()).adopt(&[outside, root]);
    assert_eq!(found, [Damaged { root: outside }], "outside of the pool");
    for _ in 0..2000 {
        let mut damaged = units.clone();
        let at = usize::try_from(random.below(damaged.0.len() as u64)).expect("small");
        let words = std::array::from_fn(|_| u32::try_from(random.next() >> 32).expect("32 bits"));
        damaged.0[at] = Unit::of_words(words);
        // Whatever is there, nothing panics or runs for ever.
        let mut pool = Pool::new(damaged.clone());
        pool.adopt(&[root]);
        pool.remove(root);
        assert_eq!(pool.used(), 0);
        let _ = prefixes(&damaged, root, 128);
        let _ = Family::V6.look_up(&damaged, root, random.bits());
    }
}
