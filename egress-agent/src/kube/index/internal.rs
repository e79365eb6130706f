//! The internal CIDRs (§1.2), as far as the cluster tells them: never guessed.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Index, Object};
use crate::kube::resource::Kind;

/// A prefix wider than this holds far more than a cluster, and taking it as internal would let it all pass.
const WIDEST4: u8 = 8;
const WIDEST6: u8 = 16;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Internal {
    /// Of pods: each node's, or those of kubeadm's settings.
    pub(crate) pods: BTreeSet<IpNet>,
    /// Of services: of the `ServiceCIDR` objects, or of kubeadm's settings.
    pub(crate) services: BTreeSet<IpNet>,
    /// Prefixes that are too wide to be believed.
    pub(crate) refused: BTreeSet<IpNet>,
}

impl Internal {
    pub(super) fn of(index: &Index) -> Self {
        let mut internal = Self::default();
        let (mut pods, mut services) = (BTreeSet::new(), BTreeSet::new());
        for (_, object) in index.objects(&Kind::Node) {
            if let Object::Node(node) = object {
                pods.extend(node.pod_cidrs.iter().map(IpNet::trunc));
            }
        }
        for (_, object) in index.objects(&Kind::ServiceCidr) {
            if let Object::Cidrs(cidrs) = object {
                services.extend(cidrs.iter().map(IpNet::trunc));
            }
        }
        for (_, object) in index.objects(&Kind::KubeadmConfig) {
            if let Object::Kubeadm(settings) = object {
                if pods.is_empty() {
                    pods.extend(settings.pods.iter().map(IpNet::trunc));
                }
                if services.is_empty() {
                    services.extend(settings.services.iter().map(IpNet::trunc));
                }
            }
        }
        internal.pods = internal.believed(pods);
        internal.services = internal.believed(services);
        internal
    }

    fn believed(&mut self, prefixes: BTreeSet<IpNet>) -> BTreeSet<IpNet> {
        let widest = |prefix: &IpNet| if prefix.addr().is_ipv4() { WIDEST4 } else { WIDEST6 };
        let (believed, refused) = prefixes.into_iter().partition(|prefix| prefix.prefix_len() >= widest(prefix));
        self.refused.extend::<BTreeSet<IpNet>>(refused);
        // Neighbouring prefixes of nodes become one: a table of a large cluster stays small.
        IpNet::aggregate(&Vec::from_iter(believed)).into_iter().collect()
    }

    /// All of it; `None` unless both are known, because without one of them pods would be cut off from their own cluster.
    pub(crate) fn all(&self) -> Option<Vec<IpNet>> {
        let known = !self.pods.is_empty() && !self.services.is_empty();
        known.then(|| self.pods.union(&self.services).copied().collect())
    }

    /// What is not known.
    pub(crate) fn missing(&self) -> Option<&'static str> {
        match (self.pods.is_empty(), self.services.is_empty()) {
            (true, true) => Some("neither the pods' nor the services' CIDRs"),
            (true, false) => Some("the services' CIDRs, but not the pods'"),
            (false, true) => Some("the pods' CIDRs, but not the services'"),
            (false, false) => None,
        }
    }
}
