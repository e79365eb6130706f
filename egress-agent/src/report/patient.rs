//! A watch that waits longer and longer while it fails, and says so once.
//!
//! Not `default_backoff` of the client: for that, the beginning of a listing is a success, so that a listing which is refused for want of a
//! right would be asked for every second by every agent.

use futures_util::{Stream, StreamExt as _, stream};
use kube::runtime::utils::Backoff as _;
use kube::runtime::watcher::{self, DefaultBackoff, Event};
use tokio::time::{Duration, sleep};
use tracing::{debug, warn};

/// A failure is told in the log when it has lasted this many tries.
const TOLD: u32 = 4;
/// Longest wait.
const LONGEST: Duration = Duration::from_mins(1);

/// What `watch` says, of `what`, without its failures.
pub(super) fn patient<K>(
    watch: impl Stream<Item = watcher::Result<Event<K>>>,
    what: &str,
) -> impl Stream<Item = Event<K>> {
    let begin = (Box::pin(watch), DefaultBackoff::default(), 0_u32);
    stream::unfold(begin, move |(mut watch, mut pauses, mut failures)| async move {
        loop {
            match watch.next().await? {
                Ok(event) => {
                    if !matches!(event, Event::Init) {
                        pauses.reset();
                        failures = 0;
                    }
                    return Some((event, (watch, pauses, failures)));
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if failures == TOLD {
                        warn!(%error, what, "cannot be watched; the agent tries again, and what depends on it waits");
                    } else {
                        debug!(%error, what, "is not watched");
                    }
                    sleep(pauses.next().unwrap_or(LONGEST)).await;
                }
            }
        }
    })
}
