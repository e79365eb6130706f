//! From the files as they are now, and the last good versions, to the objects in force.
//!
//! Rules: a good object replaces its last version; a broken one keeps it; one that no file mentions any more is gone at once
//! (§6.4), unless the file that held it has a broken part that could be it. Of two objects with one name the first, by file name,
//! counts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::folder::{FileText, Text};
use super::last_good::{LastGood, Version};
use super::problem::Problem;

/// What a text holds.
#[derive(Clone, Debug)]
pub(super) struct Parsed<V> {
    /// Objects that could be named, in order.
    pub(super) entries: Vec<Entry<V>>,
    /// Whether there is something in it that could not even be named.
    pub(super) unnamed: bool,
    pub(super) problems: Vec<Problem>,
}

impl<V> Parsed<V> {
    /// A text of which nothing is known but that it is broken.
    pub(super) fn broken(problem: Problem) -> Self {
        Self { entries: Vec::new(), unnamed: true, problems: vec![problem] }
    }
}

/// One object of a text. Keys are unique among all objects.
#[derive(Clone, Debug)]
pub(super) enum Entry<V> {
    Good(String, V),
    /// A broken one, by every key that it may have.
    Broken(Vec<String>),
}

/// The objects in force.
#[derive(Debug)]
pub(super) struct Merged<V> {
    pub(super) values: BTreeMap<String, V>,
    pub(super) problems: Vec<Problem>,
    /// How many of them are an older version, because the present one is broken.
    pub(super) kept: usize,
}

/// Parses files, each text once.
#[derive(Debug)]
pub(super) struct Parser<V> {
    parse: fn(&str, &str) -> Parsed<V>,
    seen: HashMap<String, (Arc<Text>, Arc<Parsed<V>>)>,
}

impl<V> Parser<V> {
    pub(super) fn new(parse: fn(&str, &str) -> Parsed<V>) -> Self {
        Self { parse, seen: HashMap::new() }
    }

    /// What `text` of `file` holds; parsed if it is not the text that the file had before.
    pub(super) fn parse(&mut self, file: &str, text: &Arc<Text>) -> Arc<Parsed<V>> {
        if let Some((known, parsed)) = self.seen.get(file)
            && known == text
        {
            return Arc::clone(parsed);
        }
        let parsed = Arc::new((self.parse)(file, &text.body));
        self.seen.insert(file.to_owned(), (Arc::clone(text), Arc::clone(&parsed)));
        parsed
    }

    /// The files with what they hold; the others are forgotten.
    fn all(&mut self, files: &[FileText]) -> Vec<(FileText, Arc<Parsed<V>>)> {
        let parsed = files.iter().map(|file| match &file.text {
            Ok(text) => (file.clone(), self.parse(&file.name, text)),
            Err(reason) => (file.clone(), Arc::new(Parsed::broken(unreadable(&file.name, reason)))),
        });
        let parsed = parsed.collect();
        let names: HashSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
        self.seen.retain(|name, _| names.contains(name.as_str()));
        parsed
    }
}

fn unreadable(file: &str, reason: &str) -> Problem {
    Problem::new(file, format!("the file cannot be read: {reason}"))
        .hint("its last good objects stay in force; repair the file, or delete it to remove them")
}

/// Brings `last` up to date with `files`, in their order, and returns what is in force.
pub(super) fn merge<V: Clone>(files: &[FileText], parser: &mut Parser<V>, last: &mut LastGood<V>) -> Merged<V> {
    let parsed = parser.all(files);
    let mut merge = Merge {
        last: &last.versions,
        next: BTreeMap::new(),
        owners: BTreeMap::new(),
        problems: parsed.iter().flat_map(|(_, parsed)| parsed.problems.iter().cloned()).collect(),
        kept: 0,
    };
    for (file, contents) in &parsed {
        let all_named = merge.file(file, &contents.entries);
        if contents.unnamed || !all_named {
            merge.keep_all_of(&file.name);
        }
    }
    let Merge { next, problems, kept, .. } = merge;
    let values = next.iter().map(|(key, version)| (key.clone(), version.value.clone())).collect();
    last.versions = next;
    Merged { values, problems, kept }
}

struct Merge<'a, V> {
    last: &'a BTreeMap<String, Version<V>>,
    next: BTreeMap<String, Version<V>>,
    /// Which file an object in force comes from.
    owners: BTreeMap<String, String>,
    problems: Vec<Problem>,
    kept: usize,
}

impl<V: Clone> Merge<'_, V> {
    /// Takes the objects of one file; false if a broken one of them is not known by its name.
    fn file(&mut self, file: &FileText, entries: &[Entry<V>]) -> bool {
        let mut all_named = true;
        for entry in entries {
            match entry {
                Entry::Good(key, value) => self.good(file, key, value),
                Entry::Broken(keys) => all_named &= self.broken(file, keys),
            }
        }
        all_named
    }

    fn good(&mut self, file: &FileText, key: &str, value: &V) {
        if let Some(owner) = self.owners.get(key) {
            self.problems.push(duplicate(&file.name, key, owner));
            return;
        }
        let Ok(text) = &file.text else { return };
        let version = Version { file: file.name.clone(), text: Arc::clone(text), value: value.clone() };
        self.owners.insert(key.to_owned(), file.name.clone());
        self.next.insert(key.to_owned(), version);
    }

    /// Keeps the last version; one without any does not keep another file's object of that name away.
    fn broken(&mut self, file: &FileText, keys: &[String]) -> bool {
        let mut known = false;
        for key in keys {
            let Some(version) = self.last.get(key) else { continue };
            known = true;
            if !self.owners.contains_key(key) {
                self.owners.insert(key.clone(), file.name.clone());
                self.next.insert(key.clone(), version.clone());
                self.kept += 1;
            }
        }
        known
    }

    /// Keeps whatever the file held before: it may be the part that cannot be read.
    fn keep_all_of(&mut self, file: &str) {
        for (key, version) in self.last.iter().filter(|(_, version)| version.file == file) {
            if !self.owners.contains_key(key) {
                self.owners.insert(key.clone(), file.to_owned());
                self.next.insert(key.clone(), version.clone());
                self.kept += 1;
            }
        }
    }
}

fn duplicate(file: &str, key: &str, owner: &str) -> Problem {
    let message = if *owner == *file {
        "the same object occurs twice in this file; the first one is in force".to_owned()
    } else {
        format!("the same object is in {owner}, which comes first; that one is in force")
    };
    Problem::new(file, message).of(key).hint("remove one of the two, or give it another name")
}
