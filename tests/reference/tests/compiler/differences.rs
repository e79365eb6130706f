//! `diff(old, new)` says exactly where the oracle's answers differ, and `summary` how the tables do.

use std::net::IpAddr;

use egress_common::class;
use egress_policy::compile::{Lookup, Table};
use egress_policy::diff::{Change, diff, summary};
use egress_reference::{Action, Oracle, Outcome, Packet, Policy, Prefix, Random, Rule, Verdict, World};
use ipnet::IpNet;

use crate::bridge::{Answer, Compiled, compile_world, picture};
use crate::settings::{PACKETS, is_full_run, seeds};

#[test]
fn a_diff_covers_a_packet_exactly_where_its_verdict_changes() {
    let mut seen = [0, 0];
    for seed in seeds(8) {
        let old = World::generate(seed);
        let new = old.edited(seed);
        let [was, is] = [&old, &new].map(|world| compile_world(world).expect("compiles"));
        let mut random = Random::new(seed);
        let changes: Vec<Vec<Change>> = was.iter().zip(&is).map(|(was, is)| diff(&was.table, &is.table)).collect();
        for _ in 0..PACKETS {
            let at = random.below(old.pods.len());
            let side = if random.chance(50) { &old } else { &new };
            let packet = side.packet(&old.pods[at], &mut random);
            let differs = assert_told([&old, &new], at, [&was[at], &is[at]], &changes[at], &packet);
            seen[usize::from(differs)] += 1;
        }
    }
    println!("{} packets answered the same, {} another way", seen[0], seen[1]);
    assert!(!is_full_run() || seen.iter().all(|count| *count > 0), "{seen:?}");
}

/// Asserts that the changes tell the truth about one packet; returns whether it is answered another way.
pub(crate) fn assert_told(
    worlds: [&World; 2],
    pod: usize,
    compiled: [&Compiled; 2],
    changes: &[Change],
    packet: &Packet,
) -> bool {
    let outcomes = worlds.map(|world| Oracle::new(world).evaluate(&worlds[0].pods[pod], packet));
    let covering: Vec<&Change> = changes.iter().filter(|change| covers(change, compiled, packet)).collect();
    let truth: Vec<Answer> = outcomes.iter().map(|outcome| (outcome.verdict.clone(), outcome.audit.clone())).collect();
    let told = covering.iter().all(|change| {
        let answer = |side: usize, lookup: Lookup| {
            let audit = lookup.audit.map(|audit| compiled[side].verdict(audit));
            (compiled[side].verdict(lookup.decision), audit)
        };
        [answer(0, change.old), answer(1, change.new)] == truth[..]
    });
    let differs = effect(&outcomes[0]) != effect(&outcomes[1]);
    assert!(
        covering.len() == usize::from(differs) && told,
        "seed {} {packet}\nwas {:?}\nis {:?}\ndiff {covering:?}\n{}\n######## new\n{}",
        worlds[0].seed,
        truth[0],
        truth[1],
        picture(worlds[0], &worlds[0].pods[pod]),
        picture(worlds[1], &worlds[0].pods[pod])
    );
    differs
}

/// What a diff compares: what happens, not who decides it.
fn effect(outcome: &Outcome) -> [Option<(bool, bool)>; 2] {
    let action = |verdict: &Verdict| (verdict.allow, verdict.internal);
    [Some(action(&outcome.verdict)), outcome.audit.as_ref().map(action)]
}

/// Whether `change` speaks about `packet`: its prefix is the longest of both tables there, and the key is in its range.
pub(crate) fn covers(change: &Change, compiled: [&Compiled; 2], packet: &Packet) -> bool {
    let destination = packet.destination.to_canonical();
    change.keys.contains(class::key(packet.protocol, packet.port))
        && change.prefix.contains(&destination)
        && compiled.iter().all(|compiled| longest(&compiled.table, destination) <= change.prefix.prefix_len())
}

fn longest(table: &Table, destination: IpAddr) -> u8 {
    let matching = table.entries().filter(|(prefix, _)| prefix.contains(&destination));
    matching.map(|(prefix, _)| prefix.prefix_len()).max().expect("every table contains /0 of both families")
}

#[test]
fn a_table_does_not_differ_from_itself() {
    for seed in seeds(20) {
        for Compiled { table, .. } in compile_world(&World::generate(seed)).expect("compiles") {
            assert_eq!(diff(&table, &table), Vec::new(), "seed {seed}");
            let summary = summary(&table, &table);
            assert_eq!((summary.added, summary.removed, summary.changed), (0, 0, 0), "seed {seed}");
            assert_eq!(summary.kept, table.prefixes());
        }
    }
}

#[test]
fn a_summary_counts_the_prefixes_that_only_one_table_has() {
    for seed in seeds(20) {
        let old = World::generate(seed);
        let new = old.edited(seed);
        let [was, is] = [&old, &new].map(|world| compile_world(world).expect("compiles"));
        for (was, is) in was.iter().zip(&is) {
            let [before, after] = [&was.table, &is.table].map(|table| table.entries().map(|entry| entry.0).collect());
            let (before, after): (Vec<IpNet>, Vec<IpNet>) = (before, after);
            let summary = summary(&was.table, &is.table);
            assert_eq!(summary.added, after.iter().filter(|prefix| !before.contains(prefix)).count(), "seed {seed}");
            assert_eq!(summary.removed, before.iter().filter(|prefix| !after.contains(prefix)).count(), "seed {seed}");
            assert_eq!(summary.kept + summary.changed + summary.added, after.len(), "seed {seed}");
        }
    }
}

#[test]
fn a_prefix_whose_halves_decide_everything_is_in_no_diff() {
    for (low, high, whole) in [
        ("10.0.0.0", "10.0.0.128", 24),
        ("0.0.0.0", "128.0.0.0", 0),
        ("2001:db8::", "2001:db8:8000::", 32),
        ("::", "8000::", 0),
    ] {
        let rule = |action, address: &str, length| Rule::cidr(action, Prefix::new(address.parse().unwrap(), length));
        let compiled = |halves: &[&str], last| {
            let mut rules: Vec<Rule> = halves.iter().map(|half| rule(Action::Deny, half, whole + 1)).collect();
            rules.push(rule(last, low, whole));
            let policies = vec![Policy::namespaced("default", "p", rules)];
            compile_world(&World { policies, ..World::empty() }).expect("compiles").remove(0)
        };
        let changes =
            |halves: &[&str]| diff(&compiled(halves, Action::Deny).table, &compiled(halves, Action::Allow).table).len();
        assert_eq!(changes(&[low, high]), 0, "{low}/{whole}");
        assert_eq!(changes(&[high]), 1, "{low}/{whole}");
        let halved = diff(&compiled(&[low], Action::Deny).table, &compiled(&[high], Action::Deny).table);
        assert_eq!(halved, [], "{low}/{whole}");
    }
}
