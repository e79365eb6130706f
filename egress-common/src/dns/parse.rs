//! Reads a DNS message step by step: the question, the chain of CNAMEs that begins with it, and the addresses at its end (§5.5).
//!
//! A state machine over a [`Scratch`], because the kernel runs it as the body of `bpf_loop`: one [`step`] reads at most eight bytes of a
//! name, or one record. Nothing of the state stands on a stack, so the verifier checks the body once. Pointers must go strictly
//! backwards, so every name ends; the number of steps is bounded besides. The host runs the same code ([`run`]) against hickory-proto.
//!
//! Records are taken in their order. Where one of them stood before the CNAME that leads to it (some servers reorder), the answer
//! section is read again, [`MAX_PASSES`] times at most.

#![expect(
    clippy::cast_possible_truncation,
    clippy::inline_always,
    clippy::indexing_slicing,
    reason = "one body for the verifier, on one stack; indexes are masked below the length of their arrays, parts of words are meant"
)]

use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout};

use super::hash::Hasher;
use super::{Answer, KEY_BUFFER, KEY_END, MAX_MESSAGE, Outcome, Scratch};
use crate::packet::mapped;

/// Most steps that one message takes.
pub const MAX_STEPS: u32 = 2048;
/// Most readings of the answer section.
pub const MAX_PASSES: u32 = 8;
/// Bytes of the header (RFC 1035 §4.1.1).
const HEADER: u32 = 12;
/// Longest name without its root label.
const MAX_NAME: u32 = 254;

const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;

/// What is being read.
mod phase {
    /// The name of the question.
    pub(super) const QUESTION: u32 = 0;
    /// The start of a record.
    pub(super) const RECORD: u32 = 1;
    /// The owner of a record that is not the usual pointer.
    pub(super) const OWNER: u32 = 2;
    /// The target of a CNAME.
    pub(super) const TARGET: u32 = 3;
}

/// Where the parser stands.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct State {
    /// Hash of the name being read.
    hash: Hasher,
    /// The same of the name at the end of the chain so far.
    chain: Hasher,
    /// Hash of the question, type and class included.
    pub question: u64,
    phase: u32,
    /// Next byte to read.
    offset: u32,
    /// Bytes of the message.
    length: u32,
    /// Bytes left of the label being read.
    remaining: u32,
    /// Pointers must point below this.
    lowest: u32,
    /// Where to go on behind the name, once a pointer left it; 0 before.
    resume: u32,
    /// Wire bytes of the name so far.
    total: u32,
    /// Labels of the name so far; of the question, when it is over.
    pub labels: u32,
    /// Where the last name of the chain is written.
    chain_offset: u32,
    /// End of the record that the CNAME target is in.
    record_end: u32,
    /// Records left in this pass, and in a pass.
    records: u32,
    answer_count: u32,
    /// Where the answer section begins.
    section: u32,
    /// Addresses found.
    pub answers: u32,
    /// Bit 0: the owner is at the end of the chain; bit 1: a record off the chain was passed over; bit 2: it stood before a CNAME.
    marks: u32,
    passes: u32,
    /// 1: the question's key is wanted.
    keyed: u32,
    /// Where the next byte of the key goes: it is written backwards.
    key_at: u32,
    /// Bytes of the question's key.
    pub key_bytes: u32,
    /// Where the question's [`NameKey`](crate::names::NameKey) begins in [`Scratch::key`]: four bytes before its bytes.
    pub key_start: u32,
    /// [`Outcome`] that ends the reading; 0: all is well.
    pub error: u32,
    /// 1: nothing is left to do.
    done: u32,
}

const IN_CHAIN: u32 = 1;
const PASSED_OVER: u32 = 2;
const AGAIN: u32 = 4;

impl Scratch {
    /// Empty, for the host. The kernel's are zero from the start.
    pub fn new() -> Self {
        Self::new_zeroed()
    }

    /// Prepares to read the `length` bytes of `message` as a query, whose key is then in [`Scratch::key`].
    #[inline]
    pub fn open_query(&mut self, length: u32) -> Result<(), Outcome> {
        self.open(length, true)?;
        if self.message[2] & 0xf8 != 0 {
            return Err(Outcome::NotAReply);
        }
        Ok(())
    }

    /// Prepares to read the `length` bytes of `message` as a reply. Its answers are only looked at if it has no error and is whole.
    #[inline]
    pub fn open_reply(&mut self, length: u32) -> Result<(), Outcome> {
        self.open(length, false)?;
        if self.message[2] & 0xf8 != 0x80 {
            return Err(Outcome::NotAReply);
        }
        if self.failure().is_none() {
            self.state.answer_count = u32::from(be16(&self.message, 6));
        }
        Ok(())
    }

    /// What the header of a reply says against its answers.
    #[inline]
    pub fn failure(&self) -> Option<Outcome> {
        if self.message[2] & 0x02 != 0 {
            Some(Outcome::Truncated)
        } else if self.message[3] & 0x0f != 0 {
            Some(Outcome::Negative)
        } else {
            None
        }
    }

    #[inline(always)]
    fn open(&mut self, length: u32, keyed: bool) -> Result<(), Outcome> {
        if length as usize > MAX_MESSAGE {
            return Err(Outcome::TooLong);
        }
        if length < HEADER {
            return Err(Outcome::Malformed);
        }
        if be16(&self.message, 4) != 1 {
            return Err(Outcome::ManyQuestions);
        }
        self.state = State { length, keyed: u32::from(keyed), key_at: KEY_END as u32 - 1, ..State::default() };
        self.begin_name(HEADER);
        Ok(())
    }

    #[inline(always)]
    fn begin_name(&mut self, offset: u32) {
        let state = &mut self.state;
        state.hash.begin(&self.secret);
        state.offset = offset;
        state.lowest = offset;
        state.remaining = 0;
        state.resume = 0;
        state.total = 0;
        state.labels = 0;
    }

    /// Reads a little more. `true` when there is nothing left to do; [`State::error`] then says whether it went well.
    #[inline(always)]
    pub fn step(&mut self) -> bool {
        if self.state.done == 0 {
            let result = if self.state.phase == phase::RECORD { self.record() } else { self.name() };
            if let Err(outcome) = result {
                self.state.error = outcome as u32;
                self.state.done = 1;
            } else if self.state.phase == phase::RECORD && self.state.records == 0 {
                self.end_of_pass();
            }
        }
        self.state.done != 0
    }

    /// Reads a pointer, or the head of a label and up to eight bytes of it, and the end of the name if it is there.
    #[inline(always)]
    fn name(&mut self) -> Result<(), Outcome> {
        if self.state.remaining == 0 {
            let head = self.head()?;
            if head & 0xc0 != 0 {
                return self.pointer(head);
            }
            if head != 0 {
                self.label(head)?;
            }
        }
        if self.state.remaining != 0 {
            self.piece()?;
        }
        if self.state.remaining == 0 && self.head()? == 0 { self.end_of_name() } else { Ok(()) }
    }

    /// The byte at the start of a label.
    #[inline(always)]
    fn head(&self) -> Result<u32, Outcome> {
        let offset = self.state.offset;
        if offset < self.state.length { Ok(u32::from(byte(&self.message, offset))) } else { Err(Outcome::Malformed) }
    }

    #[inline(always)]
    fn pointer(&mut self, head: u32) -> Result<(), Outcome> {
        let state = &mut self.state;
        if head & 0xc0 != 0xc0 || state.phase == phase::QUESTION {
            return Err(Outcome::BadName);
        }
        if state.offset + 2 > state.length {
            return Err(Outcome::Malformed);
        }
        let target = u32::from(be16(&self.message, state.offset)) & 0x3fff;
        if target >= state.lowest || target < HEADER {
            return Err(Outcome::BadPointer);
        }
        if state.resume == 0 {
            state.resume = state.offset + 2;
        }
        state.lowest = target;
        state.offset = target;
        Ok(())
    }

    #[inline(always)]
    fn label(&mut self, head: u32) -> Result<(), Outcome> {
        let state = &mut self.state;
        if state.keyed != 0 {
            set_byte(&mut self.key, state.key_at, 0);
            state.key_at = state.key_at.wrapping_sub(1);
        }
        state.total += head + 1;
        if state.total > MAX_NAME {
            return Err(Outcome::NameTooLong);
        }
        state.labels += 1;
        state.offset += 1;
        state.remaining = head;
        Ok(())
    }

    /// Up to eight bytes of a label.
    #[inline(always)]
    fn piece(&mut self) -> Result<(), Outcome> {
        let state = &mut self.state;
        let taken = if state.remaining < 8 { state.remaining } else { 8 };
        if state.offset + taken > state.length {
            return Err(Outcome::Malformed);
        }
        let mask = u64::MAX >> (((8 - taken) * 8) & 63);
        let piece = word(&self.message, state.offset);
        if has_zero(piece | !mask) {
            return Err(Outcome::BadName);
        }
        let piece = lower(piece & mask);
        state.hash.add(piece);
        // No label has a zero byte, so one says that it ends: in the last piece, unless that is full.
        if taken == 8 && state.remaining == 8 {
            state.hash.add(0);
        }
        if state.keyed != 0 {
            set_word(&mut self.key, state.key_at.wrapping_sub(7), piece.swap_bytes());
            state.key_at = state.key_at.wrapping_sub(taken);
        }
        state.offset += taken;
        state.remaining -= taken;
        Ok(())
    }

    #[inline(always)]
    fn end_of_name(&mut self) -> Result<(), Outcome> {
        let state = &mut self.state;
        if state.resume == 0 {
            state.resume = state.offset + 1;
        }
        state.offset = state.resume;
        match state.phase {
            phase::QUESTION => self.end_of_question(),
            phase::OWNER => {
                set(&mut state.marks, IN_CHAIN, state.hash == state.chain);
                self.body()
            }
            _ => {
                if state.offset != state.record_end {
                    return Err(Outcome::Malformed);
                }
                state.chain = state.hash;
                state.phase = phase::RECORD;
                Ok(())
            }
        }
    }

    #[inline(always)]
    fn end_of_question(&mut self) -> Result<(), Outcome> {
        let state = &mut self.state;
        state.key_bytes = state.total;
        state.key_start = state.key_at.wrapping_sub(3);
        if state.offset + 4 > state.length {
            return Err(Outcome::Malformed);
        }
        let (kind, class) = (be16(&self.message, state.offset), be16(&self.message, state.offset + 2));
        if class != CLASS_IN {
            return Err(Outcome::OtherClass);
        }
        state.chain = state.hash;
        state.hash.add(u64::from(kind));
        state.question = state.hash.finish();
        state.chain_offset = HEADER;
        state.section = state.offset + 4;
        state.offset = state.section;
        state.records = state.answer_count;
        state.phase = phase::RECORD;
        state.done = u32::from(state.records == 0);
        Ok(())
    }

    /// The start of a record: most owners are a pointer to the last name of the chain.
    #[inline(always)]
    fn record(&mut self) -> Result<(), Outcome> {
        let state = &mut self.state;
        if state.offset + 2 > state.length {
            return Err(Outcome::Malformed);
        }
        if u32::from(be16(&self.message, state.offset)) == 0xc000 | state.chain_offset {
            state.offset += 2;
            state.marks |= IN_CHAIN;
            return self.body();
        }
        state.phase = phase::OWNER;
        let offset = state.offset;
        self.begin_name(offset);
        Ok(())
    }

    /// The rest of a record, behind its owner.
    #[inline(always)]
    fn body(&mut self) -> Result<(), Outcome> {
        let state = &mut self.state;
        let offset = state.offset;
        if offset + 10 > state.length {
            return Err(Outcome::Malformed);
        }
        let (kind, class) = (be16(&self.message, offset), be16(&self.message, offset + 2));
        let ttl = be32(&self.message, offset + 4);
        let size = u32::from(be16(&self.message, offset + 8));
        let start = offset + 10;
        if start + size > state.length {
            return Err(Outcome::Malformed);
        }
        state.records -= 1;
        state.offset = start + size;
        state.phase = phase::RECORD;
        if class != CLASS_IN || !matches!(kind, TYPE_A | TYPE_AAAA | TYPE_CNAME) {
            return Ok(());
        }
        if state.marks & IN_CHAIN == 0 {
            state.marks |= PASSED_OVER;
            return Ok(());
        }
        match (kind, size) {
            (TYPE_A, 4) => {
                let address = be32(&self.message, start).to_be_bytes();
                self.answer(mapped(address), ttl)
            }
            (TYPE_AAAA, 16) => {
                let halves = [word(&self.message, start), word(&self.message, start + 8)];
                self.answer(zerocopy::transmute!(halves.map(u64::to_le_bytes)), ttl)
            }
            (TYPE_CNAME, _) => {
                if state.marks & PASSED_OVER != 0 {
                    state.marks |= AGAIN;
                }
                state.record_end = start + size;
                state.chain_offset = start;
                state.phase = phase::TARGET;
                self.begin_name(start);
                Ok(())
            }
            _ => Err(Outcome::Malformed),
        }
    }

    #[inline(always)]
    fn answer(&mut self, address: [u8; 16], ttl: u32) -> Result<(), Outcome> {
        let index = self.state.answers as usize;
        let Some(answer) = self.answers.get_mut(index) else {
            return Err(Outcome::TooManySteps);
        };
        // RFC 2181 §8: a TTL with the top bit set is zero.
        *answer = Answer { address, ttl: if ttl > i32::MAX.unsigned_abs() { 0 } else { ttl }, padding: 0 };
        self.state.answers += 1;
        Ok(())
    }

    #[inline(always)]
    fn end_of_pass(&mut self) {
        let state = &mut self.state;
        state.passes += 1;
        if state.marks & AGAIN == 0 || state.passes >= MAX_PASSES {
            state.done = 1;
        } else {
            state.marks = 0;
            state.answers = 0;
            state.offset = state.section;
            state.records = state.answer_count;
        }
    }

    /// What became of the reading, after [`MAX_STEPS`] steps at most.
    #[inline]
    pub fn result(&self) -> Result<(), Outcome> {
        if self.state.done == 0 {
            return Err(Outcome::TooManySteps);
        }
        match u8::try_from(self.state.error).ok().and_then(Outcome::from_number) {
            Some(outcome) => Err(outcome),
            None => Ok(()),
        }
    }

    /// All steps, for the host.
    pub fn run(&mut self) -> Result<(), Outcome> {
        for _ in 0..MAX_STEPS {
            if self.step() {
                break;
            }
        }
        self.result()
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

type Message = [u8; MAX_MESSAGE + 16];

/// Offsets below the length are below [`MAX_MESSAGE`]; the mask tells the verifier.
#[inline(always)]
const fn within(offset: u32) -> usize {
    offset as usize & (MAX_MESSAGE - 1)
}

#[inline(always)]
fn byte(message: &Message, offset: u32) -> u8 {
    message[within(offset)]
}

#[inline(always)]
fn be16(message: &Message, offset: u32) -> u16 {
    (word(message, offset) as u16).swap_bytes()
}

#[inline(always)]
fn be32(message: &Message, offset: u32) -> u32 {
    (word(message, offset) as u32).swap_bytes()
}

/// Eight bytes, the first one lowest.
#[inline(always)]
fn word(message: &Message, offset: u32) -> u64 {
    memory::word(&message[within(offset)..])
}

/// Words at any address of map memory. The kernel allows that, but only its instructions say so: to the compiler they are bytes.
#[cfg(target_arch = "bpf")]
mod memory {
    use core::arch::asm;

    #[inline(always)]
    pub(super) fn word(bytes: &[u8]) -> u64 {
        let word;
        // SAFETY: every caller has eight bytes behind the start, which the verifier checks.
        unsafe { asm!("{word} = *(u64 *)({at} + 0)", word = out(reg) word, at = in(reg) bytes.as_ptr()) };
        word
    }

    #[inline(always)]
    pub(super) fn set_word(bytes: &mut [u8], value: u64) {
        // SAFETY: as in `word`.
        unsafe { asm!("*(u64 *)({at} + 0) = {value}", at = in(reg) bytes.as_mut_ptr(), value = in(reg) value) };
    }
}

#[cfg(not(target_arch = "bpf"))]
mod memory {
    pub(super) fn word(bytes: &[u8]) -> u64 {
        bytes.first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
    }

    pub(super) fn set_word(bytes: &mut [u8], value: u64) {
        if let Some(chunk) = bytes.first_chunk_mut() {
            *chunk = value.to_le_bytes();
        }
    }
}

#[inline(always)]
fn set_byte(key: &mut [u8; KEY_BUFFER], at: u32, value: u8) {
    key[at as usize & (KEY_END - 1)] = value;
}

#[inline(always)]
fn set_word(key: &mut [u8; KEY_BUFFER], at: u32, value: u64) {
    memory::set_word(&mut key[at as usize & (KEY_END - 1)..], value);
}

#[inline(always)]
const fn set(marks: &mut u32, mark: u32, on: bool) {
    *marks = if on { *marks | mark } else { *marks & !mark };
}

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x8080_8080_8080_8080;

/// Whether any byte is zero.
#[inline(always)]
const fn has_zero(word: u64) -> bool {
    word.wrapping_sub(ONES) & !word & TOPS != 0
}

/// ASCII letters in lower case, eight at a time: bit 7 of each sum tells whether the byte is at least `A`, or above `Z`.
#[inline(always)]
const fn lower(word: u64) -> u64 {
    let low = word & !TOPS;
    let from_a = low.wrapping_add(ONES * (0x80 - b'A' as u64));
    let above_z = low.wrapping_add(ONES * (0x80 - b'Z' as u64 - 1));
    let letters = from_a & !above_z & !word & TOPS;
    word | (letters >> 2)
}

#[cfg(test)]
mod tests;
