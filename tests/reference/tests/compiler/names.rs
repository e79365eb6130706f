//! Worlds with DNS names: live answers that share addresses with prefixes and with each other (§2.3–§2.5, §4.2, §5.1, §5.8, §5.9). Every
//! lookup is asked by the names themselves, and as the kernel asks: by the places of all policies' names together.

use std::collections::BTreeSet;

use egress_policy::places::Place;
use egress_reference::{Action, AnyPort, Decider, Oracle, Outcome, Packet, Peer, Pod, Random, Rule, Size, World};

use crate::bridge::{Compiled, Through, compile_world, expected, own_places, picture, shadowed};
use crate::counters::Counters;
use crate::settings::{PACKETS, is_full_run, seeds};
use crate::worlds::{Truth, agree_on};

/// Everything that must be reached at least once in a full run.
const REQUIRED: [&str; 23] = [
    "a name allows v4",
    "a name allows v6",
    "a name denies v4",
    "a name denies v6",
    "an earlier prefix decides before a name v4",
    "an earlier prefix decides before a name v6",
    "an earlier name decides before a prefix v4",
    "an earlier name decides before a prefix v6",
    "an exact name decides",
    "one label decides",
    "any depth decides",
    "a pass by name, a name decides",
    "a pass by name, a prefix decides",
    "a pass by name, the default action decides",
    "a pass by prefix, a name decides",
    "audit by name",
    "audit where a name decides",
    "several names of the address are meant",
    "a place of another policy's names",
    "a name without a live address",
    "an address without names",
    "any port with names: the same",
    "any port with names: depends",
];

#[test]
fn tables_places_and_live_answers_together_agree_with_the_oracle() {
    let mut counters = Counters::of(&REQUIRED);
    for seed in seeds(2) {
        let world = World::generate_named(seed, &Size::default());
        agree_on(&world, |compiled, pod, packet, truth| observe(&mut counters, &world, compiled, pod, packet, truth));
    }
    counters.report(is_full_run());
}

fn rule<'w>(world: &'w World, decider: &Decider) -> Option<&'w Rule> {
    let Decider::Rule { policy, number } = decider else { return None };
    world.policies.iter().find(|candidate| candidate.id == *policy)?.rules.get(number - 1)
}

fn observe(counters: &mut Counters, world: &World, compiled: &Compiled, pod: &Pod, packet: &Packet, truth: &Truth) {
    let names = world.names_of(packet.destination);
    let outcome = &truth.outcome;
    if outcome.trace.nothing_live {
        counters.count("a name without a live address");
    }
    if names.is_empty() {
        counters.count("an address without names");
        return;
    }
    observe_order(counters, world, pod, packet, outcome);
    observe_tiers(counters, world, outcome);
    let own = own_places(&compiled.rules);
    let coarser = |name: &&str| {
        let name = Place::of_name(name);
        let place = own.place_of(&name);
        place.is_some() && place != compiled.union.place_of(&name)
    };
    if outcome.trace.by_name && names.iter().any(coarser) {
        counters.count("a place of another policy's names");
    }
    match &truth.any_port {
        Some(AnyPort::Depends) => counters.count("any port with names: depends"),
        Some(AnyPort::Same(_) | AnyPort::SameButAudit(_)) => {
            let told = compiled.answer_named_any_port(packet.destination, packet.protocol, &names).is_some();
            // The table may leave open what the rules leave no doubt about: the first fragment decides then.
            if told {
                counters.count("any port with names: the same");
            }
        }
        None => {}
    }
}

/// Names against prefixes, and the kind of name that decides.
fn observe_order(counters: &mut Counters, world: &World, pod: &Pod, packet: &Packet, outcome: &Outcome) {
    let matching = Oracle::new(world).matching_rules(pod, packet);
    let later = matching.iter().skip_while(|decider| **decider != outcome.verdict.decider).skip(1);
    let later: Vec<&Rule> = later.filter_map(|decider| rule(world, decider)).collect();
    let mut family = |four, six| counters.count(if packet.destination.is_ipv4() { four } else { six });
    let Some(deciding) = rule(world, &outcome.verdict.decider) else { return };
    let Some(pattern) = deciding.dns_name() else {
        if later.iter().any(|rule| rule.dns_name().is_some()) {
            family("an earlier prefix decides before a name v4", "an earlier prefix decides before a name v6");
        }
        return;
    };
    if outcome.verdict.allow {
        family("a name allows v4", "a name allows v6");
    } else {
        family("a name denies v4", "a name denies v6");
    }
    if later.iter().any(|rule| matches!(rule.peer, Peer::Cidr { .. })) {
        family("an earlier name decides before a prefix v4", "an earlier name decides before a prefix v6");
    }
    counters.count(match pattern {
        pattern if pattern.starts_with("**.") => "any depth decides",
        pattern if pattern.starts_with("*.") => "one label decides",
        _ => "an exact name decides",
    });
    let names = world.names_of(packet.destination);
    let patterns: Vec<&str> = matching.iter().filter_map(|decider| rule(world, decider)?.dns_name()).collect();
    let meant = |name: &&&str| patterns.iter().any(|pattern| egress_reference::pattern_means(pattern, name));
    if names.iter().filter(meant).count() > 1 {
        counters.count("several names of the address are meant");
    }
}

/// Pass and Audit.
fn observe_tiers(counters: &mut Counters, world: &World, outcome: &Outcome) {
    let trace = &outcome.trace;
    match (&trace.passed, &outcome.verdict.decider) {
        (Some(_), Decider::Default) if trace.passed_by_name => {
            counters.count("a pass by name, the default action decides");
        }
        (Some(_), _) if trace.passed_by_name && trace.by_name => counters.count("a pass by name, a name decides"),
        (Some(_), _) if trace.passed_by_name => counters.count("a pass by name, a prefix decides"),
        (Some(_), _) if trace.by_name => counters.count("a pass by prefix, a name decides"),
        _ => {}
    }
    let Some(audit) = &outcome.audit else { return };
    if rule(world, &audit.decider).is_some_and(|rule| rule.dns_name().is_some()) {
        counters.count("audit by name");
    }
    if trace.by_name {
        counters.count("audit where a name decides");
    }
}

const SMALL: Size = Size { policies: 3, rules: 3, pods: 1 };

#[test]
fn every_packet_of_a_small_world_with_names_gets_the_verdict_of_the_oracle() {
    let mut packets = 0;
    for seed in seeds(40) {
        let world = World::generate_named(seed, &SMALL);
        let pod = &world.pods[0];
        let compiled = compile_world(&world).expect("compiles").remove(0);
        for packet in world.representatives() {
            let outcome = Oracle::new(&world).evaluate(pod, &packet);
            let names = world.names_of(packet.destination);
            let answer = compiled.answer_named(&packet, &names, Through::UnionPlaces);
            assert_eq!(answer, expected(&outcome), "seed {seed} {packet}\n{}", picture(&world, pod));
            packets += 1;
        }
    }
    println!("{packets} packets");
}

// §4.3
#[test]
fn a_rule_about_a_name_that_is_reported_as_shadowed_never_decides() {
    let mut reported = 0;
    for seed in seeds(4) {
        let world = World::generate_named(seed, &Size::default());
        let compiled = compile_world(&world).expect("compiles");
        let shadowed: Vec<Vec<Decider>> = compiled.iter().map(|compiled| shadowed(&compiled.rules)).collect();
        let by_name = |decider: &&Decider| rule(&world, decider).is_some_and(|rule| rule.dns_name().is_some());
        reported += shadowed.iter().flatten().filter(by_name).count();
        let mut random = Random::new(seed);
        for _ in 0..PACKETS {
            let at = random.below(world.pods.len());
            let (pod, packet) = (&world.pods[at], world.packet(&world.pods[at], &mut random));
            let outcome = Oracle::new(&world).evaluate(pod, &packet);
            let decided = [Some(outcome.verdict.decider), outcome.trace.passed];
            for decider in decided.iter().flatten() {
                let never = shadowed[at].contains(decider);
                assert!(!never, "seed {seed}: {decider:?} decides {packet}\n{}", picture(&world, pod));
            }
        }
    }
    println!("{reported} shadowed rules about names reported");
    assert!(!is_full_run() || reported > 0);
}

// §4.3: exact where nothing passes. Any name may have any address, so each name is given all of them, alone.
#[test]
fn a_rule_about_a_name_is_reported_as_shadowed_exactly_where_no_answer_makes_it_decide() {
    let mut seen = [0, 0];
    for seed in seeds(20) {
        let mut world = World::generate_named(seed, &SMALL);
        for policy in &mut world.policies {
            policy.rules.retain(|rule| rule.action != Action::Pass);
            policy.mode = egress_reference::Mode::Enforce;
        }
        world.policies.retain(|policy| !policy.rules.is_empty());
        world.config.audit = false;
        world.answers.clear();
        let pod = world.pods[0].clone();
        let compiled = compile_world(&world).expect("compiles").remove(0);
        let reported: BTreeSet<Decider> = shadowed(&compiled.rules).into_iter().collect();
        let decided = decided_by_names(&world, &pod);
        for policy in Oracle::new(&world).policies(&pod) {
            for (number, _) in (1..).zip(&policy.rules).filter(|(_, rule)| rule.dns_name().is_some()) {
                let rule = Decider::Rule { policy: policy.id.clone(), number };
                let never = !decided.contains(&rule);
                let text = picture(&world, &pod);
                assert_eq!(reported.contains(&rule), never, "seed {seed} {rule:?}\n{text}");
                seen[usize::from(never)] += 1;
            }
        }
    }
    println!("{} rules about names have an effect, {} are shadowed", seen[0], seen[1]);
    assert!(!is_full_run() || seen.iter().all(|count| *count > 0));
}

/// Every rule that decides some packet to an address with one name, whichever name that is.
fn decided_by_names(world: &World, pod: &Pod) -> BTreeSet<Decider> {
    let patterns: BTreeSet<&str> =
        world.policies.iter().flat_map(|policy| &policy.rules).filter_map(Rule::dns_name).collect();
    let packets = world.representatives();
    let everywhere: BTreeSet<std::net::IpAddr> = packets.iter().map(|packet| packet.destination).collect();
    let mut decided = BTreeSet::new();
    for pattern in patterns {
        let suffix = pattern.trim_start_matches(['*', '.']).trim_end_matches('.').to_ascii_lowercase();
        for name in [suffix.clone(), format!("zz.{suffix}"), format!("zz.yy.{suffix}")] {
            let mut answered = world.clone();
            answered.answers = [(name, everywhere.clone())].into();
            let oracle = Oracle::new(&answered);
            decided.extend(packets.iter().map(|packet| oracle.evaluate(pod, packet).verdict.decider));
        }
    }
    decided
}
