//! An agent that follows names: a rule for each name, addresses that end after five seconds, and nobody but the agent who asks. A pod
//! sends to every address all the time; one that is refused had become stale.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use egress_world::resolver::{Dnsmasq, RESOLVERS, Resolver};
use egress_world::{Agent, Crowd, World, eventually};

use super::Effort;
use super::arrivals::Arrivals;
use super::load::Meter;
use crate::results::Load;

/// Seconds that an address lives.
const TTL: u32 = 5;
/// Where the agent's figures are read.
const METRICS: &str = "127.0.0.1:9477";

fn name(number: usize) -> String {
    format!("n{number}.apps.test")
}

fn address(number: usize) -> Ipv4Addr {
    let part = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, 1, part(number / 250), part(number % 250 + 1))
}

/// Measures; nothing without dnsmasq.
pub(super) fn measure(effort: Effort) -> anyhow::Result<Option<Load>> {
    if !Dnsmasq::is_installed() {
        crate::progress::warn("names are left out: there is no dnsmasq");
        return Ok(None);
    }
    let world = World::new(&[]);
    let resolver = Resolver::new(&world);
    let hosts: Vec<String> = (0..effort.names)
        .map(|number| format!("{} {2}\n2001:db8:77::{:x} {2}\n", address(number), number + 1, name(number)))
        .collect();
    let _server = Dnsmasq::start(&resolver, &hosts.concat(), TTL, &[]);
    let crowd = Crowd::new(&world, "bench", 1);
    let member = &crowd.members()[0];
    let arrivals = Arrivals::new(&world)?;
    let mut agent = Agent::new(&world);
    agent.argument(&["--metrics-address", METRICS]);
    agent.write_endpoints(&[member.endpoint()]);
    agent.write("policies.yaml", &policies(effort.names));
    agent.start();
    // A new socket each time: a connection that has begun outlives its name.
    let all_pass = |round| {
        let socket = member.bind();
        let passes = (0..effort.names).map(|number| arrivals.passes(&socket, address(number), round));
        passes.collect::<anyhow::Result<Vec<bool>>>().map(|all| all.iter().filter(|passes| !**passes).count())
    };
    anyhow::ensure!(eventually(|| all_pass(0).is_ok_and(|refused| refused == 0)), "the names are not looked up");
    anyhow::ensure!(!arrivals.passes(member.socket(), Ipv4Addr::new(10, 2, 0, 1), 0)?, "the pod is judged by nobody");
    // Longer than an address lives, so that each has to be renewed.
    let seconds = Duration::from_secs(effort.seconds.max(u64::from(TTL) + 1));
    let (meter, looked_up, begun) = (Meter::of(agent.pid())?, lookups(&world)?, Instant::now());
    let (mut refused, mut sent) = (0, 0);
    for round in 1.. {
        if begun.elapsed() >= seconds {
            break;
        }
        refused += all_pass(round)? as u64;
        sent += effort.names as u64;
        std::thread::sleep(Duration::from_millis(100));
    }
    let rate = (lookups(&world)? - looked_up) / begun.elapsed().as_secs_f64();
    let mut load = meter.read(format!("{} names with a TTL of {TTL} s", effort.names))?;
    (load.lookups_per_second, load.stale) = (Some(rate), Some([refused, sent]));
    Ok(Some(load))
}

/// Lookups of the agent so far, whatever became of them.
fn lookups(world: &World) -> anyhow::Result<f64> {
    let address: SocketAddr = METRICS.parse()?;
    let mut stream = world.node().enter(|| TcpStream::connect(address))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let lines = text.lines().filter(|line| line.starts_with("egress_dns_lookups_total{"));
    let counts: Vec<f64> = lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    anyhow::ensure!(!counts.is_empty(), "the metrics have no lookups");
    counts.iter().copied().reduce(|sum, count| sum + count).context("no count")
}

fn policies(names: usize) -> String {
    let [first, second] = RESOLVERS;
    let rules: String =
        (0..names).map(name).map(|name| ["  - {type: Allow, to: {dnsName: ", &name, "}}\n"].concat()).collect();
    format!(
        "apiVersion: egress.rs/v1alpha1\nkind: EgressConfig\nmetadata: {{name: default}}\n\
         spec: {{defaultAction: Deny, internalCIDRs: [10.244.0.0/16, 'fd00:10:244::/48'], resolvers: [{first}, '{second}']}}\n\
         ---\napiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: names, namespace: bench}}\n\
         spec:\n  egress:\n{rules}"
    )
}
