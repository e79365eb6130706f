//! Which packets arrive: sockets of pods send, one outside of the node receives and says whose packets these were.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use egress_world::World;

use crate::mix::PORT;

/// Senders whose packets are under way at once: what a socket's buffer holds.
const TOGETHER: usize = 32;
/// Between two rounds of sending to everybody: the agent wants a processor too.
const PAUSE: Duration = Duration::from_millis(5);
/// Between two packets of one sender that waits for one thing.
const SHORT_PAUSE: Duration = Duration::from_micros(200);

/// Where the first calls of pods go to.
pub(super) const FIRST_PORT: u16 = PORT + 1;

/// Sockets behind the node, at every external address.
pub(super) struct Arrivals {
    socket: UdpSocket,
    firsts: UdpSocket,
}

/// What a packet says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    sender: u32,
    round: u32,
    expected: bool,
}

impl Mark {
    fn bytes(self) -> [u8; 9] {
        let mut bytes = [0; 9];
        bytes[..4].copy_from_slice(&self.sender.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.round.to_be_bytes());
        bytes[8] = self.expected.into();
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (sender, rest) = bytes.split_first_chunk()?;
        let (round, rest) = rest.split_first_chunk()?;
        let (sender, round) = (u32::from_be_bytes(*sender), u32::from_be_bytes(*round));
        Some(Self { sender, round, expected: *rest.first()? == 1 })
    }
}

/// Where is sent: to an address that is to be reached, and to one that is not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Targets {
    pub(super) allowed: Ipv4Addr,
    pub(super) denied: Ipv4Addr,
}

/// What happened to one sender since it began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// When it sent the first packet that did not arrive where it must not arrive.
    pub(super) stopped: Option<Instant>,
    /// When it sent the first one that arrived where it may, while the other did not.
    pub(super) judged: Option<Instant>,
}

impl Arrivals {
    /// Receives at every address outside.
    pub(super) fn new(world: &World) -> anyhow::Result<Self> {
        let bind = |port| -> anyhow::Result<UdpSocket> {
            let socket = world.outside().network().enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        Ok(Self { socket: bind(PORT)?, firsts: bind(FIRST_PORT)? })
    }

    /// How many first calls of pods have arrived since this was last asked.
    pub(super) fn first_calls(&self) -> usize {
        std::iter::from_fn(|| self.firsts.recv(&mut [0; 64]).ok()).count()
    }

    /// Lets every sender that there is send, until all are judged as they should be; then all send once more, and none may be judged
    /// otherwise. `sender`: one of `count`, from when on it is there, which may be in the course of this.
    pub(super) fn until_judged<'a>(
        &self,
        count: usize,
        sender: impl Fn(usize) -> Option<&'a UdpSocket>,
        targets: Targets,
        patience: Duration,
    ) -> anyhow::Result<Vec<Seen>> {
        let mut seen = vec![Seen::default(); count];
        let deadline = Instant::now() + patience;
        for round in 0.. {
            let waiting: Vec<usize> = (0..count).filter(|&index| seen[index].judged.is_none()).collect();
            if waiting.is_empty() {
                break;
            }
            anyhow::ensure!(Instant::now() < deadline, "{} pods are not judged after {patience:?}", waiting.len());
            let there: Vec<_> = waiting.iter().filter_map(|&index| Some((index, sender(index)?))).collect();
            self.round(&there, round, targets, &mut seen)?;
            std::thread::sleep(PAUSE);
        }
        let mut again = vec![Seen::default(); count];
        let all: Vec<_> = (0..count).filter_map(|index| Some((index, sender(index)?))).collect();
        self.round(&all, u32::MAX, targets, &mut again)?;
        let wrong = again.iter().filter(|seen| seen.judged.is_none()).count();
        anyhow::ensure!(wrong == 0, "{wrong} pods are judged wrongly after all were judged rightly");
        Ok(seen)
    }

    /// Lets some senders send one packet to each target.
    fn round(
        &self,
        some: &[(usize, &UdpSocket)],
        round: u32,
        targets: Targets,
        seen: &mut [Seen],
    ) -> anyhow::Result<()> {
        for part in some.chunks(TOGETHER) {
            let mut arrived = vec![[false; 2]; part.len()];
            let (mut sent, mut late) = (Vec::with_capacity(part.len()), Vec::new());
            for (index, socket) in part {
                sent.push(Instant::now());
                let mark = |expected| Mark { sender: u32::try_from(*index).unwrap_or(u32::MAX), round, expected };
                // The call fails where a packet is refused; only what arrives counts.
                let _ = socket.send_to(&mark(false).bytes(), (targets.denied, PORT));
                let _ = socket.send_to(&mark(true).bytes(), (targets.allowed, PORT));
            }
            self.take(|mark| {
                let place = part.iter().position(|(index, _)| u32::try_from(*index) == Ok(mark.sender));
                match place.filter(|_| mark.round == round) {
                    Some(place) => arrived[place][usize::from(mark.expected)] = true,
                    // One of an earlier round that was late, and must not have arrived at all.
                    None if !mark.expected => late.push(mark.sender),
                    None => {}
                }
            })?;
            for sender in late {
                if let Some(seen) = usize::try_from(sender).ok().and_then(|sender| seen.get_mut(sender)) {
                    *seen = Seen::default();
                }
            }
            for (((index, _), sent), [denied, allowed]) in part.iter().zip(sent).zip(arrived) {
                let seen = &mut seen[*index];
                if denied {
                    *seen = Seen::default();
                    continue;
                }
                seen.stopped.get_or_insert(sent);
                if allowed {
                    seen.judged.get_or_insert(sent);
                }
            }
        }
        Ok(())
    }

    /// Takes what has arrived.
    fn take(&self, mut each: impl FnMut(Mark)) -> anyhow::Result<()> {
        let mut buffer = [0; 64];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => _ = buffer.get(..length).and_then(Mark::read).map(&mut each),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether a packet of a socket reaches an address. `round`: another one each time.
    pub(super) fn passes(&self, socket: &UdpSocket, address: Ipv4Addr, round: u32) -> anyhow::Result<bool> {
        let mark = Mark { sender: u32::MAX, round, expected: true };
        let _ = socket.send_to(&mark.bytes(), (address, PORT));
        let mut passed = false;
        self.take(|arrived| passed |= arrived == mark)?;
        Ok(passed)
    }

    /// The time since `called` until the first packet of a socket that reaches `address` is sent.
    pub(super) fn first_packet(
        &self,
        socket: &UdpSocket,
        address: Ipv4Addr,
        called: Instant,
        patience: Duration,
    ) -> anyhow::Result<Duration> {
        let mut round = 0;
        loop {
            let sent = Instant::now();
            if self.passes(socket, address, round)? {
                return Ok(sent.saturating_duration_since(called));
            }
            anyhow::ensure!(called.elapsed() < patience, "no packet to {address} within {patience:?}");
            std::thread::sleep(SHORT_PAUSE);
            round += 1;
        }
    }
}
