//! The chart gives what the kustomization gives.

use egress_deploy::{Objects, deploy, helm, kustomize, with_components};

/// The chart's objects; the namespace is Helm's own business (`--namespace`).
fn chart(values: &[&str]) -> Option<Objects> {
    Some(helm(values)?.unwrap_or_else(|error| panic!("{values:?}: {error}")))
}

fn same(chart: &Objects, kustomization: &Objects) {
    let kustomization = kustomization.clone().without("Namespace");
    let names = |objects: &Objects| objects.0.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(chart), names(&kustomization));
    for (key, object) in &chart.0 {
        assert_eq!(Some(object), kustomization.0.get(key), "{key:?}");
    }
}

#[test]
fn the_chart_gives_the_objects_of_the_kustomization() {
    let (Some(chart), Some(base)) = (chart(&["crds.keep=false"]), kustomize(&deploy(""))) else { return };
    assert!(chart.0.len() > 10, "{}", chart.0.len());
    same(&chart, &base);
}

#[test]
fn every_option_has_its_component() {
    for (value, component) in [
        ("podMonitor.enabled=true", "podmonitor"),
        ("openshift.enabled=true", "openshift"),
        ("bpffs.mount=true", "mount-bpffs"),
        ("agent.compat={openshift,ovn}", "compat"),
        ("agent.removeTaint=true", "remove-taint"),
    ] {
        let Some(base) = kustomize(&deploy("")) else { return };
        let (Some(chart), Some(with)) = (chart(&["crds.keep=false", value]), with_components(&[component])) else {
            return;
        };
        assert_ne!(with, base, "{component} changes nothing");
        same(&chart, &with);
    }
}

#[test]
fn uninstalling_by_helm_is_uninstalling_by_kubectl() {
    let (Some(chart), Some(folder)) = (chart(&["crds.keep=false", "uninstall=true"]), kustomize(&deploy("uninstall")))
    else {
        return;
    };
    same(&chart, &folder);
}

#[test]
fn the_crds_are_kept_by_default_and_only_they() {
    let Some(chart) = chart(&[]) else { return };
    for (key, object) in &chart.0 {
        let kept = object.pointer("/metadata/annotations/helm.sh~1resource-policy").is_some();
        assert_eq!(kept, key.0 == "CustomResourceDefinition", "{key:?}");
    }
}

#[test]
fn the_image_is_named_by_tag_or_by_digest() {
    let image = |values: &[&str]| {
        let objects = chart(values)?;
        objects
            .daemonset()
            .pointer("/spec/template/spec/containers/0/image")
            .and_then(|image| image.as_str())
            .map(str::to_owned)
    };
    let Some(default) = image(&[]) else { return };
    assert_eq!(default, concat!("localhost/egress-agent:", env!("CARGO_PKG_VERSION")));
    let digest = format!("sha256:{}", "0".repeat(64));
    let cases = [
        (vec!["image.repository=r.example/e".to_owned(), "image.tag=v2".to_owned()], "r.example/e:v2".to_owned()),
        (vec!["image.tag=v2".to_owned(), format!("image.digest={digest}")], format!("localhost/egress-agent@{digest}")),
    ];
    for (values, expected) in cases {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        assert_eq!(image(&values), Some(expected));
    }
}

#[test]
fn the_schema_refuses_what_the_chart_cannot_mean() {
    for (wrong, right) in [
        ("metrics.address=10.0.0.1", "metrics.address=0.0.0.0"),
        ("metrics.port=0", "metrics.port=9999"),
        ("maxUnavailable=0", "maxUnavailable=3"),
        ("maxUnavailable=110%", "maxUnavailable=100%"),
        ("agent.compat={calico}", "agent.compat={openshift}"),
        ("agent.flowLog=log", "agent.flowLog=-"),
        ("agent.removeTaint=egress.rs/agent-not-ready", "agent.removeTaint=true"),
        ("image.pullPolicy=Sometimes", "image.pullPolicy=Always"),
        ("crd.enabled=false", "crds.enabled=false"),
    ] {
        let Some(answer) = helm(&[wrong]) else { return };
        let error = answer.expect_err(wrong);
        assert!(error.contains("values don't meet the specifications of the schema"), "{wrong}: {error}");
        chart(&[right]);
    }
}
