//! Valid objects, and the exact list of problems of invalid ones.

use std::collections::BTreeSet;

use super::*;
use crate::model::{Action, DefaultAction, DenyResponse, HostNetworkPods, Mode, Peer, Tier, UnknownPods};
use crate::ports::{KeyRange, Ports};
use crate::spec;
use crate::warnings::WarningReason;

mod texts;

/// The problems of a text that has no valid object, one per line: `line path: message; hint`.
fn problems(text: &str) -> Vec<String> {
    let documents = read(text);
    assert_eq!(documents.objects, [], "{text}");
    let line = |problem: &Problem| {
        format!("{} {}: {}; {}", problem.line.unwrap_or_default(), problem.path, problem.message, problem.hint)
    };
    documents.problems.iter().map(line).collect()
}

/// The problems of a policy with these rules, written in flow style on line 4.
fn rule_problems(rules: &str) -> Vec<String> {
    let text = format!(
        "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: p}}\nspec: {{egress: [{rules}]}}\n"
    );
    problems(&text).into_iter().map(|problem| problem.trim_start_matches("4 spec.").to_owned()).collect()
}

fn to_problems(to: &str) -> Vec<String> {
    let problems = rule_problems(&format!("{{type: Allow, to: {{{to}}}}}"));
    problems.into_iter().map(|problem| problem.trim_start_matches("egress[0].").to_owned()).collect()
}

fn port_problems(ports: &str) -> Vec<String> {
    let problems = rule_problems(&format!("{{type: Allow, to: {{cidrSelector: 1.2.3.0/24}}, ports: {ports}}}"));
    problems.into_iter().map(|problem| problem.trim_start_matches("egress[0].").to_owned()).collect()
}

fn config_problems(spec: &str) -> Vec<String> {
    let text =
        format!("apiVersion: egress.rs/v1alpha1\nkind: EgressConfig\nmetadata: {{name: default}}\nspec: {{{spec}}}\n");
    problems(&text).into_iter().map(|problem| problem.trim_start_matches("4 spec.").to_owned()).collect()
}

fn policies(text: &str) -> Vec<Policy> {
    let documents = read(text);
    assert_eq!(documents.problems, [], "{text}");
    let policy = |object| match object {
        Object::Policy(policy) => policy,
        other @ (Object::Config(_) | Object::Namespace { .. }) => panic!("not a policy: {other:?}"),
    };
    documents.objects.into_iter().map(policy).collect()
}

fn policy(text: &str) -> Policy {
    policies(text).remove(0)
}

fn reasons(policy: &Policy) -> Vec<(WarningReason, &str)> {
    policy.warnings.iter().map(|warning| (warning.reason, warning.path.as_str())).collect()
}

const FULL: &str = "
apiVersion: egress.rs/v1alpha1
kind: ClusterEgressPolicy
metadata:
  name: full
  labels: {team: net}
  creationTimestamp: null
  annotations: {a: b}
spec:
  tier: Admin
  priority: 7
  mode: Audit
  namespaceSelector:
    matchLabels: {env: prod}
    matchExpressions:
    - {key: example.com/tier, operator: In, values: [a, b]}
    - {key: x, operator: Exists}
  podSelector: {}
  serviceAccounts: [builder]
  egress:
  - type: Pass
    name: office
    to:
      cidrSelector: 10.0.0.0/8
      except: [10.2.0.0/16, 10.1.0.0/16]
    ports:
    - protocol: TCP
      port: 443
    - {protocol: UDP, port: 1000, endPort: 2000}
    - protocol: ICMP
  - type: Deny
    to: {cidrSelector: '2001:db8::/32'}
  - type: Allow
    to: {dnsName: '*.Foo.com.'}
  - type: Allow
    to: {nodeSelector: {matchLabels: {pool: a}}}
status: {anything: [1, 2]}
";

#[test]
fn every_field_of_a_policy_is_read() {
    let policy = policy(FULL);
    assert_eq!(policy.key.to_string(), "full");
    assert_eq!((policy.tier, policy.priority, policy.mode), (Tier::Admin, 7, Mode::Audit));
    assert_eq!(policy.namespace_selector.as_ref().unwrap().to_string(), "env=prod,example.com/tier in (a,b),x");
    assert_eq!(policy.pod_selector, Some(crate::selector::LabelSelector::default()));
    assert_eq!(policy.service_accounts, Some(vec!["builder".to_owned()]));
    let [office, v6, name, nodes] = &policy.rules[..] else { panic!("four rules") };
    assert_eq!((office.action, office.name.as_deref()), (Action::Pass, Some("office")));
    let expected = ["10.1.0.0/16", "10.2.0.0/16"].map(|prefix| prefix.parse().unwrap());
    assert_eq!(office.peer, Peer::Cidr { cidr: "10.0.0.0/8".parse().unwrap(), except: expected.into() });
    let ranges = vec![KeyRange::protocol(1), KeyRange::ports(6, 443, 443), KeyRange::ports(17, 1000, 2000)];
    assert_eq!(office.ports, Ports::new(ranges));
    assert_eq!((v6.action, &v6.ports), (Action::Deny, &Ports::Any));
    assert!(matches!(&name.peer, Peer::DnsName(name) if name.to_string() == "*.foo.com"));
    assert!(matches!(&nodes.peer, Peer::Nodes(selector) if selector.to_string() == "pool=a"));
    assert_eq!(reasons(&policy), []);
}

#[test]
fn json_says_the_same_as_yaml() {
    let yaml = policy(FULL);
    let json = r#"{"apiVersion": "egress.rs/v1alpha1", "kind": "ClusterEgressPolicy", "metadata": {"name": "full"},
	"spec": {"tier": "Admin", "priority": 7, "mode": "Audit", "namespaceSelector": {"matchLabels": {"env": "prod"},
	"matchExpressions": [{"key": "example.com/tier", "operator": "In", "values": ["a", "b"]}, {"key": "x", "operator": "Exists"}]},
	"podSelector": {}, "serviceAccounts": ["builder"], "egress": [
	{"type": "Pass", "name": "office", "to": {"cidrSelector": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.2.0.0/16"]},
	"ports": [{"protocol": "TCP", "port": 443}, {"protocol": "UDP", "port": 1000, "endPort": 2000}, {"protocol": "ICMP"}]},
	{"type": "Deny", "to": {"cidrSelector": "2001:db8::/32"}}, {"type": "Allow", "to": {"dnsName": "*.foo.com"}},
	{"type": "Allow", "to": {"nodeSelector": {"matchLabels": {"pool": "a"}}}}]}}"#;
    assert_eq!(policy(json), yaml);
}

#[test]
fn what_is_left_out_has_its_default() {
    let policy =
        policy("apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {name: p}\nspec: {egress: []}\n");
    assert_eq!(policy.key.to_string(), "default/p");
    assert_eq!((policy.tier, policy.priority, policy.mode), (Tier::Namespace, 100, Mode::Enforce));
    assert_eq!((policy.pod_selector, policy.service_accounts), (None, None));
}

#[test]
fn an_openshift_object_is_read_as_it_is() {
    for version in ["network.openshift.io/v1", "v1"] {
        let policy = policy(&format!(
            "apiVersion: {version}\nkind: EgressNetworkPolicy\nmetadata:\n  name: default\n  namespace: web\nspec:\n  egress:\n\
             \x20 - type: Allow\n    to:\n      cidrSelector: 1.2.3.0/24\n  - type: Allow\n    to:\n      cidrSelector: ''\n      \
             dnsName: www.foo.com\n  - type: Deny\n    to:\n      cidrSelector: 0.0.0.0/32\n"
        ));
        assert_eq!(policy.key.kind, PolicyKind::OpenShiftEgressNetworkPolicy);
        assert_eq!(policy.key.to_string(), "web/default");
        assert_eq!(policy.rules.len(), 3);
        let Peer::Cidr { cidr, .. } = &policy.rules[2].peer else { panic!("a prefix") };
        assert_eq!(cidr.to_string(), "0.0.0.0/0");
        assert_eq!(reasons(&policy), [(WarningReason::OpenShiftZeroAddress, "spec.egress[2].to.cidrSelector")]);
    }
}

#[test]
fn an_openshift_object_has_only_openshift_fields() {
    let found = problems(
        "apiVersion: v1\nkind: EgressNetworkPolicy\nmetadata: {name: p}\nspec: {egress: [], podSelector: {}}\n",
    );
    assert_eq!(found, ["4 spec.podSelector: this field is not known; remove it; the fields here are egress"]);
}

// §3.2
#[test]
fn one_zero_address_stays_one_address_in_our_own_objects() {
    let policy = policy(
        "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {name: p}\nspec: {egress: [{type: Deny, to: {cidrSelector: 0.0.0.0/32}}]}\n",
    );
    let Peer::Cidr { cidr, .. } = &policy.rules[0].peer else { panic!("a prefix") };
    assert_eq!(cidr.prefix_len(), 32);
    assert_eq!(reasons(&policy), [(WarningReason::SingleZeroAddress, "spec.egress[0].to.cidrSelector")]);
}

// §3.2
#[test]
fn host_bits_are_masked_with_a_warning() {
    let policy = policy(
        "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {name: p}\nspec:\n  egress:\n  - type: Deny\n    to: {cidrSelector: 1.2.3.4/24, except: [1.2.3.9/31]}\n  - type: Deny\n    to: {cidrSelector: '2001:db8::1/32'}\n  - type: Deny\n    to: {cidrSelector: '::ffff:1.2.3.0/120'}\n",
    );
    let texts: Vec<String> = policy
        .rules
        .iter()
        .map(|rule| match &rule.peer {
            Peer::Cidr { cidr, except } => format!("{cidr} {except:?}"),
            other @ (Peer::DnsName(_) | Peer::Nodes(_)) => format!("{other:?}"),
        })
        .collect();
    assert_eq!(texts, ["1.2.3.0/24 [1.2.3.8/31]", "2001:db8::/32 []", "1.2.3.0/24 []"]);
    let expected = [
        (WarningReason::HostBitsMasked, "spec.egress[0].to.cidrSelector"),
        (WarningReason::HostBitsMasked, "spec.egress[0].to.except[0]"),
        (WarningReason::HostBitsMasked, "spec.egress[1].to.cidrSelector"),
        (WarningReason::MappedPrefix, "spec.egress[2].to.cidrSelector"),
    ];
    assert_eq!(reasons(&policy), expected);
    assert_eq!(
        policy.warnings[0].to_string(),
        "EgressNetworkPolicy default/p: spec.egress[0].to.cidrSelector: 1.2.3.4/24 has host bits and is read as 1.2.3.0/24; write 1.2.3.0/24"
    );
}

#[test]
fn probable_mistakes_are_warnings() {
    let policy = policy(
        "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {name: p}\nspec:\n  serviceAccounts: []\n  egress:\n  - type: Deny\n    to: {cidrSelector: 1.2.3.0/24, except: [1.2.3.0/25, 1.2.3.128/25]}\n  - type: Deny\n    to: {cidrSelector: '::/0'}\n    ports: [{protocol: ICMP}]\n  - type: Deny\n    to: {cidrSelector: 0.0.0.0/0}\n    ports: [{protocol: ICMPv6}]\n",
    );
    let expected = [
        (WarningReason::SelectsNothing, "spec.serviceAccounts"),
        (WarningReason::NothingLeft, "spec.egress[0].to.except"),
        (WarningReason::ProtocolOfOtherFamily, "spec.egress[1].to.cidrSelector"),
        (WarningReason::ProtocolOfOtherFamily, "spec.egress[2].to.cidrSelector"),
    ];
    assert_eq!(reasons(&policy), expected);
}

#[test]
fn every_problem_of_a_policy_is_reported_at_once() {
    let found = problems(
        "apiVersion: egress.rs/v1alpha1
kind: EgressNetworkPolicy
metadata:
  name: Curl
  namespce: web
spec:
  priority: 1001
  mode: audit
  tier: Admin
  podSelector:
    matchLabels: {app: 1}
    matchExpressions:
    - {key: a, operator: In}
    - {key: a, operator: Exists, values: [b]}
    - {operator: Equals}
  serviceAccounts: [Builder, ok]
  egress:
  - type: Allow
    to: {cidrSelector: 1.2.3.4}
  - type: Pass
    to: {cidrSelector: 1.2.3.0/24, cidrselector: x}
  - to: {}
    port: 443
  - type: Allow
    to: {cidrSelector: 10.0.0.0/8, except: [11.0.0.0/8, 10.1.0.0/33]}
    ports: []
  - Allow
  - type: Allow
    to: {cidrSelector: 1.2.3.0/24}
    ports:
    - {protocol: tcp, port: 443}
    - {port: 443}
    - {protocol: TCP, port: 0}
    - {protocol: TCP, port: '443'}
    - {protocol: TCP, port: 443, endPort: 442}
    - {protocol: TCP, endPort: 442}
    - {protocol: Any, port: 1}
",
    );
    let expected = [
        "5 metadata.namespce: this field is not known; remove it, or correct its spelling",
        "4 metadata.name: \"Curl\" is not a valid name; use lower-case letters, digits and hyphens, a letter or digit at both ends, at most 253 characters",
        "9 spec.tier: this field is not known; remove it; the fields here are egress, podSelector, serviceAccounts, priority, mode",
        "11 spec.podSelector.matchLabels.app: must be text, not the number 1; put it in quotes: \"1\"",
        "13 spec.podSelector.matchExpressions[0].values: In and NotIn need values; list at least one value",
        "14 spec.podSelector.matchExpressions[1].values: Exists and DoesNotExist take no values; remove them, or write In or NotIn",
        "15 spec.podSelector.matchExpressions[2].key: the field is required; name the label",
        "15 spec.podSelector.matchExpressions[2].operator: \"Equals\" is not one of In, NotIn, Exists, DoesNotExist; write one of In, NotIn, Exists, DoesNotExist",
        "16 spec.serviceAccounts[0]: \"Builder\" is not a valid name; use lower-case letters, digits and hyphens, a letter or digit at both ends, at most 253 characters",
        "7 spec.priority: 1001 is not a number from 0 to 1000; write a number from 0 to 1000",
        "8 spec.mode: \"audit\" is not one of Enforce, Audit; write Audit",
        "19 spec.egress[0].to.cidrSelector: \"1.2.3.4\" is not an IPv4 or IPv6 prefix; write the length too: 1.2.3.4/32",
        "20 spec.egress[1].type: Pass is possible only in the Admin tier; write Allow or Deny, or move the rule to a ClusterEgressPolicy of tier Admin",
        "21 spec.egress[1].to.cidrselector: this field is not known; write cidrSelector, or remove it",
        "23 spec.egress[2].port: this field is not known; write ports, or remove it",
        "22 spec.egress[2].type: the field is required; write type: Allow or type: Deny",
        "22 spec.egress[2].to: names no destination; add one of cidrSelector, dnsName, nodeSelector",
        "26 spec.egress[3].ports: an empty list matches no traffic; remove the field to match every protocol and port",
        "25 spec.egress[3].to.except[0]: 11.0.0.0/8 is not inside 10.0.0.0/8; remove it; the rule does not match it anyway",
        "25 spec.egress[3].to.except[1]: \"10.1.0.0/33\" is not an IPv4 or IPv6 prefix; write an address and a length, such as 1.2.3.0/24 or 2001:db8::/32",
        "27 spec.egress[4]: must be an object with fields, not the text \"Allow\"; write its fields below it, indented",
        "31 spec.egress[5].ports[0].protocol: \"tcp\" is not one of TCP, UDP, SCTP, ICMP, ICMPv6, Any; write TCP",
        "32 spec.egress[5].ports[1].protocol: the field is required; write one of TCP, UDP, SCTP, ICMP, ICMPv6, Any",
        "33 spec.egress[5].ports[2].port: 0 is not a number from 1 to 65535; write a number from 1 to 65535",
        "34 spec.egress[5].ports[3].port: must be a number, not the text \"443\"; remove the quotes: 443",
        "35 spec.egress[5].ports[4].endPort: endPort 442 is below port 443; write the smaller number as port",
        "36 spec.egress[5].ports[5].endPort: endPort needs port, where the range begins; add port",
        "37 spec.egress[5].ports[6].port: Any takes no port; remove it, or name TCP, UDP or SCTP",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_problem_names_its_document_and_its_object() {
    let documents = read(
        "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {name: good}\nspec: {egress: []}\n---\napiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {name: bad, namespace: web}\nspec: {egress: 7}\n---\n- nothing\n",
    );
    assert_eq!(documents.objects.len(), 1);
    let texts: Vec<String> = documents.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "EgressNetworkPolicy web/bad, line 9: spec.egress: must be a list, not the number 7; write each item on a line of its own, after a hyphen",
            "document 3, line 11: must be an object, not a list; write apiVersion, kind, metadata and spec",
        ]
    );
    assert_eq!(documents.problems[0].document, 2);
}

// §3.1
#[test]
fn a_peer_is_exactly_one_of_its_kinds() {
    assert_eq!(to_problems(""), ["to: names no destination; add one of cidrSelector, dnsName, nodeSelector"]);
    assert_eq!(
        to_problems("cidrSelector: x, dnsName: a.com"),
        [
            "to: names 2 destinations: cidrSelector, dnsName; keep one and write a rule for each of the others",
            "to.cidrSelector: \"x\" is not an IPv4 or IPv6 prefix; write an address and a length, such as 1.2.3.0/24 or 2001:db8::/32",
        ]
    );
    assert_eq!(
        to_problems("dnsName: a.com, except: [1.2.3.0/24]"),
        [
            "to.except: except needs cidrSelector, and the rule has dnsName; remove it, or write a Deny rule before this one"
        ]
    );
    assert_eq!(
        to_problems("cidrSelector: ''"),
        [
            "to.cidrSelector: \"\" is not an IPv4 or IPv6 prefix; write an address and a length, such as 1.2.3.0/24 or 2001:db8::/32"
        ],
        "only OpenShift's objects may have an empty text for a peer that is not meant"
    );
}

#[test]
fn a_wrong_name_says_what_to_write() {
    assert_eq!(
        to_problems("dnsName: 1.2.3.4"),
        ["to.dnsName: 1.2.3.4 is an address, not a name; use cidrSelector for addresses"]
    );
    assert_eq!(
        to_problems("dnsName: 'a.*.com'"),
        [
            "to.dnsName: a wildcard may stand only at the front, as `*.` (one label) or `**.` (one or more); write *.example.com or **.example.com"
        ]
    );
}

// §6.3
#[test]
fn an_empty_field_is_a_problem_because_it_may_have_been_a_narrowing() {
    assert_eq!(port_problems("null"), ["ports: the field is empty; give it a value, or remove it"]);
    let found = problems(
        "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {name: p}\nspec:\n  podSelector:\n  egress: []\n",
    );
    assert_eq!(found, ["5 spec.podSelector: the field is empty; give it a value, or remove it"]);
}

#[test]
fn a_field_written_twice_is_a_problem() {
    let found = problems(
        "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {name: p}\nspec:\n  egress: []\n  mode: Audit\n  mode: Enforce\n",
    );
    assert_eq!(found, ["6 spec.mode: the field is written more than once; keep one of them"]);
    assert_eq!(
        to_problems("cidrSelector: 1.2.3.0/24, cidrSelector: 0.0.0.0/0"),
        ["to.cidrSelector: the field is written more than once; keep one of them"]
    );
}

// §3.4
#[test]
fn ports_are_checked_in_every_form() {
    for right in [
        "[{protocol: TCP}]",
        "[{protocol: TCP, port: 1, endPort: 1}]",
        "[{protocol: SCTP, port: 65535}]",
        "[{protocol: Any}]",
    ] {
        let text = format!(
            "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: p}}\nspec: {{egress: [{{type: Allow, to: {{cidrSelector: 1.2.3.0/24}}, ports: {right}}}]}}\n"
        );
        assert_eq!(policies(&text).len(), 1, "{right}");
    }
    let limit = "is not a number from 1 to 65535; write a number from 1 to 65535";
    assert_eq!(port_problems("[{protocol: TCP, port: 65536}]"), [format!("ports[0].port: 65536 {limit}")]);
    assert_eq!(port_problems("[{protocol: TCP, port: -1}]"), [format!("ports[0].port: -1 {limit}")]);
    assert_eq!(port_problems("[{protocol: TCP, port: 1.5}]"), [format!("ports[0].port: 1.5 {limit}")]);
    assert_eq!(port_problems("[{protocol: TCP, port: 1, endPort: 0}]"), [format!("ports[0].endPort: 0 {limit}")]);
    assert_eq!(
        port_problems("[{protocol: ICMP, port: 8}, {protocol: ICMPv6, endPort: 3}]"),
        [
            "ports[0].port: ICMP takes no port; remove it, or name TCP, UDP or SCTP",
            "ports[1].endPort: endPort needs port, where the range begins; add port",
            "ports[1].endPort: ICMPv6 takes no port; remove it, or name TCP, UDP or SCTP",
        ]
    );
    assert_eq!(
        port_problems("{protocol: TCP}"),
        ["ports: must be a list, not an object with fields; write each item on a line of its own, after a hyphen"]
    );
}

#[test]
fn a_policy_has_at_most_8000_rules() {
    let text = |count: usize| {
        let rules = vec!["{type: Allow, to: {cidrSelector: 1.2.3.0/24}}"; count].join(", ");
        format!(
            "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: p}}\nspec: {{egress: [{rules}]}}\n"
        )
    };
    assert_eq!(policy(&text(8000)).rules.len(), 8000);
    assert_eq!(
        problems(&text(8001)),
        ["4 spec.egress: 8001 rules, and at most 8000 are possible; split the policy into several"]
    );
}

#[test]
fn eight_thousand_broken_rules_give_eight_thousand_problems() {
    assert_eq!(rule_problems(&vec!["{type: Allow, to: {cidrSelector: x}}"; 8000].join(", ")).len(), 8000);
}

#[test]
fn a_cluster_policy_needs_its_tier_and_has_no_namespace() {
    let found = problems(
        "apiVersion: egress.rs/v1alpha1\nkind: ClusterEgressPolicy\nmetadata: {name: p, namespace: x}\nspec: {egress: []}\n",
    );
    assert_eq!(
        found,
        [
            "3 metadata.namespace: a ClusterEgressPolicy has no namespace; remove it; namespaceSelector chooses namespaces",
            "4 spec.tier: the field is required; write tier: Admin or tier: Baseline",
        ]
    );
    let found = problems(
        "apiVersion: egress.rs/v1alpha1\nkind: ClusterEgressPolicy\nmetadata: {name: p}\nspec: {tier: Baseline, egress: [{type: Pass, to: {cidrSelector: 1.2.3.0/24}}]}\n",
    );
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("only in the Admin tier"), "{found:?}");
}
