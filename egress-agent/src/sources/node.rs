//! What this node knows about itself in file mode: its resolvers and its own addresses.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

/// Where the resolvers are named, resolv.conf(5).
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The name servers of `/etc/resolv.conf` in the order in which they are to be asked; none if there is no such file.
pub(crate) fn resolvers() -> Vec<IpAddr> {
    fs::read_to_string(RESOLV_CONF).map(|text| name_servers(&text)).unwrap_or_default()
}

/// Addresses after `nameserver`, as resolv.conf(5) has them; a zone index of a link-local address is left out.
fn name_servers(text: &str) -> Vec<IpAddr> {
    let named = text
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver")?.split_whitespace().next())
        .filter_map(|address| address.split('%').next()?.parse().ok());
    let mut servers = Vec::new();
    for server in named {
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    servers
}

/// The interface on which a DNS cache of the node (Kubernetes' `NodeLocal DNSCache`) listens.
const LOCAL_DNS: &str = "nodelocaldns";

/// Addresses of the node's DNS cache, if it has one: pods ask it in place of the cluster's DNS.
pub(crate) fn local_dns() -> Vec<IpAddr> {
    let interfaces = getifaddrs().into_iter().flatten().filter(|interface| interface.interface_name == LOCAL_DNS);
    interfaces.filter_map(|interface| ip(interface.address?)).filter(|ip| !is_unicast_link_local6(*ip)).collect()
}

fn ip(address: SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// Addresses of this network namespace's interfaces, without loopback and without IPv6 link-local ones: every new veth brings
/// one of those, and a new pod must not change the tables of all others.
pub(crate) fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut addresses = BTreeSet::new();
    for interface in getifaddrs()? {
        let Some(address) = interface.address else { continue };
        addresses.extend(ip(address).filter(|ip| !ip.is_loopback() && !is_unicast_link_local6(*ip)));
    }
    Ok(addresses.into_iter().collect())
}

fn is_unicast_link_local6(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_of_both_families_are_read_once_and_in_order_and_the_rest_is_not() {
        let text = "# nameserver 9.9.9.9\nsearch example\nnameserver 10.0.0.53\nnameserver\t2001:db8::53 # x\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver nonsense\nnameserver 10.0.0.53\n";
        let expected: Vec<IpAddr> =
            ["10.0.0.53", "2001:db8::53", "10.0.0.1", "fe80::1"].map(|ip| ip.parse().unwrap()).into();
        assert_eq!(name_servers(text), expected);
    }

    #[test]
    fn loopback_is_not_an_address_of_the_node() {
        assert!(addresses().unwrap().iter().all(|ip| !ip.is_loopback()));
    }
}
