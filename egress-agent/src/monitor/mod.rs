//! `egress-agent monitor`: refusals and would-be refusals as they happen, from the running agent, which is the one reader of the ring.

mod lines;

use std::io::{self, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::thread;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::oneshot;

use crate::api::{Client, Ended, Filter, Line, Outcome};
use crate::cli::{Failure, MonitorArgs, Verdict};
use crate::logs::no_color;

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
    let asked = client.lines(&target(&filter(arguments))?, reader_gone(), take);
    let ended = match (printed, asked) {
        (Err(error), _) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Verdict::Yes),
        (Err(error), _) => return Err(Failure::runtime(error)),
        (Ok(()), asked) => asked.map_err(Failure::runtime)?,
    };
    match ended {
        Ended::ByAgent => Err(Failure::runtime("the agent ended; the kernel keeps enforcing")),
        Ended::Taken | Ended::Stopped => Ok(Verdict::Yes),
    }
}

/// Comes to pass when nobody reads standard output any more (`| head`), even if there is nothing to write.
async fn reader_gone() {
    let (sender, gone) = oneshot::channel();
    // A thread of its own, and none of the runtime, which would wait for it at its end.
    thread::spawn(move || {
        let stdout = io::stdout();
        // No event is asked for; that the other end is closed is told anyway. A file has no other end.
        let mut watched = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        while poll(&mut watched, PollTimeout::NONE) == Err(Errno::EINTR) {}
        if watched[0].any() == Some(true) {
            let _ = sender.send(());
        }
    });
    if gone.await.is_err() {
        std::future::pending::<()>().await;
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
