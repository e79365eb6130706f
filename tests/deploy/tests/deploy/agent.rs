//! The pods fit the program in them: arguments, ports, probes, rights.

use egress_deploy::{NAMESPACE, Objects, deploy, kustomize, texts, with_components};
use serde_json::Value;

/// Everything that a `DaemonSet` of ours may look like.
fn variants() -> Option<Vec<(&'static str, Objects)>> {
    Some(vec![
        ("base", kustomize(&deploy(""))?),
        ("uninstall", kustomize(&deploy("uninstall"))?),
        ("podmonitor", with_components(&["podmonitor"])?),
        ("all components", with_components(&["podmonitor", "openshift", "mount-bpffs", "compat", "remove-taint"])?),
    ])
}

fn pod(objects: &Objects) -> &Value {
    objects.daemonset().pointer("/spec/template/spec").expect("a pod")
}

fn containers<'a>(pod: &'a Value, field: &str) -> &'a [Value] {
    pod.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[test]
fn the_program_understands_the_arguments() {
    let Some(variants) = variants() else { return };
    for (name, objects) in &variants {
        let pod = pod(objects);
        let all = containers(pod, "initContainers").iter().chain(containers(pod, "containers"));
        for container in all {
            let words = [vec!["egress-agent".to_owned()], texts(container.get("args"))].concat();
            let parsed = egress_agent::cli::command().try_get_matches_from(&words);
            assert!(parsed.is_ok(), "{name}: {words:?}: {}", parsed.unwrap_err());
        }
    }
    let wrong = egress_agent::cli::command().try_get_matches_from(["egress-agent", "run", "--kubernete"]);
    assert!(wrong.is_err(), "an argument that is not known is refused");
}

#[test]
fn probes_ask_the_port_that_the_program_listens_on() {
    let Some(variants) = variants() else { return };
    for (name, objects) in &variants {
        let [container] = containers(pod(objects), "containers") else { panic!("{name}: one container") };
        let address = texts(container.get("args"))
            .into_iter()
            .find_map(|word| word.strip_prefix("--metrics-address=").map(str::to_owned));
        let address: std::net::SocketAddr = address.expect("an address").parse().unwrap();
        let port = container.pointer("/ports/0").unwrap();
        assert_eq!(port.get("containerPort").and_then(Value::as_u64), Some(u64::from(address.port())), "{name}");
        for (probe, path) in
            [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]
        {
            let asks = container.pointer(&format!("/{probe}/httpGet")).unwrap_or_else(|| panic!("{name}: {probe}"));
            assert_eq!(asks.get("path").and_then(Value::as_str), Some(path), "{name}");
            assert_eq!(asks.get("port"), port.get("name"), "{name}");
            let host: std::net::IpAddr = asks.get("host").and_then(Value::as_str).unwrap().parse().unwrap();
            assert!(host.is_loopback() && (address.ip() == host || address.ip().is_unspecified()), "{name}");
        }
    }
}

#[test]
fn the_agents_container_has_the_three_capabilities_and_nothing_more() {
    let Some(variants) = variants() else { return };
    for (name, objects) in &variants {
        let [container] = containers(pod(objects), "containers") else { panic!("{name}: one container") };
        let security = container.get("securityContext").unwrap();
        assert_eq!(security.get("privileged"), Some(&false.into()), "{name}");
        assert_eq!(security.get("readOnlyRootFilesystem"), Some(&true.into()), "{name}");
        assert_eq!(texts(security.pointer("/capabilities/drop")), ["ALL"], "{name}");
        assert_eq!(texts(security.pointer("/capabilities/add")), ["NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"], "{name}");
        let writable =
            containers(container, "volumeMounts").iter().filter(|mount| mount.get("readOnly") != Some(&true.into()));
        let writable: Vec<_> = writable.filter_map(|mount| mount.get("mountPath")?.as_str()).collect();
        let state = if *name == "uninstall" { "/host/run" } else { "/run/egress" };
        assert_eq!(writable, ["/sys/fs/bpf", state], "{name}");
    }
}

#[test]
fn only_the_container_that_mounts_is_privileged_and_only_where_it_is_asked_for() {
    let Some(variants) = variants() else { return };
    for (name, objects) in &variants {
        let privileged = |container: &&Value| container.pointer("/securityContext/privileged") == Some(&true.into());
        let names: Vec<_> = containers(pod(objects), "initContainers")
            .iter()
            .filter(privileged)
            .filter_map(|c| c.get("name")?.as_str())
            .collect();
        let expected: &[&str] = if *name == "all components" { &["mount-bpffs"] } else { &[] };
        assert_eq!(names, expected, "{name}");
    }
}

#[test]
fn the_plugin_looks_for_the_agent_where_it_is() {
    let Some(objects) = kustomize(&deploy("")) else { return };
    let command = egress_agent::cli::plugin_command();
    let default = |name: &str| {
        let argument = command.get_arguments().find(|argument| argument.get_id() == name).unwrap();
        argument.get_default_values()[0].to_str().unwrap().to_owned()
    };
    assert_eq!(default("agent_namespace"), NAMESPACE);
    let (key, value) =
        default("agent_selector").split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).unwrap();
    let labels = objects.daemonset().pointer("/spec/template/metadata/labels").and_then(Value::as_object).unwrap();
    assert_eq!(labels.get(&key).and_then(Value::as_str), Some(value.as_str()));
    let [container] = containers(pod(&objects), "containers") else { panic!("one container") };
    assert_eq!(container.get("name").and_then(Value::as_str), Some("agent"), "what the plugin gives to --container");
}
