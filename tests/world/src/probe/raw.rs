//! Bytes of the caller's own making: raw IP sockets and whole frames, which no socket hook sees.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, Type};

use super::{Attempt, Outcome, attempt};

/// Sends a whole IP packet (headers included) through a raw socket. No answer is awaited.
pub fn raw_ip(remote: IpAddr, packet: &[u8]) -> Attempt {
    attempt(|| {
        let raw = Protocol::from(libc::IPPROTO_RAW);
        let socket = Socket::new(Domain::for_address(SocketAddr::new(remote, 0)), Type::RAW, Some(raw))?;
        socket.send_to(packet, &SocketAddr::new(remote, 0).into())?;
        Ok(Outcome::Silence)
    })
}

/// Puts frames on the pod's `eth0`, one after the other, with or without the queueing discipline (`PACKET_QDISC_BYPASS`).
pub fn frame(frames: &[Vec<u8>], bypass: bool) -> Attempt {
    // Opening and closing such a socket takes the kernel a while that says nothing about the frames.
    match packet_socket(bypass) {
        Ok((socket, index)) => attempt(|| {
            frames.iter().try_for_each(|frame| send(&socket, frame, index))?;
            Ok(Outcome::Silence)
        }),
        Err(error) => attempt(|| Err(error)),
    }
}

/// A packet socket, and the index of `eth0`.
fn packet_socket(bypass: bool) -> std::io::Result<(Socket, u32)> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    let value = libc::c_int::from(bypass);
    // SAFETY: the kernel reads an int from `value`.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const value).cast(),
            libc::socklen_t::try_from(size_of_val(&value)).expect("four"),
        )
    };
    if set != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok((socket, nix::net::if_::if_nametoindex("eth0")?))
}

fn send(socket: &Socket, frame: &[u8], index: u32) -> std::io::Result<()> {
    // SAFETY: all-zero bytes are a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).expect("small");
    address.sll_ifindex = i32::try_from(index).expect("an index");
    // SAFETY: the kernel reads `frame` and `address` within their lengths during the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            libc::socklen_t::try_from(size_of_val(&address)).expect("small"),
        )
    };
    if sent < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
