//! What a person sees while it runs, on standard error.

use std::time::{Duration, Instant};

use owo_colors::{OwoColorize as _, Stream};

/// Begins a stage.
pub(crate) fn heading(text: &str) {
    eprintln!("\n{}", text.if_supports_color(Stream::Stderr, |text| text.bold()));
}

/// A remark.
pub(crate) fn note(text: &str) {
    eprintln!("      {}", text.if_supports_color(Stream::Stderr, |text| text.dimmed()));
}

/// Something went wrong that does not end the run.
pub(crate) fn warn(text: &str) {
    eprintln!("  {} {text}", "!".if_supports_color(Stream::Stderr, |text| text.yellow()));
}

/// Does a piece of work and says how long it took.
pub(crate) fn step<T>(label: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let started = Instant::now();
    let result = work();
    let sign = if result.is_ok() { "✓" } else { "✗" };
    let took = format!("{:.1} s", seconds(started.elapsed()));
    eprintln!("  {sign} {label:<44} {}", took.if_supports_color(Stream::Stderr, |text| text.dimmed()));
    result
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
