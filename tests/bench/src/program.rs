//! The programs that ours is compared with, instruction by instruction: the empty one, and one lookup in the kernel's LPM trie.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use crate::kernel::{self, Instruction};

/// `TC_ACT_UNSPEC`: the packet goes on.
pub(crate) const PASS: i32 = -1;
/// `TC_ACT_SHOT`: the packet is dropped.
pub(crate) const DROP: i32 = 2;

// Operations, see Documentation/bpf/standardization/instruction-set.rst.
const LOAD_WORD: u8 = 0x61;
const STORE_WORD: u8 = 0x63;
const STORE_IMMEDIATE: u8 = 0x62;
const MOVE: u8 = 0xbf;
const MOVE_IMMEDIATE: u8 = 0xb7;
const ADD_IMMEDIATE: u8 = 0x07;
const LOAD_DOUBLE_IMMEDIATE: u8 = 0x18;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_IF_GREATER: u8 = 0x2d;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const MAP_LOOKUP: i32 = 1;
const PSEUDO_MAP_FD: u8 = 1;

// `struct __sk_buff`, and where an IPv4 header behind Ethernet has its destination and its end.
const SKB_DATA: i16 = 76;
const SKB_DATA_END: i16 = 80;
const IPV4_DESTINATION: i16 = 30;
const HEADERS_END: i32 = 34;

const fn op(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | destination, offset, immediate }
}

/// The empty program: what the hook itself costs.
pub(crate) fn none() -> anyhow::Result<OwnedFd> {
    kernel::load_classifier(&[op(MOVE_IMMEDIATE, 0, 0, 0, PASS), op(EXIT, 0, 0, 0, 0)])
}

/// Looks the destination up in `trie`, whose value is what to return. No parsing beyond that, no counters, no ports.
pub(crate) fn lpm(trie: BorrowedFd<'_>) -> anyhow::Result<OwnedFd> {
    kernel::load_classifier(&[
        op(LOAD_WORD, 2, 1, SKB_DATA, 0),
        op(LOAD_WORD, 3, 1, SKB_DATA_END, 0),
        op(MOVE, 4, 2, 0, 0),
        op(ADD_IMMEDIATE, 4, 0, 0, HEADERS_END),
        op(JUMP_IF_GREATER, 4, 3, 11, 0),
        op(LOAD_WORD, 5, 2, IPV4_DESTINATION, 0),
        op(STORE_IMMEDIATE, 10, 0, -8, 32),
        op(STORE_WORD, 10, 5, -4, 0),
        op(LOAD_DOUBLE_IMMEDIATE, 1, PSEUDO_MAP_FD, 0, trie.as_fd().as_raw_fd()),
        op(0, 0, 0, 0, 0),
        op(MOVE, 2, 10, 0, 0),
        op(ADD_IMMEDIATE, 2, 0, 0, -8),
        op(CALL, 0, 0, 0, MAP_LOOKUP),
        op(JUMP_IF_EQUAL, 0, 0, 2, 0),
        op(LOAD_WORD, 0, 0, 0, 0),
        op(EXIT, 0, 0, 0, 0),
        op(MOVE_IMMEDIATE, 0, 0, 0, DROP),
        op(EXIT, 0, 0, 0, 0),
    ])
}
