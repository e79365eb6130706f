//! The last good version of every object, in memory and under `<state-dir>/last-good/`.
//!
//! Kept as the text of the file that held it, so that a restarted or newer agent validates it again instead of trusting it.
//! One JSON file per text: which file it was and which of its objects are still the last good ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::atomic_file;

use super::folder::Text;
use super::merge::{Entry, Parser};

/// A good version of one object.
#[derive(Clone, Debug)]
pub(super) struct Version<V> {
    pub(super) file: String,
    pub(super) text: Arc<Text>,
    pub(super) value: V,
}

/// One stored text.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Stored {
    version: u32,
    file: String,
    objects: BTreeSet<String>,
    text: String,
}

/// A text that should be stored, and its objects.
type Wanted<'a> = (&'a Text, BTreeSet<&'a str>);

const STORED_VERSION: u32 = 1;

/// Object key → its last good version.
#[derive(Debug)]
pub(super) struct LastGood<V> {
    folder: PathBuf,
    /// Files that hold what they should.
    stored: BTreeSet<PathBuf>,
    pub(super) versions: BTreeMap<String, Version<V>>,
}

impl<V: Clone> LastGood<V> {
    /// Reads what an earlier agent stored; what cannot be read any more is forgotten. The second part names those files.
    pub(super) fn load(folder: &Path, parser: &mut Parser<V>) -> (Self, Vec<String>) {
        let mut store = Self { folder: folder.to_path_buf(), stored: BTreeSet::new(), versions: BTreeMap::new() };
        let mut unreadable = Vec::new();
        for path in store.paths().unwrap_or_default() {
            let stored = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Stored>(&bytes).ok());
            let Some(stored) = stored.filter(|stored| stored.version == STORED_VERSION) else {
                unreadable.push(path.display().to_string());
                continue;
            };
            let text = Text::new(stored.text);
            store.stored.insert(path);
            for entry in &parser.parse(&stored.file, &text).entries {
                if let Entry::Good(key, value) = entry
                    && stored.objects.contains(key)
                {
                    let (file, text) = (stored.file.clone(), Arc::clone(&text));
                    store.versions.insert(key.clone(), Version { file, text, value: value.clone() });
                }
            }
        }
        (store, unreadable)
    }

    /// Writes what is not stored yet and removes what is not last good any more.
    pub(super) fn save(&mut self) -> io::Result<()> {
        let mut wanted: BTreeMap<(&str, &str), Wanted> = BTreeMap::new();
        for (key, version) in &self.versions {
            let place = (version.file.as_str(), version.text.digest());
            wanted.entry(place).or_insert_with(|| (&*version.text, BTreeSet::new())).1.insert(key);
        }
        fs::create_dir_all(&self.folder)?;
        let mut stored = BTreeSet::new();
        for ((file, digest), (text, objects)) in wanted {
            let path = self.folder.join(name(file, digest, &objects));
            if !self.stored.contains(&path) {
                let objects = objects.into_iter().map(str::to_owned).collect();
                let (file, text) = (file.to_owned(), text.body.clone());
                let bytes = serde_json::to_vec(&Stored { version: STORED_VERSION, file, objects, text })?;
                atomic_file::write(&path, &bytes)?;
            }
            stored.insert(path);
        }
        self.stored = stored;
        for path in self.paths()?.into_iter().filter(|path| !self.stored.contains(path)) {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    fn paths(&self) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.folder)?.collect::<io::Result<Vec<_>>>()?;
        let paths = entries.into_iter().map(|entry| entry.path());
        Ok(paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect())
    }
}

/// A name that says all of the contents: a file that is there needs no second look.
fn name(file: &str, digest: &str, objects: &BTreeSet<&str>) -> String {
    let mut hash = Sha256::new();
    for part in [file, digest].iter().chain(objects) {
        hash.update(part);
        hash.update([0]);
    }
    format!("{}.json", hex::encode(hash.finalize()))
}
