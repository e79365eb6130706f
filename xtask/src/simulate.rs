//! `cargo xtask simulate`: what the agents of a large cluster ask of its API server and its DNS, counted while the agent's own code runs
//! against servers in memory with the clock skipped. The counting is in the agent's tests (`egress-agent/src/simulation.rs`).

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::command::{Task, outside_cargo};
use crate::tree::{self, Tree};
use crate::{ebpf, progress, setup};

/// Options of `simulate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Nodes of the cluster.
    #[arg(long, default_value_t = 5000, value_name = "N")]
    nodes: u32,
    /// Policies, each of ten rules or with three names, all of which concern every node.
    #[arg(long, default_value_t = 100, value_name = "N")]
    policies: u32,
    /// Pods on each node.
    #[arg(long, default_value_t = 50, value_name = "N")]
    pods: u32,
    /// Where the figures are written; target/simulate/results.json if not said.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write the tables into docs/scale.md.
    #[arg(long)]
    page: bool,
}

/// The parts, with the tests that count them and what the tables are called.
const PARTS: [(&str, &str, &str); 3] = [
    ("watch", "kube::simulation::what_an_agent_watches", "Watches"),
    ("status", "report::tests::scale", "Status"),
    ("dns", "names::simulation", "DNS"),
];
const PAGE: &str = "docs/scale.md";
const BEGIN: &str = "<!-- cargo xtask simulate --page writes from here -->\n";
const END: &str = "<!-- to here -->\n";

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let tree = Tree::locate()?;
    let ready = setup::ensure(&tree, &[setup::Group::Build])?;
    ebpf::build(&tree, &ready, false)?;
    progress::heading("simulation");
    let folder = tree.target("simulate");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let mut parts = Vec::new();
    let mut tables = String::new();
    for (part, test, title) in PARTS {
        let mut command = outside_cargo("cargo");
        command.args(["test", "--locked", "--package", "egress-agent", "--lib", test, "--", "--nocapture"]);
        command.current_dir(tree.root()).env("EGRESS_SIMULATE_OUT", &folder);
        let numbers = [("NODES", args.nodes), ("POLICIES", args.policies), ("PODS", args.pods)];
        command.envs(numbers.map(|(name, number)| (format!("EGRESS_SIMULATE_{name}"), number.to_string())));
        Task::new(&format!("count: {part}"), command).run(&tree)?;
        let file = folder.join(format!("{part}.json"));
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let counted: Part = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        let Size { nodes, policies, pods } = counted.size;
        let size = format!("{} nodes, {policies} policies, {pods} pods a node", grouped(&nodes.to_string()));
        let _ = write!(tables, "**{title}**: {size}\n\n{}\n", table(&counted.rows));
        parts.push(serde_json::from_str::<Value>(&text)?);
    }
    let json = args.json.clone().unwrap_or_else(|| folder.join("results.json"));
    let results = json!({"version": 1, "parts": parts});
    std::fs::write(&json, serde_json::to_string_pretty(&results)?).with_context(|| json.display().to_string())?;
    progress::result(&tables);
    if args.page {
        let page = tree.path(PAGE);
        let text = std::fs::read_to_string(&page).with_context(|| page.display().to_string())?;
        tree::write_if_changed(&page, inserted(&text, &tables)?.as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Deserialize)]
struct Part {
    size: Size,
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Size {
    nodes: u32,
    policies: u32,
    pods: u32,
}

/// A figure as the agent's tests write it, for the whole cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    phase: String,
    what: String,
    per_second: bool,
    requests: f64,
    sent: f64,
    received: f64,
}

/// The rows as Markdown; what is small beside the rest of its phase is one row, and so are watches that are taken up again.
fn table(rows: &[Row]) -> String {
    let mut phases: Vec<&str> = rows.iter().map(|row| row.phase.as_str()).collect();
    phases.dedup();
    let mut text =
        String::from("| when | what | requests | bytes to the server | bytes from it |\n|---|---|---|---|---|\n");
    for phase in phases {
        let of_phase: Vec<&Row> = rows.iter().filter(|row| row.phase == phase).collect();
        let all: f64 = of_phase.iter().map(|row| row.sent + row.received).sum();
        let asked: f64 = of_phase.iter().map(|row| row.requests).sum();
        let mut joined: Vec<Row> = Vec::new();
        for row in of_phase {
            let (verb, _) = row.what.split_once(' ').unwrap_or((row.what.as_str(), ""));
            let is_small = verb != "names" && row.sent + row.received < all / 100.0 && row.requests < asked / 10.0;
            let what = match verb {
                "WATCH" | "BOOKMARK" => format!("{verb}, all kinds"),
                _ if is_small => format!("{verb}, other kinds"),
                _ => row.what.clone(),
            };
            match joined.iter_mut().find(|sum| sum.what == what) {
                Some(sum) => {
                    sum.requests += row.requests;
                    sum.sent += row.sent;
                    sum.received += row.received;
                }
                None => joined.push(Row { what, ..row.clone() }),
            }
        }
        for row in joined.into_iter().filter(|row| row.requests + row.sent + row.received > 0.0) {
            let unit = if row.per_second { " /s" } else { "" };
            let bytes = |bytes: f64| if bytes > 0.0 { format!("{}{unit}", bytes_text(bytes)) } else { String::new() };
            let requests = if row.requests > 0.0 { format!("{}{unit}", number(row.requests)) } else { String::new() };
            let _ = writeln!(
                text,
                "| {phase} | {} | {requests} | {} | {} |",
                row.what,
                bytes(row.sent),
                bytes(row.received)
            );
        }
    }
    text
}

/// With three digits that matter.
fn number(value: f64) -> String {
    if value >= 100.0 {
        grouped(&format!("{value:.0}"))
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// Digits of a whole number, in groups of three.
fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn bytes_text(bytes: f64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    let (unit, size) = units.into_iter().find(|(_, size)| bytes >= *size).unwrap_or(("B", 1.0));
    format!("{} {unit}", number(bytes / size))
}

/// The page with these tables between its marks.
fn inserted(page: &str, tables: &str) -> anyhow::Result<String> {
    let (before, rest) = page.split_once(BEGIN).with_context(|| format!("{PAGE} has no {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{PAGE} has no {END}"))?;
    Ok(format!("{before}{BEGIN}\n{tables}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(what: &str, requests: f64, received: f64) -> Row {
        Row { phase: "starts".into(), what: what.into(), per_second: true, requests, sent: 0.0, received }
    }

    #[test]
    fn small_rows_are_joined_and_figures_are_read_at_a_glance() {
        let rows = [
            row("EVENT nodes", 0.0, 835_417_100.0),
            row("EVENT pods", 0.0, 100.0),
            row("EVENT services", 0.0, 23.0),
            row("GET leases", 10.0, 1.0),
            row("GET nodes", 1.0, 1.0),
            row("WATCH nodes", 16.67, 0.0),
            row("WATCH pods", 16.67, 0.0),
        ];
        let table = table(&rows);
        assert!(table.contains("| starts | EVENT nodes |  |  | 835 MB /s |\n"), "{table}");
        assert!(table.contains("| starts | EVENT, other kinds |  |  | 123 B /s |\n"), "{table}");
        assert!(table.contains("| starts | GET leases | 10.0 /s | "), "few bytes, many requests: {table}");
        assert!(table.contains("| starts | GET, other kinds | 1.00 /s | "), "{table}");
        assert!(table.contains("| starts | WATCH, all kinds | 33.3 /s |  |  |\n"), "{table}");
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!((grouped("40"), grouped("5000")), ("40".to_owned(), "5,000".to_owned()));
    }

    #[test]
    fn the_page_has_a_place_for_the_tables() {
        let page = std::fs::read_to_string(Tree::locate().unwrap().path(PAGE)).unwrap();
        let once = inserted(&page, "new\n").unwrap();
        assert!(once.contains("new") && inserted(&once, "new\n").unwrap() == once);
    }
}
