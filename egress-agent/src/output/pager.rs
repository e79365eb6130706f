//! A pager between an answer and a terminal, as git has one: `$EGRESS_PAGER`, else `$PAGER`, else `less`, which leaves at once where
//! everything fits and does not fold long rows (`LESS=FRSX`, unless the caller has set `LESS`). `cat` or an empty value is none; neither is one that cannot be started.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{SigHandler, Signal, signal};

/// A pager that waits for text.
pub(super) struct Pager(Child);

/// Starts the pager that the environment asks for, if it does and there is one.
pub(super) fn start() -> Option<Pager> {
    let chosen = ["EGRESS_PAGER", "PAGER"].into_iter().find_map(env::var_os);
    let mut command = command(chosen, env::var_os("TERM"))?;
    if env::var_os("LESS").is_none() {
        command.env("LESS", "FRSX");
    }
    command.stdin(Stdio::piped()).spawn().ok().map(Pager)
}

/// The command that shows pages. `None`: text goes to the terminal as it comes.
fn command(chosen: Option<OsString>, terminal: Option<OsString>) -> Option<Command> {
    if terminal.is_none_or(|name| name.is_empty() || name == "dumb") {
        return None;
    }
    match chosen {
        Some(line) if line.is_empty() || line == "cat" => None,
        Some(line) => {
            // A line of shell, as for git and man: `PAGER='less -S'`.
            let mut command = Command::new("sh");
            command.arg("-c").arg(line);
            Some(command)
        }
        None => Some(Command::new("less")),
    }
}

impl Pager {
    /// Lets `write` write into the pager, and waits until the reader has left it.
    pub(super) fn page(mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        // SAFETY: to ignore a signal runs no code of ours. Ctrl-C belongs to the pager from now on, which has the old setting.
        let _ = unsafe { signal(Signal::SIGINT, SigHandler::SigIgn) };
        let written = self.0.stdin.take().map_or(Ok(()), |input| {
            let mut input = BufWriter::new(input);
            let written = write(&mut input).and_then(|()| input.flush());
            // What is left after a failure has no reader.
            let _ = input.into_parts();
            written
        });
        self.0.wait()?;
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(pager: Option<&str>, terminal: Option<&str>) -> Option<String> {
        let command = command(pager.map(OsString::from), terminal.map(OsString::from))?;
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        Some(words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn less_shows_pages_unless_another_one_or_none_is_chosen() {
        assert_eq!(chosen(None, Some("xterm")).as_deref(), Some("less"));
        assert_eq!(chosen(Some("most -s"), Some("xterm")).as_deref(), Some("sh -c most -s"));
        for none in ["", "cat"] {
            assert_eq!(chosen(Some(none), Some("xterm")), None);
        }
    }

    #[test]
    fn a_terminal_that_cannot_be_drawn_on_gets_no_pager() {
        for terminal in [None, Some(""), Some("dumb")] {
            assert_eq!(chosen(None, terminal), None);
        }
    }
}
