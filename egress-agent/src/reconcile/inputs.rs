//! Where the reconciler's inputs come from: files, or a cluster.

use std::collections::BTreeMap;

use egress_policy::model::{HostNetworkPods, NodeInfo, PolicySet, ServicePort};

use crate::discovery::Discovery;
use crate::kube::Version;
use crate::report::ForeignRound;
use crate::sources::{ClusterSource, EndpointSource, PolicySource, Problem, Running};

/// Where everything is read from.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) origin: Origin,
    pub(crate) discovery: Discovery,
}

/// Who says what the policies and the pods are.
#[derive(Debug)]
pub(crate) enum Origin {
    /// A folder of policies and a file that lists the pods.
    Files {
        /// The folder.
        policies: Box<PolicySource>,
        /// The file.
        endpoints: EndpointSource,
    },
    /// The API server, and kubelet's cgroups.
    Cluster(Box<ClusterSource>),
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) set: PolicySet,
    /// Trusted resolvers beside those of this machine.
    pub(super) resolvers: Vec<std::net::IpAddr>,
    pub(super) nodes: Vec<NodeInfo>,
    /// How many there are.
    pub(super) node_count: usize,
    pub(super) services: Vec<ServicePort>,
    pub(super) problems: Vec<Problem>,
    /// Newest versions of the cluster's objects, by title.
    pub(super) versions: BTreeMap<String, Version>,
    /// Objects of which an older version is in force.
    pub(super) kept: usize,
    /// Foreign objects that there is something to say of.
    pub(super) foreign: Vec<ForeignRound>,
}

impl Origin {
    /// What was last in force, be it by an earlier agent.
    pub(crate) fn last_good(&self) -> PolicySet {
        match self {
            Self::Files { policies, .. } => policies.last_good(),
            Self::Cluster(source) => source.last_good(),
        }
    }

    /// Whether there is anything to go by. If not, the kernel stays as it is.
    pub(super) fn is_ready(&mut self) -> bool {
        match self {
            Self::Files { .. } => true,
            Self::Cluster(source) => source.is_ready(),
        }
    }

    /// Policies and what else is said beside the endpoints.
    pub(super) fn read(&mut self) -> Read {
        match self {
            Self::Files { policies, .. } => {
                let read = policies.read();
                Read { set: read.set, problems: read.problems, kept: read.kept, ..Read::default() }
            }
            Self::Cluster(source) => {
                let said = source.read();
                Read {
                    set: said.set,
                    resolvers: said.dns,
                    nodes: said.nodes,
                    node_count: said.node_count,
                    services: said.services,
                    problems: said.problems,
                    versions: said.versions,
                    kept: said.kept,
                    foreign: said.foreign,
                }
            }
        }
    }

    /// The endpoints. Those of files change only with the file; which pods run has to be looked at.
    pub(super) fn endpoints(&mut self, host_network: HostNetworkPods) -> Running {
        match self {
            Self::Files { endpoints, .. } => {
                let read = endpoints.read();
                Running { endpoints: read.endpoints, problems: read.problems, ..Running::default() }
            }
            Self::Cluster(source) => source.pods(host_network),
        }
    }

    /// Whether endpoints have to be looked at whenever something on the machine changed.
    pub(super) const fn finds_pods(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Remembers what is in force for the next start of the agent.
    pub(super) fn save(&mut self) -> std::io::Result<()> {
        match self {
            Self::Files { policies, endpoints } => policies.save().and_then(|()| endpoints.save()),
            Self::Cluster(source) => source.save(),
        }
    }
}
