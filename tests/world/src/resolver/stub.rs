//! Looks names up as the programs of a pod do: by the C library.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Makes `conf` the `/etc/resolv.conf` of the calling process and its children, in a mount namespace of their own. To be called in a
/// process of a pod ([`Pod::run`](crate::Pod::run)), once.
pub fn use_resolvers(conf: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).expect("own mounts");
    mount(Some(conf), "/etc/resolv.conf", None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("an own resolv.conf");
}

/// The addresses that `getaddrinfo` has for a name, each once.
pub fn lookup(name: &str) -> std::io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = (name, 0).to_socket_addrs()?.map(|address| address.ip()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}
