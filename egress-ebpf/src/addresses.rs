//! The learned addresses: stores answers under the id of their name (§5.3, §5.6, §5.9). The only writer of the map, for the programs and
//! for the agent alike, so that no update is lost between the two.

use core::arch::asm;
use core::ffi::c_void;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_skb_load_bytes};
use egress_common::abi::config_flag;
use egress_common::dns::{Answer, Choice, Lesson, MAX_ANSWERS, Outcome, Scratch};
use egress_common::names::{AddressNames, IDS_PER_ADDRESS, Slot, is_special};

use crate::dns::{LEARN_SCRATCH, count};
use crate::endpoint::Judged;
use crate::flow::now;
use crate::maps::{ADDRESSES, CONFIG, DNS_SCRATCH};
use crate::skb::Skb;
use crate::table;

const EEXIST: i32 = -17;
/// Attempts at an address that other CPUs change at the same time.
const ATTEMPTS: u32 = 4;

/// What the storing loop works with.
#[repr(C)]
struct Context<'a> {
    scratch: &'a mut Scratch,
    /// Whose table says what is internal; number 0 for the agent, which has looked itself.
    endpoint: &'a Judged,
}

/// Stores the answers that were read, as of the time in [`Scratch::reply`], under the name of [`Scratch::lesson`], and counts them there.
#[inline(always)]
pub fn learn(endpoint: &Judged, scratch: &mut Scratch, name: u32) {
    scratch.lesson = Lesson { count: 0, ..Lesson::new(name, 0) };
    let answers = scratch.state.answers;
    let mut context = Context { scratch, endpoint };
    // SAFETY: the callback gets the context back, and it outlives the call.
    unsafe { bpf_loop(answers, store as *mut c_void, (&raw mut context).cast(), 0) };
}

/// Stores what the agent has looked up itself. Returns how many addresses, or `None` for data of another form.
#[inline(always)]
pub fn lesson(skb: Skb) -> Option<u32> {
    // SAFETY: nobody else uses this memory: the agent runs the program once at a time.
    let scratch = unsafe { &mut *DNS_SCRATCH.get_ptr_mut(LEARN_SCRATCH)? };
    let head = size_of::<Lesson>() as u32;
    // SAFETY: both buffers have the bytes that are named; the helper checks the end of the data.
    unsafe {
        if bpf_skb_load_bytes(skb.raw().cast(), 0, (&raw mut scratch.lesson).cast(), head) != 0 {
            return None;
        }
        let count = scratch.lesson.count;
        if count == 0 || count > Lesson::MAX_ANSWERS as u32 {
            return None;
        }
        let bytes = opaque(&mut scratch.lesson.count, count, Lesson::MAX_ANSWERS as u32) * size_of::<Answer>() as u32;
        if bpf_skb_load_bytes(skb.raw().cast(), head, scratch.answers.as_mut_ptr().cast(), bytes) != 0 {
            return None;
        }
        scratch.state.answers = count;
    }
    scratch.reply.time = now();
    let name = scratch.lesson.name;
    learn(&Judged::NOBODY, scratch, name);
    Some(scratch.lesson.count)
}

/// `value`, which is between 1 and `limit`, a power of two, in a way that the verifier of 6.1 sees it too. Uses `memory` of a map.
#[inline(always)]
pub fn opaque(memory: &mut u32, value: u32, limit: u32) -> u32 {
    let memory: *mut u32 = memory;
    // SAFETY: a live reference. Volatile, so that the compiler does not take out what it knows.
    unsafe {
        memory.write_volatile(value.wrapping_sub(1));
        (memory.read_volatile() & (limit - 1)) + 1
    }
}

unsafe extern "C" fn store(index: u64, context: *mut Context<'_>) -> i64 {
    // SAFETY: `learn` passes its context.
    let context = unsafe { &mut *context };
    let scratch = &mut *context.scratch;
    let index = index as usize & (MAX_ANSWERS - 1);
    let Some(config) = CONFIG.get(0) else { return 1 };
    if config.flags & config_flag::LEARN_INTERNAL == 0 && is_internal(context.endpoint, &scratch.answers[index].address)
    {
        count(Outcome::Internal);
        return 0;
    }
    let now = (scratch.reply.time / 1_000_000_000) as u32;
    let lifetime = scratch.answers[index].ttl.max(config.min_ttl).min(config.max_ttl) + config.grace;
    let slot = Slot { id: scratch.lesson.name, expiry: now + lifetime };
    for _ in 0..ATTEMPTS {
        if let Some(outcome) = place(scratch, index, slot, now) {
            count(outcome);
            scratch.lesson.count += u32::from(outcome as u8 != Outcome::AddressesFull as u8);
            break;
        }
    }
    0
}

#[inline(always)]
fn is_internal(endpoint: &Judged, address: &[u8; 16]) -> bool {
    is_special(address) || (endpoint.id != 0 && table::is_internal(endpoint, address))
}

/// Puts a slot at the address of an answer. `None`: another CPU was faster; try again.
#[inline(always)]
fn place(scratch: &mut Scratch, index: usize, slot: Slot, now: u32) -> Option<Outcome> {
    let address = &scratch.answers[index].address;
    let Some(names) = ADDRESSES.get_ptr_mut(address) else {
        scratch.fresh.slots[0] = slot.to_bits();
        let fresh = &scratch.fresh;
        return match ADDRESSES.insert(address, fresh, u64::from(BPF_NOEXIST)) {
            Ok(()) => Some(Outcome::Addresses),
            Err(EEXIST) => None,
            Err(_) => Some(Outcome::AddressesFull),
        };
    };
    choose(names, slot.id, now, &raw mut scratch.choice);
    // SAFETY: just written.
    let Choice { found, index: victim, .. } = unsafe { (&raw const scratch.choice).read_volatile() };
    let evicts = Slot::from_bits(found).is_some_and(|old| old.id != slot.id && old.expiry > now);
    if Slot::from_bits(found).is_some_and(|old| old.id == slot.id && old.expiry >= slot.expiry) {
        return Some(Outcome::Addresses);
    }
    // SAFETY: a live map element, and the index is below its length; readers and other writers use single 64-bit accesses too.
    let placed = unsafe {
        let word = (&raw mut (*names).slots).cast::<u64>().add(victim as usize & (IDS_PER_ADDRESS - 1));
        compare_exchange(word, found, slot.to_bits()) == found
    };
    // The agent may have removed the element meanwhile, because everything in it had expired.
    if !placed || ADDRESSES.get_ptr_mut(address).is_none() {
        return None;
    }
    Some(if evicts { Outcome::Evicted } else { Outcome::Addresses })
}

/// Writes `new` if the word still is `old`; returns what it was. `core` has no compare-and-exchange for this target.
///
/// # Safety
/// `word` points to aligned memory that may be written.
#[inline(always)]
unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> u64 {
    let seen;
    // SAFETY: one atomic instruction (BPF_CMPXCHG, Linux 5.12) on the caller's word.
    unsafe {
        asm!("r0 = cmpxchg_64({word} + 0, r0, {new})", word = in(reg) word, new = in(reg) new, inout("r0") old => seen);
    }
    seen
}

/// The slot to write: that of the same name, else one that has ended, else a free one, else the one that ends first.
///
/// The accesses are volatile, so that the choice stands in memory and not in registers, of which the verifier would follow every value.
#[inline(always)]
fn choose(names: *const AddressNames, id: u32, now: u32, choice: *mut Choice) {
    let put = |found: u64, index: usize, ends: u32| {
        // SAFETY: the caller's choice.
        unsafe { choice.write_volatile(Choice { found, index: index as u32, ends }) };
    };
    put(0, 0, u32::MAX);
    for index in 0..IDS_PER_ADDRESS {
        // SAFETY: a live map element, one aligned 64-bit load; and the caller's choice.
        let (bits, ends) = unsafe {
            ((&raw const (*names).slots[index]).read_volatile(), (&raw const (*choice).ends).read_volatile())
        };
        let Some(slot) = Slot::from_bits(bits) else {
            if ends > now {
                put(0, index, 0);
            }
            return;
        };
        if slot.id == id || slot.expiry < ends {
            put(bits, index, slot.expiry);
        }
        if slot.id == id {
            return;
        }
    }
}
