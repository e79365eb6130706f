//! Suggestions held against the compiler: everything that was seen is allowed, everything around it is not.

use std::collections::BTreeSet;
use std::net::IpAddr;

use egress_policy::compile::{Limits, Table, compile};
use egress_policy::document::{self, Object};
use egress_policy::model::{NodeContext, PodIdentity, PolicySet};
use proptest::prelude::*;

use super::synthesis::suggest;
use super::*;
use crate::cli::Output;
use crate::golden;
use crate::vitals::{Attempt, Observation, Times};

fn seen(remote: &str, name: Option<&str>, protocol: &str, port: Option<u16>) -> Observation {
    Observation {
        attempt: Attempt {
            namespace: "shop".into(),
            pod: "web".into(),
            remote: remote.parse().unwrap(),
            name: name.map(ToOwned::to_owned),
            protocol: protocol.into(),
            port,
            tier: Some("Namespace".into()),
            policy: Some("shop/trial".into()),
        },
        times: Times { count: 3, first: 0, last: 1_767_323_045 },
    }
}

fn frame(deny_rest: bool) -> Frame {
    Frame { namespace: "shop".into(), name: "suggested".into(), priority: 50, deny_rest }
}

fn text(seen: &[Observation], deny_rest: bool) -> String {
    let suggested = Suggested::new(&frame(deny_rest), &suggest(seen), &Observed::default());
    let mut out = Vec::new();
    output::write(&mut out, &suggested, Output::Table, false).unwrap();
    String::from_utf8(out).unwrap()
}

/// The table of a pod that the printed policy, read back, selects.
fn table(text: &str) -> Table {
    let documents = document::read(text);
    assert!(documents.problems.is_empty(), "{:?}\n{text}", documents.problems);
    let mut set = PolicySet::default();
    for object in documents.objects {
        let Object::Policy(policy) = object else { panic!("another object") };
        set.insert(policy);
    }
    let pod = PodIdentity { namespace: "shop".into(), name: "web".into(), ..PodIdentity::default() };
    compile(&set.rule_list(&pod, &NodeContext::default()), &Limits::default()).unwrap()
}

#[test]
fn names_come_by_name_and_addresses_by_prefix_with_counts() {
    let observations = [
        seen("1.2.3.4", Some("www.foo.com"), "TCP", Some(443)),
        seen("1.2.3.5", Some("www.foo.com"), "TCP", Some(443)),
        seen("5.6.7.8", None, "TCP", Some(443)),
        seen("5.6.7.9", None, "TCP", Some(443)),
        seen("2001:db8::1", None, "UDP", Some(8000)),
        seen("2001:db8::1", None, "UDP", Some(8001)),
        seen("2001:db8::1", None, "ICMPv6", None),
    ];
    assert_eq!(
        text(&observations, true),
        "# Allows what policies under Audit would have refused, and nothing else.\n\
         apiVersion: egress.rs/v1alpha1\n\
         kind: EgressNetworkPolicy\n\
         metadata: {name: suggested, namespace: shop}\n\
         spec:\n  priority: 50\n  egress:\n  \
         # 6 times by web, last 2026-01-02T03:04:05Z\n  \
         - {\"type\":\"Allow\",\"to\":{\"dnsName\":\"www.foo.com\"},\"ports\":[{\"protocol\":\"TCP\",\"port\":443}]}\n  \
         # 6 times by web, last 2026-01-02T03:04:05Z\n  \
         - {\"type\":\"Allow\",\"to\":{\"cidrSelector\":\"5.6.7.8/31\"},\"ports\":[{\"protocol\":\"TCP\",\"port\":443}]}\n  \
         # 9 times by web, last 2026-01-02T03:04:05Z\n  \
         - {\"type\":\"Allow\",\"to\":{\"cidrSelector\":\"2001:db8::1/128\"},\"ports\":[{\"protocol\":\"UDP\",\
         \"port\":8000,\"endPort\":8001},{\"protocol\":\"ICMPv6\"}]}\n  \
         - {\"type\":\"Deny\",\"to\":{\"cidrSelector\":\"0.0.0.0/0\"}}\n  \
         - {\"type\":\"Deny\",\"to\":{\"cidrSelector\":\"::/0\"}}\n"
    );
}

#[test]
fn every_form_is_written_as_it_was() {
    let mut admin = seen("9.9.9.9", None, "TCP", Some(443));
    (admin.attempt.tier, admin.attempt.policy) = (Some("Admin".into()), Some("guard".into()));
    let observations = [
        seen("1.2.3.4", Some("www.foo.com"), "TCP", Some(443)),
        seen("5.6.7.8", None, "UDP", Some(53)),
        seen("2001:db8::1", None, "ICMPv6", None),
        admin,
    ];
    let observed = Observed { only_counted: 7, forgotten: 2, ..Observed::default() };
    for (name, deny_rest) in [("suggest", false), ("suggest-deny-rest", true)] {
        golden::insist(name, &Suggested::new(&frame(deny_rest), &suggest(&observations), &observed));
    }
    golden::insist("suggest-nothing", &Suggested::new(&frame(false), &suggest(&[]), &Observed::default()));
}

#[test]
fn one_port_for_many_addresses_is_one_rule_beside_the_odd_ones() {
    let mut observations: Vec<Observation> =
        (0..8).map(|host| seen(&format!("5.6.7.{host}"), None, "TCP", Some(443))).collect();
    observations.push(seen("5.6.7.3", None, "TCP", Some(80)));
    assert_eq!(suggest(&observations).rules.len(), 2);
}

#[test]
fn what_the_admin_tier_would_refuse_and_what_was_lost_is_said() {
    let mut admin = seen("1.2.3.4", None, "TCP", Some(443));
    (admin.attempt.tier, admin.attempt.policy) = (Some("Admin".into()), Some("guard".into()));
    let observed = Observed { only_counted: 7, ..Observed::default() };
    let suggested = Suggested::new(&frame(false), &suggest(&[admin]), &observed);
    assert!(suggested.is_empty());
    let mut out = Vec::new();
    output::write(&mut out, &suggested, Output::Table, false).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("# Nothing was seen that a policy of namespace shop could allow.\n# 7 more"), "{text}");
    assert!(text.contains("web to 1.2.3.4 TCP port 443, 3 times: guard of the Admin tier comes first"), "{text}");
    assert!(text.lines().all(|line| line.starts_with('#')), "{text}");
}

const NUMBERS: [(&str, u8); 5] = [("TCP", 6), ("UDP", 17), ("SCTP", 132), ("ICMP", 1), ("ICMPv6", 58)];

/// Attempts that lie close together, so that merging is possible and wrong merging is seen.
fn attempts() -> impl Strategy<Value = Vec<(IpAddr, usize, u16)>> {
    let address = prop_oneof![
        (0_u8..16).prop_map(|host| IpAddr::from([5, 6, 7, host])),
        (0_u16..16).prop_map(|host| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host])),
    ];
    prop::collection::vec((address, 0_usize..NUMBERS.len(), 440_u16..446), 0..60)
}

proptest! {
    #[test]
    fn a_suggestion_allows_what_was_seen_and_nothing_else(attempts in attempts()) {
        let has_port = |protocol: usize| protocol < 3;
        let observations: Vec<Observation> = attempts
            .iter()
            .map(|(remote, protocol, port)| {
                seen(&remote.to_string(), None, NUMBERS[*protocol].0, has_port(*protocol).then_some(*port))
            })
            .collect();
        prop_assume!(!observations.is_empty());
        let table = table(&text(&observations, true));
        let wanted: BTreeSet<(IpAddr, u8, u16)> = attempts
            .iter()
            .map(|(remote, protocol, port)| (*remote, NUMBERS[*protocol].1, if has_port(*protocol) { *port } else { 0 }))
            .collect();
        for host in 0_u8..18 {
            for address in [IpAddr::from([5, 6, 7, host]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()])] {
                for (protocol, (_, number)) in NUMBERS.iter().enumerate() {
                    for port in if has_port(protocol) { 439..447 } else { 0..1 } {
                        let allowed = !table.lookup(address, *number, port).decision.is_deny();
                        prop_assert_eq!(allowed, wanted.contains(&(address, *number, port)), "{} {} {}", address, number, port);
                    }
                }
            }
        }
    }
}
