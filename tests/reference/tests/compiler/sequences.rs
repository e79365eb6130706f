//! Sequences of edits: what is followed from version to version says what the oracle says of each, whichever way it was compiled.

use std::collections::BTreeMap;

use egress_policy::compile::Limits;
use egress_policy::follow::{Followed, Next};
use egress_policy::model::{Config, NodeContext, PolicySet};
use egress_reference::{Oracle, Peer, Random, Size, World};

use crate::bridge::{Compiled, Through, expected, identity, node_context, picture, read_world};
use crate::settings::{is_full_run, seeds};

/// Edits one after another.
const EDITS: u64 = 12;
/// Packets that are asked about after each, of each pod.
const PACKETS: usize = 60;

/// How often a version was the same, edited, and compiled as a whole.
#[derive(Debug, Default)]
struct Ways {
    same: usize,
    edited: usize,
    whole: usize,
}

/// A list as the agent keeps it, with what it depends on.
struct Kept {
    basis: (Config, NodeContext),
    followed: Followed,
}

impl Kept {
    fn next(kept: Option<Self>, set: &PolicySet, world: &World, pod: usize, ways: &mut Ways) -> Self {
        let node = node_context(&world.node);
        let selection = set.selected(&identity(&world.pods[pod]));
        let kept = kept.filter(|kept| kept.basis.0 == set.config && kept.basis.1 == node);
        let basis = (set.config.clone(), node.clone());
        let whole = || {
            let list = set.rule_list_of(&selection, &node).with_vacancies(Limits::default().rules);
            Followed::new(list, set, &selection, &Limits::default()).expect("it fits").0
        };
        let (followed, way) = match kept.map(|kept| kept.followed.follow(set, &selection, &node)) {
            Some(Next::Same(followed)) => (followed, &mut ways.same),
            Some(Next::Changed(followed)) => (followed, &mut ways.edited),
            Some(Next::Whole) | None => (whole(), &mut ways.whole),
        };
        *way += 1;
        Self { basis, followed }
    }
}

/// Rules about names reach everywhere, so half of the sequences are without.
fn without_names(mut world: World) -> World {
    for policy in &mut world.policies {
        policy.rules.retain(|rule| !matches!(rule.peer, Peer::Dns(_)));
    }
    world.policies.retain(|policy| !policy.rules.is_empty());
    world
}

#[test]
fn every_version_of_a_sequence_of_edits_says_what_the_oracle_says_of_it() {
    let mut ways = Ways::default();
    for seed in seeds(50) {
        let size = Size { policies: 6, rules: 40, pods: 3 };
        let only_prefixes = |world| if seed.is_multiple_of(2) { without_names(world) } else { world };
        let mut world = only_prefixes(World::generate_sized(seed, &size));
        let mut kept: BTreeMap<String, Kept> = BTreeMap::new();
        for edit in 0..EDITS {
            let set = read_world(&world).expect("valid");
            let mut random = Random::new(seed ^ edit << 32);
            for at in 0..world.pods.len() {
                let pod = &world.pods[at];
                let name = format!("{pod:?}");
                let next = Kept::next(kept.remove(&name), &set, &world, at, &mut ways);
                let list = set.rule_list(&identity(pod), &node_context(&world.node));
                let mut there = next.followed.list().as_ref().clone();
                let compiled = Compiled::of(there.clone(), next.followed.table(), &set);
                there.rules.retain(|rule| !rule.is_vacant());
                assert_eq!(there, list, "seed {seed}, edit {edit}");
                for _ in 0..PACKETS {
                    let packet = world.packet(pod, &mut random);
                    let names = world.names_of(packet.destination);
                    let outcome = Oracle::new(&world).evaluate(pod, &packet);
                    let answer = compiled.answer_named(&packet, &names, Through::UnionPlaces);
                    assert!(
                        answer == expected(&outcome),
                        "EGRESS_SEED={seed}, edit {edit}: of {packet} the table says {answer:#?}\nthe oracle says \
                         {outcome:#?}\n{}",
                        picture(&world, pod)
                    );
                }
                kept.insert(name, next);
            }
            world = only_prefixes(world.edited(seed * 1000 + edit));
        }
    }
    println!("{ways:?}");
    assert!(!is_full_run() || ways.same.min(ways.edited).min(ways.whole) > 5, "{ways:?}");
}
