//! The kustomization is complete, and names fit together.

use std::collections::BTreeSet;

use egress_deploy::{NAME, NAMESPACE, Objects, deploy, kustomize, texts};
use serde_json::Value;

fn base() -> Option<Objects> {
    kustomize(&deploy(""))
}

#[test]
fn every_generated_file_is_in_its_kustomization() {
    for folder in ["crds", "admission"] {
        let listed = Objects::parse(&std::fs::read_to_string(deploy(folder).join("kustomization.yaml")).unwrap());
        let listed = listed.0.values().flat_map(|object| texts(object.get("resources"))).collect::<BTreeSet<_>>();
        let files =
            std::fs::read_dir(deploy(folder)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let files: BTreeSet<String> = files.filter(|name| name != "kustomization.yaml").collect();
        assert!(!files.is_empty());
        assert_eq!(listed, files, "{folder}");
    }
}

#[test]
fn namespaced_objects_are_in_the_one_namespace_and_the_others_are_ours_by_name() {
    let Some(objects) = base() else { return };
    for (kind, namespace, name) in objects.0.keys() {
        match namespace.as_str() {
            NAMESPACE => assert!(name.starts_with(NAME), "{kind} {name}"),
            "kube-system" => assert!(name.starts_with(NAME) && kind.starts_with("Role"), "{kind} {name}"),
            _ => assert!(name.starts_with("egress-") || name.ends_with(".egress.rs"), "{kind} {name}"),
        }
    }
    assert!(objects.0.contains_key(&("Namespace".into(), String::new(), NAMESPACE.into())));
}

#[test]
fn the_selector_selects_the_pods_and_the_policies_do_too() {
    let Some(objects) = base() else { return };
    let daemonset = objects.daemonset();
    let labels = daemonset.pointer("/spec/template/metadata/labels").and_then(Value::as_object).unwrap();
    let network = objects.of_kind("NetworkPolicy").next().unwrap();
    for selector in [daemonset.pointer("/spec/selector/matchLabels"), network.pointer("/spec/podSelector/matchLabels")]
    {
        let selector = selector.and_then(Value::as_object).unwrap();
        assert!(
            !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value)),
            "{selector:?}"
        );
    }
}

#[test]
fn every_binding_binds_the_agents_account_to_a_role_that_exists() {
    let Some(objects) = base() else { return };
    let account =
        objects.daemonset().pointer("/spec/template/spec/serviceAccountName").and_then(Value::as_str).unwrap();
    assert!(objects.0.contains_key(&("ServiceAccount".into(), NAMESPACE.into(), account.into())));
    let mut bound = 0;
    for ((kind, namespace, name), binding) in &objects.0 {
        if !["ClusterRoleBinding", "RoleBinding"].contains(&kind.as_str()) {
            continue;
        }
        let role =
            |field: &str| binding.pointer(&format!("/roleRef/{field}")).and_then(Value::as_str).unwrap().to_owned();
        let of = if role("kind") == "ClusterRole" { String::new() } else { namespace.clone() };
        assert!(objects.0.contains_key(&(role("kind"), of, role("name"))), "{name}");
        let subjects = serde_json::json!([{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}]);
        assert_eq!(binding.get("subjects"), Some(&subjects), "{name}");
        bound += 1;
    }
    assert!(bound >= 2);
}

#[test]
fn no_right_is_a_wildcard_and_secrets_are_out_of_reach() {
    let Some(objects) = base() else { return };
    let rules = |kind| objects.of_kind(kind).filter_map(|role| role.get("rules")?.as_array().cloned()).flatten();
    for rule in rules("ClusterRole").chain(rules("Role")) {
        let all = ["apiGroups", "resources", "verbs"].map(|field| texts(rule.get(field))).concat();
        for word in ["*", "secrets", "create *", "escalate", "bind", "impersonate", "nodes/proxy", "pods/exec"] {
            assert!(!all.iter().any(|text| text == word), "{word} in {rule}");
        }
    }
}

#[test]
fn the_alerts_know_the_job_that_the_monitor_makes() {
    let monitor = Objects::parse(&std::fs::read_to_string(deploy("components/podmonitor/podmonitor.yaml")).unwrap());
    let monitor = monitor.of_kind("PodMonitor").next().cloned().unwrap();
    let label = monitor.pointer("/spec/jobLabel").and_then(Value::as_str).unwrap();
    let Some(objects) = base() else { return };
    let labels = objects.daemonset().pointer("/spec/template/metadata/labels").and_then(Value::as_object).unwrap();
    let job = labels.get(label).and_then(Value::as_str).unwrap();
    let alerts = std::fs::read_to_string(deploy("monitoring/alerts.yaml")).unwrap();
    assert!(alerts.contains(&format!("job=\"{job}\"")), "{job}");
}
