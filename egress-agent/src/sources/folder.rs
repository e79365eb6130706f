//! Reads a folder of files as one consistent snapshot, also while somebody swaps its contents (mounts of a `ConfigMap`, git checkouts).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sha2::{Digest as _, Sha256};

/// How often a folder that changes under the reader is read again; the watcher reports the last change anyway.
const ATTEMPTS: usize = 5;

/// A file and what it says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FileText {
    /// What messages call it: the name in its folder, or the path as given.
    pub(crate) name: String,
    /// The text, or why there is none.
    pub(crate) text: Result<Arc<Text>, String>,
}

/// Text that knows its own digest once somebody asked for it.
#[derive(Debug, Default)]
pub(crate) struct Text {
    pub(crate) body: String,
    digest: OnceLock<String>,
}

impl Text {
    pub(crate) fn new(body: String) -> Arc<Self> {
        let digest = OnceLock::new();
        Arc::new(Self { body, digest })
    }

    /// SHA-256, in hexadecimal.
    pub(super) fn digest(&self) -> &str {
        self.digest.get_or_init(|| hex::encode(Sha256::digest(self.body.as_bytes())))
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.body == other.body
    }
}

/// Reads `path`, calling it `name`.
pub(super) fn read_file(name: String, path: &Path) -> FileText {
    let text = read_regular(path).map_err(|error| error.to_string()).and_then(|bytes| {
        let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
        // A writer that truncates before it writes must not look like one who deletes every object.
        if text.trim().is_empty() {
            return Err("is empty".to_owned());
        }
        Ok(Text::new(text))
    });
    FileText { name, text }
}

/// A pipe or a terminal could keep the agent waiting for ever.
pub(crate) fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.is_file() { fs::read(path) } else { Err(io::Error::other("it is not a regular file")) }
}

/// Reads every policy file of `folder`, by name, except the one that `skip` names.
pub(super) fn read_folder(folder: &Path, skip: Option<&Path>) -> io::Result<Vec<FileText>> {
    let mut listing = list(folder)?;
    for _ in 1..ATTEMPTS {
        let files = read_listed(&listing, skip);
        let now = list(folder)?;
        if now == listing {
            return Ok(files);
        }
        listing = now;
    }
    Ok(read_listed(&listing, skip))
}

fn read_listed(listing: &[Listed], skip: Option<&Path>) -> Vec<FileText> {
    let skip = skip.and_then(|path| path.canonicalize().ok());
    let wanted = |listed: &&Listed| skip.is_none() || listed.path.canonicalize().ok() != skip;
    let read = |listed: &Listed| read_file(listed.name.clone(), &listed.path);
    listing.iter().filter(wanted).map(read).collect()
}

/// A file of the folder and what changes when it is replaced or written.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Listed {
    name: String,
    path: PathBuf,
    identity: (u64, u64, i64, i64, u64),
}

fn list(folder: &Path) -> io::Result<Vec<Listed>> {
    let mut listing = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        // Follows links; a dangling one is a file that was just taken away.
        let Ok(metadata) = fs::metadata(entry.path()) else {
            continue;
        };
        if is_policy_file(&name) && metadata.is_file() {
            let (m, path) = (&metadata, entry.path());
            let identity = (m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.size());
            listing.push(Listed { name, path, identity });
        }
    }
    listing.sort();
    Ok(listing)
}

/// Whether a name is one that people give to policy files; hidden files and editors' temporary ones are not.
pub(crate) fn is_policy_file(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    let known = extension
        .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known)));
    known && !name.starts_with(['.', '#', '~'])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_policy_files_are_read_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.json", "c.YML", ".hidden.yaml", "d.yaml~", "#e.yaml#", "notes.txt", ".f.yaml.swp"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        fs::create_dir(folder.path().join("folder.yaml")).unwrap();
        let names: Vec<String> = read_folder(folder.path(), None).unwrap().into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["a.json", "b.yaml", "c.YML"]);
    }

    #[test]
    fn a_config_map_mount_is_read_through_its_links_and_dangling_ones_are_absent() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("..2024_1")).unwrap();
        fs::write(folder.path().join("..2024_1/a.yaml"), "one").unwrap();
        symlink("..2024_1", folder.path().join("..data")).unwrap();
        symlink("..data/a.yaml", folder.path().join("a.yaml")).unwrap();
        symlink("..data/gone.yaml", folder.path().join("gone.yaml")).unwrap();
        let files = read_folder(folder.path(), None).unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].text.as_ref().map(|text| text.body.as_str()), Ok("one"));
    }

    #[test]
    fn a_file_that_cannot_be_understood_as_text_or_is_empty_is_a_problem_and_not_an_absence() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), [0xff, 0xfe]).unwrap();
        fs::write(folder.path().join("b.yaml"), "\n").unwrap();
        let files = read_folder(folder.path(), None).unwrap();
        assert!(files.iter().all(|file| file.text.is_err()));
        assert_eq!(files.len(), 2);
    }

    #[test]
    fn the_config_file_is_not_read_twice() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.yaml");
        fs::write(&config, "x").unwrap();
        assert!(read_folder(folder.path(), Some(&config)).unwrap().is_empty());
        assert_eq!(read_folder(folder.path(), None).unwrap().len(), 1);
    }
}
