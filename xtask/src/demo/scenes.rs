//! The demo's six scenes, in order.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use egress_world::resolver::Resolver;
use egress_world::{Agent, World};

use super::names;
use super::policies::{CLUSTER, OPENSHIFT, PROD, REVERSED};
use super::table::{self, Cell};
use super::traffic::Traffic;
use super::tries::{self, How, Score, try_it};
use crate::progress;

/// What the scenes are played on.
struct Stage<'a> {
    world: &'a World,
    agent: Agent<'a>,
    score: Score,
}

/// An answer that must not come would have come by then.
const SILENCE: Duration = Duration::from_millis(300);
/// The kernel sends unanswered bytes again by itself, after ever longer pauses.
const REVIVAL: Duration = Duration::from_secs(10);

/// Plays them all; what was as expected and what was not.
pub(super) fn play(world: &World) -> Score {
    let resolver = Resolver::new(world);
    let mut stage = Stage { world, agent: Agent::new(world), score: Score::default() };
    openshift(&mut stage);
    order_ports_ipv6(&mut stage);
    reversed_live(&mut stage);
    names::play(world, &resolver, &stage.agent, &mut stage.score);
    killed(&mut stage);
    dumped(&mut stage);
    stage.score
}

fn openshift(stage: &mut Stage<'_>) {
    table::title("1. OpenShift's example, as it is");
    table::quote(OPENSHIFT);
    stage.agent.write("openshift.yaml", OPENSHIFT);
    stage.agent.start();
    let tries = [
        try_it("curl", "1.2.3.4", How::Tcp(443), true, "rule 1 of default/default"),
        try_it("curl", "1.2.3.4", How::Udp(443), true, "rule 1 of default/default"),
        try_it("curl", "1.2.3.4", How::Ping, true, "rule 1 of default/default"),
        try_it("curl", "5.6.7.8", How::Tcp(443), false, "rule 3 of default/default"),
        try_it("curl", "5.6.7.8", How::Udp(443), false, "rule 3 of default/default"),
        try_it("curl", "5.6.7.8", How::Ping, false, "rule 3 of default/default"),
        try_it("curl", "5.6.7.8", How::Frame(443), false, "rule 3 of default/default"),
        try_it("curl", "2001:db8:2::8", How::Tcp(443), true, "default action"),
        try_it("web", "5.6.7.8", How::Tcp(443), true, ""),
    ];
    tries::run(stage.world, &stage.agent, &tries, &mut stage.score);
}

fn order_ports_ipv6(stage: &mut Stage<'_>) {
    table::title("2. Order, ports, IPv6, and a policy for the whole cluster");
    table::quote(PROD);
    table::quote("---");
    table::quote(CLUSTER);
    stage.agent.change(|| stage.agent.write("prod.yaml", PROD));
    stage.agent.change(|| stage.agent.write("cluster.yaml", CLUSTER));
    let tries = [
        try_it("web", "10.1.9.9", How::Tcp(443), false, "rule 1 of prod/web"),
        try_it("web", "10.1.2.3", How::Tcp(443), true, "rule 2 of prod/web"),
        try_it("web", "10.1.2.3", How::Tcp(8080), true, "rule 2 of prod/web"),
        try_it("web", "10.1.2.3", How::Tcp(80), false, "rule 4 of prod/web"),
        try_it("web", "10.1.2.3", How::Udp(443), false, "rule 4 of prod/web"),
        try_it("web", "2001:db8:1::4", How::Tcp(443), true, "rule 3 of prod/web"),
        try_it("web", "2001:db8:1::4", How::Ping, true, "rule 3 of prod/web"),
        try_it("web", "2001:db8:2::8", How::Tcp(443), false, "rule 5 of prod/web"),
        try_it("web", "2001:db8:2::8", How::Udp(443), false, "rule 5 of prod/web"),
        try_it("web", "2001:db8:2::8", How::Ping, false, "rule 5 of prod/web"),
        try_it("web", "2001:db8:2::8", How::Frame(443), false, "rule 5 of prod/web"),
        try_it("curl", "1.2.3.5", How::Tcp(443), false, "rule 1 of quarantine"),
    ];
    tries::run(stage.world, &stage.agent, &tries, &mut stage.score);
}

fn reversed_live(stage: &mut Stage<'_>) {
    table::title("3. The rules are reversed while a connection is open");
    table::quote(REVERSED);
    let mut stream = open(stage.world, SocketAddr::from(([1, 2, 3, 4], 443)));
    let mut rows = vec![say(&mut stream, "before", true, &mut stage.score)];
    let applied = Instant::now();
    stage.agent.change(|| stage.agent.write("openshift.yaml", REVERSED));
    let applied = applied.elapsed();
    rows.push(say(&mut stream, "reversed", false, &mut stage.score));
    let tries = [
        try_it("curl", "1.2.3.4", How::Tcp(443), false, "rule 1 of default/default"),
        try_it("curl", "5.6.7.8", How::Tcp(443), true, "rule 2 of default/default"),
    ];
    tries::run(stage.world, &stage.agent, &tries, &mut stage.score);
    stage.agent.change(|| stage.agent.write("openshift.yaml", OPENSHIFT));
    rows.push(hear(&mut stream, "reversed again", &mut stage.score));
    table::title("   and the connection that was open all the time (default/curl to 1.2.3.4:443)");
    table::print(&["rules", "the connection", ""], &rows);
    let milliseconds = applied.as_millis();
    table::quote(&format!(
        "From the file's rename to the new rules in the kernel, the wait for a second change included: {milliseconds} ms."
    ));
}

fn open(world: &World, to: SocketAddr) -> Option<TcpStream> {
    let connect = || Ok(TcpStream::connect_timeout(&to, REVIVAL)?.into());
    world.pod("curl").socket(connect).ok().map(TcpStream::from)
}

/// Sends a word and waits for its echo.
fn say(stream: &mut Option<TcpStream>, rules: &str, expected: bool, score: &mut Score) -> Vec<Cell> {
    let answered = stream.as_mut().is_some_and(|stream| {
        let patience = if expected { REVIVAL } else { SILENCE };
        stream.write_all(b"hello").is_ok() && echoed(stream, patience)
    });
    connection_row(rules, answered, expected, score)
}

/// Waits for the echo of what was sent while the connection was cut.
fn hear(stream: &mut Option<TcpStream>, rules: &str, score: &mut Score) -> Vec<Cell> {
    let answered = stream.as_mut().is_some_and(|stream| echoed(stream, REVIVAL));
    connection_row(rules, answered, true, score)
}

fn echoed(stream: &mut TcpStream, patience: Duration) -> bool {
    let mut answer = [0; 5];
    stream.set_read_timeout(Some(patience)).is_ok() && stream.read_exact(&mut answer).is_ok() && &answer == b"hello"
}

fn connection_row(rules: &str, answered: bool, expected: bool, score: &mut Score) -> Vec<Cell> {
    let state = if answered { Cell::good("answers") } else { Cell::bad("is silent") };
    vec![Cell::plain(rules), state, score.add(answered == expected)]
}

fn killed(stage: &mut Stage<'_>) {
    table::title("5. The agent is killed (SIGKILL) and restarted while traffic runs");
    let all = |addresses: [&str; 1]| addresses.iter().filter_map(|text| text.parse().ok()).collect::<Vec<SocketAddr>>();
    let curl = Traffic::start(stage.world.pod("curl"), all(["1.2.3.4:443"]), all(["5.6.7.8:443"]));
    let web = Traffic::start(stage.world.pod("web"), all(["[2001:db8:1::4]:443"]), all(["[2001:db8:2::8]:443"]));
    let mut wire = stage.world.outside().sniff();
    let mut phase = |name: &str, score: &mut Score| {
        wire.pump();
        phase(name, &[&curl, &web], score)
    };
    let mut rows = vec![phase("the agent runs", &mut stage.score)];
    for _ in 0..2 {
        stage.agent.kill();
        rows.push(phase("killed: nobody is there", &mut stage.score));
        stage.agent.start();
        rows.push(phase("restarted", &mut stage.score));
    }
    table::print(&["", "calls so far", "traffic", ""], &rows);
    let totals = [("default/curl, IPv4", curl.stop()), ("prod/web, IPv6", web.stop())];
    let rows: Vec<Vec<Cell>> = totals
        .into_iter()
        .map(|(who, (right, slips))| {
            let mark = stage.score.add(slips == 0 && right > 0);
            vec![Cell::plain(who), Cell::plain(right.to_string()), Cell::plain(slips.to_string()), mark]
        })
        .collect();
    progress::result("");
    table::print(&["traffic of", "calls judged rightly", "slips", ""], &rows);
    let leaked: usize = ["5.6.7.8", "2001:db8:2::8"]
        .iter()
        .filter_map(|remote| remote.parse().ok())
        .map(|remote| wire.arrived(remote).len())
        .sum();
    let mark = stage.score.add(leaked == 0);
    progress::result("");
    table::print(&["packets that arrived at a denied address", ""], &[vec![Cell::plain(leaked.to_string()), mark]]);
}

fn phase(name: &str, traffic: &[&Traffic], score: &mut Score) -> Vec<Cell> {
    let goes_on = traffic.iter().all(|traffic| traffic.goes_on());
    let calls: u64 = traffic.iter().map(|traffic| traffic.right()).sum();
    let state = if goes_on { Cell::good("goes on") } else { Cell::bad("has stopped") };
    vec![Cell::plain(name), Cell::dim(calls.to_string()), state, score.add(goes_on)]
}

fn dumped(stage: &mut Stage<'_>) {
    table::title("6. What the kernel holds, read from the pinned maps after the agent was killed");
    stage.agent.kill();
    for subject in ["endpoints", "tables", "counters", "stats"] {
        let output = stage.agent.dump_output(&[subject]);
        table::title(&format!("   egress-agent dump {subject}"));
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            progress::result(format!("  {line}").trim_end());
        }
        stage.score.add(output.status.success());
    }
}
