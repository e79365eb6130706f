//! The two address families, each with the same places, and the policy that most tests are under: every row is written once and
//! asked for IPv4 and IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use egress_packets::{Frame, Transport};

/// Deny by default; one network open, one open by port, one internal, per family.
pub(crate) const POLICY: &str = r#"
apiVersion: egress.rs/v1alpha1
kind: EgressConfig
metadata: {name: default}
spec: {defaultAction: Deny, internalCIDRs: [10.0.0.0/8, "fd00::/8"]}
---
apiVersion: egress.rs/v1alpha1
kind: EgressNetworkPolicy
metadata: {name: p}
spec:
  egress:
  - {type: Allow, to: {cidrSelector: 1.2.3.0/24}}
  - {type: Allow, to: {cidrSelector: "2001:db8:1::/64"}}
  - {type: Allow, to: {cidrSelector: 5.5.5.0/24}, ports: [{protocol: TCP, port: 443}, {protocol: UDP, port: 53}, {protocol: SCTP, port: 5000}, {protocol: ICMP}]}
  - {type: Allow, to: {cidrSelector: "2001:db8:5::/64"}, ports: [{protocol: TCP, port: 443}, {protocol: UDP, port: 53}, {protocol: SCTP, port: 5000}, {protocol: ICMPv6}]}
"#;

/// The same with everything that leaves denied.
pub(crate) const DENY_ALL: &str = r#"
apiVersion: egress.rs/v1alpha1
kind: EgressConfig
metadata: {name: default}
spec: {defaultAction: Deny, internalCIDRs: [10.0.0.0/8, "fd00::/8"]}
"#;

/// The last rule.
pub(crate) const DEFAULT: &str = "default action";
/// The first rule.
pub(crate) const INTERNAL: &str = "internal CIDRs";

/// One address family under [`POLICY`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side {
    /// Everything to it is allowed, by `open_rule`.
    pub(crate) open: IpAddr,
    pub(crate) open_rule: &'static str,
    /// TCP 443, UDP 53, SCTP 5000 and ICMP to it are allowed, by `ports_rule`.
    pub(crate) ports: IpAddr,
    pub(crate) ports_rule: &'static str,
    /// Nothing to it is allowed.
    pub(crate) shut: IpAddr,
    /// Inside the cluster.
    pub(crate) inside: IpAddr,
}

pub(crate) const SIDES: [Side; 2] = [
    Side {
        open: IpAddr::V4(Ipv4Addr::new(1, 2, 3, 4)),
        open_rule: "rule 1 of default/p",
        ports: IpAddr::V4(Ipv4Addr::new(5, 5, 5, 5)),
        ports_rule: "rule 3 of default/p",
        shut: IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)),
        inside: IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)),
    },
    Side {
        open: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 4)),
        open_rule: "rule 2 of default/p",
        ports: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 5)),
        ports_rule: "rule 4 of default/p",
        shut: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9)),
        inside: IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 3)),
    },
];

impl Side {
    /// `v4` or `v6`.
    pub(crate) fn pick<T>(&self, v4: T, v6: T) -> T {
        if self.open.is_ipv4() { v4 } else { v6 }
    }

    /// What a row is called in a message.
    pub(crate) fn row(&self, name: &str) -> String {
        format!("{}: {name}", self.pick("IPv4", "IPv6"))
    }
}

/// A fragment's data without a transport header.
pub(crate) fn raw(destination: IpAddr, protocol: u8, data: &[u8]) -> Frame {
    Frame::new(destination, Transport::Raw { protocol, data: data.to_vec() })
}
