//! Random worlds: every lookup, explanation and unknown-port answer is the oracle's, whatever the order of the files.

use std::panic::{AssertUnwindSafe, catch_unwind};

use egress_policy::document;
use egress_policy::explain::{Explanation, explain_named};
use egress_reference::{AnyPort, Decider, Oracle, Outcome, Packet, Pod, Random, World, shrink};

use crate::bridge::{self, Compiled, Through, compile_pod, compile_world, expected, picture, read, read_world};
use crate::counters::Counters;
use crate::settings::{PACKETS, is_full_run, seeds};

/// Explaining names every rule; one in so many packets is enough.
const EXPLAIN_EVERY: usize = 16;
const ANY_PORT_EVERY: usize = 16;

#[test]
fn the_compiler_agrees_with_the_oracle_on_random_worlds() {
    let mut counters = Counters::new();
    for seed in seeds(1) {
        let world = World::generate(seed);
        agree_on(&world, |_, pod, packet, truth| {
            counters.observe(&world, pod, packet, &truth.outcome);
            truth.any_port.iter().for_each(|answer| counters.observe_any_port(answer));
        });
    }
    counters.report(is_full_run());
}

/// Asks about packets of `world` and fails at the first disagreement; `observe` sees every packet.
pub(crate) fn agree_on(world: &World, mut observe: impl FnMut(&Compiled, &Pod, &Packet, &Truth)) {
    let compiled = caught(|| compile_world(world)).unwrap_or_else(|message| give_up(world, &message));
    let mut random = Random::new(world.seed ^ 0x009a_c4e7);
    for number in 0..PACKETS {
        let at = random.below(world.pods.len());
        let pod = &world.pods[at];
        let packet = world.packet(pod, &mut random);
        let truth = Truth::of(world, pod, &packet, Ask::of(number));
        if let Err(message) = caught(|| agree(world, &compiled[at], &packet, &truth)) {
            report(world, pod, &packet, truth.ask, &message);
        }
        observe(&compiled[at], pod, &packet, &truth);
    }
}

#[test]
fn the_order_of_objects_and_files_does_not_matter() {
    for seed in seeds(8) {
        let world = World::generate(seed);
        let [one, other] = [seed, seed ^ 0xffff].map(|order| read(&world.files(order)).expect("valid"));
        for pod in &world.pods {
            let [one, other] = [&one, &other].map(|set| compile_pod(set, &world, pod).expect("compiles"));
            assert_eq!(one.rules.fingerprint(), other.rules.fingerprint(), "seed {seed}");
            assert_eq!(one.table, other.table, "seed {seed}");
        }
    }
}

#[test]
fn every_table_contains_the_whole_of_both_families() {
    for seed in seeds(8) {
        let world = World::generate(seed);
        for compiled in compile_world(&world).expect("compiles") {
            let table = compiled.table;
            assert!(table.prefixes4.iter().any(|(prefix, _)| prefix.prefix_len() == 0), "seed {seed}");
            assert!(table.prefixes6.iter().any(|(prefix, _)| prefix.prefix_len() == 0), "seed {seed}");
        }
    }
}

#[test]
fn a_rule_list_is_trivial_exactly_where_no_policy_selects_the_pod_and_the_default_allows() {
    let mut seen = [0, 0];
    for seed in seeds(8) {
        let world = World::generate(seed);
        for (pod, compiled) in world.pods.iter().zip(compile_world(&world).expect("compiles")) {
            let trivial = Oracle::new(&world).policies(pod).is_empty() && world.config.default_allow;
            assert_eq!(compiled.rules.is_trivial(), trivial, "seed {seed} {pod:?}");
            seen[usize::from(trivial)] += 1;
        }
    }
    assert!(!is_full_run() || seen.iter().all(|count| *count > 0), "{seen:?}");
}

#[test]
fn a_rule_that_is_reported_as_shadowed_never_decides() {
    let mut reported = 0;
    for seed in seeds(4) {
        let world = World::generate(seed);
        let compiled = compile_world(&world).expect("compiles");
        let mut random = Random::new(seed);
        let shadowed: Vec<Vec<Decider>> = compiled.iter().map(|compiled| bridge::shadowed(&compiled.rules)).collect();
        reported += shadowed.iter().flatten().count();
        for _ in 0..PACKETS {
            let at = random.below(world.pods.len());
            let packet = world.packet(&world.pods[at], &mut random);
            let outcome = Oracle::new(&world).evaluate(&world.pods[at], &packet);
            assert!(
                !shadowed[at].contains(&outcome.verdict.decider),
                "seed {seed}: {:?} is reported as shadowed and decides {packet}\n{}",
                outcome.verdict.decider,
                picture(&world, &world.pods[at])
            );
        }
    }
    println!("{reported} shadowed rules reported");
    assert!(!is_full_run() || reported > 0);
}

/// What is asked of the compiler beside the lookup.
#[derive(Clone, Copy)]
struct Ask {
    explanation: bool,
    any_port: bool,
}

impl Ask {
    fn of(number: usize) -> Self {
        Self { explanation: number.is_multiple_of(EXPLAIN_EVERY), any_port: number.is_multiple_of(ANY_PORT_EVERY) }
    }
}

/// What the oracle says of a packet.
pub(crate) struct Truth {
    ask: Ask,
    pub(crate) outcome: Outcome,
    pub(crate) any_port: Option<AnyPort>,
}

impl Truth {
    fn of(world: &World, pod: &Pod, packet: &Packet, ask: Ask) -> Self {
        let oracle = Oracle::new(world);
        Self {
            ask,
            outcome: oracle.evaluate(pod, packet),
            any_port: ask.any_port.then(|| oracle.evaluate_any_port(pod, packet.destination, packet.protocol)),
        }
    }
}

fn agree(world: &World, compiled: &Compiled, packet: &Packet, truth: &Truth) -> Result<(), String> {
    let outcome = &truth.outcome;
    let names = world.names_of(packet.destination);
    let plain = names.is_empty().then(|| ("as without names", compiled.answer(packet)));
    let joined = [("by name", Through::Names), ("by place", Through::UnionPlaces)]
        .map(|(way, through)| (way, compiled.answer_named(packet, &names, through)));
    for (way, answer) in plain.into_iter().chain(joined) {
        if answer != expected(outcome) {
            return Err(format!("asked {way} the table says {answer:#?}\nthe oracle says {outcome:#?}"));
        }
    }
    if truth.ask.explanation {
        let explanation = explained(compiled, &names, packet, Some(packet.port));
        if compiled.explained(&explanation) != Some(expected(outcome)) {
            return Err(format!("the explanation says {explanation}\nthe oracle says {outcome:#?}"));
        }
    }
    truth.any_port.as_ref().map_or(Ok(()), |truth| agree_any_port(&names, compiled, packet, truth))
}

fn explained(compiled: &Compiled, names: &[&str], packet: &Packet, port: Option<u16>) -> Explanation {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    explain_named(&compiled.rules, packet.destination, &names, packet.protocol, port)
}

/// §3.6, of the table and of an explanation without a port. With names, the table may leave open what could be told, because it looks at
/// prefixes and names one after the other; it never tells what depends.
fn agree_any_port(names: &[&str], compiled: &Compiled, packet: &Packet, truth: &AnyPort) -> Result<(), String> {
    let answer = compiled.answer_named_any_port(packet.destination, packet.protocol, names);
    let table_agrees = match truth {
        AnyPort::Same(outcome) if names.is_empty() => answer == Some(expected(outcome)),
        AnyPort::Same(outcome) => answer.as_ref().is_none_or(|(said, audit)| {
            *said == outcome.verdict && audit.as_ref().is_none_or(|_| *audit == outcome.audit)
        }),
        AnyPort::SameButAudit(verdict) => answer.as_ref().is_none_or(|(said, _)| said == verdict),
        AnyPort::Depends => answer.is_none(),
    };
    let explanation = explained(compiled, names, packet, None);
    let explained = compiled.explained(&explanation).map(|(verdict, _)| verdict);
    // Without ports there is nothing to depend on.
    let has_ports = matches!(packet.protocol, 1 | 6 | 17 | 58 | 132);
    if table_agrees && (!has_ports || explained.as_ref() == truth.verdict()) {
        return Ok(());
    }
    Err(format!(
        "for any port the table says {answer:#?}\nthe explanation says {explanation}\nthe oracle says {truth:#?}"
    ))
}

/// Runs `body`, a panic being a failure like any other.
pub(crate) fn caught<T>(body: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!("panic: {}", text.unwrap_or_else(|| "no message".to_owned())))
    })
}

/// Whether `world` still disagrees on `packet`.
fn disagrees(world: &World, pod: &Pod, packet: &Packet, ask: Ask) -> Result<(), String> {
    caught(|| {
        let Ok(set) = read_world(world) else { return Ok(()) };
        let compiled = compile_pod(&set, world, pod)?;
        agree(world, &compiled, packet, &Truth::of(world, pod, packet, ask))
    })
}

fn report(world: &World, pod: &Pod, packet: &Packet, ask: Ask, message: &str) -> ! {
    let small = shrink(world, |world| disagrees(world, pod, packet, ask).is_err());
    let message = disagrees(&small, pod, packet, ask).err().unwrap_or_else(|| message.to_owned());
    panic!("EGRESS_SEED={} {packet}\n{message}\n{}", world.seed, picture(&small, pod));
}

/// Reports a world that cannot be read or compiled.
fn give_up(world: &World, message: &str) -> ! {
    let kind = |message: &str| message.split(':').nth(1).unwrap_or_default().to_owned();
    let fails = |world: &World| caught(|| compile_world(world)).is_err_and(|other| kind(&other) == kind(message));
    let small = shrink(world, fails);
    let message = caught(|| compile_world(&small)).err().unwrap_or_else(|| message.to_owned());
    let pod = small.pods.first().cloned().unwrap_or_else(|| Pod::new("default", "none"));
    panic!("EGRESS_SEED={}\n{message}\n{}", world.seed, picture(&small, &pod));
}

#[test]
fn an_object_with_a_field_that_nobody_knows_is_refused_and_the_others_are_read() {
    for seed in seeds(40) {
        let world = World::generate(seed);
        let random = &mut Random::new(seed);
        let mut objects = world.objects(random);
        let Some(broken) = objects.iter_mut().find(|object| object["kind"] != "Namespace") else {
            continue;
        };
        broken["spec"]["egres"] = serde_json::json!([]);
        let text: Vec<String> = objects.iter().map(|object| egress_reference::to_yaml(object, random)).collect();
        let documents = document::read(&text.join("---\n"));
        assert_eq!(documents.objects.len(), objects.len() - 1, "seed {seed}");
        assert!(documents.problems.iter().all(|problem| problem.path.contains("egres")), "{:?}", documents.problems);
        assert!(!documents.problems.is_empty());
    }
}
