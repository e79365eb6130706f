//! Names: a world with a host of name servers, what a pod gets for a name, and what the kernel holds for it.

use std::net::{IpAddr, SocketAddr};

use egress_world::probe::{self, Outcome};
use egress_world::resolver::{self, Dnsmasq, RESOLVERS, Resolver};
use egress_world::{Agent, Pod, World, eventually};

use crate::{PORT, config, document};

/// A world with these pods and a host of name servers, or `None`, said so, where there can be none.
pub fn names_world(pods: &[&str]) -> Option<(World, Resolver)> {
    if cfg!(target_feature = "crt-static") {
        eprintln!("SKIPPED: a static program has no resolver of the C library");
        return None;
    }
    if !Dnsmasq::is_installed() {
        eprintln!("SKIPPED: this machine has no dnsmasq");
        return None;
    }
    scripted_world(pods)
}

/// Likewise, for servers and clients that are in this program.
pub fn scripted_world(pods: &[&str]) -> Option<(World, Resolver)> {
    let world = crate::world(pods)?;
    let resolver = Resolver::new(&world);
    Some((world, resolver))
}

/// A policy `default/office` of these rules, and settings that trust the resolvers; `dns` is more of them (`grace: 1s`).
pub fn names_policy(dns: &str, rules: &[&str]) -> String {
    let [first, second] = RESOLVERS;
    let trusted = format!("resolvers: [{first}, '{second}']");
    config(&[&trusted, &format!("dns: {{{dns}}}")]) + &document("office", &[], rules)
}

/// What a process of the pod gets that looks `name` up by the C library and connects to each address at once.
pub fn look_up_and_connect(pod: &Pod, resolver: &Resolver, name: &str) -> Vec<(IpAddr, Outcome)> {
    let conf = resolver.conf();
    pod.run(|| {
        resolver::use_resolvers(&conf);
        let addresses = resolver::lookup(name).unwrap_or_default();
        let connect = |address| (address, probe::tcp_echo(SocketAddr::new(address, PORT)).outcome);
        addresses.into_iter().map(connect).collect()
    })
}

/// Insists that the pod reaches both addresses of a name right after it has looked it up.
pub fn insist_reached_by_name(pod: &Pod, resolver: &Resolver, name: &str) {
    insist_outcome(pod, resolver, name, Outcome::Answered);
}

/// Insists that it is refused at both.
pub fn insist_refused_by_name(pod: &Pod, resolver: &Resolver, name: &str) {
    insist_outcome(pod, resolver, name, Outcome::Failed(libc::EPERM));
}

fn insist_outcome(pod: &Pod, resolver: &Resolver, name: &str, expected: Outcome) {
    let got = look_up_and_connect(pod, resolver, name);
    let families = [IpAddr::is_ipv4, IpAddr::is_ipv6].map(|is| got.iter().any(|(address, _)| is(address)));
    assert_eq!(families, [true; 2], "{name}: {got:?}");
    assert!(got.iter().all(|(_, outcome)| *outcome == expected), "{name}: {got:?}, not {expected:?}");
}

/// The addresses that the kernel holds, each with the concrete name or the place, and its seconds left.
pub fn held(agent: &Agent<'_>) -> Vec<(String, IpAddr, u64)> {
    let (_, dump) = agent.ask(&["dump", "names"]);
    let names = dump["names"].as_array().cloned().unwrap_or_default();
    let rows = |name: &serde_json::Value| {
        let text = name["name"].as_str().unwrap_or_default().to_owned();
        let addresses = name["addresses"].as_array().cloned().unwrap_or_default();
        addresses.into_iter().map(move |row| {
            let address = row["address"].as_str().and_then(|text| text.parse().ok()).expect("an address");
            (text.clone(), address, row["secondsLeft"].as_u64().unwrap_or(0))
        })
    };
    names.iter().flat_map(rows).collect()
}

/// Whether the kernel holds an address under any name.
pub fn holds(agent: &Agent<'_>, address: IpAddr) -> bool {
    held(agent).iter().any(|(_, held, left)| *held == address && *left > 0)
}

/// Waits until the kernel holds all of these.
pub fn wait_until_held(agent: &Agent<'_>, addresses: &[&str]) {
    let all = || addresses.iter().all(|address| holds(agent, crate::ip(address)));
    assert!(eventually(all), "{addresses:?} are not held but {:?}\n{}", held(agent), agent.log());
}
