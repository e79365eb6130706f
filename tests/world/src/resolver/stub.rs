//! Looks names up as the programs of a pod do: by the C library.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use hickory_proto::op::Message;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::PORT;
use super::message::{Question, kind};

/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often to ask.
const ATTEMPTS: usize = 5;

/// Makes `conf` the `/etc/resolv.conf` of the calling process and its children, in a mount namespace of their own. To be called in a
/// process of a pod ([`Pod::run`](crate::Pod::run)), once.
pub fn use_resolvers(conf: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).expect("own mounts");
    mount(Some(conf), "/etc/resolv.conf", None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("an own resolv.conf");
}

/// The addresses that `getaddrinfo` has for a name, each once. A static program has no resolver of the C library, and asks by itself.
pub fn lookup(name: &str) -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = if cfg!(target_feature = "crt-static") {
        by_hand(name)?
    } else {
        (name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()
    };
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// Asks the first server of `/etc/resolv.conf` for both families, over TCP where it says so.
fn by_hand(name: &str) -> io::Result<Vec<IpAddr>> {
    let conf = fs::read_to_string("/etc/resolv.conf")?;
    let server = conf.lines().find_map(|line| line.strip_prefix("nameserver ")?.trim().parse().ok());
    let server = SocketAddr::new(server.ok_or_else(|| io::Error::other("no nameserver"))?, PORT);
    let mut addresses = Vec::new();
    for (id, kind) in [(1, kind::A), (2, kind::AAAA)] {
        let query = Question::new(id, name, kind).query();
        let mut reply = over_udp(server, &query)?;
        if reply.metadata.truncation {
            reply = over_tcp(server, &query)?;
        }
        addresses.extend(reply.answers.iter().filter_map(|record| record.data.ip_addr()));
    }
    Ok(addresses)
}

fn over_udp(server: SocketAddr, query: &[u8]) -> io::Result<Message> {
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 4096];
    for _ in 0..ATTEMPTS {
        socket.send(query)?;
        while let Ok(length) = socket.recv(&mut buffer) {
            // Others than the one that was asked for are not answers, as for every resolver.
            if let Ok(reply) = Message::from_vec(&buffer[..length])
                && fits(&reply, query)
            {
                return Ok(reply);
            }
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn over_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?.to_be_bytes();
    stream.write_all(&[&length, query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut reply)?;
    Message::from_vec(&reply).map_err(io::Error::other)
}

fn fits(reply: &Message, query: &[u8]) -> bool {
    Message::from_vec(query).is_ok_and(|query| reply.metadata.id == query.metadata.id && reply.queries == query.queries)
}
