//! The tables that a person reads: aligned, coloured where standard output is a terminal that has colours.

mod control;

use std::path::Path;

use anyhow::Context as _;
use owo_colors::{OwoColorize as _, Stream, Style};

use crate::goals::{Figure, Goal, Met};
use crate::peers::egress::OnLpm;
use crate::results::{Compared, Dns, Lookups, Peer, Results, Size};
use crate::rounds::{Cost, Run};

/// A cell: its text and how it looks.
struct Cell(String, Style);

fn plain(text: impl Into<String>) -> Cell {
    Cell(text.into(), Style::new())
}

fn dim(text: impl Into<String>) -> Cell {
    Cell(text.into(), Style::new().dimmed())
}

/// What has been written so far.
struct Page(String);

impl Page {
    fn line(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn title(&mut self, text: &str) {
        self.line(&format!("\n{}", text.if_supports_color(Stream::Stdout, |text| text.bold())));
    }
}

/// Prints rows; every column but the first is aligned to the right.
fn print(page: &mut Page, headings: &[&str], rows: Vec<Vec<Cell>>, left: usize) {
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
        page.line(text.trim_end());
    }
}

/// The marker below which a page is written anew.
const RUN: &str = "\n## A run\n";

/// Writes the run into a page of the documentation, below its heading.
pub(crate) fn write_page(path: &Path, results: &Results) -> anyhow::Result<()> {
    let page = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let (above, _) = page.split_once(RUN).with_context(|| format!("{} has no heading for a run", path.display()))?;
    let host = &results.host;
    let [before, after] = host.load;
    let text = owo_colors::with_override(false, || text(results));
    let page = format!(
        "{above}{RUN}\n`{}` at revision {}, {}: Linux {}, {} × {}, {} MiB, load average {before} before and \
         {after} after, {:.0} s.{}\n\n```text\n{}\n```\n",
        host.command,
        host.revision,
        host.date,
        host.kernel,
        host.processors,
        host.processor,
        host.memory_mib,
        host.seconds,
        other_load(results),
        text.trim()
    );
    std::fs::write(path, page).with_context(|| format!("writing {}", path.display()))
}

fn other_load(results: &Results) -> &'static str {
    // The benchmark itself keeps one processor busy.
    if results.host.load.iter().any(|load| *load > 2.0) { " Other work ran at the same time." } else { "" }
}

/// Everything.
pub(crate) fn text(results: &Results) -> String {
    let mut page = Page(String::new());
    all(&mut page, results);
    page.0
}

fn all(page: &mut Page, results: &Results) {
    stages(page, results);
    compiler(page, results);
    if !results.sizes.is_empty() {
        packets_and_policies(page, results);
    }
    if let Some(control) = &results.control {
        control::tables(page, control);
    }
    single(page, results);
    goals(page, &results.goals);
    for (name, why) in &results.absent {
        page.line(&format!("  {name} is not on this machine: {why}"));
    }
}

fn packets_and_policies(page: &mut Page, results: &Results) {
    page.title("Packets: nanoseconds per packet");
    page.line(
        "  cost over the floor (`none` for tc programs, `bare` for nft and ipset): least of all rounds, and median",
    );
    let headings = ["CIDRs", "", "peer", "cold", "over floor", "median", "hot", "over floor", "median", "verdicts"];
    print(page, &headings, results.sizes.iter().flat_map(packets).collect(), 3);
    for size in results.sizes.iter().filter(|size| !size.hot.costs.is_empty()) {
        let runs = [
            ("cold UDP", &size.cold),
            ("cold TCP", &size.cold_tcp),
            ("hot UDP", &size.hot),
            ("hot TCP", &size.hot_tcp),
        ];
        for (regime, run) in runs {
            drift(page, &size.label, regime, run);
        }
    }
    page.title("Policies: milliseconds");
    print(
        page,
        &["CIDRs", "peer", "full apply", "one rule, to first packet", "memory", "per CIDR"],
        results.sizes.iter().flat_map(policies).collect(),
        2,
    );
    parts(page, results);
}

fn drift(page: &mut Page, label: &str, regime: &str, run: &Run) {
    let text = format!(
        "  {label} {regime}: none before {:.1}, after {:.1}, drift {:.1} %",
        run.none_before,
        run.none_after,
        run.drift * 100.0
    );
    if run.rejected {
        let text = format!("{text}: REJECTED, more than 3 %; something else ran");
        page.line(&text.if_supports_color(Stream::Stdout, |text| text.red()).to_string());
    } else {
        page.line(&text.if_supports_color(Stream::Stdout, |text| text.dimmed()).to_string());
    }
}

fn packets(size: &Size) -> Vec<Vec<Cell>> {
    [("UDP", &size.cold, &size.hot), ("TCP", &size.cold_tcp, &size.hot_tcp)]
        .into_iter()
        .flat_map(|(kind, cold, hot)| packets_of(size, kind, cold, hot))
        .collect()
}

fn packets_of(size: &Size, kind: &str, cold: &Run, hot: &Run) -> Vec<Vec<Cell>> {
    let names = ["bare", "none", "egress", OnLpm::NAME, "lpm", "nft", "ipset"];
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

fn parts(page: &mut Page, results: &Results) {
    page.title("Our apply, in parts: milliseconds");
    let row = |size: &Size| {
        let stages = [size.stages.rules, size.stages.compile, size.stages.enforce, size.stages.after];
        let mut row = vec![dim(&size.label), milliseconds(size.read_ms)];
        row.extend(stages.map(milliseconds));
        row.extend([
            plain(format!("{} KiB", size.memory.table / 1024)),
            plain(format!("{} KiB", size.memory.description / 1024)),
        ]);
        row
    };
    let headings = ["CIDRs", "(read files)", "order rules", "compile", "kernel", "(after)", "table", "rules' texts"];
    print(page, &headings, results.sizes.iter().map(row).collect(), 1);
}

fn compiler(page: &mut Page, results: &Results) {
    if results.compiler.is_empty() {
        return;
    }
    page.title("The compiler alone: million instructions of the processor, and milliseconds");
    let mut rows = Vec::new();
    for size in &results.compiler {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let millions = |count: u64| plain(format!("{:.1}", count as f64 / 1e6));
        let dash = || dim("–");
        let mut row = vec![dim(&size.label)];
        for stage in &size.stages {
            row.extend([stage.instructions.map_or_else(dash, millions), milliseconds(stage.milliseconds)]);
        }
        let all: Option<u64> = size.stages.iter().map(|stage| stage.instructions).sum();
        let each = |all: u64| plain((all / size.rules.max(1) as u64).to_string());
        row.extend([all.map_or_else(dash, each), plain(format!("{} MiB", size.peak_kib >> 10))]);
        rows.push(row);
    }
    let stages = results.compiler.iter().take(1).flat_map(|size| &size.stages).flat_map(|stage| [stage.name, "ms"]);
    let headings: Vec<&str> = std::iter::once("rules").chain(stages).chain(["per rule", "peak"]).collect();
    print(page, &headings, rows, 1);
}

fn stages(page: &mut Page, results: &Results) {
    if results.stages.is_empty() {
        return;
    }
    page.title("Stages: nanoseconds, hot, least of all rounds");
    let rows = results.stages.iter().flat_map(|(title, stages)| {
        stages.iter().map(|stage| {
            vec![
                dim(*title),
                plain(stage.packet),
                dim(stage.program),
                plain(stage.adds),
                number(stage.more, "+"),
                number(stage.total, ""),
            ]
        })
    });
    print(page, &["", "packet", "program", "what it has more", "more", "all"], rows.collect(), 4);
}

fn single(page: &mut Page, results: &Results) {
    page.title("Once");
    page.line(&format!(
        "  load and verify all programs   {:.0} ms (least {:.0}); {} programs, {} instructions walked",
        results.load.median,
        results.load.min,
        results.programs.len(),
        results.programs.iter().map(|program| u64::from(program.verified_instructions)).sum::<u64>(),
    ));
    if let Some(swap) = results.swap {
        page.line(&format!(
            "  {} swaps under a sender        {} of {} packets wrong, {:.1} ms each",
            swap.swaps, swap.wrong, swap.packets, swap.switch_ms
        ));
    }
    if let Some(traffic) = &results.traffic {
        let row = |name: &str, unit: &str, found: &Compared| {
            let ([free, free_median], [judged, judged_median]) = (found.free, found.judged);
            format!(
                "  {name:<30} free {free_median:.0} ns {unit} (least {free:.0}), 10k rules {judged_median:.0} (least {judged:.0}), \
                 pair by pair {:.3}; two without rules {:.3}",
                found.ratio, found.control
            )
        };
        page.line(&row("a pod sends UDP", "a packet", &traffic.udp));
        page.line(&row("a pod connects, a byte each way", "a connection", &traffic.connections));
        page.line(&row("a pod streams by TCP", "a KiB", &traffic.stream));
    }
    if let Some(connect) = results.connect {
        let ([denied, denied_median], [loopback, loopback_median]) = (connect.denied_us, connect.loopback_us);
        page.line(&format!(
            "  connect()                      refused {denied_median:.1} µs (least {denied:.1}), loopback \
             {loopback_median:.1} µs (least {loopback:.1})"
        ));
    }
    if let Some(Dns { learn: [learn, learn_median], query: [query, query_median], none: [none, none_median] }) =
        results.dns
    {
        page.line(&format!(
            "  DNS, a packet at a time        reply learned {learn_median:.0} ns (least {learn:.0}), query remembered \
             {query_median:.0} ns (least {query:.0}), empty program {none_median:.0} ns (least {none:.0})"
        ));
    }
    if let Some(Lookups { ways }) = &results.lookups {
        page.line("");
        let [title, rest] = ["lookups of a pod, one at a time: µs", "32 at a time, per second"];
        page.line(&format!("  {title:<40} {:>16} {:>8} {rest:>29}", "p50, best round", "p99"));
        for way in ways {
            page.line(&format!("  {:<40} {:>16.1} {:>8.1} {:>29.0}", way.name, way.p50_us, way.p99_us, way.per_second));
        }
    }
    if let Some(race) = &results.race {
        page.line(&format!(
            "  {} fresh names, {} connections right after their lookup: {} refused, {} failed otherwise",
            race.names, race.connects, race.refused, race.failed
        ));
    }
}

fn goals(page: &mut Page, goals: &[Goal]) {
    page.title("Goals");
    let row = |goal: &Goal| {
        let figures: Vec<String> = goal.figures.iter().map(figure).collect();
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
    print(page, &["", "goal", "figure", "must", "stretch", "", ""], goals.iter().map(row).collect(), 7);
}

fn figure(figure: &Figure) -> String {
    let rejected = if figure.rejected { ", rejected" } else { "" };
    format!("{} ({}{rejected})", significant(figure.value), figure.of)
}

fn significant(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 0.095 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
