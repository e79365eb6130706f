//! From sorted prefixes to pages and nodes, from the leaves up. What a trie looks like depends only on its prefixes.

use egress_common::table::Leaf;
use egress_common::trie::{Base, Entry, FAN_BITS, NODE_BITS, OWN_LEAVES, PAGE_BITS, SKIP_BITS, Twig, Unit};

use super::blocks::{Blocks, of_entry};
use super::changed::Changed;
use super::{Item, Store};

/// Prefixes in an entry of the root from which on it has a fan: with fewer, most slots of a node behind 12 bits would be empty, with more,
/// most children of one behind 9 bits would be nodes themselves.
const FAN_ITEMS: usize = 128;
/// Slots of a node.
const SLOTS: u32 = 1 << NODE_BITS;

/// A trie that is there already, and where another one differs from it.
pub(super) struct Like {
    pub(super) root: u32,
    pub(super) changed: Changed,
}

/// Builds the trie of `items` and returns its root. What it has in common with `like` is not built again, only held. `None`: no room.
pub(super) fn build<S: Store>(blocks: &mut Blocks, store: &mut S, items: &[Item], like: Option<&Like>) -> Option<u32> {
    let mut builder = Builder { blocks, store, changed: like.map(|like| &like.changed) };
    let (all, rest) = items.split_first().filter(|(first, _)| first.length == 0)?;
    builder.entries(rest, (0, PAGE_BITS), Leaf(all.leaf), like.map(|like| like.root))
}

/// A part of a trie.
enum Part {
    /// The same leaf everywhere.
    Leaf(Leaf),
    /// A node, not stored yet.
    Node(Unit),
}

struct Builder<'a, S> {
    blocks: &'a mut Blocks,
    store: &'a mut S,
    changed: Option<&'a Changed>,
}

impl<S: Store> Builder<'_, S> {
    /// The page of `items`, or the fan, which decides by `stride` bits: they are longer than `position` and agree up to there, and `around`
    /// holds where none of them does. `like`: that of the other trie in this place.
    fn entries(
        &mut self,
        items: &[Item],
        (position, stride): (u32, u32),
        around: Leaf,
        like: Option<u32>,
    ) -> Option<u32> {
        let mut entries = vec![Entry::leaf(around); 1 << stride];
        for group in Groups::of(items, position, stride) {
            for item in group.short {
                fill(&mut entries, item, position, stride, Entry::leaf(Leaf(item.leaf)));
            }
            let Some(entry) = entries.get_mut(group.slot) else { continue };
            if group.long.is_empty() {
                continue;
            }
            let inherited = entry.as_leaf().unwrap_or(around);
            let below = position + stride;
            let known = like.and_then(|first| self.entry(first, group.slot));
            if let Some(known) = known.filter(|_| !self.is_changed(group.long, below)) {
                if let Some(reference) = of_entry(known) {
                    self.blocks.retain(reference);
                }
                *entry = known;
                continue;
            }
            *entry = if stride == PAGE_BITS && group.long.len() >= FAN_ITEMS {
                let like = known.filter(|known| known.as_leaf().is_none() && known.is_fan()).map(Entry::index);
                Entry::fan(self.entries(group.long, (below, FAN_BITS), inherited, like)?)
            } else {
                match self.part(group.long, below, inherited)? {
                    Part::Leaf(leaf) => Entry::leaf(leaf),
                    Part::Node(unit) => Entry::node(self.blocks.intern(self.store, &[unit], Some(1))?),
                }
            };
        }
        let words: Vec<u32> = entries.iter().map(|entry| entry.0).collect();
        let units: Vec<Unit> = units_of(&words).collect();
        self.blocks.intern(self.store, &units, None)
    }

    /// An entry of a page or a fan that is there.
    fn entry(&self, first: u32, slot: usize) -> Option<Entry> {
        let slot = u32::try_from(slot).ok()?;
        Some(Entry(self.store.unit(first.checked_add(slot >> 3)?)?.word(slot)))
    }

    /// Whether anything differs among the addresses that agree with `items` up to `position`, be it of them or of what is around them.
    fn is_changed(&self, items: &[Item], position: u32) -> bool {
        let bits = items.first().map_or(0, |first| first.bits & !u128::MAX.checked_shr(position).unwrap_or(0));
        self.changed.is_none_or(|changed| changed.touches(bits, position))
    }

    /// What `items` make of the addresses that agree with them up to `position`.
    fn part(&mut self, items: &[Item], position: u32, around: Leaf) -> Option<Part> {
        let common = common(items, position).min(SKIP_BITS);
        // A prefix by itself is skipped to, however near it is.
        if common < NODE_BITS && items.len() > 1 {
            self.node(items, position, around)
        } else {
            self.skip(items, position, around, common)
        }
    }

    /// A skip over `bits` bits that all items have in common.
    fn skip(&mut self, items: &[Item], position: u32, around: Leaf, bits: u32) -> Option<Part> {
        let below = position + bits;
        let first = items.first()?;
        let children = top(first.bits << position) & (u64::MAX << (64 - bits));
        let (inherited, rest) = match items.split_first() {
            Some((first, rest)) if u32::from(first.length) == below => (Leaf(first.leaf), rest),
            _ => (around, items),
        };
        let skip = |base, here: u32| Unit {
            children,
            runs: bits.into(),
            base: Base::SKIP | base,
            leaves: [around.0, here, 0],
        };
        Some(match if rest.is_empty() { Part::Leaf(inherited) } else { self.part(rest, below, inherited)? } {
            Part::Leaf(leaf) if leaf == around => Part::Leaf(leaf),
            Part::Leaf(leaf) => Part::Node(skip(Base::OUTSIDE, leaf.0)),
            Part::Node(unit) => Part::Node(skip(self.blocks.intern(self.store, &[unit], Some(1))?, 0)),
        })
    }

    /// A step of six bits.
    fn node(&mut self, items: &[Item], position: u32, around: Leaf) -> Option<Part> {
        let mut leaves = [around; 1 << NODE_BITS];
        let (mut units, mut twigs) = (Vec::new(), Vec::new());
        let (mut children, mut short) = (0_u64, 0_u64);
        for group in Groups::of(items, position, NODE_BITS) {
            for item in group.short {
                fill(&mut leaves, item, position, NODE_BITS, Leaf(item.leaf));
            }
            let Some(leaf) = leaves.get_mut(group.slot) else { continue };
            if group.long.is_empty() {
                continue;
            }
            match self.part(group.long, position + NODE_BITS, *leaf)? {
                Part::Leaf(same) => *leaf = same,
                Part::Node(unit) => {
                    children |= 1 << group.slot;
                    match twig(&unit) {
                        Some(twig) => {
                            short |= 1 << group.slot;
                            twigs.push(twig);
                        }
                        None => units.push(unit),
                    }
                }
            }
        }
        let (runs, distinct) = runs(&leaves, children);
        if let (0, [leaf]) = (children, distinct.as_slice()) {
            return Some(Part::Leaf(Leaf(*leaf)));
        }
        let (nodes, mut unit) = (units.len(), Unit { children, runs: runs | short, ..Unit::default() });
        units.extend(twigs.chunks(2).map(|pair| {
            let twig = |index: usize| pair.get(index).copied().unwrap_or_default();
            Unit::of_twigs([twig(0), twig(1)])
        }));
        if distinct.len() <= OWN_LEAVES {
            unit.leaves.iter_mut().zip(&distinct).for_each(|(own, leaf)| *own = *leaf);
        } else {
            unit.base = Base::OUTSIDE;
            units.extend(units_of(&distinct));
        }
        if !units.is_empty() {
            let nodes = u8::try_from(nodes).ok()?;
            unit.base |= self.blocks.intern(self.store, &units, Some(nodes))? + u32::from(nodes);
        }
        Some(Part::Node(unit))
    }
}

/// A skip that ends in a leaf, as a twig.
fn twig(unit: &Unit) -> Option<Twig> {
    let [elsewhere, here, _] = unit.leaves;
    let bits = u32::try_from(unit.runs).ok()?;
    let is_short = unit.base == Base::SKIP | Base::OUTSIDE;
    is_short.then(|| Twig::new(unit.children, bits, Leaf(elsewhere), Leaf(here)))
}

/// Where runs of equal leaves begin among the slots without a child, and their leaves.
fn runs(leaves: &[Leaf], children: u64) -> (u64, Vec<u32>) {
    let (mut starts, mut distinct) = (0_u64, Vec::new());
    for (slot, leaf) in (0..SLOTS).zip(leaves).filter(|(slot, _)| children >> slot & 1 == 0) {
        if distinct.last() != Some(&leaf.0) {
            starts |= 1 << slot;
            distinct.push(leaf.0);
        }
    }
    (starts, distinct)
}

/// The items of one slot: those that end in the slot or before, and the longer ones.
struct Group<'i> {
    slot: usize,
    short: &'i [Item],
    long: &'i [Item],
}

/// Sorted items by the slot that they begin in, `stride` bits from `position` on.
struct Groups<'i> {
    items: &'i [Item],
    position: u32,
    stride: u32,
}

impl<'i> Groups<'i> {
    fn of(items: &'i [Item], position: u32, stride: u32) -> Self {
        Self { items, position, stride }
    }
}

impl<'i> Iterator for Groups<'i> {
    type Item = Group<'i>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = self.items.first()?;
        let slot = |item: &Item| top(item.bits << self.position) >> (64 - self.stride);
        let own = slot(first);
        // Groups are short far from the root and long near it: double the step, then halve it.
        let mut end = 1;
        while self.items.get(end).is_some_and(|item| slot(item) == own) {
            end *= 2;
        }
        let within = self.items.get(..end).unwrap_or(self.items);
        let (group, rest) = self.items.split_at_checked(within.partition_point(|item| slot(item) == own))?;
        self.items = rest;
        let short = group.partition_point(|item| u32::from(item.length) <= self.position + self.stride);
        let (short, long) = group.split_at_checked(short)?;
        Some(Group { slot: usize::try_from(own).ok()?, short, long })
    }
}

/// Sets the slots that `item` covers.
fn fill<T: Copy>(slots: &mut [T], item: &Item, position: u32, stride: u32, value: T) {
    let start = usize::try_from(top(item.bits << position) >> (64 - stride)).unwrap_or(usize::MAX);
    let count = 1_usize << (position + stride - u32::from(item.length));
    slots.iter_mut().skip(start).take(count).for_each(|slot| *slot = value);
}

/// Bits behind `position` that the items agree in, none of them being shorter; of several items not exact if they are too few for a skip.
fn common(items: &[Item], position: u32) -> u32 {
    let (Some(first), Some(last)) = (items.first(), items.last()) else { return 0 };
    // Sorted, so what the first and the last agree in is in all of them.
    let agree = (first.bits ^ last.bits).leading_zeros().saturating_sub(position);
    if agree < NODE_BITS && items.len() > 1 {
        return agree;
    }
    let shortest = items.iter().map(|item| u32::from(item.length)).min().unwrap_or(0);
    agree.min(shortest.saturating_sub(position))
}

/// The first 64 of 128 bits.
fn top(bits: u128) -> u64 {
    u64::try_from(bits >> 64).unwrap_or(u64::MAX)
}

/// Eight words to a unit, zeros behind the last.
fn units_of(words: &[u32]) -> impl Iterator<Item = Unit> + '_ {
    words.chunks(8).map(|chunk| {
        let mut eight = [0; 8];
        eight.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        Unit::of_words(eight)
    })
}
