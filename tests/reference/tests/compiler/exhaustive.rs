//! Small worlds, judged completely: one packet of every class of packets that can be told apart. What is claimed to be exact
//! (lookups, shadowed rules, differences) is held to both directions.

use std::collections::BTreeSet;

use egress_policy::diff::diff;
use egress_reference::{Decider, Mode, Oracle, Pod, Policy, Size, World, representatives};

use crate::bridge::{compile_world, expected, picture, shadowed};
use crate::differences::{assert_told, covers};
use crate::settings::{is_full_run, seeds};

const SMALL: Size = Size { policies: 3, rules: 3, pods: 1 };

#[test]
fn every_packet_of_a_small_world_gets_the_verdict_of_the_oracle() {
    let mut packets = 0;
    for seed in seeds(20) {
        let world = World::generate_sized(seed, &SMALL);
        let pod = &world.pods[0];
        let compiled = compile_world(&world).expect("compiles").remove(0);
        for packet in world.representatives() {
            let outcome = Oracle::new(&world).evaluate(pod, &packet);
            assert_eq!(compiled.answer(&packet), expected(&outcome), "seed {seed} {packet}\n{}", picture(&world, pod));
            packets += 1;
        }
    }
    println!("{packets} packets");
}

#[test]
fn a_rule_is_reported_as_shadowed_exactly_where_no_packet_is_decided_or_passed_by_it() {
    let mut seen = [0, 0];
    for seed in seeds(20) {
        let world = World::generate_sized(seed, &SMALL);
        let pod = &world.pods[0];
        let compiled = compile_world(&world).expect("compiles").remove(0);
        let reported: BTreeSet<Decider> = shadowed(&compiled.rules).into_iter().collect();
        // What policies under Audit decide is what they would decide if every policy were enforced.
        let mut enforced = world.clone();
        enforced.config.audit = false;
        enforced.policies.iter_mut().for_each(|policy| policy.mode = Mode::Enforce);
        let (real, hypothetical) = (effective(&world, pod), effective(&enforced, pod));
        for decider in rules_that_can_match(&world, pod) {
            let effective = if is_audit(&world, &decider) { &hypothetical } else { &real };
            let never = !effective.contains(&decider);
            assert_eq!(reported.contains(&decider), never, "seed {seed} {decider:?}\n{}", picture(&world, pod));
            seen[usize::from(never)] += 1;
        }
    }
    println!("{} rules have an effect, {} are shadowed", seen[0], seen[1]);
    assert!(!is_full_run() || seen.iter().all(|count| *count > 0));
}

/// Every rule that decides a packet or sends one past the Admin tier.
fn effective(world: &World, pod: &Pod) -> BTreeSet<Decider> {
    let outcomes = world.representatives().into_iter().map(|packet| Oracle::new(world).evaluate(pod, &packet));
    outcomes.flat_map(|outcome| [Some(outcome.verdict.decider), outcome.trace.passed]).flatten().collect()
}

/// The rules that match at least one packet, reached or not.
fn rules_that_can_match(world: &World, pod: &Pod) -> BTreeSet<Decider> {
    let packets = world.representatives();
    packets.iter().flat_map(|packet| Oracle::new(world).matching_rules(pod, packet)).collect()
}

fn is_audit(world: &World, decider: &Decider) -> bool {
    let Decider::Rule { policy, .. } = decider else { return false };
    let is_it = |candidate: &&Policy| candidate.id == *policy;
    world.config.audit || world.policies.iter().filter(is_it).any(|policy| policy.mode == Mode::Audit)
}

#[test]
fn a_diff_of_small_worlds_covers_exactly_the_packets_that_are_answered_another_way() {
    for seed in seeds(40) {
        let old = World::generate_sized(seed, &SMALL);
        let new = old.edited(seed);
        let [was, is] = [&old, &new].map(|world| compile_world(world).expect("compiles").remove(0));
        let changes = diff(&was.table, &is.table);
        let packets = representatives(&[&old, &new]);
        for packet in &packets {
            assert_told([&old, &new], 0, [&was, &is], &changes, packet);
        }
        for change in &changes {
            let real = packets.iter().any(|packet| covers(change, [&was, &is], packet));
            assert!(real, "seed {seed}: no packet is meant by {change}");
        }
    }
}

#[test]
fn audit_policies_change_no_verdict() {
    for seed in seeds(40) {
        let world = World::generate_sized(seed, &SMALL);
        let mut without = world.clone();
        without.policies.retain(|policy| policy.mode == Mode::Enforce);
        let [with, without_audit] = [&world, &without].map(|world| compile_world(world).expect("compiles").remove(0));
        for packet in world.representatives() {
            assert_eq!(with.answer(&packet).0, without_audit.answer(&packet).0, "seed {seed} {packet}");
        }
    }
}
