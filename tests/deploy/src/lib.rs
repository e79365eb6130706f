//! Renders what is in `deploy/` as the tools of the people who install it would: `kubectl kustomize` and `helm template`. A tool that
//! is absent is said (`SKIPPED`), and the caller's test returns.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Namespace of everything.
pub const NAMESPACE: &str = "egress-system";
/// Name of the agent's objects.
pub const NAME: &str = "egress-agent";

/// A folder of `deploy/`.
pub fn deploy(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(below)
}

/// Kind, namespace and name of an object.
pub type Key = (String, String, String);

/// Rendered objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects(pub BTreeMap<Key, Value>);

impl Objects {
    /// Reads the documents of a file.
    pub fn parse(text: &str) -> Self {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let key = |object: &Value| {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            (text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
        };
        Self(documents.into_iter().filter(|object| !object.is_null()).map(|object| (key(&object), object)).collect())
    }

    /// The objects of a kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |(key, _)| key.0 == kind).map(|(_, object)| object)
    }

    /// The only `DaemonSet`.
    pub fn daemonset(&self) -> &Value {
        let mut all = self.of_kind("DaemonSet");
        let (first, second) = (all.next().expect("a DaemonSet"), all.next());
        assert!(second.is_none(), "more than one DaemonSet");
        first
    }

    /// Without the objects of a kind.
    #[must_use]
    pub fn without(mut self, kind: &str) -> Self {
        self.0.retain(|key, _| key.0 != kind);
        self
    }
}

/// What `kubectl apply -k` of a folder would apply; `None`, said so, without kubectl.
pub fn kustomize(folder: &Path) -> Option<Objects> {
    let mut command = Command::new("kubectl");
    command.arg("kustomize").arg(folder);
    let output = answer("kubectl", &mut command)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(Objects::parse(&String::from_utf8_lossy(&output.stdout)))
}

/// The base with components, as somebody's own kustomization would have it.
pub fn with_components(components: &[&str]) -> Option<Objects> {
    // Kustomize takes relative folders only.
    let folder = tempfile::tempdir_in(deploy("..").join("target")).expect("a folder below target/");
    let list = components.iter().map(|name| format!("../../deploy/components/{name}")).collect::<Vec<_>>().join(", ");
    let text = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../../deploy]\ncomponents: [{list}]\n"
    );
    std::fs::write(folder.path().join("kustomization.yaml"), text).expect("written");
    kustomize(folder.path())
}

/// What `helm template` of the chart gives with these values (`--set`), or why it refuses them; `None`, said so, without helm.
pub fn helm(values: &[&str]) -> Option<Result<Objects, String>> {
    let mut command = Command::new("helm");
    command.args(["template", NAME]).arg(deploy("chart")).args(["--namespace", NAMESPACE, "--kube-version", "1.36"]);
    for value in values {
        command.args(["--set", value]);
    }
    let output = answer("helm", &mut command)?;
    if !output.status.success() {
        return Some(Err(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Some(Ok(Objects::parse(&String::from_utf8_lossy(&output.stdout))))
}

fn answer(tool: &str, command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("SKIPPED: {tool} cannot be started: {error}");
            None
        }
    }
}

/// The texts of a list.
pub fn texts(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
