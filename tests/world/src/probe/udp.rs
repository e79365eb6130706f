//! UDP with and without `connect`: the two ways meet different hooks.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::{Attempt, Outcome, PATIENCE, attempt};

fn socket(remote: SocketAddr, patience: Duration) -> std::io::Result<UdpSocket> {
    let any = if remote.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(patience))?;
    Ok(socket)
}

/// `connect`, `send`, and the echo.
pub fn udp_connected(remote: SocketAddr, patience: Duration) -> Attempt {
    attempt(|| {
        let socket = socket(remote, patience)?;
        socket.connect(remote)?;
        socket.send(b"hello")?;
        socket.recv(&mut [0; 16])?;
        Ok(Outcome::Answered)
    })
}

/// `sendto` of more bytes than one packet holds, and the echo of all of them.
pub fn udp_large(remote: SocketAddr, bytes: usize) -> Attempt {
    attempt(|| {
        let socket = socket(remote, PATIENCE)?;
        socket.send_to(&vec![7; bytes], remote)?;
        let (length, _) = socket.recv_from(&mut vec![0; bytes + 1])?;
        assert_eq!(length, bytes, "the echo changed");
        Ok(Outcome::Answered)
    })
}

/// `sendto` on an unconnected socket, and the echo.
pub fn udp_unconnected(remote: SocketAddr, patience: Duration) -> Attempt {
    attempt(|| {
        let socket = socket(remote, patience)?;
        socket.send_to(b"hello", remote)?;
        socket.recv_from(&mut [0; 16])?;
        Ok(Outcome::Answered)
    })
}
