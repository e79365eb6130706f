//! Holds the parser of DNS messages, as the kernel runs it, to hickory-proto: on valid messages it finds exactly the addresses that a
//! naive walk over hickory's records finds, and on mutated and hostile ones it finds none that hickory would not call an answer to the
//! question (§5.2, §5.5). `EGRESS_CASES` (messages of each kind) scales the runs, `EGRESS_SEED` repeats one.

mod judge;
mod messages;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use egress_common::dns::{MAX_MESSAGE, Outcome, Scratch};
use egress_common::names::NameKey;
use egress_reference::Random;

use self::judge::Judged;

/// Messages of each kind in an ordinary run.
const CASES: u64 = 20_000;
const SECRET: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

/// What the kernel's parser says.
struct Read {
    /// Hash of the question, once it was read.
    question: u64,
    answers: Result<BTreeSet<(IpAddr, u32)>, Outcome>,
}

fn read(scratch: &mut Scratch, bytes: &[u8]) -> Read {
    let kept = bytes.len().min(MAX_MESSAGE);
    scratch.message[..kept].copy_from_slice(&bytes[..kept]);
    scratch.secret = SECRET;
    let length = u32::try_from(bytes.len()).expect("short");
    let result = scratch.open_reply(length).and_then(|()| scratch.run());
    let result = result.and_then(|()| scratch.failure().map_or(Ok(()), Err));
    let answers = &scratch.answers[..usize::try_from(scratch.state.answers).expect("few")];
    let answer =
        |answer: &egress_common::dns::Answer| (std::net::Ipv6Addr::from(answer.address).to_canonical(), answer.ttl);
    let question = if bytes.len() < 12 { 0 } else { scratch.state.question };
    Read { question, answers: result.map(|()| answers.iter().map(answer).collect()) }
}

/// Everything that the parser finds, hickory finds too.
fn check_sound(bytes: &[u8], read: &Read, judged: &Judged) {
    let Ok(answers) = &read.answers else { return };
    assert!(judged.is_reply, "hickory sees no reply without error in {bytes:02x?}");
    let allowed = judged.addresses();
    for answer in answers {
        assert!(
            allowed.contains(answer),
            "{answer:?} is no answer to the question; hickory finds {allowed:?}\n{bytes:02x?}"
        );
    }
}

/// How often each outcome was met.
#[derive(Default)]
struct Counters(BTreeMap<&'static str, u64>);

impl Counters {
    fn add(&mut self, read: &Read) {
        let name = match &read.answers {
            Ok(answers) if answers.is_empty() => "no address",
            Ok(_) => "learned",
            Err(outcome) => outcome.name(),
        };
        *self.0.entry(name).or_default() += 1;
    }

    /// A full run must meet each of these.
    fn require(&self, kind: &str, names: &[&str]) {
        println!("{kind}: {:?}", self.0);
        if number("EGRESS_SEED").is_none() && cases() >= CASES {
            let missing: Vec<_> = names.iter().filter(|name| !self.0.contains_key(**name)).collect();
            assert!(missing.is_empty(), "{kind}: never met: {missing:?}");
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

fn cases() -> u64 {
    number("EGRESS_CASES").unwrap_or(CASES)
}

fn seeds() -> std::ops::Range<u64> {
    match number("EGRESS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..cases(),
    }
}

#[test]
fn valid_replies_are_read_as_hickory_reads_them() {
    let (mut scratch, mut counters) = (Scratch::new(), Counters::default());
    for seed in seeds() {
        let valid = messages::valid(&mut Random::new(seed));
        let bytes = valid.bytes();
        let (read, judged) = (read(&mut scratch, &bytes), Judged::new(&bytes));
        counters.add(&read);
        check_sound(&bytes, &read, &judged);
        let expected = judged.addresses();
        assert!(judged.is_reply, "seed {seed}");
        assert_eq!(expected, valid.addresses, "seed {seed}: judge and writer\n{bytes:02x?}");
        match read.answers {
            Ok(answers) => assert_eq!(answers, expected, "seed {seed}: {bytes:02x?}"),
            Err(outcome) => assert!(bytes.len() > MAX_MESSAGE, "seed {seed}: {}: {bytes:02x?}", outcome.name()),
        }
    }
    counters.require("valid", &["learned", "no address"]);
}

#[test]
fn mutated_replies_teach_nothing_that_hickory_would_not() {
    let (mut scratch, mut counters) = (Scratch::new(), Counters::default());
    for seed in seeds() {
        let random = &mut Random::new(seed);
        let mut bytes = messages::valid(random).bytes();
        messages::mutate(random, &mut bytes);
        let read = read(&mut scratch, &bytes);
        counters.add(&read);
        check_sound(&bytes, &read, &Judged::new(&bytes));
    }
    let names = ["learned", "no address", "negative", "truncated", "not-a-reply", "many-questions", "other-class"];
    counters.require("mutated", &names);
    counters.require("mutated", &["malformed", "bad-name", "bad-pointer"]);
}

#[test]
fn hostile_replies_teach_nothing_that_hickory_would_not() {
    let (mut scratch, mut counters) = (Scratch::new(), Counters::default());
    for seed in seeds() {
        let bytes = messages::hostile(&mut Random::new(seed));
        let read = read(&mut scratch, &bytes);
        counters.add(&read);
        check_sound(&bytes, &read, &Judged::new(&bytes));
    }
    let names = ["learned", "no address", "malformed", "bad-name", "bad-pointer", "name-too-long"];
    counters.require("hostile", &names);
    counters.require("hostile", &["too-many-steps", "too-long"]);
}

/// Names are told apart as hickory tells them apart: never by the case of their letters, always by anything else.
#[test]
fn questions_have_one_hash_if_and_only_if_they_are_the_same() {
    let (mut scratch, mut equal, mut different) = (Scratch::new(), 0, 0);
    for seed in seeds() {
        let random = &mut Random::new(seed);
        let [first, second] = messages::pair(random);
        let [left, right] =
            [&first, &second].map(|bytes| (read(&mut scratch, bytes).question, Judged::new(bytes).question));
        let (Some(one), Some(other)) = (left.1, right.1) else { panic!("seed {seed}: a question that cannot be read") };
        assert_eq!(left.0 == right.0, one == other, "seed {seed}: {one:?} and {other:?}");
        *if one == other { &mut equal } else { &mut different } += 1;
    }
    println!("{equal} pairs of the same question, {different} of different ones");
    assert!(number("EGRESS_SEED").is_some() || (equal > 100 && different > 100));
}

/// The key under which the kernel looks up the question of a query is the one that the agent has stored for the name.
#[test]
fn the_key_of_a_query_is_that_of_its_name() {
    let mut scratch = Scratch::new();
    for seed in seeds() {
        let (name, mut bytes) = messages::query(&mut Random::new(seed));
        bytes[2] &= 0x7f;
        scratch.message[..bytes.len()].copy_from_slice(&bytes);
        scratch.open_query(u32::try_from(bytes.len()).expect("short")).expect("a query");
        scratch.run().unwrap_or_else(|outcome| panic!("seed {seed}: {name}: {}", outcome.name()));
        let key = NameKey::new(&name).expect("a name");
        let bytes = usize::try_from(scratch.state.key_bytes).expect("few");
        let start = usize::try_from(scratch.state.key_start).expect("small") + 4;
        assert_eq!(key.length as usize, bytes * 8, "seed {seed}: {name}");
        assert_eq!(key.bytes[..bytes], scratch.key[start..start + bytes], "seed {seed}: {name}");
        assert_eq!(scratch.state.labels as usize, name.split('.').count(), "seed {seed}: {name}");
    }
}
