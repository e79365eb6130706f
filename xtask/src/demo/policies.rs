//! The policies that the demo applies, as a user would write them.

/// OpenShift's own example, as it is, `apiVersion` included.
pub(super) const OPENSHIFT: &str = "\
kind: EgressNetworkPolicy
apiVersion: v1
metadata: {name: default, namespace: default}
spec:
  egress:
  - {type: Allow, to: {cidrSelector: 1.2.3.0/24}}
  - {type: Allow, to: {dnsName: www.foo.com}}
  - {type: Deny,  to: {cidrSelector: 0.0.0.0/0}}
";

/// The reverse of [`OPENSHIFT`].
pub(super) const REVERSED: &str = "\
kind: EgressNetworkPolicy
apiVersion: v1
metadata: {name: default, namespace: default}
spec:
  egress:
  - {type: Deny,  to: {cidrSelector: 1.2.3.0/24}}
  - {type: Allow, to: {cidrSelector: 0.0.0.0/0}}
";

/// Order, ports and IPv6.
pub(super) const PROD: &str = "\
kind: EgressNetworkPolicy
apiVersion: egress.rs/v1alpha1
metadata: {name: web, namespace: prod}
spec:
  podSelector: {matchLabels: {app: web}}
  egress:
  - {type: Deny,  to: {cidrSelector: 10.1.9.0/24}}
  - {type: Allow, to: {cidrSelector: 10.1.0.0/16}, ports: [{protocol: TCP, port: 443}, {protocol: TCP, port: 8000, endPort: 8999}]}
  - {type: Allow, to: {cidrSelector: '2001:db8:1::/48'}}
  - {type: Deny,  to: {cidrSelector: 0.0.0.0/0}}
  - {type: Deny,  to: {cidrSelector: '::/0'}}
";

/// For every pod of the cluster, before any namespace has its say.
pub(super) const CLUSTER: &str = "\
kind: ClusterEgressPolicy
apiVersion: egress.rs/v1alpha1
metadata: {name: quarantine}
spec:
  tier: Admin
  egress:
  - {type: Deny, to: {cidrSelector: 1.2.3.5/32}}
";

/// An exact name and a wildcard.
pub(super) const NAMES: &str = "\
kind: EgressNetworkPolicy
apiVersion: egress.rs/v1alpha1
metadata: {name: names, namespace: shop}
spec:
  egress:
  - {type: Allow, to: {dnsName: api.pay.example}}
  - {type: Allow, to: {dnsName: '*.cdn.example'}}
  - {type: Deny,  to: {cidrSelector: 0.0.0.0/0}}
  - {type: Deny,  to: {cidrSelector: '::/0'}}
";

/// Whose answers count.
pub(super) const NAMES_CONFIG: &str = "\
kind: EgressConfig
apiVersion: egress.rs/v1alpha1
metadata: {name: default}
spec: {resolvers: [192.0.2.53, '2001:db8:53::53'], internalCIDRs: [10.244.0.0/16, 'fd00:10:244::/48']}
";
