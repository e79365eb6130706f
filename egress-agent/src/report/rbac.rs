//! What the agent may do to which objects, as data: the manifests in `deploy/` are tested against it.

pub use super::taint::TAINT;

/// The verbs that are used on a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// API group; empty for the core.
    pub group: &'static str,
    /// Resource, with the subresource after a slash.
    pub resource: &'static str,
    /// The verbs.
    pub verbs: &'static [&'static str],
    /// Where.
    pub scope: Scope,
    /// What for.
    pub why: &'static str,
}

/// Where it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In the whole cluster.
    Cluster,
    /// In the agents' own namespace.
    OwnNamespace,
    /// In another one.
    Namespace(&'static str),
}

const READ: &[&str] = &["list", "watch"];

const fn read(group: &'static str, resource: &'static str, why: &'static str) -> Need {
    Need { group, resource, verbs: READ, scope: Scope::Cluster, why }
}

const fn status(resource: &'static str) -> Need {
    let why = "the agent that leads writes what the nodes report";
    Need { group: "egress.rs", resource, verbs: &["patch"], scope: Scope::Cluster, why }
}

/// Everything, without the foreign kinds of `--compat` and without [`REMOVE_TAINT`].
pub const NEEDS: [Need; 18] = [
    read("egress.rs", "egressnetworkpolicies", "the policies"),
    read("egress.rs", "clusteregresspolicies", "the policies"),
    read("egress.rs", "egressconfigs", "the settings"),
    read("", "namespaces", "labels for namespaceSelector"),
    Need {
        group: "",
        resource: "nodes",
        verbs: &["get", "list", "watch"],
        scope: Scope::Cluster,
        why: "addresses for nodeSelector, pod CIDRs; which nodes are ready; the owner of the node's state",
    },
    read("", "pods", "the pods of the node (field selector spec.nodeName)"),
    read("", "services", "ports of services that lead outside; the cluster's DNS"),
    read("discovery.k8s.io", "endpointslices", "endpoints of services"),
    read("networking.k8s.io", "servicecidrs", "what is internal"),
    Need {
        group: "",
        resource: "configmaps",
        verbs: READ,
        scope: Scope::Namespace("kube-system"),
        why: "what is internal (kubeadm-config alone)",
    },
    Need {
        group: "egress.rs",
        resource: "egressnodestates",
        verbs: &["list", "watch", "create", "patch"],
        scope: Scope::Cluster,
        why: "each agent writes its own node's; the one that leads reads all",
    },
    status("egressnodestates/status"),
    status("egressnetworkpolicies/status"),
    status("clusteregresspolicies/status"),
    status("egressconfigs/status"),
    Need {
        group: "events.k8s.io",
        resource: "events",
        verbs: &["create", "patch"],
        scope: Scope::Cluster,
        why: "what is refused or fails is told where kubectl describe shows it",
    },
    Need {
        group: "coordination.k8s.io",
        resource: "leases",
        verbs: &["create"],
        scope: Scope::OwnNamespace,
        why: "the first agent makes the Lease (a name cannot be given to create)",
    },
    Need {
        group: "coordination.k8s.io",
        resource: "leases",
        verbs: &["get", "update"],
        scope: Scope::OwnNamespace,
        why: "who leads (egress-status-leader alone)",
    },
];

/// What `--remove-taint` needs beside it.
pub const REMOVE_TAINT: Need = Need {
    group: "",
    resource: "nodes",
    verbs: &["patch"],
    scope: Scope::Cluster,
    why: "a taint is taken off the own node; an admission policy refuses every other change, and other nodes",
};
