//! Replies that pods received, from the kernel's ring: the concrete names behind what the kernel has learned by id.
//!
//! The kernel has already stored the addresses when a record comes here, so this may be late, or lose records, without any effect on
//! packets. Only replies that the kernel could not read whole, and queries whose replies it must not trust, lead to something: the agent
//! asks for the name itself. For those the kernel wakes the reader; the others wait until it looks, every [`LOOK`] or when the ring
//! fills, because a wake-up costs the packet more than reading it does.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use egress_common::dns::{Outcome, Reply};
use hickory_resolver::proto::op::{Header, Message, Query};
use hickory_resolver::proto::rr::{DNSClass, Name, RecordType};
use hickory_resolver::proto::serialize::binary::{BinDecodable as _, BinDecoder};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;
use tracing::debug;
use zerocopy::FromBytes as _;

use super::answer::{self, Answered, Family};
use super::directory::{Directory, Shared};
use super::known::Source;
use super::poll::Job;

/// Records handled before others have a turn.
const BATCH: usize = 256;
/// How long a record may wait. `monitor --dns` and the names in events are as late as this.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// Reads the ring until `ask`, which is called with what the agent should ask for itself, says that nobody does so any more.
pub(crate) async fn read(ring: RingBuf<MapData>, directory: Shared, ask: impl Fn(Job) -> bool) -> io::Result<()> {
    // SAFETY: the ring owns its file descriptor, returns the same one as long as it lives, and closes it when it is dropped.
    let mut ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
        .map_err(|error| io::Error::other(error.to_string()))?;
    loop {
        if let Ok(ready) = timeout(LOOK, ring.readable_mut()).await {
            ready?.clear_ready();
        }
        while {
            let mut taken = 0;
            while taken < BATCH {
                let Some(record) = ring.get_mut().next() else { break };
                taken += 1;
                let jobs = take(&mut directory.lock(), &record);
                if !jobs.into_iter().all(&ask) {
                    return Ok(());
                }
            }
            taken == BATCH
        } {
            tokio::task::yield_now().await;
        }
    }
}

/// Takes one record: a [`Reply`] and the message behind it. Returns what the agent should ask for itself.
pub(crate) fn take(directory: &mut Directory, record: &[u8]) -> Vec<Job> {
    let Ok((reply, rest)) = Reply::read_from_prefix(record) else {
        directory.figures.unreadable += 1;
        debug!(bytes = record.len(), "a record of a reply of another size; do agent and programs belong together?");
        return Vec::new();
    };
    let outcome = Outcome::from_number(reply.outcome);
    let name = outcome.map_or("unknown", Outcome::name);
    *directory.figures.replies.entry(name.to_owned()).or_default() += 1;
    if outcome != Some(Outcome::AskedInside) {
        directory.reply_latency.observe(Duration::from_nanos(reply.latency).as_secs_f64());
    }
    let message = rest.get(..reply.length.into()).unwrap_or_default();
    if message.is_empty() {
        return Vec::new();
    }
    let understood = match outcome {
        Some(Outcome::Learned) => learned(directory, &reply, message).map(|()| Vec::new()),
        Some(Outcome::Truncated | Outcome::Segmented | Outcome::AskedInside) => missed(directory, message),
        Some(_) | None => Some(Vec::new()),
    };
    understood.unwrap_or_else(|| {
        directory.figures.unreadable += 1;
        Vec::new()
    })
}

/// Remembers whose addresses the kernel has stored.
fn learned(directory: &mut Directory, reply: &Reply, message: &[u8]) -> Option<()> {
    let message = Message::from_vec(message).ok()?;
    let question = message.queries.first()?;
    let text = text(question.name())?;
    let now = Duration::from_nanos(reply.time);
    for family in families(question.query_type()) {
        if let Answered::Addresses { found, .. } = answer::read(&message, question.name(), family) {
            let found = directory.external(&found);
            let lifetimes = directory.bounds.lifetimes;
            directory.known.answered(&text, (reply.name, Source::Learned), &found, lifetimes, now);
        }
    }
    Some(())
}

/// The question of a reply whose answers the kernel could not read, if rules are about it. The message may end anywhere behind it.
fn missed(directory: &Directory, message: &[u8]) -> Option<Vec<Job>> {
    let mut decoder = BinDecoder::new(message);
    Header::read(&mut decoder).ok()?;
    let question = Query::read(&mut decoder).ok()?;
    let text = text(question.name()).filter(|_| question.query_class() == DNSClass::IN)?;
    if directory.registry.id_of(&text).is_none() {
        return Some(Vec::new());
    }
    let name: Arc<str> = text.into();
    Some(families(question.query_type()).map(|family| Job { name: Arc::clone(&name), family }).collect())
}

/// A name as rules write it. `None` for one that no rule can be about.
fn text(name: &Name) -> Option<String> {
    let text = name.to_lowercase().to_ascii();
    let text = text.strip_suffix('.').unwrap_or(&text);
    // A backslash escapes what no rule's name has.
    (!text.is_empty() && !text.contains('\\')).then(|| text.to_owned())
}

/// Both, unless the question was for one.
fn families(asked: RecordType) -> impl Iterator<Item = Family> {
    let one = Family::ALL.into_iter().find(|family| family.record_type() == asked);
    Family::ALL.into_iter().filter(move |family| one.is_none_or(|one| one == *family))
}

#[cfg(test)]
mod tests;
