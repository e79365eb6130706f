//! The goals of the design, each a ratio inside one run, and whether this run met them. Nothing fails because of a figure.

use serde::Serialize;

use crate::peers::egress::OnLpm;
use crate::results::{Compared, Connect, Dns, Race, Results, Sharing, Size, Traffic};
use crate::rounds::{Cost, Run};

/// Whether a goal is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Met {
    /// Better than the stretch.
    Stretch,
    /// Better than what must be.
    Must,
    /// Worse.
    No,
    /// This run did not measure it.
    NotMeasured,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// What it is of.
    pub(crate) of: String,
    /// The ratio or count.
    pub(crate) value: f64,
    /// It is from a run that was rejected, and decides nothing.
    pub(crate) rejected: bool,
}

impl Figure {
    fn new(of: impl Into<String>, value: f64) -> Self {
        Self { of: of.into(), value, rejected: false }
    }
}

/// A goal with its figures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Goal {
    /// "P1".
    pub(crate) number: &'static str,
    /// What is compared.
    pub(crate) text: &'static str,
    /// The single figures.
    pub(crate) figures: Vec<Figure>,
    /// What must be reached, at most.
    pub(crate) must: f64,
    /// What would be better still.
    pub(crate) stretch: f64,
    /// Of the worst figure.
    pub(crate) met: Met,
    /// Why it was not measured, or what to know about the figure.
    pub(crate) note: String,
}

type Figures = Vec<Figure>;

fn goal(number: &'static str, text: &'static str, [must, stretch]: [f64; 2], figures: Figures, note: &str) -> Goal {
    let counted: Vec<f64> = figures.iter().filter(|figure| !figure.rejected).map(|figure| figure.value).collect();
    let worst = counted.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let met = match worst {
        _ if counted.is_empty() || counted.iter().any(|figure| figure.is_nan()) => Met::NotMeasured,
        worst if worst <= stretch => Met::Stretch,
        worst if worst <= must => Met::Must,
        _ => Met::No,
    };
    let note = match (figures.is_empty(), counted.is_empty(), note) {
        (true, _, "") => "this run had not the sizes or peers for it",
        (false, true, _) => "every run was rejected",
        _ => note,
    };
    Goal { number, text, figures, must, stretch, met, note: note.to_owned() }
}

fn cost(run: &Run, name: &str) -> Cost {
    const NONE: Cost = Cost { min: f64::NAN, median: f64::NAN, marginal_min: f64::NAN, marginal_median: f64::NAN };
    run.costs.get(name).copied().unwrap_or(NONE)
}

/// The cold and the hot run of each kind of packet.
fn kinds(size: &Size) -> [(&'static str, &Run, &Run); 2] {
    [("UDP", &size.cold, &size.hot), ("TCP", &size.cold_tcp, &size.hot_tcp)]
}

/// Marginal cost of ours over that of `peer`, cold. A peer that judges wrongly is compared with nobody.
fn against(size: &Size, peer: &str) -> Figures {
    let right = |name: &str| size.peers.get(name).is_some_and(|peer| peer.wrong == 0);
    let measured = size.cold.costs.contains_key(peer) && right(peer) && right("egress");
    let of = |run: &Run| cost(run, "egress").marginal_median / cost(run, peer).marginal_median;
    let figures =
        kinds(size).map(|(kind, cold, _)| Figure { of: kind.to_owned(), value: of(cold), rejected: cold.rejected });
    figures.into_iter().filter(|_| measured).collect()
}

fn named(name: &str, figures: Figures) -> Figures {
    figures.into_iter().map(|figure| Figure { of: format!("{name} {}", figure.of), ..figure }).collect()
}

fn at<'a>(results: &'a Results, labels: &'a [&str]) -> impl Iterator<Item = &'a Size> {
    results.sizes.iter().filter(|size| labels.contains(&size.label.as_str()))
}

/// Sizes of which packets were measured.
fn with_packets<'a>(results: &'a Results, labels: &'a [&str]) -> impl Iterator<Item = &'a Size> {
    at(results, labels).filter(|size| !size.hot.costs.is_empty())
}

/// Ours against the kernel's LPM trie, asked by a program that does nothing else, and by ours.
fn against_lpm(number: &'static str, limits: [f64; 2], results: &Results, labels: &[&str]) -> [Goal; 2] {
    let peers = [("lpm", "m(ours) / m(kernel LPM), cold"), (OnLpm::NAME, "likewise, with the LPM trie in our program")];
    peers.map(|(peer, text)| {
        let figures = with_packets(results, labels).flat_map(|size| named(&size.label, against(size, peer))).collect();
        goal(number, text, limits, figures, "")
    })
}

fn against_filters(results: &Results) -> Figures {
    let of = |size| ["nft", "ipset"].map(|peer| named(peer, against(size, peer)));
    with_packets(results, &["100k"]).flat_map(of).flatten().collect()
}

fn hot_ratio(results: &Results) -> Figures {
    let of = |(kind, _, hot): (&str, &Run, &Run)| Figure {
        of: kind.to_owned(),
        value: cost(hot, "egress").min / cost(hot, "none").min,
        rejected: hot.rejected,
    };
    with_packets(results, &["10k"]).flat_map(|size| kinds(size).map(of)).collect()
}

fn hot_growth(results: &Results) -> Figures {
    let (Some(small), Some(large)) = (with_packets(results, &["1k"]).next(), with_packets(results, &["100k"]).next())
    else {
        return Figures::new();
    };
    let of = |((kind, _, small), (_, _, large)): ((&str, &Run, &Run), (&str, &Run, &Run))| Figure {
        of: kind.to_owned(),
        value: cost(large, "egress").marginal_min / cost(small, "egress").marginal_min,
        rejected: small.rejected || large.rejected,
    };
    kinds(small).into_iter().zip(kinds(large)).map(of).collect()
}

/// Ours over nft's, of one timing.
fn over_nft(results: &Results, timing: impl Fn(&Size, &str) -> Option<f64>) -> Figures {
    let of = |size: &Size| Some(Figure::new(size.label.clone(), timing(size, "egress")? / timing(size, "nft")?));
    at(results, &["100k"]).filter_map(of).collect()
}

fn memory(results: &Results) -> Figures {
    let of = |size: &Size| {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let ratio = size.peers.get("egress")?.memory?.saturating_sub(size.memory.description) as f64
            / size.peers.get("lpm")?.memory? as f64;
        Some(Figure::new(size.label.clone(), ratio))
    };
    at(results, &["100k", "1M"]).filter_map(of).collect()
}

/// Every goal.
pub(crate) fn all(results: &Results) -> Vec<Goal> {
    let update = |size: &Size, peer: &str| Some(size.peers.get(peer)?.update.as_ref()?.median);
    let apply = |size: &Size, peer: &str| size.peers.get(peer).map(|peer| peer.apply.min);
    #[expect(clippy::cast_precision_loss, reason = "a count of packets")]
    let swap = results.swap.iter().map(|swap| Figure::new(format!("of {}", swap.packets), swap.wrong as f64)).collect();
    let load = vec![Figure::new("ms", results.load.median)];
    let connect = |found: &Connect| Figure::new("median", found.denied_us[1] / found.loopback_us[1]);
    let learning = |found: &Dns| Figure::new("median", found.learn[1] / found.none[1]);
    #[expect(clippy::cast_precision_loss, reason = "a count of connections")]
    let failed = |race: &Race| {
        Figure::new(
            format!("of {}", race.connects),
            (race.refused + race.failed + 2 * race.names - race.connects) as f64,
        )
    };
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let shared =
        |found: &Sharing| Figure::new(format!("of {} KiB", found.few >> 10), found.many as f64 / found.few as f64);
    let sharing = results.sharing.iter().map(shared).collect();
    let traffic = |part: fn(&Traffic) -> &Compared| {
        let of = |found: &Compared| format!("median of pairs; {:.3} of two without rules", found.control);
        results.traffic.iter().map(part).map(|found| Figure::new(of(found), found.ratio)).collect()
    };
    let mut goals = Vec::new();
    goals.extend(against_lpm("P1", [0.45, 0.30], results, &["100k", "1M"]));
    goals.extend(against_lpm("P2", [0.60, 0.30], results, &["1k", "10k"]));
    goals.extend([
        goal("P3", "tc program / empty program, hot, 10k", [3.5, 2.7], hot_ratio(results), ""),
        goal("P4", "m(ours) hot, 100k / 1k", [2.5, 1.8], hot_growth(results), ""),
        goal("P5", "m(ours) / nft, ipset, cold, 100k", [0.45, 0.30], against_filters(results), ""),
        goal(
            "P6",
            "one rule changed, to first packet / nft add element, 100k",
            [1.0 / 200.0, 1.0 / 1000.0],
            over_nft(results, update),
            "a rule in front of all others",
        ),
        goal("P7", "full apply, compile included / nft -f, 100k", [0.35, 0.15], over_nft(results, apply), ""),
        goal("P8", "packets that see neither version during swaps", [0.0, 0.0], swap, ""),
        goal("P9", "kernel memory per CIDR / LPM trie", [0.6, 0.35], memory(results), "without the rules' texts"),
        goal("P10", "memory, 1,000 pods on 10 policies / 10 pods", [1.1, 1.02], sharing, ""),
        goal("P11", "DNS learn / empty program", [14.0, 10.0], results.dns.iter().map(learning).collect(), ""),
        goal("P12", "failed connects right after a lookup", [0.0, 0.0], results.race.iter().map(failed).collect(), ""),
        goal("P13", "load and verify all programs, ms", [500.0, 200.0], load, ""),
        goal("P14", "UDP packets/s, without / with 10k rules", [1.0 / 0.92, 1.0 / 0.95], traffic(|all| &all.udp), ""),
        goal("P14", "TCP connections/s, likewise", [1.0 / 0.95, 1.0 / 0.98], traffic(|all| &all.connections), ""),
        goal("P14", "TCP stream, likewise", [1.0 / 0.98, 1.0 / 0.99], traffic(|all| &all.stream), ""),
        goal("P15", "denied connect / loopback connect", [1.0, 0.2], results.connect.iter().map(connect).collect(), ""),
    ]);
    goals
}
