//! `egress-agent dump`: what the kernel enforces, read from the pins and put into words. Read-only; needs no running agent.
//!
//! [`scope`] says which pods and policies are meant. [`view`] turns what the inspector returns into serializable structs (also the JSON
//! and YAML output, which has a version), [`text`] lays them out in columns. Prefixes and rules, of which there may be very many, are put
//! into words one by one while they are written. [`raw`] shows bytes instead.

mod names;
mod ports;
mod raw;
mod scope;
mod text;
mod view;

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use egress_common::abi;
use egress_common::endpoint::TableRef;
use nix::net::if_::if_nameindex;

use crate::cli::{DumpArgs, Failure, Subject};
use crate::datapath::DatapathError;
use crate::datapath::inspect::{EndpointView, Inspector, TableView, other_versions};
use crate::events::monotonic_now;
use crate::names::{self as directory, Snapshot};
use crate::output::{self, Answer};

#[cfg(test)]
pub(crate) use names::AddressView;
pub(crate) use names::NameView;
use raw::Raw;
use scope::Scope;
use view::{Counted, Counters, Dump, Rules};

/// Prints what was asked for.
pub(crate) fn run(arguments: &DumpArgs) -> Result<(), Failure> {
    let scope = Scope::new(arguments)?;
    let inspector = open(&arguments.bpffs)?;
    if arguments.raw {
        let raw = Raw::new(&inspector, arguments.subject).map_err(Failure::runtime)?;
        return output::print(&raw, arguments.output);
    }
    let snapshot = Snapshot::read(&arguments.state_dir);
    let kernel = Kernel::read(&inspector, arguments.subject, &scope).map_err(Failure::runtime)?;
    if scope.narrows() && kernel.endpoints.is_empty() {
        return Err(scope.nothing(&kernel.known));
    }
    let dump = kernel.dump(&inspector, arguments.subject, &scope, snapshot.as_ref()).map_err(Failure::runtime)?;
    output::print(&dump, arguments.output)
}

/// Opens the pins below `bpffs`; says so if there are none, or only some that another version of the agent made.
pub(crate) fn open(bpffs: &Path) -> Result<Inspector, Failure> {
    // First: without privileges everything below a bpffs looks absent.
    crate::startup::check_privileges().map_err(Failure::runtime)?;
    if !bpffs.exists() {
        return Err(nothing(bpffs));
    }
    Inspector::open(bpffs).map_err(|error| if is_absence(&error) { nothing(bpffs) } else { Failure::runtime(error) })
}

/// What to say where no maps of this version are.
fn nothing(bpffs: &Path) -> Failure {
    let folder = bpffs.display();
    let others = other_versions(bpffs);
    if others.is_empty() {
        return Failure::negative(format!(
            "nothing is pinned in {folder}: no agent has run since the last cleanup, or it uses another --bpffs"
        ));
    }
    let others = others.iter().map(|version| format!("abi-{version}")).collect::<Vec<_>>().join(" and ");
    Failure::runtime(format!(
        "the maps in {folder} are {others}, and this egress-agent reads abi-{}: the rules in them are in force, but another version of \
         the agent made them; ask with its binary (in a cluster `kubectl egress` runs it in the agent's own pod), or start the agent \
         of this version, which takes over without a gap",
        abi::VERSION
    ))
}

/// Whether an error comes down to a pin that is not there.
fn is_absence(error: &(dyn Error + 'static)) -> bool {
    let mut error = Some(error);
    while let Some(cause) = error {
        if cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return true;
        }
        error = cause.source();
    }
    false
}

/// The pods that are asked for with the tables that judge them.
struct Kernel {
    /// Every pod, asked for or not.
    known: Vec<EndpointView>,
    endpoints: Vec<EndpointView>,
    tables: Vec<TableView>,
}

impl Kernel {
    fn read(inspector: &Inspector, subject: Subject, scope: &Scope) -> Result<Self, DatapathError> {
        let known = inspector.endpoints()?;
        let needed = subject.needs_tables() || scope.narrows();
        let mut tables = if needed { inspector.tables(false)? } else { Vec::new() };
        let by_reference: HashMap<TableRef, &TableView> = tables.iter().map(|table| (table.reference, table)).collect();
        let admitted = |endpoint: &&EndpointView| scope.admits(endpoint, by_reference.get(&endpoint.table).copied());
        let endpoints: Vec<EndpointView> = known.iter().filter(admitted).cloned().collect();
        if scope.narrows() {
            let used: HashSet<TableRef> = endpoints.iter().map(|endpoint| endpoint.table).collect();
            tables.retain(|table| used.contains(&table.reference));
        }
        if subject.wants(Subject::Tables) {
            tables = with_contents(inspector, tables)?;
        }
        Ok(Self { known, endpoints, tables })
    }

    fn dump(
        self,
        inspector: &Inspector,
        subject: Subject,
        scope: &Scope,
        snapshot: Option<&Snapshot>,
    ) -> Result<Dump, DatapathError> {
        let Self { endpoints, tables, .. } = self;
        let mut dump = Dump::default();
        if subject.wants(Subject::Endpoints) {
            dump.endpoints = Some(view::endpoints(&endpoints, &tables, &interface_names()));
        }
        if subject.wants(Subject::Counters) || subject.wants(Subject::Rules) {
            let counted = |table: &TableView| {
                let counters = inspector.rule_counters(&table.info)?;
                Ok(Counted::new(table, counters))
            };
            let counted = Arc::new(tables.iter().map(counted).collect::<Result<Vec<_>, DatapathError>>()?);
            if subject.wants(Subject::Counters) {
                let drops = if scope.narrows() { None } else { Some(view::drops(&inspector.drop_counters()?)) };
                dump.counters = Some(Counters { rules: Rules::that_counted(&counted, scope), drops });
            }
            if subject.wants(Subject::Rules) {
                dump.rules = Some(Rules::all(&counted, scope));
            }
        }
        if subject.wants(Subject::Flows) {
            let now = monotonic_now().unwrap_or(0);
            dump.flows = Some(view::flows(&inspector.flows()?, &endpoints, !scope.narrows(), now));
        }
        if subject.wants(Subject::Names) {
            let mut views = names(inspector, snapshot)?;
            if scope.narrows() {
                let patterns = scope.patterns(&tables);
                views.retain(|view| scope::is_meant(view, &patterns));
            }
            dump.names = Some(views);
        }
        if subject.wants(Subject::Config) && !scope.narrows() {
            dump.config = Some(view::config(&inspector.config()?, &inspector.capacities()?));
        }
        if subject.wants(Subject::Stats) && !scope.narrows() {
            dump.stats = Some(inspector.stats()?.into_iter().map(|(stat, value)| (stat.name(), value)).collect());
        }
        if subject.wants(Subject::Tables) {
            dump.tables = Some(view::tables(tables, &endpoints, scope));
        }
        Ok(dump)
    }
}

/// The names of the rules and the addresses that the kernel holds for them now.
pub(crate) fn names(inspector: &Inspector, snapshot: Option<&Snapshot>) -> Result<Vec<NameView>, DatapathError> {
    let held = names::Held { trie: inspector.names()?, addresses: inspector.name_addresses()? };
    Ok(names::view(&held, snapshot, directory::now().as_secs()))
}

/// Reads what the tables say. One that is replaced meanwhile is no longer in force and is left out.
fn with_contents(inspector: &Inspector, tables: Vec<TableView>) -> Result<Vec<TableView>, DatapathError> {
    let mut read = Vec::new();
    for mut table in tables {
        let filled = inspector.read_contents(&mut table);
        if inspector.table(table.reference)?.is_some() {
            filled?;
            read.push(table);
        }
    }
    Ok(read)
}

impl Subject {
    /// Whether the answer has this part.
    fn wants(self, part: Self) -> bool {
        self == part || self == Self::All
    }

    fn needs_tables(self) -> bool {
        [Self::Endpoints, Self::Tables, Self::Rules, Self::Counters].into_iter().any(|part| self.wants(part))
    }
}

/// Names of this namespace's interfaces by index; the pins hold only the index.
fn interface_names() -> HashMap<u32, String> {
    let interfaces = if_nameindex().ok();
    interfaces
        .iter()
        .flatten()
        .map(|interface| (interface.index(), interface.name().to_string_lossy().into_owned()))
        .collect()
}

impl Answer for Dump {
    fn text(&self, out: &mut dyn Write, colours: bool) -> io::Result<()> {
        text::write(out, self, colours)
    }
}

#[cfg(test)]
mod tests;
