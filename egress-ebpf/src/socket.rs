//! `connect()` and `sendmsg()`: the quick no. A denied call fails with EPERM and nothing goes on the wire (§7.1).
//!
//! An allowed call is not counted here: its packets are, at the wall.

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid};
use egress_common::class;
use egress_common::event::{Event, Hook, outcome};
use egress_common::flow::FlowKey;
use egress_common::packet::{mapped, protocol};
use egress_common::reason::DropReason;

use crate::endpoint::{self, Judged};
use crate::names::Named;
use crate::report::{self, Caller, Told};
use crate::{flow, table};

/// `IPPROTO_MPTCP`: TCP on the wire.
const MPTCP: u32 = 262;

/// Judges a call with an IPv4 address.
#[inline(always)]
pub fn allows4(ctx: *mut bpf_sock_addr, hook: Hook) -> bool {
    let Some(endpoint) = endpoint::of_caller(ctx) else {
        return true;
    };
    // SAFETY: the context is valid while the program runs; the field is the address in network order.
    let address = unsafe { (*ctx).user_ip4 }.to_ne_bytes();
    judge(ctx, &endpoint, mapped(address), hook)
}

/// Judges a call with an IPv6 address. An IPv4-mapped one is an IPv4 destination.
#[inline(always)]
pub fn allows6(ctx: *mut bpf_sock_addr, hook: Hook) -> bool {
    let Some(endpoint) = endpoint::of_caller(ctx) else {
        return true;
    };
    // SAFETY: the context is valid while the program runs; the index is below 4. The verifier takes 32-bit reads only, at offsets that it sees.
    let word = |index: usize| unsafe { (&raw const (*ctx).user_ip6[index]).read_volatile() };
    let address = zerocopy::transmute!([word(0), word(1), word(2), word(3)]);
    judge(ctx, &endpoint, address, hook)
}

/// The unspecified address leads to the pod itself: the kernel replaces it by loopback.
#[inline(always)]
fn is_unspecified(address: &[u8; 16]) -> bool {
    *address == [0; 16] || *address == mapped([0; 4])
}

#[inline(always)]
fn judge(ctx: *mut bpf_sock_addr, endpoint: &Judged, remote: [u8; 16], hook: Hook) -> bool {
    if is_unspecified(&remote) {
        return true;
    }
    // SAFETY: the context is valid while the program runs. The port is the low half, in network order.
    let (protocol, port) = unsafe { ((*ctx).protocol, ((*ctx).user_port as u16).to_ne_bytes()) };
    let protocol = if protocol == MPTCP { protocol::TCP } else { protocol as u8 };
    let (port, key) = match protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => (port, class::key(protocol, u16::from_be_bytes(port))),
        protocol::ICMP => ([0; 2], class::key(protocol, 8)),
        protocol::ICMPV6 => ([0; 2], class::key(protocol, 128)),
        _ => ([0; 2], class::key(protocol, 0)),
    };
    let mut named = Named::default();
    let answer = table::ask(endpoint, &remote, key, &mut named);
    let (rank, reason) = match answer.decision() {
        Some(decision) if !decision.is_deny() => return true,
        Some(decision) => {
            if protocol == protocol::UDP && lives_on(ctx, endpoint, remote, port, key) {
                return true;
            }
            report::count_rule(endpoint, decision, 0);
            (decision.rank(), DropReason::Policy)
        }
        None => (Event::NO_RANK, DropReason::NoTable),
    };
    report::count_drop(reason, 0);
    let mut told = Told {
        hook,
        outcome: outcome::DENIED,
        reason: reason as u8,
        rank,
        remote: &remote,
        local: &[0; 16],
        remote_port: port,
        local_port: [0; 2],
        protocol,
        length: 0,
        name: named.id,
    };
    // Programs for packets may not ask for the caller on every kernel, so it is asked for here.
    let caller =
        Caller { pid: (bpf_get_current_pid_tgid() >> 32) as u32, comm: bpf_get_current_comm().unwrap_or([0; 16]) };
    report::tell(endpoint, &told, Some(&caller));
    if let Some(audit) = answer.audit() {
        report::count_rule_apart(endpoint, audit, 0);
        if !audit.is_deny() {
            told.outcome = outcome::WOULD_ALLOW;
            told.rank = audit.rank();
            report::tell(endpoint, &told, Some(&caller));
        }
    }
    false
}

/// Whether a UDP socket goes on with a remote that spoke first, or that a name allowed when it began.
#[inline(always)]
fn lives_on(ctx: *mut bpf_sock_addr, endpoint: &Judged, remote: [u8; 16], remote_port: [u8; 2], key: u32) -> bool {
    // SAFETY: the context is valid while the program runs, and so is its socket, which the verifier checks.
    let local_port = unsafe {
        let sk: *mut bpf_sock = (*ctx).__bindgen_anon_1.sk;
        if sk.is_null() {
            return false;
        }
        (*sk).src_port as u16
    };
    let flow = FlowKey {
        remote,
        endpoint: endpoint.id,
        remote_port,
        local_port: local_port.to_be_bytes(),
        protocol: u32::from(protocol::UDP),
    };
    flow::lives_on(&flow, endpoint, key)
}
