//! Where two versions of a table differ.

use std::cmp::Ordering;

use super::Item;

/// Parts of the address space, sorted and apart from each other: outside of them two versions have the same prefixes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed(Vec<(u128, u128)>);

impl Changed {
    /// What differs between two sorted lists of prefixes.
    pub fn between<P: PartialEq>(before: &[P], after: &[P]) -> Self
    where
        for<'p> Item: From<&'p P>,
    {
        let same = before.iter().zip(after).take_while(|(before, after)| before == after).count();
        let (before, after) = (before.get(same..).unwrap_or_default(), after.get(same..).unwrap_or_default());
        let same = before.iter().rev().zip(after.iter().rev()).take_while(|(before, after)| before == after).count();
        let before = before.get(..before.len() - same).unwrap_or_default();
        let after = after.get(..after.len() - same).unwrap_or_default();
        let mut before = before.iter().map(Item::from).peekable();
        let mut after = after.iter().map(Item::from).peekable();
        let mut changed = Self::default();
        loop {
            let order = match (before.peek(), after.peek()) {
                (Some(before), Some(after)) => before.cmp(after),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return changed,
            };
            // Both lists are gone through in one order, so what only one of them has comes in that order too.
            let only = match order {
                Ordering::Less => before.next(),
                Ordering::Greater => after.next(),
                Ordering::Equal => before.next().and(after.next()).and(None),
            };
            if let Some(item) = only {
                changed.add(&item);
            }
        }
    }

    fn add(&mut self, item: &Item) {
        let last = item.bits | u128::MAX.checked_shr(item.length.into()).unwrap_or(0);
        match self.0.last_mut() {
            Some(part) if part.1 >= item.bits => part.1 = part.1.max(last),
            _ => self.0.push((item.bits, last)),
        }
    }

    /// Whether anything is different among the addresses that begin with the first `length` bits of `bits`.
    pub(super) fn touches(&self, bits: u128, length: u32) -> bool {
        let last = bits | u128::MAX.checked_shr(length).unwrap_or(0);
        let next = self.0.partition_point(|part| part.1 < bits);
        self.0.get(next).is_some_and(|part| part.0 <= last)
    }
}
