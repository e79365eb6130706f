//! Echo servers for TCP and UDP, both families on one socket, answering from the address that was called. They stop when dropped.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg};
use socket2::{Domain, Socket, Type};

/// How often a server looks whether it shall stop.
const PULSE: Duration = Duration::from_millis(100);

/// Ends the threads of servers when dropped.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    stop: Arc<AtomicBool>,
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A dual-stack TCP listener. Must be called where the socket shall live.
pub(crate) fn tcp_socket(port: u16) -> Socket {
    let socket = bound(Type::STREAM, port);
    let queue: libc::c_int = 64;
    // SAFETY: the kernel reads an int. A kernel without TCP Fast Open refuses, and the tests of it notice.
    unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN, (&raw const queue).cast(), 4);
    }
    socket.listen(1024).expect("listening");
    socket
}

/// A dual-stack UDP socket that learns which address was called.
pub(crate) fn udp_socket(port: u16) -> Socket {
    let socket = bound(Type::DGRAM, port);
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Ipv6RecvPacketInfo, &true).expect("packet info");
    socket
}

fn bound(kind: Type, port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV6, kind, None).expect("a server's socket");
    socket.set_only_v6(false).expect("dual stack");
    socket.set_reuse_address(true).expect("reuse");
    socket.set_read_timeout(Some(PULSE)).expect("a timeout");
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    socket.bind(&address.into()).unwrap_or_else(|error| panic!("binding port {port}: {error}"));
    socket
}

impl Servers {
    /// Serves connections on `socket` until dropped.
    pub(crate) fn serve_tcp(&self, socket: Socket) {
        let stop = Arc::clone(&self.stop);
        let listener: TcpListener = socket.into();
        std::thread::spawn(move || {
            // `accept` keeps to the listener's receive timeout.
            while !stop.load(Ordering::Relaxed) {
                if let Ok((stream, _)) = listener.accept() {
                    let stop = Arc::clone(&stop);
                    std::thread::spawn(move || echo_stream(stream, &stop));
                }
            }
        });
    }

    /// Answers datagrams on `socket` until dropped.
    pub(crate) fn serve_udp(&self, socket: Socket) {
        let stop = Arc::clone(&self.stop);
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // A refused answer is the tests' business, not the server's end.
                let _ = echo_datagram(&socket);
            }
        });
    }
}

fn echo_stream(mut stream: TcpStream, stop: &AtomicBool) {
    let _ = stream.set_read_timeout(Some(PULSE));
    let _ = stream.set_nodelay(true);
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                if stream.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return,
        }
    }
}

/// Receives one datagram and sends it back from the address that it was sent to.
fn echo_datagram(socket: &Socket) -> nix::Result<()> {
    let mut buffer = [0; 4096];
    let mut space = nix::cmsg_space!(libc::in6_pktinfo);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let message = recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::empty())?;
    let called = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(info),
        _ => None,
    });
    let (length, sender) = (message.bytes, message.address);
    let called = called.map(|info| libc::in6_pktinfo { ipi6_ifindex: 0, ..info });
    let control: Vec<_> = called.iter().map(ControlMessage::Ipv6PacketInfo).collect();
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(&buffer[..length])], &control, MsgFlags::empty(), sender.as_ref())?;
    Ok(())
}
