//! Whose packet or call this is: interface, network namespace or cgroup → endpoint → the table that judges it now.

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_netns_cookie, bpf_skb_ancestor_cgroup_id,
};
use egress_common::abi::Hold;
use egress_common::endpoint::{Endpoint, EndpointKey, InterfaceSlot, TableRef, key_kind};
use egress_common::table::{TableInfo, flag};
use egress_common::trie::NOWHERE;

use crate::maps::{CONFIG, ENDPOINT_IDS, ENDPOINTS, INTERFACES, TABLE_INFO};
use crate::skb::Skb;

/// Depths below the cgroup root at which endpoints are looked for.
const CGROUP_LEVELS: u32 = 16;

/// A pod with a policy, and the table version that judges this packet: read once, so a packet never sees two versions.
#[derive(Clone, Copy)]
pub struct Judged {
    /// Number of the endpoint.
    pub id: u32,
    /// Bits of [`egress_common::endpoint::flag`].
    pub flags: u32,
    /// The table.
    pub table: TableRef,
    /// Its constants.
    pub info: Info,
}

/// What is needed of a [`TableInfo`]: less, because stacks are short.
#[derive(Clone, Copy)]
pub struct Info {
    /// See [`TableInfo`].
    pub counter_base: u32,
    /// See [`TableInfo`]; [`flag::GONE`] and nothing else if the table is gone.
    pub flags: u32,
    /// See [`TableInfo`].
    pub head_rules: u32,
    /// See [`TableInfo`].
    pub root4: u32,
}

impl Info {
    /// Of no table.
    const NONE: Self = Self { counter_base: 0, flags: flag::GONE, head_rules: 0, root4: NOWHERE };

    #[inline(always)]
    fn of(table: TableRef) -> Self {
        match TABLE_INFO.get(table.slot) {
            Some(&TableInfo { generation, counter_base, flags, head_rules, root4, .. })
                if generation == table.generation =>
            {
                Self { counter_base, flags, head_rules, root4 }
            }
            _ => Self::NONE,
        }
    }
}

impl Judged {
    /// No endpoint: its number is 0.
    pub const NOBODY: Self = Self { id: 0, flags: 0, table: TableRef { slot: 0, generation: 0 }, info: Info::NONE };
}

/// The endpoint behind a host-side interface.
#[inline(always)]
pub fn of_interface(skb: Skb) -> Option<Judged> {
    let interface = skb.interface();
    let word: *const u64 = INTERFACES.get_ptr(InterfaceSlot::place(interface))?;
    // SAFETY: the pointer is a live array element; one aligned 64-bit load, which pairs with the agent's one store.
    let found = InterfaceSlot::from_bits(unsafe { word.read_volatile() });
    let slot =
        if found.interface == interface { found.slot } else { lookup(key_kind::INTERFACE, u64::from(interface))? };
    judged(slot)
}

/// The endpoint whose cgroup the packet's socket is in.
#[inline(always)]
pub fn of_socket_cgroup(skb: Skb) -> Option<Judged> {
    // SAFETY: the context is valid while the program runs; the helper takes any level.
    judged(of_cgroup(|level| unsafe { bpf_skb_ancestor_cgroup_id(skb.raw(), level) })?)
}

/// The endpoint of the calling process: by its network namespace, whatever its cgroup, else by its cgroup; of a process of a pod that nobody
/// knows yet, the one for such (§6.6).
#[inline(always)]
pub fn of_caller(ctx: *mut bpf_sock_addr) -> Option<Judged> {
    // SAFETY: the context is valid while the program runs.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.cast()) };
    let slot = match lookup(key_kind::NETNS, cookie) {
        Some(slot) => slot,
        // SAFETY: the helper takes any level.
        None => match of_cgroup(|level| unsafe { bpf_get_current_ancestor_cgroup_id(level) }) {
            Some(slot) => slot,
            None => held(cookie)?,
        },
    };
    judged(slot)
}

/// The slot for the calling process, which no key is about, if it belongs to a new pod.
#[inline(always)]
fn held(cookie: u64) -> Option<u32> {
    let config = CONFIG.get(0)?;
    // SAFETY: a live word; one aligned load, so level and slot belong together.
    let hold = Hold::from_bits(unsafe { (&raw const config.hold).read_volatile() });
    if hold.level == 0 || cookie == config.host {
        return None;
    }
    // SAFETY: the helper takes any level.
    let cgroup = unsafe { bpf_get_current_ancestor_cgroup_id(hold.level as i32) };
    if cgroup == config.hold_cgroup { Some(hold.slot) } else { None }
}

/// The slot, or [`FREE`](egress_common::endpoint::FREE), of the first ancestor that is a pod's.
#[inline(always)]
fn of_cgroup(ancestor: impl Fn(i32) -> u64) -> Option<u32> {
    let levels = CONFIG.get(0)?.cgroup_levels;
    for level in 1..CGROUP_LEVELS {
        if levels & (1 << level) == 0 {
            continue;
        }
        let id = ancestor(level as i32);
        if id == 0 {
            return None;
        }
        if let Some(slot) = lookup(key_kind::CGROUP, id) {
            return Some(slot);
        }
    }
    None
}

#[inline(always)]
fn lookup(kind: u32, id: u64) -> Option<u32> {
    // SAFETY: one word, which is stored at once; an element reused for another key belongs to a pod that is gone.
    Some(*unsafe { ENDPOINT_IDS.get(EndpointKey::new(kind, id)) }?)
}

/// What judges the endpoint in a slot now; nothing, if that is [`FREE`](egress_common::endpoint::FREE).
#[inline(always)]
fn judged(slot: u32) -> Option<Judged> {
    let endpoint: *const Endpoint = ENDPOINTS.get_ptr(slot)?;
    // SAFETY: the pointer is a live array element; the volatile read is the one aligned 64-bit load that pairs with the
    // agent's one store, so table slot and generation belong together.
    let (bits, id, flags) =
        unsafe { ((&raw const (*endpoint).table).read_volatile(), (*endpoint).id, (*endpoint).flags) };
    let table = TableRef::from_bits(bits);
    if table.generation == 0 {
        return None;
    }
    Some(Judged { id, flags, table, info: Info::of(table) })
}
