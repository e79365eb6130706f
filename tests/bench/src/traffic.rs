//! What a pod's traffic loses by the firewall (P14): UDP packets, TCP connections that carry a byte each way, and a TCP stream, of a pod
//! under 10,000 rules and of two that no policy is about, in turn, through the node to servers outside.
//!
//! The figure is the median of the ratios within each turn, to the mean of the two pods without a policy, which what else the machine does
//! moves least. How far these two are apart, by the same measure, says how much of it may be chance.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::Instant;

use egress_world::{Agent, Pod, World};

use crate::results::{Compared, Traffic};
use crate::rounds::{least, median};

/// One of the kinds of traffic: nanoseconds of one of it. The number of the round is the argument.
type Kind = fn(u32) -> std::io::Result<f64>;

/// Rules beside the one that matters.
const RULES: u32 = 10_000;
/// Rules in one policy.
const IN_A_POLICY: u32 = 5_000;
/// In one round.
const PACKETS: u32 = 20_000;
const CONNECTIONS: u32 = 500;
const STREAM: usize = 64 << 20;
/// Streams are shorter than the others' rounds, and what a processor does beside moves them more.
const STREAMS: usize = 4;
const PIECE: usize = 128 << 10;
/// Nobody reads what comes here.
const SINK: u16 = 4242;
const ECHO: u16 = 5201;
const DISCARD: u16 = 5202;

/// Measures for so many rounds.
pub(crate) fn measure(rounds: usize) -> anyhow::Result<Traffic> {
    let world = World::new(&["default/free", "default/judged", "default/control"]);
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
    let pods = ["free", "judged", "control"].map(|name| world.pod(name));
    let traffic = Traffic {
        udp: in_turn(datagrams, pods, rounds)?,
        connections: in_turn(connections, pods, rounds)?,
        stream: in_turn(stream, pods, rounds * STREAMS)?,
    };
    let refused = pods[1].run(|| TcpStream::connect((Ipv4Addr::new(198, 51, 100, 1), ECHO)).is_err());
    anyhow::ensure!(refused, "the pod that is to be judged is not");
    Ok(traffic)
}

/// Every pod in each round, beginning with another one each time.
fn in_turn(kind: Kind, pods: [&Pod; 3], rounds: usize) -> anyhow::Result<Compared> {
    let mut times: [Vec<f64>; 3] = Default::default();
    for round in 0..rounds {
        for turn in 0..pods.len() {
            let index = (round + turn) % pods.len();
            let number = u32::try_from(round * pods.len() + turn)?;
            let took = pods[index].run(|| kind(number).map_err(|error| error.to_string()));
            times[index].push(took.map_err(anyhow::Error::msg)?);
        }
    }
    let [free, judged, control] = times;
    let mean: Vec<f64> = free.iter().zip(&control).map(|(one, other)| f64::midpoint(*one, *other)).collect();
    let ratio = |of: &[f64], to: &[f64]| median(&of.iter().zip(to).map(|(of, to)| of / to).collect::<Vec<f64>>());
    Ok(Compared {
        free: [least(&free), median(&free)],
        judged: [least(&judged), median(&judged)],
        ratio: ratio(&judged, &mean),
        control: ratio(&control, &free),
    })
}

fn server(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 1)) + number % 60_000)
}

fn datagrams(_: u32) -> std::io::Result<f64> {
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

fn stream(_: u32) -> std::io::Result<f64> {
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
