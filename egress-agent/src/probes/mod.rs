//! `egress-agent test`: what policy files would do with connections, judged by the code that fills the kernel.
//!
//! [`cases`] reads expectations; [`judge`] asks the compiled table and the explanation and insists that they agree; with `--kernel`
//! [`kernel`] insists that the real programs do too; [`view`] is the answer. Without `--kernel` files are read and nothing else.

mod cases;
mod frame;
mod judge;
mod kernel;
mod view;

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;

use egress_policy::model::{PodIdentity, PolicySet};
use egress_policy::places::Places;

use crate::answers::Answers;
use crate::cli::{Failure, TestArgs, Verdict};
use crate::destination::{Asked, Destination};
use crate::output;
use crate::pods::ListedPods;
use crate::policy_files::PolicyFiles;

use cases::Probe;
use judge::Judge;
use kernel::{Kernel, KernelError};
use view::{Row, Tested};

/// Prints the verdicts. No: one of them is not Allow, or not what was expected.
pub(crate) fn run(arguments: &TestArgs) -> Result<Verdict, Failure> {
    let files = PolicyFiles::read_valid(&arguments.files)?;
    let listed = arguments.endpoints.as_deref().map(ListedPods::read).transpose()?;
    let probes = match &arguments.cases {
        Some(path) => cases::read(path, listed.as_ref())?,
        None => asked(arguments, listed.as_ref())?,
    };
    let answers = arguments.dns.as_deref().map(|path| Answers::read(path, &files.set.config.dns)).transpose()?;
    let judges = judges(&files.set, &probes)?;
    let rows = judge_all(&judges, &probes, answers.as_ref(), arguments.explain)?;
    let packets = if arguments.kernel { Some(ask_kernel(&judges, &probes, answers.as_ref())?) } else { None };
    let tested = Tested::new(rows, arguments.cases.is_some(), packets);
    output::print(&tested, arguments.output)?;
    Ok(if tested.passed() { Verdict::Yes } else { Verdict::No })
}

/// The probes that the command line itself names.
fn asked(arguments: &TestArgs, listed: Option<&ListedPods>) -> Result<Vec<Probe>, Failure> {
    let from = arguments.from.as_ref().ok_or_else(|| Failure::usage("--from is required"))?;
    let pod = match listed {
        Some(listed) => listed.find(from)?,
        None => PodIdentity {
            namespace: from.namespace.clone(),
            name: from.name.clone(),
            labels: arguments.labels.iter().map(|label| (label.0.clone(), label.1.clone())).collect(),
            service_account: arguments.service_account.clone(),
        },
    };
    Ok(arguments.to.iter().map(|to| Probe { pod: pod.clone(), to: to.clone(), expected: None }).collect())
}

/// The judges of every pod that is asked about.
type Judges<'p> = BTreeMap<&'p PodIdentity, Judge>;

fn judges<'p>(set: &PolicySet, probes: &'p [Probe]) -> Result<Judges<'p>, Failure> {
    let mut judges = Judges::new();
    for probe in probes {
        if !judges.contains_key(&probe.pod) {
            judges.insert(&probe.pod, Judge::new(set, &probe.pod).map_err(Failure::usage)?);
        }
    }
    Ok(judges)
}

/// Runs every probe through the real programs, in a thread whose network namespace is its own. Returns how many packets were judged.
fn ask_kernel(judges: &Judges<'_>, probes: &[Probe], answers: Option<&Answers>) -> Result<usize, Failure> {
    let mut asked = Vec::new();
    for probe in probes {
        for to in destinations(&probe.to, answers).map_err(Failure::usage)? {
            let names = answers.map(|answers| answers.names_of(to.address)).unwrap_or_default();
            asked.push((&probe.pod, to, names));
        }
    }
    let places: Places = judges.values().flat_map(|judge| &judge.table().patterns).map(AsRef::as_ref).collect();
    let work = || -> Result<usize, KernelError> {
        let mut kernel = Kernel::new(places)?;
        let mut packets = 0;
        for (pod, judge) in judges {
            kernel.judge_by(judge.table())?;
            for (_, to, names) in asked.iter().filter(|(asked, ..)| asked == pod) {
                kernel.learn(to.address, names)?;
                for (port, expected) in judge.intervals(*to, names) {
                    packets += usize::from(kernel.insist(*to, port, expected)?.is_some());
                }
            }
        }
        Ok(packets)
    };
    let ended = thread::scope(|scope| scope.spawn(work).join());
    Ok(ended.map_err(|_| Failure::runtime("the thread of --kernel died; this is a bug, please report it"))??)
}

/// One row for each address that a probe asks for.
fn judge_all(
    judges: &Judges<'_>,
    probes: &[Probe],
    answers: Option<&Answers>,
    explain: bool,
) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for probe in probes {
        let Some(judge) = judges.get(&probe.pod) else { continue };
        for to in destinations(&probe.to, answers).map_err(Failure::usage)? {
            let names = answers.map(|answers| answers.names_of(to.address)).unwrap_or_default();
            let explanation = judge.ask(to, &names).map_err(Failure::runtime)?;
            rows.push(Row::new(probe, to, names, judge.list(), explanation).explained(explain));
        }
    }
    Ok(rows)
}

/// The addresses that are asked for.
fn destinations(asked: &Asked, answers: Option<&Answers>) -> Result<Vec<Destination>, String> {
    let named = match asked {
        Asked::Address(to) => return Ok(vec![*to]),
        Asked::Name(named) => named,
    };
    let answers = answers.ok_or_else(|| {
        format!("{named} is a name, and names are not resolved here; say which addresses it has with --dns FILE")
    })?;
    let found: Vec<Destination> =
        answers.addresses(&named.name)?.iter().filter_map(|address| named.at(*address)).collect();
    if found.is_empty() {
        return Err(format!("no address of {} is of the family that {named} needs", named.name));
    }
    Ok(found)
}

/// Reads a file of the command line as text.
fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = crate::policy_files::read_file(path)?;
    String::from_utf8(bytes).map_err(|_| Failure::usage(format!("{} is not UTF-8 text", path.display())))
}

#[cfg(test)]
mod tests;
