//! Every trie is held to a search through its prefixes one by one.

mod chunks;
mod crashes;

use egress_common::table::Leaf;
use egress_common::trie::{Base, Entry, PAGE_UNITS, Twig, Unit, Units, lookup4, lookup6};

use super::{Changed, Damaged, Growing, Item, Pool, Store, prefixes};

/// A generator whose sequence depends on nothing else (`SplitMix64`).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn bits(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

/// Either family.
#[derive(Clone, Copy, Debug)]
enum Family {
    V4,
    V6,
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Family {
    fn length(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    fn look_up<U: Units + ?Sized>(self, units: &U, root: u32, bits: u128) -> Option<Leaf> {
        match self {
            Self::V4 => lookup4(units, root, u32::try_from(bits >> 96).expect("32 bits").to_be_bytes()),
            Self::V6 => lookup6(
                units,
                root,
                u64::try_from(bits >> 64).expect("64 bits"),
                u64::try_from(bits & u128::from(u64::MAX)).expect("64 bits"),
            ),
        }
    }
}

/// A pool that does not grow.
#[derive(Clone)]
struct Fixed(Vec<Unit>);

impl Units for Fixed {
    fn unit(&self, index: u32) -> Option<&Unit> {
        self.0.as_slice().unit(index)
    }
}

impl Store for Fixed {
    fn length(&self) -> u32 {
        u32::try_from(self.0.len()).expect("small")
    }

    fn write(&mut self, index: u32, units: &[Unit]) -> Option<()> {
        let start = usize::try_from(index).expect("small");
        self.0[start..start + units.len()].copy_from_slice(units);
        Some(())
    }
}

fn cut(bits: u128, length: u8) -> u128 {
    bits & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

/// Sorted, without duplicates, from the /0 on.
fn sorted(mut items: Vec<Item>) -> Vec<Item> {
    items.push(Item { bits: 0, length: 0, leaf: 1 << 31 });
    for item in &mut items {
        item.bits = cut(item.bits, item.length);
    }
    items.sort_by_key(|item| (item.bits, item.length));
    items.dedup_by_key(|item| (item.bits, item.length));
    items
}

/// The leaf of the longest prefix, found the plain way.
fn expected(items: &[Item], bits: u128) -> Leaf {
    let holding = items.iter().filter(|item| cut(bits, item.length) == item.bits);
    Leaf(holding.max_by_key(|item| item.length).expect("the /0").leaf)
}

/// Addresses at and beside every end of every prefix, and others.
fn probes(items: &[Item], family: Family, random: &mut Random) -> Vec<u128> {
    let mut probes: Vec<u128> = (0..200).map(|_| cut(random.bits(), family.length())).collect();
    let last = 1_u128 << (128 - u32::from(family.length()));
    for item in items {
        let end = item.bits | u128::MAX.checked_shr(item.length.into()).unwrap_or(0);
        let inside = item.bits | random.bits().checked_shr(item.length.into()).unwrap_or(0);
        for bits in [item.bits, end, item.bits.wrapping_sub(last), end.wrapping_add(1), inside] {
            probes.push(cut(bits, family.length()));
        }
    }
    probes
}

fn check<U: Units + ?Sized>(what: &str, units: &U, root: u32, family: Family, items: &[Item]) {
    let mut random = Random(7);
    let probes = probes(items, family, &mut random);
    let every = probes.len().div_ceil(4000);
    for bits in probes.into_iter().step_by(every) {
        let found = family.look_up(units, root, bits);
        assert_eq!(found, Some(expected(items, bits)), "{what}, {family:?}, {bits:032x}");
    }
    let fewest = prefixes(units, root, family.length()).expect("not damaged");
    assert!(fewest.len() <= items.len(), "{what}, {family:?}: {} of {}", fewest.len(), items.len());
    for item in items.iter().take(300) {
        assert_eq!(expected(&fewest, item.bits), expected(items, item.bits), "{what}, {family:?}: read back");
    }
}

fn check_alone(what: &str, family: Family, items: &[Item]) {
    let mut pool = Pool::new(Growing::default());
    let root = pool.insert(items).expect("room");
    check(what, pool.store(), root, family, items);
    pool.remove(root);
    assert_eq!(pool.used(), 0, "{what}: everything is free again");
}

#[test]
fn what_holds_for_most_addresses_is_said_of_the_widest_prefix() {
    for family in FAMILIES {
        // One leaf for everything, and many addresses with one each, of which more differ than are kept as choices.
        let whole = Item { bits: 0, length: 0, leaf: 5000 };
        let first = 20_u128 << 120;
        let one = |number: u32| {
            let bits = first | u128::from(number) << (128 - u32::from(family.length()));
            Item { bits, length: family.length(), leaf: number }
        };
        let items: Vec<Item> = std::iter::once(whole).chain((0..1000).map(one)).collect();
        let mut pool = Pool::new(Growing::default());
        let root = pool.insert(&items).expect("room");
        let said = prefixes(pool.store(), root, family.length()).expect("not damaged");
        let wide: Vec<&Item> = said.iter().filter(|item| item.length < family.length() - 12).collect();
        assert_eq!(wide, [&whole], "{family:?}");
        check("many in one", pool.store(), root, family, &items);
    }
}

/// Lengths as policies have them, some addresses close together.
fn random_items(random: &mut Random, family: Family, count: usize, leaves: u64) -> Vec<Item> {
    let common = random.bits();
    let item = |_| {
        let length = match (family, random.below(10)) {
            (Family::V4, 0..5) => 32,
            (Family::V4, 5..8) => 24,
            (Family::V6, 0..3) => 128,
            (Family::V6, 3..6) => 64,
            (Family::V6, 6..8) => 48,
            _ => u8::try_from(1 + random.below(family.length().into())).expect("small"),
        };
        let near = u32::try_from(random.below(family.length().into())).expect("small");
        let bits = random.bits();
        let bits =
            if random.below(2) == 0 { bits } else { (bits >> near) | cut(common, u8::try_from(near).expect("small")) };
        let kind = if random.below(4) == 0 { 0 } else { 1 << 31 };
        Item { bits, length, leaf: u32::try_from(random.below(leaves)).expect("small") | kind }
    };
    sorted((0..count).map(item).collect())
}

#[test]
fn random_tables_say_what_their_prefixes_say() {
    for seed in 0..40 {
        let random = &mut Random(seed);
        for family in FAMILIES {
            let (count, leaves) = (1 << random.below(9), 1 << random.below(12));
            let items = random_items(random, family, count, leaves);
            check_alone(&format!("seed {seed}"), family, &items);
        }
    }
}

/// Entries of a root that lead to a fan.
fn fans(units: &(impl Units + ?Sized), root: u32) -> usize {
    let words =
        (root..root + PAGE_UNITS).filter_map(|index| units.unit(index)).flat_map(|unit| (0..8).map(|at| unit.word(at)));
    words.map(Entry).filter(|entry| entry.as_leaf().is_none() && entry.is_fan()).count()
}

#[test]
fn a_large_table_has_fans_and_is_small() {
    for family in FAMILIES {
        let items = random_items(&mut Random(1), family, 20_000, 1 << 24);
        let mut pool = Pool::new(Growing::default());
        let root = pool.insert(&items).expect("room");
        assert!(fans(pool.store(), root) > 0, "{family:?}");
        let probes = probes(&items, family, &mut Random(2));
        for bits in probes.into_iter().step_by(97) {
            assert_eq!(family.look_up(pool.store(), root, bits), Some(expected(&items, bits)), "{family:?}");
        }
        let each = usize::try_from(pool.used()).expect("small") * 32 / items.len();
        println!("{family:?}: {each} bytes for each prefix");
        assert!(each < 45, "{family:?}: {each} bytes for each prefix");
    }
}

#[test]
fn prefixes_of_every_length_around_in_and_behind_a_fan() {
    for family in FAMILIES {
        let random = &mut Random(9);
        // Some fifty of each length from 1 to 24 in one /9, and a few elsewhere.
        let items = (1..=24_u8).flat_map(|length| (0..50_u32).map(move |number| (length, number)));
        let items = items.map(|(length, number)| {
            let bits = 0x5a00_0000 << 96 | random.bits() >> 9;
            let bits = if number < 48 { bits } else { random.bits() };
            Item { bits: cut(bits, length), length, leaf: 1 << 31 | u32::from(length) << 8 | number }
        });
        let items = sorted(items.collect());
        let mut pool = Pool::new(Growing::default());
        let root = pool.insert(&items).expect("room");
        assert_eq!(fans(pool.store(), root), 1, "{family:?}");
        check("lengths around a fan", pool.store(), root, family, &items);
        // The next version, which differs in one prefix behind the fan, one in it and one before it.
        let mut edited = items.clone();
        for length in [9, 11, 20] {
            let one = edited.iter_mut().rfind(|item| item.length == length && item.bits >> 119 == 0xb4).expect("one");
            one.leaf ^= 1 << 20;
        }
        let like = pool.insert_like(&edited, root, Changed::between(&items, &edited)).expect("room");
        check("the next version", pool.store(), like, family, &edited);
        pool.remove(root);
        check("the next version alone", pool.store(), like, family, &edited);
        check_adopted(pool, like, family, &edited);
    }
}

#[test]
fn a_fan_that_leads_to_a_fan_is_damaged() {
    let words = |entry: Entry| Unit::of_words([entry.0; 8]);
    let leaf = words(Entry::leaf(Leaf(1 << 31)));
    // A root of one fan, and behind it the leaf, or a fan that has it.
    for (first, is_whole) in [(leaf, true), (words(Entry::fan(PAGE_UNITS + 1)), false)] {
        let mut units = vec![words(Entry::fan(PAGE_UNITS)); usize::try_from(PAGE_UNITS).expect("small")];
        units.extend([first, leaf]);
        let mut pool = Pool::new(Fixed(units));
        assert_eq!(pool.adopt(&[0]).is_empty(), is_whole);
        assert_eq!(prefixes(pool.store(), 0, 32).is_ok(), is_whole);
    }
}

#[test]
fn every_length_nested_in_the_one_before() {
    for family in FAMILIES {
        for bits in [0, u128::MAX, 0xaaaa_5555_aaaa_5555_aaaa_5555_aaaa_5555] {
            let item = |length| Item { bits, length, leaf: 1 << 31 | u32::from(length) };
            check_alone("nested", family, &sorted((0..=family.length()).map(item).collect()));
            let every_third = (0..=family.length()).step_by(3).map(item).collect();
            check_alone("nested, every third", family, &sorted(every_third));
        }
    }
}

#[test]
fn every_address_under_one_prefix() {
    for family in FAMILIES {
        let shift = 128 - u32::from(family.length());
        for leaves in [1, 2, 256] {
            let item = |address: u32| Item {
                bits: 0xc633_6400 << 96 | u128::from(address) << shift,
                length: family.length(),
                leaf: 1 << 31 | (address % leaves),
            };
            let mut items: Vec<Item> = (0..256).map(item).collect();
            items.push(Item { bits: 0xc633_6400 << 96, length: family.length() - 8, leaf: 1 << 31 | 0x9999 });
            check_alone("one /24", family, &sorted(items));
        }
    }
}

#[test]
fn the_default_alone_and_no_prefix_at_all() {
    for family in FAMILIES {
        check_alone("default", family, &sorted(Vec::new()));
    }
    assert!(Pool::new(Growing::default()).insert(&[]).is_err(), "a table begins with the /0");
}

#[test]
fn skips_of_every_length_end_where_they_should() {
    for family in FAMILIES {
        for start in 1..family.length() {
            let short = Item { bits: 0x5a << 120, length: start, leaf: 1 << 31 | 1 };
            for end in [start + 1, family.length()] {
                let long = Item { bits: 0x5a5a << 112 | 0x77 << 90 | 1 << 17, length: end, leaf: 1 << 31 | 2 };
                let beside = Item { bits: long.bits ^ 1 << (128 - u32::from(end)), length: end, leaf: 3 };
                check_alone("skip", family, &sorted(vec![short, long, beside]));
            }
        }
    }
}

/// The node behind the root's entry for `bits`.
fn first_node(units: &(impl Units + ?Sized), root: u32, bits: u128) -> Unit {
    let slot = u32::try_from(bits >> 119).expect("nine bits");
    let entry = Entry(units.unit(root + (slot >> 3)).expect("a page").word(slot));
    *units.unit(entry.index()).expect("a node")
}

#[test]
fn twigs_of_every_length_end_where_they_should_and_lie_beside_nodes_and_leaves() {
    for family in FAMILIES {
        // Behind the first 9 bits and 6 more a twig may have 63.
        for length in 16..=family.length().min(15 + 63) {
            let slot = |slot: u128| 0x5a << 120 | slot << 113 | 0x1234_5678_9abc_def0_1122 << 30;
            let one = |number, length| Item { bits: slot(number), length, leaf: u32::from(length) };
            // In two slots one prefix each, in a third two that differ in their last bits, and four different leaves in a fourth to a seventh.
            let mut items = vec![one(3, length), one(50, length), one(20, 16), one(20, 30)];
            items.extend((40..44_u32).map(|number| Item { leaf: number << 8, ..one(number.into(), 15) }));
            for odd in [false, true] {
                items.extend(odd.then(|| one(60, length)));
                let items = sorted(items.clone());
                let mut pool = Pool::new(Growing::default());
                let root = pool.insert(&items).expect("room");
                let node = first_node(pool.store(), root, slot(0));
                assert_eq!(
                    (node.twigs().count_ones(), node.nodes().count_ones()),
                    (2 + u32::from(odd), 1),
                    "{family:?}"
                );
                assert!(Base(node.base).has(Base::OUTSIDE), "{family:?}: leaves behind the twigs");
                check("twigs", pool.store(), root, family, &items);
                check_adopted(pool, root, family, &items);
            }
        }
    }
}

#[test]
fn a_twig_says_what_its_prefix_says() {
    let (elsewhere, here) = (Leaf(1), Leaf(2));
    for bits in 1..=63 {
        let path = 0xdead_beef_0123_4567 & u64::MAX << (64 - bits);
        let twig = Twig::new(path, bits, elsewhere, here);
        assert_eq!(twig.prefix(), Some((bits, path)));
        let behind = u64::MAX >> bits;
        assert_eq!([path, path | behind].map(|rest| twig.leaf(rest)), [here; 2], "{bits}");
        assert_eq!([0, bits - 1].map(|bit| twig.leaf(path ^ 1 << (63 - bit))), [elsewhere; 2], "{bits}");
    }
    // Nobody writes these.
    assert_eq!([0, 1 << 63].map(|path| Twig { path, ..Twig::default() }.prefix()), [None; 2]);
}

#[test]
fn several_tables_share_a_pool_and_what_is_equal() {
    let mut pool = Pool::new(Growing::default());
    let random = &mut Random(5);
    let items4 = random_items(random, Family::V4, 2000, 64);
    let items6 = random_items(random, Family::V6, 2000, 64);
    let roots = [pool.insert(&items4).expect("room"), pool.insert(&items6).expect("room")];
    let used = pool.used();
    assert_eq!(pool.insert(&items4), Ok(roots[0]), "the same table is the same");
    assert_eq!(pool.used(), used);
    check("shared", pool.store(), roots[0], Family::V4, &items4);
    check("shared", pool.store(), roots[1], Family::V6, &items6);
    pool.remove(roots[0]);
    check("held twice", pool.store(), roots[0], Family::V4, &items4);
    pool.remove(roots[0]);
    check("the other", pool.store(), roots[1], Family::V6, &items6);
    pool.remove(roots[1]);
    assert_eq!(pool.used(), 0);
}

#[test]
fn a_rule_that_changes_in_place_writes_few_units() {
    for family in FAMILIES {
        let items = random_items(&mut Random(11), family, 6_000, 1 << 24);
        let mut pool = Pool::new(Growing::default());
        let old = pool.insert(&items).expect("room");
        let before = pool.written();
        let mut changed = items.clone();
        changed.get_mut(3_999).expect("there").leaf ^= 1;
        let added = Item { bits: cut(changed[2_000].bits | 0x77 << 98, 32), length: 32, leaf: 1 << 31 | 0x77 };
        changed.push(added);
        changed.sort_by_key(|item| (item.bits, item.length));
        changed.dedup_by_key(|item| (item.bits, item.length));
        let new = pool.insert(&changed).expect("room");
        let written = pool.written() - before;
        println!("{family:?}: {written} units of {before} for two changes");
        assert!((1..700).contains(&written), "{family:?}: {written} units of {before}");
        check("old", pool.store(), old, family, &items);
        check("new", pool.store(), new, family, &changed);
        assert_eq!(family.look_up(pool.store(), new, added.bits), Some(Leaf(added.leaf)));
        pool.remove(old);
        let used = pool.used();
        pool.remove(new);
        assert_eq!((pool.used(), used > 0), (0, true));
    }
}

#[test]
fn versions_come_and_go_without_growing() {
    let random = &mut Random(3);
    let mut items = random_items(random, Family::V4, 3000, 500);
    let mut pool = Pool::new(Fixed(vec![Unit::default(); 8000]));
    let mut root = pool.insert(&items).expect("room");
    for round in 0..300 {
        let at = usize::try_from(random.below(items.len() as u64 - 1) + 1).expect("small");
        items[at].leaf = 1 << 31 | u32::try_from(random.below(500)).expect("small");
        let next = pool.insert(&items).unwrap_or_else(|full| panic!("round {round}: {full}"));
        pool.remove(root);
        root = next;
    }
    check("after 300 versions", pool.store(), root, Family::V4, &items);
    let mut fresh = Pool::new(Growing::default());
    fresh.insert(&items).expect("room");
    assert_eq!(pool.used(), fresh.used(), "nothing of the old versions is left");
}

/// One edit of a table, as policies make them: prefixes come and go, say something else, or everything around them does.
fn edit(items: &[Item], family: Family, random: &mut Random) -> Vec<Item> {
    let mut edited = items[1..].to_vec();
    let around = items[0].leaf;
    match random.below(8) {
        0 => edited.clear(),
        1 => edited.extend_from_slice(&random_items(random, family, 400, 50)[1..]),
        2 => return std::iter::once(Item { leaf: around ^ 1, ..items[0] }).chain(edited).collect(),
        _ => {}
    }
    for _ in 0..random.below(4) {
        if edited.is_empty() || random.below(2) == 0 {
            edited.push(random_items(random, family, 1, 50)[1..].first().copied().unwrap_or(items[0]));
            continue;
        }
        let at = usize::try_from(random.below(edited.len() as u64)).expect("small");
        if random.below(2) == 0 {
            edited.remove(at);
        } else {
            edited[at].leaf ^= 1;
        }
    }
    let mut edited = sorted(edited);
    edited[0].leaf = around;
    edited
}

#[test]
fn the_next_version_is_the_trie_that_would_be_built_without_the_last_one() {
    for (family, count) in [(Family::V4, 40), (Family::V4, 3000), (Family::V6, 800)] {
        let random = &mut Random(31);
        let mut pool = Pool::new(Growing::default());
        let mut items = random_items(random, family, count, 50);
        let mut root = pool.insert(&items).expect("room");
        for round in 0..250 {
            let edited = edit(&items, family, random);
            let next = pool.insert_like(&edited, root, Changed::between(&items, &edited)).expect("room");
            // Equal parts are stored once, so equal tries have one root.
            assert_eq!(pool.insert(&edited), Ok(next), "{family:?}, round {round}");
            pool.remove(next);
            pool.remove(root);
            (items, root) = (edited, next);
            if round % 50 == 0 {
                check(&format!("round {round}"), pool.store(), root, family, &items);
            }
        }
        check("after every edit", pool.store(), root, family, &items);
        let mut fresh = Pool::new(Growing::default());
        fresh.insert(&items).expect("room");
        assert_eq!(pool.used(), fresh.used(), "nothing of the old versions is left");
    }
}

#[test]
fn the_next_version_costs_what_is_different_in_it() {
    let random = &mut Random(32);
    let items = random_items(random, Family::V4, 20_000, 500);
    let mut pool = Pool::new(Growing::default());
    let root = pool.insert(&items).expect("room");
    let mut edited = items.clone();
    edited.push(Item { bits: 0xc633_6401 << 96, length: 32, leaf: 1 << 31 | 7 });
    let (edited, before) = (sorted(edited), pool.written());
    pool.insert_like(&edited, root, Changed::between(&items, &edited)).expect("room");
    let written = pool.written() - before;
    // The root, the fan behind it if there is one, and the nodes on the way.
    assert!((64..=160).contains(&written), "{written} units of {}", pool.used());
}

#[test]
fn without_room_nothing_changes() {
    let random = &mut Random(4);
    let small = random_items(random, Family::V4, 500, 50);
    let large = random_items(random, Family::V4, 5000, 5000);
    let mut pool = Pool::new(Fixed(vec![Unit::default(); 2500]));
    let root = pool.insert(&small).expect("room");
    let used = pool.used();
    assert!(pool.insert(&large).is_err());
    assert_eq!(pool.used(), used);
    check("the one that fits", pool.store(), root, Family::V4, &small);
    let other = pool.insert(&random_items(random, Family::V4, 400, 40)).expect("room again");
    assert_ne!(other, root);
    check("the one that fits", pool.store(), root, Family::V4, &small);
}

/// The next agent finds the table, and frees all of it.
fn check_adopted<S: Store>(pool: Pool<S>, root: u32, family: Family, items: &[Item]) {
    let mut adopted = adopt(pool.into_store(), root);
    check("adopted", adopted.store(), root, family, items);
    adopted.remove(root);
    assert_eq!(adopted.used(), 0, "{family:?}: everything is free again");
}

fn adopt<S: Store>(store: S, root: u32) -> Pool<S> {
    let mut pool = Pool::new(store);
    assert_eq!(pool.adopt(&[root]), []);
    pool
}
