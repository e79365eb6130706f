//! Laboratories that tests hand on to each other: to load the programs costs a verifier's run, which takes seconds on an emulated
//! machine. As many are made as tests run at once; they are taken down when the process exits.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, Once, PoisonError};

use crate::lab::{Lab, Setup};

static FREE: Mutex<Vec<Lab>> = Mutex::new(Vec::new());

/// A laboratory from the pool, under its own policies and without connections, fragments and events of former tests.
pub struct Pooled(Option<Lab>);

impl Pooled {
    /// Takes a free laboratory, or makes one.
    pub(crate) fn take(text: &str) -> Self {
        static AT_EXIT: Once = Once::new();
        // SAFETY: the function is `extern "C"` and may be called at any time.
        AT_EXIT.call_once(|| assert_eq!(unsafe { libc::atexit(take_down) }, 0));
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(mut lab) = free else {
            return Self(Some(Lab::with(Setup::default(), text)));
        };
        lab.reuse(text).expect("a laboratory");
        Self(Some(lab))
    }
}

extern "C" fn take_down() {
    FREE.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

impl Drop for Pooled {
    fn drop(&mut self) {
        // What a failed test leaves is not handed on.
        if let Some(mut lab) = self.0.take().filter(|_| !std::thread::panicking()) {
            lab.leave();
            FREE.lock().unwrap_or_else(PoisonError::into_inner).push(lab);
        }
    }
}

impl Deref for Pooled {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        self.0.as_ref().expect("taken only by drop")
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Lab {
        self.0.as_mut().expect("taken only by drop")
    }
}
