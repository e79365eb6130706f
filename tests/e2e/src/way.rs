//! The ways out of a pod: one entry per kind of system call or packet.

use std::net::{IpAddr, SocketAddr};

use egress_world::Pod;
use egress_world::packet::{Ip, flag, protocol};
use egress_world::probe::{self, Attempt, Outcome, PATIENCE, SILENCE};

use crate::PORT;

/// A way in which a process can try to reach an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `connect` and an exchange.
    Tcp,
    /// The same by Multipath TCP, where the kernel has it.
    Mptcp,
    /// `sendto` with `MSG_FASTOPEN`.
    TcpFastOpen,
    /// `connect`, then `send`.
    UdpConnected,
    /// `sendto`.
    UdpUnconnected,
    /// The ping socket.
    Ping,
    /// Echo by a raw socket.
    RawPing,
    /// A whole UDP packet by a raw socket.
    RawUdp,
    /// A frame with a TCP SYN, through the queueing discipline.
    Frame,
    /// The same past the queueing discipline.
    FrameBypass,
    /// The same with a priority tag (VLAN 0), which the kernel strips and routes.
    TaggedFrame,
    /// The same with two of them.
    DoubleTaggedFrame,
    /// A packet of a protocol that nobody knows.
    UnknownProtocol,
    /// An SCTP INIT by a raw socket: most kernels have no SCTP of their own.
    RawSctp,
    /// SCTP by the kernel's own sockets, where it has them.
    Sctp,
}

/// A common header (RFC 9260 §3.1) and the start of an INIT chunk.
fn sctp_init(source_port: u16, destination_port: u16) -> Vec<u8> {
    let mut bytes = [source_port.to_be_bytes(), destination_port.to_be_bytes()].concat();
    bytes.extend([0; 8]);
    bytes.extend([1, 0, 0, 20]);
    bytes.extend([0; 16]);
    bytes
}

impl Way {
    /// Tries to get out of `pod` to `remote`. `patient`: an answer is expected.
    pub fn attempt(self, pod: &Pod, remote: IpAddr, patient: bool) -> Attempt {
        let patience = if patient { PATIENCE } else { SILENCE };
        let to = SocketAddr::new(remote, PORT);
        let packet = |protocol, transport: &dyn Fn(&Ip) -> Vec<u8>| {
            let ip = Ip::new(pod.address_like(remote), remote, protocol);
            ip.packet(&transport(&ip))
        };
        let syn = || packet(protocol::TCP, &|ip| ip.tcp(40_001, PORT, flag::SYN));
        let frame = |tags: &[u16], bypass| {
            let frame = pod.frame(tags, &syn());
            pod.run(|| probe::frame(&[frame], bypass))
        };
        match self {
            Self::Tcp => pod.run(|| probe::tcp_echo(to)),
            Self::Mptcp => pod.run(|| probe::mptcp_echo(to)),
            Self::TcpFastOpen => pod.run(|| probe::tcp_fast_open(to)),
            Self::UdpConnected => pod.run(|| probe::udp_connected(to, patience)),
            Self::UdpUnconnected => pod.run(|| probe::udp_unconnected(to, patience)),
            Self::Ping => pod.run(|| probe::ping(remote, patience)),
            Self::RawPing => pod.run(|| probe::ping_raw(remote, patience)),
            Self::RawUdp => {
                let packet = packet(protocol::UDP, &|ip| ip.udp(40_000, PORT, b"raw"));
                pod.run(|| probe::raw_ip(remote, &packet))
            }
            Self::Frame => frame(&[], false),
            Self::FrameBypass => frame(&[], true),
            Self::TaggedFrame => frame(&[0], false),
            Self::DoubleTaggedFrame => frame(&[0, 0], false),
            Self::UnknownProtocol => {
                let packet = packet(protocol::EXPERIMENT, &|_| vec![0; 8]);
                pod.run(|| probe::raw_ip(remote, &packet))
            }
            Self::RawSctp => {
                let packet = packet(protocol::SCTP, &|_| sctp_init(40_002, PORT));
                pod.run(|| probe::raw_ip(remote, &packet))
            }
            Self::Sctp => pod.run(|| probe::sctp(to, patience)),
        }
    }

    /// What the caller gets when the way is open.
    pub fn when_allowed(self) -> Outcome {
        match self {
            Self::RawUdp
            | Self::Frame
            | Self::FrameBypass
            | Self::TaggedFrame
            | Self::DoubleTaggedFrame
            | Self::UnknownProtocol
            | Self::RawSctp => Outcome::Silence,
            _ => Outcome::Answered,
        }
    }

    /// What the caller gets when it is closed: an error where a socket hook sees the call, otherwise nothing. Linux asks no
    /// cgroup hook about an SCTP connect, so its packets are stopped at the interface.
    pub fn when_denied(self) -> Outcome {
        match self {
            Self::Tcp | Self::Mptcp | Self::TcpFastOpen | Self::UdpConnected | Self::UdpUnconnected => {
                Outcome::Failed(libc::EPERM)
            }
            _ => Outcome::Silence,
        }
    }

    /// The IP protocol that it speaks to `remote`.
    pub fn protocol(self, remote: IpAddr) -> u8 {
        match self {
            Self::UdpConnected | Self::UdpUnconnected | Self::RawUdp => protocol::UDP,
            Self::Ping | Self::RawPing if remote.is_ipv4() => protocol::ICMP,
            Self::Ping | Self::RawPing => protocol::ICMPV6,
            Self::UnknownProtocol => protocol::EXPERIMENT,
            Self::Sctp | Self::RawSctp => protocol::SCTP,
            _ => protocol::TCP,
        }
    }
}
