//! When which name is asked for: pure, with the time and the randomness as arguments.
//!
//! An answer is asked for again when its TTL is over, raised to `minTTL`; the grace covers the time until the next answer. A failure is
//! tried again after 1 s, then twice as long each time up to a minute, for ever (§5.4). Invariant: a name that is followed always has a
//! next lookup, waiting or in flight.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::names::answer::{Answered, Family};
use crate::names::lifetime::{Lifetimes, Moment};

/// Shortest and longest pause after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// No name is asked for more often, whatever the settings say.
const SHORTEST: Duration = Duration::from_secs(1);
/// What an answer may take; so much of the grace is left for it, or the lookup comes so much earlier.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How soon an absence is asked about again if the resolver gives it no TTL, in seconds.
const ABSENCE: u32 = 30;
/// Names that are asked for once and not followed, waiting at a time.
pub(super) const MAX_ONCE: usize = 1024;

/// One lookup.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Job {
    /// Lower case, without a trailing dot.
    pub(crate) name: Arc<str>,
    pub(crate) family: Family,
}

#[derive(Debug, Default)]
struct Entry {
    /// The name is followed; otherwise the job goes when it is done.
    followed: bool,
    /// When it is due; `None` while it is in flight.
    due: Option<Moment>,
    started: Moment,
    failures: u32,
    /// The last answer was that there is nothing.
    absent: bool,
    /// Somebody wants another answer than the one that is in flight.
    again: bool,
}

/// All lookups to come.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    lifetimes: Lifetimes,
    jobs: BTreeMap<Job, Entry>,
    waiting: BTreeSet<(Moment, Job)>,
    once: usize,
    /// Names that should have been asked for once and were not, because too many were.
    pub(crate) refused: u64,
}

impl Schedule {
    /// Bounds for the answers from now on.
    pub(crate) fn set_lifetimes(&mut self, lifetimes: Lifetimes) {
        self.lifetimes = lifetimes;
    }

    /// Follows exactly `names`. New ones are due at once.
    pub(crate) fn follow(&mut self, names: &BTreeSet<Arc<str>>, now: Moment) {
        let gone = |(job, entry): (&Job, &Entry)| (entry.followed && !names.contains(&job.name)).then(|| job.clone());
        let gone: Vec<Job> = self.jobs.iter().filter_map(gone).collect();
        for job in gone {
            self.remove(&job);
        }
        for name in names {
            for family in Family::ALL {
                let job = Job { name: Arc::clone(name), family };
                match self.jobs.get_mut(&job) {
                    Some(entry) if entry.followed => {}
                    Some(entry) => {
                        entry.followed = true;
                        self.once = self.once.saturating_sub(1);
                    }
                    None => self.wait(&job, now, true),
                }
            }
        }
    }

    /// Asks for a name soon, followed or not.
    pub(crate) fn ask(&mut self, job: &Job, now: Moment) {
        match self.jobs.get_mut(job) {
            Some(entry) if entry.due.is_none() => entry.again = true,
            Some(entry) => {
                let soonest = now.max(entry.started + SHORTEST);
                if entry.due.is_some_and(|due| due > soonest) {
                    self.wait(job, soonest, false);
                }
            }
            None if self.once >= MAX_ONCE => self.refused += 1,
            None => {
                self.once += 1;
                self.wait(job, now, false);
            }
        }
    }

    /// Other resolvers are asked from now on: what failed or was not there may be now.
    pub(crate) fn hurry(&mut self, now: Moment) {
        let troubled = |entry: &Entry| entry.due.is_some() && (entry.failures > 0 || entry.absent);
        let jobs: Vec<Job> =
            self.jobs.iter().filter(|(_, entry)| troubled(entry)).map(|(job, _)| job.clone()).collect();
        for job in jobs {
            self.wait(&job, now, false);
        }
    }

    /// The next moment at which there is something to do; `None` if all are in flight.
    pub(crate) fn next_due(&self) -> Option<Moment> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// Up to `most` lookups that are due, the longest due first. They are in flight from now on.
    pub(crate) fn take(&mut self, now: Moment, most: usize) -> Vec<Job> {
        let mut taken = Vec::new();
        while taken.len() < most && self.next_due().is_some_and(|due| due <= now) {
            let Some((_, job)) = self.waiting.pop_first() else { break };
            if let Some(entry) = self.jobs.get_mut(&job) {
                (entry.due, entry.started) = (None, now);
            }
            taken.push(job);
        }
        taken
    }

    /// A lookup is over; `answer` is `None` if it failed, `random` is from 0 to 1. Returns when the next one is due; `None` if there is
    /// none.
    pub(crate) fn done(&mut self, job: &Job, answer: Option<&Answered>, now: Moment, random: f64) -> Option<Moment> {
        let lifetimes = self.lifetimes;
        let entry = self.jobs.get_mut(job).filter(|entry| entry.due.is_none())?;
        entry.failures = if answer.is_some() { 0 } else { entry.failures.saturating_add(1) };
        entry.absent = matches!(answer, Some(Answered::Nothing { .. }));
        let again = std::mem::take(&mut entry.again);
        if !entry.followed && !again {
            self.remove(job);
            return None;
        }
        let pause = match answer {
            _ if again => SHORTEST,
            Some(Answered::Addresses { ttl, .. }) => until_next(lifetimes, *ttl, random),
            Some(Answered::Nothing { ttl, .. }) => {
                spread(lifetimes.bounded(ttl.unwrap_or(ABSENCE)), random).max(SHORTEST)
            }
            None => backoff(entry.failures, random),
        };
        self.wait(job, now + pause, false);
        Some(now + pause)
    }

    /// Lookups that are known, in flight or waiting.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Puts a job into the queue; a new one is `followed` or not.
    fn wait(&mut self, job: &Job, due: Moment, followed: bool) {
        let entry = self.jobs.entry(job.clone()).or_insert(Entry { followed, ..Entry::default() });
        if let Some(before) = entry.due.replace(due) {
            self.waiting.remove(&(before, job.clone()));
        }
        self.waiting.insert((due, job.clone()));
    }

    fn remove(&mut self, job: &Job) {
        let Some(entry) = self.jobs.remove(job) else { return };
        if let Some(due) = entry.due {
            self.waiting.remove(&(due, job.clone()));
        }
        if !entry.followed {
            self.once = self.once.saturating_sub(1);
        }
    }
}

/// From an answer to the next question: when the TTL is over and up to a tenth of it later, as far as the grace allows.
fn until_next(lifetimes: Lifetimes, ttl: u32, random: f64) -> Duration {
    let life = lifetimes.bounded(ttl);
    match lifetimes.grace.checked_sub(ANSWER_TIME) {
        Some(slack) => life + (life / 10).min(slack).mul_f64(random),
        None => life.saturating_sub(ANSWER_TIME.saturating_sub(lifetimes.grace)).max(life / 2),
    }
    .max(SHORTEST)
}

/// Up to a tenth more.
fn spread(pause: Duration, random: f64) -> Duration {
    pause + (pause / 10).mul_f64(random)
}

/// After so many failures in a row: up to a quarter less than the power of two.
fn backoff(failures: u32, random: f64) -> Duration {
    let (shortest, longest) = BACKOFF;
    let doubled = shortest.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
    doubled.saturating_sub((doubled / 4).mul_f64(random))
}

#[cfg(test)]
mod tests;
