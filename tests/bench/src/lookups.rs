//! What learning costs a pod's lookups, beside what others do: no firewall, ours without names, and a relay in user space that sees
//! every query (dnsmasq and dnsdist as forwarders, as proxies of names are built). And the race: fresh names, each called right after
//! its lookup (P12).
//!
//! Real servers and clients in namespaces of their own: dnsmasq answers, the clients are processes in pods.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use egress_world::resolver::message::Question;
use egress_world::resolver::{self, Dnsmasq, RESOLVERS, Resolver};
use egress_world::{Agent, Pod, World, eventually};

use crate::results::{Lookups, Race, Way};

/// Names that are asked for, again and again.
const NAMES: usize = 500;
/// Questions under way at once, where it is about how many a second.
const WINDOW: usize = 32;
/// The node's address towards the resolver: where relays listen.
const NODE: &str = "192.0.2.1";
const TYPE_A: u16 = 1;

/// How long and how often.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Rounds of every way in turn; each asks for all names twice.
    pub(crate) rounds: usize,
    /// Fresh names that are called.
    pub(crate) fresh: usize,
}

/// A forwarder on the node, killed when dropped.
struct Relay {
    process: Child,
    port: u16,
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Measures.
pub(crate) fn measure(effort: Effort) -> anyhow::Result<(Lookups, Race)> {
    anyhow::ensure!(Dnsmasq::is_installed(), "dnsmasq is needed");
    // A pod that no agent knows, one whose policy has no names, and one whose policy has.
    let world = World::new(&["default/free", "default/plain", "default/names"]);
    let resolver = Resolver::new(&world);
    let hosts: Vec<String> = (0..effort.fresh.max(NAMES)).map(host).collect();
    let _server = Dnsmasq::start(&resolver, &hosts.concat(), 60, &["--no-negcache"]);
    let mut agent = Agent::new(&world);
    agent.write_endpoints(&[world.pod("plain").endpoint(), world.pod("names").endpoint()]);
    agent.write("policies.yaml", &policies());
    agent.start();
    let relays: BTreeMap<&'static str, Relay> =
        [("dnsmasq as a relay", dnsmasq(&world)), ("dnsdist as a relay", dnsdist(&world)?)]
            .into_iter()
            .filter_map(|(name, relay)| Some((name, relay?)))
            .collect();
    let direct = SocketAddr::new(RESOLVERS[0].parse()?, 53);
    let mut ways = vec![
        ("no firewall", world.pod("free"), direct),
        ("policy without names", world.pod("plain"), direct),
        ("names learned in the kernel", world.pod("names"), direct),
    ];
    for (name, relay) in &relays {
        ways.push((name, world.pod("free"), SocketAddr::new(NODE.parse()?, relay.port)));
    }
    let lookups = take_turns(&ways, effort.rounds)?;
    let race = race(world.pod("names"), &resolver, effort.fresh);
    Ok((lookups, race))
}

fn name(number: usize) -> String {
    format!("n{number}.apps.test")
}

fn host(number: usize) -> String {
    let (high, low) = (number / 250, number % 250 + 1);
    format!("10.1.{high}.{low} {0}\n2001:db8:77:{high:x}::{low:x} {0}\n", name(number))
}

fn policies() -> String {
    let [first, second] = RESOLVERS;
    let policy = |name: &str, first_rule: &str| {
        format!(
            "---\napiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: {name}, namespace: default}}\n\
             spec:\n  podSelector: {{matchLabels: {{name: {name}}}}}\n  egress:\n  - {{type: Allow, to: {first_rule}}}\n  \
             - {{type: Deny, to: {{cidrSelector: 0.0.0.0/0}}}}\n  - {{type: Deny, to: {{cidrSelector: '::/0'}}}}\n"
        )
    };
    format!(
        "apiVersion: egress.rs/v1alpha1\nkind: EgressConfig\nmetadata: {{name: default}}\n\
         spec: {{internalCIDRs: [10.244.0.0/16, 'fd00:244::/48'], resolvers: [{first}, '{second}']}}\n"
    ) + &policy("plain", "{cidrSelector: 10.1.0.0/16}")
        + &policy("names", "{dnsName: '*.apps.test'}")
}

fn dnsmasq(world: &World) -> Option<Relay> {
    let port = 5301;
    let mut command = world.node().command("dnsmasq");
    command
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--group=root"])
        .args(["--no-hosts", "--no-resolv", "--cache-size=0", "--bind-interfaces", "--log-facility=-"])
        .args([format!("--server={}", RESOLVERS[0]), format!("--listen-address={NODE}"), format!("--port={port}")]);
    relay(world, command, port)
}

/// `None` if the machine has none.
fn dnsdist(world: &World) -> anyhow::Result<Option<Relay>> {
    let there = Command::new("dnsdist").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        return Ok(None);
    }
    let port = 5302;
    let file = world.files().join("dnsdist.conf");
    std::fs::write(
        &file,
        format!(
            "setLocal('{NODE}:{port}')\nsetACL('0.0.0.0/0')\nnewServer({{address='{}:53', healthCheckMode='up'}})\n",
            RESOLVERS[0]
        ),
    )?;
    let mut command = world.node().command("dnsdist");
    command.args(["--supervised", "--disable-syslog", "-C"]).arg(file);
    Ok(relay(world, command, port))
}

fn relay(world: &World, mut command: Command, port: u16) -> Option<Relay> {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let relay = Relay { process: spawned.ok()?, port };
    let answers = || world.node().enter(|| TcpStream::connect((NODE, port)).is_ok());
    eventually(answers).then_some(relay)
}

/// Every way in each round, beginning with another one each time.
fn take_turns(ways: &[(&'static str, &Pod, SocketAddr)], rounds: usize) -> anyhow::Result<Lookups> {
    let mut found: Vec<Times> = ways.iter().map(|_| Times::default()).collect();
    for round in 0..rounds {
        for turn in 0..ways.len() {
            let index = (round + turn) % ways.len();
            let (name, pod, server) = ways[index];
            let (one_by_one, together): (Vec<u64>, u64) = pod.run(|| (one_by_one(server), together(server)));
            anyhow::ensure!(one_by_one.len() == NAMES, "{name}: {} of {NAMES} answers", one_by_one.len());
            found[index].single.push(one_by_one);
            found[index].together.push(together);
        }
    }
    Ok(Lookups { ways: ways.iter().zip(found).map(|((name, ..), times)| times.way(name)).collect() })
}

/// Nanoseconds of one way.
#[derive(Default)]
struct Times {
    /// Of each lookup of each round, one at a time.
    single: Vec<Vec<u64>>,
    /// Of each round of all names, many at a time.
    together: Vec<u64>,
}

impl Times {
    #[expect(clippy::cast_precision_loss, reason = "seconds at most")]
    fn way(mut self, name: &'static str) -> Way {
        self.single.iter_mut().for_each(|round| round.sort_unstable());
        self.together.sort_unstable();
        // Rounds differ by more than ways do, likely by whether the scheduler has put client and server on one processor.
        let p50 = self.single.iter().map(|round| at(round, 50)).min().unwrap_or(0);
        let mut all = self.single.concat();
        all.sort_unstable();
        let [p50_us, p99_us] = [p50, at(&all, 99)].map(|nanoseconds| nanoseconds as f64 / 1e3);
        Way { name, p50_us, p99_us, per_second: NAMES as f64 * 1e9 / at(&self.together, 50) as f64 }
    }
}

fn at(sorted: &[u64], percent: usize) -> u64 {
    sorted.get(sorted.len() * percent / 100).or(sorted.last()).copied().unwrap_or(0)
}

fn socket(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect(server).expect("a server");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    socket
}

fn query(number: usize) -> Vec<u8> {
    Question::new(u16::try_from(number).expect("few"), &name(number), TYPE_A).query()
}

/// Nanoseconds of each lookup, one after the other.
fn one_by_one(server: SocketAddr) -> Vec<u64> {
    let (socket, mut buffer) = (socket(server), [0; 512]);
    let mut times = Vec::with_capacity(NAMES);
    for number in 0..NAMES {
        let query = query(number);
        let started = Instant::now();
        let answered = socket.send(&query).and_then(|_| socket.recv(&mut buffer));
        if answered.is_ok_and(|length| length > query.len()) {
            times.push(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
    }
    times
}

/// Nanoseconds for all names, many under way at once. A lost answer costs the time-out.
fn together(server: SocketAddr) -> u64 {
    let (socket, mut buffer) = (socket(server), [0; 512]);
    let queries: Vec<_> = (0..NAMES).map(query).collect();
    let started = Instant::now();
    let (mut sent, mut received) = (0, 0);
    while received < NAMES {
        while sent < NAMES && sent - received < WINDOW {
            socket.send(&queries[sent]).expect("a query is sent");
            sent += 1;
        }
        let _ = socket.recv(&mut buffer);
        received += 1;
    }
    u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Looks fresh names up by the C library, in both families, and connects to each address at once.
fn race(pod: &Pod, resolver: &Resolver, fresh: usize) -> Race {
    let conf = resolver.conf();
    let [connects, refused, failed] = pod.run(|| {
        resolver::use_resolvers(&conf);
        let mut counts = [0_u64; 3];
        for number in 0..fresh {
            for address in resolver::lookup(&name(number)).unwrap_or_default() {
                counts[0] += 1;
                match call(address) {
                    Ok(()) => {}
                    Err(error) if error.raw_os_error() == Some(libc::EPERM) => counts[1] += 1,
                    Err(_) => counts[2] += 1,
                }
            }
        }
        counts
    });
    Race { names: fresh as u64, connects, refused, failed }
}

fn call(address: IpAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, 443), Duration::from_secs(5))?;
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new()).map(|_| ())
}
