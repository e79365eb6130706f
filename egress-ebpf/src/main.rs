//! The kernel programs: one thin entry per hook; the stages are in the modules.
//!
//! hook ▶ endpoint (whose packet is it) ▶ packet (what is it; egress-common) ▶ table (what do the rules say) ▶ flow, fragment (is it
//! a reply, a fragment) ▶ report (count, tell); `short` is all of it in one for most packets that pass. A hook without an endpoint passes everything:
//! such traffic is not ours.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod addresses;
mod answer;
mod classes;
mod dns;
mod endpoint;
mod flow;
mod fragment;
mod judge;
mod maps;
mod names;
mod receive;
mod reject;
mod report;
mod short;
mod skb;
mod socket;
mod table;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::{cgroup_skb, cgroup_sock_addr, classifier};
use aya_ebpf::programs::{SkBuffContext, SockAddrContext, TcContext};
use egress_common::event::Hook;

use crate::judge::Verdict;
use crate::skb::Skb;

/// `connect()` to an IPv4 address.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    i32::from(socket::allows4(ctx.sock_addr, Hook::Connect4))
}

/// `connect()` to an IPv6 address, IPv4-mapped ones included.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    i32::from(socket::allows6(ctx.sock_addr, Hook::Connect6))
}

/// `sendto()`/`sendmsg()` with an IPv4 address on a UDP socket.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    i32::from(socket::allows4(ctx.sock_addr, Hook::Sendmsg4))
}

/// `sendto()`/`sendmsg()` with an IPv6 address on a UDP socket.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    i32::from(socket::allows6(ctx.sock_addr, Hook::Sendmsg6))
}

/// Packets that a pod sends: ingress of the host-side interface.
#[classifier]
pub fn tc_from_pod(ctx: TcContext) -> i32 {
    let skb = Skb::new(ctx.as_ptr().cast());
    let Some(endpoint) = endpoint::of_interface(skb) else {
        return TC_ACT_UNSPEC;
    };
    match judge::from_pod(skb, &endpoint, Hook::TcFromPod) {
        Verdict::Pass => TC_ACT_UNSPEC,
        Verdict::Drop => TC_ACT_SHOT,
        Verdict::Refuse => reject::answer(skb),
    }
}

/// Packets that reach a pod: egress of the host-side interface.
#[classifier]
pub fn tc_to_pod(ctx: TcContext) -> i32 {
    let skb = Skb::new(ctx.as_ptr().cast());
    if let Some(endpoint) = endpoint::of_interface(skb) {
        receive::to_pod(skb, &endpoint, Hook::TcToPod);
    }
    TC_ACT_UNSPEC
}

/// Packets that sockets of a pod without a host-side interface send.
#[cgroup_skb(egress)]
pub fn cg_egress(ctx: SkBuffContext) -> i32 {
    let skb = Skb::new(ctx.as_ptr().cast());
    let Some(endpoint) = endpoint::of_socket_cgroup(skb) else {
        return 1;
    };
    match judge::from_pod(skb, &endpoint, Hook::CgroupEgress) {
        Verdict::Pass => 1,
        Verdict::Drop | Verdict::Refuse => 0,
    }
}

/// Packets that reach sockets of a pod without a host-side interface.
#[cgroup_skb(ingress)]
pub fn cg_ingress(ctx: SkBuffContext) -> i32 {
    let skb = Skb::new(ctx.as_ptr().cast());
    if let Some(endpoint) = endpoint::of_socket_cgroup(skb) {
        receive::to_pod(skb, &endpoint, Hook::CgroupIngress);
    }
    1
}

/// Stores addresses that the agent has looked up. It runs this by `BPF_PROG_TEST_RUN`; it is attached nowhere.
#[classifier]
pub fn learn(ctx: TcContext) -> i32 {
    addresses::lesson(Skb::new(ctx.as_ptr().cast())).map_or(-1, |stored| stored as i32)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // SAFETY: the verifier accepts a program only if this cannot be reached.
    unsafe { core::hint::unreachable_unchecked() }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
