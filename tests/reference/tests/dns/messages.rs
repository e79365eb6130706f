//! Messages: valid ones written by hickory, mutations of them, and hostile ones written byte by byte.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use egress_reference::Random;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NULL, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// A reply, and the addresses that it gives to its question.
pub(crate) struct Valid {
    message: Message,
    pub(crate) addresses: BTreeSet<(IpAddr, u32)>,
}

impl Valid {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.message.to_vec().expect("a message")
    }
}

/// A name of few labels that often share suffixes, so that they are compressed.
fn name(random: &mut Random) -> Name {
    const LABELS: [&str; 10] = [
        "a",
        "www",
        "cdn",
        "eightchr",
        "label-of-sixteen",
        "example",
        "a-label-of-twenty-one",
        "xn--bcher-kva",
        "com",
        "test",
    ];
    let labels: Vec<&str> = (0..random.between(1, 6)).map(|_| *random.pick(&LABELS)).collect();
    mixed(random, &format!("{}.", labels.join(".")))
}

/// With letters of random case (0x20).
fn mixed(random: &mut Random, name: &str) -> Name {
    let letters = name.chars().map(|letter| if random.chance(30) { letter.to_ascii_uppercase() } else { letter });
    let letters: String = letters.collect();
    // Without IDNA: half a label of it is none.
    Name::from_labels(letters.split_terminator('.').map(str::as_bytes)).expect("a name")
}

fn address(random: &mut Random) -> (IpAddr, RData) {
    if random.chance(50) {
        let address = Ipv4Addr::from_bits(u32::try_from(random.bits() >> 32).expect("32 bits"));
        (address.into(), RData::A(A(address)))
    } else {
        let address = Ipv6Addr::from_bits(random.wide());
        (IpAddr::from(address).to_canonical(), RData::AAAA(AAAA(address)))
    }
}

fn other_data(random: &mut Random) -> RData {
    match random.below(3) {
        0 => RData::TXT(TXT::new(vec!["v=spf1 -all".to_owned()])),
        1 => RData::MX(MX::new(10, name(random))),
        _ => RData::NULL(NULL::with(vec![0xc0; random.between(1, 40)])),
    }
}

fn ttl(random: &mut Random) -> (u32, u32) {
    let written = *random.pick(&[0, 1, 60, 300, 86_400, i32::MAX.unsigned_abs(), 0x8000_0000, u32::MAX]);
    (written, if written > i32::MAX.unsigned_abs() { 0 } else { written })
}

/// A chain of CNAMEs with addresses at its end, in any order, among records about other things.
pub(crate) fn valid(random: &mut Random) -> Valid {
    let mut message = Message::new(0x1234, MessageType::Response, OpCode::Query);
    let mut chain: Vec<Name> = Vec::new();
    // One more than the readings of the answer section would do in the worst order; the parser's bound is about cost.
    while chain.len() < random.between(1, 7) {
        let next = name(random);
        if !chain.contains(&next) {
            chain.push(next);
        }
    }
    message.add_query(Query::query(chain[0].clone(), *random.pick(&[RecordType::A, RecordType::AAAA])));
    let mut records = Vec::new();
    for pair in chain.windows(2) {
        records.push(Record::from_rdata(pair[0].clone(), 60, RData::CNAME(CNAME(pair[1].clone()))));
    }
    let mut addresses = BTreeSet::new();
    let last = chain[chain.len() - 1].to_ascii();
    let most = *random.pick(&[0, 1, 4, 30]);
    for _ in 0..random.between(0, most) {
        let (found, data) = address(random);
        let (written, meant) = ttl(random);
        let mut record = Record::from_rdata(mixed(random, &last), written, data);
        if random.chance(5) {
            record.dns_class = DNSClass::CH;
        } else {
            addresses.insert((found, meant));
        }
        records.push(record);
    }
    for _ in 0..random.below(4) {
        let owner = if random.chance(50) { chain[random.below(chain.len())].clone() } else { name(random) };
        records.push(Record::from_rdata(owner, 60, other_data(random)));
    }
    for _ in 0..random.below(3) {
        let owner = name(random);
        if !chain.contains(&owner) {
            records.push(Record::from_rdata(owner, 60, address(random).1));
        }
    }
    if random.chance(50) {
        random.shuffle(&mut records);
    }
    message.add_answers(records);
    for _ in 0..random.below(3) {
        let owner = chain[random.below(chain.len())].clone();
        message.add_authority(Record::from_rdata(owner.clone(), 60, address(random).1));
        message.add_additional(Record::from_rdata(owner, 60, address(random).1));
    }
    if random.chance(30) {
        message.set_edns(Edns::new());
    }
    Valid { message, addresses }
}

/// Changes a message a little: bytes, runs of bytes, its length, or a count of its header.
pub(crate) fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..random.between(1, 4) {
        let at = random.below(bytes.len().max(1));
        match random.below(9) {
            0 => bytes.truncate(at),
            1 if !bytes.is_empty() => bytes[at] = u8::try_from(random.below(256)).expect("a byte"),
            2 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            3 => bytes.insert(at, u8::try_from(random.below(256)).expect("a byte")),
            4 if bytes.len() > at + 2 => {
                let target = random.below(bytes.len());
                bytes[at] = 0xc0 | u8::try_from(target >> 8 & 0x3f).expect("six bits");
                bytes[at + 1] = u8::try_from(target & 0xff).expect("a byte");
            }
            5 if bytes.len() > 12 => bytes[random.between(2, 11)] = u8::try_from(random.below(4)).expect("a byte"),
            6 if bytes.len() > 12 => bytes[random.between(2, 3)] ^= 1 << random.below(8),
            7 => {
                let piece: Vec<u8> = bytes[at.min(bytes.len())..].iter().take(random.between(1, 30)).copied().collect();
                bytes.splice(at..at, piece);
            }
            _ if !bytes.is_empty() => {
                let end = (at + random.between(1, 8)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {}
        }
    }
}

/// Names of labels, pointers anywhere and worse; counts and lengths that are sometimes right.
pub(crate) fn hostile(random: &mut Random) -> Vec<u8> {
    let records = *random.pick(&[0_usize, 1, 2, 3, 8, 60, 250, 700]);
    let mut bytes = vec![0x12, 0x34, 0x81, 0x80, 0, 1];
    let count = if random.chance(90) { records } else { random.below(65_536) };
    bytes.extend(u16::try_from(count).expect("16 bits").to_be_bytes());
    bytes.extend([0; 4]);
    // Many labels, behind pointers in every record, are many steps.
    let is_long = random.chance(10);
    if is_long {
        bytes.extend([1, b'a'].repeat(random.between(60, 126)));
        bytes.push(0);
    } else {
        hostile_name(random, &mut bytes, 2);
    }
    bytes.extend([0, *random.pick(&[1, 28]), 0, 1]);
    for _ in 0..records {
        if is_long || random.chance(70) {
            bytes.extend([0xc0, if is_long { 14 } else { 12 }]);
        } else {
            hostile_name(random, &mut bytes, 20);
        }
        let kind = *random.pick(&[1_u8, 1, 28, 5, 5, 16]);
        bytes.extend([0, kind, 0, 1, 0, 0, 1, 44]);
        let mut data = Vec::new();
        match kind {
            5 => {
                // Pointers inside are of the message, so the name is written where it will stand.
                let mut whole = bytes.clone();
                whole.extend([0, 0]);
                let start = whole.len();
                hostile_name(random, &mut whole, 20);
                data.extend(&whole[start..]);
            }
            _ => data.extend((0..usize::from(kind.min(16)) + 3 * usize::from(kind == 1)).map(|_| 7)),
        }
        if kind == 28 {
            data = vec![0x20; 16];
        }
        let length = if random.chance(95) { data.len() } else { random.below(300) };
        bytes.extend(u16::try_from(length).expect("short").to_be_bytes());
        bytes.extend(data);
    }
    bytes
}

/// `evil` percent of its parts are not what they should be.
fn hostile_name(random: &mut Random, bytes: &mut Vec<u8>, evil: usize) {
    let labels = if random.chance(evil) { random.between(1, 70) } else { random.between(1, 4) };
    for _ in 0..labels {
        let length = if random.chance(evil) { random.between(1, 63) } else { random.between(1, 9) };
        bytes.push(u8::try_from(length).expect("a byte"));
        for _ in 0..length {
            let byte = if random.chance(evil / 8) { random.below(256) } else { random.between(97, 99) };
            bytes.push(u8::try_from(byte).expect("a byte"));
        }
    }
    if random.chance(evil) {
        bytes.push(*random.pick(&[0x40, 0x80, 0xbf, 64]));
    } else if random.chance(evil * 3) {
        let target = if random.chance(80) { random.between(12, bytes.len()) } else { random.below(0x4000) };
        bytes.push(0xc0 | u8::try_from(target >> 8 & 0x3f).expect("six bits"));
        bytes.push(u8::try_from(target & 0xff).expect("a byte"));
    } else {
        bytes.push(0);
    }
}

fn question(name: &Name, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(0x1234, MessageType::Response, OpCode::Query);
    message.add_query(Query::query(name.clone(), kind));
    message.to_vec().expect("a message")
}

/// Two questions that are often the same, or nearly.
pub(crate) fn pair(random: &mut Random) -> [Vec<u8>; 2] {
    const KINDS: [RecordType; 2] = [RecordType::A, RecordType::AAAA];
    let first = name(random);
    let text = first.to_ascii();
    let second = match random.below(3) {
        0 => mixed(random, &text),
        1 => {
            let without = text.replacen(*random.pick(&["am", "ww", "ex", "co", ".", "8"]), "", 1);
            mixed(random, if without.len() > 1 && !without.contains("..") { &without } else { &text })
        }
        _ => name(random),
    };
    let kind = *random.pick(&KINDS);
    let other = if random.chance(80) { kind } else { *random.pick(&KINDS) };
    [question(&first, kind), question(&second, other)]
}

/// A name in lower case, and a message that asks for it in mixed case.
pub(crate) fn query(random: &mut Random) -> (String, Vec<u8>) {
    const LETTERS: &[u8] = b"abcxyz0189-_";
    let mut labels = Vec::new();
    let mut total = 0;
    for _ in 0..random.between(1, 60) {
        let length = if random.chance(80) { random.between(1, 9) } else { random.between(1, 63) };
        total += length + 1;
        if total > 254 {
            break;
        }
        labels.push((0..length).map(|_| char::from(*random.pick(LETTERS))).collect::<String>());
    }
    let name = labels.join(".");
    let mixed: String =
        name.chars().map(|letter| if random.chance(30) { letter.to_ascii_uppercase() } else { letter }).collect();
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in mixed.split('.') {
        bytes.push(u8::try_from(label.len()).expect("a label"));
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    (name, bytes)
}
