//! Measures one size: fills every peer, compares their verdicts, then times them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use egress_agent::datapath::{DesiredTable, Options};

use crate::lab::{Kind, Lab};
use crate::mix::{self, Destinations, Mix};
use crate::peers::egress::{self, Egress, OnLpm, Stages};
use crate::peers::lpm::Lpm;
use crate::peers::{ipset, nft};
use crate::place::settled_memory;
use crate::progress::{self, step};
use crate::results::{Peer, Size, Timing};
use crate::rounds::{self, Effort, Entrant};

/// What every size is measured with.
pub(crate) struct Bench<'a> {
    /// Ours.
    pub(crate) egress: Egress,
    /// How ours is opened a second time, for [`OnLpm`]; a quick run leaves it out.
    pub(crate) on_lpm: Option<Options>,
    /// Where tc programs are compared; the link runs one of them at a time.
    pub(crate) tc: &'a Lab,
    /// See `tc`.
    pub(crate) link: &'a OwnedFd,
    /// The empty program.
    pub(crate) none: &'a OwnedFd,
    /// Nothing at all on the way: the floor of nft and ipset.
    pub(crate) bare: &'a Lab,
    /// Where nft is, if the machine has it.
    pub(crate) nft: Option<&'a Lab>,
    /// Where ipset is, if the machine has it.
    pub(crate) ipset: Option<&'a Lab>,
    /// For files that other programs read.
    pub(crate) files: &'a Path,
    /// The cgroup whose kernel memory is read.
    pub(crate) memory: &'a Path,
    /// How often.
    pub(crate) effort: Effort,
}

/// nft needs up to two minutes to add to a million elements; once is enough.
const APPLIED_ONCE_ABOVE: usize = 200_000;

/// What is in place at one size.
struct Filled {
    table: Arc<DesiredTable>,
    lpm: Lpm,
    /// Only while packets are measured.
    on_lpm: Option<OnLpm>,
    intervals: usize,
    stages: Stages,
    peers: BTreeMap<&'static str, Peer>,
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Addresses that no mix contains, one for each update.
fn fresh(peer: u8, number: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100 + peer, u8::try_from(number % 250).unwrap_or(0) + 1)
}

impl Bench<'_> {
    /// Measures one size; without `packets` only what policies cost.
    pub(crate) fn measure(&mut self, label: &str, size: usize, packets: bool) -> anyhow::Result<Size> {
        progress::heading(&format!("{label} CIDRs"));
        let mix = step("policy files", || Ok(Mix::new(size)))?;
        let started = Instant::now();
        let set = step("read by egress-policy", || mix::read(&mix.files))?;
        let read_ms = milliseconds(started.elapsed());
        self.egress.set_policies(set);
        let mut filled = self.fill(size)?;
        let [cold, cold_tcp, hot, hot_tcp] =
            if packets { self.packets(&mut filled, &mix)? } else { Default::default() };
        let memory = self.egress.memory()?;
        self.update(&mut filled, size)?;
        self.clear()?;
        let table = &filled.table.table;
        Ok(Size {
            label: label.to_owned(),
            cidrs: mix.prefixes.len(),
            policies: mix.files.len(),
            prefixes: table.prefixes4.len(),
            class_entries: table.classes.len(),
            intervals: filled.intervals,
            read_ms,
            stages: filled.stages,
            memory,
            peers: filled.peers,
            cold,
            cold_tcp,
            hot,
            hot_tcp,
        })
    }

    /// What packets cost, cold and hot, UDP and TCP each.
    fn packets(&mut self, filled: &mut Filled, mix: &Mix) -> anyhow::Result<[rounds::Run; 4]> {
        let destinations = step("destinations", || Destinations::new(&mix.prefixes, &filled.table.table))?;
        if let Some(options) = &self.on_lpm {
            let (on_lpm, took) = step("apply: egress-lpm", || OnLpm::new(options, &filled.table))?;
            filled.on_lpm = Some(on_lpm);
            let apply = Timing::of(vec![filled.stages.rules + filled.stages.compile + took]);
            filled.peers.insert(OnLpm::NAME, Peer { apply, ..Peer::default() });
        }
        self.compare(filled, &destinations)?;
        let (udp, tcp) = (destinations.allowed.as_slice(), destinations.allowed_tcp.as_slice());
        let runs = [
            step("cold: real stack, UDP", || self.cold(filled, Kind::Udp, udp))?,
            step("cold: real stack, TCP", || self.cold(filled, Kind::Tcp, tcp))?,
            step("hot: test runs, UDP", || self.hot(filled, Kind::Udp, udp))?,
            step("hot: test runs, TCP", || self.hot(filled, Kind::Tcp, tcp))?,
        ];
        crate::kernel::exchange(self.link, self.none.as_fd())?;
        filled.on_lpm.take().map_or(Ok(()), OnLpm::remove)?;
        Ok(runs)
    }

    /// Fills every peer, timed.
    fn fill(&mut self, size: usize) -> anyhow::Result<Filled> {
        let times = if size > APPLIED_ONCE_ABOVE { 1 } else { self.effort.applies };
        let mut peers = BTreeMap::new();
        let before = self.settled();
        let (table, stages, timing) = step("apply: egress", || self.fill_egress(times))?;
        peers.insert("egress", Peer { apply: timing, memory: self.grown(before), ..Peer::default() });
        let prefixes = egress::flattened(&table.table);
        let before = self.settled();
        let (lpm, timing) = step("apply: lpm", || fill_lpm(&prefixes, times))?;
        peers.insert("lpm", Peer { apply: timing, memory: self.grown(before), ..Peer::default() });
        let allowed = mix::allowed_intervals(&table.table);
        if let Some(lab) = self.nft {
            let file = self.files.join("set.nft");
            std::fs::write(&file, nft::text(&allowed))?;
            let before = self.settled();
            let timing = step("apply: nft", || {
                repeated(times, || nft::apply(lab.namespace(), &file).map(milliseconds), || nft::clear(lab.namespace()))
            })?;
            peers.insert("nft", Peer { apply: timing, memory: self.grown(before), ..Peer::default() });
        }
        if let Some(lab) = self.ipset {
            let file = self.files.join("set.ipset");
            std::fs::write(&file, ipset::text(&prefixes))?;
            let namespace = lab.namespace();
            let timing = step("apply: ipset", || {
                repeated(times, || ipset::apply(namespace, &file).map(milliseconds), || ipset::clear(namespace))
            })?;
            peers.insert("ipset", Peer { apply: timing, memory: Some(ipset::memory(namespace)?), ..Peer::default() });
        }
        Ok(Filled { table, lpm, on_lpm: None, intervals: allowed.len(), stages, peers })
    }

    /// Kernel memory, once what was removed before is gone.
    pub(crate) fn settled(&self) -> Option<u64> {
        settled_memory(self.memory)
    }

    fn grown(&self, before: Option<u64>) -> Option<u64> {
        Some(self.settled()?.saturating_sub(before?))
    }

    fn fill_egress(&mut self, times: usize) -> anyhow::Result<(Arc<DesiredTable>, Stages, Timing)> {
        let mut all: Vec<(f64, Stages)> = Vec::new();
        loop {
            self.egress.clear()?;
            let (table, stages) = self.egress.apply()?;
            all.push((stages.until_enforced(), stages));
            if all.len() >= times {
                let best = all.iter().min_by(|a, b| a.0.total_cmp(&b.0)).map_or(stages, |(_, stages)| *stages);
                return Ok((table, best, Timing::of(all.into_iter().map(|(took, _)| took).collect())));
            }
        }
    }

    /// Sends to every mixed destination through every peer and compares who passed.
    fn compare(&mut self, filled: &mut Filled, destinations: &Destinations) -> anyhow::Result<()> {
        let program = self.egress.program()?;
        let mut labs = vec![("egress", self.tc, Some(program.as_fd())), ("lpm", self.tc, Some(filled.lpm.program()))];
        labs.extend(filled.on_lpm.as_ref().map(|ours| (OnLpm::NAME, self.tc, Some(ours.program()))));
        labs.extend(self.nft.map(|lab| ("nft", lab, None)));
        labs.extend(self.ipset.map(|lab| ("ipset", lab, None)));
        for (name, lab, program) in labs {
            program.map_or(Ok(()), |program| crate::kernel::exchange(self.link, program))?;
            let (verdicts, wrong) = step(&format!("verdicts: {name}"), || verdicts(lab, destinations))?;
            if wrong > 0 {
                progress::warn(&format!("{name} judges {wrong} of {} destinations wrongly", destinations.mixed.len()));
            }
            if let Some(peer) = filled.peers.get_mut(name) {
                (peer.verdicts, peer.wrong) = (verdicts, wrong);
            }
        }
        Ok(())
    }

    fn cold(&mut self, filled: &Filled, kind: Kind, destinations: &[Ipv4Addr]) -> anyhow::Result<rounds::Run> {
        let program = self.egress.program()?;
        let none = Some(self.none.as_fd());
        let entrant = |name, floor, lab, program| Entrant { name, floor, lab, program };
        let mut entrants = vec![
            entrant("bare", None, self.bare, None),
            entrant("none", Some("bare"), self.tc, none),
            entrant("egress", Some("none"), self.tc, Some(program.as_fd())),
            entrant("lpm", Some("none"), self.tc, Some(filled.lpm.program())),
        ];
        let on_lpm = filled.on_lpm.as_ref();
        entrants.extend(on_lpm.map(|ours| entrant(OnLpm::NAME, Some("none"), self.tc, Some(ours.program()))));
        entrants.extend(self.nft.map(|lab| entrant("nft", Some("bare"), lab, None)));
        entrants.extend(self.ipset.map(|lab| entrant("ipset", Some("bare"), lab, None)));
        rounds::cold(&entrants, self.link, kind, destinations, self.effort)
    }

    fn hot(&mut self, filled: &Filled, kind: Kind, destinations: &[Ipv4Addr]) -> anyhow::Result<rounds::Run> {
        let program = self.egress.program()?;
        let mut programs =
            vec![("none", self.none.as_fd()), ("egress", program.as_fd()), ("lpm", filled.lpm.program())];
        programs.extend(filled.on_lpm.as_ref().map(|ours| (OnLpm::NAME, ours.program())));
        let entrant = |(name, program)| Entrant {
            name,
            floor: (name != "none").then_some("none"),
            lab: self.tc,
            program: Some(program),
        };
        let entrants: Vec<Entrant<'_>> = programs.into_iter().map(entrant).collect();
        rounds::hot(&entrants, kind, destinations, self.effort)
    }

    /// One rule or element more, from the call to the first packet.
    fn update(&mut self, filled: &mut Filled, size: usize) -> anyhow::Result<()> {
        let times = if size > APPLIED_ONCE_ABOVE { 1 } else { self.effort.updates };
        let program = self.egress.program()?;
        let mut record = |name: &'static str, timing: Timing| {
            if let Some(peer) = filled.peers.get_mut(name) {
                peer.update = Some(timing);
            }
        };
        let measure = |lab: &Lab, peer: u8, change: &mut dyn FnMut(Ipv4Addr) -> anyhow::Result<()>| {
            let once = |number| {
                let address = fresh(peer, number);
                lab.until_first_packet(address, || change(address)).map(milliseconds)
            };
            (0..times).map(once).collect::<anyhow::Result<Vec<f64>>>().map(Timing::of)
        };
        crate::kernel::exchange(self.link, program.as_fd())?;
        let egress = &mut self.egress;
        record("egress", step("update: egress", || measure(self.tc, 1, &mut |address| egress.update(address)))?);
        crate::kernel::exchange(self.link, filled.lpm.program())?;
        let lpm = &filled.lpm;
        record("lpm", step("update: lpm", || measure(self.tc, 2, &mut |address| lpm.update(address)))?);
        if let Some(lab) = self.nft {
            let change = &mut |address| nft::update(lab.namespace(), address);
            record("nft", step("update: nft", || measure(lab, 3, change))?);
        }
        if let Some(lab) = self.ipset {
            let change = &mut |address| ipset::update(lab.namespace(), address);
            record("ipset", step("update: ipset", || measure(lab, 4, change))?);
        }
        Ok(())
    }

    /// Makes room for the next size.
    fn clear(&mut self) -> anyhow::Result<()> {
        crate::kernel::exchange(self.link, self.none.as_fd())?;
        self.egress.clear()?;
        self.nft.map_or(Ok(()), |lab| nft::clear(lab.namespace()))?;
        self.ipset.map_or(Ok(()), |lab| ipset::clear(lab.namespace()))
    }
}

fn fill_lpm(prefixes: &[(ipnet::Ipv4Net, bool)], times: usize) -> anyhow::Result<(Lpm, Timing)> {
    let mut all = Vec::new();
    loop {
        let (lpm, took) = Lpm::build(prefixes)?;
        all.push(milliseconds(took));
        if all.len() >= times {
            return Ok((lpm, Timing::of(all)));
        }
    }
}

/// Applies `times` times, and clears in between.
fn repeated(
    times: usize,
    mut apply: impl FnMut() -> anyhow::Result<f64>,
    mut clear: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Timing> {
    let mut all = vec![apply()?];
    while all.len() < times {
        clear()?;
        all.push(apply()?);
    }
    Ok(Timing::of(all))
}

/// Fingerprint (FNV-1a) of what passes, and the number of destinations where that is not what the policies say.
fn verdicts(lab: &Lab, destinations: &Destinations) -> anyhow::Result<(String, usize)> {
    let (mut hash, mut wrong) = (0xcbf2_9ce4_8422_2325_u64, 0);
    for (destination, expected) in &destinations.mixed {
        let passes = lab.passes(*destination)?;
        wrong += usize::from(passes != *expected);
        hash = (hash ^ u64::from(passes)).wrapping_mul(0x0100_0000_01b3);
    }
    Ok((format!("{hash:016x}"), wrong))
}
