//! The directory: what it tells the kernel and people, step by step with times of its own.

use std::time::Duration;

use egress_policy::name::NamePattern;

use crate::names::answer::Absence;
use crate::names::known::Source;
use crate::names::registry::Limits;

use super::*;

fn at(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

fn update(directory: &mut Directory, patterns: &[&str]) -> Update {
    let patterns: Vec<NamePattern> = patterns.iter().map(|text| NamePattern::parse(text).unwrap()).collect();
    directory.update(&patterns.iter().collect(), Lifetimes::default(), at(0))
}

/// The names are polled, the wildcard is not.
fn directory() -> Shared {
    let shared = Shared::new(Registry::new(Limits::default()));
    update(&mut shared.lock(), &["a.com", "b.com", "*.foo.com"]);
    shared.lock().known.poll(&["a.com", "b.com"].map(Arc::from).into(), at(0));
    shared
}

fn answer(directory: &mut Directory, name: &str, address: &str) {
    let id = directory.registry.id_of(name).unwrap();
    let found = [Found { address: address.parse().unwrap(), ttl: 60 }];
    directory.known.answered(name, (id, Source::Polled), &found, Lifetimes::default(), at(0));
    directory.known.lookup_answered(name, Family::V4, None, at(0));
}

fn texts(directory: &Directory, now: Moment) -> Vec<String> {
    directory.problems(now).iter().map(ToString::to_string).collect()
}

#[test]
fn a_name_is_no_problem_before_its_first_answer_nor_with_an_address() {
    let shared = directory();
    let mut directory = shared.lock();
    assert_eq!(texts(&directory, at(0)), [""; 0]);
    answer(&mut directory, "a.com", "192.0.2.1");
    directory.known.lookup_answered("a.com", Family::V6, Some(Absence::NoRecords), at(0));
    assert_eq!(texts(&directory, at(1)), [""; 0]);
}

#[test]
fn a_failing_name_is_a_problem_at_once_without_addresses_and_after_three_times_with_them() {
    let shared = directory();
    let mut directory = shared.lock();
    answer(&mut directory, "a.com", "192.0.2.1");
    for _ in 0..2 {
        directory.known.lookup_failed("a.com", Family::V4, "silence".to_owned());
    }
    directory.known.lookup_failed("b.com", Family::V6, "silence".to_owned());
    assert_eq!(
        texts(&directory, at(1)),
        [
            "dns, b.com: the lookup of its AAAA records fails: silence (it has no address, so rules about it match nothing; the agent goes on asking)"
        ]
    );
    directory.known.lookup_failed("a.com", Family::V4, "silence".to_owned());
    let both = texts(&directory, at(1));
    assert!(both.len() == 2 && both[0].contains("its last addresses stay in force"), "{both:?}");
}

#[test]
fn a_name_that_does_not_exist_is_a_problem_when_its_addresses_have_ended() {
    let shared = directory();
    let mut directory = shared.lock();
    answer(&mut directory, "a.com", "192.0.2.1");
    for family in Family::ALL {
        directory.known.lookup_answered("a.com", family, Some(Absence::NoName), at(60));
    }
    assert_eq!(texts(&directory, at(89)), [""; 0]);
    let gone = texts(&directory, at(90));
    assert!(gone.len() == 1 && gone[0].starts_with("dns, a.com: the name does not exist (NXDOMAIN)"), "{gone:?}");
}

#[test]
fn an_event_is_called_by_the_name_of_its_id_and_not_by_another_name_of_the_address() {
    let shared = directory();
    let mut directory = shared.lock();
    answer(&mut directory, "a.com", "192.0.2.1");
    answer(&mut directory, "b.com", "192.0.2.1");
    let [a, b, foo] = ["a.com", "b.com", "x.foo.com"].map(|name| directory.registry.id_of(name).unwrap());
    let address = "192.0.2.1".parse().unwrap();
    let names = [a, b, foo, 0, 99].map(|id| directory.name_of(address, id));
    let expected = [Some("a.com"), Some("b.com"), Some("*.foo.com"), None, None];
    assert_eq!(names.each_ref().map(Option::as_deref), expected);
}

#[test]
fn internal_and_special_addresses_are_counted_and_left_out_unless_they_are_allowed() {
    let shared = directory();
    let mut directory = shared.lock();
    let all = [
        "192.0.2.1",
        "10.1.2.3",
        "127.0.0.1",
        "224.0.0.1",
        "0.0.0.0",
        "2001:db8::1",
        "fd00::1",
        "::1",
        "fe80::1",
        "::",
    ];
    let found = all.map(|address| Found { address: address.parse().unwrap(), ttl: 5 });
    let mut kept = |internal| {
        directory.bounds.internal = internal;
        directory.external(&found).iter().map(|found| found.address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(kept(None), all);
    let prefixes = ["10.0.0.0/8", "fd00::/8"].map(|prefix| prefix.parse().unwrap());
    assert_eq!(kept(Some(prefixes.to_vec())), ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(kept(Some(Vec::new())), ["192.0.2.1", "10.1.2.3", "2001:db8::1", "fd00::1"]);
    assert_eq!(directory.figures.internal, 8 + 6);
}

#[test]
fn names_without_room_and_a_full_map_are_problems_until_there_is_room() {
    let shared = Shared::new(Registry::new(Limits { suffixes: 1, ids: 10 }));
    let mut directory = shared.lock();
    update(&mut directory, &["a.com", "b.com"]);
    let problems = texts(&directory, at(0));
    assert!(problems.len() == 1 && problems[0].starts_with("dns, b.com: there is no room"), "{problems:?}");
    assert!(problems[0].contains("1 of 1 suffixes"), "{problems:?}");
    update(&mut directory, &["a.com"]);
    assert_eq!(texts(&directory, at(0)), [""; 0]);

    (directory.figures.addresses, directory.figures.addresses_limit) = (89, 100);
    assert_eq!(texts(&directory, at(0)), [""; 0]);
    directory.figures.addresses = 90;
    assert!(texts(&directory, at(0))[0].contains("map of addresses is nearly full"));
}

#[test]
fn exact_names_keep_what_the_kernel_held_before_a_restart() {
    let shared = directory();
    let mut directory = shared.lock();
    let [a, b, foo] = ["a.com", "b.com", "x.foo.com"].map(|name| directory.registry.id_of(name).unwrap());
    let slot = |id, expiry| Slot { id, expiry };
    let held = [
        ("192.0.2.1".parse().unwrap(), vec![slot(a, 50), slot(foo, 90), slot(99, 90)]),
        ("2001:db8::1".parse().unwrap(), vec![slot(a, 10), slot(b, 60)]),
    ];
    directory.recover(&held, at(10));
    let live = |name: &str| -> Vec<String> {
        let name = directory.known.name(name).into_iter().flat_map(|name| name.live(at(10)));
        name.map(|(address, held)| format!("{address} {}", held.end.as_secs())).collect()
    };
    assert_eq!((live("a.com"), live("b.com")), (vec!["192.0.2.1 50".to_owned()], vec!["2001:db8::1 60".to_owned()]));
    assert_eq!(directory.known.iter().count(), 2);
}

#[test]
fn names_are_counted_by_how_their_lookups_go() {
    let shared = directory();
    let mut directory = shared.lock();
    let states = |directory: &Directory, now| -> Vec<(&str, u64)> {
        directory.states(at(now)).into_iter().filter(|(_, count)| *count > 0).collect()
    };
    assert_eq!(states(&directory, 0), [("waiting", 2)]);
    answer(&mut directory, "a.com", "192.0.2.1");
    answer(&mut directory, "x.foo.com", "192.0.2.1");
    directory.known.lookup_failed("b.com", Family::V4, "silence".to_owned());
    assert_eq!(states(&directory, 1), [("failing", 1), ("learned", 1), ("resolved", 1)]);
    for name in ["a.com", "b.com"] {
        for family in Family::ALL {
            directory.known.lookup_answered(name, family, Some(Absence::NoName), at(60));
        }
    }
    assert_eq!(states(&directory, 89), [("absent", 1), ("learned", 1), ("resolved", 1)]);
    assert_eq!(states(&directory, 90), [("absent", 2), ("learned", 1)]);
}
