//! What is known of each concrete name: its addresses and until when, where they come from, and how its lookups went.
//!
//! The kernel holds addresses by id; this is the memory of the names behind the ids: for people, for the poller's duty to keep what a
//! failing lookup cannot renew (§5.4), and to store addresses anew when a name comes under another id. Nothing here decides a packet.
//! Bounded: what is learned under wildcards beyond [`MAX_LEARNED`] names goes, the one that was answered longest ago first, counted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::answer::{Absence, Family, Found};
use super::lifetime::{Lifetimes, Moment};
use super::registry::Registry;

/// Names that are known only from replies to pods.
pub(crate) const MAX_LEARNED: usize = 65_536;
/// Addresses of one name; the ones that end first go.
pub(crate) const MAX_ADDRESSES: usize = 4096;
/// How long an address is remembered after its end, for those who ask what it was.
pub(crate) const REMEMBERED: Duration = Duration::from_mins(10);
/// An address that ends within this time is renewed while the lookups of its name fail.
const RENEWED_BEFORE: Duration = Duration::from_secs(5);
/// An address that ended so short ago is renewed too: the agent was late.
const RENEWED_AFTER: Duration = Duration::from_secs(10);
/// A lookup is late if it is not answered so long after it was due.
const LATE: Duration = Duration::from_secs(1);

/// An address of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// When it ends.
    pub(crate) end: Moment,
    /// The agent asked for it.
    pub(crate) polled: bool,
    /// A pod's reply had it.
    pub(crate) learned: bool,
}

/// How the lookups of one type of records went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Question {
    /// Last answer, be it that there is nothing.
    pub(crate) answered: Option<Moment>,
    /// The last answer said that there is nothing.
    pub(crate) absence: Option<Absence>,
    /// Failures since the last answer.
    pub(crate) failures: u32,
    /// What the last failure was.
    pub(crate) error: Option<String>,
    /// When the next lookup is due.
    pub(crate) due: Moment,
}

impl Question {
    /// The addresses that there are must not end, because nobody could be asked whether they still are the name's.
    fn keeps(&self, now: Moment) -> bool {
        self.absence.is_none() && (self.failures > 0 || now > self.due + LATE)
    }

    /// When the last answer came; the beginning of time if none did.
    fn last_answer(&self) -> Moment {
        self.answered.unwrap_or_default()
    }
}

/// A concrete name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Name {
    /// Id under which its addresses were last stored; 0 if none were.
    pub(crate) id: u32,
    /// One for each family, if the agent polls the name.
    pub(crate) polled: Option<[Question; 2]>,
    /// Its addresses, also ones that have ended a short time ago.
    pub(crate) addresses: BTreeMap<IpAddr, Held>,
    /// Last time that there was an answer.
    pub(crate) seen: Moment,
}

impl Name {
    /// How the lookups of a family went; `None` if the name is not polled.
    pub(crate) fn question(&self, family: Family) -> Option<&Question> {
        let [v4, v6] = self.polled.as_ref()?;
        Some(if family == Family::V4 { v4 } else { v6 })
    }

    /// One word for the metrics.
    pub(crate) fn state(&self, now: Moment) -> &'static str {
        let Some(questions) = &self.polled else { return "learned" };
        if questions.iter().any(|question| question.failures > 0) {
            "failing"
        } else if self.live(now).next().is_some() {
            "resolved"
        } else if questions.iter().all(|question| question.absence.is_some()) {
            "absent"
        } else {
            "waiting"
        }
    }

    fn question_mut(&mut self, family: Family) -> Option<&mut Question> {
        let [v4, v6] = self.polled.as_mut()?;
        Some(if family == Family::V4 { v4 } else { v6 })
    }

    /// Addresses that have not ended.
    pub(crate) fn live(&self, now: Moment) -> impl Iterator<Item = (IpAddr, &Held)> {
        self.addresses.iter().map(|(address, held)| (*address, held)).filter(move |(_, held)| now < held.end)
    }
}

/// Who told of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A lookup of the agent.
    Polled,
    /// A reply to a pod.
    Learned,
}

/// Addresses to hand to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ToStore {
    pub(crate) id: u32,
    pub(crate) answers: Vec<Found>,
}

/// All concrete names.
#[derive(Debug, Default)]
pub(crate) struct Known {
    names: BTreeMap<Arc<str>, Name>,
    by_address: HashMap<IpAddr, BTreeSet<Arc<str>>>,
    /// Names that are only learned, by the time of their last answer.
    learned: BTreeSet<(Moment, Arc<str>)>,
    /// Names, and addresses of names, that gave way to others.
    pub(crate) evicted: u64,
}

impl Known {
    /// Everything of one name.
    pub(crate) fn name(&self, name: &str) -> Option<&Name> {
        self.names.get(name)
    }

    /// Every name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Name)> {
        self.names.iter()
    }

    /// The names of an address that have not ended, or ended a short time ago.
    pub(crate) fn names_of(&self, address: IpAddr) -> impl Iterator<Item = (&Arc<str>, &Name)> {
        let names = self.by_address.get(&address).into_iter().flatten();
        names.filter_map(|name| self.names.get_key_value(name))
    }

    /// Every address with its names.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (IpAddr, &BTreeSet<Arc<str>>)> {
        self.by_address.iter().map(|(address, names)| (*address, names))
    }

    /// Makes `polled` the names whose lookups are followed. Others keep their addresses until these end.
    pub(crate) fn poll(&mut self, polled: &BTreeSet<Arc<str>>, now: Moment) {
        let former: Vec<Arc<str>> =
            self.names.iter().filter(|(_, name)| name.polled.is_some()).map(|(text, _)| Arc::clone(text)).collect();
        for text in former.iter().filter(|text| !polled.contains(*text)) {
            if let Some(name) = self.names.get_mut(text) {
                name.polled = None;
                self.learned.insert((name.seen, Arc::clone(text)));
            }
        }
        for text in polled {
            let name = self.names.entry(Arc::clone(text)).or_default();
            if name.polled.is_none() {
                let question = Question { due: now, ..Question::default() };
                name.polled = Some([question.clone(), question]);
                self.learned.remove(&(name.seen, Arc::clone(text)));
            }
        }
    }

    /// Addresses that an earlier agent's kernel holds for a name.
    pub(crate) fn recover(&mut self, name: &str, id: u32, address: IpAddr, end: Moment, now: Moment) {
        self.store(name, id, now, [(address, Held { end, polled: true, learned: false })]);
    }

    /// Somebody answered with these addresses, and the kernel has them under `id`.
    pub(crate) fn answered(
        &mut self,
        name: &str,
        (id, source): (u32, Source),
        found: &[Found],
        lifetimes: Lifetimes,
        now: Moment,
    ) {
        let (polled, learned) = (source == Source::Polled, source == Source::Learned);
        let held = |found: &Found| (found.address, Held { end: lifetimes.end(found.ttl, now), polled, learned });
        self.store(name, id, now, found.iter().map(held));
    }

    /// A lookup was answered; `absence` if there is nothing.
    pub(crate) fn lookup_answered(&mut self, name: &str, family: Family, absence: Option<Absence>, now: Moment) {
        if let Some(question) = self.question_mut(name, family) {
            *question = Question { answered: Some(now), absence, due: question.due, ..Question::default() };
        }
    }

    /// A lookup failed.
    pub(crate) fn lookup_failed(&mut self, name: &str, family: Family, error: String) {
        if let Some(question) = self.question_mut(name, family) {
            question.failures = question.failures.saturating_add(1);
            question.error = Some(error);
        }
    }

    /// When the next lookup is due.
    pub(crate) fn lookup_due(&mut self, name: &str, family: Family, due: Moment) {
        if let Some(question) = self.question_mut(name, family) {
            question.due = due;
        }
    }

    fn question_mut(&mut self, name: &str, family: Family) -> Option<&mut Question> {
        self.names.get_mut(name)?.question_mut(family)
    }

    fn store(&mut self, text: &str, id: u32, now: Moment, held: impl IntoIterator<Item = (IpAddr, Held)>) {
        let key: Arc<str> = self.names.get_key_value(text).map_or_else(|| text.into(), |(key, _)| Arc::clone(key));
        let name = self.names.entry(Arc::clone(&key)).or_default();
        if name.polled.is_none() {
            self.learned.remove(&(name.seen, Arc::clone(&key)));
            self.learned.insert((now, Arc::clone(&key)));
        }
        (name.id, name.seen) = (id, now);
        for (address, new) in held {
            let held = name.addresses.entry(address).or_insert(new);
            held.end = held.end.max(new.end);
            held.polled |= new.polled;
            held.learned |= new.learned;
            self.by_address.entry(address).or_default().insert(Arc::clone(&key));
        }
        self.evict(&key);
    }

    /// Keeps the bounds.
    fn evict(&mut self, key: &Arc<str>) {
        if let Some(name) = self.names.get(key)
            && name.addresses.len() > MAX_ADDRESSES
        {
            let mut ends: Vec<(Moment, IpAddr)> =
                name.addresses.iter().map(|(address, held)| (held.end, *address)).collect();
            ends.sort_unstable();
            let surplus = ends.len() - MAX_ADDRESSES;
            for (_, address) in ends.into_iter().take(surplus) {
                self.forget_address(key, address);
                self.evicted += 1;
            }
        }
        while self.learned.len() > MAX_LEARNED {
            let Some((_, oldest)) = self.learned.pop_first() else { break };
            self.forget(&oldest);
            self.evicted += 1;
        }
    }

    fn forget_address(&mut self, key: &Arc<str>, address: IpAddr) {
        if let Some(name) = self.names.get_mut(key) {
            name.addresses.remove(&address);
        }
        if let Some(names) = self.by_address.get_mut(&address) {
            names.remove(key);
            if names.is_empty() {
                self.by_address.remove(&address);
            }
        }
    }

    fn forget(&mut self, key: &Arc<str>) {
        let Some(name) = self.names.get(key) else { return };
        let addresses: Vec<IpAddr> = name.addresses.keys().copied().collect();
        for address in addresses {
            self.forget_address(key, address);
        }
        if let Some(name) = self.names.remove(key) {
            self.learned.remove(&(name.seen, Arc::clone(key)));
        }
    }

    /// Forgets addresses that ended long ago, and learned names that have none left.
    pub(crate) fn sweep(&mut self, now: Moment) {
        let over = |held: &Held| held.end + REMEMBERED <= now;
        let gone: Vec<(Arc<str>, IpAddr)> = self
            .names
            .iter()
            .flat_map(|(key, name)| name.addresses.iter().map(move |(address, held)| (key, *address, held)))
            .filter(|(_, _, held)| over(held))
            .map(|(key, address, _)| (Arc::clone(key), address))
            .collect();
        for (key, address) in gone {
            self.forget_address(&key, address);
        }
        let empty = |name: &Name| name.polled.is_none() && name.addresses.is_empty() && name.seen + REMEMBERED <= now;
        let empty: Vec<Arc<str>> =
            self.names.iter().filter(|(_, name)| empty(name)).map(|(key, _)| Arc::clone(key)).collect();
        for key in empty {
            self.forget(&key);
        }
    }

    /// Addresses that would end although nobody said that they are not the name's any more (§5.4). They are taken as renewed.
    pub(crate) fn renew(&mut self, registry: &Registry, lifetimes: Lifetimes, now: Moment) -> Vec<ToStore> {
        let mut renewed = Vec::new();
        for (text, name) in &mut self.names {
            let Some(questions) = &name.polled else { continue };
            let [v4, v6] = questions.each_ref().map(|question| question.keeps(now).then(|| question.last_answer()));
            let Some(id) = v4.or(v6).and_then(|_| registry.id_of(text)) else { continue };
            let mut answers = Vec::new();
            for (address, held) in &mut name.addresses {
                let kept = if Family::of(*address) == Family::V4 { v4 } else { v6 };
                // What had ended before the last answer is not the name's any more: answers came, and without it.
                let is_last = kept.is_some_and(|answered| held.end > answered);
                if is_last && held.end <= now + RENEWED_BEFORE && held.end + RENEWED_AFTER > now {
                    held.end = lifetimes.end(0, now);
                    answers.push(Found { address: *address, ttl: 0 });
                }
            }
            if !answers.is_empty() {
                name.id = id;
                renewed.push(ToStore { id, answers });
            }
        }
        renewed
    }

    /// Addresses of names that are under another id since the registry changed: to be stored under that too, for as long as they live.
    pub(crate) fn moved(&mut self, registry: &Registry, lifetimes: Lifetimes, now: Moment) -> Vec<ToStore> {
        let mut moved = Vec::new();
        for (text, name) in &mut self.names {
            let Some(id) = registry.id_of(text).filter(|id| *id != name.id) else { continue };
            let answers: Vec<Found> = name
                .live(now)
                .map(|(address, held)| Found { address, ttl: lifetimes.ttl_for(held.end.saturating_sub(now)) })
                .collect();
            name.id = id;
            if !answers.is_empty() {
                moved.push(ToStore { id, answers });
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests;
