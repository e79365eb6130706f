//! Counts and tells: rule and drop counters, figures, and the event ring with its limiter.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use egress_common::event::{Event, Hook, Limit, LimitKey, Stat, outcome};
use egress_common::reason::DropReason;
use egress_common::table::{Decision, TableInfo, flag};

use crate::endpoint::Judged;
use crate::flow::now;
use crate::maps::{CONFIG, DROP_COUNTERS, EVENT_LIMITS, EVENTS, RULE_COUNTERS, STATS};

const SECOND: u64 = 1_000_000_000;

/// Adds one to a figure.
#[inline(always)]
pub fn stat(stat: Stat) {
    if let Some(value) = STATS.get_ptr_mut(stat as u32) {
        // SAFETY: a per-CPU element; only this CPU writes it, and softirqs on it do not nest within a program.
        unsafe { *value += 1 };
    }
}

/// Counts a packet under the rule that decided.
#[inline(always)]
pub fn count_rule(endpoint: &Judged, decision: Decision, bytes: u32) {
    let info = &endpoint.info;
    let rank = if info.flags & flag::SHARED_COUNTERS == 0 { decision.rank() } else { u32::from(decision.is_deny()) };
    let (at, shift) = (info.counter_base + rank, TableInfo::counters_shift(info.flags));
    // SAFETY: the helper may be called at any time.
    let processor = unsafe { bpf_get_smp_processor_id() };
    if let Some(counter) = RULE_COUNTERS.get_ptr_mut((processor << shift) + at) {
        // SAFETY: as in `stat`: the processor's own part of the array.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(bytes);
        }
    }
}

/// [`count_rule`] as a call, for where it is seldom needed: registers that it does not take need no room on a stack, which 6.1 has least of.
#[inline(never)]
pub fn count_rule_apart(endpoint: &Judged, decision: Decision, bytes: u32) {
    count_rule(endpoint, decision, bytes);
}

/// Counts a drop.
#[inline(always)]
pub fn count_drop(reason: DropReason, bytes: u32) {
    if let Some(counter) = DROP_COUNTERS.get_ptr_mut(reason as u32) {
        // SAFETY: as in `stat`.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(bytes);
        }
    }
}

/// What an event says beside who and when.
pub struct Told<'a> {
    /// Where.
    pub hook: Hook,
    /// One of `egress_common::event::outcome`.
    pub outcome: u8,
    /// Why: a [`DropReason`] number, 0 if it passed.
    pub reason: u8,
    /// Which rule.
    pub rank: u32,
    /// Remote address.
    pub remote: &'a [u8; 16],
    /// The pod's address.
    pub local: &'a [u8; 16],
    /// Remote port.
    pub remote_port: [u8; 2],
    /// The pod's port.
    pub local_port: [u8; 2],
    /// IP protocol.
    pub protocol: u8,
    /// Bytes from the IP header on.
    pub length: u32,
    /// A name id of the remote address; 0 if it has none.
    pub name: u32,
}

/// Who made a socket call. In a packet hook the current process is anybody.
pub struct Caller {
    /// Process id.
    pub pid: u32,
    /// Name of the thread.
    pub comm: [u8; 16],
}

/// Writes an event, unless the rule wrote enough of them this second; then it is counted as a repeat of the next one.
#[inline(never)]
pub fn tell(endpoint: &Judged, told: &Told<'_>, caller: Option<&Caller>) {
    let Some(repeats) = admit(endpoint, told) else { return stat(Stat::EventsLimited) };
    let Some(mut slot) = EVENTS.reserve(0) else { return stat(Stat::EventsLost) };
    let event: *mut Event = slot.as_mut_ptr();
    // SAFETY: the ring reserved the bytes of one event, and every field is written before it is submitted. Field by field, because
    // a whole event would be built on the stack first.
    unsafe {
        (*event).time = now();
        (*event).endpoint = endpoint.id;
        (*event).generation = endpoint.table.generation;
        (*event).rank = told.rank;
        (*event).repeats = repeats;
        (*event).remote = *told.remote;
        (*event).local = *told.local;
        (*event).remote_port = told.remote_port;
        (*event).local_port = told.local_port;
        (*event).protocol = told.protocol;
        (*event).hook = told.hook as u8;
        (*event).outcome = told.outcome;
        (*event).reason = told.reason;
        (*event).pid = caller.map_or(0, |caller| caller.pid);
        (*event).comm = caller.map_or([0; 16], |caller| caller.comm);
        (*event).length = told.length;
        (*event).name = told.name;
        (*event).padding = 0;
    }
    slot.submit(0);
    #[cfg(feature = "log")]
    aya_log_ebpf::info!(
        endpoint,
        "endpoint {} table {} rank {}: reason {} on hook {}, protocol {}, remote {:i} port {}",
        endpoint.id,
        endpoint.table.generation,
        told.rank,
        told.reason,
        told.hook as u8,
        told.protocol,
        *told.remote,
        u16::from_be_bytes(told.remote_port)
    );
}

/// Eight bits of the destination, so that at most 256 of them have a limit each.
#[inline(always)]
fn spread(told: &Told<'_>) -> u32 {
    let mut hash = u32::from(u16::from_ne_bytes(told.remote_port));
    for word in told.remote.as_chunks::<4>().0 {
        hash ^= u32::from_ne_bytes(*word);
    }
    (hash ^ hash >> 8 ^ hash >> 16 ^ hash >> 24) & 0xff
}

/// The repeats to report with this event, or `None` if it is one too many this second.
#[inline(always)]
fn admit(endpoint: &Judged, told: &Told<'_>) -> Option<u32> {
    let spread = if told.outcome == outcome::DENIED { 0 } else { spread(told) };
    let key = LimitKey {
        endpoint: endpoint.id,
        rank: told.rank,
        generation: endpoint.table.generation,
        reason: u32::from(told.reason) | u32::from(told.outcome) << 8 | spread << 16,
    };
    let now = now();
    let Some(limit) = EVENT_LIMITS.get_ptr_mut(key) else {
        // A failed insert only means that the next event is not limited either.
        let _ = EVENT_LIMITS.insert(key, Limit { window: now, written: 1, repeats: 0 }, 0);
        return Some(0);
    };
    let most = CONFIG.get(0).map_or(1, |config| config.events_per_second);
    // SAFETY: a live map element; two CPUs that race here write one event more or less, and a repeat is only lost together with
    // an element that the LRU evicted.
    unsafe {
        if now.wrapping_sub((*limit).window) >= SECOND {
            (*limit).window = now;
            (*limit).written = 0;
        }
        if (*limit).written >= most {
            (*limit).repeats += 1;
            return None;
        }
        (*limit).written += 1;
        let repeats = (*limit).repeats;
        (*limit).repeats = 0;
        Some(repeats)
    }
}
