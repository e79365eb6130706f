//! Ids of places: stable while they live, in quarantine after it, and never two for one.

use egress_policy::name::{NamePattern, Wildcard};
use proptest::prelude::*;

use super::*;

const LIFETIMES: Lifetimes =
    Lifetimes { min: Duration::from_secs(5), max: Duration::from_mins(1), grace: Duration::from_secs(10) };
/// 60 + 10 + 30 for a query under way.
const QUARANTINE: Duration = Duration::from_secs(100);

fn at(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

fn places(texts: &[&str]) -> Places {
    let patterns: Vec<NamePattern> = texts.iter().map(|text| NamePattern::parse(text).unwrap()).collect();
    patterns.iter().collect()
}

/// The place of an exact name.
fn place(name: &str) -> Place {
    Place::of_name(name)
}

fn small(suffixes: usize, ids: u32) -> Registry {
    Registry::new(Limits { suffixes, ids })
}

#[test]
fn a_name_has_the_id_of_its_longest_suffix_and_of_the_labels_in_front() {
    let mut registry = Registry::new(Limits::default());
    registry.update(&places(&["*.foo.com", "a.foo.com", "**.org"]), LIFETIMES, at(0));
    let found = |name: &str| registry.id_of(name).and_then(|id| registry.pattern(id));
    assert_eq!(found("foo.com"), None);
    assert_eq!(found("b.foo.com").as_deref(), Some("*.foo.com"));
    assert_eq!(found("c.b.foo.com"), None);
    assert_eq!(found("a.foo.com").as_deref(), Some("a.foo.com"));
    // The longest suffix is a.foo.com, and nothing is said of a label in front of it.
    assert_eq!(found("x.a.foo.com"), None);
    assert_eq!(found("afoo.com"), None);
    assert_eq!(found("com"), None);
    assert_eq!(registry.id_of("x.org"), registry.id_of("y.org"));
    assert_ne!(registry.id_of("x.org"), registry.id_of("y.x.org"));
    assert_eq!(found("y.x.org").as_deref(), Some("**.org"));
}

#[test]
fn an_id_that_was_given_up_is_free_again_only_after_its_quarantine() {
    let mut registry = small(10, 3);
    let first = registry.update(&places(&["a.com"]), LIFETIMES, at(0));
    assert_eq!(first.added, [(1, place("a.com"))]);
    assert_eq!(registry.update(&places(&["b.com"]), LIFETIMES, at(1)).added, [(2, place("b.com"))]);

    let full = registry.update(&places(&["b.com", "c.com"]), LIFETIMES, QUARANTINE);
    assert_eq!(full.left_out, [place("c.com")]);
    let freed = registry.update(&places(&["b.com", "c.com"]), LIFETIMES, at(1) + QUARANTINE);
    assert_eq!((freed.added, freed.reused), (vec![(1, place("c.com"))], vec![1]));
    assert_eq!(registry.place(1), Some(&place("c.com")));
}

#[test]
fn a_place_that_comes_back_in_time_has_its_id_again() {
    let mut registry = small(10, 10);
    registry.update(&places(&["a.com", "b.com"]), LIFETIMES, at(0));
    let before = registry.id(&place("a.com"));
    let gone = registry.update(&places(&["b.com"]), LIFETIMES, at(1));
    assert_eq!(gone.removed, [(before.unwrap(), place("a.com"))]);
    assert_eq!(registry.id_of("a.com"), None);
    // Events of connections that are still there can be named.
    assert_eq!(registry.place(before.unwrap()), Some(&place("a.com")));
    let back = registry.update(&places(&["a.com", "b.com"]), LIFETIMES, at(2));
    assert_eq!((registry.id(&place("a.com")), back.reused), (before, vec![]));
}

#[test]
fn a_full_trie_keeps_what_it_has_and_says_what_is_left_out() {
    let mut registry = small(1, 100);
    registry.update(&places(&["b.com"]), LIFETIMES, at(0));
    let update = registry.update(&places(&["a.com", "b.com", "*.b.com"]), LIFETIMES, at(0));
    assert_eq!(update.left_out, [place("a.com")]);
    assert!(registry.id_of("b.com").is_some() && registry.id_of("x.b.com").is_some());
    assert_eq!(registry.usage()[0], (1, 1));
}

#[test]
fn a_longer_lifetime_of_before_counts_for_the_quarantine() {
    let mut registry = small(10, 2);
    let long = Lifetimes { max: Duration::from_hours(1), ..LIFETIMES };
    registry.update(&places(&["a.com"]), long, at(0));
    registry.update(&places(&[]), LIFETIMES, at(1));
    assert_eq!(registry.update(&places(&["b.com"]), LIFETIMES, at(3000)).left_out, [place("b.com")]);
    assert_eq!(registry.update(&places(&["b.com"]), LIFETIMES, at(3671)).reused, [1]);
}

#[test]
fn what_the_next_agent_reads_back_is_the_same_and_free_ids_wait() {
    let limits = Limits { suffixes: 10, ids: 20 };
    let mut before = Registry::new(limits);
    let wanted = places(&["a.com", "*.a.com", "b.org", "*.b.org", "*.c.net"]);
    before.update(&wanted, LIFETIMES, at(0));
    before.update(&places(&["a.com", "*.a.com", "*.c.net"]), LIFETIMES, at(1));

    // An address still has an id that is above all of the trie.
    let held = [Slot { id: 9, expiry: 50 }];
    let mut after = Registry::recover(limits, before.entries(), held, LIFETIMES, at(10));
    assert_eq!(after.entries(), before.entries());
    assert_eq!(after.update(&places(&["a.com", "*.a.com", "*.c.net"]), LIFETIMES, at(11)), Update::default());
    let more = places(&["a.com", "*.a.com", "*.c.net", "new.com"]);
    assert_eq!(after.update(&more, LIFETIMES, at(12)).added, [(10, place("new.com"))]);
    let later = places(&["a.com", "*.a.com", "*.c.net", "new.com", "newer.com"]);
    let update = after.update(&later, LIFETIMES, at(10) + QUARANTINE);
    assert!(update.reused.len() == 1 && update.added[0].0 < 10, "{update:?}");
}

fn pattern() -> impl Strategy<Value = NamePattern> {
    let label = prop::sample::select(vec!["a", "b", "c"]);
    let suffix = prop::collection::vec(label, 1..4).prop_map(|labels| labels.join("."));
    let wildcard = prop::sample::select(vec![Wildcard::Exact, Wildcard::OneLabel, Wildcard::AnyDepth]);
    (wildcard, suffix).prop_map(|(wildcard, name)| NamePattern { wildcard, name })
}

fn patterns() -> impl Strategy<Value = Vec<NamePattern>> {
    prop::collection::vec(pattern(), 0..10)
}

proptest! {
    #[test]
    fn ids_are_stable_and_never_reused_early(steps in prop::collection::vec((patterns(), 0u64..80), 1..20)) {
        let mut registry = small(100, 40);
        // What each id meant, and when that ended.
        let mut meant: HashMap<u32, (Place, Option<Moment>)> = HashMap::new();
        let mut now = at(0);
        for (wanted, pause) in steps {
            now += at(pause);
            let wanted: Places = wanted.iter().collect();
            let update = registry.update(&wanted, LIFETIMES, now);
            for (id, place) in &update.removed {
                meant.insert(*id, (place.clone(), Some(now)));
            }
            for (id, place) in &update.added {
                if let Some((before, ended)) = meant.insert(*id, (place.clone(), None)) {
                    let ended = ended.expect("a living id was given away");
                    prop_assert!(before == *place || now >= ended + QUARANTINE);
                    prop_assert_eq!(before != *place, update.reused.contains(id));
                }
            }
            let living: BTreeSet<Place> = registry.living().map(|(_, place)| place.clone()).collect();
            let left_out: BTreeSet<Place> = update.left_out.iter().cloned().collect();
            prop_assert_eq!(&living | &left_out, wanted.iter().collect());
            for (id, place) in registry.living() {
                prop_assert_eq!(&meant[&id], &(place.clone(), None));
            }
        }
    }

    #[test]
    fn a_name_has_an_id_exactly_if_a_pattern_matches_and_all_names_of_an_id_match_the_same(
        wanted in patterns(),
        names in prop::collection::vec(prop::collection::vec("[a-d]", 1..6), 1..10),
    ) {
        let mut registry = Registry::new(Limits::default());
        registry.update(&wanted.iter().collect(), LIFETIMES, at(0));
        let mut of_id: HashMap<u32, Vec<&NamePattern>> = HashMap::new();
        for name in names.iter().map(|labels| labels.join(".")) {
            let matching: Vec<&NamePattern> = wanted.iter().filter(|pattern| pattern.matches(&name)).collect();
            let id = registry.id_of(&name);
            prop_assert_eq!(id.is_some(), !matching.is_empty(), "{}", name);
            if let Some(id) = id {
                let shown = registry.pattern(id).unwrap();
                prop_assert!(matching.iter().any(|pattern| pattern.to_string() == shown));
                prop_assert_eq!(of_id.entry(id).or_insert_with(|| matching.clone()), &matching);
            }
        }
    }

    #[test]
    fn the_trie_is_what_the_patterns_ask_for(wanted in patterns()) {
        let mut registry = Registry::new(Limits::default());
        let places: Places = wanted.iter().collect();
        registry.update(&places, LIFETIMES, at(0));
        let expected: Vec<_> = places.entries(|place| registry.id(place).unwrap()).collect();
        prop_assert_eq!(registry.entries(), expected);
    }

    #[test]
    fn a_restart_changes_nothing(wanted in patterns(), next in patterns()) {
        let mut registry = Registry::new(Limits::default());
        registry.update(&wanted.iter().collect(), LIFETIMES, at(0));
        let mut recovered = Registry::recover(Limits::default(), registry.entries(), [], LIFETIMES, at(1));
        let next: Places = next.iter().collect();
        let (one, other) = (registry.update(&next, LIFETIMES, at(2)), recovered.update(&next, LIFETIMES, at(2)));
        prop_assert_eq!(one.removed, other.removed);
        prop_assert_eq!(one.left_out, other.left_out);
    }
}
