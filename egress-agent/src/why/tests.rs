//! What a person and a program are told, from findings made by hand. What the maps really say is tested end to end.

use std::sync::Arc;

use egress_common::endpoint::TableRef;
use egress_common::table::{Counter, Decision, TableInfo};
use egress_policy::compile::{Limits, Lookup, compile};
use egress_policy::describe::TableDescription;
use egress_policy::document::{self, Object};
use egress_policy::model::{NodeContext, PodIdentity, PolicySet};
use egress_policy::rules::RuleList;

use super::kernel::{Found, Judged, NameHeld, PrefixSays};
use super::*;
use crate::cli::Output;
use crate::datapath::inspect::{EndpointView, TableView};
use crate::destination::Destination;
use crate::golden;
use crate::pods::PodName;

const POLICY: &str = "
apiVersion: egress.rs/v1alpha1
kind: EgressNetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  egress:
  - {name: site, type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: TCP, port: 443}]}
  - {type: Deny, to: {cidrSelector: 0.0.0.0/0}}
  - {type: Deny, to: {cidrSelector: '::/0'}}
";

fn list() -> RuleList {
    let mut set = PolicySet::default();
    for object in document::read(POLICY).objects {
        if let Object::Policy(policy) = object {
            set.insert(policy);
        }
    }
    let pod = PodIdentity { namespace: "shop".into(), name: "web".into(), ..PodIdentity::default() };
    set.rule_list(&pod, &NodeContext::default())
}

fn pod() -> PodName {
    "shop/web".parse().unwrap()
}

/// What the maps would say, from the table that they would be filled with.
fn found(to: Destination) -> Found {
    let list = list();
    let table = compile(&list, &Limits::default()).unwrap();
    let mut prefixes: Vec<_> = table.entries().filter(|(prefix, _)| prefix.contains(&to.address)).collect();
    prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.prefix_len()));
    let says = |leaf| match to.port {
        Some(_) => vec![(to.keys(), table.open(leaf, to.keys().first).unwrap())],
        None => vec![(to.keys(), egress_policy::compile::Lookup { decision: Decision::deny(0), audit: None })],
    };
    let reference = TableRef { slot: 3, generation: 17 };
    let rank = table.lookup(to.address, to.protocol, to.port.unwrap_or(0)).decision.rank();
    Found::Judged(Judged {
        endpoint: EndpointView {
            name: "shop/web".into(),
            id: 5,
            slot: 0,
            interface: Some(9),
            netns: Some(4026),
            cgroup: None,
            table: reference,
        },
        table: TableView {
            reference,
            info: TableInfo { generation: 17, rules: table.rules, ..TableInfo::default() },
            description: Some(Arc::new(TableDescription::new(&list))),
            prefixes: Vec::new(),
            classes: Vec::new(),
        },
        prefixes: prefixes.iter().map(|&(prefix, leaf)| PrefixSays { prefix, says: says(leaf) }).collect(),
        names: Vec::new(),
        says: prefixes.first().map(|&(_, leaf)| says(leaf)).unwrap_or_default(),
        counters: vec![(rank, Counter { packets: 4, bytes: 240 })],
    })
}

fn written(to: &str, output: Output, status: Option<&LastStatus>) -> String {
    let to: Destination = to.parse().unwrap();
    let mut out = Vec::new();
    output::write(&mut out, &Why::new(&pod(), to, &found(to), status, None), output, false).unwrap();
    String::from_utf8(out).unwrap()
}

fn status(problems: &serde_json::Value) -> LastStatus {
    let text = serde_json::json!({
        "version": 1, "generation": 7, "applied_at": "2026-01-02T03:04:05Z", "pid": u32::MAX, "problems": problems,
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("status.json"), text.to_string()).unwrap();
    LastStatus::read(folder.path()).unwrap()
}

#[test]
fn the_rule_its_counter_and_every_prefix_around_are_told() {
    assert_eq!(
        written("1.2.3.4:80", Output::Table, Some(&status(&serde_json::json!([])))),
        "shop/web to 1.2.3.4:80/TCP: deny\n  \
         by        rule 2 of shop/web: Deny 0.0.0.0/0\n  \
         counted   4 packets or calls, 240 bytes by this rule since the table was made\n  \
         table     3#17, 9 rules, denyResponse Drop\n  \
         known by  interface 9, netns 4026\n  \
         agent     does not run (pid 4294967295 is gone), last applied 2026-01-02T03:04:05Z; the kernel keeps enforcing\n\
         prefixes that contain 1.2.3.4; the first one decides\n  \
         prefix      ports   verdict  by\n  \
         1.2.3.0/24  TCP/80  deny     rule 2 of shop/web\n  \
         0.0.0.0/0   TCP/80  deny     rule 2 of shop/web\n"
    );
    let text = written("1.2.3.4:443", Output::Table, None);
    assert!(
        text.starts_with(
            "shop/web to 1.2.3.4:443/TCP: allow\n  by        rule 1 of shop/web \"site\": Allow 1.2.3.0/24 TCP/443\n"
        ),
        "{text}"
    );
    assert!(text.contains("agent     has left no status"), "{text}");
}

#[test]
fn every_answer_is_written_as_it_was() {
    let problem =
        serde_json::json!([{"source": "a.yaml", "object": "EgressNetworkPolicy shop/x", "message": "is broken"}]);
    for (name, to) in [("allow", "1.2.3.4:443"), ("deny", "[2001:db8::1]:53/UDP")] {
        let to: Destination = to.parse().unwrap();
        golden::insist(&format!("why-{name}"), &Why::new(&pod(), to, &found(to), Some(&status(&problem)), None));
    }
    let to: Destination = "1.2.3.4/ICMP".parse().unwrap();
    let Found::Judged(Judged { endpoint, .. }) = found(to) else { panic!("the pod is known") };
    golden::insist("why-no-table", &Why::new(&pod(), to, &Found::NoTable(endpoint), None, None));
    let unknown = Found::Unknown { known: vec!["shop/db".into()] };
    golden::insist("why-unknown", &Why::new(&pod(), to, &unknown, None, None));
}

#[test]
fn programs_get_the_same_with_a_version_and_ipv6_in_brackets() {
    let json: serde_json::Value = serde_json::from_str(&written("[2001:db8::1]:443", Output::Json, None)).unwrap();
    assert_eq!((&json["version"], &json["verdict"]), (&1.into(), &"deny".into()));
    assert_eq!(json["to"], "[2001:db8::1]:443/TCP");
    assert_eq!(json["table"]["generation"], 17);
    assert_eq!((&json["rules"][0]["origin"], &json["rules"][0]["packets"]), (&"rule 3 of shop/web".into(), &4.into()));
    assert_eq!(json["prefixes"][0]["prefix"], "::/0");
    let yaml: serde_json::Value = serde_saphyr::from_str(&written("[2001:db8::1]:443", Output::Yaml, None)).unwrap();
    assert_eq!(yaml, json);
}

#[test]
fn a_pod_that_the_kernel_does_not_know_is_explained_and_is_no_yes() {
    let to: Destination = "1.2.3.4:443".parse().unwrap();
    let why = Why::new(&pod(), to, &Found::Unknown { known: vec!["shop/db".into()] }, None, None);
    assert!(!why.allows());
    let mut out = Vec::new();
    output::write(&mut out, &why, Output::Table, false).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.starts_with("shop/web to 1.2.3.4:443/TCP: unknown\n  note      the kernel does not know this pod"),
        "{text}"
    );
    assert!(text.contains("known here: shop/db\n"), "{text}");
}

#[test]
fn only_problems_that_can_concern_the_pod_are_told() {
    let problem = |object: &str| serde_json::json!({"source": "a.yaml", "object": object, "message": object});
    let nameless = serde_json::json!({"source": "kernel", "message": "refused"});
    let all = serde_json::json!([
        problem("shop/web"),
        problem("shop/db"),
        problem("EgressNetworkPolicy shop/x"),
        problem("EgressNetworkPolicy other/x"),
        problem("ClusterEgressPolicy base"),
        nameless,
    ]);
    let told: Vec<String> = status(&all).problems_of(&pod()).into_iter().map(|told| told.message).collect();
    assert_eq!(told, ["shop/web", "EgressNetworkPolicy shop/x", "ClusterEgressPolicy base", "refused"]);
    assert!(
        written("1.2.3.4:80", Output::Table, Some(&status(&all)))
            .contains("something else than the files say:\n  a.yaml, shop/web: shop/web\n")
    );
}

#[test]
fn the_names_of_the_destination_are_told_and_what_they_decide() {
    for destination in ["1.2.3.4:80", "[2001:db8::1]:80"] {
        let to: Destination = destination.parse().unwrap();
        let mut found = found(to);
        let Found::Judged(judged) = &mut found else { panic!("the pod is known") };
        let expiry = u32::try_from(crate::names::now().as_secs()).unwrap() + 90;
        let held =
            |id, place: Option<&str>, counts| NameHeld { id, expiry, place: place.map(ToOwned::to_owned), counts };
        judged.names =
            vec![held(1, Some("www.foo.com"), true), held(2, Some("*.cdn.com"), false), held(9, None, false)];
        judged.says = vec![(to.keys(), Lookup { decision: Decision::allow(6), audit: None })];
        let snapshot = serde_json::json!({ "version": 1, "time": "", "figures": {}, "names": [
            { "name": "x.cdn.com", "id": 2, "lookups": [],
              "addresses": [{ "address": to.address, "ends": 0, "source": "learned" }] },
            { "name": "y.cdn.com", "id": 2, "lookups": [], "addresses": [] },
        ] });
        let snapshot: Snapshot = serde_json::from_value(snapshot).unwrap();
        let why = Why::new(&pod(), to, &found, None, Some(&snapshot));
        assert!(why.allows());

        let mut out = Vec::new();
        output::write(&mut out, &why, Output::Table, false).unwrap();
        let text = String::from_utf8(out).unwrap();
        for words in [
            "name      www.foo.com for ",
            "name      x.cdn.com for ",
            "no rule of this pod is about it",
            "name      id 9, which no rule is about any more for ",
            "of the first one and the names, the rule that comes first decides",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let json = serde_json::to_value(&why).unwrap();
        assert_eq!(
            (&json["names"][1]["names"], &json["names"][0]["counts"]),
            (&serde_json::json!(["x.cdn.com"]), &true.into())
        );
    }
}

#[test]
fn a_name_has_the_addresses_that_are_known_and_the_verdict_of_all_of_them() {
    let view = |name: &str, place: Option<&str>, concrete, addresses: &[&str]| -> dump::NameView {
        let rows = addresses.iter().map(|text| dump::AddressView {
            address: text.parse().unwrap(),
            seconds_left: 9,
            source: None,
        });
        dump::NameView {
            name: name.into(),
            id: 1,
            place: place.map(Into::into),
            concrete,
            addresses: rows.collect(),
            lookups: Vec::new(),
        }
    };
    let held = [
        view("www.foo.com", Some("www.foo.com"), true, &["2001:db8::1", "1.2.3.4"]),
        // Of the same name, but the agent has not said so yet.
        view("www.foo.com", Some("www.foo.com"), false, &["8.8.8.8"]),
        view("*.foo.com", Some("*.foo.com"), false, &["9.9.9.9"]),
        view("x.foo.com", Some("*.foo.com"), true, &["9.9.9.8"]),
    ];
    let addresses = |name| addresses(&held, name).into_iter().map(|address| address.to_string()).collect::<Vec<_>>();
    assert_eq!(addresses("www.foo.com"), ["1.2.3.4", "8.8.8.8", "2001:db8::1"]);
    assert_eq!(addresses("x.foo.com"), ["9.9.9.8"]);
    assert_eq!(addresses("y.foo.com"), [""; 0]);

    let asked: Asked = "www.foo.com:443".parse().unwrap();
    let Asked::Name(named) = &asked else { panic!("a name") };
    let why = |texts: &[&str]| {
        let answer = |text: &&str| {
            let to: Destination = text.parse().unwrap();
            Why::new(&pod(), to, &found(to), None, None)
        };
        WhyName::new(&pod(), named, texts.iter().map(answer).collect())
    };
    golden::insist("why-name", &why(&["1.2.3.4:443", "8.8.8.8:443"]));
    golden::insist("why-name-deny", &why(&["8.8.8.8:443"]));
    let verdict = |texts: &[&str]| serde_json::to_value(why(texts)).unwrap()["verdict"].clone();
    assert_eq!(verdict(&["1.2.3.4:443"]), "allow");
    assert_eq!(verdict(&["1.2.3.4:443", "8.8.8.8:443"]), "differs");
    assert!(why(&["1.2.3.4:443"]).allows() && !why(&["1.2.3.4:443", "8.8.8.8:443"]).allows());
    assert!(named::unknown(named).to_string().contains("no live address of www.foo.com is known on this node"));
}
