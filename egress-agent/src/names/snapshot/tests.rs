//! What is stored of the names, and what the next agent makes of it.

use std::sync::Arc;
use std::time::Duration;

use egress_policy::name::NamePattern;

use crate::names::answer::{Absence, Found};
use crate::names::directory::Shared;
use crate::names::known::Source;
use crate::names::registry::{Limits, Registry};

use super::*;

fn at(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

fn directory() -> Shared {
    let mut registry = Registry::new(Limits::default());
    let patterns = ["a.com", "**.foo.com"].map(|text| NamePattern::parse(text).unwrap());
    registry.update(&patterns.iter().collect(), crate::names::lifetime::Lifetimes::default(), at(0));
    Shared::new(registry)
}

fn found(address: &str) -> [Found; 1] {
    [Found { address: address.parse().unwrap(), ttl: 60 }]
}

#[test]
fn the_file_says_of_each_name_what_it_is_and_how_it_goes() {
    let shared = directory();
    let mut directory = shared.lock();
    let lifetimes = directory.bounds.lifetimes;
    directory.known.poll(&[Arc::from("a.com")].into(), at(0));
    let id = directory.registry.id_of("a.com").unwrap();
    directory.known.answered("a.com", (id, Source::Polled), &found("192.0.2.1"), lifetimes, at(1));
    directory.known.lookup_answered("a.com", Family::V4, None, at(1));
    directory.known.lookup_answered("a.com", Family::V6, Some(Absence::NoRecords), at(1));
    directory.known.lookup_failed("a.com", Family::V6, "silence".to_owned());
    let of_more = directory.registry.id_of("x.y.foo.com").unwrap();
    directory.known.answered("x.y.foo.com", (of_more, Source::Learned), &found("2001:db8::1"), lifetimes, at(2));

    let names = Snapshot::new(&directory, at(3)).names;
    let json = serde_json::to_value(&names).unwrap();
    assert_eq!(json[0]["name"], "a.com");
    assert_eq!(json[0]["pattern"], "a.com");
    assert_eq!(json[0]["addresses"], serde_json::json!([{ "address": "192.0.2.1", "ends": 91, "source": "polled" }]));
    assert_eq!(
        json[0]["lookups"][0],
        serde_json::json!({ "records": "A", "lastSuccess": 1, "failures": 0, "next": 0 })
    );
    assert_eq!(json[0]["lookups"][1]["lastError"], "silence");
    assert_eq!(json[0]["lookups"][1]["absence"], "the name has no such records");
    assert_eq!((&json[1]["pattern"], json[1]["id"].as_u64()), (&"**.foo.com".into(), Some(of_more.into())));
    assert_eq!(json[1]["addresses"][0]["source"], "learned");
    assert_eq!(json[1]["lookups"], serde_json::json!([]));
    // What has ended is not shown.
    assert!(Snapshot::new(&directory, at(91)).names[0].addresses.is_empty());
}

#[test]
fn the_file_is_read_back_and_only_written_when_something_changed() {
    let folder = tempfile::tempdir().unwrap();
    let shared = directory();
    let mut file = SnapshotFile::new(folder.path());
    let snapshot = Snapshot::new(&shared.lock(), at(0));
    file.write(snapshot.clone()).unwrap();
    assert_eq!(Snapshot::read(folder.path()), Some(snapshot));

    fs::remove_file(folder.path().join(FILE)).unwrap();
    file.write(Snapshot::new(&shared.lock(), at(1))).unwrap();
    assert_eq!(Snapshot::read(folder.path()), None);
    shared.lock().figures.internal = 1;
    file.write(Snapshot::new(&shared.lock(), at(1))).unwrap();
    assert_eq!(Snapshot::read(folder.path()).unwrap().figures.internal, 1);
}

#[test]
fn a_file_of_another_version_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = Snapshot { version: VERSION + 1, ..Snapshot::default() };
    fs::write(folder.path().join(FILE), serde_json::to_vec(&snapshot).unwrap()).unwrap();
    assert_eq!(Snapshot::read(folder.path()), None);
}
