//! Reports to the API server, against a server in memory: composing, folding, leading, and the sizes of large clusters.
#![expect(clippy::wildcard_enum_match_arm, reason = "tables of cases say what is special")]

use super::*;

mod composing;
mod folding;
mod following;
mod leading;
mod scale;
mod server;
mod standing;
mod tainted;
mod writing;

use server::Server;

/// A time to start from, with the runtime's clock stopped.
fn clock() -> Clock {
    Clock::Runtime("2026-11-28T08:00:00Z".parse().unwrap(), tokio::time::Instant::now())
}

fn reporter(node: &str, clock: &Clock) -> Reporter {
    Reporter { node: node.to_owned(), namespace: "egress-system".to_owned(), clock: clock.clone(), remove_taint: false }
}
