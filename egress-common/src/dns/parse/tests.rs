//! Messages written by hand, byte by byte; hickory-proto is the judge in `tests/reference`.

use std::vec::Vec;

use super::*;
use crate::names::NameKey;

fn name(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = owner.to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(ttl.to_be_bytes());
    bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

fn message(flags: u16, question: &[u8], records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = [0x12, 0x34].to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(question);
    bytes.extend([0, 1, 0, 1]);
    bytes.extend(records.concat());
    bytes
}

fn read(bytes: &[u8]) -> Result<Vec<(Vec<u8>, u32)>, Outcome> {
    let mut scratch = Scratch::new();
    scratch.message[..bytes.len()].copy_from_slice(bytes);
    scratch.open_reply(u32::try_from(bytes.len()).unwrap())?;
    scratch.run()?;
    let answers = &scratch.answers[..scratch.state.answers as usize];
    Ok(answers.iter().map(|answer| (answer.address.to_vec(), answer.ttl)).collect())
}

fn addresses(bytes: &[u8]) -> Vec<[u8; 4]> {
    read(bytes).unwrap().iter().map(|(address, _)| address[12..].try_into().unwrap()).collect()
}

const POINTER: [u8; 2] = [0xc0, 12];

#[test]
fn addresses_of_the_question_are_found_with_their_ttl() {
    let bytes = message(
        0x8180,
        &name("www.example.com"),
        &[record(&POINTER, 1, 300, &[1, 2, 3, 4]), record(&POINTER, 1, 0x8000_0000, &[5, 6, 7, 8])],
    );
    let found = read(&bytes).unwrap();
    assert_eq!(found[0], (mapped([1, 2, 3, 4]).to_vec(), 300));
    assert_eq!(found[1], (mapped([5, 6, 7, 8]).to_vec(), 0));
}

#[test]
fn a_chain_of_cnames_is_followed_and_what_is_off_it_is_not() {
    let question = name("a.test");
    let at = 12 + question.len() + 4 + 12;
    let to_b = [0xc0, u8::try_from(at).unwrap()];
    let bytes = message(
        0x8180,
        &question,
        &[
            record(&POINTER, 5, 60, &name("B.test")),
            record(&name("other.test"), 1, 60, &[9, 9, 9, 9]),
            record(&to_b, 5, 60, &name("c.test")),
            record(&name("C.TEST"), 1, 60, &[1, 1, 1, 1]),
            record(&POINTER, 1, 60, &[8, 8, 8, 8]),
        ],
    );
    assert_eq!(addresses(&bytes), [[1, 1, 1, 1]]);
}

#[test]
fn a_chain_in_another_order_is_followed_too() {
    let bytes = message(
        0x8180,
        &name("a.test"),
        &[
            record(&name("c.test"), 1, 60, &[1, 1, 1, 1]),
            record(&name("b.test"), 5, 60, &name("c.test")),
            record(&name("a.test"), 5, 60, &name("b.test")),
        ],
    );
    assert_eq!(addresses(&bytes), [[1, 1, 1, 1]]);
}

#[test]
fn a_circle_of_cnames_ends() {
    let bytes = message(
        0x8180,
        &name("a.test"),
        &[record(&name("b.test"), 5, 60, &name("a.test")), record(&name("a.test"), 5, 60, &name("b.test"))],
    );
    assert_eq!(addresses(&bytes), Vec::<[u8; 4]>::new());
}

#[test]
fn pointers_that_do_not_go_backwards_end_the_reading() {
    let question = name("a.test");
    let start = u8::try_from(12 + question.len() + 4).unwrap();
    for (owner, outcome) in [
        ([0xc0, start], Outcome::BadPointer),
        ([0xc0, start + 4], Outcome::BadPointer),
        ([0xff, 0xff], Outcome::BadPointer),
        ([0xc0, 0], Outcome::BadPointer),
        ([0x80, 0], Outcome::BadName),
        ([0x40, 0], Outcome::BadName),
    ] {
        let bytes = message(0x8180, &question, &[record(&owner, 1, 60, &[1, 1, 1, 1])]);
        assert_eq!(read(&bytes), Err(outcome), "{owner:?}");
    }
}

#[test]
fn every_cut_of_a_message_is_malformed() {
    let bytes = message(
        0x8180,
        &name("www.example.com"),
        &[record(&POINTER, 5, 60, &name("b.test")), record(&name("b.test"), 1, 60, &[1, 1, 1, 1])],
    );
    assert!(read(&bytes).is_ok());
    for length in 0..bytes.len() {
        assert_eq!(read(&bytes[..length]), Err(Outcome::Malformed), "{length}");
    }
}

#[test]
fn other_messages_have_their_own_reasons() {
    let with = |change: fn(&mut Vec<u8>)| {
        let mut bytes = message(0x8180, &name("a.test"), &[record(&POINTER, 1, 60, &[1, 1, 1, 1])]);
        change(&mut bytes);
        read(&bytes)
    };
    assert_eq!(with(|_| {}).unwrap().len(), 1);
    assert_eq!(with(|bytes| bytes[2] = 0x01), Err(Outcome::NotAReply));
    assert_eq!(with(|bytes| bytes[2] = 0xa8), Err(Outcome::NotAReply));
    assert_eq!(with(|bytes| bytes[5] = 2), Err(Outcome::ManyQuestions));
    assert_eq!(with(|bytes| bytes[5] = 0), Err(Outcome::ManyQuestions));
    assert_eq!(with(|bytes| bytes[23] = 3), Err(Outcome::OtherClass));
    assert_eq!(with(|bytes| bytes[13] = 0), Err(Outcome::BadName));
    // No answer is looked at.
    assert_eq!(with(|bytes| bytes[2] |= 2), Ok(Vec::new()));
    assert_eq!(with(|bytes| bytes[3] |= 3), Ok(Vec::new()));
}

#[test]
fn the_key_of_a_question_is_the_key_of_its_name() {
    for text in ["com", "foo.com", "WWW.Example.COM", "a-label-of-nine.and.12345678.x", "_dmarc.münchen"] {
        let bytes = message(0x0100, &name(text), &[]);
        let mut scratch = Scratch::new();
        scratch.message[..bytes.len()].copy_from_slice(&bytes);
        scratch.open_query(u32::try_from(bytes.len()).unwrap()).unwrap();
        scratch.run().unwrap();
        let key = NameKey::new(text).unwrap();
        let length = scratch.state.key_bytes as usize;
        assert_eq!(length * 8, key.length as usize, "{text}");
        assert_eq!(scratch.key[KEY_END - length..KEY_END], key.bytes[..length], "{text}");
        assert_eq!(scratch.state.labels as usize, text.split('.').count());
    }
}

#[test]
fn names_are_compared_without_case_and_up_to_their_longest() {
    let longest = std::format!("{}.{}.{}.{}", "A".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
    let bytes = message(0x8180, &name(&longest), &[record(&name(&longest.to_lowercase()), 1, 1, &[1, 1, 1, 1])]);
    assert_eq!(addresses(&bytes), [[1, 1, 1, 1]]);
    let bytes = message(0x8180, &name(&std::format!("{longest}e")), &[]);
    assert_eq!(read(&bytes), Err(Outcome::NameTooLong));
}

#[test]
fn lower_case_is_ascii_lower_case() {
    for byte in 0..=255_u8 {
        let word = u64::from_le_bytes([byte; 8]);
        assert_eq!(lower(word), u64::from_le_bytes([byte.to_ascii_lowercase(); 8]), "{byte:#x}");
        assert_eq!(has_zero(word), byte == 0);
    }
}
