//! Where packets are sent: a network namespace with a default route through a device that swallows everything.
//!
//! The device is an `ifb` without a queue (or a `dummy`), the route is `onlink`, so that 65,536 destinations need one neighbour.
//! Each peer has a namespace of its own, hence no switching of rule sets between rounds.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use egress_world::Namespace;

use crate::kernel;
use crate::mix::{PORT, TCP_PORT};
use crate::rounds::thread_time;

/// Index of the sink; the same in every namespace, so that our programs know it as the endpoint's interface.
pub(crate) const INTERFACE: u32 = 1000;
/// Name of the sink.
pub(crate) const SINK: &str = "sink0";
/// Packets per system call.
const BATCH: usize = 64;
/// The sender that waits for a change does nothing else for this long.
const EAGER: Duration = Duration::from_millis(5);
/// And then pauses between packets.
const PAUSE: Duration = Duration::from_micros(200);
const PAYLOAD: [u8; 8] = [0; 8];

/// A namespace to send from.
#[derive(Debug)]
pub(crate) struct Lab {
    namespace: Namespace,
    /// Reports every drop on the way.
    probe: UdpSocket,
    /// Sends what is measured.
    udp: UdpSocket,
    /// See `udp`; sends whole TCP segments.
    tcp: OwnedFd,
}

impl Lab {
    /// Makes the namespace, the sink and the sockets.
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        let namespace = Namespace::new(name);
        let device = |kind: &str| namespace.try_ip(&format!("link add {SINK} index {INTERFACE} type {kind}\n"));
        device("ifb").or_else(|_| device("dummy")).map_err(anyhow::Error::msg).context("neither ifb nor dummy")?;
        let queue = namespace.command("tc").args(["qdisc", "replace", "dev", SINK, "root", "noqueue"]).output()?;
        anyhow::ensure!(queue.status.success(), "tc: {}", String::from_utf8_lossy(&queue.stderr));
        namespace.ip(&format!(
            "link set lo up\nlink set {SINK} up\naddr add 192.0.2.1/24 dev {SINK}\n\
             route add default via 192.0.2.254 dev {SINK} onlink\n"
        ));
        let (probe, udp, tcp) = namespace.enter(|| (socket(true), socket(false), raw_socket()));
        Ok(Self { namespace, probe: probe?, udp: udp?, tcp: tcp? })
    }

    /// The namespace.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Puts a program on the way out.
    pub(crate) fn attach(&self, program: BorrowedFd<'_>) -> anyhow::Result<OwnedFd> {
        self.namespace.enter(|| kernel::attach_egress(program, INTERFACE))
    }

    /// Sends one packet and says whether it reached the device.
    pub(crate) fn passes(&self, destination: Ipv4Addr) -> anyhow::Result<bool> {
        match self.probe.send_to(&PAYLOAD, (destination, PORT)) {
            Ok(_) => Ok(true),
            // A drop by tc is told as ENOBUFS, one by netfilter as EPERM.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EPERM)) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("sending to {destination}")),
        }
    }

    /// Makes `change` while a second thread sends to `destination`; the time from the call until the first packet passes.
    pub(crate) fn until_first_packet(
        &self,
        destination: Ipv4Addr,
        change: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Duration> {
        anyhow::ensure!(!self.passes(destination)?, "{destination} passes before the change");
        let deadline = Instant::now() + Duration::from_mins(5);
        let running = std::sync::Barrier::new(2);
        let failed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                running.wait();
                let started = Instant::now();
                while Instant::now() < deadline && !failed.load(Ordering::Relaxed) {
                    if self.passes(destination)? {
                        return Ok(Instant::now());
                    }
                    // A change that takes longer is not robbed of a processor, and told to within 4 %.
                    if started.elapsed() > EAGER {
                        std::thread::sleep(PAUSE);
                    }
                }
                anyhow::bail!("{destination} never passed")
            });
            running.wait();
            let called = Instant::now();
            let outcome = change();
            failed.store(outcome.is_err(), Ordering::Relaxed);
            let first = sender.join().map_err(|_| anyhow::anyhow!("the sender died"))?;
            outcome?;
            Ok(first?.saturating_duration_since(called))
        })
    }
}

fn socket(reports_drops: bool) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    if reports_drops {
        let on: libc::c_int = 1;
        // SAFETY: the option is an int that outlives the call.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_IP,
                libc::IP_RECVERR,
                (&raw const on).cast(),
                libc::socklen_t::try_from(size_of::<libc::c_int>())?,
            )
        };
        anyhow::ensure!(result == 0, "IP_RECVERR: {}", io::Error::last_os_error());
    }
    Ok(socket)
}

fn raw_socket() -> anyhow::Result<OwnedFd> {
    // SAFETY: a plain system call.
    let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_TCP) };
    anyhow::ensure!(raw >= 0, "a raw socket: {}", io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// UDP packets: each destination is a new flow once, and a known one as long as it is remembered.
    Udp,
    /// TCP segments in the middle of a connection, of a raw socket.
    Tcp,
}

impl Kind {
    /// The payload of a socket of this kind.
    pub(crate) fn payload(self) -> Vec<u8> {
        match self {
            Self::Udp => PAYLOAD.to_vec(),
            Self::Tcp => tcp_header(),
        }
    }
}

/// A segment that only acknowledges.
fn tcp_header() -> Vec<u8> {
    const ACK: u8 = 0x10;
    let mut header = 4321_u16.to_be_bytes().to_vec();
    header.extend(TCP_PORT.to_be_bytes());
    header.extend([0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, ACK, 0xff, 0xff, 0, 0, 0, 0]);
    header
}

/// Messages to many destinations.
///
/// Small, because what the sender reads on the way is missing in the caches for what is measured: four bytes for each destination, and the
/// messages of one system call, which are used again and again.
pub(crate) struct Traffic {
    kind: Kind,
    destinations: Vec<Ipv4Addr>,
    headers: Vec<libc::mmsghdr>,
    /// What the headers point to, one for each.
    addresses: Vec<libc::sockaddr_in>,
    _payload: (Box<libc::iovec>, Vec<u8>),
}

impl Traffic {
    /// One message to each destination, in this order.
    pub(crate) fn new(kind: Kind, destinations: &[Ipv4Addr]) -> Self {
        let mut bytes = kind.payload();
        let mut payload = Box::new(libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() });
        let nowhere = libc::sockaddr_in {
            sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or(0),
            // A raw socket wants none.
            sin_port: if kind == Kind::Udp { PORT.to_be() } else { 0 },
            sin_addr: libc::in_addr { s_addr: 0 },
            sin_zero: [0; 8],
        };
        let mut addresses = vec![nowhere; BATCH];
        let header = |address: &mut libc::sockaddr_in| {
            // SAFETY: all-zero bytes are a valid message header.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
            header.msg_hdr.msg_namelen = libc::socklen_t::try_from(size_of::<libc::sockaddr_in>()).unwrap_or(0);
            header.msg_hdr.msg_iov = &raw mut *payload;
            header.msg_hdr.msg_iovlen = 1;
            header
        };
        let headers = addresses.iter_mut().map(header).collect();
        Self { kind, destinations: destinations.to_vec(), headers, addresses, _payload: (payload, bytes) }
    }

    /// Sends at least `count` messages, starting at message `from`; nanoseconds per message, and where it stopped.
    pub(crate) fn send(&mut self, lab: &Lab, from: usize, count: usize) -> anyhow::Result<(f64, usize)> {
        let (mut next, mut sent) = (from % self.destinations.len(), 0);
        let socket = if self.kind == Kind::Udp { lab.udp.as_raw_fd() } else { lab.tcp.as_raw_fd() };
        let started = thread_time()?;
        while sent < count {
            let destinations = &self.destinations[next..];
            for (address, destination) in self.addresses.iter_mut().zip(destinations) {
                address.sin_addr.s_addr = u32::from_ne_bytes(destination.octets());
            }
            let batch = libc::c_uint::try_from(destinations.len().min(BATCH)).unwrap_or(1);
            // SAFETY: the headers and all that they point to live in `self`; the kernel writes the lengths in them.
            let result = unsafe { libc::sendmmsg(socket, self.headers.as_mut_ptr(), batch, 0) };
            let done = usize::try_from(result).map_err(|_| io::Error::last_os_error()).context("sendmmsg")?;
            anyhow::ensure!(done > 0, "sendmmsg sent nothing");
            sent += done;
            next = (next + done) % self.destinations.len();
        }
        let nanoseconds = thread_time()? - started;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        Ok((nanoseconds / sent as f64, next))
    }
}
