//! `egress-agent dump`: what the kernel enforces, read from the pins and put into words. Read-only; needs no running agent.
//!
//! Two steps: [`view`] turns what the inspector returns into serializable structs (also the JSON and YAML output, which has a
//! version), [`text`] lays them out in columns.

mod names;
mod ports;
mod text;
mod view;

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, Write};
use std::path::Path;

use nix::net::if_::if_nameindex;

use crate::cli::{DumpArgs, Failure, Subject};
use crate::datapath::DatapathError;
use crate::datapath::inspect::{Inspector, TableView};
use crate::events::monotonic_now;
use crate::names::{self as directory, Snapshot};
use crate::output::{self, Answer};

use view::Dump;

/// Prints what was asked for.
pub(crate) fn run(arguments: &DumpArgs) -> Result<(), Failure> {
    let inspector = open(&arguments.bpffs)?;
    let snapshot = Snapshot::read(&arguments.state_dir);
    let dump = read(&inspector, arguments.subject, snapshot.as_ref()).map_err(Failure::runtime)?;
    output::print(&dump, arguments.output)
}

/// Opens the pins below `bpffs`; says so if there are none.
pub(crate) fn open(bpffs: &Path) -> Result<Inspector, Failure> {
    // First: without privileges everything below a bpffs looks absent.
    crate::startup::check_privileges().map_err(Failure::runtime)?;
    let nothing = || {
        let folder = bpffs.display();
        Failure::negative(format!(
            "nothing is pinned in {folder}: no agent of this version has run since the last cleanup, or it uses another --bpffs"
        ))
    };
    if !bpffs.exists() {
        return Err(nothing());
    }
    Inspector::open(bpffs).map_err(|error| if is_absence(&error) { nothing() } else { Failure::runtime(error) })
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

fn read(inspector: &Inspector, subject: Subject, snapshot: Option<&Snapshot>) -> Result<Dump, DatapathError> {
    let wants = |other| subject == other || subject == Subject::All;
    let endpoints = inspector.endpoints()?;
    let interfaces = interface_names();
    let needs_tables = [Subject::Endpoints, Subject::Tables, Subject::Rules, Subject::Counters];
    let tables: Vec<TableView> =
        if needs_tables.into_iter().any(wants) { inspector.tables(wants(Subject::Tables))? } else { Vec::new() };
    let counted = if wants(Subject::Rules) || wants(Subject::Counters) {
        let counters = |table: &TableView| inspector.rule_counters(&table.info);
        let counters = tables.iter().map(counters).collect::<Result<Vec<_>, _>>()?;
        tables.iter().zip(counters).flat_map(|(table, counters)| view::rules(table, &counters)).collect()
    } else {
        Vec::new()
    };
    let mut dump = Dump::default();
    if wants(Subject::Endpoints) {
        dump.endpoints =
            Some(endpoints.iter().map(|endpoint| view::endpoint(endpoint, &tables, &interfaces)).collect());
    }
    if wants(Subject::Tables) {
        dump.tables = Some(tables.iter().map(|table| view::table(table, &endpoints)).collect());
    }
    if wants(Subject::Counters) {
        dump.counters = Some(view::counters(&counted, &inspector.drop_counters()?));
    }
    if wants(Subject::Rules) {
        dump.rules = Some(counted);
    }
    if wants(Subject::Flows) {
        let now = monotonic_now().unwrap_or(0);
        dump.flows = Some(view::flows(&inspector.flows()?, &endpoints, now));
    }
    if wants(Subject::Names) {
        let held = names::Held { trie: inspector.names()?, addresses: inspector.name_addresses()? };
        dump.names = Some(names::view(&held, snapshot, directory::now().as_secs()));
    }
    if wants(Subject::Config) {
        dump.config = Some(view::config(&inspector.config()?, &inspector.capacities()?));
    }
    if wants(Subject::Stats) {
        dump.stats = Some(inspector.stats()?.into_iter().map(|(stat, value)| (stat.name(), value)).collect());
    }
    Ok(dump)
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
