//! §1.6: services that lead outside are judged by their endpoints, whatever else the rules say of the services' own addresses.

use std::net::{IpAddr, SocketAddr};

use egress_reference::{Decider, Oracle, Packet, Random, Service, World};

use crate::bridge::{compile_world, expected, picture};
use crate::settings::seeds;

/// Services at addresses and ports of packets that the world's rules speak of, some of them trusted resolvers, with endpoints at others.
fn with_services(mut world: World, random: &mut Random) -> World {
    let pods = world.pods.clone();
    for number in 0..6 {
        let pod = random.pick(&pods);
        let own = world.packet(pod, random);
        let resolvers: Vec<IpAddr> = world.node.resolvers.iter().chain(&world.node.addresses).copied().collect();
        let (address, port) = if random.chance(15) && !resolvers.is_empty() {
            (*random.pick(&resolvers), 53)
        } else {
            (own.destination.to_canonical(), own.port)
        };
        let protocol = *random.pick(&[6, 6, 17, 132]);
        let endpoint = |random: &mut Random| {
            let packet = world.packet(pod, random);
            SocketAddr::new(packet.destination.to_canonical(), packet.port)
        };
        let endpoints = (0..random.between(1, 3)).map(|_| endpoint(random)).collect();
        let taken =
            |other: &Service| (other.protocol, other.port) == (protocol, port) && other.addresses.contains(&address);
        if !world.node.services.iter().any(taken) {
            let name = format!("default/service-{number}");
            world.node.services.push(Service { name, addresses: vec![address], protocol, port, endpoints });
        }
    }
    world
}

#[test]
fn a_service_with_a_denied_endpoint_is_denied_and_one_without_is_judged_by_its_own_address() {
    let (mut denied, mut open, mut audited, mut dns) = (0, 0, 0, 0);
    for seed in seeds(4) {
        let mut random = Random::new(seed ^ 0x5e41_1ce5);
        let world = with_services(World::generate(seed), &mut random);
        let compiled = compile_world(&world).expect("compiles");
        let oracle = Oracle::new(&world);
        for (pod, compiled) in world.pods.iter().zip(&compiled) {
            let of_services = world.node.services.iter().flat_map(|service| {
                let packet = |&destination| Packet { destination, protocol: service.protocol, port: service.port };
                service.addresses.iter().map(packet)
            });
            let mut packets: Vec<Packet> = of_services.collect();
            let beside = packets.iter().map(|packet| Packet { port: packet.port.wrapping_add(1), ..*packet });
            packets.extend(beside.collect::<Vec<_>>());
            for packet in packets {
                // Names are joined at lookup, which other tests hold to the oracle.
                if world.answers.values().any(|live| live.contains(&packet.destination)) {
                    continue;
                }
                let outcome = oracle.evaluate(pod, &packet);
                assert_eq!(compiled.answer(&packet), expected(&outcome), "{packet}\n{}", picture(&world, pod));
                match outcome.verdict.decider {
                    Decider::Service { .. } => denied += 1,
                    Decider::Builtin(egress_reference::Builtin::Dns) => dns += 1,
                    _ => open += usize::from(outcome.verdict.allow),
                }
                audited +=
                    usize::from(outcome.audit.is_some_and(|audit| matches!(audit.decider, Decider::Service { .. })));
            }
        }
    }
    println!("denied by an endpoint {denied}, allowed {open}, DNS {dns}, seen under Audit {audited}");
    assert!(denied > 20 && open > 20 && audited > 3 && dns > 0, "{denied} {open} {audited} {dns}");
}
