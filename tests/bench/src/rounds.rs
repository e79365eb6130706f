//! Interleaved rounds: A B C, B C A, C A B, … so that whatever else the machine does meets everybody alike.
//!
//! Each figure is the minimum and the median over the rounds; a marginal cost is the difference to the floor of the same run (of the
//! minima, and the median of the differences round by round). A run in which the empty program drifted is measured again, once,
//! unless it is a quick one.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

use crate::kernel;
use crate::lab::{INTERFACE, Kind, Lab, Traffic};
use crate::mix::PORT;

/// The empty program may drift this much between the beginning and the end of a run.
pub(crate) const MOST_DRIFT: f64 = 0.03;
/// Rounds of the empty program before and after each destination of the hot regime.
const HOT_FRAME: usize = 5;

/// How long and how often.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Effort {
    /// Rounds.
    pub(crate) rounds: usize,
    /// Packets in a round of the cold regime.
    pub(crate) packets: usize,
    /// Runs in a round of the hot regime.
    pub(crate) runs: u32,
    /// Rounds of the empty program before and after a run of the cold regime, to see whether it stayed where it was.
    pub(crate) frame: usize,
    /// Measure again, once, if it did not.
    pub(crate) again: bool,
    /// Repetitions of an apply.
    pub(crate) applies: usize,
    /// Repetitions of an update.
    pub(crate) updates: usize,
}

/// Nanoseconds per packet.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Cost {
    /// Least of all rounds.
    pub(crate) min: f64,
    /// Median of all rounds.
    pub(crate) median: f64,
    /// Least, less the least of the floor.
    pub(crate) marginal_min: f64,
    /// Median of the differences to the floor in the same round.
    pub(crate) marginal_median: f64,
}

/// One run of rounds.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Run {
    /// By name of the peer.
    pub(crate) costs: BTreeMap<&'static str, Cost>,
    /// The empty program, before and after: least nanoseconds.
    pub(crate) none_before: f64,
    /// See `none_before`.
    pub(crate) none_after: f64,
    /// How far these two are apart, as a part of the first.
    pub(crate) drift: f64,
    /// Whether the drift was too large, also the second time: the figures are to be doubted.
    pub(crate) rejected: bool,
}

/// Someone who takes part in the rounds.
pub(crate) struct Entrant<'a> {
    /// Name.
    pub(crate) name: &'static str,
    /// Name of the floor that is subtracted; none for a floor.
    pub(crate) floor: Option<&'static str>,
    /// Where its packets are sent.
    pub(crate) lab: &'a Lab,
    /// What runs there, if the lab has a link.
    pub(crate) program: Option<BorrowedFd<'a>>,
}

/// Keeps the calling thread on the last processor while it lives.
pub(crate) struct Pinned(CpuSet);

impl Pinned {
    /// Pins.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let before = sched_getaffinity(Pid::from_raw(0))?;
        let last = (0..CpuSet::count()).rev().find(|cpu| before.is_set(*cpu).unwrap_or(false)).unwrap_or(0);
        let mut one = CpuSet::new();
        one.set(last)?;
        sched_setaffinity(Pid::from_raw(0), &one)?;
        Ok(Self(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = sched_setaffinity(Pid::from_raw(0), &self.0);
    }
}

/// Sorts; the middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The least one.
pub(crate) fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// Nanoseconds that the calling thread has run, in the kernel too: being preempted does not count.
pub(crate) fn thread_time() -> anyhow::Result<f64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(std::time::Duration::from(now).as_secs_f64() * 1e9)
}

type Samples = BTreeMap<&'static str, Vec<f64>>;

fn costs(samples: &Samples, floors: &BTreeMap<&'static str, Option<&'static str>>) -> BTreeMap<&'static str, Cost> {
    let cost = |name: &'static str, values: &Vec<f64>| {
        let floor = floors.get(name).copied().flatten().and_then(|floor| samples.get(floor));
        let mut cost = Cost { min: least(values), median: median(values), ..Cost::default() };
        if let Some(floor) = floor {
            let differences: Vec<f64> = values.iter().zip(floor).map(|(value, floor)| value - floor).collect();
            cost.marginal_min = cost.min - least(floor);
            cost.marginal_median = median(&differences);
        }
        cost
    };
    samples.iter().map(|(name, values)| (*name, cost(name, values))).collect()
}

/// Measures until the empty program stayed where it was, at most twice; once if it is not to be measured `again`.
fn steady(again: bool, mut once: impl FnMut() -> anyhow::Result<Run>) -> anyhow::Result<Run> {
    let mut best = once()?;
    if best.drift > MOST_DRIFT && again {
        crate::progress::note(&format!("the floor drifted {:.1} %, measuring again", best.drift * 100.0));
        let second = once()?;
        if second.drift < best.drift {
            best = second;
        }
    }
    best.rejected = best.drift > MOST_DRIFT;
    Ok(best)
}

fn finish(samples: &Samples, entrants: &[Entrant<'_>], before: &[f64], after: &[f64]) -> Run {
    let floors = entrants.iter().map(|entrant| (entrant.name, entrant.floor)).collect();
    let (none_before, none_after) = (least(before), least(after));
    let drift = (none_after - none_before).abs() / none_before;
    Run { costs: costs(samples, &floors), none_before, none_after, drift, rejected: false }
}

/// The cold regime: every packet through the real stack, to another destination.
pub(crate) fn cold(
    entrants: &[Entrant<'_>],
    link: &OwnedFd,
    kind: Kind,
    destinations: &[Ipv4Addr],
    effort: Effort,
) -> anyhow::Result<Run> {
    let _pinned = Pinned::new()?;
    let mut traffic = Traffic::new(kind, destinations);
    let mut position = 0;
    let mut round = |entrant: &Entrant<'_>, packets: usize| -> anyhow::Result<f64> {
        if let Some(program) = entrant.program {
            kernel::exchange(link, program)?;
        }
        let (nanoseconds, next) = traffic.send(entrant.lab, position, packets)?;
        position = next;
        Ok(nanoseconds)
    };
    let none = entrants.iter().find(|entrant| entrant.name == "none").ok_or_else(|| anyhow::anyhow!("no floor"))?;
    // One round each, so that nobody is first.
    for entrant in entrants {
        round(entrant, effort.packets)?;
    }
    steady(effort.again, || {
        let before = (0..effort.frame).map(|_| round(none, effort.packets)).collect::<Result<Vec<_>, _>>()?;
        let mut samples = Samples::new();
        for turn in 0..effort.rounds {
            for index in 0..entrants.len() {
                let entrant = &entrants[(turn + index) % entrants.len()];
                samples.entry(entrant.name).or_default().push(round(entrant, effort.packets)?);
            }
        }
        let after = (0..effort.frame).map(|_| round(none, effort.packets)).collect::<Result<Vec<_>, _>>()?;
        Ok(finish(&samples, entrants, &before, &after))
    })
}

/// The hot regime: `BPF_PROG_TEST_RUN` on one packet at a time. Eight destinations, since a trie is deeper for some than for others;
/// a figure is the mean over them.
pub(crate) fn hot(
    entrants: &[Entrant<'_>],
    kind: Kind,
    destinations: &[Ipv4Addr],
    effort: Effort,
) -> anyhow::Result<Run> {
    let _pinned = Pinned::new()?;
    let once = || {
        let mut runs = Vec::new();
        for destination in destinations.iter().take(8) {
            runs.push(hot_destination(entrants, &frame(kind, *destination), effort)?);
        }
        Ok(mean(&runs))
    };
    steady(effort.again, once)
}

fn hot_destination(entrants: &[Entrant<'_>], packet: &[u8], effort: Effort) -> anyhow::Result<Run> {
    let round = |entrant: &Entrant<'_>| -> anyhow::Result<f64> {
        let program = entrant.program.ok_or_else(|| anyhow::anyhow!("{} has no program", entrant.name))?;
        let started = thread_time()?;
        let returned = kernel::test_run(program, packet, INTERFACE, effort.runs)?.returned;
        let nanoseconds = (thread_time()? - started) / f64::from(effort.runs);
        let passed = returned == crate::program::PASS.cast_unsigned();
        anyhow::ensure!(passed, "{} returned {returned} for a packet that is allowed", entrant.name);
        Ok(nanoseconds)
    };
    let none = entrants.iter().find(|entrant| entrant.name == "none").ok_or_else(|| anyhow::anyhow!("no floor"))?;
    let frame = |count: usize| (0..count).map(|_| round(none)).collect::<Result<Vec<_>, _>>();
    let before = frame(HOT_FRAME)?;
    let mut samples = Samples::new();
    for turn in 0..effort.rounds {
        for index in 0..entrants.len() {
            let entrant = &entrants[(turn + index) % entrants.len()];
            samples.entry(entrant.name).or_default().push(round(entrant)?);
        }
    }
    Ok(finish(&samples, entrants, &before, &frame(HOT_FRAME)?))
}

/// The mean over several runs.
fn mean(runs: &[Run]) -> Run {
    #[expect(clippy::cast_precision_loss, reason = "eight")]
    let count = runs.len() as f64;
    let of = |figure: &dyn Fn(&Run) -> f64| runs.iter().map(figure).sum::<f64>() / count;
    let mut mean =
        Run { none_before: of(&|run| run.none_before), none_after: of(&|run| run.none_after), ..Run::default() };
    mean.drift = (mean.none_after - mean.none_before).abs() / mean.none_before;
    for name in runs.first().into_iter().flat_map(|run| run.costs.keys()) {
        let of = |figure: fn(&Cost) -> f64| of(&|run| run.costs.get(name).map_or(f64::NAN, figure));
        mean.costs.insert(
            *name,
            Cost {
                min: of(|cost| cost.min),
                median: of(|cost| cost.median),
                marginal_min: of(|cost| cost.marginal_min),
                marginal_median: of(|cost| cost.marginal_median),
            },
        );
    }
    mean
}

/// A packet of the smallest Ethernet size.
fn frame(kind: Kind, destination: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    let protocol = if kind == Kind::Udp { 17 } else { 6 };
    frame.extend([0x45, 0, 0, 46, 0, 1, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1]);
    frame.extend(destination.octets());
    if kind == Kind::Udp {
        frame.extend(4321_u16.to_be_bytes());
        frame.extend(PORT.to_be_bytes());
        frame.extend([0, 26, 0, 0]);
    }
    frame.extend(kind.payload());
    frame.resize(60, 0);
    frame
}
