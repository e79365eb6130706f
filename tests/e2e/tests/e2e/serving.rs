//! Replies are never judged (§1.4): a pod under deny-all serves clients outside, and gains no way out by it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;

use egress_e2e::{CONFIG, Lab, Way, at, ip, policy, reaches, reaches_udp, world};
use egress_world::Pod;
use egress_world::packet::{Ip, flag, protocol};
use egress_world::probe::{self, Outcome, PATIENCE};

const DENY_ALL: [&str; 2] = ["Deny 0.0.0.0/0", "Deny ::/0"];
const CLIENTS: [&str; 2] = ["1.2.3.4", "2001:db8:1::4"];
const SERVICE: u16 = 8000;

fn service(pod: &Pod, client: &str) -> SocketAddr {
    SocketAddr::new(pod.address_like(ip(client)), SERVICE)
}

fn exchange(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

fn ask(socket: &UdpSocket, to: SocketAddr) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(b"hello", to).unwrap();
    assert_eq!(socket.recv_from(&mut [0; 16]).unwrap(), (5, to));
}

#[test]
fn a_pod_under_deny_all_serves_tcp_clients_and_cannot_call_them() {
    let Some(world) = world(&["default/server"]) else {
        return;
    };
    let _lab = Lab::new(&world, &policy(&DENY_ALL));
    let pod = world.pod("server");
    pod.serve(SERVICE);
    for client in CLIENTS {
        let mut stream = world.outside().tcp(ip(client), service(pod, client)).unwrap();
        for _ in 0..10 {
            exchange(&mut stream);
        }
        assert!(!reaches(pod, at(client, 443)), "serving {client} must not open a way to it");
        exchange(&mut stream);
    }
}

#[test]
fn a_pod_under_deny_all_answers_udp_clients_and_cannot_call_them() {
    let Some(world) = world(&["default/server"]) else {
        return;
    };
    let _lab = Lab::new(&world, &policy(&DENY_ALL));
    let pod = world.pod("server");
    pod.serve(SERVICE);
    for client in CLIENTS {
        let socket = world.outside().udp(at(client, 0));
        for _ in 0..10 {
            ask(&socket, service(pod, client));
        }
        assert!(!reaches_udp(pod, at(client, 443)), "serving {client} must not open a way to it");
        assert!(!reaches_udp(pod, at(client, 53)));
        ask(&socket, service(pod, client));
    }
}

#[test]
fn a_pod_under_deny_all_answers_echo_requests_and_cannot_send_them() {
    let Some(world) = world(&["default/server"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&DENY_ALL));
    let pod = world.pod("server");
    for client in CLIENTS {
        let own = pod.address_like(ip(client));
        let ping = world.outside().network().enter(|| probe::ping_raw(own, PATIENCE));
        assert!(ping.is_answered(), "{ping:?}");
        lab.insist_denied(pod, Way::Ping, client, "Deny ");
    }
}

#[test]
fn a_served_client_cannot_be_called_from_the_service_port() {
    let Some(world) = world(&["default/server"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&DENY_ALL));
    let pod = world.pod("server");
    pod.serve(SERVICE);
    for client in CLIENTS {
        let mut stream = world.outside().tcp(ip(client), service(pod, client)).unwrap();
        exchange(&mut stream);
        let remote = stream.local_addr().unwrap();
        lab.wire.forget();
        // The connection's own addresses and ports, but a SYN, which no reply is.
        let header = Ip::new(pod.address_like(remote.ip()), remote.ip(), protocol::TCP);
        let syn = header.packet(&header.tcp(SERVICE, remote.port(), flag::SYN));
        let frame = pod.frame(&[], &syn);
        assert_eq!(pod.run(|| probe::frame(&[frame], true)).outcome, Outcome::Silence);
        let arrived = lab.wire.arrived(remote.ip());
        assert!(arrived.iter().all(|seen| seen.kind & (flag::SYN | flag::ACK) != flag::SYN), "{arrived:?}");
    }
}

#[test]
fn a_client_that_was_served_before_the_first_policy_stays_served_and_called_ones_do_not() {
    let Some(world) = world(&["default/server"]) else { return };
    let lab = Lab::new(&world, CONFIG);
    let pod = world.pod("server");
    pod.serve(SERVICE);
    let mut served = CLIENTS.map(|client| world.outside().tcp(ip(client), service(pod, client)).unwrap());
    let mut called = CLIENTS.map(|client| {
        let connect = || Ok(TcpStream::connect_timeout(&at(client, 443), PATIENCE)?.into());
        TcpStream::from(pod.socket(connect).unwrap())
    });
    served.iter_mut().chain(&mut called).for_each(exchange);
    lab.agent.apply(&policy(&DENY_ALL));
    served.iter_mut().for_each(exchange);
    for stream in &mut called {
        stream.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
        stream.write_all(b"hello").unwrap();
        assert!(stream.read_exact(&mut [0; 5]).is_err(), "the pod opened this one itself");
    }
}

#[test]
fn a_client_stays_served_while_the_agent_is_dead_and_after_its_return() {
    let Some(world) = world(&["default/server"]) else { return };
    let mut lab = Lab::new(&world, &policy(&DENY_ALL));
    let pod = world.pod("server");
    pod.serve(SERVICE);
    let mut streams = CLIENTS.map(|client| world.outside().tcp(ip(client), service(pod, client)).unwrap());
    streams.iter_mut().for_each(exchange);
    lab.agent.kill();
    streams.iter_mut().for_each(exchange);
    let mut late = CLIENTS.map(|client| world.outside().tcp(ip(client), service(pod, client)).unwrap());
    late.iter_mut().for_each(exchange);
    lab.agent.start();
    streams.iter_mut().chain(&mut late).for_each(exchange);
    assert_eq!(CLIENTS.map(|client| reaches(pod, at(client, 443))), [false; 2]);
}

/// A UDP flow that the pod opened while it was allowed stays the pod's: the remote's packets do not make it a reply.
#[test]
fn a_remote_that_keeps_sending_does_not_hold_a_denied_udp_flow_open() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&["Allow 0.0.0.0/0", "Allow ::/0"]));
    let pod = world.pod("client");
    for client in CLIENTS {
        let remote = world.outside().udp(at(client, 7777));
        remote.set_read_timeout(Some(PATIENCE)).unwrap();
        let socket: UdpSocket = connected(pod, at(client, 7777)).into();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send(b"hello").unwrap();
        let (_, flow) = remote.recv_from(&mut [0; 16]).unwrap();

        lab.agent.apply(&policy(&DENY_ALL));
        lab.wire.forget();
        for _ in 0..20 {
            remote.send_to(b"go on", flow).unwrap();
            socket.recv(&mut [0; 16]).unwrap();
            // Dropped behind the socket's back, or refused.
            let _ = socket.send(b"more");
        }
        let arrived = lab.wire.arrived(ip(client));
        assert!(arrived.is_empty(), "{arrived:?}");

        lab.agent.apply(&policy(&["Allow 0.0.0.0/0", "Allow ::/0"]));
        socket.send(b"again").unwrap();
        remote.recv_from(&mut [0; 16]).unwrap();
    }
}

fn connected(pod: &Pod, to: SocketAddr) -> OwnedFd {
    let connect = || {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.connect(to)?;
        Ok(socket.into())
    };
    pod.socket(connect).unwrap()
}
