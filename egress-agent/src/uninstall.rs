//! `run --uninstall`: leaves nothing of the agent on this node, and stays to say so. What the `DaemonSet` of deploy/uninstall runs: a pod of
//! a `DaemonSet` has to keep running, and "ready" is how `kubectl rollout status` learns that a node is done.
//!
//! Called by the command line only. Deleting the agent's `DaemonSet` does none of this: its pods end on every update, and a firewall that
//! opens when its agent ends would open then (§6.5).

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::agent;
use crate::cli::{Failure, RunArgs};

/// Why the state folder was left alone.
#[derive(Debug, thiserror::Error)]
enum StateError {
    #[error(
        "{} does not look like the state folder of an agent (no status.json in it) and is left alone; correct --state-dir, or remove it by hand",
        .0.display()
    )]
    NotOurs(PathBuf),
    #[error("cannot remove {}: {error}", path.display())]
    Remove {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
}

/// Removes programs, pins and the state folder, answers probes if asked to, and waits for a signal.
pub(crate) fn run(arguments: &RunArgs) -> Result<(), Failure> {
    agent::cleanup(arguments)?;
    remove_state(&arguments.state_dir).map_err(Failure::runtime)?;
    remove_empty(&arguments.bpffs).map_err(Failure::runtime)?;
    info!("nothing of the agent is left on this node; waiting for a signal");
    let runtime = Builder::new_current_thread().enable_all().build().map_err(Failure::runtime)?;
    runtime.block_on(stay(arguments.metrics_address)).map_err(Failure::runtime)
}

/// Removes the folder with everything in it, if an agent has made it.
fn remove_state(folder: &Path) -> Result<(), StateError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StateError::Remove { path: folder.to_path_buf(), error }),
    };
    if entries.count() > 0 && !folder.join("status.json").is_file() {
        return Err(StateError::NotOurs(folder.to_path_buf()));
    }
    fs::remove_dir_all(folder).map_err(|error| StateError::Remove { path: folder.to_path_buf(), error })
}

fn remove_empty(folder: &Path) -> Result<(), StateError> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StateError::Remove { path: folder.to_path_buf(), error })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn stay(address: Option<SocketAddr>) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let probes = async {
        let Some(address) = address else { return std::future::pending().await };
        let done = || async { "nothing is left\n" };
        let router = Router::new().route("/healthz", get(done)).route("/readyz", get(done));
        axum::serve(TcpListener::bind(address).await?, router).await
    };
    tokio::select! {
        result = probes => result,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_folder_goes_with_all_that_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        fs::create_dir_all(state.join("last-good/policies")).unwrap();
        fs::write(state.join("status.json"), "{}").unwrap();
        remove_state(&state).unwrap();
        assert!(!state.exists());
        remove_state(&state).unwrap();
    }

    #[test]
    fn a_folder_that_no_agent_made_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("precious"), "x").unwrap();
        let error = remove_state(folder.path()).unwrap_err();
        assert!(error.to_string().contains("--state-dir"), "{error}");
        assert!(folder.path().join("precious").is_file());
    }
}
