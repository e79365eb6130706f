//! The tables that a person reads, on standard output: aligned, coloured where the terminal has colours.

use std::io::Write as _;

use owo_colors::{OwoColorize as _, Stream, Style};

use crate::goals::{Goal, Met};
use crate::results::{Peer, Results, Size};
use crate::rounds::{Cost, Run};

/// A cell: its text and how it looks.
struct Cell(String, Style);

fn plain(text: impl Into<String>) -> Cell {
    Cell(text.into(), Style::new())
}

fn dim(text: impl Into<String>) -> Cell {
    Cell(text.into(), Style::new().dimmed())
}

fn line(text: &str) {
    // A closed pipe (`| head`) is no reason to fail.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

fn title(text: &str) {
    line(&format!("\n{}", text.if_supports_color(Stream::Stdout, |text| text.bold())));
}

/// Prints rows; every column but the first is aligned to the right.
fn print(headings: &[&str], rows: Vec<Vec<Cell>>, left: usize) {
    let mut all = vec![headings.iter().map(|heading| dim(*heading)).collect::<Vec<Cell>>()];
    all.extend(rows);
    let width = |column: usize| all.iter().filter_map(|row| row.get(column)).map(|cell| cell.0.chars().count()).max();
    let widths: Vec<usize> = (0..headings.len()).map(|column| width(column).unwrap_or(0)).collect();
    for row in &all {
        let mut text = String::from(" ");
        for (column, (Cell(content, style), width)) in row.iter().zip(&widths).enumerate() {
            let padding = " ".repeat(width - content.chars().count());
            let painted = content.if_supports_color(Stream::Stdout, |content| content.style(*style)).to_string();
            let (first, second) = if column < left { (&painted, &padding) } else { (&padding, &painted) };
            text.extend([" ", first, second, " "]);
        }
        line(text.trim_end());
    }
}

/// Everything.
pub(crate) fn results(results: &Results) {
    title("Packets: nanoseconds per packet");
    line("  cost over the floor (`none` for tc programs, `bare` for nft and ipset): least of all rounds, and median");
    let headings = ["CIDRs", "", "peer", "cold", "over floor", "median", "hot", "over floor", "median", "verdicts"];
    print(&headings, results.sizes.iter().flat_map(packets).collect(), 3);
    for size in &results.sizes {
        let runs = [
            ("cold UDP", &size.cold),
            ("cold TCP", &size.cold_tcp),
            ("hot UDP", &size.hot),
            ("hot TCP", &size.hot_tcp),
        ];
        for (regime, run) in runs {
            drift(&size.label, regime, run);
        }
    }
    title("Policies: milliseconds");
    print(
        &["CIDRs", "peer", "full apply", "one rule, to first packet", "memory", "per CIDR"],
        results.sizes.iter().flat_map(policies).collect(),
        2,
    );
    parts(results);
    single(results);
    goals(&results.goals);
    for (name, why) in &results.absent {
        line(&format!("  {name} is not on this machine: {why}"));
    }
}

fn drift(label: &str, regime: &str, run: &Run) {
    let text = format!(
        "  {label} {regime}: none before {:.1}, after {:.1}, drift {:.1} %",
        run.none_before,
        run.none_after,
        run.drift * 100.0
    );
    if run.rejected {
        let text = format!("{text}: REJECTED, more than 3 % twice; something else ran");
        line(&text.if_supports_color(Stream::Stdout, |text| text.red()).to_string());
    } else {
        line(&text.if_supports_color(Stream::Stdout, |text| text.dimmed()).to_string());
    }
}

fn packets(size: &Size) -> Vec<Vec<Cell>> {
    [("UDP", &size.cold, &size.hot), ("TCP", &size.cold_tcp, &size.hot_tcp)]
        .into_iter()
        .flat_map(|(kind, cold, hot)| packets_of(size, kind, cold, hot))
        .collect()
}

fn packets_of(size: &Size, kind: &str, cold: &Run, hot: &Run) -> Vec<Vec<Cell>> {
    let names = ["bare", "none", "egress", "lpm", "nft", "ipset"];
    let row = |name: &&str| {
        let (cold, hot) = (cold.costs.get(name)?, hot.costs.get(name));
        let mut row = vec![dim(&size.label), dim(kind), peer_name(name)];
        row.extend(three(Some(cold), *name != "bare"));
        row.extend(three(hot, *name != "none"));
        row.push(size.peers.get(*name).map_or_else(|| dim("–"), verdicts));
        Some(row)
    };
    names.iter().filter_map(row).collect()
}

/// Least, least over the floor, median over the floor.
fn three(cost: Option<&Cost>, has_floor: bool) -> [Cell; 3] {
    match cost {
        Some(cost) if has_floor => {
            [number(cost.min, ""), number(cost.marginal_min, "+"), number(cost.marginal_median, "+")]
        }
        Some(cost) => [number(cost.min, ""), dim("–"), dim("–")],
        None => [dim("–"), dim("–"), dim("–")],
    }
}

fn peer_name(name: &str) -> Cell {
    if name == "egress" { Cell(name.to_owned(), Style::new().bold()) } else { plain(name) }
}

fn number(value: f64, sign: &str) -> Cell {
    plain(if value < 0.0 { format!("{value:.0}") } else { format!("{sign}{value:.0}") })
}

fn verdicts(peer: &Peer) -> Cell {
    match (peer.verdicts.is_empty(), peer.wrong) {
        (true, _) => dim("–"),
        (false, 0) => Cell(peer.verdicts.chars().take(8).collect(), Style::new().green()),
        (false, wrong) => Cell(format!("{wrong} wrong"), Style::new().red()),
    }
}

fn policies(size: &Size) -> Vec<Vec<Cell>> {
    let names = ["egress", "lpm", "nft", "ipset"];
    let row = |name: &&str| {
        let peer = size.peers.get(*name)?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let per_cidr = |bytes: u64| bytes as f64 / size.cidrs as f64;
        Some(vec![
            dim(&size.label),
            peer_name(name),
            milliseconds(peer.apply.min),
            peer.update.as_ref().map_or_else(|| dim("–"), |update| milliseconds(update.median)),
            peer.memory.map_or_else(|| dim("–"), |bytes| plain(format!("{} KiB", bytes / 1024))),
            peer.memory.map_or_else(|| dim("–"), |bytes| plain(format!("{:.0} B", per_cidr(bytes)))),
        ])
    };
    names.iter().filter_map(row).collect()
}

fn milliseconds(value: f64) -> Cell {
    plain(match value {
        value if value < 1.0 => format!("{value:.4}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    })
}

fn parts(results: &Results) {
    title("Our apply, in parts: milliseconds");
    let row = |size: &Size| {
        let stages = [size.stages.rules, size.stages.compile, size.stages.describe, size.stages.apply];
        let mut row = vec![dim(&size.label), milliseconds(size.read_ms)];
        row.extend(stages.map(milliseconds));
        row.extend([
            plain(format!("{} KiB", size.memory.table / 1024)),
            plain(format!("{} KiB", size.memory.description / 1024)),
        ]);
        row
    };
    let headings = ["CIDRs", "(read files)", "order rules", "compile", "describe", "kernel", "table", "rules' texts"];
    print(&headings, results.sizes.iter().map(row).collect(), 1);
}

fn single(results: &Results) {
    title("Once");
    line(&format!(
        "  load and verify all programs   {:.0} ms (least {:.0}); {} programs, {} instructions walked",
        results.load.median,
        results.load.min,
        results.programs.len(),
        results.programs.iter().map(|program| u64::from(program.verified_instructions)).sum::<u64>(),
    ));
    if let Some(swap) = results.swap {
        line(&format!(
            "  {} swaps under a sender        {} of {} packets wrong, {:.1} ms each",
            swap.swaps, swap.wrong, swap.packets, swap.switch_ms
        ));
    }
    if let Some(connect) = results.connect {
        let ([denied, denied_median], [loopback, loopback_median]) = (connect.denied_us, connect.loopback_us);
        line(&format!(
            "  connect()                      refused {denied_median:.1} µs (least {denied:.1}), loopback \
             {loopback_median:.1} µs (least {loopback:.1})"
        ));
    }
}

fn goals(goals: &[Goal]) {
    title("Goals");
    let row = |goal: &Goal| {
        let figures: Vec<String> =
            goal.figures.iter().map(|(of, figure)| format!("{} ({of})", significant(*figure))).collect();
        let met = match goal.met {
            Met::Stretch => Cell("met, stretch".to_owned(), Style::new().green().bold()),
            Met::Must => Cell("met".to_owned(), Style::new().green()),
            Met::No => Cell("not met".to_owned(), Style::new().yellow()),
            Met::NotMeasured => dim("not measured yet"),
        };
        vec![
            plain(goal.number),
            plain(goal.text),
            plain(figures.join(", ")),
            dim(format!("≤ {}", significant(goal.must))),
            dim(format!("≤ {}", significant(goal.stretch))),
            met,
            dim(&goal.note),
        ]
    };
    print(&["", "goal", "figure", "must", "stretch", "", ""], goals.iter().map(row).collect(), 7);
}

fn significant(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 0.095 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
