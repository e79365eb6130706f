//! What is known of a name over its life: lifetimes, sources, and what is kept when lookups fail.

use egress_policy::name::NamePattern;

use crate::names::registry::Limits;

use super::*;

const LIFETIMES: Lifetimes =
    Lifetimes { min: Duration::from_secs(5), max: Duration::from_hours(1), grace: Duration::from_secs(30) };
const POLLED: (u32, Source) = (1, Source::Polled);
const LEARNED: (u32, Source) = (1, Source::Learned);

fn at(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

fn names(texts: &[&str]) -> BTreeSet<Arc<str>> {
    texts.iter().map(|text| Arc::from(*text)).collect()
}

fn found(addresses: &[&str], ttl: u32) -> Vec<Found> {
    addresses.iter().map(|address| Found { address: address.parse().unwrap(), ttl }).collect()
}

fn registry(patterns: &[&str]) -> Registry {
    let mut registry = Registry::new(Limits::default());
    update(&mut registry, patterns);
    registry
}

fn update(registry: &mut Registry, patterns: &[&str]) {
    let patterns: Vec<NamePattern> = patterns.iter().map(|text| NamePattern::parse(text).unwrap()).collect();
    registry.update(&patterns.iter().collect(), LIFETIMES, at(0));
}

fn live(known: &Known, name: &str, now: Moment) -> Vec<String> {
    known.name(name).into_iter().flat_map(|name| name.live(now)).map(|(address, _)| address.to_string()).collect()
}

/// A polled name with one address of each family, answered at 0 with a TTL of 60 s, the next lookups due at 60.
fn polled() -> (Known, Registry) {
    let mut known = Known::default();
    known.poll(&names(&["a.com"]), at(0));
    for (family, address) in [(Family::V4, "192.0.2.1"), (Family::V6, "2001:db8::1")] {
        known.answered("a.com", POLLED, &found(&[address], 60), LIFETIMES, at(0));
        known.lookup_answered("a.com", family, None, at(0));
        known.lookup_due("a.com", family, at(60));
    }
    (known, registry(&["a.com"]))
}

#[test]
fn each_address_has_its_own_end_and_a_changed_answer_adds_to_the_set() {
    // §5.3, §5.5
    let mut known = Known::default();
    known.answered("a.com", POLLED, &found(&["192.0.2.1"], 60), LIFETIMES, at(0));
    known.answered("a.com", POLLED, &found(&["192.0.2.2"], 10), LIFETIMES, at(60));
    assert_eq!(live(&known, "a.com", at(89)), ["192.0.2.1", "192.0.2.2"]);
    assert_eq!(live(&known, "a.com", at(90)), ["192.0.2.2"]);
    assert_eq!(live(&known, "a.com", at(100)), [""; 0]);
}

#[test]
fn a_shorter_answer_does_not_take_life_from_a_longer_one_and_both_sources_are_named() {
    let mut known = Known::default();
    known.answered("a.com", POLLED, &found(&["192.0.2.1"], 600), LIFETIMES, at(0));
    known.answered("a.com", LEARNED, &found(&["192.0.2.1"], 5), LIFETIMES, at(1));
    let held = known.name("a.com").unwrap().addresses.values().next().unwrap();
    assert_eq!(*held, Held { end: at(630), polled: true, learned: true });
}

#[test]
fn a_failing_lookup_keeps_the_addresses_for_as_long_as_it_fails() {
    // §5.4
    let (mut known, registry) = polled();
    known.lookup_failed("a.com", Family::V4, "SERVFAIL".to_owned());
    let mut now = at(60);
    while now < at(7200) {
        known.renew(&registry, LIFETIMES, now);
        assert_eq!(
            live(&known, "a.com", now),
            if now < at(90) { vec!["192.0.2.1", "2001:db8::1"] } else { vec!["192.0.2.1"] }
        );
        known.lookup_due("a.com", Family::V6, now + at(60));
        now += at(1);
    }
}

#[test]
fn what_is_renewed_is_what_ends_soon() {
    let (mut known, registry) = polled();
    known.lookup_failed("a.com", Family::V4, "SERVFAIL".to_owned());
    assert_eq!(known.renew(&registry, LIFETIMES, at(61)), []);
    let renewed = known.renew(&registry, LIFETIMES, at(85));
    // The IPv6 lookup is overdue, which is no answer either.
    assert_eq!(renewed, [ToStore { id: 1, answers: found(&["192.0.2.1", "2001:db8::1"], 0) }]);
    assert_eq!(known.renew(&registry, LIFETIMES, at(86)), []);
}

#[test]
fn a_failure_does_not_bring_back_what_had_ended_before_the_last_answer() {
    let (mut known, registry) = polled();
    known.answered("a.com", POLLED, &found(&["192.0.2.2"], 10), LIFETIMES, at(91));
    known.lookup_answered("a.com", Family::V4, None, at(91));
    known.lookup_due("a.com", Family::V6, at(600));
    known.lookup_failed("a.com", Family::V4, "SERVFAIL".to_owned());
    assert_eq!(known.renew(&registry, LIFETIMES, at(92)), []);
    assert_eq!(known.renew(&registry, LIFETIMES, at(130)), [ToStore { id: 1, answers: found(&["192.0.2.2"], 0) }]);
}

#[test]
fn a_name_that_is_answered_in_time_is_not_renewed() {
    let (mut known, registry) = polled();
    for family in Family::ALL {
        known.lookup_due("a.com", family, at(120));
    }
    assert_eq!(known.renew(&registry, LIFETIMES, at(88)), []);
    assert_eq!(live(&known, "a.com", at(90)), [""; 0]);
}

#[test]
fn an_absence_lets_the_addresses_end_even_if_lookups_fail_afterwards() {
    // §5.4
    let (mut known, registry) = polled();
    known.lookup_answered("a.com", Family::V4, Some(Absence::NoName), at(60));
    known.lookup_failed("a.com", Family::V4, "SERVFAIL".to_owned());
    known.lookup_due("a.com", Family::V6, at(600));
    assert_eq!(known.renew(&registry, LIFETIMES, at(88)), []);
    let question = known.name("a.com").unwrap().question(Family::V4).unwrap();
    assert_eq!(
        (question.absence, question.failures, question.error.as_deref()),
        (Some(Absence::NoName), 1, Some("SERVFAIL"))
    );
}

#[test]
fn an_answer_ends_the_count_of_failures() {
    let (mut known, _) = polled();
    for _ in 0..3 {
        known.lookup_failed("a.com", Family::V4, "silence".to_owned());
    }
    assert_eq!(known.name("a.com").unwrap().question(Family::V4).unwrap().failures, 3);
    known.lookup_answered("a.com", Family::V4, None, at(70));
    let question = known.name("a.com").unwrap().question(Family::V4).unwrap();
    assert_eq!((question.answered, question.failures, &question.error), (Some(at(70)), 0, &None));
}

#[test]
fn what_the_kernel_held_before_a_restart_is_kept_while_the_first_lookups_fail() {
    let mut known = Known::default();
    known.recover("a.com", 1, "192.0.2.1".parse().unwrap(), at(103), at(100));
    known.poll(&names(&["a.com"]), at(100));
    known.lookup_failed("a.com", Family::V4, "silence".to_owned());
    let renewed = known.renew(&registry(&["a.com"]), LIFETIMES, at(101));
    assert_eq!(renewed, [ToStore { id: 1, answers: found(&["192.0.2.1"], 0) }]);
}

#[test]
fn a_name_that_is_not_polled_any_more_ends_by_itself() {
    let (mut known, registry) = polled();
    known.poll(&names(&[]), at(61));
    known.lookup_failed("a.com", Family::V4, "SERVFAIL".to_owned());
    assert_eq!(known.renew(&registry, LIFETIMES, at(88)), []);
    known.sweep(at(89) + REMEMBERED);
    assert!(known.name("a.com").is_some());
    known.sweep(at(90) + REMEMBERED);
    assert!(known.name("a.com").is_none() && known.names_of("192.0.2.1".parse().unwrap()).next().is_none());
}

#[test]
fn a_polled_name_stays_without_any_address() {
    let (mut known, _) = polled();
    known.sweep(at(100_000));
    assert!(known.name("a.com").unwrap().addresses.is_empty());
}

#[test]
fn addresses_go_along_when_their_name_gets_a_place_of_its_own_and_when_it_loses_it() {
    let mut registry = registry(&["*.foo.com"]);
    let id = registry.id_of("x.foo.com").unwrap();
    let mut known = Known::default();
    known.answered("x.foo.com", (id, Source::Learned), &found(&["192.0.2.1"], 300), LIFETIMES, at(0));
    known.answered("y.foo.com", (id, Source::Learned), &found(&["192.0.2.2"], 300), LIFETIMES, at(0));
    known.answered("gone.foo.com", (id, Source::Learned), &found(&["192.0.2.3"], 5), LIFETIMES, at(0));
    assert_eq!(known.moved(&registry, LIFETIMES, at(30)), []);

    update(&mut registry, &["*.foo.com", "x.foo.com", "gone.foo.com"]);
    let new = registry.id_of("x.foo.com").unwrap();
    assert_ne!(new, id);
    // 330 s in all, 100 have passed, the kernel adds 30.
    let expected = [ToStore { id: new, answers: found(&["192.0.2.1"], 200) }];
    assert_eq!(known.moved(&registry, LIFETIMES, at(100)), expected);
    assert_eq!(known.moved(&registry, LIFETIMES, at(100)), []);

    // And back under the wildcard when the exact name is gone.
    update(&mut registry, &["*.foo.com"]);
    assert_eq!(known.moved(&registry, LIFETIMES, at(100)), [ToStore { id, ..expected[0].clone() }]);
}

#[test]
fn an_address_of_several_names_is_found_under_all() {
    // §5.9
    let mut known = Known::default();
    known.answered("a.com", POLLED, &found(&["192.0.2.1"], 60), LIFETIMES, at(0));
    known.answered("b.com", (2, Source::Learned), &found(&["192.0.2.1"], 60), LIFETIMES, at(0));
    let names: Vec<&str> = known.names_of("192.0.2.1".parse().unwrap()).map(|(name, _)| &**name).collect();
    assert_eq!(names, ["a.com", "b.com"]);
}

#[test]
fn learned_names_beyond_the_bound_go_the_stalest_first_and_polled_ones_stay() {
    let mut known = Known::default();
    known.poll(&names(&["polled.com"]), at(0));
    known.answered("polled.com", POLLED, &found(&["192.0.2.1"], 60), LIFETIMES, at(0));
    for number in 0..MAX_LEARNED {
        let address = std::net::Ipv4Addr::from_bits(u32::try_from(number).unwrap());
        let found = [Found { address: address.into(), ttl: 60 }];
        known.answered(&format!("{number}.foo.com"), LEARNED, &found, LIFETIMES, at(1));
    }
    known.answered("0.foo.com", LEARNED, &found(&["192.0.2.9"], 60), LIFETIMES, at(2));
    assert_eq!(known.evicted, 0);
    known.answered("new.foo.com", LEARNED, &found(&["192.0.2.9"], 60), LIFETIMES, at(3));
    assert_eq!(known.evicted, 1);
    assert!(known.name("polled.com").is_some() && known.name("0.foo.com").is_some());
    assert_eq!(known.iter().count(), MAX_LEARNED + 1);
}

#[test]
fn a_name_can_have_thousands_of_addresses_and_the_ones_that_end_first_go() {
    let mut known = Known::default();
    let address = |number: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(number));
    let many: Vec<Found> = (0..4096).map(|number| Found { address: address(number), ttl: 100 + number % 7 }).collect();
    known.answered("a.com", POLLED, &many, LIFETIMES, at(0));
    assert_eq!((known.evicted, known.name("a.com").unwrap().addresses.len()), (0, 4096));
    known.answered("a.com", POLLED, &[Found { address: address(9999), ttl: 500 }], LIFETIMES, at(0));
    assert_eq!((known.evicted, known.name("a.com").unwrap().addresses.len()), (1, 4096));
    assert!(known.names_of(address(0)).next().is_none() && known.names_of(address(9999)).next().is_some());
}
