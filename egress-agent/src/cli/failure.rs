//! Why a command ends with another exit code than 0, and how that is said.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::process::ExitCode;

/// The answer of a command that printed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As hoped for.
    Yes,
    /// The question was answered, with no.
    No,
}

impl Verdict {
    pub(crate) fn code(self) -> ExitCode {
        match self {
            Self::Yes => ExitCode::SUCCESS,
            Self::No => Exit::Negative.code(),
        }
    }
}

/// Exit codes other than success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The question was answered, with no.
    Negative,
    /// The arguments or the configuration are wrong; trying again without a change is useless.
    Usage,
    /// The machine did not do what it should.
    Runtime,
}

impl Exit {
    pub(crate) fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Negative => 1,
            Self::Usage => 2,
            Self::Runtime => 3,
        })
    }
}

/// An error on its way to the person who typed the command.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    error: Box<dyn Error + Send + Sync>,
}

impl Failure {
    pub(crate) fn negative(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Exit::Negative, error)
    }

    pub(crate) fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Exit::Usage, error)
    }

    pub(crate) fn runtime(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Exit::Runtime, error)
    }

    fn new(exit: Exit, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { exit, error: error.into() }
    }

    /// Says it on standard error, in plain words whatever the log format is.
    #[expect(clippy::print_stderr, reason = "the last words of a command are for the person who typed it")]
    pub(crate) fn report(&self) {
        eprintln!("egress-agent: {self}");
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(self.error.as_ref()))
    }
}

/// An error and its causes, each said once: many errors already quote their source.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            let _ = write!(text, ": {words}");
        }
        source = cause.source();
    }
    text
}
