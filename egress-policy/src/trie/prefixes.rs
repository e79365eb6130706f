//! The prefixes that a trie stands for: as few as say the same of every address.
//!
//! A trie keeps what is said of each address, not who said it. Of a prefix whose every address belongs to longer ones nothing is left.
//! (Draves, King, Venkatachary, Zill: "Constructing Optimal IP Routing Tables", INFOCOM 1999.)

use egress_common::table::Leaf;
use egress_common::trie::{Base, Entry, FAN_BITS, NODE_BITS, PAGE_BITS, Twig, Unit, Units};

use super::{Damaged, Item};

/// Choices that are kept for a part of the address space; more only cost a prefix here and there.
const CHOICES: usize = 64;
/// Deepest way from a root, in nodes.
const DEEPEST: u32 = 24;

/// The prefixes of the trie at `root`, sorted, of addresses of `bits` bits.
pub fn prefixes<U: Units + ?Sized>(units: &U, root: u32, bits: u8) -> Result<Vec<Item>, Damaged> {
    let mut reader = Reader { units, regions: Vec::new(), bits: u32::from(bits) };
    reader.entries((root, PAGE_BITS), 0, 0).ok_or(Damaged { root })?;
    reader.regions.sort_unstable();
    let mut fewest = Fewest { regions: &reader.regions, parts: Vec::new(), items: Vec::new() };
    let top = fewest.part(0..reader.regions.len(), 0).ok_or(Damaged { root })?;
    fewest.emit(top, None, 0, 0);
    fewest.items.sort_unstable();
    Ok(fewest.items)
}

/// Reads a trie as regions: prefixes that do not overlap and together hold every address.
struct Reader<'u, U: ?Sized> {
    units: &'u U,
    regions: Vec<Item>,
    bits: u32,
}

impl<U: Units + ?Sized> Reader<'_, U> {
    /// Reads the page or the fan whose first unit and bits these are.
    fn entries(&mut self, (first, stride): (u32, u32), bits: u128, position: u32) -> Option<()> {
        let below = position + stride;
        for slot in 0..1_u32 << stride {
            let entry = Entry(self.units.unit(first.checked_add(slot >> 3)?)?.word(slot));
            let bits = bits | place(slot.into(), below);
            match entry.as_leaf() {
                Some(leaf) => self.region(bits, below, leaf),
                // Behind a fan there are nodes and leaves only.
                None if entry.is_fan() && stride == FAN_BITS => return None,
                None if entry.is_fan() => self.entries((entry.index(), FAN_BITS), bits, below)?,
                None => self.node(entry.index(), bits, below, 1)?,
            }
        }
        Some(())
    }

    fn node(&mut self, index: u32, bits: u128, position: u32, depth: u32) -> Option<()> {
        let unit = *self.units.unit(index)?;
        // What lies behind the end of an address would be read as more of it.
        if depth > DEEPEST || position >= self.bits {
            return None;
        }
        let base = Base(unit.base);
        if base.has(Base::SKIP) {
            return self.skip(&unit, bits, position, depth);
        }
        let first = base.index().checked_sub(unit.nodes().count_ones())?;
        let (mut node, mut twig, mut run) = (0, 0, None);
        for slot in 0..1_u32 << NODE_BITS {
            let (bits, below) = (bits | place(slot.into(), position + NODE_BITS), position + NODE_BITS);
            if unit.twigs() >> slot & 1 != 0 {
                let found = self.units.unit(base.index().checked_add(twig >> 1)?)?.twig(twig);
                self.twig(found, bits, below)?;
                twig += 1;
                continue;
            }
            if unit.children >> slot & 1 != 0 {
                self.node(first.checked_add(node)?, bits, below, depth + 1)?;
                node += 1;
                continue;
            }
            if unit.runs >> slot & 1 != 0 {
                run = Some(run.map_or(0, |run: u32| run + 1));
            }
            // Slots beyond the end of the address: only the first of them can be asked for.
            let spare = below.saturating_sub(self.bits);
            if slot & ((1 << spare) - 1) == 0 {
                let leaf = self.leaf(&unit, run?)?;
                self.region(bits, below.min(self.bits), leaf);
            }
        }
        Some(())
    }

    fn leaf(&self, unit: &Unit, run: u32) -> Option<Leaf> {
        let base = Base(unit.base);
        if base.has(Base::OUTSIDE) {
            let index = base.index().checked_add(unit.twig_units())?.checked_add(run >> 3)?;
            return self.units.unit(index).map(|leaves| Leaf(leaves.word(run)));
        }
        unit.leaves.get(usize::try_from(run).ok()?).map(|leaf| Leaf(*leaf))
    }

    fn skip(&mut self, unit: &Unit, bits: u128, position: u32, depth: u32) -> Option<()> {
        let count = u32::try_from(unit.runs).ok().filter(|count| (1..64).contains(count))?;
        let [elsewhere, here, _] = unit.leaves;
        let (target, below) = self.beside((unit.children, count), bits, position, Leaf(elsewhere))?;
        if Base(unit.base).has(Base::OUTSIDE) {
            self.region(target, below, Leaf(here));
            return Some(());
        }
        self.node(Base(unit.base).index(), target, below, depth + 1)
    }

    fn twig(&mut self, twig: Twig, bits: u128, position: u32) -> Option<()> {
        let (count, path) = twig.prefix()?;
        let (target, below) = self.beside((path, count), bits, position, Leaf(twig.elsewhere))?;
        self.region(target, below, Leaf(twig.here));
        Some(())
    }

    /// The regions beside a way of so many bits from `position` on, of which `elsewhere` holds: one at each bit. Where the way leads to.
    fn beside(&mut self, (path, count): (u64, u32), bits: u128, position: u32, elsewhere: Leaf) -> Option<(u128, u32)> {
        let (target, below) = (bits | u128::from(path) << 64 >> position, position + count);
        if below > self.bits {
            return None;
        }
        for length in position + 1..=below {
            let other = (target ^ place(1, length)) & mask(length);
            self.region(other, length, elsewhere);
        }
        Some((target, below))
    }

    fn region(&mut self, bits: u128, length: u32, leaf: Leaf) {
        self.regions.push(Item { bits, length: u8::try_from(length).unwrap_or(u8::MAX), leaf: leaf.0 });
    }
}

/// A part of the address space: what may be said of it at once so that the fewest prefixes remain for the rest, with the share of all
/// addresses that each holds for, most first. So of equal choices the one is said that people would say.
struct Part {
    choices: Vec<(u32, f64)>,
    halves: Option<(usize, usize)>,
}

struct Fewest<'r> {
    regions: &'r [Item],
    parts: Vec<Part>,
    items: Vec<Item>,
}

impl Fewest<'_> {
    /// The part that the regions of `range` make up, whose addresses agree in `length` bits. `None` if they do not fill it.
    fn part(&mut self, range: std::ops::Range<usize>, length: u32) -> Option<usize> {
        let regions = self.regions.get(range.clone())?;
        if let [region] = regions {
            let part = Part { choices: vec![(region.leaf, f64::exp2(-f64::from(region.length)))], halves: None };
            return (u32::from(region.length) == length).then(|| self.add(part));
        }
        if length >= 128 {
            return None;
        }
        let middle = range.start + regions.partition_point(|region| region.bits << length >> 127 == 0);
        let (low, high) = (self.part(range.start..middle, length + 1)?, self.part(middle..range.end, length + 1)?);
        let (low_choices, high_choices) = (&self.parts.get(low)?.choices, &self.parts.get(high)?.choices);
        let in_high = |leaf: u32| high_choices.iter().find(|(other, _)| *other == leaf);
        let both = low_choices.iter().filter_map(|(leaf, share)| Some((*leaf, share + in_high(*leaf)?.1)));
        let mut choices: Vec<(u32, f64)> = both.collect();
        if choices.is_empty() {
            choices.extend(low_choices.iter().chain(high_choices));
        }
        // Stable, so that equal shares stay in the order of addresses.
        choices.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        choices.truncate(CHOICES);
        Some(self.add(Part { choices, halves: Some((low, high)) }))
    }

    fn add(&mut self, part: Part) -> usize {
        self.parts.push(part);
        self.parts.len() - 1
    }

    /// The prefixes for a part inside of one for which `said` holds.
    fn emit(&mut self, part: usize, said: Option<u32>, bits: u128, length: u32) {
        let Some(Part { choices, halves }) = self.parts.get(part) else { return };
        let may_be = |said: &u32| choices.iter().any(|(leaf, _)| leaf == said);
        let Some(leaf) = said.filter(may_be).or(choices.first().map(|(leaf, _)| *leaf)) else { return };
        let halves = *halves;
        if said != Some(leaf) {
            self.items.push(Item { bits, length: u8::try_from(length).unwrap_or(u8::MAX), leaf });
        }
        if let Some((low, high)) = halves {
            self.emit(low, Some(leaf), bits, length + 1);
            self.emit(high, Some(leaf), bits | place(1, length + 1), length + 1);
        }
    }
}

/// `value` as the last of the first `length` bits; what reaches beyond 128 is cut off.
fn place(value: u128, length: u32) -> u128 {
    if length <= 128 { value.checked_shl(128 - length).unwrap_or(0) } else { value >> (length - 128) }
}

fn mask(length: u32) -> u128 {
    u128::MAX.checked_shl(128 - length).unwrap_or(0)
}
