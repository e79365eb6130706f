//! The roles give what the agent asks for, to the verb.

use std::collections::BTreeSet;

use egress_agent::rbac::{self, Scope};
use egress_deploy::{NAME, NAMESPACE, Objects, deploy, kustomize, texts, with_components};
use egress_policy::import;
use serde_json::Value;

/// A group, a resource and a verb.
type Right = (String, String, String);

/// What a role gives.
fn rights(role: &Value) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for rule in role.get("rules").and_then(Value::as_array).expect("rules") {
        let [groups, resources, verbs] = ["apiGroups", "resources", "verbs"].map(|field| texts(rule.get(field)));
        for (group, resource) in groups.iter().flat_map(|group| resources.iter().map(move |resource| (group, resource)))
        {
            let of = |verb: &String| (group.clone(), resource.clone(), verb.clone());
            rights.extend(verbs.iter().map(of));
        }
    }
    rights
}

fn role(objects: &Objects, kind: &str, namespace: &str, name: &str) -> BTreeSet<Right> {
    rights(objects.0.get(&(kind.to_owned(), namespace.to_owned(), name.to_owned())).expect("a role"))
}

#[test]
fn the_roles_give_what_the_agent_asks_for_to_the_verb() {
    let Some(objects) = kustomize(&deploy("")) else { return };
    let given = [
        (Scope::Cluster, role(&objects, "ClusterRole", "", NAME)),
        (Scope::OwnNamespace, role(&objects, "Role", NAMESPACE, NAME)),
        (Scope::Namespace("kube-system"), role(&objects, "Role", "kube-system", "egress-agent-kubeadm")),
    ];
    for (scope, given) in given {
        let needs = rbac::NEEDS.iter().filter(|need| need.scope == scope);
        let of = |need: &rbac::Need, verb: &str| (need.group.to_owned(), need.resource.to_owned(), verb.to_owned());
        let needed: BTreeSet<Right> =
            needs.flat_map(|need| need.verbs.iter().map(move |verb| of(need, verb))).collect();
        assert_eq!(given, needed, "{scope:?}");
    }
}

#[test]
fn the_component_compat_gives_the_kinds_that_its_argument_names() {
    let Some(objects) = with_components(&["compat"]) else { return };
    let given = role(&objects, "ClusterRole", "", "egress-agent-compat");
    let arguments = texts(objects.daemonset().pointer("/spec/template/spec/containers/0/args"));
    let names = arguments.iter().find_map(|word| word.strip_prefix("--compat=")).expect("--compat");
    let mut needed = BTreeSet::from(["apiextensions.k8s.io".to_owned()]);
    for name in names.split(',') {
        let apis = import::kind(name).expect("a kind").apis.iter().flat_map(|api| api.versions);
        // The core group has none of them in a cluster that runs today.
        needed.extend(apis.filter_map(|version| version.split_once('/')).map(|(group, _)| group.to_owned()));
    }
    assert_eq!(given.iter().map(|(group, ..)| group.clone()).collect::<BTreeSet<_>>(), needed);
    let verbs: BTreeSet<_> = given.iter().map(|(.., verb)| verb.as_str()).collect();
    assert_eq!(verbs, BTreeSet::from(["list", "watch"]));
}

#[test]
fn the_component_remove_taint_gives_one_right_and_takes_back_all_of_it_but_one_use() {
    let Some(objects) = with_components(&["remove-taint"]) else { return };
    let rbac::Need { group, resource, verbs, scope, .. } = rbac::REMOVE_TAINT;
    assert_eq!(scope, Scope::Cluster);
    let needed = verbs.iter().map(|verb| (group.to_owned(), resource.to_owned(), (*verb).to_owned())).collect();
    assert_eq!(role(&objects, "ClusterRole", "", "egress-agent-remove-taint"), needed);
    let policy =
        objects.0.get(&("ValidatingAdmissionPolicy".into(), String::new(), "egress-agent-remove-taint".into()));
    let policy = policy.expect("an admission policy");
    let account =
        objects.daemonset().pointer("/spec/template/spec/serviceAccountName").and_then(Value::as_str).unwrap();
    let condition = policy.pointer("/spec/matchConditions/0/expression").and_then(Value::as_str).unwrap();
    assert!(condition.contains(&format!("system:serviceaccount:{NAMESPACE}:{account}'")), "{condition}");
    let rule = policy.pointer("/spec/matchConstraints/resourceRules/0").unwrap();
    assert_eq!(texts(rule.get("resources")), [resource]);
    assert_eq!(policy.pointer("/spec/failurePolicy"), Some(&"Fail".into()));
    let validations = policy.pointer("/spec/validations").unwrap().to_string();
    assert!(validations.contains(&format!("'{}'", rbac::TAINT)), "{validations}");
    let binding = objects.of_kind("ValidatingAdmissionPolicyBinding");
    let mut binding = binding.filter(|binding| binding.pointer("/spec/policyName") == policy.pointer("/metadata/name"));
    assert_eq!(texts(binding.next().unwrap().pointer("/spec/validationActions")), ["Deny"]);
}
