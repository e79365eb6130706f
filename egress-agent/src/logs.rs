//! Where log records go: standard error, for people on a terminal and as JSON otherwise. Called once, by the command line.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::cli::LogFormat;

/// Starts logging. `EGRESS_LOG` holds the directives of an [`EnvFilter`].
pub(crate) fn start(format: Option<LogFormat>) {
    let terminal = io::stderr().is_terminal();
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("EGRESS_LOG")
        .from_env_lossy();
    let filter = without_repeats(filter);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let format = format.unwrap_or(if terminal { LogFormat::Human } else { LogFormat::Json });
    // A second start in one process (tests) keeps the first subscriber.
    let _ = match format {
        LogFormat::Human => builder.with_ansi(terminal && !no_color()).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// The Kubernetes client says every failed request, again and again; the watches that made it say it once, with what follows.
fn without_repeats(filter: EnvFilter) -> EnvFilter {
    const CLIENT: [&str; 2] = ["kube_client", "kube_runtime"];
    let asked_for = std::env::var("EGRESS_LOG").unwrap_or_default();
    let quiet =
        CLIENT.iter().filter(|name| !asked_for.contains(**name)).filter_map(|name| format!("{name}=off").parse().ok());
    quiet.fold(filter, EnvFilter::add_directive)
}

/// <https://no-color.org>.
pub(crate) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}
