//! What a pod's traffic loses by the firewall (P14): UDP packets, TCP connections that carry a byte each way, and a TCP stream, of a pod
//! under 10,000 rules and of one that no policy is about, in turn, through the node to servers outside.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::Instant;

use egress_world::{Agent, Pod, World};

use crate::results::{Compared, Traffic};
use crate::rounds::{least, median};

/// Rules beside the one that matters.
const RULES: u32 = 10_000;
/// Rules in one policy.
const IN_A_POLICY: u32 = 5_000;
/// In one round.
const PACKETS: u32 = 50_000;
const CONNECTIONS: u32 = 1_000;
const STREAM: usize = 128 << 20;
const PIECE: usize = 128 << 10;
/// Nobody reads what comes here.
const SINK: u16 = 4242;
const ECHO: u16 = 5201;
const DISCARD: u16 = 5202;

/// Measures for so many rounds.
pub(crate) fn measure(rounds: usize) -> anyhow::Result<Traffic> {
    let world = World::new(&["default/free", "default/judged"]);
    let (_sink, echo, discard) = world.outside().network().enter(|| {
        let bind = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
        (UdpSocket::bind((Ipv4Addr::UNSPECIFIED, SINK)), bind(ECHO), bind(DISCARD))
    });
    serve(echo?, |stream| {
        let mut byte = [0];
        let _ = stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte));
    });
    serve(discard?, |stream| {
        let mut buffer = vec![0; PIECE];
        while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
        let _ = stream.write_all(&[0]);
    });
    let mut agent = Agent::new(&world);
    agent.write_endpoints(&[world.pod("judged").endpoint()]);
    agent.write("policies.yaml", &policies());
    agent.start();
    let pods = [world.pod("free"), world.pod("judged")];
    let mut times: [[Vec<f64>; 2]; 3] = Default::default();
    for round in 0..rounds {
        for turn in 0..2 {
            let index = (round + turn) % 2;
            for (times, nanoseconds) in times.iter_mut().zip(one_round(pods[index], round)?) {
                times[index].push(nanoseconds);
            }
        }
    }
    let refused = pods[1].run(|| TcpStream::connect((Ipv4Addr::new(198, 51, 100, 1), ECHO)).is_err());
    anyhow::ensure!(refused, "the pod that is to be judged is not");
    let [udp, connections, stream] = times.map(|times| compared(&times));
    Ok(Traffic { udp, connections, stream })
}

fn compared([free, judged]: &[Vec<f64>; 2]) -> Compared {
    Compared { free: [least(free), median(free)], judged: [least(judged), median(judged)] }
}

/// Nanoseconds of a packet, of a connection and of a KiB.
fn one_round(pod: &Pod, round: usize) -> anyhow::Result<[f64; 3]> {
    let round = u32::try_from(round)?;
    pod.run(|| {
        let all = || Ok([datagrams()?, connections(round)?, stream()?]);
        all().map_err(|error: std::io::Error| error.to_string())
    })
    .map_err(anyhow::Error::msg)
}

fn server(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 1)) + number % 60_000)
}

fn datagrams() -> std::io::Result<f64> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((server(0), SINK))?;
    let started = Instant::now();
    for _ in 0..PACKETS {
        socket.send(&[0; 64])?;
    }
    Ok(nanoseconds(started) / f64::from(PACKETS))
}

/// Connects to another address each time, so that no connection waits for the end of an older one.
fn connections(round: u32) -> std::io::Result<f64> {
    let started = Instant::now();
    for number in 0..CONNECTIONS {
        let server = SocketAddrV4::new(server(round * CONNECTIONS + number), ECHO);
        let mut stream = TcpStream::connect(SocketAddr::V4(server))?;
        stream.write_all(&[1])?;
        stream.read_exact(&mut [0])?;
    }
    Ok(nanoseconds(started) / f64::from(CONNECTIONS))
}

fn stream() -> std::io::Result<f64> {
    let mut stream = TcpStream::connect((server(0), DISCARD))?;
    let piece = vec![0; PIECE];
    let started = Instant::now();
    for _ in 0..STREAM / PIECE {
        stream.write_all(&piece)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let kib = (STREAM >> 10) as f64;
    Ok(nanoseconds(started) / kib)
}

fn nanoseconds(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e9
}

/// Serves one connection after the other, as long as the process lives.
fn serve(listener: TcpListener, serve: impl Fn(&mut TcpStream) + Send + 'static) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            serve(&mut stream);
        }
    });
}

/// Every server outside is behind the last of the rules.
fn policies() -> String {
    let mut text = String::from(
        "apiVersion: egress.rs/v1alpha1\nkind: EgressConfig\nmetadata: {name: default}\n\
         spec: {defaultAction: Deny, internalCIDRs: [10.244.0.0/16, 'fd00:244::/48']}\n",
    );
    for policy in 0..RULES / IN_A_POLICY {
        let _ = write!(
            text,
            "---\napiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: p{policy}, namespace: default}}\n\
             spec:\n  egress:\n"
        );
        for number in policy * IN_A_POLICY..(policy + 1) * IN_A_POLICY {
            let prefix = Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 0)) + (number << 4));
            let _ = writeln!(text, "  - {{type: Allow, to: {{cidrSelector: {prefix}/28}}}}");
        }
    }
    text + "  - {type: Allow, to: {cidrSelector: 10.1.0.0/16}}\n"
}
