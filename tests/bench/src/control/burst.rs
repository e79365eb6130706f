//! Pods that start in a burst: how long each is judged by nobody, and how long until it is judged by its policies.
//!
//! A pod's first process is started as a container runtime starts it, in its cgroup and its namespace, and makes a call to where it may
//! not: the kernel refuses it, whoever knows of the pod. From then on this process sends, by a socket of the pod's and by one of nobody's.

use std::net::{SocketAddrV4, UdpSocket};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use egress_world::{Member, Process};

use super::arrivals::{Arrivals, FIRST_PORT, Seen, Targets};
use super::cluster::Cluster;
use crate::results::{Burst, Spread, Window};

/// Longer than anybody would wait.
const PATIENCE: Duration = Duration::from_mins(5);
/// Pods that nobody tells of are left alone for this long after the last one has started.
const UNTOLD: Duration = Duration::from_secs(1);

/// What is told of a pod when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The API server tells of it, then it starts: what a scheduler does.
    Before,
    /// It starts, and the API server tells a while later: what `unknownPods` is for.
    After,
}

/// Pods that run, as long as this lives.
pub(super) struct Running {
    _processes: Vec<Process<()>>,
    /// A socket of each one's process.
    sockets: Vec<UdpSocket>,
}

impl Running {
    /// What each of them sends by: its own calls.
    pub(super) fn calls(&self) -> impl Iterator<Item = &UdpSocket> {
        self.sockets.iter()
    }
}

/// Starts all of them, one after the other as fast as it goes, and waits until they are judged.
pub(super) fn start(
    members: &[Member],
    cluster: &Cluster,
    told: Told,
    arrivals: &Arrivals,
    targets: Targets,
) -> anyhow::Result<(Burst, Running)> {
    let count = members.len();
    let begun: Vec<OnceLock<(Instant, UdpSocket)>> = members.iter().map(|_| OnceLock::new()).collect();
    let mut spoken = Vec::new();
    let started = Instant::now();
    let (seen, processes, took) = std::thread::scope(|scope| {
        // What calls send by, and what comes by the interfaces without one.
        let sender = |index: usize| {
            let (_, call) = begun[index % count].get()?;
            Some(if index < count { call } else { members[index - count].socket() })
        };
        let watching = scope.spawn(move || arrivals.until_judged(2 * count, sender, targets, PATIENCE));
        let mut processes = Vec::new();
        for (member, begun) in members.iter().zip(&begun) {
            if told == Told::Before {
                cluster.tell(member);
            }
            let (process, socket) = member.start(SocketAddrV4::new(targets.denied, FIRST_PORT));
            let _ = begun.set((Instant::now(), socket));
            processes.push(process);
        }
        let took = started.elapsed();
        if told == Told::After {
            std::thread::sleep(UNTOLD);
            for member in members {
                spoken.push(Instant::now());
                cluster.tell(member);
            }
        }
        let seen = watching.join().map_err(|_| anyhow::anyhow!("the thread that watches died"))?;
        anyhow::Ok((seen?, processes, took))
    })?;
    let (begun, sockets): (Vec<Instant>, Vec<UdpSocket>) = begun.into_iter().filter_map(OnceLock::into_inner).unzip();
    let known = if told == Told::Before { &begun } else { &spoken };
    let (calls, packets) = seen.split_at(count);
    let burst = Burst {
        pods: count,
        told_before: told == Told::Before,
        starting_ms: took.as_secs_f64() * 1e3,
        first_calls_out: arrivals.first_calls(),
        calls: window(calls, &begun, known),
        packets: window(packets, &begun, known),
    };
    Ok((burst, Running { _processes: processes, sockets }))
}

fn window(seen: &[Seen], begun: &[Instant], known: &[Instant]) -> Window {
    let since = |at: Option<Instant>, since: &Instant| Some(at?.saturating_duration_since(*since).as_secs_f64() * 1e3);
    let unjudged = seen.iter().zip(begun).filter_map(|(seen, begun)| since(seen.stopped, begun));
    let judged = seen.iter().zip(known).filter_map(|(seen, known)| since(seen.judged, known));
    Window { unjudged: Spread::of(unjudged.collect()), judged: Spread::of(judged.collect()) }
}
