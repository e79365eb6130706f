//! What the endpoints file accepts and what it keeps when it is broken.

use std::fs;

use super::*;

fn names(endpoints: &Endpoints) -> Vec<String> {
    endpoints.endpoints.iter().map(Endpoint::key).collect()
}

#[test]
fn every_field_is_read_from_yaml_and_json_alike() {
    let yaml = "endpoints:\n- {namespace: default, name: curl, labels: {app: curl}, serviceAccount: sa,\n   netns: /run/netns/curl, interface: veth0, cgroup: /kubepods/curl}\n- {namespace: a, name: b, netns: 42}\n";
    let json = r#"{"endpoints": [{"namespace": "default", "name": "curl", "labels": {"app": "curl"}, "serviceAccount": "sa",
        "netns": "/run/netns/curl", "interface": "veth0", "cgroup": "/kubepods/curl"}, {"namespace": "a", "name": "b", "netns": "42"}]}"#;
    for text in [yaml, json] {
        let parsed = parse("endpoints.yaml", text);
        assert_eq!(parsed.problems, []);
        let [Entry::Good(_, curl), Entry::Good(_, other)] = parsed.entries.as_slice() else {
            panic!("{:?}", parsed.entries);
        };
        assert_eq!(curl.labels.get("app").map(String::as_str), Some("curl"));
        assert_eq!(curl.netns, Some(NetnsRef::Path("/run/netns/curl".into())));
        assert_eq!(curl.interface.as_deref(), Some("veth0"));
        assert_eq!(curl.cgroup.as_deref(), Some(Path::new("/kubepods/curl")));
        assert_eq!(curl.service_account.as_deref(), Some("sa"));
        assert_eq!(other.netns, Some(NetnsRef::Pid(42)));
    }
}

#[test]
fn all_problems_are_reported_with_their_paths() {
    let text = "endpoints:\n- {namespace: default, name: curl, interfaces: veth0, netns: relative}\n- {name: x}\n- {namespace: a, name: b, labels: {n: 1}, interface: a-name-that-is-too-long}\n- 7\nextra: 1\n";
    let parsed = parse("endpoints.yaml", text);
    let mut paths: Vec<&str> = parsed.problems.iter().filter_map(|problem| problem.path.as_deref()).collect();
    paths.sort_unstable();
    let expected = [
        "endpoints[0].interfaces",
        "endpoints[0].netns",
        "endpoints[1].namespace",
        "endpoints[2].interface",
        "endpoints[2].labels.n",
        "endpoints[3]",
        "endpoints[3].name",
        "endpoints[3].namespace",
        "extra",
    ];
    assert_eq!(paths, expected);
    assert!(parsed.entries.iter().all(|entry| matches!(entry, Entry::Broken(_))));
    assert!(parsed.unnamed);
}

#[test]
fn a_broken_entry_keeps_its_last_version_and_leaves_the_others_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("endpoints.yaml");
    fs::write(&path, "endpoints: [{namespace: a, name: one, interface: v1}, {namespace: a, name: two}]").unwrap();
    let mut source = EndpointSource::new(&path, folder.path());
    assert_eq!(names(&source.read()), ["a/one", "a/two"]);

    fs::write(&path, "endpoints: [{namespace: a, name: one, interface: 7}, {namespace: a, name: three}]").unwrap();
    let read = source.read();
    assert_eq!(names(&read), ["a/one", "a/three"]);
    assert_eq!(read.endpoints[0].interface.as_deref(), Some("v1"));
    assert_eq!(read.problems.len(), 1);
}

#[test]
fn a_broken_or_absent_file_keeps_every_endpoint_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("endpoints.yaml");
    fs::write(&path, "endpoints: [{namespace: a, name: one}]").unwrap();
    let mut source = EndpointSource::new(&path, folder.path());
    assert_eq!(names(&source.read()), ["a/one"]);
    source.save().unwrap();

    fs::write(&path, "endpoints: [").unwrap();
    assert_eq!(names(&source.read()), ["a/one"]);
    fs::remove_file(&path).unwrap();
    let mut restarted = EndpointSource::new(&path, folder.path());
    let read = restarted.read();
    assert_eq!(names(&read), ["a/one"]);
    assert_eq!(read.problems.len(), 1);

    fs::write(&path, "endpoints: []").unwrap();
    let read = restarted.read();
    assert_eq!(names(&read), Vec::<String>::new());
    assert_eq!(read.problems, []);
}
