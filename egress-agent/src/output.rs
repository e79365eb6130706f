//! How an answer reaches the person or the program that asked: columns, JSON or YAML on standard output.
//!
//! Every answer has a `version` field in its serialized form; colours are for terminals only. Called by every command that answers.

use std::io::{self, BufWriter, IsTerminal as _, Write};

use serde::Serialize;

use crate::cli::{Failure, Output};
use crate::logs::no_color;

/// Something that a command prints.
pub(crate) trait Answer: Serialize {
    /// Lays it out for people.
    fn text(&self, out: &mut dyn Write, colours: bool) -> io::Result<()>;
}

/// Prints `answer` to standard output. A reader that has seen enough (`| head`) is no failure.
pub(crate) fn print(answer: &impl Answer, output: Output) -> Result<(), Failure> {
    let stdout = io::stdout();
    let colours = stdout.is_terminal() && !no_color();
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
        Output::Yaml => out.write_all(serde_saphyr::to_string(answer).map_err(io::Error::other)?.as_bytes()),
    }
}
