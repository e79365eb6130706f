//! How long names hold: answers that change, servers that fail, an agent that is killed, connections that outlive their address
//! (§5.3, §5.4, §5.7).

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use egress_e2e::{
    Lab, at, held, holds, insist_reached_by_name, insist_refused_by_name, ip, names_policy, names_world, reaches,
    wait_until_held,
};
use egress_world::probe::{PATIENCE, SILENCE};
use egress_world::resolver::Dnsmasq;
use egress_world::{Pod, eventually};

/// Short lives: an answer with TTL 1 holds for three seconds.
const SHORT: &str = "minTTL: 1s, maxTTL: 2s, grace: 2s";
const OLD: [&str; 2] = ["1.2.3.10", "2001:db8:1::10"];
const NEW: [&str; 2] = ["1.2.3.20", "2001:db8:1::20"];

/// Lines of hosts(5) for a name.
fn hosts(addresses: [&str; 2], name: &str) -> String {
    addresses.map(|address| format!("{address} {name}\n")).concat()
}

/// Rules, and then nothing else.
fn only(dns: &str, rules: &[&str]) -> String {
    names_policy(dns, &[rules, &["Deny 0.0.0.0/0", "Deny ::/0"]].concat())
}

fn reached(pod: &Pod, remotes: [&str; 2]) -> [bool; 2] {
    remotes.map(|remote| reaches(pod, at(remote, 443)))
}

#[test]
fn a_name_that_moves_is_reached_at_both_places_until_the_old_one_has_ended() {
    let Some((world, resolver)) = names_world(&["default/client"]) else {
        return;
    };
    let server = Dnsmasq::start(&resolver, &hosts(OLD, "www.foo.com"), 1, &[]);
    let lab = Lab::new(&world, &only("minTTL: 1s, grace: 5s", &["Allow www.foo.com"]));
    let pod = world.pod("client");
    wait_until_held(&lab.agent, &OLD);
    assert_eq!(reached(pod, NEW), [false; 2]);
    server.serve(&hosts(NEW, "www.foo.com"));
    wait_until_held(&lab.agent, &NEW);
    assert_eq!((reached(pod, NEW), reached(pod, OLD)), ([true; 2], [true; 2]), "{:?}", held(&lab.agent));
    assert!(eventually(|| reached(pod, OLD) == [false; 2]), "{:?}", held(&lab.agent));
    assert_eq!(reached(pod, NEW), [true; 2]);
    insist_reached_by_name(pod, &resolver, "www.foo.com");
}

#[test]
fn a_ttl_of_zero_counts_as_the_least_that_is_set() {
    let Some((world, resolver)) = names_world(&["default/client"]) else {
        return;
    };
    let _server = Dnsmasq::start(&resolver, &hosts(OLD, "a.any.test"), 0, &[]);
    let lab = Lab::new(&world, &only("minTTL: 40s, maxTTL: 50s, grace: 10s", &["Allow *.any.test"]));
    let pod = world.pod("client");
    assert_eq!(reached(pod, OLD), [false; 2]);
    insist_reached_by_name(pod, &resolver, "a.any.test");
    let left: Vec<u64> = held(&lab.agent).into_iter().map(|(_, _, left)| left).collect();
    assert!(left.len() == 2 && left.iter().all(|left| (30..=50).contains(left)), "{:?}", held(&lab.agent));
}

#[test]
fn a_learned_address_ends_with_its_time_and_comes_back_with_the_next_lookup() {
    let Some((world, resolver)) = names_world(&["default/client"]) else {
        return;
    };
    let _server = Dnsmasq::start(&resolver, &hosts(OLD, "a.any.test"), 1, &[]);
    let lab = Lab::new(&world, &only(SHORT, &["Allow *.any.test"]));
    let pod = world.pod("client");
    insist_reached_by_name(pod, &resolver, "a.any.test");
    assert!(eventually(|| reached(pod, OLD) == [false; 2]), "{:?}", held(&lab.agent));
    assert!(eventually(|| held(&lab.agent).is_empty()), "the agent sweeps");
    insist_reached_by_name(pod, &resolver, "a.any.test");
}

#[test]
fn without_a_server_the_last_addresses_stay_and_with_nxdomain_they_end() {
    let Some((world, resolver)) = names_world(&["default/client"]) else {
        return;
    };
    let server = Dnsmasq::start(&resolver, &hosts(OLD, "www.foo.com"), 1, &[]);
    let lab = Lab::new(&world, &only(SHORT, &["Allow www.foo.com", "Allow later.foo.com"]));
    let pod = world.pod("client");
    wait_until_held(&lab.agent, &OLD);
    drop(server);
    let failing = || lab.agent.problems().contains("www.foo.com");
    assert!(eventually(failing), "{}\n{}", lab.agent.problems(), lab.agent.log());
    // Longer than any address lives by itself.
    let asked_for = std::time::Instant::now() + Duration::from_secs(6);
    assert!(eventually(|| std::time::Instant::now() > asked_for && reached(pod, OLD) == [true; 2]));
    let both = hosts(NEW, "www.foo.com") + &hosts(["1.2.3.30", "2001:db8:1::30"], "later.foo.com");
    let server = Dnsmasq::start(&resolver, &both, 1, &[]);
    wait_until_held(&lab.agent, &NEW);
    wait_until_held(&lab.agent, &["1.2.3.30", "2001:db8:1::30"]);
    assert_eq!(reached(pod, NEW), [true; 2]);
    assert!(eventually(|| reached(pod, OLD) == [false; 2]));
    server.serve("");
    assert!(eventually(|| reached(pod, NEW) == [false; 2]), "{:?}", held(&lab.agent));
}

#[test]
fn the_kernel_learns_on_while_the_agent_is_dead_and_a_restart_forgets_nothing() {
    let Some((world, resolver)) = names_world(&["default/client"]) else {
        return;
    };
    let more = hosts(["1.2.3.30", "2001:db8:1::30"], "c.other.test");
    let lines = hosts(OLD, "a.any.test") + &hosts(NEW, "b.any.test") + &more;
    let server = Dnsmasq::start(&resolver, &lines, 600, &[]);
    let mut lab = Lab::new(&world, &only("", &["Allow *.any.test"]));
    let pod = world.pod("client");
    insist_reached_by_name(pod, &resolver, "a.any.test");
    lab.agent.kill();
    assert_eq!(reached(pod, NEW), [false; 2]);
    insist_reached_by_name(pod, &resolver, "b.any.test");
    insist_refused_by_name(pod, &resolver, "c.other.test");
    drop(server);
    lab.agent.start();
    assert_eq!((reached(pod, OLD), reached(pod, NEW)), ([true; 2], [true; 2]));
    assert!(OLD.iter().chain(&NEW).all(|address| holds(&lab.agent, ip(address))));
}

fn echoed(stream: &mut TcpStream, patience: Duration) -> bool {
    stream.set_read_timeout(Some(patience)).expect("a timeout");
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut [0; 5]).is_ok()
}

#[test]
fn a_connection_outlives_its_address_and_ends_with_its_rule() {
    let Some((world, resolver)) = names_world(&["default/client"]) else {
        return;
    };
    let _server = Dnsmasq::start(&resolver, &hosts(OLD, "a.any.test"), 1, &[]);
    let policy = only(SHORT, &["Allow *.any.test"]);
    let lab = Lab::new(&world, &policy);
    let pod = world.pod("client");
    insist_reached_by_name(pod, &resolver, "a.any.test");
    let connect = |remote| {
        let connect = || Ok(TcpStream::connect_timeout(&at(remote, 443), PATIENCE)?.into());
        TcpStream::from(pod.socket(connect).expect("a connection right after the lookup"))
    };
    let mut streams = OLD.map(connect);
    assert!(streams.iter_mut().all(|stream| echoed(stream, PATIENCE)));
    assert!(eventually(|| reached(pod, OLD) == [false; 2]), "{:?}", held(&lab.agent));
    assert!(eventually(|| held(&lab.agent).is_empty()));
    assert!(streams.iter_mut().all(|stream| echoed(stream, PATIENCE)), "a live connection was cut");
    // A change of other rules does not end it.
    lab.agent.apply(&only(SHORT, &["Allow 198.51.100.0/24", "Allow *.any.test"]));
    assert!(streams.iter_mut().all(|stream| echoed(stream, PATIENCE)), "a live connection was cut by a change");
    lab.agent.apply(&only(SHORT, &["Allow *.other.test"]));
    assert!(streams.iter_mut().all(|stream| !echoed(stream, SILENCE)), "the rule is gone");
}
