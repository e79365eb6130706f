//! What an event turns into, for both families.

use std::sync::Arc;

use egress_policy::describe::RuleDescription;
use egress_policy::model::{Action, Mode, PolicyKey, PolicyKind, Tier};

use super::*;

fn event(remote: IpAddr) -> Event {
    let remote = match remote {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let mut comm = [0; 16];
    comm[..4].copy_from_slice(b"curl");
    Event {
        time: 1,
        endpoint: 7,
        generation: 3,
        rank: 4,
        repeats: 2,
        remote: remote.octets(),
        local: [0; 16],
        remote_port: 443_u16.to_be_bytes(),
        local_port: [0; 2],
        protocol: protocol::TCP,
        hook: Hook::Connect4 as u8,
        outcome: outcome::DENIED,
        reason: DropReason::Policy as u8,
        pid: 99,
        comm,
        length: 0,
        name: 0,
        padding: 0,
    }
}

fn named() -> Named {
    Named {
        pod: Some("default/curl".into()),
        rule: Some(RuleDescription {
            origin: "rule 2 of default/curl".into(),
            policy: Some(Arc::new(PolicyKey {
                kind: PolicyKind::EgressNetworkPolicy,
                namespace: Some("default".into()),
                name: "curl".into(),
            })),
            number: Some(2),
            name: None,
            tier: Tier::Namespace,
            action: Action::Deny,
            mode: Mode::Enforce,
            text: "Deny 0.0.0.0/0".into(),
            dns_name: None,
        }),
        name: None,
    }
}

pub(super) fn sample() -> Record {
    Record::new(&event("8.8.8.8".parse().unwrap()), &named(), "node")
}

#[test]
fn a_refused_connect_names_pod_destination_rule_and_process() {
    for destination in ["8.8.8.8", "2001:db8::8"] {
        let record = Record::new(&event(destination.parse().unwrap()), &named(), "node");
        let value = serde_json::to_value(&record).unwrap();
        assert_eq!((&value["k8s.namespace.name"], &value["k8s.pod.name"]), (&"default".into(), &"curl".into()));
        assert_eq!(value["destination.address"], destination);
        assert_eq!(value["destination.port"], 443);
        assert_eq!(value["network.transport"], "tcp");
        assert_eq!(value["egress.rule.text"], "Deny 0.0.0.0/0");
        assert_eq!(value["egress.policy"], "default/curl");
        assert_eq!(value["egress.rule.number"], 2);
        assert_eq!(value["egress.hook"], "connect4");
        assert_eq!(value["egress.reason"], "policy");
        assert_eq!(value["egress.repeats"], 2);
        assert_eq!((&value["process.pid"], &value["thread.name"]), (&99.into(), &"curl".into()));
        assert_eq!(
            record.sentence(),
            format!("default/curl may not reach {destination} TCP/443: rule 2 of default/curl (Deny 0.0.0.0/0)")
        );
    }
}

#[test]
fn an_icmp_event_has_a_type_and_no_port_and_a_packet_has_no_process() {
    let event = Event {
        protocol: protocol::ICMPV6,
        remote_port: [0, 128],
        comm: [0; 16],
        pid: 0,
        length: 64,
        ..event("2001:db8::8".parse().unwrap())
    };
    let record = Record::new(&event, &Named::default(), "node");
    assert_eq!((record.port, record.icmp_type), (None, Some(128)));
    assert_eq!((record.pid, record.comm.as_deref(), record.length), (None, None, Some(64)));
    assert_eq!(record.pod, "unknown endpoint 7");
    assert!(record.sentence().ends_with("ICMPv6: policy"));
}

#[test]
fn the_name_that_the_address_was_looked_up_as_is_told() {
    for destination in ["8.8.8.8", "2001:db8::8"] {
        let named = Named { name: Some("www.foo.com".into()), ..named() };
        let record = Record::new(&event(destination.parse().unwrap()), &named, "node");
        assert_eq!(serde_json::to_value(&record).unwrap()["dns.question.name"], "www.foo.com");
        assert!(record.sentence().contains(&format!("{destination} (www.foo.com)")), "{}", record.sentence());
    }
    assert!(serde_json::to_value(sample()).unwrap().get("dns.question.name").is_none());
}
