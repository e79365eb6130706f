//! What a person and a program get to see of the same table.

use std::sync::Arc;

use egress_common::abi::Config;
use egress_common::endpoint::TableRef;
use egress_common::flow::{Flow, FlowKey, origin};
use egress_common::reason::DropReason;
use egress_common::table::{Counter, TableInfo};
use egress_policy::compile::{Limits, compile};
use egress_policy::describe::TableDescription;
use egress_policy::document::{self, Object};
use egress_policy::model::{NodeContext, PodIdentity, PolicySet};
use egress_policy::name::NamePattern;
use serde_json::Value;

use super::*;
use crate::cli::Output;
use crate::golden;

const POLICY: &str = "
apiVersion: egress.rs/v1alpha1
kind: EgressNetworkPolicy
metadata: {name: curl, namespace: default}
spec:
  egress:
  - {type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: TCP, port: 443}]}
  - {type: Deny, to: {cidrSelector: 0.0.0.0/0}}
  - {type: Deny, to: {cidrSelector: '::/0'}}
";

fn views() -> (TableView, EndpointView) {
    let mut set = PolicySet::default();
    for object in document::read(POLICY).objects {
        if let Object::Policy(policy) = object {
            set.insert(policy);
        }
    }
    let pod = PodIdentity { namespace: "default".into(), name: "curl".into(), ..PodIdentity::default() };
    let list = set.rule_list(&pod, &NodeContext::default());
    let table = compile(&list, &Limits::default()).unwrap();
    let reference = TableRef { slot: 3, generation: 17 };
    let view = TableView {
        reference,
        info: TableInfo { generation: 17, rules: table.rules, ..TableInfo::default() },
        description: Some(Arc::new(TableDescription::new(&list))),
        prefixes: table.entries().collect(),
        classes: table.classes.iter().copied().collect(),
    };
    let endpoint = EndpointView {
        name: "default/curl".into(),
        id: 5,
        slot: 0,
        interface: Some(9),
        netns: Some(4026),
        cgroup: None,
        table: reference,
    };
    (view, endpoint)
}

fn dump() -> Dump {
    let (table, endpoint) = views();
    let endpoints = [endpoint];
    let interfaces = [(9, "veth9".to_owned())].into();
    let counters: Vec<Counter> =
        (0..u64::from(table.info.rules)).map(|rank| Counter { packets: rank, bytes: 0 }).collect();
    let scope = Scope::default();
    let counted = Arc::new(vec![Counted::new(&table, counters)]);
    let flow = FlowKey {
        remote: "::ffff:9.9.9.9".parse::<std::net::Ipv6Addr>().unwrap().octets(),
        endpoint: 5,
        remote_port: 4000_u16.to_be_bytes(),
        local_port: 80_u16.to_be_bytes(),
        protocol: 6,
    };
    let seen = Flow { last_seen: 1_000_000_000, origin: origin::OUTSIDE, name: 0 };
    let drops = [(DropReason::Policy, Counter { packets: 4, bytes: 240 }), (DropReason::NoTable, Counter::default())];
    Dump {
        endpoints: Some(view::endpoints(&endpoints, std::slice::from_ref(&table), &interfaces)),
        tables: Some(view::tables(vec![table], &endpoints, &scope)),
        counters: Some(Counters { rules: Rules::that_counted(&counted, &scope), drops: Some(view::drops(&drops)) }),
        rules: Some(Rules::all(&counted, &scope)),
        flows: Some(view::flows(&[(flow, seen)], &endpoints, true, 4_000_000_000)),
        config: Some(view::config(&Config { cgroup_levels: 0b1010, ..Config::default() }, &[("flows", 65_536)])),
        names: Some(names::views()),
        stats: Some([("events_lost", 0)].into()),
        ..Dump::default()
    }
}

fn written(output: Output) -> String {
    let mut out = Vec::new();
    output::write(&mut out, &dump(), output, false).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn every_sheet_is_written_as_it_was() {
    golden::insist("dump", &dump());
    golden::insist("dump-nothing", &Dump { endpoints: Some(Vec::new()), tables: Some(Vec::new()), ..Dump::default() });
}

#[test]
fn people_see_who_is_judged_by_which_rule() {
    let text = written(Output::Table);
    let line = |start: &str| {
        let found = text.lines().find(|line| line.trim_start().starts_with(start));
        found.unwrap_or_else(|| panic!("no line {start} in:\n{text}")).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("default/curl   5"), "default/curl 5 veth9 (9) 4026 - 3#17 default/curl");
    assert_eq!(line("1.2.3.0/24"), "1.2.3.0/24 allow TCP/443 rule 1 of default/curl");
    assert!(text.contains("deny      otherwise"), "{text}");
    assert_eq!(line("::/0"), "::/0 deny any rule 3 of default/curl");
    assert_eq!(line("policy"), "policy 4 240");
    assert!(!text.contains("no-table"));
    assert_eq!(line("default/curl  TCP"), "default/curl TCP 9.9.9.9 4000 80 outside 3");
    assert!(text.contains("Allow 1.2.3.0/24 TCP/443"), "{text}");
}

#[test]
fn programs_get_a_version_and_every_interval() {
    let json: Value = serde_json::from_str(&written(Output::Json)).unwrap();
    assert_eq!(json["version"], 1);
    assert_eq!(json["endpoints"][0]["name"], "default/curl");
    assert_eq!(json["endpoints"][0]["table"]["generation"], 17);
    let prefixes = json["tables"][0]["prefixes"].as_array().unwrap();
    let prefix = prefixes.iter().find(|prefix| prefix["prefix"] == "1.2.3.0/24").unwrap();
    let intervals = prefix["intervals"].as_array().unwrap();
    assert_eq!(intervals.len(), 3);
    assert_eq!(intervals[1]["verdict"], "allow");
    assert_eq!((&intervals[1]["firstPort"], &intervals[1]["lastPort"]), (&443.into(), &443.into()));
    assert_eq!(intervals[2]["origin"], "rule 2 of default/curl");
    let rules = json["rules"].as_array().unwrap();
    assert_eq!(rules.last().unwrap()["origin"], "default action");
    assert_eq!(json["counters"]["drops"][0]["reason"], "policy");
    assert_eq!(json["config"]["cgroupLevels"], serde_json::json!([1, 3]));
    assert_eq!(json["stats"]["events_lost"], 0);
}

/// What a narrowed dump says of the table's rules and prefixes.
fn narrowed(scope: &Scope) -> (Vec<String>, Vec<String>) {
    let (table, endpoint) = views();
    let counters = vec![Counter::default(); usize::try_from(table.info.rules).unwrap()];
    let rules = Rules::all(&Arc::new(vec![Counted::new(&table, counters)]), scope);
    let rules = rules.rows().map(|row| row.rule.origin.clone()).collect();
    let tables = view::tables(vec![table], &[endpoint], scope);
    (rules, tables[0].prefixes.rows().map(|row| row.prefix.to_string()).collect())
}

#[test]
fn a_policy_narrows_rules_and_prefixes_to_its_own() {
    let (all_rules, all_prefixes) = narrowed(&Scope::default());
    let (rules, prefixes) = narrowed(&Scope::of(None, None, Some("default/curl")));
    assert_eq!(rules, ["rule 1 of default/curl", "rule 2 of default/curl", "rule 3 of default/curl"]);
    assert!(prefixes.contains(&"1.2.3.0/24".to_owned()) && prefixes.contains(&"::/0".to_owned()), "{prefixes:?}");
    assert!(!prefixes.contains(&"127.0.0.0/8".to_owned()) && all_prefixes.contains(&"127.0.0.0/8".to_owned()));
    assert!(all_rules.len() > rules.len() && all_prefixes.len() > prefixes.len());
    assert_eq!(narrowed(&Scope::of(None, None, Some("curl"))), (Vec::new(), Vec::new()));
}

#[test]
fn a_pod_is_admitted_by_its_name_its_namespace_and_the_policies_of_its_table() {
    let (table, endpoint) = views();
    let admits = |pod, namespace, policy, table| Scope::of(pod, namespace, policy).admits(&endpoint, table);
    assert!(admits(None, None, None, None) && !Scope::default().narrows());
    assert!(admits(Some("default/curl"), None, None, None) && !admits(Some("default/cur"), None, None, None));
    assert!(admits(None, Some("default"), None, None) && !admits(None, Some("def"), None, None));
    assert!(admits(None, None, Some("default/curl"), Some(&table)) && !admits(None, None, Some("default/curl"), None));
    assert!(!admits(Some("default/curl"), None, Some("default/other"), Some(&table)));
    let said = Scope::of(None, Some("shop"), Some("guard")).nothing(&[endpoint]).to_string();
    assert_eq!(said, "the kernel does not know a pod of namespace shop with rules of guard; known here: default/curl");
}

#[test]
fn names_are_narrowed_to_those_that_the_rules_mean() {
    let meant = |patterns: &[&str]| -> Vec<String> {
        let patterns: Vec<_> = patterns.iter().map(|text| NamePattern::parse(text).unwrap()).collect();
        names::views().into_iter().filter(|view| scope::is_meant(view, &patterns)).map(|view| view.name).collect()
    };
    assert_eq!(meant(&["a.com"]), ["a.com"]);
    assert_eq!(meant(&["**.foo.com"]), ["**.*.foo.com", "x.y.foo.com"]);
    assert_eq!(meant(&["*.foo.com"]), [""; 0]);
    assert_eq!(meant(&[]), [""; 0]);
}

#[test]
fn yaml_says_the_same_as_json() {
    let yaml: Value = serde_saphyr::from_str(&written(Output::Yaml)).unwrap();
    let json: Value = serde_json::from_str(&written(Output::Json)).unwrap();
    assert_eq!(yaml, json);
}

#[test]
fn what_was_not_asked_for_is_absent() {
    let json = serde_json::to_value(Dump::default()).unwrap();
    assert_eq!(json, serde_json::json!({"version": 1}));
}

mod names {
    use std::net::IpAddr;

    use egress_common::names::{NameEntry, NameKey, Slot};

    use super::super::names::{HEADERS, Held, NameView, rows, view};
    use crate::columns;
    use crate::names::Snapshot;

    /// a.com has one id, two labels and more in front of foo.com another one; an id that is gone still has an address.
    fn held() -> Held {
        let key = |name| NameKey::new(name).unwrap();
        let address = |text: &str, slots: &[(u32, u32)]| -> (IpAddr, Vec<Slot>) {
            (text.parse().unwrap(), slots.iter().map(|(id, expiry)| Slot { id: *id, expiry: *expiry }).collect())
        };
        Held {
            trie: vec![
                (key("a.com"), NameEntry { exact: 1, one: 0, more: 0, labels: 2 }),
                (key("b.com"), NameEntry { exact: 4, one: 0, more: 0, labels: 2 }),
                (key("foo.com"), NameEntry { exact: 0, one: 0, more: 2, labels: 2 }),
            ],
            addresses: vec![
                address("192.0.2.1", &[(1, 1060), (2, 1030)]),
                address("192.0.2.2", &[(1, 1000)]),
                address("2001:db8::1", &[(2, 1010), (9, 1020)]),
            ],
        }
    }

    fn table(snapshot: Option<&Snapshot>) -> String {
        let mut out = Vec::new();
        let views = view(&held(), snapshot, 1000);
        columns::write_each(&mut out, "names", &HEADERS, || rows(&views), false).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_pins_alone_tell_the_places_and_their_living_addresses() {
        assert_eq!(
            table(None),
            "names\n\
             \x20 name                                   id  address      left s  source  lookups\n\
             \x20 **.*.foo.com                            2  192.0.2.1        30  -       -\n\
             \x20                                            2001:db8::1      10  -\n\
             \x20 a.com                                   1  192.0.2.1        60  -       -\n\
             \x20 b.com                                   4  -            -       -       -\n\
             \x20 id 9, which no rule is about any more   9  2001:db8::1      20  -       -\n"
        );
    }

    pub(super) fn views() -> Vec<NameView> {
        view(&held(), Some(&snapshot()), 1000)
    }

    fn snapshot() -> Snapshot {
        serde_json::from_value(serde_json::json!({
            "version": 1, "time": "", "figures": {},
            "names": [
                { "name": "a.com", "id": 1, "addresses": [
                    { "address": "192.0.2.1", "ends": 1060, "source": "polled" },
                    { "address": "192.0.2.2", "ends": 1000, "source": "polled" } ],
                  "lookups": [
                    { "records": "A", "lastSuccess": 990, "failures": 0, "next": 1050 },
                    { "records": "AAAA", "failures": 2, "lastError": "10.0.0.53:53 did not answer", "next": 1003 } ] },
                { "name": "b.com", "id": 4, "addresses": [], "lookups": [
                    { "records": "A", "lastSuccess": 999, "absence": "the name does not exist (NXDOMAIN)", "failures": 0, "next": 1050 },
                    { "records": "AAAA", "lastSuccess": 999, "absence": "the name does not exist (NXDOMAIN)", "failures": 0, "next": 1050 } ] },
                { "name": "x.y.foo.com", "id": 2, "lookups": [], "addresses": [
                    { "address": "2001:db8::1", "ends": 1010, "source": "learned" } ] },
            ],
        }))
        .unwrap()
    }

    #[test]
    fn the_agent_tells_which_names_they_are_and_how_its_lookups_go() {
        let snapshot = snapshot();
        let views = view(&held(), Some(&snapshot), 1000);
        let names: Vec<(&str, usize, bool)> =
            views.iter().map(|view| (view.name.as_str(), view.addresses.len(), view.concrete)).collect();
        let expected = [
            ("**.*.foo.com", 1, false),
            ("a.com", 1, true),
            ("b.com", 0, true),
            ("id 9, which no rule is about any more", 1, false),
            ("x.y.foo.com", 1, true),
        ];
        assert_eq!(names, expected);
        assert_eq!(views[1].lookups[0].answered_seconds_ago, Some(10));
        let text = table(Some(&snapshot));
        for words in ["AAAA: 10.0.0.53:53 did not answer (2 in a row)", "learned", "NXDOMAIN"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let json = serde_json::to_value(&views).unwrap();
        assert_eq!(
            json[4]["addresses"][0],
            serde_json::json!({ "address": "2001:db8::1", "secondsLeft": 10, "source": "learned" })
        );
        assert_eq!(json[4]["place"], "**.*.foo.com");
    }
}
