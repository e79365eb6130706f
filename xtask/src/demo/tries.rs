//! Tries to reach the outside and compares what happened with what the policies say: what the caller got, what arrived on the
//! wire, and which rule the kernel charged.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use egress_world::packet::{Ip, flag, protocol};
use egress_world::probe::{self, Attempt, Outcome};
use egress_world::{Agent, Pod, Wire, World};
use serde_json::Value;

use super::table::{self, Cell};

/// How a pod tries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Tcp(u16),
    Udp(u16),
    Ping,
    /// A SYN by a packet socket, past the queueing discipline.
    Frame(u16),
}

/// Who tries to reach whom, and what must happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Try {
    pub(super) pod: &'static str,
    pub(super) to: &'static str,
    pub(super) how: How,
    /// Whether it must arrive.
    pub(super) allowed: bool,
    /// Part of the name of the rule that must decide; empty if no policy selects the pod.
    pub(super) rule: &'static str,
}

/// Shorthand for the scripts of scenes.
pub(super) const fn try_it(pod: &'static str, to: &'static str, how: How, allowed: bool, rule: &'static str) -> Try {
    Try { pod, to, how, allowed, rule }
}

/// Counts of what was as expected and what was not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Score {
    pub(super) right: u32,
    pub(super) wrong: u32,
}

impl Score {
    /// Adds one observation; returns its mark.
    pub(super) fn add(&mut self, right: bool) -> Cell {
        if right {
            self.right += 1;
            Cell::good("✓")
        } else {
            self.wrong += 1;
            Cell::bad("✗ NOT AS EXPECTED")
        }
    }
}

/// Runs `tries` one after another and prints them as a table.
pub(super) fn run(world: &World, agent: &Agent<'_>, tries: &[Try], score: &mut Score) {
    let mut wire = world.outside().sniff();
    let rows: Vec<Vec<Cell>> = tries.iter().map(|one| row(one, world, agent, &mut wire, score)).collect();
    table::print(&["pod", "to", "by", "verdict", "fastest of 5", "rule", ""], &rows);
}

fn row(one: &Try, world: &World, agent: &Agent<'_>, wire: &mut Wire, score: &mut Score) -> Vec<Cell> {
    let pod = world.pod(one.pod);
    let remote: IpAddr = one.to.parse().unwrap_or(IpAddr::from([0; 4]));
    let before = charges(agent);
    wire.forget();
    let attempt = attempt(one, pod, remote);
    let arrived = !wire.arrived(remote).is_empty();
    let rule = charged(&before, &charges(agent));
    let mark = score.add(is_right(one, &attempt, arrived, rule.as_deref()));
    let verdict = if arrived { Cell::good("allowed") } else { Cell::bad(refusal(&attempt)) };
    vec![
        Cell::plain(pod.full_name()),
        Cell::plain(destination(one, remote)),
        Cell::plain(name(one.how)),
        verdict,
        Cell::dim(took(&attempt)),
        Cell::plain(rule.unwrap_or_else(|| "no policy".to_owned())),
        mark,
    ]
}

fn attempt(one: &Try, pod: &Pod, remote: IpAddr) -> Attempt {
    let patience = if one.allowed { probe::PATIENCE } else { probe::SILENCE };
    match one.how {
        How::Tcp(port) => pod.run(|| fastest(|| probe::tcp(SocketAddr::new(remote, port), patience))),
        How::Udp(port) => pod.run(|| fastest(|| probe::udp_unconnected(SocketAddr::new(remote, port), patience))),
        How::Ping => pod.run(|| probe::ping(remote, patience)),
        How::Frame(port) => {
            let header = Ip::new(pod.address_like(remote), remote, protocol::TCP);
            let frame = pod.frame(&[], &header.packet(&header.tcp(40_000, port, flag::SYN)));
            pod.run(|| probe::frame(&[frame], true))
        }
    }
}

/// Tries five times. The first call of a process also pays for its pages, and the time of any may be another process's.
fn fastest(try_it: impl Fn() -> Attempt) -> Attempt {
    let first = try_it();
    let more = (1..5).map(|_| try_it());
    more.fold(first, |best, attempt| {
        let elapsed = best.elapsed.min(attempt.elapsed);
        // A result that changes from one call to the next is not as expected, whatever it is.
        let outcome = if attempt.outcome == best.outcome { best.outcome } else { Outcome::Failed(0) };
        Attempt { outcome, elapsed }
    })
}

/// The caller, the wire and the counters must all say what the policies say.
fn is_right(one: &Try, attempt: &Attempt, arrived: bool, rule: Option<&str>) -> bool {
    let caller = match (one.how, one.allowed) {
        (How::Frame(_), _) | (How::Ping, false) => attempt.outcome == Outcome::Silence,
        (_, true) => attempt.is_answered(),
        (_, false) => attempt.is_refused(),
    };
    let decided = match rule {
        None => one.rule.is_empty(),
        Some(rule) => !one.rule.is_empty() && rule.contains(one.rule),
    };
    caller && arrived == one.allowed && decided
}

fn refusal(attempt: &Attempt) -> &'static str {
    if attempt.is_refused() { "refused (EPERM)" } else { "dropped" }
}

fn destination(one: &Try, remote: IpAddr) -> String {
    match one.how {
        How::Tcp(port) | How::Udp(port) | How::Frame(port) => SocketAddr::new(remote, port).to_string(),
        How::Ping => remote.to_string(),
    }
}

fn name(how: How) -> &'static str {
    match how {
        How::Tcp(_) => "TCP connect",
        How::Udp(_) => "UDP sendto",
        How::Ping => "ping",
        How::Frame(_) => "AF_PACKET, qdisc bypassed",
    }
}

/// How long the caller waited for its answer, if it got one.
fn took(attempt: &Attempt) -> String {
    if attempt.outcome == Outcome::Silence { String::new() } else { time(attempt.elapsed) }
}

/// A duration with the digits that a person reads.
pub(super) fn time(elapsed: Duration) -> String {
    match elapsed.as_micros() {
        micros @ 0..1000 => format!("{micros} µs"),
        micros => format!("{}.{} ms", micros / 1000, micros / 100 % 10),
    }
}

/// Packets per rule, by "origin: text".
type Charges = BTreeMap<String, u64>;

fn charges(agent: &Agent<'_>) -> Charges {
    let dump = agent.dump("rules");
    let mut charges = Charges::new();
    for rule in dump.get("rules").and_then(Value::as_array).into_iter().flatten() {
        let word = |name: &str| rule.get(name).and_then(Value::as_str).unwrap_or_default();
        let packets = rule.get("packets").and_then(Value::as_u64).unwrap_or(0);
        *charges.entry(format!("{}: {}", word("origin"), word("text"))).or_default() += packets;
    }
    charges
}

/// The rule that was charged most between two readings. Neighbour discovery and the like may charge a builtin rule beside it.
fn charged(before: &Charges, after: &Charges) -> Option<String> {
    let more = |(rule, packets): (&String, &u64)| {
        let added = packets.saturating_sub(before.get(rule).copied().unwrap_or(0));
        let decides = !rule.starts_with("link control") && !rule.starts_with("internal");
        (added > 0 && decides).then(|| (added, rule.clone()))
    };
    after.iter().filter_map(more).max().map(|(_, rule)| rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_charged_rule_is_the_one_whose_counter_rose() {
        let before = Charges::from([("rule 1: a".to_owned(), 4), ("rule 2: b".to_owned(), 7)]);
        let after = Charges::from([("rule 1: a".to_owned(), 4), ("rule 2: b".to_owned(), 9)]);
        assert_eq!(charged(&before, &after), Some("rule 2: b".to_owned()));
        assert_eq!(charged(&after, &after), None);
    }

    #[test]
    fn times_are_short() {
        assert_eq!(time(Duration::from_micros(42)), "42 µs");
        assert_eq!(time(Duration::from_micros(1250)), "1.2 ms");
    }
}
