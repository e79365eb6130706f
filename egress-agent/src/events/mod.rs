//! Denials on their way from the kernel to people: a structured log record (target `egress::denied`), a line of the flow log, the live
//! feed of `monitor`, and counts.
//!
//! Invariant: what is lost is counted and said; nothing is dropped silently. The ring has one reader, this one; everybody else asks the
//! agent. Started by [`agent`](crate::agent).

mod clock;
mod flow_log;
mod names;
mod record;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use egress_common::event::{Event, Stat};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};
use tracing::{debug, warn};
use zerocopy::FromBytes as _;

use crate::datapath::inspect::Inspector;
use crate::names::REPLIES_LOOK;
use crate::vitals::Vitals;

pub(crate) use clock::{monotonic_now, rfc3339, wall_time};
pub(crate) use flow_log::{FlowLog, Target};
pub(crate) use names::Names;
#[cfg(test)]
pub(crate) use record::sample;
pub(crate) use record::{Record, address, protocol_name};

/// How often the kernel is asked how many events it had to drop.
const LOSSES: Duration = Duration::from_secs(5);
/// Events handled before the flow log is written, so that a flood does not fill the memory.
const BATCH: usize = 512;

/// Reads events until the process ends.
pub(crate) struct Reader {
    ring: AsyncFd<RingBuf<MapData>>,
    names: Names,
    flow_log: FlowLog,
    vitals: Arc<Vitals>,
    inspector: Option<Inspector>,
    lost: u64,
}

impl Reader {
    /// Must be called inside a tokio runtime.
    pub(crate) fn new(
        ring: RingBuf<MapData>,
        names: Names,
        flow_log: FlowLog,
        vitals: Arc<Vitals>,
    ) -> io::Result<Self> {
        let inspector = vitals.inspector().inspect_err(|error| warn!(%error, "lost events cannot be counted")).ok();
        let lost = inspector.as_ref().and_then(lost).unwrap_or(0);
        // SAFETY: the ring owns its file descriptor, returns the same one as long as it lives, and closes it when it is dropped.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { ring, names, flow_log, vitals, inspector, lost })
    }

    /// Passes on every event.
    pub(crate) async fn run(mut self) -> io::Result<()> {
        let mut losses = ticks();
        loop {
            tokio::select! {
                ready = self.ring.readable_mut() => {
                    let mut guard = ready?;
                    let batch = drain(guard.get_inner_mut());
                    if batch.len() < BATCH {
                        guard.clear_ready();
                    }
                    self.handle(&batch).await;
                }
                _ = losses.tick() => self.count_losses(),
            }
        }
    }

    async fn handle(&mut self, batch: &[Event]) {
        // A pod connects right after its lookup, and the reply's record may wait in another ring.
        if batch.iter().any(|event| self.names.waits_for_reply(event)) {
            sleep(2 * REPLIES_LOOK).await;
        }
        let mut lines = Vec::new();
        for event in batch {
            let record = Record::new(event, &self.names.of(event).await, self.vitals.node());
            record.log();
            match serde_json::to_writer(&mut lines, &record) {
                Ok(()) => lines.push(b'\n'),
                Err(error) => debug!(%error, "an event cannot be written"),
            }
            self.vitals.saw(record);
        }
        if lines.is_empty() {
            return;
        }
        let written = self.flow_log.append(&lines);
        self.vitals.logged(batch.len(), written.is_ok());
        if let Err(error) = written {
            warn!(%error, events = batch.len(), "the flow log cannot be written; these events are only in the log");
        }
    }

    fn count_losses(&mut self) {
        let Some(now) = self.inspector.as_ref().and_then(lost) else { return };
        if now > self.lost {
            warn!(lost = now - self.lost, total = now, "events were lost: the ring buffer was full");
        }
        self.lost = now;
    }
}

fn ticks() -> Interval {
    let mut losses = interval(LOSSES);
    losses.set_missed_tick_behavior(MissedTickBehavior::Delay);
    losses
}

fn drain(ring: &mut RingBuf<MapData>) -> Vec<Event> {
    let mut batch = Vec::new();
    while batch.len() < BATCH {
        let Some(item) = ring.next() else { break };
        if let Ok(event) = Event::read_from_bytes(&item) {
            batch.push(event);
        } else {
            warn!(bytes = item.len(), "an event of another size; do agent and programs belong together?");
        }
    }
    batch
}

fn lost(inspector: &Inspector) -> Option<u64> {
    let stats = inspector.stats().inspect_err(|error| debug!(%error, "reading the figures of the programs")).ok()?;
    stats.into_iter().find_map(|(stat, value)| (stat == Stat::EventsLost).then_some(value))
}
