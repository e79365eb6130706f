//! `egress-agent why`: what the kernel would say of one connection now, from its own tables, and by which rule.
//!
//! [`kernel`] asks the pinned maps as the programs do; [`view`] is the answer.
//! Read-only; needs no running agent.

mod kernel;
mod view;

use crate::cli::{Failure, Verdict, WhyArgs};
use crate::dump;
use crate::names::Snapshot;
use crate::output;
use crate::reconcile::LastStatus;

use view::Why;

/// Prints the verdict. No: it is not Allow for every port that is meant, or the kernel does not know the pod.
pub(crate) fn run(arguments: &WhyArgs) -> Result<Verdict, Failure> {
    let inspector = dump::open(&arguments.bpffs)?;
    let found = kernel::ask(&inspector, &arguments.pod, arguments.to).map_err(Failure::runtime)?;
    let status = LastStatus::read(&arguments.state_dir);
    let snapshot = Snapshot::read(&arguments.state_dir);
    let why = Why::new(&arguments.pod, arguments.to, &found, status.as_ref(), snapshot.as_ref());
    output::print(&why, arguments.output)?;
    Ok(if why.allows() { Verdict::Yes } else { Verdict::No })
}

#[cfg(test)]
mod tests;
