//! A new version takes effect atomically, also for connections that live (§6.1, §6.2).

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use egress_e2e::{ALLOWED, Lab, OFFICE, Traffic, at, ip, policy, world};
use egress_world::packet::protocol;
use egress_world::probe::PATIENCE;
use egress_world::{Pod, eventually};

const DENY_ALL: [&str; 2] = ["Deny 0.0.0.0/0", "Deny ::/0"];
/// An answer that is expected not to come would have come by then.
const SILENCE: Duration = Duration::from_millis(200);

fn tcp(pod: &Pod, to: SocketAddr) -> TcpStream {
    pod.socket(|| Ok(TcpStream::connect_timeout(&to, PATIENCE)?.into())).unwrap().into()
}

fn udp(pod: &Pod, to: SocketAddr) -> UdpSocket {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let connect = || {
        let socket = UdpSocket::bind(any)?;
        socket.connect(to)?;
        Ok(socket.into())
    };
    pod.socket(connect).unwrap().into()
}

fn is_silence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[test]
fn a_live_tcp_connection_is_cut_by_a_change_and_revived_by_the_reverse() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    let mut streams = ALLOWED.map(|remote| tcp(pod, at(remote, 443)));
    let mut answer = [0; 5];
    for stream in &mut streams {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"hello").unwrap();
        stream.read_exact(&mut answer).unwrap();
    }
    lab.agent.apply(&policy(&DENY_ALL));
    lab.wire.forget();
    for (stream, remote) in streams.iter_mut().zip(ALLOWED) {
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        stream.write_all(b"later").unwrap();
        assert!(is_silence(&stream.read_exact(&mut answer).unwrap_err()));
        assert!(lab.wire.arrived(ip(remote)).iter().all(|seen| seen.protocol != protocol::TCP));
    }
    lab.agent.apply(&policy(&OFFICE));
    for stream in &mut streams {
        // The kernel sends the bytes again by itself.
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"later");
    }
}

#[test]
fn a_live_udp_flow_is_cut_by_a_change_and_revived_by_the_reverse() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    let sockets = ALLOWED.map(|remote| udp(pod, at(remote, 443)));
    let answered = |socket: &UdpSocket, patience| {
        socket.set_read_timeout(Some(patience)).unwrap();
        socket.send(b"hello").is_ok() && socket.recv(&mut [0; 16]).is_ok()
    };
    assert!(sockets.iter().all(|socket| answered(socket, PATIENCE)));
    lab.agent.apply(&policy(&DENY_ALL));
    lab.wire.forget();
    for (socket, remote) in sockets.iter().zip(ALLOWED) {
        assert!(!answered(socket, SILENCE));
        assert!(lab.wire.arrived(ip(remote)).is_empty());
    }
    lab.agent.apply(&policy(&OFFICE));
    assert!(sockets.iter().all(|socket| answered(socket, PATIENCE)));
}

#[test]
fn a_flow_that_was_refused_under_the_old_version_passes_under_the_new_one() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = Lab::new(&world, &policy(&DENY_ALL));
    let pod = world.pod("client");
    assert_eq!(ALLOWED.map(|remote| egress_e2e::reaches(pod, at(remote, 443))), [false; 2]);
    lab.agent.apply(&policy(&OFFICE));
    assert_eq!(ALLOWED.map(|remote| egress_e2e::reaches(pod, at(remote, 443))), [true; 2]);
}

#[test]
fn fifty_swaps_under_traffic_give_no_mixed_verdict() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    // Both allow 1.2.3.4 and 2001:db8:1::4 and deny 5.6.7.8 and 2001:db8:2::8, by rules at other places of lists of other lengths,
    // so that a packet that met half of each would be judged wrongly.
    let other = [
        "Deny 5.6.0.0/16",
        "Deny 2001:db8:2::/48",
        "Allow 1.2.3.4/32 UDP/443",
        "Allow 2001:db8:1::4/128 UDP/443",
        "Deny 1.2.3.0/24",
        "Deny 2001:db8:1::/48",
        "Allow 0.0.0.0/0",
        "Allow ::/0",
    ];
    let versions = [policy(&OFFICE), policy(&other)];
    let mut lab = Lab::new(&world, &versions[0]);
    let traffic = Traffic::start(&mut lab, world.pod("client"));
    for swap in 1..=50 {
        lab.agent.apply(&versions[swap % 2]);
        lab.wire.pump();
    }
    traffic.run_on(&mut lab);
    traffic.stop(&mut lab).insist_flawless();
}

#[test]
fn packets_of_a_stream_obey_the_new_version_from_the_moment_it_is_applied() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    let sockets = ALLOWED.map(|remote| udp(pod, at(remote, 443)));
    for _ in 0..5 {
        lab.agent.apply(&policy(&DENY_ALL));
        lab.wire.forget();
        for (socket, remote) in sockets.iter().zip(ALLOWED) {
            let _ = socket.send(b"late");
            assert!(lab.wire.arrived(ip(remote)).is_empty());
        }
        lab.agent.apply(&policy(&OFFICE));
        for (socket, remote) in sockets.iter().zip(ALLOWED) {
            assert!(eventually(|| socket.send(b"again").is_ok()));
            assert!(lab.wire.wait_for(ip(remote), |_| true));
        }
    }
}
