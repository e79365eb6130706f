//! The flow log: one JSON object per line, to standard output or to a file that is put aside when it is full, so that never more than
//! (kept files + 1) × size is on disk. Called by the event reader.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Standard output; whoever reads it keeps what it needs.
    Stdout,
    /// A file that is rotated.
    File {
        path: PathBuf,
        /// Bytes after which the file is put aside as `<path>.1`, the one before as `<path>.2`, and so on.
        size: u64,
        /// Files put aside that are kept.
        kept: u32,
    },
}

/// An open flow log.
#[derive(Debug)]
pub(crate) struct FlowLog {
    target: Target,
    open: Option<(File, u64)>,
}

impl FlowLog {
    pub(crate) fn new(target: Target) -> Self {
        Self { target, open: None }
    }

    /// Appends complete lines, so that a reader never sees half of one.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let Target::File { path, size: limit, kept } = &self.target else {
            let mut stdout = io::stdout().lock();
            return stdout.write_all(lines).and_then(|()| stdout.flush());
        };
        // A file that somebody deleted or moved away is begun anew instead of being written to out of sight.
        let (mut file, mut size) = match self.open.take().filter(|(file, _)| is_at(file, path)) {
            Some(open) => open,
            None => open(path)?,
        };
        let mut rest = lines;
        while !rest.is_empty() {
            let fitting = whole_lines(rest, limit.saturating_sub(size));
            // A line that is longer than a whole file gets one of its own.
            let length = if fitting == 0 && size == 0 { first_line(rest) } else { fitting };
            let (now, later) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            file.write_all(now)?;
            size += now.len() as u64;
            rest = later;
            if !rest.is_empty() {
                put_aside(path, *kept)?;
                (file, size) = open(path)?;
            }
        }
        self.open = Some((file, size));
        Ok(())
    }
}

/// Length of the longest beginning of complete lines that has `room`.
fn whole_lines(lines: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(lines.len());
    lines.get(..room).and_then(|head| head.iter().rposition(|byte| *byte == b'\n')).map_or(0, |end| end + 1)
}

fn first_line(lines: &[u8]) -> usize {
    lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |end| end + 1)
}

/// Moves every file one number up; the last one goes.
fn put_aside(path: &Path, kept: u32) -> io::Result<()> {
    if kept == 0 {
        return fs::remove_file(path);
    }
    for number in (1..kept).rev() {
        match fs::rename(numbered(path, number), numbered(path, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, numbered(path, 1))
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    file.metadata().and_then(|ours| path.metadata().map(|there| same(ours, there))).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(folder: &Path, size: u64, kept: u32) -> FlowLog {
        FlowLog::new(Target::File { path: folder.join("events.jsonl"), size, kept })
    }

    fn read(folder: &Path, name: &str) -> String {
        fs::read_to_string(folder.join(name)).unwrap()
    }

    #[test]
    fn a_file_that_was_deleted_or_moved_away_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path(), 100, 1);
        log.append(b"one\n").unwrap();
        fs::remove_file(folder.path().join("events.jsonl")).unwrap();
        log.append(b"two\n").unwrap();
        assert_eq!(read(folder.path(), "events.jsonl"), "two\n");
        fs::rename(folder.path().join("events.jsonl"), folder.path().join("mine")).unwrap();
        log.append(b"three\n").unwrap();
        assert_eq!(read(folder.path(), "events.jsonl"), "three\n");
        assert_eq!(read(folder.path(), "mine"), "two\n");
    }

    #[test]
    fn lines_are_appended_also_by_the_next_agent() {
        let folder = tempfile::tempdir().unwrap();
        log(folder.path(), 100, 1).append(b"one\n").unwrap();
        log(folder.path(), 100, 1).append(b"two\n").unwrap();
        assert_eq!(read(folder.path(), "events.jsonl"), "one\ntwo\n");
    }

    #[test]
    fn a_batch_is_cut_at_the_ends_of_lines_and_a_line_too_long_for_a_file_is_kept_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path(), 14, 3);
        log.append(b"line 1\nline 2\nline 3\nline 4 is too long for any file\nline 5\n").unwrap();
        assert_eq!(read(folder.path(), "events.jsonl"), "line 5\n");
        assert_eq!(read(folder.path(), "events.jsonl.1"), "line 4 is too long for any file\n");
        assert_eq!(read(folder.path(), "events.jsonl.2"), "line 3\n");
        assert_eq!(read(folder.path(), "events.jsonl.3"), "line 1\nline 2\n");
    }

    #[test]
    fn full_files_are_put_aside_and_the_oldest_goes() {
        for kept in 0..4_u32 {
            let folder = tempfile::tempdir().unwrap();
            let mut log = log(folder.path(), 8, kept);
            for line in [b"line 1\n", b"line 2\n", b"line 3\n", b"line 4\n", b"line 5\n"] {
                log.append(line).unwrap();
            }
            assert_eq!(read(folder.path(), "events.jsonl"), "line 5\n");
            for number in 1..=kept {
                assert_eq!(read(folder.path(), &format!("events.jsonl.{number}")), format!("line {}\n", 5 - number));
            }
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1 + kept as usize, "no more than {kept} are kept");
        }
    }
}
