//! `dump -o table`.

use std::io::{self, Write};

use egress_policy::model::{Action, Mode};

use crate::columns::{self, Cell, Tone};

use super::names;
use super::view::{
    ConfigRow, Counters, DecisionRow, Dump, EndpointRow, FlowRow, IntervalRow, PrefixRow, RuleRow, Rules, TableNumber,
    TableRow,
};

pub(super) fn write(out: &mut dyn Write, dump: &Dump, colours: bool) -> io::Result<()> {
    let mut sheets = Sheets { out, colours, any: false };
    if let Some(endpoints) = &dump.endpoints {
        sheets.endpoints(endpoints)?;
    }
    for table in dump.tables.iter().flatten() {
        sheets.table(table)?;
    }
    if dump.tables.as_ref().is_some_and(Vec::is_empty) {
        sheets.sheet("tables", &[], &[])?;
    }
    if let Some(rules) = &dump.rules {
        sheets.rules("rules, in the order of evaluation", rules)?;
    }
    if let Some(counters) = &dump.counters {
        sheets.counters(counters)?;
    }
    if let Some(flows) = &dump.flows {
        sheets.flows(flows)?;
    }
    if let Some(views) = &dump.names {
        sheets.each("names", &names::HEADERS, || names::rows(views))?;
    }
    if let Some(config) = &dump.config {
        sheets.config(config)?;
    }
    if let Some(stats) = &dump.stats {
        let rows: Vec<_> = stats.iter().map(|(name, value)| vec![Cell::text(*name), Cell::number(value)]).collect();
        sheets.sheet("stats", &["figure", "value"], &rows)?;
    }
    Ok(())
}

struct Sheets<'a> {
    out: &'a mut dyn Write,
    colours: bool,
    any: bool,
}

impl Sheets<'_> {
    fn sheet(&mut self, title: &str, headers: &[&str], rows: &[Vec<Cell>]) -> io::Result<()> {
        self.each(title, headers, || rows.iter())
    }

    /// A sheet whose rows are made while they are written.
    fn each<R: AsRef<[Cell]>, I: Iterator<Item = R>>(
        &mut self,
        title: &str,
        headers: &[&str],
        rows: impl Fn() -> I,
    ) -> io::Result<()> {
        if std::mem::replace(&mut self.any, true) {
            writeln!(self.out)?;
        }
        columns::write_each(self.out, title, headers, rows, self.colours)
    }

    fn endpoints(&mut self, endpoints: &[EndpointRow]) -> io::Result<()> {
        let row = |endpoint: &EndpointRow| {
            let interface = endpoint.interface.map(|index| match &endpoint.interface_name {
                Some(name) => format!("{name} ({index})"),
                None => index.to_string(),
            });
            vec![
                Cell::text(&endpoint.name),
                Cell::number(&endpoint.id),
                Cell::optional(interface),
                Cell::optional(endpoint.netns),
                Cell::optional(endpoint.cgroup),
                Cell::optional(endpoint.table.map(label)),
                Cell::text(endpoint.policies.join(", ")),
            ]
        };
        let headers = ["endpoint", "id", "interface", "netns", "cgroup", "table", "policies"];
        self.sheet("endpoints", &headers, &endpoints.iter().map(row).collect::<Vec<_>>())
    }

    fn table(&mut self, table: &TableRow) -> io::Result<()> {
        let title = format!(
            "table {}: {} rules, {} prefixes, {} class entries, denyResponse {}; {}",
            label(table.table),
            table.rules,
            table.prefixes.len(),
            table.class_entries,
            table.deny_response,
            if table.endpoints.is_empty() { "no endpoint".to_owned() } else { table.endpoints.join(", ") },
        );
        let rows = || table.prefixes.rows().flat_map(|prefix| lines(&prefix));
        self.each(&title, &["prefix", "verdict", "ports", "by"], rows)
    }

    fn rules(&mut self, title: &str, rules: &Rules) -> io::Result<()> {
        let row = |rule: RuleRow<'_>| {
            let tone = if rule.rule.action == Action::Deny { Tone::Bad } else { Tone::Good };
            let audit = if rule.rule.mode == Mode::Audit { " (Audit)" } else { "" };
            vec![
                Cell::text(label(rule.table)),
                Cell::number(&rule.rank),
                Cell::text(format!("{}{audit}", rule.rule.text)).tone(tone),
                Cell::text(&rule.rule.origin),
                Cell::optional(rule.packets),
                Cell::optional(rule.bytes),
            ]
        };
        let headers = ["table", "rank", "rule", "origin", "packets", "bytes"];
        self.each(title, &headers, || rules.rows().map(row))
    }

    fn counters(&mut self, counters: &Counters) -> io::Result<()> {
        self.rules("rules that counted", &counters.rules)?;
        let Some(drops) = &counters.drops else { return Ok(()) };
        let dropped = drops.iter().filter(|drop| drop.packets > 0);
        let rows: Vec<_> = dropped
            .map(|drop| vec![Cell::text(drop.reason), Cell::number(&drop.packets), Cell::number(&drop.bytes)])
            .collect();
        self.sheet("drops", &["reason", "packets or calls", "bytes"], &rows)
    }

    fn flows(&mut self, flows: &[FlowRow]) -> io::Result<()> {
        let row = |flow: &FlowRow| {
            vec![
                Cell::text(&flow.endpoint),
                Cell::text(&flow.protocol),
                Cell::text(flow.remote.to_string()),
                Cell::number(&flow.remote_port),
                Cell::number(&flow.local_port),
                Cell::text(flow.origin),
                Cell::number(&flow.idle_seconds),
            ]
        };
        let headers = ["endpoint", "protocol", "remote", "port", "local port", "began", "idle s"];
        self.sheet("flows", &headers, &flows.iter().map(row).collect::<Vec<_>>())
    }

    fn config(&mut self, config: &ConfigRow) -> io::Result<()> {
        let levels: Vec<String> = config.cgroup_levels.iter().map(ToString::to_string).collect();
        let mut rows = vec![
            vec![Cell::text("layout version"), Cell::number(&config.abi)],
            vec![Cell::text("events per second, pod and rule"), Cell::number(&config.events_per_second)],
            vec![Cell::text("cgroup levels"), Cell::optional((!levels.is_empty()).then(|| levels.join(",")))],
        ];
        let capacity =
            |(name, entries): (&&str, &u32)| vec![Cell::text(format!("{name} holds")), Cell::number(entries)];
        rows.extend(config.capacities.iter().map(capacity));
        self.sheet("config", &["setting", "value"], &rows)
    }
}

/// The lines of a prefix: one for each decision, and what Audit would decide.
fn lines(prefix: &PrefixRow) -> Vec<Vec<Cell>> {
    let mut lines = Vec::new();
    for (number, (ports, decision)) in grouped(&prefix.intervals).into_iter().enumerate() {
        let name = if number == 0 { prefix.prefix.to_string() } else { String::new() };
        lines.push(vec![Cell::text(name), verdict(decision), Cell::text(ports), Cell::text(origin(decision))]);
    }
    for interval in &prefix.intervals {
        if let Some(audit) = &interval.audit {
            let verdict = Cell::text(format!("audit: {}", audit.verdict)).tone(Tone::Faint);
            lines.push(vec![Cell::text(""), verdict, Cell::text(interval.span.text()), Cell::text(origin(audit))]);
        }
    }
    lines
}

/// `slot 3 gen 17` in short.
fn label(table: TableNumber) -> String {
    format!("{}#{}", table.slot, table.generation)
}

fn verdict(decision: &DecisionRow) -> Cell {
    let tone = if decision.verdict == "deny" { Tone::Bad } else { Tone::Good };
    Cell::text(decision.verdict).tone(tone)
}

fn origin(decision: &DecisionRow) -> String {
    decision.origin.clone().unwrap_or_else(|| format!("rank {}", decision.rank))
}

/// One line per decision instead of one per interval: the widest one is what holds for everything that is not listed.
fn grouped(intervals: &[IntervalRow]) -> Vec<(String, &DecisionRow)> {
    let mut groups: Vec<(&DecisionRow, Vec<String>, u32)> = Vec::new();
    for interval in intervals {
        let (text, width) = (interval.span.text(), interval.span.width());
        match groups.iter_mut().find(|(decision, ..)| **decision == interval.decision) {
            Some((_, texts, total)) => {
                texts.push(text);
                *total += width;
            }
            None => groups.push((&interval.decision, vec![text], width)),
        }
    }
    groups.sort_by_key(|(_, _, width)| *width);
    let last = groups.len().saturating_sub(1);
    let line = |(index, (decision, texts, _)): (usize, (_, Vec<String>, _))| {
        let ports = if index == last && last > 0 { "otherwise".to_owned() } else { texts.join(", ") };
        (ports, decision)
    };
    groups.into_iter().enumerate().map(line).collect()
}
