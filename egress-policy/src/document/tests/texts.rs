//! The configuration, namespaces, lists, and texts as a whole: duplicates, foreign kinds, broken syntax, the schema.

use super::*;

#[test]
fn the_configuration_has_every_field() {
    let documents = read(
        "apiVersion: egress.rs/v1alpha1
kind: EgressConfig
metadata: {name: default}
spec:
  defaultAction: Deny
  excludedCIDRs: [192.0.2.1/24]
  internalCIDRs: [10.0.0.0/8, 'fd00::/8']
  resolvers: [10.96.0.10, '::ffff:10.96.0.11']
  dns: {minTTL: 1s, maxTTL: 1h30m, grace: 500ms, allowResolvers: false}
  unknownPods: Allow
  hostNetworkPods: Enforce
  denyResponse: Reject
  enforcement: Audit
",
    );
    assert_eq!(documents.problems, []);
    let [Object::Config(config)] = &documents.objects[..] else { panic!("a configuration") };
    assert_eq!(config.default_action, DefaultAction::Deny);
    assert_eq!(config.excluded_cidrs, ["192.0.2.0/24".parse().unwrap()]);
    assert_eq!(config.internal_cidrs.as_ref().unwrap().len(), 2);
    assert_eq!(config.resolvers, Some(vec!["10.96.0.10".parse().unwrap(), "10.96.0.11".parse().unwrap()]));
    assert_eq!(config.dns.max_ttl.as_secs(), 5400);
    assert_eq!(config.dns.grace.as_millis(), 500);
    assert!(!config.dns.allow_resolvers);
    assert_eq!(config.unknown_pods, UnknownPods::Allow);
    assert_eq!(config.host_network_pods, HostNetworkPods::Enforce);
    assert_eq!(config.deny_response, DenyResponse::Reject);
    assert_eq!(config.enforcement, Mode::Audit);
    assert_eq!(documents.objects[0].warnings()[0].path, "spec.excludedCIDRs[0]");
    assert_eq!(documents.objects[0].title(), "EgressConfig default");
}

#[test]
fn an_empty_configuration_has_the_defaults() {
    let documents = read("apiVersion: egress.rs/v1alpha1\nkind: EgressConfig\nmetadata: {name: default}\nspec: {}\n");
    assert_eq!(documents, Documents { objects: vec![Object::Config(Config::default())], problems: Vec::new() });
}

// §1.2
#[test]
fn deny_by_default_needs_to_know_what_is_internal() {
    assert_eq!(
        config_problems("defaultAction: Deny"),
        [
            "internalCIDRs: defaultAction Deny needs to know what is internal; list the cluster's pod and service CIDRs; an empty list ([]) says that there are none"
        ]
    );
    let text = "apiVersion: egress.rs/v1alpha1\nkind: EgressConfig\nmetadata: {name: default}\nspec: {defaultAction: Deny, internalCIDRs: []}\n";
    assert_eq!(read(text).problems, []);
}

#[test]
fn problems_of_a_configuration_have_their_path() {
    assert_eq!(
        config_problems(
            "defaultAction: allow, resolvers: [dns.local, 0.0.0.0], dns: {minTTL: 5, maxTTL: forever, grace: 2h, allowResolvers: yes}, denyresponse: Drop"
        ),
        [
            "denyresponse: this field is not known; write denyResponse, or remove it",
            "defaultAction: \"allow\" is not one of Allow, Deny; write Allow",
            "resolvers[0]: \"dns.local\" is not an IPv4 or IPv6 address; write an address without length or port, such as 10.96.0.10",
            "resolvers[1]: 0.0.0.0 cannot be a resolver; write the address of a DNS server",
            "dns.minTTL: must be text, not the number 5; put it in quotes: \"5\"",
            "dns.maxTTL: \"forever\" is not a duration; write numbers with a unit (ms, s, m, h), such as 5s or 1h30m",
            "dns.allowResolvers: must be true or false, not the text \"yes\"; write true or false, without quotes",
        ]
    );
    assert_eq!(
        config_problems("dns: {minTTL: 2h}"),
        ["dns.minTTL: minTTL (7200s) is above maxTTL (3600s); raise maxTTL (default 1h) or lower minTTL (default 5s)"]
    );
}

#[test]
fn the_configuration_is_named_default() {
    let found = problems("apiVersion: egress.rs/v1alpha1\nkind: EgressConfig\nmetadata: {name: other}\nspec: {}\n");
    assert_eq!(found, ["3 metadata.name: the configuration must be named default, not other; write name: default"]);
}

#[test]
fn a_namespace_gives_its_labels() {
    let documents = read(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: web, labels: {env: prod}}\nspec: {finalizers: [kubernetes]}\nstatus: {phase: Active}\n",
    );
    assert_eq!(documents.problems, []);
    let labels = [("env".to_owned(), "prod".to_owned())].into();
    assert_eq!(documents.objects, [Object::Namespace { name: "web".to_owned(), labels }]);
}

// §6.3
#[test]
fn a_list_is_opened_and_one_broken_item_leaves_the_others() {
    let documents = read(
        "apiVersion: v1
kind: List
metadata: {resourceVersion: ''}
items:
- apiVersion: egress.rs/v1alpha1
  kind: EgressNetworkPolicy
  metadata: {name: a}
  spec: {egress: []}
- apiVersion: egress.rs/v1alpha1
  kind: EgressNetworkPolicy
  metadata: {name: b}
  spec: {egress: [{type: Allow, to: {cidrSelector: 1}}]}
- apiVersion: v1
  kind: Namespace
  metadata: {name: web}
",
    );
    let titles: Vec<String> = documents.objects.iter().map(Object::title).collect();
    assert_eq!(titles, ["EgressNetworkPolicy default/a", "Namespace web"]);
    let texts: Vec<String> = documents.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "EgressNetworkPolicy default/b, line 12: items[1].spec.egress[0].to.cidrSelector: must be text, not the number 1; put it in quotes: \"1\""
        ]
    );
}

#[test]
fn a_warning_about_an_item_of_a_list_has_the_path_inside_its_object() {
    let documents = read(
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: EgressNetworkPolicy\n  metadata: {name: a}\n  spec: {egress: [{type: Deny, to: {cidrSelector: 1.2.3.4/8}}]}\n",
    );
    assert_eq!(documents.objects[0].warnings()[0].path, "spec.egress[0].to.cidrSelector");
}

#[test]
fn a_whole_family_in_the_configuration_is_warned_about() {
    for field in ["excludedCIDRs", "internalCIDRs"] {
        for prefix in ["0.0.0.0/0", "::/0"] {
            let text = format!(
                "apiVersion: egress.rs/v1alpha1\nkind: EgressConfig\nmetadata: {{name: default}}\nspec: {{{field}: ['{prefix}']}}\n"
            );
            let documents = read(&text);
            assert_eq!(documents.objects[0].warnings()[0].reason, WarningReason::NothingJudged, "{field} {prefix}");
        }
    }
}

/// Texts that are damaged in random places are read without panic, and a document gives objects or problems, never silence.
#[test]
fn a_damaged_text_gives_an_object_or_a_problem() {
    let mut state = 1_u64;
    let mut random = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % limit
    };
    let mut outcomes = [0, 0];
    for _ in 0..1500 {
        let mut text: Vec<char> = FULL.chars().collect();
        for _ in 0..=random(3) {
            let at = random(text.len());
            match random(3) {
                0 => drop(text.remove(at)),
                1 => text.insert(at, ['-', ':', '{', ']', '"', '\n', '0', '*', '&', '\u{e9}'][random(10)]),
                _ => text.truncate(text.len() - random(40).min(text.len() - 1)),
            }
        }
        let text: String = text.into_iter().collect();
        let documents = read(&text);
        outcomes[0] += documents.objects.len();
        outcomes[1] += documents.problems.len();
        assert!(!documents.objects.is_empty() || !documents.problems.is_empty(), "{text}");
    }
    assert!(outcomes.iter().all(|count| *count > 50), "{outcomes:?}");
}

#[test]
fn the_same_object_twice_is_a_problem_of_the_second() {
    let text =
        "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {name: a}\nspec: {egress: []}\n---\n";
    let openshift = "apiVersion: v1\nkind: EgressNetworkPolicy\nmetadata: {name: a}\nspec: {egress: []}\n";
    let documents = read(&format!("{text}{text}{openshift}"));
    assert_eq!(documents.objects.len(), 2);
    assert_eq!(documents.problems.len(), 1);
    assert!(documents.problems[0].to_string().contains("a second time"), "{}", documents.problems[0]);
}

#[test]
fn foreign_kinds_and_versions_are_refused_with_what_to_do() {
    assert_eq!(
        problems("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"),
        [
            "2 kind: ConfigMap of v1 is not known here; remove the document; the kinds are EgressNetworkPolicy, ClusterEgressPolicy, EgressConfig, Namespace and List"
        ]
    );
    assert_eq!(
        problems("apiVersion: egress.rs/v1\nkind: EgressConfig\nmetadata: {name: default}\nspec: {}\n"),
        ["1 apiVersion: egress.rs/v1 has no EgressConfig that is known here; write apiVersion: egress.rs/v1alpha1"]
    );
    assert_eq!(
        problems("metadata: {name: a}\n"),
        [
            "1 apiVersion: the field is required; write apiVersion: egress.rs/v1alpha1",
            "1 kind: the field is required; write the kind, such as EgressNetworkPolicy",
        ]
    );
}

#[test]
fn broken_syntax_is_a_problem_of_its_document_alone() {
    let good = "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {name: a}\nspec: {egress: []}\n";
    let documents = read(&format!("{good}---\nspec: {{egress: [}}\n---\n{}", good.replace("name: a", "name: b")));
    assert_eq!(documents.objects.len(), 2);
    assert_eq!(documents.problems.len(), 1);
    assert_eq!((documents.problems[0].document, documents.problems[0].line), (2, Some(6)));
    assert!(documents.problems[0].message.starts_with("this is not valid YAML"), "{}", documents.problems[0]);
}

#[test]
fn an_empty_text_holds_nothing() {
    for text in ["", "\n", "---\n", "# only a comment\n", "---\n---\n", "\u{feff}"] {
        assert_eq!(read(text), Documents::default(), "{text:?}");
    }
}

/// The field names that the schema of `T` has.
fn schema_fields<T: schemars::JsonSchema>() -> BTreeSet<String> {
    let schema = schemars::schema_for!(T);
    schema.get("properties").unwrap().as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_reader_knows_exactly_the_fields_of_the_schema() {
    let known = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
    assert_eq!(schema_fields::<spec::EgressNetworkPolicySpec>(), known(&policy::POLICY));
    assert_eq!(schema_fields::<spec::ClusterEgressPolicySpec>(), known(&policy::CLUSTER_POLICY));
    assert_eq!(schema_fields::<spec::EgressRule>(), known(&policy::RULE));
    assert_eq!(schema_fields::<spec::EgressPeer>(), known(&policy::PEER));
    assert_eq!(schema_fields::<spec::EgressPort>(), known(&policy::PORT));
    assert_eq!(schema_fields::<spec::LabelSelector>(), known(&metadata::SELECTOR));
    assert_eq!(schema_fields::<spec::LabelRequirement>(), known(&metadata::REQUIREMENT));
    assert_eq!(schema_fields::<spec::EgressConfigSpec>(), known(&config::CONFIG));
    assert_eq!(schema_fields::<spec::DnsSpec>(), known(&config::DNS));
}

#[test]
fn an_object_written_from_the_spec_types_is_read_back() {
    let spec = spec::ClusterEgressPolicySpec {
        tier: spec::ClusterTier::Baseline,
        egress: vec![spec::EgressRule {
            action: Action::Deny,
            to: spec::EgressPeer {
                cidr_selector: Some("10.0.0.0/8".to_owned()),
                except: Some(vec!["10.1.0.0/16".to_owned()]),
                ..Default::default()
            },
            ports: Some(vec![spec::EgressPort { protocol: spec::Protocol::ICMPv6, port: None, end_port: None }]),
            name: Some("x".to_owned()),
        }],
        namespace_selector: Some(spec::LabelSelector::default()),
        pod_selector: None,
        service_accounts: Some(vec!["a".to_owned()]),
        priority: Some(3),
        mode: Some(Mode::Audit),
    };
    let object = serde_json::json!({"apiVersion": spec::API_VERSION, "kind": "ClusterEgressPolicy", "metadata": {"name": "x"}, "spec": spec});
    let policy = policy(&serde_json::to_string_pretty(&object).unwrap());
    assert_eq!((policy.tier, policy.priority, policy.mode), (Tier::Baseline, 3, Mode::Audit));
    assert_eq!(policy.rules[0].ports, Ports::new(vec![KeyRange::protocol(58)]));
    let back: spec::ClusterEgressPolicySpec = serde_json::from_value(object["spec"].clone()).unwrap();
    assert_eq!(back, spec);
}
