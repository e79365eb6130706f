//! The laboratory without a firewall: everything that the end-to-end tests expect to be refused works here, so a refusal there is
//! the firewall's doing.

use std::net::{IpAddr, SocketAddr};

use egress_world::packet::{Ip, protocol};
use egress_world::probe::{self, Outcome, PATIENCE};
use egress_world::{World, is_root};

const OUTSIDE: [&str; 2] = ["1.2.3.4", "2001:db8:1::4"];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn socket(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address(text), port)
}

#[test]
fn every_way_out_of_a_pod_is_open() {
    if !is_root() {
        return;
    }
    let start = std::time::Instant::now();
    let world = World::new(&["default/client"]);
    eprintln!("world up after {:?}", start.elapsed());
    let pod = world.pod("client");
    for remote in OUTSIDE {
        let (ip, web) = (address(remote), socket(remote, 443));
        for (name, attempt) in [
            ("tcp", pod.run(|| probe::tcp_echo(web))),
            ("fast open", pod.run(|| probe::tcp_fast_open(web))),
            ("udp connected", pod.run(|| probe::udp_connected(web, PATIENCE))),
            ("udp unconnected", pod.run(|| probe::udp_unconnected(web, PATIENCE))),
            ("ping", pod.run(|| probe::ping(ip, PATIENCE))),
            ("raw ping", pod.run(|| probe::ping_raw(ip, PATIENCE))),
        ] {
            assert!(attempt.is_answered(), "{name} to {remote}: {attempt:?}");
            eprintln!("{name} to {remote}: {attempt:?}");
        }
        let sctp = pod.run(|| probe::sctp(web, PATIENCE));
        assert!(matches!(sctp.outcome, Outcome::Answered | Outcome::Unsupported), "{sctp:?}");
    }
    let mapped = pod.run(|| probe::tcp_echo(socket("::ffff:1.2.3.4", 443)));
    assert!(mapped.is_answered(), "{mapped:?}");
    let mapped = pod.run(|| probe::udp_unconnected(socket("::ffff:1.2.3.4", 443), PATIENCE));
    assert!(mapped.is_answered(), "{mapped:?}");
    eprintln!("done after {:?}", start.elapsed());
}

#[test]
fn handcrafted_packets_arrive_and_are_seen() {
    if !is_root() {
        return;
    }
    let world = World::new(&["default/client"]);
    let pod = world.pod("client");
    let mut wire = world.outside().sniff();
    for remote in OUTSIDE {
        let remote = address(remote);
        let ip = Ip::new(pod.address_like(remote), remote, protocol::UDP);
        let udp = ip.udp(4000, 443, b"raw");
        let raw = pod.run(|| probe::raw_ip(remote, &ip.packet(&udp)));
        assert_eq!(raw.outcome, Outcome::Silence);
        for bypass in [false, true] {
            for tags in [&[][..], &[0], &[0, 0]] {
                let frame = pod.frame(tags, &ip.packet(&udp));
                assert_eq!(pod.run(|| probe::frame(&[frame], bypass)).outcome, Outcome::Silence);
            }
        }
        let arrived = wire.arrived(remote);
        let ours: Vec<_> = arrived.iter().filter(|seen| seen.destination_port == 443).collect();
        // One from the raw socket, and six frames: priority tags (VLAN 0) do not stop the kernel from routing them.
        assert_eq!(ours.len(), 7, "{arrived:?}");
    }
}

#[test]
fn a_pod_serves_clients_from_outside() {
    if !is_root() {
        return;
    }
    let world = World::new(&["default/server", "default/client"]);
    let pod = world.pod("server");
    pod.serve(8000);
    for from in OUTSIDE {
        let to = SocketAddr::new(pod.address_like(address(from)), 8000);
        world.outside().tcp(address(from), to).unwrap();
        let udp = world.outside().udp(socket(from, 0));
        udp.set_read_timeout(Some(PATIENCE)).unwrap();
        udp.send_to(b"hello", to).unwrap();
        udp.recv_from(&mut [0; 16]).unwrap();
        let neighbour = world.pod("client").run(|| probe::tcp_echo(to));
        assert!(neighbour.is_answered());
    }
}

#[test]
fn a_world_that_ends_leaves_nothing() {
    if !is_root() {
        return;
    }
    let world = World::new(&["default/client"]);
    let places = [world.cgroup(), world.bpffs(), world.files()].map(std::path::Path::to_path_buf);
    let running = world.pod("client").start(|shared| {
        while !shared.stopped() {
            std::thread::yield_now();
        }
    });
    assert!(places.iter().all(|place| place.is_dir()));
    drop(running);
    drop(world);
    assert!(!places.iter().any(|place| place.exists()), "{places:?}");
}

#[test]
fn what_a_killed_run_left_is_swept_by_the_next_world() {
    if !is_root() {
        return;
    }
    let mut dead =
        std::process::Command::new("/proc/self/exe").arg("--list").stdout(std::process::Stdio::null()).spawn().unwrap();
    dead.wait().unwrap();
    let first = World::new(&[]);
    let name = format!("egress-test-{}-0", dead.id());
    let left = [first.cgroup(), first.bpffs(), first.files()].map(|place| place.with_file_name(&name));
    for place in &left {
        std::fs::create_dir_all(place.join("kubepods")).unwrap();
    }
    let _second = World::new(&[]);
    assert!(!left.iter().any(|place| place.exists()), "{left:?}");
    assert!(first.cgroup().exists(), "the living are left alone");
}

#[test]
fn two_worlds_at_once_have_the_same_names_and_addresses_and_do_not_meet() {
    if !is_root() {
        return;
    }
    let worlds = [World::new(&["default/client"]), World::new(&["default/client"])];
    let mut wires = worlds.each_ref().map(|world| world.outside().sniff());
    assert!(worlds[0].pod("client").run(|| probe::tcp_echo(socket("1.2.3.4", 443))).is_answered());
    assert!(!wires[0].arrived(address("1.2.3.4")).is_empty());
    assert!(wires[1].arrived(address("1.2.3.4")).is_empty());
}

#[test]
fn a_pods_process_reports_its_panic() {
    if !is_root() {
        return;
    }
    let world = World::new(&["default/client"]);
    let run = || world.pod("client").run(|| assert_eq!(1, 2, "of its own"));
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_err();
    assert!(panic.downcast_ref::<String>().unwrap().contains("of its own"));
}
