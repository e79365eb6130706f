//! When which name is asked for: intervals, jitter, back-off and bounds, with times of its own.

use std::collections::HashMap;

use proptest::prelude::*;

use crate::names::answer::{Absence, Found};

use super::*;

fn at(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

fn names(texts: &[&str]) -> BTreeSet<Arc<str>> {
    texts.iter().map(|text| Arc::from(*text)).collect()
}

fn job(name: &str, family: Family) -> Job {
    Job { name: name.into(), family }
}

fn v4(name: &str) -> Job {
    job(name, Family::V4)
}

fn addresses(ttl: u32) -> Answered {
    let address = "192.0.2.1".parse().unwrap();
    Answered::Addresses { found: vec![Found { address, ttl }], ttl }
}

fn nothing(ttl: Option<u32>) -> Answered {
    Answered::Nothing { absence: Absence::NoName, ttl }
}

/// A schedule of one name whose two lookups are in flight since second 0.
fn in_flight(lifetimes: Lifetimes) -> Schedule {
    let mut schedule = Schedule::default();
    schedule.set_lifetimes(lifetimes);
    schedule.follow(&names(&["a.com"]), at(0));
    assert_eq!(schedule.take(at(0), 64), [v4("a.com"), job("a.com", Family::V6)]);
    schedule
}

#[test]
fn both_types_of_a_new_name_are_asked_for_at_once() {
    let schedule = in_flight(Lifetimes::default());
    assert_eq!(schedule.next_due(), None);
}

#[test]
fn an_answer_is_asked_for_again_when_its_ttl_is_over_and_within_the_grace() {
    let lifetimes = Lifetimes::default();
    for (ttl, first, last) in [(0, 5.0, 5.5), (60, 60.0, 66.0), (3600, 3600.0, 3625.0), (86_400, 3600.0, 3625.0)] {
        for (random, due) in [(0.0, first), (1.0, last)] {
            let next = in_flight(lifetimes).done(&v4("a.com"), Some(&addresses(ttl)), at(0), random);
            assert_eq!(next, Some(Duration::from_secs_f64(due)), "TTL {ttl}");
        }
    }
}

#[test]
fn without_grace_the_next_answer_comes_before_the_end_of_this_one() {
    let lifetimes = Lifetimes { grace: Duration::ZERO, ..Lifetimes::default() };
    for (ttl, due) in [(60, 55_000), (8, 4000), (5, 2500)] {
        let next = in_flight(lifetimes).done(&v4("a.com"), Some(&addresses(ttl)), at(0), 0.9);
        assert_eq!(next, Some(Duration::from_millis(due)), "TTL {ttl}");
    }
}

#[test]
fn ttl_zero_without_any_minimum_is_still_asked_once_a_second_at_most() {
    let lifetimes = Lifetimes { min: Duration::ZERO, max: Duration::ZERO, grace: Duration::ZERO };
    for answer in [addresses(0), nothing(Some(0))] {
        assert_eq!(in_flight(lifetimes).done(&v4("a.com"), Some(&answer), at(7), 0.0), Some(at(8)));
    }
}

#[test]
fn failures_back_off_from_a_second_to_a_minute_and_go_on_for_ever() {
    let mut schedule = in_flight(Lifetimes::default());
    let mut now = at(0);
    let mut pauses = Vec::new();
    for _ in 0..100 {
        let due = schedule.done(&v4("a.com"), None, now, 0.0).unwrap();
        pauses.push(due.saturating_sub(now).as_secs());
        assert_eq!(schedule.take(due, 64), [v4("a.com")]);
        now = due;
    }
    assert_eq!(pauses[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(pauses[99], 60);
    // One answer, and the next failure is the first one again.
    now = schedule.done(&v4("a.com"), Some(&addresses(0)), now, 0.0).unwrap();
    schedule.take(now, 64);
    assert_eq!(schedule.done(&v4("a.com"), None, now, 1.0), Some(now + Duration::from_millis(750)));
}

#[test]
fn a_failing_type_does_not_slow_the_other_one() {
    let mut schedule = in_flight(Lifetimes::default());
    schedule.done(&job("a.com", Family::V6), None, at(0), 0.0);
    assert_eq!(schedule.done(&v4("a.com"), Some(&addresses(60)), at(0), 0.0), Some(at(60)));
    assert_eq!(schedule.take(at(1), 64), [job("a.com", Family::V6)]);
}

#[test]
fn an_absence_is_asked_about_again_after_its_own_ttl_within_the_bounds() {
    for (ttl, due) in [(Some(0), 5), (Some(120), 120), (Some(90_000), 3600), (None, 30)] {
        let next = in_flight(Lifetimes::default()).done(&v4("a.com"), Some(&nothing(ttl)), at(0), 0.0);
        assert_eq!(next, Some(at(due)), "TTL {ttl:?}");
    }
}

#[test]
fn no_more_are_in_flight_than_asked_for_and_the_longest_due_come_first() {
    let mut schedule = Schedule::default();
    schedule.follow(&names(&["late.com"]), at(5));
    schedule.follow(&names(&["late.com", "early.com"]), at(3));
    assert_eq!(schedule.take(at(2), 9), []);
    assert_eq!(
        schedule.take(at(9), 3).iter().map(|job| &*job.name).collect::<Vec<_>>(),
        ["early.com", "early.com", "late.com"]
    );
    assert_eq!(schedule.take(at(9), 0), []);
    assert_eq!(schedule.take(at(9), 9).len(), 1);
}

#[test]
fn a_name_that_is_not_followed_any_more_is_not_asked_for_again() {
    let mut schedule = in_flight(Lifetimes::default());
    schedule.follow(&names(&[]), at(1));
    assert_eq!(schedule.done(&v4("a.com"), Some(&addresses(5)), at(1), 0.0), None);
    assert_eq!((schedule.len(), schedule.next_due()), (0, None));
}

#[test]
fn a_name_can_be_asked_for_once() {
    let mut schedule = Schedule::default();
    schedule.ask(&v4("x.foo.com"), at(0));
    schedule.ask(&v4("x.foo.com"), at(0));
    assert_eq!(schedule.take(at(0), 64), [v4("x.foo.com")]);
    // While it is in flight: once more afterwards, not at the same time.
    schedule.ask(&v4("x.foo.com"), at(0));
    assert_eq!(schedule.done(&v4("x.foo.com"), Some(&addresses(60)), at(0), 0.0), Some(at(1)));
    assert_eq!(schedule.take(at(1), 64), [v4("x.foo.com")]);
    assert_eq!(schedule.done(&v4("x.foo.com"), Some(&addresses(60)), at(1), 0.0), None);
    assert_eq!(schedule.len(), 0);
}

#[test]
fn a_followed_name_that_is_asked_for_comes_earlier_but_not_twice_a_second() {
    let mut schedule = in_flight(Lifetimes::default());
    schedule.done(&v4("a.com"), Some(&addresses(600)), at(0), 0.0);
    schedule.ask(&v4("a.com"), at(0));
    assert_eq!(schedule.next_due(), Some(at(1)));
    schedule.ask(&v4("a.com"), at(9));
    assert_eq!(schedule.next_due(), Some(at(1)));
    assert_eq!(schedule.take(at(9), 64), [v4("a.com")]);
    assert_eq!(schedule.done(&v4("a.com"), Some(&addresses(600)), at(9), 0.0), Some(at(609)));
}

#[test]
fn names_asked_for_once_are_bounded_and_the_rest_is_counted() {
    let mut schedule = Schedule::default();
    let jobs: Vec<Job> = (0..=MAX_ONCE).map(|number| v4(&format!("{number}.com"))).collect();
    for job in &jobs {
        schedule.ask(job, at(0));
    }
    assert_eq!((schedule.len(), schedule.refused), (MAX_ONCE, 1));
    // Followed from now on, or done: there is room again.
    schedule.follow(&names(&["0.com"]), at(0));
    schedule.ask(&jobs[MAX_ONCE], at(0));
    assert_eq!(schedule.refused, 1);
    for job in schedule.take(at(0), usize::MAX) {
        schedule.done(&job, None, at(0), 0.0);
    }
    assert_eq!(schedule.len(), 2);
}

#[test]
fn other_resolvers_are_asked_at_once_for_what_failed_or_was_absent() {
    let mut schedule = Schedule::default();
    schedule.follow(&names(&["absent.com", "failed.com", "good.com"]), at(0));
    for job in schedule.take(at(0), 64) {
        let answer = match &*job.name {
            "absent.com" => Some(nothing(Some(3600))),
            "good.com" => Some(addresses(3600)),
            _ => None,
        };
        schedule.done(&job, answer.as_ref(), at(0), 0.0);
    }
    schedule.hurry(at(0));
    let hurried: BTreeSet<String> = schedule.take(at(0), 64).iter().map(|job| job.name.to_string()).collect();
    assert_eq!(hurried.into_iter().collect::<Vec<_>>(), ["absent.com", "failed.com"]);
}

#[derive(Clone, Debug)]
enum Step {
    Follow(BTreeSet<usize>),
    Ask(usize),
    Take(usize),
    Done(usize, Option<Answered>),
    Hurry,
    Pause(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let answer = prop_oneof![
        Just(None),
        (0u32..100).prop_map(|ttl| Some(addresses(ttl))),
        prop::option::of(0u32..100).prop_map(|ttl| Some(nothing(ttl)))
    ];
    prop_oneof![
        prop::collection::btree_set(0usize..5, 0..5).prop_map(Step::Follow),
        (0usize..5).prop_map(Step::Ask),
        (0usize..4).prop_map(Step::Take),
        (0usize..8, answer).prop_map(|(index, answer)| Step::Done(index, answer)),
        Just(Step::Hurry),
        (0u64..100).prop_map(Step::Pause),
    ]
}

proptest! {
    #[test]
    fn every_followed_name_always_has_a_next_lookup_that_comes_in_time(steps in prop::collection::vec(step(), 1..80)) {
        let text = |number: &usize| -> Arc<str> { format!("{number}.com").into() };
        let mut schedule = Schedule::default();
        let (mut followed, mut now) = (BTreeSet::new(), at(0));
        let mut flying: HashMap<Job, usize> = HashMap::new();
        for step in steps {
            match step {
                Step::Follow(numbers) => {
                    followed = numbers.iter().map(text).collect();
                    schedule.follow(&followed, now);
                }
                Step::Ask(number) => schedule.ask(&v4(&text(&number)), now),
                Step::Take(most) => {
                    let taken = schedule.take(now, most);
                    prop_assert!(taken.len() <= most);
                    for job in taken {
                        *flying.entry(job).or_default() += 1;
                    }
                }
                Step::Done(index, answer) => {
                    let Some(job) = flying.keys().nth(index).cloned() else { continue };
                    if let Some(due) = schedule.done(&job, answer.as_ref(), now, 0.5) {
                        prop_assert!(due >= now + Duration::from_millis(750));
                        prop_assert!(due <= now + Duration::from_mins(66));
                    }
                    flying.entry(job.clone()).and_modify(|count| *count -= 1);
                    flying.retain(|_, count| *count > 0);
                }
                Step::Hurry => schedule.hurry(now),
                Step::Pause(seconds) => now += at(seconds),
            }
            let waiting: BTreeSet<&Job> = schedule.waiting.iter().map(|(_, job)| job).collect();
            prop_assert_eq!(waiting.len(), schedule.waiting.len());
            for name in &followed {
                for family in Family::ALL {
                    let job = Job { name: Arc::clone(name), family };
                    prop_assert!(waiting.contains(&job) || flying.contains_key(&job), "{:?} is lost", job);
                }
            }
            prop_assert_eq!(schedule.once, schedule.jobs.values().filter(|entry| !entry.followed).count());
        }
    }
}
