//! Sees every IP packet that crosses an interface. "Nothing arrived" is asked behind a fence: marked packets, one from each CPU,
//! that queue behind whatever is still under way; only when they have arrived is absence a fact.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Namespace;
use crate::packet::Seen;

/// Longest that a packet may be under way inside of one kernel.
const DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of packets that may wait to be asked for.
const BUFFER: i32 = 64 << 20;
/// Port of the marked packets (discard). No test uses it.
const FENCE_PORT: u16 = 9;

/// Packets of one interface since the sniffer was made. Nothing is lost as long as they fit the buffer.
pub struct Sniffer {
    socket: Socket,
    seen: Vec<Seen>,
}

impl Sniffer {
    /// Listens on `interface` of `namespace`, in both directions or only to what arrives.
    pub fn new(namespace: &Namespace, interface: &str, both: bool) -> Self {
        let socket = namespace.enter(|| {
            let protocol = Protocol::from(i32::from(u16::try_from(libc::ETH_P_ALL).expect("small").to_be()));
            // Bound before packets are asked for, so that no other interface's get in.
            let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None).expect("a packet socket");
            set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER);
            if !both {
                set(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1);
            }
            let index = nix::net::if_::if_nametoindex(interface).expect("the interface");
            bind(&socket, index, protocol);
            socket
        });
        Self { socket, seen: Vec::new() }
    }

    /// What has been seen so far, both directions.
    pub fn seen(&mut self) -> &[Seen] {
        self.drain();
        &self.seen
    }

    /// Forgets what has been seen so far.
    pub fn forget(&mut self) {
        self.drain();
        self.seen.clear();
    }

    /// Waits until a packet fits, or the deadline has passed: `false`.
    pub fn wait_for(&mut self, mut fits: impl FnMut(&Seen) -> bool) -> bool {
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.drain();
            if self.seen.iter().any(&mut fits) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.poll(left);
        }
    }

    /// What has been seen once everything that was under way has arrived. The fence runs from `from` to `to`, which must lie behind
    /// this interface.
    pub(crate) fn seen_behind_fence(&mut self, from: &Namespace, to: IpAddr) -> &[Seen] {
        // Two rounds: the first empties the queues of the first hop into those of the second, the second follows there.
        for _ in 0..2 {
            let tokens = from.enter(|| send_fences(to));
            for token in tokens {
                assert!(self.wait_for(|seen| seen.transport.get(8..) == Some(&token[..])), "the fence did not arrive");
            }
        }
        assert_eq!(lost(&self.socket), 0, "packets that the sniffer had no room for");
        self.seen.retain(|seen| seen.destination_port != FENCE_PORT && seen.source_port != FENCE_PORT);
        &self.seen
    }

    fn drain(&mut self) {
        let mut frame = Vec::<u8>::with_capacity(65_600);
        while let Ok((length, address)) = self.socket.recv_from(frame.spare_capacity_mut()) {
            // SAFETY: recv_from has written the first `length` bytes.
            unsafe { frame.set_len(length) };
            // SAFETY: a packet socket gives a sockaddr_ll, which the storage has room for.
            let link = unsafe { &*address.as_ptr().cast::<libc::sockaddr_ll>() };
            self.seen.extend(Seen::read(&frame, link.sll_pkttype == libc::PACKET_OUTGOING));
            frame.clear();
        }
    }

    fn poll(&self, patience: Duration) {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one pollfd, alive during the call.
        unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
    }
}

fn set(socket: &Socket, level: libc::c_int, option: libc::c_int, value: libc::c_int) {
    let size = libc::socklen_t::try_from(size_of_val(&value)).expect("small");
    // SAFETY: the kernel reads one int.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size) };
    assert_eq!(set, 0, "socket option {option}: {}", std::io::Error::last_os_error());
}

/// How many packets did not fit the buffer since this was asked last.
fn lost(socket: &Socket) -> u32 {
    let mut statistics = [0_u32; 2];
    let mut size = libc::socklen_t::try_from(size_of_val(&statistics)).expect("small");
    // SAFETY: the kernel writes a tpacket_stats, two unsigned ints, within `size`.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            statistics.as_mut_ptr().cast(),
            &raw mut size,
        )
    };
    assert_eq!(got, 0, "packet statistics: {}", std::io::Error::last_os_error());
    statistics[1]
}

fn bind(socket: &Socket, index: u32, protocol: Protocol) {
    // SAFETY: all-zero bytes are a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).expect("small");
    address.sll_protocol = u16::try_from(i32::from(protocol)).expect("two bytes");
    address.sll_ifindex = i32::try_from(index).expect("an index");
    let size = libc::socklen_t::try_from(size_of_val(&address)).expect("small");
    // SAFETY: the kernel reads `address` within its length.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
    assert_eq!(bound, 0, "binding a packet socket: {}", std::io::Error::last_os_error());
}

/// Sends one marked packet from each CPU, and returns the marks.
fn send_fences(to: IpAddr) -> Vec<[u8; 16]> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).expect("a socket for the fence");
    let allowed = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).expect("the CPUs");
    let cpus = (0..nix::sched::CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false));
    let mut tokens = Vec::new();
    for cpu in cpus {
        let mut one = nix::sched::CpuSet::new();
        one.set(cpu).expect("a CPU of ours");
        // This thread is `Namespace::enter`'s own and ends soon: nothing to restore.
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &one).expect("running on a CPU of ours");
        let mut token = *b"fence...........";
        token[8..].copy_from_slice(&NUMBER.fetch_add(1, Ordering::Relaxed).to_ne_bytes());
        socket.send_to(&token, SocketAddr::new(to, FENCE_PORT)).expect("sending the fence");
        tokens.push(token);
    }
    tokens
}
