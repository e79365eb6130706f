//! `egress-agent suggest`: from what was seen under Audit, a policy that would have allowed it and nothing else.
//!
//! The running agent answers over its socket; where none runs, what it last stored is read. [`synthesis`] makes the rules, [`view`]
//! writes them.

mod synthesis;
mod view;

use crate::api::{Client, ClientError};
use crate::cli::{Failure, SuggestArgs, Verdict};
use crate::output;
use crate::vitals::{Asked, Observed, now};

use view::{Frame, Suggested};

/// Prints the policy. No: nothing was seen that it could allow.
pub(crate) fn run(arguments: &SuggestArgs) -> Result<Verdict, Failure> {
    let since = Asked {
        namespace: arguments.namespace.clone(),
        pod: arguments.pod.clone(),
        since: arguments.since.map_or(0, |since| now().saturating_sub(since.as_secs())),
    };
    let observed = observed(arguments, &since)?;
    let frame = Frame {
        namespace: arguments.namespace.clone(),
        name: arguments.name.clone(),
        priority: arguments.priority,
        deny_rest: arguments.deny_rest,
    };
    let suggested = Suggested::new(&frame, &synthesis::suggest(&observed.observations), &observed);
    output::print(&suggested, arguments.output)?;
    Ok(if suggested.is_empty() { Verdict::No } else { Verdict::Yes })
}

fn observed(arguments: &SuggestArgs, since: &Asked) -> Result<Observed, Failure> {
    let client = Client::new(&arguments.connection.path()).map_err(Failure::runtime)?;
    let query = serde_urlencoded::to_string(since).map_err(Failure::usage)?;
    match client.get::<Observed>(&format!("/v1/observed?{query}")) {
        Ok(observed) => Ok(observed),
        Err(ClientError::NotRunning(socket)) => match Observed::read(&arguments.connection.state_dir) {
            Some(observed) => Ok(observed.only(since)),
            None => Err(Failure::runtime(ClientError::NotRunning(socket))),
        },
        Err(error) => Err(Failure::runtime(error)),
    }
}

#[cfg(test)]
mod tests;
