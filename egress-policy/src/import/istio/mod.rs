//! Istio's `ServiceEntry`, `Sidecar` and the mesh's `outboundTrafficPolicy`. See docs/import/istio.md.
//!
//! The sidecar takes TCP. Under `ALLOW_ANY` it lets everything out, under `REGISTRY_ONLY` only what entries name that its pod sees: those
//! exported to its namespace and, where a `Sidecar` is for the pod, imported by it. What is compared is what leaves the sidecar: where an
//! entry has endpoints, traffic goes to them. A `Sidecar` becomes a policy that is complete in itself; entries and the mesh's policy are
//! what remains for other pods, in the Baseline tier.

mod entry;
mod sidecar;

use super::Import;
use super::build::{everything, protocol};
use super::draft::Draft;
use super::gather::Foreign;
use super::kind::{Api, Kind};
use super::pods::Pods;
use super::report::{Judgement, Outcome, Place};
use crate::document::{Fields, Node, Report as Reader};
use crate::spec::{Action, EgressRule, MAX_PRIORITY, Protocol};

use entry::Entry;
use sidecar::Sidecar;

const VERSIONS: &[&str] = &["networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"];
/// The namespace whose `Sidecar` is for every namespace without one.
const ROOT: &str = "istio-system";
const WITH_SIDECAR: &str = "for pods with a sidecar, which are what is compared; others are refused too";
const NO_MESH: &str = "the mesh's outboundTrafficPolicy is not in these files: ALLOW_ANY, Istio's default, is taken; where it is \
                       REGISTRY_ONLY, import an IstioOperator that says so together with these objects";

pub(super) const KIND: Kind = Kind {
    name: "istio",
    title: "Istio ServiceEntry, Sidecar and outboundTrafficPolicy",
    apis: &[
        Api { versions: VERSIONS, kind: "ServiceEntry", fields: &["spec"] },
        Api { versions: VERSIONS, kind: "Sidecar", fields: &["spec"] },
        Api { versions: &["install.istio.io/v1alpha1"], kind: "IstioOperator", fields: &["spec"] },
    ],
    convert,
    list: None,
};

/// `outboundTrafficPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    AllowAny,
    RegistryOnly,
}

fn convert(objects: &[&Foreign<'_>], import: &mut Import<'_>) {
    let (mut entries, mut sidecars, mut mesh) = (Vec::new(), Vec::new(), None);
    for object in objects {
        match object.api.kind {
            "ServiceEntry" => entries.extend(import.read(object, entry::read).map(|entry| (*object, entry))),
            "Sidecar" => sidecars.extend(import.read(object, sidecar::read).map(|sidecar| (*object, sidecar))),
            _ => {
                let read = import.read(object, |reader, fields| Some(mesh_policy(reader, fields)));
                mesh = read.map(|(place, mode)| (*object, place, mode)).or(mesh);
            }
        }
    }
    let default = mesh.as_ref().map_or(Mode::AllowAny, |(_, _, mode)| *mode);
    let (roots, own): (Vec<_>, Vec<_>) =
        sidecars.into_iter().partition(|(object, sidecar)| is_root(object) && sidecar.labels.is_none());
    for (object, sidecar) in &own {
        write_sidecar(object, sidecar, default, &entries, import);
    }
    let root = roots.first().map(|(object, sidecar)| (*object, sidecar));
    for (object, entry) in &entries {
        write_entry(object, entry, root, import);
    }
    for (object, sidecar) in &roots {
        for (place, judgement) in &sidecar.said {
            import.row(object, place, "a listener of its own", judgement.clone());
        }
    }
    let by_root = root.map(|(object, sidecar)| (object, sidecar.place.clone(), sidecar.mode.unwrap_or(default)));
    // The mesh's policy decides wherever no Sidecar says something else.
    let is_asked =
        root.is_none_or(|(_, sidecar)| sidecar.mode.is_none()) || own.iter().any(|(_, one)| one.mode.is_none());
    if let Some(object) = objects.first().filter(|_| mesh.is_none() && is_asked) {
        import.row(object, &object.place(), "nothing else", Judgement::of(Outcome::Wider, NO_MESH));
    }
    if let Some((object, place, mode)) = by_root.or(mesh) {
        close(object, &place, mode, import);
    }
}

fn is_root(object: &Foreign<'_>) -> bool {
    object.namespace.as_deref() == Some(ROOT)
}

/// The refusal of everything else, for pods that no `Sidecar` of their namespace is for.
fn close(object: &Foreign<'_>, place: &Place, mode: Mode, import: &mut Import<'_>) {
    if mode == Mode::AllowAny {
        let judgement = Judgement::of(Outcome::Exact, "everything is let out there, as here by default");
        return import.row(&object, place, "Allow everything", judgement);
    }
    let mut draft = Draft::default();
    draft.add(&object, place, "nothing else", Judgement::of(Outcome::Exact, WITH_SIDECAR), closing(mode));
    import.cluster_policy(draft, "istio-registry-only", Pods::default().baseline(Some(MAX_PRIORITY)));
}

/// What becomes of the TCP traffic that no entry is for.
fn closing(mode: Mode) -> Vec<EgressRule> {
    let action = if mode == Mode::RegistryOnly { Action::Deny } else { Action::Allow };
    everything(action, Some(&[protocol(Protocol::TCP)])).collect()
}

/// An entry, for pods that no `Sidecar` of their namespace is for. What the root's imports as `./` only pods of the entry's namespace see.
fn write_entry(object: &Foreign<'_>, entry: &Entry, root: Option<(&Foreign<'_>, &Sidecar)>, import: &mut Import<'_>) {
    let own = object.namespace.as_deref().unwrap_or("default");
    let exported = entry.exported(own);
    if exported.as_ref().is_some_and(Vec::is_empty) {
        let why = "it is exported to no namespace, so no pod sees it";
        return import.row(&object, &object.place(), "every port", Judgement::of(Outcome::NotExpressed, why));
    }
    let is_for_all = |host: &str| root.is_none_or(|(_, sidecar)| sidecar.imports("", own, host));
    let is_for_own = |host: &str| !is_for_all(host) && root.is_none_or(|(_, sidecar)| sidecar.imports(own, own, host));
    let pods = match &exported {
        Some(namespaces) => Pods::default().in_namespaces(namespaces.clone()),
        None => Pods::default(),
    };
    write_ports(object, entry, is_for_all, pods, import);
    let reaches_own = exported.is_none_or(|namespaces| namespaces.iter().any(|name| name == own));
    if reaches_own && entry.has_host(is_for_own) {
        write_ports(object, entry, is_for_own, Pods::default().in_namespace(own), import);
    }
}

fn write_ports(
    object: &Foreign<'_>,
    entry: &Entry,
    is_seen: impl Fn(&str) -> bool,
    pods: Pods,
    import: &mut Import<'_>,
) {
    let mut draft = Draft::default();
    for (place, port) in &entry.ports {
        let (words, judgement, rules) = entry.rules(port, &is_seen);
        draft.add(&object, place, words, judgement, rules);
    }
    if draft.is_empty() {
        return import.said(draft);
    }
    let own = object.namespace.as_deref().unwrap_or("default");
    import.cluster_policy(draft, &format!("{own}-{}", object.name), pods.baseline(None));
}

/// Everything that the pods of a `Sidecar` may send.
fn write_sidecar(
    object: &Foreign<'_>,
    sidecar: &Sidecar,
    default: Mode,
    entries: &[(&Foreign<'_>, Entry)],
    import: &mut Import<'_>,
) {
    let own = object.namespace.as_deref().unwrap_or("default");
    let mut draft = Draft::default();
    for (place, judgement) in &sidecar.said {
        draft.add(&object, place, "a listener of its own", judgement.clone(), []);
    }
    for (of, entry) in entries {
        let from = of.namespace.as_deref().unwrap_or("default");
        if !entry.exported(from).is_none_or(|namespaces| namespaces.iter().any(|name| name == own)) {
            continue;
        }
        for (_, port) in &entry.ports {
            let (words, judgement, rules) = entry.rules(port, |host| sidecar.imports(own, from, host));
            if !rules.is_empty() {
                draft.add(&object, &sidecar.place, format!("{words} of {from}/{}", of.name), judgement, rules);
            }
        }
    }
    let mode = sidecar.mode.unwrap_or(default);
    let (words, why) = match mode {
        Mode::RegistryOnly => ("nothing else", WITH_SIDECAR),
        Mode::AllowAny => ("Allow everything", "everything is let out there"),
    };
    draft.add(&object, &sidecar.place, words, Judgement::of(Outcome::Exact, why), closing(mode));
    // A Sidecar for some pods comes before the one for all.
    let (priority, labels) = match &sidecar.labels {
        Some(labels) => (100, labels.clone()),
        None => (200, crate::spec::LabelSelector::default()),
    };
    let pods = Pods { labels, ..Pods::default() };
    import.policy(draft, object.namespace.as_deref(), &object.name, pods.policy(Some(priority)));
}

/// `spec.meshConfig.outboundTrafficPolicy.mode`, with its place.
fn mesh_policy<'n>(reader: &mut Reader<'n>, object: Fields<'n>) -> (Place, Mode) {
    let spec = reader.optional(object, "spec", |reader, node| {
        let fields = reader.open_fields(node)?;
        reader.optional(fields, "meshConfig", |reader, node| {
            let fields = reader.open_fields(node)?;
            reader.optional(fields, "outboundTrafficPolicy", |reader, node| Some((reader.here(), mode(reader, node)?)))
        })
    });
    spec.unwrap_or_else(|| (reader.here(), Mode::AllowAny))
}

/// `outboundTrafficPolicy`; without a mode it is `REGISTRY_ONLY` in a `Sidecar`, which no reader may guess.
fn mode<'n>(reader: &mut Reader<'n>, node: &'n Node) -> Option<Mode> {
    let fields = reader.fields(node, &["mode"])?;
    let modes = [("ALLOW_ANY", Mode::AllowAny), ("REGISTRY_ONLY", Mode::RegistryOnly)];
    reader.required(fields, "mode", "write ALLOW_ANY or REGISTRY_ONLY", |reader, node| reader.choice(node, &modes))
}
