//! What a person sees while a command works: a heading per stage and a line per step with its mark and time.
//!
//! Progress goes to standard error, results go to standard output (`result`). Colour and the moving line appear only on
//! a terminal; elsewhere a long step says every half minute that it is alive.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use owo_colors::{OwoColorize as _, Stream, Style};

use crate::command::REDRAW;

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It did its work.
    Done,
    /// There was nothing to do.
    Present,
    /// It could not be done here, and that is not an error.
    Skipped,
    /// It went wrong.
    Failed,
}

impl Mark {
    fn sign(self) -> (&'static str, Style) {
        match self {
            Self::Done => ("✓", Style::new().green()),
            Self::Present => ("·", Style::new().dimmed()),
            Self::Skipped => ("-", Style::new().yellow()),
            Self::Failed => ("✗", Style::new().red().bold()),
        }
    }
}

/// Begins a stage.
pub(crate) fn heading(text: &str) {
    eprintln!("\n{}", paint(text, Style::new().bold()));
}

/// Reports a step that has ended.
pub(crate) fn step(mark: Mark, label: &str, detail: &str, took: Option<Duration>) {
    let (sign, style) = mark.sign();
    let took = took.map_or_else(String::new, |took| format!("  {:.1} s", took.as_secs_f64()));
    eprintln!("  {} {label:<34} {detail}{}", paint(sign, style), paint(&took, Style::new().dimmed()));
}

/// A line below a step.
pub(crate) fn note(text: &str) {
    for line in text.lines() {
        eprintln!("      {}", paint(line, Style::new().dimmed()));
    }
}

/// The error that ends a command, with its causes.
pub(crate) fn error(error: &anyhow::Error) {
    eprintln!("\n{} {error}", paint("error:", Style::new().red().bold()));
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
}

/// A line of a command's result, on standard output.
pub(crate) fn result(line: &str) {
    // A closed pipe (`| head`) is no reason to fail.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn paint(text: &str, style: Style) -> String {
    text.if_supports_color(Stream::Stderr, |text| text.style(style)).to_string()
}

/// A step that is under way: on a terminal one line that shows its latest output, elsewhere a line now and then.
#[derive(Debug)]
pub(crate) struct Live {
    label: String,
    started: Instant,
    spoken: Instant,
    drawn: Instant,
    terminal: bool,
    echo: bool,
    latest: String,
}

const BETWEEN_SIGNS_OF_LIFE: Duration = Duration::from_secs(30);

impl Live {
    /// Begins. With `echo` every line is shown, and there is no moving line.
    pub(crate) fn start(label: &str, echo: bool) -> Self {
        let now = Instant::now();
        let terminal = !echo && std::io::stderr().is_terminal();
        Self { label: label.to_owned(), started: now, spoken: now, drawn: now, terminal, echo, latest: String::new() }
    }

    /// How long it has been running.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Notes the latest line of output.
    pub(crate) fn line(&mut self, line: &str) {
        if self.echo {
            eprintln!("    | {line}");
        } else if !line.trim().is_empty() {
            self.latest = line.trim().chars().take(70).collect();
        }
    }

    /// Draws, if it is time to. False if it is not.
    pub(crate) fn draw(&mut self) -> bool {
        if self.drawn.elapsed() < REDRAW {
            return false;
        }
        self.drawn = Instant::now();
        if self.terminal {
            eprint!("\r\x1b[K  ◌ {:<34} {} s  {}", self.label, self.elapsed().as_secs(), self.latest);
        } else if !self.echo && self.spoken.elapsed() >= BETWEEN_SIGNS_OF_LIFE {
            self.spoken = Instant::now();
            eprintln!("  … {:<34} {} s  {}", self.label, self.elapsed().as_secs(), self.latest);
        }
        true
    }

    /// Removes the moving line.
    pub(crate) fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}
