//! `egress-agent monitor`: refusals and would-be refusals as they happen, from the running agent, which is the one reader of the ring.

mod lines;

use std::io::{self, IsTerminal as _, Write as _};
use std::ops::ControlFlow;

use crate::api::{Client, Filter, Line, Outcome};
use crate::cli::{Failure, MonitorArgs, Verdict};
use crate::logs::no_color;
use crate::output::unless_gone;

/// Prints events until it is stopped, or until `--limit` of them.
pub(crate) fn run(arguments: &MonitorArgs) -> Result<Verdict, Failure> {
    let client = Client::new(&arguments.connection.path()).map_err(Failure::runtime)?;
    let colours = io::stdout().is_terminal() && !no_color();
    let mut left = arguments.limit;
    let mut printed = Ok(());
    let take = |bytes: &[u8]| {
        let Some(line) = parse(bytes) else { return ControlFlow::Continue(()) };
        let mut out = io::stdout().lock();
        printed =
            line.and_then(|line| lines::write(&mut out, &line, arguments.output, colours)).and_then(|()| out.flush());
        left = left.map(|left| left.saturating_sub(1));
        if printed.is_err() || left == Some(0) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let asked = client.lines(&target(&filter(arguments))?, take);
    unless_gone(printed)?;
    asked.map_err(Failure::runtime)?;
    if left == Some(0) {
        Ok(Verdict::Yes)
    } else {
        Err(Failure::runtime("the agent ended; the kernel keeps enforcing"))
    }
}

/// What to ask the agent for.
pub(crate) fn target(filter: &Filter) -> Result<String, Failure> {
    let query = serde_urlencoded::to_string(filter).map_err(Failure::usage)?;
    Ok(format!("/v1/events?{query}"))
}

/// `None` for the empty line with which the feed begins.
fn parse(bytes: &[u8]) -> Option<io::Result<Line>> {
    (!bytes.is_empty()).then(|| serde_json::from_slice(bytes).map_err(io::Error::other))
}

fn filter(arguments: &MonitorArgs) -> Filter {
    let outcome = match (arguments.denied, arguments.audit, arguments.allowed) {
        (true, false, _) => Some(Outcome::Denied),
        (false, true, _) => Some(Outcome::Audit),
        (_, _, true) => Some(Outcome::Allowed),
        (false, false, false) | (true, true, false) => None,
    };
    let pod = arguments.pod.as_ref();
    Filter {
        outcome,
        namespace: pod.map(|pod| pod.namespace.clone()).or_else(|| arguments.namespace.clone()),
        pod: pod.map(|pod| pod.name.clone()),
        policy: arguments.policy.clone(),
        dns: arguments.dns,
    }
}
