//! The classes of a table: (protocol, port) → interval → decision, or first matches.

use egress_common::class::{self, BLOCK, ClassEntries, ClassEntry, ClassVerdict};
use egress_common::names::State;

use crate::answer::Answer;
use crate::maps::{CLASSES, Classes};

/// The classes of the table in a slot.
pub struct ClassMap(pub u32);

impl ClassEntries for ClassMap {
    #[inline(always)]
    fn entry(&self, index: u32) -> Option<ClassEntry> {
        Search(CLASSES.get(self.0)?).entry(index)
    }

    #[inline(always)]
    fn pair(&self, index: u32) -> Option<[ClassEntry; 2]> {
        Search(CLASSES.get(self.0)?).pair(index)
    }

    #[inline(always)]
    fn state_verdict(&self, index: u32) -> Option<ClassVerdict> {
        Answer(state_answer(self.0, index)).verdict()
    }

    #[inline(always)]
    fn interval(&self, base: u32, key: u32) -> Option<u32> {
        // No interval is at 0: a header stands before it.
        match class_interval(self.0, base, key) {
            0 => None,
            index => Some(index),
        }
    }
}

/// The classes of a table, while they are searched: one lookup of the outer map.
struct Search<'a>(&'a Classes);

impl ClassEntries for Search<'_> {
    #[inline(always)]
    fn entry(&self, index: u32) -> Option<ClassEntry> {
        self.0.get(index / BLOCK)?.get((index % BLOCK) as usize).copied()
    }

    #[inline(always)]
    fn pair(&self, index: u32) -> Option<[ClassEntry; 2]> {
        let block = self.0.get(index / BLOCK)?;
        let first = ((index % BLOCK) & !1) as usize;
        Some([*block.get(first)?, *block.get(first | 1)?])
    }
}

/// Searches a class of the table in `slot`; 0 if it is damaged. A function that the verifier checks by itself, because it is long for it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn class_interval(slot: u32, base: u32, key: u32) -> u32 {
    CLASSES.get(slot).and_then(|classes| class::interval_index(&Search(classes), base, key)).unwrap_or(0)
}

/// The [`Answer`] of the state at `index` of the classes of the table in `slot`. Verified by itself, as `class_interval` is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn state_answer(slot: u32, index: u32) -> u64 {
    match CLASSES.get(slot).and_then(|classes| State::read(&Search(classes), index)) {
        Some(state) => Answer::of_state(state).0,
        None => Answer::NONE.0,
    }
}

/// The [`Answer`] of a class, with one lookup if it is a short one. Verified by itself, as `class_interval` is.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn class_answer(slot: u32, base: u32, key: u32) -> u64 {
    match short_class(slot, base, key) {
        Some(answer) => answer.0,
        None => class::search(&ClassMap(slot), base, key).map_or(Answer::NONE, Answer::of_verdict).0,
    }
}

/// The [`Answer`] of a class that lies in one block; `None` of another one, and of a damaged one.
#[inline(always)]
fn short_class(slot: u32, base: u32, key: u32) -> Option<Answer> {
    let block = CLASSES.get(slot)?.get(base / BLOCK)?;
    match class::search_block(block, base, key)?.open()? {
        Ok(effect) => Some(Answer(u64::from(effect.decision().0))),
        Err(state) => Some(Answer(state_answer(slot, state))),
    }
}

/// [`class_answer`], in line where the class has few intervals and no state: a call costs as much as a step of the trie.
#[inline(always)]
pub fn few_or_class_answer(slot: u32, base: u32, key: u32) -> Answer {
    let block = CLASSES.get(slot).and_then(|classes| classes.get(base / BLOCK));
    let entry = block.and_then(|block| class::search_few(block, base, key));
    match entry.and_then(|entry| entry.open()) {
        Some(Ok(effect)) => Answer(u64::from(effect.decision().0)),
        _ => Answer(class_answer(slot, base, key)),
    }
}
