//! Which number stands for which place: stable while the place exists, and not given to another one before no address can hold it.
//!
//! Invariant: an id means one place from its first store to the end of its quarantine, over restarts of the agent too, because the
//! numbers are read back from the pinned trie and addresses. Owned by [`Directory`](super::Directory).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use egress_common::abi::capacity;
use egress_common::names::{NameEntry, NameKey, Slot};
use egress_policy::places::{Depth, Place, Places};

use super::lifetime::{Lifetimes, Moment};
use super::place::{depth, id, id_mut, labels, suffix};

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Suffixes in the trie.
    pub(crate) suffixes: usize,
    /// Ids, 0 included: the length of the tables' arrays of leaves.
    pub(crate) ids: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { suffixes: usize::try_from(capacity::NAMES).unwrap_or(usize::MAX), ids: capacity::NAMES }
    }
}

/// What an update did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Update {
    /// Places that have an id now, and had none.
    pub(crate) added: Vec<(u32, Place)>,
    /// Places that are gone; their ids are in quarantine.
    pub(crate) removed: Vec<(u32, Place)>,
    /// Ids among the added ones that meant another place once: connections that were allowed by it must be forgotten.
    pub(crate) reused: Vec<u32>,
    /// Places for which there is no room: no rule about them matches anything.
    pub(crate) left_out: Vec<Place>,
}

/// All ids of the node.
#[derive(Debug)]
pub(crate) struct Registry {
    limits: Limits,
    /// The trie: suffixes of which at least one place has an id.
    entries: BTreeMap<String, NameEntry>,
    /// The patterns of the node's rules.
    patterns: Places,
    /// What every id means that lives or is in quarantine.
    places: HashMap<u32, Place>,
    /// Ids in quarantine and until when; the meaning of some is not known any more.
    quarantine: BTreeSet<(Moment, u32)>,
    /// The places among them, should they come back.
    former: HashMap<Place, (Moment, u32)>,
    /// Lowest id that was never given.
    next: u32,
    /// The longest that an address could be held under any setting so far.
    longest: Duration,
}

impl Registry {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: BTreeMap::new(),
            patterns: Places::default(),
            places: HashMap::new(),
            quarantine: BTreeSet::new(),
            former: HashMap::new(),
            next: 1,
            longest: Duration::ZERO,
        }
    }

    /// The registry of an earlier agent: `entries` are what the pinned trie has, `held` the ids of the pinned addresses. `lifetimes`
    /// are those that the kernel has worked with.
    pub(crate) fn recover(
        limits: Limits,
        entries: impl IntoIterator<Item = (NameKey, NameEntry)>,
        held: impl IntoIterator<Item = Slot>,
        lifetimes: Lifetimes,
        now: Moment,
    ) -> Self {
        let mut registry = Self::new(limits);
        registry.longest = lifetimes.longest();
        for (key, entry) in entries {
            let Some(suffix) = suffix(&key) else { continue };
            for depth in Depth::ALL {
                let id = id(&entry, depth);
                if id != 0 {
                    registry.places.insert(id, Place { suffix: suffix.clone(), depth });
                    registry.next = registry.next.max(id + 1);
                }
            }
            registry.entries.insert(suffix, entry);
        }
        registry.recover_quarantine(held, now);
        registry
    }

    /// Ids that are free but may have been given up just now, also ones above all that live.
    fn recover_quarantine(&mut self, held: impl IntoIterator<Item = Slot>, now: Moment) {
        let highest_held = held.into_iter().map(|slot| slot.id).filter(|id| *id < self.limits.ids).max();
        self.next = self.next.max(highest_held.map_or(0, |id| id + 1));
        let until = now + self.longest;
        let free = (1..self.next).filter(|id| !self.places.contains_key(id));
        self.quarantine = free.map(|id| (until, id)).collect();
    }

    /// Makes the places of `patterns` those that have ids.
    pub(crate) fn update(&mut self, patterns: &Places, lifetimes: Lifetimes, now: Moment) -> Update {
        self.longest = self.longest.max(lifetimes.longest());
        self.patterns.clone_from(patterns);
        let wanted: BTreeSet<Place> = patterns.iter().collect();
        let mut update = Update::default();
        let gone = |(id, place): (u32, &Place)| (!wanted.contains(place)).then(|| (id, place.clone()));
        update.removed = self.living().filter_map(gone).collect();
        update.removed.sort_by(|a, b| a.1.cmp(&b.1));
        for (id, place) in &update.removed {
            self.give_up(*id, place, now);
        }
        for place in &wanted {
            if self.id(place).is_none() {
                self.add(place, now, &mut update);
            }
        }
        update
    }

    fn give_up(&mut self, id: u32, place: &Place, now: Moment) {
        self.set(place, 0);
        let waiting = (now + self.longest, id);
        self.quarantine.insert(waiting);
        self.former.insert(place.clone(), waiting);
    }

    fn add(&mut self, place: &Place, now: Moment, update: &mut Update) {
        let room = self.entries.contains_key(&place.suffix) || self.entries.len() < self.limits.suffixes;
        let Some(id) = room.then(|| self.take(place, now, update)).flatten() else {
            update.left_out.push(place.clone());
            return;
        };
        self.places.insert(id, place.clone());
        self.set(place, id);
        update.added.push((id, place.clone()));
    }

    /// An id for `place`: its own from before, or the one that was given up first, or a new one.
    fn take(&mut self, place: &Place, now: Moment, update: &mut Update) -> Option<u32> {
        if let Some(own) = self.former.remove(place) {
            self.quarantine.remove(&own);
            return Some(own.1);
        }
        if let Some(&(until, id)) = self.quarantine.first()
            && until <= now
        {
            self.quarantine.pop_first();
            if let Some(former) = self.places.remove(&id) {
                self.former.remove(&former);
            }
            update.reused.push(id);
            return Some(id);
        }
        let id = self.next;
        (id < self.limits.ids).then(|| {
            self.next += 1;
            id
        })
    }

    fn set(&mut self, place: &Place, id: u32) {
        let entry = self.entries.entry(place.suffix.clone()).or_default();
        entry.labels = u32::try_from(labels(&place.suffix)).unwrap_or(u32::MAX);
        *id_mut(entry, place.depth) = id;
        if (entry.exact, entry.one, entry.more) == (0, 0, 0) {
            self.entries.remove(&place.suffix);
        }
    }

    /// What the trie shall hold.
    pub(crate) fn entries(&self) -> Vec<(NameKey, NameEntry)> {
        self.entries.iter().filter_map(|(suffix, entry)| Some((NameKey::new(suffix)?, *entry))).collect()
    }

    /// The id of a place that exists.
    pub(crate) fn id(&self, place: &Place) -> Option<u32> {
        self.entries.get(&place.suffix).map(|entry| id(entry, place.depth)).filter(|id| *id != 0)
    }

    /// The id that the kernel gives to a question for `name` (lower case, no trailing dot); `None` if no rule is about it.
    pub(crate) fn id_of(&self, name: &str) -> Option<u32> {
        let suffixes = std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, rest)| rest));
        let longest = (0..).zip(suffixes).find_map(|(labels, suffix)| Some((labels, self.entries.get(suffix)?)));
        longest.map(|(labels, entry)| id(entry, depth(labels))).filter(|id| *id != 0)
    }

    /// What an id means, or meant while addresses may still hold it.
    pub(crate) fn place(&self, id: u32) -> Option<&Place> {
        self.places.get(&id)
    }

    /// The pattern of a rule that an id stands for, the most exact one; the place itself if the rules are gone.
    pub(crate) fn pattern(&self, id: u32) -> Option<String> {
        let place = self.place(id)?;
        let patterns = self.patterns.patterns(place);
        Some(patterns.first().map_or_else(|| place.to_string(), ToString::to_string))
    }

    /// Every id in use, with its place.
    pub(crate) fn living(&self) -> impl Iterator<Item = (u32, &Place)> {
        self.places.iter().map(|(id, place)| (*id, place)).filter(|(id, place)| self.id(place) == Some(*id))
    }

    /// Every id that lives or that addresses may still hold, with what it means.
    pub(crate) fn meanings(&self) -> impl Iterator<Item = (u32, Place)> {
        self.places.iter().map(|(id, place)| (*id, place.clone()))
    }

    /// One above the highest id that was ever given: the length that arrays of leaves need.
    pub(crate) fn length(&self) -> u32 {
        self.next
    }

    /// Suffixes and ids that are taken, quarantine included, and how many there may be.
    pub(crate) fn usage(&self) -> [(usize, usize); 2] {
        let ids = usize::try_from(self.limits.ids.saturating_sub(1)).unwrap_or(usize::MAX);
        [(self.entries.len(), self.limits.suffixes), (self.living().count() + self.quarantine.len(), ids)]
    }
}

#[cfg(test)]
mod tests;
