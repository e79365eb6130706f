//! Objects that the API server takes and others that it refuses, for the tests here and for those on a real API server (`tests/cluster`).
//!
//! Invariant: what an agent accepts, no API server refuses.

use serde_json::{Value, json};

pub(super) fn policy(spec: &Value) -> Value {
    json!({"apiVersion": "egress.rs/v1alpha1", "kind": "EgressNetworkPolicy", "metadata": {"name": "a", "namespace": "shop"}, "spec": spec})
}

fn cluster_policy(spec: &Value) -> Value {
    json!({"apiVersion": "egress.rs/v1alpha1", "kind": "ClusterEgressPolicy", "metadata": {"name": "a"}, "spec": spec})
}

fn config(spec: &Value) -> Value {
    json!({"apiVersion": "egress.rs/v1alpha1", "kind": "EgressConfig", "metadata": {"name": "default"}, "spec": spec})
}

fn rule(to: &Value) -> Value {
    policy(&json!({"egress": [{"type": "Allow", "to": to}]}))
}

fn cidr(text: &str) -> Value {
    rule(&json!({"cidrSelector": text}))
}

fn except(cidr: &str, except: &[&str]) -> Value {
    rule(&json!({"cidrSelector": cidr, "except": except}))
}

fn name(text: &str) -> Value {
    rule(&json!({"dnsName": text}))
}

fn port(port: &Value) -> Value {
    policy(&json!({"egress": [{"type": "Deny", "to": {"cidrSelector": "::/0"}, "ports": [port]}]}))
}

fn selector(selector: &Value) -> Value {
    policy(&json!({"egress": [], "podSelector": selector}))
}

fn requirement(requirement: &Value) -> Value {
    selector(&json!({"matchExpressions": [requirement]}))
}

fn repeated(item: &Value, count: usize) -> Vec<Value> {
    vec![item.clone(); count]
}

/// Objects that both accept.
pub fn accepted() -> Vec<Value> {
    let long_name = format!("{}.{}.", "**", ["abcdefg"; 31].join(".") + ".abcde");
    let port_443 = json!({"protocol": "TCP", "port": 443});
    let mut objects = vec![
        policy(&json!({"egress": []})),
        cidr("0.0.0.0/0"),
        cidr("1.2.3.4/24"),
        cidr("2001:DB8::1/32"),
        cidr("::/0"),
        cidr("::ffff:1.2.3.0/120"),
        cidr("0:0:0:0:0:FFFF:1.2.3.4/128"),
        except("10.0.0.0/8", &["10.1.2.3/16", "10.255.0.0/16", "10.0.0.0/8"]),
        except("10.1.0.0/8", &["10.200.0.0/16"]),
        except("2001:db8::/32", &["2001:db8:ffff::/48"]),
        except("10.0.0.0/8", &["::ffff:10.1.0.0/112"]),
        except("10.0.0.0/8", &[]),
        name("www.example.com"),
        name("WWW.Example.COM."),
        name("*.example.com"),
        name("**.example.com"),
        name("my_bucket.s3.example"),
        name("_dmarc.example.com"),
        name("localhost"),
        name("a1.b2.c3d"),
        name("bücher.example"),
        name("*.bücher。example"),
        name(&long_name),
        rule(&json!({"nodeSelector": {}})),
        rule(&json!({"nodeSelector": {"matchLabels": {"a": ""}}})),
        port(&port_443),
        port(&json!({"protocol": "SCTP", "port": 1, "endPort": 65535})),
        port(&json!({"protocol": "UDP", "port": 53, "endPort": 53})),
        port(&json!({"protocol": "TCP"})),
        port(&json!({"protocol": "ICMPv6"})),
        port(&json!({"protocol": "Any"})),
        requirement(&json!({"key": "app", "operator": "In", "values": ["a"]})),
        requirement(&json!({"key": "example.com/app", "operator": "NotIn", "values": ["", "b"]})),
        requirement(&json!({"key": "app", "operator": "Exists"})),
        requirement(&json!({"key": "app", "operator": "DoesNotExist", "values": []})),
        policy(&json!({"egress": [], "serviceAccounts": [], "priority": 0, "mode": "Audit"})),
        policy(&json!({"egress": [], "serviceAccounts": ["default", "a.b"], "priority": 1000, "mode": "Enforce"})),
        cluster_policy(&json!({"tier": "Admin", "egress": [{"type": "Pass", "to": {"dnsName": "a.b"}, "name": "n"}]})),
        cluster_policy(&json!({"tier": "Baseline", "egress": [], "namespaceSelector": {}, "podSelector": {}})),
        config(&json!({})),
        config(&json!({"defaultAction": "Deny"})),
        config(&json!({
            "defaultAction": "Deny", "enforcement": "Audit", "excludedCIDRs": ["192.0.2.0/24"],
            "internalCIDRs": [], "resolvers": ["10.96.0.10", "2001:db8::53", "::ffff:10.0.0.1"], "unknownPods": "Allow",
            "hostNetworkPods": "Enforce", "denyResponse": "Reject",
            "dns": {"minTTL": "500ms", "maxTTL": "1h30m", "grace": "0", "allowResolvers": false, "allowInternalAnswers": true},
        })),
    ];
    let peer = json!({"cidrSelector": "1.2.3.4/32"});
    objects.push(policy(&json!({"egress": repeated(&json!({"type": "Allow", "to": peer}), crate::spec::MAX_RULES)})));
    objects.push(policy(&json!({"egress": [
        {"type": "Allow", "to": peer, "ports": repeated(&port_443, crate::spec::MAX_PORTS)},
    ]})));
    objects.push(except("10.0.0.0/8", &["10.1.0.0/16"; crate::spec::MAX_EXCEPT]));
    objects
}

/// Objects that both refuse.
pub fn refused() -> Vec<Value> {
    let port_443 = json!({"protocol": "TCP", "port": 443});
    let peer = json!({"cidrSelector": "1.2.3.4/32"});
    let other_name =
        json!({"apiVersion": "egress.rs/v1alpha1", "kind": "EgressConfig", "metadata": {"name": "other"}, "spec": {}});
    vec![
        policy(&json!({})),
        policy(&json!({"egress": null})),
        policy(&json!({"egress": [], "mode": "audit"})),
        policy(&json!({"egress": [], "priority": 1001})),
        policy(&json!({"egress": [], "priority": -1})),
        policy(&json!({"egress": [], "priority": "7"})),
        policy(&json!({"egress": [{"type": "Allow"}]})),
        policy(&json!({"egress": [{"to": peer}]})),
        policy(&json!({"egress": [{"type": "Pass", "to": peer}]})),
        policy(&json!({"egress": [{"type": "allow", "to": peer}]})),
        policy(&json!({"egress": [{"type": "Allow", "to": peer, "ports": []}]})),
        policy(&json!({"egress": [{"type": "Allow", "to": peer, "name": ""}]})),
        policy(&json!({"egress": repeated(&json!({"type": "Allow", "to": peer}), crate::spec::MAX_RULES + 1)})),
        policy(&json!({"egress": [
            {"type": "Allow", "to": peer, "ports": repeated(&port_443, crate::spec::MAX_PORTS + 1)},
        ]})),
        except("10.0.0.0/8", &["10.1.0.0/16"; crate::spec::MAX_EXCEPT + 1]),
        rule(&json!({})),
        rule(&json!({"cidrSelector": "1.2.3.4/32", "dnsName": "a.b"})),
        rule(&json!({"cidrSelector": "1.2.3.4/32", "nodeSelector": {}})),
        rule(&json!({"dnsName": "a.b", "except": []})),
        cidr(""),
        cidr("1.2.3.4"),
        cidr("1.2.3.4/33"),
        cidr("010.0.0.0/8"),
        cidr("10.0.0.0/08"),
        cidr("2001:db8::/129"),
        cidr("fe80::1%eth0/64"),
        cidr("example.com/8"),
        except("10.0.0.0/8", &["11.0.0.0/16"]),
        except("10.0.0.0/8", &["10.0.0.0/7"]),
        except("10.0.0.0/8", &["2001:db8::/48"]),
        except("2001:db8::/32", &["2001:db9::/48"]),
        except("10.0.0.0/8", &["10.1.0.0"]),
        name(""),
        name("a b.com"),
        name("a.*.com"),
        name("*foo.com"),
        name("http://a.b"),
        name("1.2.3.4"),
        name("2001:db8::1"),
        name("foo.7."),
        name("<\u{338}.com"),
        name(&"a.".repeat(130)),
        port(&json!({"port": 443})),
        port(&json!({"protocol": "tcp"})),
        port(&json!({"protocol": "TCP", "port": 0})),
        port(&json!({"protocol": "TCP", "port": 65536})),
        port(&json!({"protocol": "TCP", "port": "443"})),
        port(&json!({"protocol": "TCP", "port": 2, "endPort": 1})),
        port(&json!({"protocol": "TCP", "endPort": 1})),
        port(&json!({"protocol": "ICMP", "port": 8})),
        port(&json!({"protocol": "Any", "port": 8})),
        requirement(&json!({"key": "app", "operator": "In"})),
        requirement(&json!({"key": "app", "operator": "NotIn", "values": []})),
        requirement(&json!({"key": "app", "operator": "Exists", "values": ["a"]})),
        requirement(&json!({"key": "app", "operator": "Is", "values": ["a"]})),
        requirement(&json!({"operator": "Exists"})),
        selector(&json!({"matchLabels": {"a": "a".repeat(64)}})),
        selector(&json!({"matchLabels": {"a": 1}})),
        policy(&json!({"egress": [], "serviceAccounts": [""]})),
        cluster_policy(&json!({"egress": []})),
        cluster_policy(&json!({"tier": "Top", "egress": []})),
        cluster_policy(&json!({"tier": "Baseline", "egress": [{"type": "Pass", "to": peer}]})),
        other_name,
        config(&json!({"defaultAction": "Reject"})),
        config(&json!({"excludedCIDRs": ["1.2.3.4"]})),
        config(&json!({"resolvers": ["10.96.0.10:53"]})),
        config(&json!({"resolvers": ["10.96.0.10/32"]})),
        config(&json!({"dns": {"minTTL": "5"}})),
        config(&json!({"dns": {"minTTL": "5 s"}})),
        config(&json!({"dns": {"allowResolvers": "yes"}})),
    ]
}

/// Objects that the agent alone refuses, as the API documentation lists them, each with what it is about.
pub fn refused_by_the_agent_alone() -> Vec<(&'static str, Value)> {
    vec![
        ("null where a field may be left out, which the server drops", policy(&json!({"egress": [], "mode": null}))),
        ("a label longer than 63 characters", name(&format!("{}.com", "a".repeat(64)))),
        ("an empty label", name("a..com")),
        ("a hyphen at the end of a label", name("a-.com")),
        ("an A-label that IDNA does not know", name("xn--a-ecp.ru")),
        ("a prefix in IPv6 notation of IPv4 that is none", cidr("::ffff:1.2.3/24")),
        ("leading zeros in except", except("10.0.0.0/8", &["10.01.0.0/16"])),
        ("an IPv4-mapped prefix outside", except("10.0.0.0/8", &["::ffff:11.0.0.0/112"])),
        (
            "a control character in a rule's name",
            policy(&json!({"egress": [{"type": "Allow", "to": {"dnsName": "a.b"}, "name": "a\nb"}]})),
        ),
        ("the syntax of a label's key", selector(&json!({"matchLabels": {"a b": "c"}}))),
        ("the syntax of a label's value", selector(&json!({"matchLabels": {"a": "-"}}))),
        ("the syntax of a service account's name", policy(&json!({"egress": [], "serviceAccounts": ["A"]}))),
        ("minTTL above maxTTL", config(&json!({"dns": {"minTTL": "2h"}}))),
        ("an address that is no resolver", config(&json!({"resolvers": ["0.0.0.0"]}))),
    ]
}
