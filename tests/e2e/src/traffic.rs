//! Traffic that never pauses: a process of a pod that, in both families, keeps calling and sending to an address that must stay
//! reachable and to one that must stay refused. One wrong verdict in the whole run is a failure.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use egress_world::packet::{Ip, protocol};
use egress_world::{Pod, Process, Shared, eventually};
use socket2::{Domain, Protocol, Socket, Type};

use crate::Evidence as _;
use crate::lab::Lab;
use crate::{ALLOWED, DENIED, PORT, at, ip};

/// Counter of rounds, for the test to watch.
const ROUNDS: usize = 0;
/// Packets per round to each allowed address: one by `sendto`, one by `send` on a connected socket.
const PACKETS: u64 = 2;
/// Between rounds, so that the sniffer can keep up.
const PAUSE: Duration = Duration::from_micros(300);

/// Running traffic.
pub struct Traffic(Process<(u64, Vec<String>)>);

/// What became of it.
#[derive(Debug)]
pub struct Tally {
    /// Rounds in all; each calls every address.
    pub rounds: u64,
    /// Calls with the wrong result.
    pub mistakes: Vec<String>,
    /// Packets to an allowed address that did not arrive.
    pub lost: u64,
    /// Packets that arrived at a denied address.
    pub leaked: u64,
    /// Packets and calls that found no table: what such a packet has lost, the datapath has.
    pub without_table: u64,
}

impl Traffic {
    /// Starts it, and starts the count of what arrives.
    pub fn start(lab: &mut Lab<'_>, pod: &Pod) -> Self {
        lab.wire.forget();
        let own = DENIED.map(|remote| pod.address_like(ip(remote)));
        let process = pod.start(move |shared| {
            let callers = [0, 1].map(|family| Caller::new(ALLOWED[family], DENIED[family], own[family]));
            run(&callers, shared)
        });
        Self(process)
    }

    /// Waits until some more rounds are done.
    pub fn run_on(&self, lab: &mut Lab<'_>) {
        let target = self.0.shared().counted(ROUNDS) + 50;
        let went_on = eventually(|| {
            lab.wire.pump();
            self.0.shared().counted(ROUNDS) >= target
        });
        assert!(went_on, "the traffic has stopped");
    }

    /// Ends it and compares with what arrived.
    pub fn stop(self, lab: &mut Lab<'_>) -> Tally {
        let (rounds, mistakes) = self.0.stop();
        let mut arrived = |remote: &str| {
            let packets = lab.wire.arrived(ip(remote));
            // Answers to the outside's echoes are not ours.
            let ours = packets.iter().filter(|seen| seen.destination_port == PORT);
            u64::try_from(ours.count()).expect("a count")
        };
        Tally {
            rounds,
            mistakes,
            lost: ALLOWED.iter().map(|remote| (PACKETS * rounds).abs_diff(arrived(remote))).sum(),
            leaked: DENIED.iter().map(|remote| arrived(remote)).sum(),
            without_table: lab.agent.dropped("no-table"),
        }
    }
}

impl Tally {
    /// Insists that nothing went wrong.
    pub fn insist_flawless(&self) {
        let nothing_lost = self.lost == 0 && self.leaked == 0 && self.without_table == 0;
        let flawless = self.mistakes.is_empty() && nothing_lost && self.rounds > 0;
        assert!(flawless, "{self:?}");
    }
}

fn run(callers: &[Caller], shared: &Shared) -> (u64, Vec<String>) {
    let (mut rounds, mut mistakes) = (0, Vec::new());
    while !shared.stopped() {
        for caller in callers {
            caller.round(rounds, &mut mistakes);
        }
        rounds += 1;
        shared.count(ROUNDS);
        std::thread::sleep(PAUSE);
    }
    (rounds, mistakes)
}

/// The sockets of one family.
struct Caller {
    allowed: SocketAddr,
    denied: SocketAddr,
    unconnected: UdpSocket,
    connected: UdpSocket,
    raw: Socket,
    /// To the denied address, past the socket hooks.
    packet: Vec<u8>,
}

impl Caller {
    fn new(allowed: &str, denied: &str, own: std::net::IpAddr) -> Self {
        let (allowed, denied) = (at(allowed, PORT), at(denied, PORT));
        let socket = || UdpSocket::bind(SocketAddr::new(own, 0)).expect("a socket");
        let raw = Socket::new(Domain::for_address(denied), Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)));
        let header = Ip::new(own, denied.ip(), protocol::UDP);
        Self {
            allowed,
            denied,
            unconnected: socket(),
            connected: socket(),
            raw: raw.expect("a raw socket"),
            packet: header.packet(&header.udp(PORT, PORT, b"raw")),
        }
    }

    fn round(&self, number: u64, mistakes: &mut Vec<String>) {
        let is_refused = |error: Option<std::io::Error>| error.is_some_and(|e| e.raw_os_error() == Some(libc::EPERM));
        let results = [
            ("connect, allowed", self.connected.connect(self.allowed).is_ok()),
            ("send, allowed", self.connected.send(b"hello").is_ok()),
            ("connect, denied", is_refused(self.connected.connect(self.denied).err())),
            ("sendto, allowed", self.unconnected.send_to(b"hello", self.allowed).is_ok()),
            ("sendto, denied", is_refused(self.unconnected.send_to(b"hello", self.denied).err())),
        ];
        // Dropped behind the pod's back or not at all: nothing to see here.
        let _ = self.raw.send_to(&self.packet, &SocketAddr::new(self.denied.ip(), 0).into());
        let wrong = results.iter().filter(|(_, right)| !right);
        mistakes.extend(wrong.take(10).map(|(call, _)| format!("round {number}: {call}, {}", self.allowed)));
    }
}
