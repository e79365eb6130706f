//! `egress-agent why`: what the kernel would say of one connection now, from its own tables, and by which rule.
//!
//! [`kernel`] asks the pinned maps as the programs do; [`view`] is the answer, [`named`] that for each address of a name.
//! Read-only; needs no running agent.

mod kernel;
mod named;
mod view;

use crate::cli::{Failure, Verdict, WhyArgs};
use crate::datapath::inspect::Inspector;
use crate::destination::{Asked, Destination};
use crate::dump;
use crate::names::Snapshot;
use crate::output;
use crate::reconcile::LastStatus;

use named::{WhyName, addresses};
use view::Why;

/// Prints the verdict. No: it is not Allow for every port and every address that is meant, or the kernel does not know the pod.
pub(crate) fn run(arguments: &WhyArgs) -> Result<Verdict, Failure> {
    let inspector = dump::open(&arguments.bpffs)?;
    let status = LastStatus::read(&arguments.state_dir);
    let snapshot = Snapshot::read(&arguments.state_dir);
    let why = |to: Destination| -> Result<Why, Failure> {
        let found = kernel::ask(&inspector, &arguments.pod, to).map_err(Failure::runtime)?;
        Ok(Why::new(&arguments.pod, to, &found, status.as_ref(), snapshot.as_ref()))
    };
    let allows = match &arguments.to {
        Asked::Address(to) => {
            let why = why(*to)?;
            output::print(&why, arguments.output)?;
            why.allows()
        }
        Asked::Name(to) => {
            let known = known(&inspector, snapshot.as_ref(), &to.name)?;
            let answers =
                known.into_iter().filter_map(|address| to.at(address)).map(why).collect::<Result<Vec<_>, _>>()?;
            if answers.is_empty() {
                return Err(named::unknown(to));
            }
            let why = WhyName::new(&arguments.pod, to, answers);
            output::print(&why, arguments.output)?;
            why.allows()
        }
    };
    Ok(if allows { Verdict::Yes } else { Verdict::No })
}

/// The addresses that the kernel holds for a name now.
fn known(inspector: &Inspector, snapshot: Option<&Snapshot>, name: &str) -> Result<Vec<std::net::IpAddr>, Failure> {
    let names = dump::names(inspector, snapshot).map_err(Failure::runtime)?;
    Ok(addresses(&names, name))
}

#[cfg(test)]
mod tests;
