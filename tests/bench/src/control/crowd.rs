//! Many pods of one node under ten policies of a thousand prefixes and one that is about all of them, told by an API server: starts in a
//! burst, what the agent takes at rest, a change that reaches everybody, and an agent that finds all of them there.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use egress_world::{Agent, Crowd, Member, World};

use super::Effort;
use super::arrivals::{Arrivals, Targets};
use super::burst::{self, Told};
use super::cluster::{self, Cluster};
use super::load::Meter;
use crate::place::settled_memory;
use crate::progress::step;
use crate::results::{Control, Load, Many, Timing};

/// Longer than anybody would wait.
const PATIENCE: Duration = Duration::from_mins(5);
/// After the last change: the agent looks for what came late once more, two seconds later.
const SETTLE: Duration = Duration::from_millis(2500);
/// A second with less processor time is one in which the agent rests; what follows a large change is waited for no longer than this.
const RESTS: f64 = 20.0;
const LONGEST_WORK: Duration = Duration::from_mins(1);

/// The address that the policy about all pods allows in its version `number`.
fn allowed(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, 1 + u8::try_from(number % 250).unwrap_or(0))
}

/// Version `number` lets pods reach one address, and no longer that of the version before.
fn targets(number: usize) -> Targets {
    Targets { allowed: allowed(number), denied: if number == 0 { allowed(249) } else { allowed(number - 1) } }
}

/// Measures.
pub(super) fn measure(effort: Effort, memory: &Path, found: &mut Control) -> anyhow::Result<()> {
    let world = World::new(&[]);
    let all = effort.pods + effort.late;
    let crowd =
        step(&format!("{all} pods: namespaces and interfaces"), || Ok(Crowd::new(&world, cluster::NAMESPACE, all)))?;
    let (early, late) = crowd.members().split_at(effort.pods);
    let arrivals = Arrivals::new(&world)?;
    let cluster = Cluster::new(&world, allowed(0));
    let mut agent = Agent::new(&world);
    agent.in_cluster(cluster.api.kubeconfig(world.files()));
    let nothing = settled_memory(memory);
    agent.start();
    found.loads.push(rest(&agent, effort, "at rest, no pods")?);
    let idle = grown(memory, nothing);
    let meter = Meter::of(agent.pid())?;
    let (first, early_ones) = step(&format!("{} pods start in a burst", early.len()), || {
        burst::start(early, &cluster, Told::Before, &arrivals, targets(0))
    })?;
    found.loads.push(meter.read(format!("during a burst of {} pods", early.len()))?);
    found.loads.push(rest(&agent, effort, &format!("at rest, {} pods", early.len()))?);
    let change = step("a change for all pods", || {
        let wires = sockets(early);
        let once = |number| change(&cluster, &arrivals, &wires, number);
        (1..=effort.changes).map(once).collect::<anyhow::Result<Vec<f64>>>().map(Timing::of)
    })?;
    let version = targets(effort.changes);
    let (second, late_ones) = step(&format!("{} pods start unknown", late.len()), || {
        burst::start(late, &cluster, Told::After, &arrivals, version)
    })?;
    found.bursts.extend([first, second]);
    // Everything from nothing, by a new agent.
    agent.terminate();
    anyhow::ensure!(agent.cleanup().status.success(), "the clean-up failed: {}", agent.log());
    let nothing = settled_memory(memory);
    let calls: Vec<&UdpSocket> = early_ones.calls().chain(late_ones.calls()).collect();
    let both = [calls, sockets(crowd.members())].concat();
    let start_ms = step("a new agent finds all of them", || {
        let called = Instant::now();
        agent.launch();
        let judged = until_judged(&arrivals, &both, version)?;
        let (calls, packets) = judged.split_at(all);
        let last = |some: &[Instant]| some.iter().max().copied().unwrap_or(called);
        Ok([last(calls), last(packets)].map(|at| milliseconds(at, called)))
    })?;
    std::thread::sleep(SETTLE);
    let (pods, policies, prefixes) = (all, cluster::POLICIES, cluster::PREFIXES);
    found.many = Some(Many { pods, policies, prefixes, start_ms, change, idle, kernel: grown(memory, nothing) });
    agent.terminate();
    anyhow::ensure!(agent.cleanup().status.success(), "the clean-up failed: {}", agent.log());
    Ok(())
}

fn grown(memory: &Path, before: Option<u64>) -> Option<u64> {
    Some(settled_memory(memory)?.saturating_sub(before?))
}

fn rest(agent: &Agent<'_>, effort: Effort, what: &str) -> anyhow::Result<Load> {
    step(what, || {
        let begun = Instant::now();
        std::thread::sleep(SETTLE);
        loop {
            let meter = Meter::of(agent.pid())?;
            std::thread::sleep(Duration::from_secs(1));
            if meter.read(what)?.percent < RESTS || begun.elapsed() > LONGEST_WORK {
                break;
            }
        }
        let meter = Meter::of(agent.pid())?;
        std::thread::sleep(Duration::from_secs(effort.seconds));
        meter.read(what)
    })
}

/// Changes the policy about all pods; milliseconds until the last one is under it.
fn change(cluster: &Cluster, arrivals: &Arrivals, sockets: &[&UdpSocket], number: usize) -> anyhow::Result<f64> {
    let called = Instant::now();
    cluster.allow(allowed(number));
    let judged = until_judged(arrivals, sockets, targets(number))?;
    Ok(milliseconds(judged.into_iter().max().unwrap_or(called), called))
}

/// When each of these sent its first packet that was judged so.
fn until_judged(arrivals: &Arrivals, sockets: &[&UdpSocket], targets: Targets) -> anyhow::Result<Vec<Instant>> {
    let seen = arrivals.until_judged(sockets.len(), |index| sockets.get(index).copied(), targets, PATIENCE)?;
    Ok(seen.iter().filter_map(|seen| seen.judged).collect())
}

fn sockets(members: &[Member]) -> Vec<&UdpSocket> {
    members.iter().map(Member::socket).collect()
}

fn milliseconds(at: Instant, since: Instant) -> f64 {
    at.saturating_duration_since(since).as_secs_f64() * 1e3
}
