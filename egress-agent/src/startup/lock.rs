//! Two agents must not share a folder of pins or of state: each is held by a lock that ends with the process.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// A folder that belongs to this process until the value is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _folder: Flock<File>,
}

/// Why a folder could not be locked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error("another agent uses {}; stop it first, or give this one another folder", .0.display())]
    Taken(PathBuf),
    #[error("cannot use the folder {}: {error}", path.display())]
    Failed {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
}

impl Lock {
    /// Locks `folder`, and makes it if need be.
    pub(crate) fn take(folder: &Path) -> Result<Self, LockError> {
        let failed = |error| LockError::Failed { path: folder.to_path_buf(), error };
        fs::create_dir_all(folder).map_err(failed)?;
        let file = File::open(folder).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { _folder: lock }),
            Err((_, Errno::EWOULDBLOCK)) => Err(LockError::Taken(folder.to_path_buf())),
            Err((_, error)) => Err(failed(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let held = Lock::take(folder.path()).unwrap();
        assert!(matches!(Lock::take(folder.path()), Err(LockError::Taken(_))));
        drop(held);
        Lock::take(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_said_to_be_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(Lock::take(&file.path().join("x")), Err(LockError::Failed { .. })));
    }
}
