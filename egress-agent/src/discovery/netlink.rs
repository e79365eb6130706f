//! The three rtnetlink questions that discovery asks: all links, one link's peer, the local number of a namespace; and the
//! notice of link and address changes. Layouts: rtnetlink(7), `linux/if_link.h`, `linux/net_namespace.h`.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use nix::sys::socket::SockProtocol;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::netlink::{DUMP, Socket, int};

/// How often a listing that was interrupted is begun again.
const ATTEMPTS: usize = 8;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// `RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR`.
const CHANGE_GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// Attribute type bits that are flags.
const TYPE_MASK: u16 = 0x3fff;

/// `struct ifinfomsg`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
struct LinkHeader {
    family: u8,
    padding: u8,
    kind: u16,
    index: u32,
    flags: u32,
    change: u32,
}

/// A network interface, as far as discovery cares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// `veth`, `macvlan`…; empty for hardware.
    pub(super) kind: String,
    /// Index of the peer or parent, in the namespace that `peer_namespace` names.
    pub(super) peer: Option<u32>,
    /// Number, in this namespace, of the namespace that the peer is in; `None` if it is this one.
    pub(super) peer_namespace: Option<i32>,
}

/// An rtnetlink socket; it belongs to the namespace it was opened in.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: Socket,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::open(SockProtocol::NetlinkRoute, 0)? })
    }

    /// A socket that hears of every change of links and addresses.
    pub(super) fn open_for_changes() -> io::Result<Self> {
        Ok(Self { socket: Socket::open(SockProtocol::NetlinkRoute, CHANGE_GROUPS)? })
    }

    /// Waits for a change and does not say which.
    pub(super) fn wait(&self) -> io::Result<()> {
        self.socket.wait()
    }

    /// Every link of the namespace.
    pub(super) fn links(&self) -> io::Result<Vec<Link>> {
        let mut attempts = 1;
        loop {
            let mut links = Vec::new();
            let listed = self.socket.ask(RTM_GETLINK, DUMP, LinkHeader::default().as_bytes(), |kind, payload| {
                if kind == RTM_NEWLINK {
                    links.extend(link(payload));
                }
            });
            match listed {
                Err(error) if error.kind() == io::ErrorKind::Interrupted && attempts < ATTEMPTS => attempts += 1,
                listed => return listed.map(|()| links),
            }
        }
    }

    /// The number of another namespace in this one, if it has one.
    pub(super) fn namespace_number(&self, namespace: impl AsFd) -> io::Result<Option<i32>> {
        // `struct rtgenmsg`, padded to 4 bytes.
        let mut body = vec![0; 4];
        push_attribute(&mut body, NETNSA_FD, &namespace.as_fd().as_raw_fd().to_ne_bytes());
        let mut number = None;
        self.socket.ask(RTM_GETNSID, 0, &body, |kind, payload| {
            if kind == RTM_NEWNSID {
                number = attribute(payload.get(4..).unwrap_or_default(), NETNSA_NSID).and_then(int);
            }
        })?;
        Ok(number.filter(|&number| number >= 0))
    }
}

fn link(payload: &[u8]) -> Option<Link> {
    let (header, attributes) = LinkHeader::read_from_prefix(payload).ok()?;
    let text = |bytes: &[u8]| CStr::from_bytes_until_nul(bytes).ok()?.to_str().ok().map(str::to_owned);
    let info = attribute(attributes, IFLA_LINKINFO).unwrap_or_default();
    Some(Link {
        index: header.index,
        name: attribute(attributes, IFLA_IFNAME).and_then(text)?,
        kind: attribute(info, IFLA_INFO_KIND).and_then(kind_name).unwrap_or_default(),
        peer: attribute(attributes, IFLA_LINK).and_then(int).and_then(|index| u32::try_from(index).ok()),
        peer_namespace: attribute(attributes, IFLA_LINK_NETNSID).and_then(int),
    })
}

/// Unlike names, kinds come without a final NUL from some drivers.
fn kind_name(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(|kind| kind.trim_end_matches('\0').to_owned())
}

/// The payload of the first attribute of `kind`.
fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let (&[a, b, c, d], _) = attributes.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let payload = attributes.get(4..length)?;
        if u16::from_ne_bytes([c, d]) & TYPE_MASK == kind {
            return Some(payload);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn push_attribute(body: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    let length = u16::try_from(4 + payload.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(payload);
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_among_the_links_and_has_no_peer() {
        let links = Netlink::open().unwrap().links().unwrap();
        let loopback = links.iter().find(|link| link.name == "lo").unwrap();
        assert_eq!((loopback.index, loopback.peer), (1, None));
    }

    #[test]
    fn attributes_are_found_behind_others_and_damaged_ones_end_the_search() {
        let mut body = Vec::new();
        push_attribute(&mut body, 7, &[1, 2, 3]);
        push_attribute(&mut body, 9, &42_i32.to_ne_bytes());
        assert_eq!(attribute(&body, 9).and_then(int), Some(42));
        assert_eq!(attribute(&body, 8), None);
        assert_eq!(attribute(&[3, 0, 9, 0, 0, 0, 0, 0], 9), None);
        assert_eq!(attribute(&[200, 0, 9, 0], 9), None);
    }
}
