//! What the rules say: address → longest prefix → decision, or a class ([`classes`](crate::classes)).

use aya_ebpf::btf_maps::lpm_trie::Key;
use egress_common::class;
use egress_common::names::{State, prefix_state};
use egress_common::packet::{Destination, unmapped};
use egress_common::table::{Leaf, flag};
use egress_common::trie::{self, CHUNK_UNITS, Unit, Units};

use crate::answer::Answer;
use crate::classes::{ClassMap, class_answer, few_or_class_answer};
use crate::endpoint::Judged;
use crate::maps::{TABLE_INFO, TABLES4, TABLES6, TRIES};
use crate::names::{self, Named};

/// What the endpoint's table says of (protocol, port) `key` at `address`, and what names had to do with it.
#[inline(always)]
pub fn ask(endpoint: &Judged, address: &[u8; 16], key: u32, named: &mut Named) -> Answer {
    let [high, low] = zerocopy::transmute!(*address);
    Answer(table_ask(endpoint, high, low, key, named))
}

/// [`ask`] in the most frequent case, in line, because each call costs as much as a step of the trie: the table has no rules about names, and a
/// trie for the destination's family.
#[inline(always)]
pub fn ask_trie(endpoint: &Judged, destination: Destination, key: u32) -> Answer {
    let leaf = match destination {
        Destination::V4(address) => walk4(endpoint.info.root4, address),
        Destination::V6(high, low) => found(trie_leaf6(endpoint.table.slot, high, low)),
    };
    match leaf.map(Leaf::open) {
        Some(Ok(decision)) => Answer(u64::from(decision.0)),
        Some(Err(base)) => few_or_class_answer(endpoint.table.slot, base, key),
        None => Answer::NONE,
    }
}

/// [`ask`], as a function that the verifier checks by itself: once in a program, whatever is known at its calls. The address comes by
/// value, because before 6.8 no map takes a key from a caller's memory.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn table_ask(endpoint: *const Judged, high: u64, low: u64, key: u32, named: *mut Named) -> u64 {
    // SAFETY: the verifier lets only whole values in, or null.
    match unsafe { (endpoint.as_ref(), named.as_mut()) } {
        (Some(endpoint), Some(named)) => find(endpoint, &zerocopy::transmute!([high, low]), key, named).0,
        _ => Answer::NONE.0,
    }
}

#[inline(always)]
fn find(endpoint: &Judged, address: &[u8; 16], key: u32, named: &mut Named) -> Answer {
    let Some(leaf) = leaf(endpoint, address) else { return Answer::NONE };
    if endpoint.info.flags & flag::NAMES != 0 {
        return match state(endpoint, leaf, key) {
            Some(state) => names::merge(endpoint, address, &state, key, named),
            None => Answer::NONE,
        };
    }
    match leaf.open() {
        Ok(decision) => Answer(u64::from(decision.0)),
        Err(base) => Answer(class_answer(endpoint.table.slot, base, key)),
    }
}

/// First matches among the rules about prefixes.
#[inline(always)]
fn state(endpoint: &Judged, leaf: Leaf, key: u32) -> Option<State> {
    prefix_state(&ClassMap(endpoint.table.slot), leaf, key, endpoint.info.head_rules)
}

/// Whether the verdict would be Allow if the address had the name `id` now (§5.7).
#[inline(never)]
pub fn would_allow(endpoint: &Judged, address: &[u8; 16], key: u32, id: u32) -> bool {
    if endpoint.info.flags & flag::NAMES == 0 {
        return false;
    }
    let prefix = leaf(endpoint, address).and_then(|leaf| state(endpoint, leaf, key));
    match (prefix, names::of_name(endpoint, id, key)) {
        (Some(prefix), Some(name)) => !Answer::of_state(prefix.merge(name)).denies(),
        _ => false,
    }
}

/// Whether the address is internal for the endpoint (§1.2).
#[inline(always)]
pub fn is_internal(endpoint: &Judged, address: &[u8; 16]) -> bool {
    matches!(leaf(endpoint, address).map(Leaf::open), Some(Ok(decision)) if decision.is_internal())
}

/// No protocol number; for [`ask_any_port`]. Not an `Option`, whose value would be an uninitialized register where it is `None`.
pub const ANY_PROTOCOL: u32 = 256;

/// What the endpoint's table says of `protocol` at `address` whatever the port; of every protocol if that is [`ANY_PROTOCOL`].
#[inline(never)]
pub fn ask_any_port(endpoint: &Judged, address: &[u8; 16], protocol: u32) -> Answer {
    let Some(leaf) = leaf(endpoint, address) else { return Answer::NONE };
    // Rules about names may have ports of their own; the first fragment was judged by them.
    if endpoint.info.flags & flag::NAMES != 0 && names::concern(endpoint, address) {
        return Answer::DEPENDS;
    }
    let base = match leaf.open() {
        Ok(decision) => return Answer(u64::from(decision.0)),
        Err(base) => base,
    };
    let Ok(protocol) = u8::try_from(protocol) else {
        return Answer::DEPENDS;
    };
    class::search_any_port(&ClassMap(endpoint.table.slot), base, protocol).map_or(Answer::DEPENDS, Answer::of_verdict)
}

#[inline(always)]
fn leaf(endpoint: &Judged, address: &[u8; 16]) -> Option<Leaf> {
    let (slot, info) = (endpoint.table.slot, &endpoint.info);
    if info.flags & flag::GONE != 0 {
        return None;
    }
    // No IPv6 packet has an IPv4-mapped address: the parser refuses it.
    match unmapped(*address) {
        Some(v4) if info.flags & flag::TRIE4 != 0 => found(trie_leaf4(info.root4, u32::from_be_bytes(v4))),
        Some(v4) => TABLES4.get(slot)?.get(&Key::new(32, v4)).copied(),
        None if info.flags & flag::TRIE6 != 0 => {
            let [high, low]: [u64; 2] = zerocopy::transmute!(*address);
            found(trie_leaf6(slot, u64::from_be(high), u64::from_be(low)))
        }
        None => TABLES6.get(slot)?.get(&Key::new(128, *address)).copied(),
    }
}

/// The units of all tries.
struct TrieUnits;

impl Units for TrieUnits {
    #[inline(always)]
    fn unit(&self, index: u32) -> Option<&Unit> {
        TRIES.get(index / CHUNK_UNITS)?.get(index % CHUNK_UNITS)
    }
}

/// Bit of [`trie_leaf4`] and [`trie_leaf6`] beside a leaf, because a leaf may be 0.
const FOUND: u64 = 1 << 32;

#[inline(always)]
fn found(answer: u64) -> Option<Leaf> {
    if answer & FOUND == 0 { None } else { Some(Leaf(answer as u32)) }
}

/// The leaf of an IPv4 address in a trie, with [`FOUND`]; 0 if it is damaged. Verified by itself, as [`table_ask`] is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn trie_leaf4(root: u32, address: u32) -> u64 {
    walk4(root, address).map_or(0, |leaf| FOUND | u64::from(leaf.0))
}

/// The leaf of an IPv4 address, in host order.
#[inline(always)]
fn walk4(root: u32, address: u32) -> Option<Leaf> {
    trie::lookup4(&TrieUnits, root, address.to_be_bytes())
}

/// The leaf of an IPv6 address, whose halves are in host order, in the trie of the table in `slot`; likewise.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn trie_leaf6(slot: u32, high: u64, low: u64) -> u64 {
    let leaf = TABLE_INFO.get(slot).and_then(|info| trie::lookup6(&TrieUnits, info.root6, high, low));
    leaf.map_or(0, |leaf| FOUND | u64::from(leaf.0))
}
