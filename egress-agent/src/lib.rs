//! The agent: reads policies and endpoints, compiles them and keeps the kernel enforcing them; and the command line.
//!
//! A thin library under the binary `egress-agent`, so that tests and benchmarks can reach [`EBPF_OBJECT`] and the datapath.

/// The programs that the kernel runs, as built by `cargo xtask build-ebpf`; aligned for the ELF reader.
pub static EBPF_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/egress-ebpf"));
