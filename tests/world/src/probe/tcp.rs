//! TCP: the handshake, an exchange, and Fast Open, where `sendto` connects without `connect`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{Protocol, SockAddr, Socket, Type};

use super::{Attempt, Outcome, PATIENCE, attempt, domain};

/// Connects, and says whether the handshake was done within `patience`.
pub fn tcp(remote: SocketAddr, patience: Duration) -> Attempt {
    attempt(|| {
        connect(remote, patience, None)?;
        Ok(Outcome::Answered)
    })
}

/// Connects, sends a line and wants it back.
pub fn tcp_echo(remote: SocketAddr) -> Attempt {
    attempt(|| {
        let mut stream: TcpStream = connect(remote, PATIENCE, None)?.into();
        exchange(&mut stream)
    })
}

/// Sends `bytes` bytes and wants them all back, so that the kernel makes its largest segments.
pub fn tcp_bulk(remote: SocketAddr, bytes: usize) -> Attempt {
    attempt(|| {
        let mut stream: TcpStream = connect(remote, PATIENCE, None)?.into();
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut writer = stream.try_clone()?;
        let sent = std::thread::spawn(move || writer.write_all(&vec![7; bytes]));
        let mut answer = vec![0; bytes];
        stream.read_exact(&mut answer)?;
        sent.join().expect("the writer")?;
        assert!(answer.iter().all(|&byte| byte == 7), "the echo changed");
        Ok(Outcome::Answered)
    })
}

/// [`tcp_echo`] by Multipath TCP, whose sockets have a protocol number of their own.
pub fn mptcp_echo(remote: SocketAddr) -> Attempt {
    attempt(|| {
        let mut stream: TcpStream = connect(remote, PATIENCE, Some(Protocol::MPTCP))?.into();
        exchange(&mut stream)
    })
}

fn connect(remote: SocketAddr, patience: Duration, protocol: Option<Protocol>) -> std::io::Result<Socket> {
    let socket = Socket::new(domain(remote), Type::STREAM, protocol)?;
    socket.connect_timeout(&remote.into(), patience)?;
    Ok(socket)
}

fn exchange(stream: &mut TcpStream) -> std::io::Result<Outcome> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"hello")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    assert_eq!(&answer, b"hello", "the echo changed");
    Ok(Outcome::Answered)
}

/// Opens a connection with data in the SYN (RFC 7413), by `sendto` with `MSG_FASTOPEN`, and wants the data back.
pub fn tcp_fast_open(remote: SocketAddr) -> Attempt {
    attempt(|| {
        let socket = Socket::new(domain(remote), Type::STREAM, None)?;
        let address = SockAddr::from(remote);
        let data = b"hello";
        // SAFETY: the kernel reads `data` and `address` within their lengths during the call.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                data.as_ptr().cast(),
                data.len(),
                libc::MSG_FASTOPEN,
                address.as_ptr().cast(),
                address.len(),
            )
        };
        if sent < 0 {
            return Err(std::io::Error::last_os_error());
        }
        let mut stream: TcpStream = socket.into();
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        Ok(Outcome::Answered)
    })
}
