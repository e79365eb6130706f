//! Replies are never judged (§1.4): a pod under deny-all serves clients outside, and gains no way out by it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;

use egress_e2e::{CONFIG, Lab, Way, at, config, document, ip, policy, reaches, reaches_udp, world};
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
fn a_closed_port_of_a_pod_under_deny_all_answers_that_it_is_closed() {
    let Some(world) = world(&["default/server"]) else { return };
    let _lab = Lab::new(&world, &policy(&DENY_ALL));
    let pod = world.pod("server");
    for client in CLIENTS {
        let error = world.outside().tcp(ip(client), service(pod, client)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "a reset is a reply too");
        let socket = world.outside().udp(at(client, 0));
        socket.connect(service(pod, client)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send(b"hello").unwrap();
        let error = socket.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "so is port unreachable");
    }
}

#[test]
fn a_made_up_icmp_error_is_no_reply() {
    let Some(world) = world(&["default/server"]) else { return };
    let mut lab = Lab::new(&world, &policy(&DENY_ALL));
    let pod = world.pod("server");
    pod.serve(SERVICE);
    for (client, stranger) in CLIENTS.into_iter().zip(["5.6.7.8", "2001:db8:2::8"]) {
        let socket = world.outside().udp(at(client, 0));
        ask(&socket, service(pod, client));
        let port = socket.local_addr().unwrap().port();
        let own = pod.address_like(ip(client));
        let icmp = if own.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
        let mut send = |to: &str, quoted_source: &str, quoted_port| {
            let quote = Ip::new(ip(quoted_source), own, protocol::UDP);
            let quote = quote.packet(&quote.udp(quoted_port, SERVICE, b"hello"));
            let header = Ip::new(own, ip(to), icmp);
            let packet = header.packet(&header.port_unreachable(&quote));
            lab.wire.forget();
            assert_eq!(pod.run(|| probe::raw_ip(ip(to), &packet)).outcome, Outcome::Silence);
            lab.wire.arrived(ip(to)).len()
        };
        assert_eq!(send(client, client, port), 1, "an error about what the client did send");
        assert_eq!(send(client, client, port ^ 1), 0, "about what it did not send");
        assert_eq!(send(stranger, stranger, port), 0, "about what nobody sent");
        assert_eq!(send(stranger, client, port), 0, "to somebody else");
    }
}

#[test]
fn pods_without_an_interface_on_the_node_serve_under_deny_all_too() {
    let Some(mut world) = world(&[]) else { return };
    world.add_host_network_pod("default/hosted");
    if world.add_macvlan_pod("default/macvlan").is_none() {
        eprintln!("SKIPPED: this kernel has no macvlan");
    }
    let deny_all = document("office", &[], &DENY_ALL);
    let _lab = Lab::new(&world, &(config(&["hostNetworkPods: Enforce"]) + &deny_all));
    for (port, pod) in (SERVICE..).zip(world.pods()) {
        pod.serve(port);
        for client in CLIENTS {
            let own = if pod.name() == "hosted" { node_address(client) } else { pod.address_like(ip(client)) };
            let to = SocketAddr::new(own, port);
            let mut stream = world.outside().tcp(ip(client), to).unwrap();
            exchange(&mut stream);
            let socket = world.outside().udp(at(client, 0));
            ask(&socket, to);
            assert!(!reaches(pod, at(client, 443)) && !reaches_udp(pod, at(client, 443)), "{}", pod.name());
            exchange(&mut stream);
            ask(&socket, to);
        }
    }
}

/// The node's own address of the family.
fn node_address(like: &str) -> std::net::IpAddr {
    ip(if like.contains(':') { "fd00:172:18::2" } else { "172.18.0.2" })
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
