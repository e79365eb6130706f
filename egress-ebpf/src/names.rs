//! Joins what a table says of the prefix of an address with what it says of the names that the address was learned for (§4.2, §5.3).
//!
//! Only tables with names come here, and only addresses with names go further than one lookup. Nothing here knows hooks or packets.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use egress_common::names::{AddressNames, Effect, IDS_PER_ADDRESS, NameLeaf, Slot, State, name_state};
use egress_common::table::flag;

use crate::answer::Answer;
use crate::classes::ClassMap;
use crate::endpoint::Judged;
use crate::flow::now;
use crate::maps::{ADDRESSES, NAME_LEAVES};

/// What names had to do with a verdict.
#[derive(Clone, Copy, Default)]
pub struct Named {
    /// A live name id of the address: the one that changed the verdict last, otherwise the first one; 0 without names.
    pub id: u32,
    /// 1 if the prefix alone would be denied and the name makes it allowed.
    pub grants: u32,
}

/// What the loop over the names of an address works with.
#[repr(C)]
struct Context<'a> {
    names: *const AddressNames,
    endpoint: &'a Judged,
    state: State,
    key: u32,
    now: u32,
    id: u32,
    damaged: u32,
}

/// The verdict at `address`, whose prefix says `state`, for (protocol, port) `key`.
#[inline(always)]
pub fn merge(endpoint: &Judged, address: &[u8; 16], state: &State, key: u32, named: &mut Named) -> Answer {
    let Some(learned) = ADDRESSES.get_ptr(address) else { return Answer::of_state(*state) };
    let now = (now() / 1_000_000_000) as u32;
    let mut context =
        Context { names: learned, endpoint, state: forget(*state, endpoint), key, now, id: 0, damaged: 0 };
    // SAFETY: the callback gets the context back, and it outlives the call.
    unsafe { bpf_loop(IDS_PER_ADDRESS as u32, visit as *mut c_void, (&raw mut context).cast(), 0) };
    if context.damaged != 0 {
        return Answer::NONE;
    }
    let (before, after) = (Answer::of_state(*state), Answer::of_state(context.state));
    named.id = context.id;
    named.grants = u32::from(before.denies() && !after.denies());
    after
}

unsafe extern "C" fn visit(index: u64, context: *mut Context<'_>) -> i64 {
    // SAFETY: `merge` passes its context.
    let context = unsafe { &mut *context };
    let index = index as usize & (IDS_PER_ADDRESS - 1);
    // SAFETY: a live map element; one aligned 64-bit load.
    let bits = unsafe { (&raw const (*context.names).slots[index]).read_volatile() };
    let Some(slot) = Slot::from_bits(bits) else { return 1 };
    if slot.expiry <= context.now {
        return 0;
    }
    let Some(state) = of_name(context.endpoint, slot.id, context.key) else {
        context.damaged = 1;
        return 1;
    };
    let before = context.state;
    context.state = before.merge(state);
    if context.id == 0 || before.is_changed_by(state) {
        context.id = slot.id;
    }
    0
}

/// Lets the verifier forget the state, so that it follows the loop once and not once per state. Changes nothing at run time.
#[inline(always)]
fn forget(state: State, endpoint: &Judged) -> State {
    let zero = endpoint.info.flags >> flag::NEVER.trailing_zeros();
    State {
        head: Effect(state.head.0 | zero),
        tail: Effect(state.tail.0 | zero),
        audit_head: Effect(state.audit_head.0 | zero),
        audit_tail: Effect(state.audit_tail.0 | zero),
    }
}

/// What the rules about a name say. `None`: the table is damaged.
#[inline(always)]
pub fn of_name(endpoint: &Judged, id: u32, key: u32) -> Option<State> {
    name_state(&ClassMap(endpoint.table.slot), leaf(endpoint, id)?, key, endpoint.info.head_rules)
}

/// What the table says of a name id. `None`: the table is damaged. Of a name that came after the table it says nothing until the agent
/// has stored its leaf.
#[inline(always)]
fn leaf(endpoint: &Judged, id: u32) -> Option<NameLeaf> {
    Some(NAME_LEAVES.get(endpoint.table.slot)?.get(id).copied().unwrap_or_default())
}

/// What the loop that looks for any name works with.
#[repr(C)]
struct Search<'a> {
    names: *const AddressNames,
    endpoint: &'a Judged,
    now: u32,
    found: u32,
}

/// Whether any rule of the table is about a live name of the address.
#[inline(always)]
pub fn concern(endpoint: &Judged, address: &[u8; 16]) -> bool {
    let Some(names) = ADDRESSES.get_ptr(address) else { return false };
    let mut context = Search { names, endpoint, now: (now() / 1_000_000_000) as u32, found: 0 };
    // SAFETY: the callback gets the context back, and it outlives the call.
    unsafe { bpf_loop(IDS_PER_ADDRESS as u32, look as *mut c_void, (&raw mut context).cast(), 0) };
    context.found != 0
}

unsafe extern "C" fn look(index: u64, context: *mut Search<'_>) -> i64 {
    // SAFETY: `concern` passes its context.
    let context = unsafe { &mut *context };
    let index = index as usize & (IDS_PER_ADDRESS - 1);
    // SAFETY: a live map element; one aligned 64-bit load.
    let bits = unsafe { (&raw const (*context.names).slots[index]).read_volatile() };
    let Some(slot) = Slot::from_bits(bits) else { return 1 };
    if slot.expiry > context.now && leaf(context.endpoint, slot.id).is_none_or(|leaf| leaf.open().is_some()) {
        context.found = 1;
        return 1;
    }
    0
}
