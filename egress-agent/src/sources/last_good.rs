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

use super::merge::{Entry, Parsed};

/// A good version of one object.
#[derive(Clone, Debug)]
pub(super) struct Version<V> {
    pub(super) file: String,
    pub(super) text: Arc<str>,
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

const STORED_VERSION: u32 = 1;

/// Object key → its last good version.
#[derive(Debug)]
pub(super) struct LastGood<V> {
    folder: PathBuf,
    pub(super) versions: BTreeMap<String, Version<V>>,
}

impl<V: Clone> LastGood<V> {
    /// Reads what an earlier agent stored; what cannot be read any more is forgotten. The second part names those files.
    pub(super) fn load(folder: &Path, parse: impl Fn(&str, &str) -> Parsed<V>) -> (Self, Vec<String>) {
        let mut store = Self { folder: folder.to_path_buf(), versions: BTreeMap::new() };
        let mut unreadable = Vec::new();
        for path in store.paths().unwrap_or_default() {
            let stored = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Stored>(&bytes).ok());
            let Some(stored) = stored.filter(|stored| stored.version == STORED_VERSION) else {
                unreadable.push(path.display().to_string());
                continue;
            };
            let text: Arc<str> = Arc::from(stored.text);
            for entry in parse(&stored.file, &text).entries {
                if let Entry::Good(key, value) = entry
                    && stored.objects.contains(&key)
                {
                    let (file, text) = (stored.file.clone(), Arc::clone(&text));
                    store.versions.insert(key, Version { file, text, value });
                }
            }
        }
        (store, unreadable)
    }

    /// Writes what is not stored yet and removes what is not last good any more.
    pub(super) fn save(&self) -> io::Result<()> {
        let mut wanted: BTreeMap<PathBuf, Stored> = BTreeMap::new();
        for (key, version) in &self.versions {
            let hash =
                Sha256::new().chain_update(&version.file).chain_update([0]).chain_update(version.text.as_bytes());
            let path = self.folder.join(format!("{}.json", hex::encode(hash.finalize())));
            let stored = wanted.entry(path).or_insert_with(|| Stored {
                version: STORED_VERSION,
                file: version.file.clone(),
                objects: BTreeSet::new(),
                text: version.text.to_string(),
            });
            stored.objects.insert(key.clone());
        }
        fs::create_dir_all(&self.folder)?;
        for (path, stored) in &wanted {
            let bytes = serde_json::to_vec(stored)?;
            if fs::read(path).is_ok_and(|old| old == bytes) {
                continue;
            }
            atomic_file::write(path, &bytes)?;
        }
        for path in self.paths()? {
            if !wanted.contains_key(&path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn paths(&self) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.folder)?.collect::<io::Result<Vec<_>>>()?;
        let paths = entries.into_iter().map(|entry| entry.path());
        Ok(paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect())
    }
}
