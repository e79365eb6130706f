//! `events.jsonl`: one JSON object per line, never more than twice [`LIMIT`] on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Bytes after which the file is put aside as `events.jsonl.1`, over the one before.
const LIMIT: u64 = 10 << 20;

/// The file that events are appended to.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    limit: u64,
    open: Option<(File, u64)>,
}

impl Journal {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, limit: LIMIT, open: None }
    }

    /// Appends complete lines in one write, so that a reader never sees half of one.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let added = lines.len() as u64;
        // A file that somebody deleted is begun anew instead of being written to out of sight.
        let (mut file, mut size) = match self.open.take().filter(|(file, _)| is_linked(file)) {
            Some(open) => open,
            None => open(&self.path)?,
        };
        if size > 0 && size + added > self.limit {
            fs::rename(&self.path, self.aside())?;
            (file, size) = open(&self.path)?;
        }
        file.write_all(lines)?;
        self.open = Some((file, size + added));
        Ok(())
    }

    fn aside(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".1");
        PathBuf::from(name)
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn is_linked(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_file_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = journal(folder.path(), 100);
        journal.append(b"one\n").unwrap();
        fs::remove_file(folder.path().join("events.jsonl")).unwrap();
        journal.append(b"two\n").unwrap();
        assert_eq!(fs::read(folder.path().join("events.jsonl")).unwrap(), b"two\n");
    }

    fn journal(folder: &Path, limit: u64) -> Journal {
        Journal { limit, ..Journal::new(folder.join("events.jsonl")) }
    }

    #[test]
    fn lines_are_appended_also_by_the_next_agent() {
        let folder = tempfile::tempdir().unwrap();
        journal(folder.path(), 100).append(b"one\n").unwrap();
        journal(folder.path(), 100).append(b"two\n").unwrap();
        assert_eq!(fs::read(folder.path().join("events.jsonl")).unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn a_full_file_is_put_aside_once_and_the_oldest_events_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = journal(folder.path(), 8);
        for line in [b"one..\n", b"two..\n", b"three\n"] {
            journal.append(line).unwrap();
        }
        assert_eq!(fs::read(folder.path().join("events.jsonl")).unwrap(), b"three\n");
        assert_eq!(fs::read(folder.path().join("events.jsonl.1")).unwrap(), b"two..\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
