//! Selection (§2.6), texts, fingerprints.

use super::*;
use crate::sample::{cluster, config, list, pod, policy, port_rule, rule, set};

fn selected(text: &str, pod: &PodIdentity) -> Vec<String> {
    set(text).selected(pod).iter().map(|policy| policy.key.to_string()).collect()
}

fn labelled(namespace: &str, labels: &[(&str, &str)], account: Option<&str>) -> PodIdentity {
    PodIdentity {
        namespace: namespace.to_owned(),
        name: "x".to_owned(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        service_account: account.map(ToOwned::to_owned),
    }
}

// §2.6
#[test]
fn a_policy_of_a_namespace_applies_to_pods_of_that_namespace_only() {
    let text = policy("p", "", &[]);
    assert_eq!(selected(&text, &labelled("default", &[], None)), ["default/p"]);
    assert_eq!(selected(&text, &labelled("other", &[], None)), [""; 0]);
}

// §2.6
#[test]
fn a_pod_selector_chooses_pods_and_an_empty_one_chooses_all() {
    let text = policy("a", "podSelector: {matchLabels: {app: web}}", &[]) + &policy("b", "podSelector: {}", &[]);
    assert_eq!(selected(&text, &labelled("default", &[("app", "web")], None)), ["default/a", "default/b"]);
    assert_eq!(selected(&text, &labelled("default", &[("app", "api")], None)), ["default/b"]);
}

// §2.6
#[test]
fn service_accounts_choose_pods_and_an_empty_list_chooses_none() {
    let text = policy("a", "serviceAccounts: [builder, default]", &[])
        + &policy("b", "serviceAccounts: []", &[])
        + &policy("c", "", &[]);
    assert_eq!(selected(&text, &labelled("default", &[], Some("builder"))), ["default/a", "default/c"]);
    assert_eq!(selected(&text, &labelled("default", &[], Some("other"))), ["default/c"]);
    assert_eq!(selected(&text, &labelled("default", &[], None)), ["default/c"]);
}

// §2.6
#[test]
fn all_selectors_of_a_policy_must_hold() {
    let text = policy("a", "podSelector: {matchLabels: {app: web}}, serviceAccounts: [s]", &[]);
    assert_eq!(selected(&text, &labelled("default", &[("app", "web")], Some("s"))), ["default/a"]);
    assert_eq!(selected(&text, &labelled("default", &[("app", "web")], Some("t"))), [""; 0]);
    assert_eq!(selected(&text, &labelled("default", &[], Some("s"))), [""; 0]);
}

// §2.6
#[test]
fn a_namespace_selector_sees_labels_and_the_name_that_every_namespace_has() {
    let text = cluster("prod", "tier: Admin, namespaceSelector: {matchLabels: {env: prod}}", &[])
        + &cluster("web", "tier: Admin, namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: web}}", &[])
        + &cluster(
            "not",
            "tier: Baseline, namespaceSelector: {matchExpressions: [{key: env, operator: DoesNotExist}]}",
            &[],
        )
        + &cluster("all", "tier: Baseline", &[])
        + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: web, labels: {env: prod, kubernetes.io/metadata.name: forged}}\n";
    assert_eq!(selected(&text, &labelled("web", &[], None)), ["prod", "web", "all"]);
    assert_eq!(selected(&text, &labelled("unknown", &[], None)), ["all", "not"]);
}

#[test]
fn a_service_account_in_a_cluster_policy_is_of_any_selected_namespace() {
    let text = cluster("a", "tier: Admin, serviceAccounts: [builder]", &[]);
    for namespace in ["default", "web"] {
        assert_eq!(selected(&text, &labelled(namespace, &[], Some("builder"))), ["a"]);
    }
}

#[test]
fn ranks_follow_the_order_of_evaluation_and_end_with_the_default_action() {
    let text = cluster("base", "tier: Baseline", &[&rule("Deny", "1.0.0.0/8")])
        + &policy("own", "", &[&rule("Deny", "2.0.0.0/8"), &rule("Allow", "3.0.0.0/8")])
        + &cluster("adm", "tier: Admin", &[&rule("Pass", "4.0.0.0/8")])
        + &config("excludedCIDRs: [5.0.0.0/8], resolvers: [6.0.0.1]");
    let origins: Vec<String> = list(&text).rules.iter().map(|rule| format!("{}: {rule}", rule.origin)).collect();
    assert_eq!(
        origins,
        [
            "internal CIDRs: Allow 127.0.0.0/8,::1/128",
            "link control (neighbour discovery): Allow fe80::/10,ff02::/16 ICMPv6/130-137,ICMPv6/143",
            "link control (DHCPv6): Allow fe80::/10,ff02::/16 UDP/547",
            "link control (IGMP): Allow 224.0.0.0/24 IGMP",
            "link control (DHCPv4): Allow 255.255.255.255/32 UDP/67",
            "DNS to trusted resolvers: Allow 6.0.0.1/32 TCP/53,UDP/53",
            "excluded CIDRs: Allow 5.0.0.0/8",
            "rule 1 of adm: Pass 4.0.0.0/8",
            "rule 1 of default/own: Deny 2.0.0.0/8",
            "rule 2 of default/own: Allow 3.0.0.0/8",
            "rule 1 of base: Deny 1.0.0.0/8",
            "default action: Allow everything",
        ]
    );
}

#[test]
fn texts_are_short_and_complete() {
    let rules = list(&policy(
        "p",
        "",
        &[
            &port_rule("Allow", "1.2.3.0/24", "protocol: TCP, port: 443"),
            "{type: Deny, to: {cidrSelector: 10.0.0.0/8, except: [10.1.0.0/16]}, ports: [{protocol: UDP, port: 1, endPort: 9}, {protocol: SCTP}]}",
            "{type: Allow, to: {dnsName: '**.foo.com'}}",
            "{type: Allow, to: {nodeSelector: {matchLabels: {pool: a}}}}",
            "{type: Deny, to: {cidrSelector: '2001:db8::/32'}, ports: [{protocol: Any}]}",
        ],
    ));
    let texts: Vec<String> =
        rules.rules.iter().filter(|rule| rule.tier == Tier::Namespace).map(RankedRule::text).collect();
    assert_eq!(
        texts,
        [
            "Allow 1.2.3.0/24 TCP/443",
            "Deny 10.0.0.0/8 except 10.1.0.0/16 UDP/1-9,SCTP",
            "Allow **.foo.com",
            "Allow nodes (pool=a)",
            "Deny 2001:db8::/32",
        ]
    );
}

#[test]
fn equal_lists_have_equal_fingerprints_and_each_part_of_a_rule_counts() {
    let base = policy("p", "", &[&port_rule("Allow", "1.2.3.0/24", "protocol: TCP, port: 443")]);
    let fingerprint = |text: &str| list(text).fingerprint();
    assert_eq!(fingerprint(&base), fingerprint(&base));
    let others = [
        String::new(),
        policy("q", "", &[&port_rule("Allow", "1.2.3.0/24", "protocol: TCP, port: 443")]),
        policy("p", "mode: Audit", &[&port_rule("Allow", "1.2.3.0/24", "protocol: TCP, port: 443")]),
        policy("p", "", &[&port_rule("Deny", "1.2.3.0/24", "protocol: TCP, port: 443")]),
        policy("p", "", &[&port_rule("Allow", "1.2.3.0/25", "protocol: TCP, port: 443")]),
        policy("p", "", &[&port_rule("Allow", "1.2.3.0/24", "protocol: UDP, port: 443")]),
        policy("p", "", &[&port_rule("Allow", "1.2.3.0/24", "protocol: TCP, port: 444")]),
        policy(
            "p",
            "",
            &["{type: Allow, name: x, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: TCP, port: 443}]}"],
        ),
        policy(
            "p",
            "",
            &[
                "{type: Allow, to: {cidrSelector: 1.2.3.0/24, except: [1.2.3.4/32]}, ports: [{protocol: TCP, port: 443}]}",
            ],
        ),
        base.clone() + &config("excludedCIDRs: [9.9.9.9/32]"),
        base.clone() + &config("defaultAction: Deny, internalCIDRs: []"),
        base.replace("egress.rs/v1alpha1", "v1"),
    ];
    let mut seen = std::collections::HashSet::from([fingerprint(&base)]);
    for text in others {
        assert!(seen.insert(fingerprint(&text)), "{text}");
    }
}

#[test]
fn a_list_is_trivial_only_without_policies_and_with_default_allow() {
    assert!(list("").is_trivial());
    assert!(list(&config("excludedCIDRs: [9.9.9.9/32]")).is_trivial());
    assert!(!list(&config("defaultAction: Deny, internalCIDRs: []")).is_trivial());
    assert!(!list(&policy("p", "", &[])).is_trivial());
    let text = policy("p", "podSelector: {matchLabels: {app: web}}", &[]);
    assert!(list(&text).is_trivial(), "the policy does not select the pod");
    assert!(!set(&text).rule_list(&labelled("default", &[("app", "web")], None), &NodeContext::default()).is_trivial());
}

// §2.5
#[test]
fn under_cluster_wide_audit_every_policy_and_a_default_deny_only_record() {
    let audit = |spec: &str| config(&format!("enforcement: Audit, {spec}"));
    let rules = policy("p", "", &[&rule("Deny", "1.0.0.0/8")]);
    let modes = |text: &str| -> Vec<(Tier, Action, Mode)> {
        let rules = list(text).rules;
        rules.iter().filter(|rule| rule.tier > Tier::Builtin).map(|rule| (rule.tier, rule.action, rule.mode)).collect()
    };
    let (audited, enforced) = (Mode::Audit, Mode::Enforce);
    let own = (Tier::Namespace, Action::Deny, audited);
    assert_eq!(modes(&(rules.clone() + &audit(""))), [own, (Tier::Default, Action::Allow, enforced)]);
    assert_eq!(
        modes(&(rules + &audit("defaultAction: Deny, internalCIDRs: []"))),
        [own, (Tier::Default, Action::Deny, audited), (Tier::Default, Action::Allow, enforced)]
    );
    assert!(!list(&audit("defaultAction: Deny, internalCIDRs: []")).is_trivial(), "something would be refused");
    assert!(list(&audit("")).is_trivial());
}

#[test]
fn configured_resolvers_replace_the_ones_that_were_found() {
    let node = NodeContext {
        resolvers: vec!["7.0.0.1".parse().unwrap()],
        node_addresses: vec!["8.0.0.1".parse().unwrap()],
        nodes: Vec::new(),
        services: Vec::new(),
    };
    let dns = |text: &str| {
        let list = set(text).rule_list(&pod(), &node);
        list.rules.iter().find(|rule| rule.origin == RuleOrigin::Builtin(Builtin::Dns)).map(RankedRule::text)
    };
    assert_eq!(dns("").as_deref(), Some("Allow 7.0.0.1/32,8.0.0.1/32 TCP/53,UDP/53"));
    assert_eq!(dns(&config("resolvers: [6.0.0.1]")).as_deref(), Some("Allow 6.0.0.1/32,8.0.0.1/32 TCP/53,UDP/53"));
    assert_eq!(dns(&config("resolvers: []")).as_deref(), Some("Allow 8.0.0.1/32 TCP/53,UDP/53"));
    assert_eq!(dns(&config("dns: {allowResolvers: false}")), None);
}
