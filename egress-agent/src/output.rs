//! How an answer reaches the person or the program that asked: columns, JSON or YAML on standard output.
//!
//! Every answer has a `version` field in its serialized form; colours and the [`pager`] are for terminals only. Called by every command
//! that answers.

mod pager;

use std::io::{self, BufWriter, IsTerminal as _, Write};

use serde::Serialize;

use crate::cli::{Failure, Output};
use crate::logs::no_color;

/// Something that a command prints.
pub(crate) trait Answer: Serialize {
    /// Lays it out for people.
    fn text(&self, out: &mut dyn Write, colours: bool) -> io::Result<()>;
}

/// Prints `answer` to standard output, on a terminal through a pager. A reader that has seen enough (`| head`) is no failure.
pub(crate) fn print(answer: &impl Answer, output: Output) -> Result<(), Failure> {
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    let colours = terminal && !no_color();
    if let Some(pager) = terminal.then(pager::start).flatten() {
        return unless_gone(pager.page(|out| write(out, answer, output, colours)));
    }
    let mut out = BufWriter::new(stdout.lock());
    unless_gone(write(&mut out, answer, output, colours).and_then(|()| out.flush()))
}

/// The result of writing to standard output, where nobody reading any more is fine.
pub(crate) fn unless_gone(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(Failure::runtime),
    }
}

/// Writes `answer` in the format of `output`.
pub(crate) fn write(out: &mut dyn Write, answer: &impl Answer, output: Output, colours: bool) -> io::Result<()> {
    match output {
        Output::Table => answer.text(out, colours),
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, answer)?;
            writeln!(out)
        }
        Output::Yaml => {
            let mut out = out;
            serde_saphyr::to_io_writer(&mut out, answer).map_err(|error| {
                if let serde_saphyr::SerializeError::IO { error } = error { error } else { io::Error::other(error) }
            })
        }
    }
}
