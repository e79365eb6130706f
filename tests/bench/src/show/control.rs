//! The tables of the control path.

use super::{Cell, Page, dim, milliseconds, plain, print};
use crate::results::{Burst, Control, FilesApplied, Load, Many};

/// Everything that the agent was measured at.
pub(super) fn tables(page: &mut Page, control: &Control) {
    page.title("The agent, from a changed file to the first packet: milliseconds");
    let headings = ["CIDRs", "files", "all of them", "processor", "one rule", "least", "RSS"];
    print(page, &headings, control.files.iter().map(files).collect(), 1);
    page.title("The agent, pods that start in a burst: milliseconds");
    let headings = [
        "pods",
        "told of",
        "",
        "starting all",
        "first calls out",
        "judged by nobody: p50",
        "p99",
        "max",
        "until judged: p50",
        "p99",
        "max",
    ];
    print(page, &headings, control.bursts.iter().flat_map(burst).collect(), 3);
    if let Some(many) = &control.many {
        self::many(page, many);
    }
    page.title("What the agent takes");
    let headings = ["", "seconds", "processor", "RSS", "lookups per second", "refused"];
    print(page, &headings, control.loads.iter().map(load).collect(), 1);
}

fn mib(bytes: u64) -> Cell {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let mib = bytes as f64 / f64::from(1 << 20);
    plain(format!("{mib:.1} MiB"))
}

fn files(applied: &FilesApplied) -> Vec<Cell> {
    vec![
        dim(&applied.label),
        plain(applied.files.to_string()),
        milliseconds(applied.whole_ms),
        milliseconds(applied.processor_ms),
        milliseconds(applied.change.median),
        milliseconds(applied.change.min),
        mib(applied.rss_kib << 10),
    ]
}

fn burst(burst: &Burst) -> [Vec<Cell>; 2] {
    let told = if burst.told_before { "before they start" } else { "after all have started" };
    let firsts = format!("{} of {}", burst.first_calls_out, burst.pods);
    [("calls", burst.calls, plain(firsts)), ("packets", burst.packets, plain("–"))].map(|(what, window, firsts)| {
        let mut row =
            vec![plain(burst.pods.to_string()), plain(told), plain(what), milliseconds(burst.starting_ms), firsts];
        for spread in [window.unjudged, window.judged] {
            row.extend([spread.p50, spread.p99, spread.max].map(milliseconds));
        }
        row
    })
}

fn many(page: &mut Page, many: &Many) {
    page.title(&format!(
        "The agent, {} pods under {} policies of {} prefixes and one about all of them",
        many.pods, many.policies, many.prefixes
    ));
    let [calls, packets] = many.start_ms;
    page.line(&format!(
        "  a new agent, until the last pod is judged             calls {calls:.0} ms, packets {packets:.0} ms"
    ));
    page.line(&format!(
        "  a change of the policy about all, until the last one {:.0} ms (least {:.0})",
        many.change.median, many.change.min
    ));
    if let (Some(idle), Some(kernel)) = (many.idle, many.kernel) {
        page.line(&format!(
            "  kernel memory                                         {} KiB, of which {} KiB without any pod or policy",
            kernel >> 10,
            idle >> 10
        ));
    }
}

fn load(load: &Load) -> Vec<Cell> {
    let dash = || dim("–");
    vec![
        plain(&load.what),
        plain(format!("{:.1}", load.seconds)),
        plain(format!("{:.1} %", load.percent)),
        mib(load.rss_kib << 10),
        load.lookups_per_second.map_or_else(dash, |rate| plain(format!("{rate:.0}"))),
        load.stale.map_or_else(dash, |[refused, sent]| plain(format!("{refused} of {sent} packets"))),
    ]
}
