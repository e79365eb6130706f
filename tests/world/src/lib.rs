//! A laboratory: pods, the node that they run on, and the hosts outside, as network namespaces and cgroups on this kernel, with the
//! real agent on the node. Used by the end-to-end tests and by `cargo xtask demo`.
//!
//! Invariant: a world touches nothing but what it made; everything is gone when it is dropped, and what a killed run left is swept
//! by the next one. Many worlds run at once, in one process or several.

pub mod agent;
mod api;
mod crowd;
mod echo;
mod namespace;
mod outside;
pub mod packet;
mod place;
mod pod;
pub mod probe;
mod process;
pub mod resolver;
mod sniffer;
mod world;

pub use agent::Agent;
pub use api::Api;
pub use crowd::{Crowd, Member};
pub use namespace::Namespace;
pub use outside::{Outside, Wire};
pub use place::{cgroup2_mount, clean_up_when_interrupted};
pub use pod::{Endpoint, Pod};
pub use process::{Process, Shared};
pub use sniffer::Sniffer;
pub use world::{Beside, POD_CIDRS, World};

use std::time::{Duration, Instant};

/// Whether this process may build a world. Says `SKIPPED` on standard error if not.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

/// Asks until the answer is yes or 10 seconds have passed; whether it was yes. An emulated machine is slower: there
/// `EGRESS_PATIENCE` says how many times as long to ask.
pub fn eventually(mut question: impl FnMut() -> bool) -> bool {
    let slowness = std::env::var("EGRESS_PATIENCE").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    let deadline = Instant::now() + Duration::from_mins(1) * slowness;
    loop {
        if question() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
