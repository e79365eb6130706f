//! Everything that the API server said, as a state machine without I/O: changes go in, a [`View`] comes out.
//!
//! Invariant: the view depends on what the objects are now, not on the order in which it was told, on repeats, or on what was missed
//! before a new listing. While a kind is listed again, what was known of it stays in force until the listing is whole. An object that
//! cannot be read keeps its last good version and touches no other (§6.3). Owned by one task of [`kube`](super).

mod decode;
mod internal;
mod services;
mod view;

use std::collections::BTreeMap;

use super::resource::Kind;

pub(crate) use decode::{Decoded, Definition, Object, Pod, decode, key};
pub(crate) use internal::Internal;
pub(crate) use view::{Reference, Version, View};

/// Something that a watch said.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A listing begins.
    Begin,
    /// An object of the listing.
    Listed(String, Decoded),
    /// The listing is whole: what it did not have is gone.
    Done,
    /// An object is new or another one than before.
    Put(String, Decoded),
    /// An object is gone.
    Gone(String),
    /// The cluster does not have the kind, as far as can be told now: nothing, unless something was known.
    Absent,
    /// The kind is watched from now on, and nothing is known of it yet.
    Opened,
    /// The kind is not watched any more.
    Closed,
}

/// An object as it is known.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    /// The last version that could be read.
    object: Option<Object>,
    /// What is wrong with the present version.
    problem: Option<String>,
}

/// The objects of one kind, by `namespace/name`.
#[derive(Clone, Debug, Default)]
struct Objects {
    live: BTreeMap<String, Known>,
    /// A listing that is not whole yet.
    next: Option<BTreeMap<String, Known>>,
    /// Whether there was a whole one.
    listed: bool,
}

/// Everything that was said.
#[derive(Debug, Default)]
pub(crate) struct Index {
    kinds: BTreeMap<Kind, Objects>,
}

impl Index {
    /// Takes a change of `kind`; whether the view may be another one now.
    pub(crate) fn apply(&mut self, kind: &Kind, change: Change) -> bool {
        self.kinds.entry(kind.clone()).or_default().apply(change)
    }

    /// Whether each of `kinds` was listed at least once.
    pub(crate) fn has_listed<'k>(&self, kinds: impl IntoIterator<Item = &'k Kind>) -> bool {
        kinds.into_iter().all(|kind| self.kinds.get(kind).is_some_and(|objects| objects.listed))
    }

    /// The objects of a kind that could be read, by key.
    fn objects(&self, kind: &Kind) -> impl Iterator<Item = (&String, &Object)> {
        let live = self.kinds.get(kind).into_iter().flat_map(|objects| &objects.live);
        live.filter_map(|(key, known)| Some((key, known.object.as_ref()?)))
    }

    /// The definitions of foreign kinds.
    pub(crate) fn definitions(&self) -> impl Iterator<Item = &Definition> {
        self.objects(&Kind::Definition).filter_map(|(_, object)| match object {
            Object::Definition(definition) => Some(definition),
            Object::Policy(_)
            | Object::Namespace(_)
            | Object::Node(_)
            | Object::Pod(_)
            | Object::Service(_)
            | Object::Slice(_)
            | Object::Cidrs(_)
            | Object::Kubeadm(_) => None,
        })
    }
}

impl Objects {
    fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Begin => {
                self.next = Some(BTreeMap::new());
                false
            }
            Change::Listed(key, decoded) => {
                let known = self.known(&key, decoded);
                self.next.get_or_insert_default().insert(key, known);
                false
            }
            Change::Done => {
                let next = self.next.take().unwrap_or_default();
                let changed = !self.listed || next != self.live;
                self.live = next;
                self.listed = true;
                changed
            }
            Change::Put(key, decoded) => {
                let known = self.known(&key, decoded);
                let changed = self.live.get(&key) != Some(&known);
                self.live.insert(key, known);
                changed
            }
            Change::Gone(key) => self.live.remove(&key).is_some(),
            Change::Absent => !std::mem::replace(&mut self.listed, true),
            Change::Opened => {
                *self = Self::default();
                false
            }
            Change::Closed => {
                let changed = !self.listed || !self.live.is_empty();
                *self = Self { listed: true, ..Self::default() };
                changed
            }
        }
    }

    fn known(&self, key: &str, decoded: Decoded) -> Known {
        match decoded {
            Ok(object) => Known { object: Some(object), problem: None },
            Err(problem) => {
                let before = self.live.get(key).and_then(|known| known.object.clone());
                Known { object: before, problem: Some(problem) }
            }
        }
    }
}

#[cfg(test)]
mod tests;
