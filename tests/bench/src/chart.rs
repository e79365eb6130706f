//! The picture of a run, beside the tables: what a packet costs over no filter, against the number of CIDRs.
//!
//! It has a background of its own, so that it can be read on light pages and dark ones, and says of what machine and run it is.

use std::path::Path;

use anyhow::Context as _;
use plotters::coord::Shift;
use plotters::prelude::{
    ChartBuilder, Circle, DrawingArea, IntoDrawingArea as _, IntoFont as _, IntoLogRange as _, LineSeries, PathElement,
    RGBColor, SVGBackend, ShapeStyle, Text, WHITE,
};

use crate::results::{Host, Results, Size};
use crate::rounds::Run;

const SIZE: (u32, u32) = (1000, 470);
const HEADER: u32 = 66;
const FOOTER: u32 = 52;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(0x22, 0x28, 0x30);
const FAINT: RGBColor = RGBColor(0xdd, 0xe1, 0xe6);

/// Somebody who was measured.
#[derive(Clone, Copy)]
struct Peer {
    name: &'static str,
    title: &'static str,
    colour: RGBColor,
}

/// Colours that people who see few colours tell apart (Okabe and Ito), ours first.
const PEERS: [Peer; 4] = [
    Peer { name: "egress", title: "egress", colour: RGBColor(0x00, 0x72, 0xb2) },
    Peer { name: "lpm", title: "kernel LPM trie, one lookup", colour: RGBColor(0xe6, 0x9f, 0x00) },
    Peer { name: "nft", title: "nftables interval set", colour: RGBColor(0x00, 0x9e, 0x73) },
    Peer { name: "ipset", title: "ipset hash:net", colour: RGBColor(0xcc, 0x79, 0xa7) },
];

impl Peer {
    fn style(&self) -> ShapeStyle {
        ShapeStyle::from(self.colour).stroke_width(if self.name == "egress" { 3 } else { 2 })
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A line: CIDRs and nanoseconds.
type Points = Vec<(f64, f64)>;

/// One of the three plots.
struct Plot {
    title: &'static str,
    lines: Vec<(Peer, Points)>,
}

impl Plot {
    fn new(title: &'static str, sizes: &[&Size], run: fn(&Size) -> &Run) -> Self {
        let points = |peer: &str| -> Points {
            #[expect(clippy::cast_precision_loss, reason = "at most a million")]
            let point = |size: &&Size| Some((size.cidrs as f64, run(size).costs.get(peer)?.marginal_median));
            sizes.iter().filter_map(point).collect()
        };
        let lines = PEERS.into_iter().map(|peer| (peer, points(peer.name)));
        Self { title, lines: lines.filter(|(_, points)| !points.is_empty()).collect() }
    }

    fn highest(&self) -> f64 {
        self.lines.iter().flat_map(|(_, points)| points).map(|(_, cost)| *cost).fold(0.0, f64::max)
    }
}

/// Draws the packets of a run; a run without packets leaves the file as it is.
pub(crate) fn write(path: &Path, results: &Results) -> anyhow::Result<()> {
    let mut sizes: Vec<&Size> = results.sizes.iter().filter(|size| !size.cold.costs.is_empty()).collect();
    if sizes.is_empty() {
        return Ok(());
    }
    sizes.sort_by_key(|size| size.cidrs);
    let mut text = String::new();
    draw(&mut text, &sizes, &results.host).context("drawing")?;
    std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
}

fn draw(text: &mut String, sizes: &[&Size], host: &Host) -> anyhow::Result<()> {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (header, rest) = root.split_vertically(HEADER);
    let (middle, footer) = rest.split_vertically(SIZE.1 - HEADER - FOOTER);
    let title = (FONT, 20).into_font().color(&INK);
    header.draw(&Text::new(
        "What a packet costs over no filter, by the number of CIDRs in the policies",
        (14, 14),
        title,
    ))?;
    let cold = [
        Plot::new("UDP through the stack, 65,536 destinations", sizes, |size| &size.cold),
        Plot::new("TCP through the stack, 65,536 destinations", sizes, |size| &size.cold_tcp),
    ];
    legend(&header, &cold[0])?;
    let nearest = Plot::new("TCP, one destination, in the nearest cache", sizes, |size| &size.hot_tcp);
    let highest = cold.iter().map(Plot::highest).fold(0.0, f64::max);
    let plots = cold.iter().map(|plot| (plot, highest)).chain([(&nearest, nearest.highest())]);
    for ((plot, highest), area) in plots.zip(middle.split_evenly((1, 3))) {
        panel(&area, plot, highest)?;
    }
    let small = (FONT, 12).into_font().color(&INK);
    let [first, second] = origin(host);
    footer.draw(&Text::new(first, (14, 10), small.clone()))?;
    footer.draw(&Text::new(second, (14, 28), small))?;
    root.present()?;
    Ok(())
}

/// Machine, date and command.
fn origin(host: &Host) -> [String; 2] {
    let first = format!(
        "Median over the rounds; tc programs over an empty one, nft and ipset over no filter. {} --page",
        host.command
    );
    let second = format!(
        "{}, revision {}: Linux {}, {} × {}, {} MiB.",
        host.date.split('T').next().unwrap_or_default(),
        host.revision,
        host.kernel,
        host.processors,
        host.processor,
        host.memory_mib
    );
    [first, second]
}

fn panel(area: &Area<'_>, plot: &Plot, highest: f64) -> anyhow::Result<()> {
    let cidrs = plot.lines.iter().flat_map(|(_, points)| points).map(|(cidrs, _)| *cidrs);
    let (least, most) = cidrs.fold((f64::INFINITY, 0.0), |(least, most): (f64, f64), at| (least.min(at), most.max(at)));
    let text = |size: u32| (FONT, size).into_font().color(&INK);
    let mut chart = ChartBuilder::on(area)
        .caption(plot.title, text(14))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(54)
        .build_cartesian_2d((least * 0.7..most * 1.5).log_scale(), 0.0..(highest * 1.12).max(1.0))?;
    chart
        .configure_mesh()
        .x_desc("CIDRs")
        .y_desc("nanoseconds per packet")
        .x_label_formatter(&|cidrs| short(*cidrs))
        .y_label_formatter(&|cost| format!("{cost:.0}"))
        .x_labels(5)
        .y_labels(8)
        .label_style(text(12))
        .axis_desc_style(text(12))
        .axis_style(INK)
        .bold_line_style(FAINT)
        .light_line_style(WHITE)
        .draw()?;
    for (peer, points) in &plot.lines {
        let style = peer.style();
        chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
        chart.draw_series(points.iter().map(|point| Circle::new(*point, style.stroke_width + 1, style.filled())))?;
    }
    Ok(())
}

/// Who is who, of the peers that were measured.
fn legend(area: &Area<'_>, plot: &Plot) -> anyhow::Result<()> {
    const LINE: i32 = 46;
    let mut left = 16;
    for (peer, _) in &plot.lines {
        area.draw(&PathElement::new([(left, LINE), (left + 24, LINE)], peer.style()))?;
        area.draw(&Text::new(peer.title, (left + 32, LINE - 7), (FONT, 13).into_font().color(&INK)))?;
        left += 50 + 7 * i32::try_from(peer.title.len())?;
    }
    Ok(())
}

/// `1k`, `1M`.
fn short(cidrs: f64) -> String {
    match cidrs {
        cidrs if cidrs >= 1e6 => format!("{:.0}M", cidrs / 1e6),
        cidrs if cidrs >= 1e3 => format!("{:.0}k", cidrs / 1e3),
        cidrs => format!("{cidrs:.0}"),
    }
}
