//! What the tests on a real cluster share. They use `kubectl` and nothing else, as the people do who install this, so that they run on any
//! cluster: kind, k3s, OpenShift. The outside world is a pod in a node's network: a node's address is in none of the internal CIDRs.
//!
//! Invariants: nothing happens without `EGRESS_TEST_CLUSTER`, which only `cargo xtask test --cluster` sets, because the firewall is installed
//! in the cluster and removed again; one test at a time has the cluster; what a test made is gone when it ends, however it ends.

mod install;
mod kubectl;
mod lab;

pub use install::Installed;
pub use kubectl::{Answer, Token, apply, ask, eventually, run};
pub use lab::{Lab, Server, Verdict, attempt};

use std::sync::{Mutex, MutexGuard, PoisonError};

static CLUSTER: Mutex<()> = Mutex::new(());

/// The right to use the cluster.
pub struct Cluster {
    _turn: MutexGuard<'static, ()>,
}

/// Waits for the turn; `None`, said so, if no cluster may be used.
pub fn cluster() -> Option<Cluster> {
    if std::env::var_os("EGRESS_TEST_CLUSTER").is_none() || std::env::var_os("KUBECONFIG").is_none() {
        eprintln!("SKIPPED: no cluster: set KUBECONFIG and run `cargo xtask test --cluster`");
        return None;
    }
    Some(Cluster { _turn: CLUSTER.lock().unwrap_or_else(PoisonError::into_inner) })
}

/// A setting of `cargo xtask test --cluster`, from the environment.
fn setting(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}
