//! The laboratory of the packet tests: the real programs, loaded and filled through the agent's own datapath in a network
//! namespace and a cgroup of their own, and packets run through them by `BPF_PROG_TEST_RUN`.
//!
//! A test builds a [`Lab`] from policies as YAML, sends a [`Frame`] or raw bytes through a hook, and asks with an [`Expect`] for
//! everything that must have moved: verdict, rule counter, drop counter, figures and events, and nothing else.

mod checksum;
mod expect;
mod frame;
mod host;
mod lab;
mod observe;
mod place;
mod policy;
mod pool;
mod runner;
mod storm;

pub use checksum::{internet, pseudo};
pub use expect::Expect;
pub use frame::{Extension, Frame, POD4, POD6, Transport, tcp_flag};
pub use host::{Reading, read};
pub use lab::{CGROUP_POD, Hooks, Lab, Setup, TC_POD, trie_from};
pub use observe::Seen;
pub use policy::Policies;
pub use pool::Pooled;
pub use storm::Storm;

/// Whether the test may go on; says why not. The message is what `cargo xtask test` counts as a skip.
pub fn is_root() -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if !root {
        println!("SKIPPED: needs root");
    }
    root
}
