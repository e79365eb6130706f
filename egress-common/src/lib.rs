//! The bytes that cross the kernel boundary, and the pure functions that both sides run.
//!
//! Everything in a map is defined here and nowhere else: `#[repr(C)]`, padding written out, no `bool`, enum or `usize`, addresses
//! and ports in network byte order as byte arrays. Sizes are asserted at compile time and one [`abi::VERSION`] names them all.
//! The crate knows neither maps nor aya nor std; the kernel programs and the agent both call it.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod class;
pub mod dns;
pub mod endpoint;
pub mod event;
pub mod flow;
pub mod names;
pub mod packet;
pub mod reason;
pub mod table;
pub mod trie;
