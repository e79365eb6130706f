//! Notices links and addresses that come, go or change, in the agent's own network namespace.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;

use super::netlink::Netlink;

/// A pod's start brings a burst of messages; they count as one change.
const QUIET: Duration = Duration::from_millis(20);
/// Longest wait while messages go on.
const LONGEST: Duration = Duration::from_millis(200);

/// Calls `changed` once per burst until it returns false. Threads end with the process.
pub(crate) fn follow(changed: impl Fn() -> bool + Send + 'static) -> io::Result<()> {
    let netlink = Netlink::open_for_changes()?;
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("links".into()).spawn(move || {
        loop {
            match netlink.wait() {
                Ok(()) if sender.send(()).is_ok() => {}
                Ok(()) => return,
                Err(error) => {
                    warn!(%error, "link changes are not noticed any more; endpoints are looked at again from time to time");
                    return;
                }
            }
        }
    })?;
    thread::Builder::new().name("links-settle".into()).spawn(move || {
        while receiver.recv().is_ok() {
            let longest = Instant::now() + LONGEST;
            while Instant::now() < longest {
                match receiver.recv_timeout(QUIET) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            if !changed() {
                return;
            }
        }
    })?;
    Ok(())
}
