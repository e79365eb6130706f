//! A name server that says what a test tells it to, over UDP and TCP: also what no honest one says. It stops when dropped.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::message::{Question, Reply};
use super::{PORT, Resolver, STRANGERS, addresses};

/// How often a server looks whether it shall stop.
const PULSE: Duration = Duration::from_millis(100);

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// On a connection.
    Tcp,
}

/// What the server sends back.
#[derive(Clone, Debug)]
pub enum Sent {
    /// A reply.
    Reply(Reply),
    /// A reply from an address of [`STRANGERS`]. Over UDP only.
    Elsewhere(Reply),
    /// A reply over TCP in two segments.
    Segments(Reply),
}

type Script = dyn Fn(&Question, Transport) -> Vec<Sent> + Send + Sync;

/// A running server.
pub struct Scripted {
    stop: Arc<AtomicBool>,
}

impl Scripted {
    /// Serves at every address of [`super::RESOLVERS`]. `script` says what is sent for a question, in this order.
    pub fn start(
        resolver: &Resolver,
        script: impl Fn(&Question, Transport) -> Vec<Sent> + Send + Sync + 'static,
    ) -> Self {
        let script: Arc<Script> = Arc::new(script);
        let server = Self { stop: Arc::new(AtomicBool::new(false)) };
        for (address, stranger) in addresses().zip(STRANGERS) {
            let stranger: IpAddr = stranger.parse().expect("an address");
            let sockets = resolver.network().enter(|| {
                let bind = |address| UdpSocket::bind(SocketAddr::new(address, PORT)).expect("port 53");
                (bind(address), bind(stranger), TcpListener::bind((address, PORT)).expect("port 53"))
            });
            let (udp, elsewhere, tcp) = sockets;
            server.serve_udp(udp, elsewhere, Arc::clone(&script));
            server.serve_tcp(tcp, Arc::clone(&script));
        }
        server
    }

    fn serve_udp(&self, socket: UdpSocket, elsewhere: UdpSocket, script: Arc<Script>) {
        let stop = Arc::clone(&self.stop);
        socket.set_read_timeout(Some(PULSE)).expect("a timeout");
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
                let Some(question) = Question::read(&buffer[..length]) else { continue };
                for sent in script(&question, Transport::Udp) {
                    // A client that is gone is the tests' business.
                    let _ = match sent {
                        Sent::Elsewhere(reply) => elsewhere.send_to(&reply.bytes(), client),
                        Sent::Reply(reply) | Sent::Segments(reply) => socket.send_to(&reply.bytes(), client),
                    };
                }
            }
        });
    }

    fn serve_tcp(&self, listener: TcpListener, script: Arc<Script>) {
        let stop = Arc::clone(&self.stop);
        listener.set_nonblocking(true).expect("a listener that does not wait");
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                };
                let script = Arc::clone(&script);
                std::thread::spawn(move || answer(stream, &*script));
            }
        });
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Answers one query of a connection, and waits until the client has closed it.
fn answer(mut stream: TcpStream, script: &Script) -> Option<()> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.set_nodelay(true).ok()?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut query).ok()?;
    for sent in script(&Question::read(&query)?, Transport::Tcp) {
        let (Sent::Reply(reply) | Sent::Elsewhere(reply) | Sent::Segments(reply)) = &sent;
        let message = reply.bytes();
        let length = u16::try_from(message.len()).ok()?.to_be_bytes();
        let whole = [&length[..], &message].concat();
        let (first, rest) = whole.split_at(if matches!(sent, Sent::Segments(_)) { 20 } else { whole.len() });
        stream.write_all(first).ok()?;
        if !rest.is_empty() {
            // Two segments even where the first could wait for the second.
            std::thread::sleep(Duration::from_millis(5));
            stream.write_all(rest).ok()?;
        }
    }
    let _ = stream.read(&mut [0; 1]);
    Some(())
}
