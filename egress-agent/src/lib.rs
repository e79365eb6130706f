//! The agent: reads policies and endpoints, compiles them and keeps the kernel enforcing them; and the command line.
//!
//! Data flows one way: [`sources`] and [`discovery`] ▶ [`reconcile`] ▶ [`datapath`]; evidence comes back through [`events`] and
//! [`dump`]. A thin library under the binary `egress-agent`, so that tests and benchmarks can reach [`datapath`].

mod agent;
mod answers;
mod api;
mod atomic_file;
mod check;
pub mod cli;
mod columns;
pub mod datapath;
mod destination;
mod difference;
mod discovery;
mod dump;
mod events;
#[cfg(test)]
mod golden;
mod import;
mod kernel_log;
mod kube;
mod kubectl;
mod logs;
mod metrics;
mod monitor;
mod names;
mod netlink;
mod output;
mod pods;
mod policy_files;
mod probes;
mod reconcile;
mod report;
#[cfg(test)]
mod simulation;
mod sources;
mod startup;
mod status;
mod suggest;
mod top;
mod uninstall;
mod vitals;
mod why;

pub use report::rbac;

/// The programs that the kernel runs, as built by `cargo xtask build-ebpf`; aligned for the ELF reader.
pub static EBPF_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/egress-ebpf"));
