//! The scene of names: a wildcard, clients that connect right after their lookup, and a name that moves while it is called. A real name
//! server answers, and the C library asks.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use egress_world::resolver::{self, Dnsmasq, Resolver};
use egress_world::{Agent, Process, Shared, World, eventually};

use super::policies::{NAMES, NAMES_CONFIG};
use super::table::{self, Cell};
use super::tries::{Score, time};

/// Fresh names that are called right after their lookup.
const FRESH: u16 = 500;
const OLD: &str = "1.2.3.60 api.pay.example\n2001:db8:1::60 api.pay.example\n";
const NEW: &str = "1.2.3.70 api.pay.example\n2001:db8:1::70 api.pay.example\n";
const OTHERS: &str = "\
1.2.3.61 img.cdn.example
2001:db8:1::61 img.cdn.example
1.2.3.62 a.img.cdn.example
2001:db8:1::62 a.img.cdn.example
5.6.7.63 evil.example
2001:db8:2::63 evil.example
";
const RIGHT: usize = 0;
const SLIPS: usize = 1;
const AT_NEW: usize = 2;
const PATIENCE: Duration = Duration::from_secs(3);

/// Plays it.
pub(super) fn play(world: &World, resolver: &Resolver, agent: &Agent<'_>, score: &mut Score) {
    table::title("4. Names: asked for by the agent, and learned in the kernel before the pod reads the answer");
    table::quote(NAMES);
    let fresh: String = (0..FRESH).flat_map(|number| addresses(number).map(|address| line(&address, number))).collect();
    let hosts = |place: &str| format!("{place}{OTHERS}{fresh}");
    let server = Dnsmasq::start(resolver, &hosts(OLD), 1, &[]);
    agent.change(|| agent.write("names-config.yaml", NAMES_CONFIG));
    agent.change(|| agent.write("names.yaml", NAMES));
    // The change before may have had a second round, which the wait above took for this one.
    let in_force = eventually(|| agent.dump("rules").to_string().contains("*.cdn.example"));
    assert!(in_force, "the rules of names are not in force:\n{}", agent.log());
    let rows =
        [("api.pay.example", true), ("img.cdn.example", true), ("a.img.cdn.example", false), ("evil.example", false)];
    let rows: Vec<_> =
        rows.into_iter().flat_map(|(name, allowed)| called(world, resolver, name, allowed, score)).collect();
    table::print(&["pod", "looks up", "and connects at once to", "verdict", "after the answer", ""], &rows);
    table::title("   fresh names below *.cdn.example, each called right after its lookup");
    table::print(&["calls", "refused", "median from answer to handshake", ""], &[race(world, resolver, score)]);
    table::title("   api.pay.example moves to new addresses while shop/cart calls it");
    let rows = moved(world, resolver, || server.serve(&hosts(NEW)), score);
    table::print(&["", "calls so far", "refused", "at the new addresses", ""], &rows);
}

fn line(address: &str, number: u16) -> String {
    format!("{address} n{number}.cdn.example\n")
}

fn addresses(number: u16) -> [String; 2] {
    let (high, low) = (number / 250, number % 250 + 1);
    [format!("10.1.{high}.{low}"), format!("2001:db8:77:{high:x}::{low:x}")]
}

/// A connection right after the lookup: the address, whether it was let through, and when it was made. An error that is no refusal is
/// no verdict.
fn connect(address: IpAddr) -> (IpAddr, Option<bool>, Duration) {
    let answered = Instant::now();
    let passes = match TcpStream::connect_timeout(&SocketAddr::new(address, 443), PATIENCE) {
        Ok(_) => Some(true),
        Err(error) => (error.kind() == std::io::ErrorKind::PermissionDenied).then_some(false),
    };
    (address, passes, answered.elapsed())
}

fn call(name: &str) -> Vec<(IpAddr, Option<bool>, Duration)> {
    resolver::lookup(name).unwrap_or_default().into_iter().map(connect).collect()
}

fn called(world: &World, resolver: &Resolver, name: &str, allowed: bool, score: &mut Score) -> Vec<Vec<Cell>> {
    let conf = resolver.conf();
    let calls = world.pod("cart").run(|| {
        resolver::use_resolvers(&conf);
        call(name)
    });
    let complete = calls.len() == 2;
    let row = |(address, passes, elapsed): (IpAddr, Option<bool>, Duration)| {
        let verdict = match passes {
            Some(true) => Cell::good("allowed"),
            Some(false) => Cell::bad("refused (EPERM)"),
            None => Cell::bad("no answer"),
        };
        let mark = score.add(complete && passes == Some(allowed));
        let to = SocketAddr::new(address, 443).to_string();
        vec![Cell::plain("shop/cart"), Cell::plain(name), Cell::plain(to), verdict, Cell::dim(time(elapsed)), mark]
    };
    calls.into_iter().map(row).collect()
}

fn race(world: &World, resolver: &Resolver, score: &mut Score) -> Vec<Cell> {
    let conf = resolver.conf();
    let calls = world.pod("cart").run(|| {
        resolver::use_resolvers(&conf);
        (0..FRESH).flat_map(|number| call(&format!("n{number}.cdn.example"))).collect::<Vec<_>>()
    });
    let passed = calls.iter().filter(|(_, passes, _)| *passes == Some(true)).count();
    let mut times: Vec<Duration> = calls.iter().map(|(_, _, elapsed)| *elapsed).collect();
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let mark = score.add(passed == 2 * usize::from(FRESH) && passed == calls.len());
    let refused = calls.len() - passed;
    vec![Cell::plain(calls.len().to_string()), Cell::plain(refused.to_string()), Cell::dim(time(median)), mark]
}

/// Looks up and calls until it is told to stop.
fn client(world: &World, resolver: &Resolver) -> Process<()> {
    let conf = resolver.conf();
    world.pod("cart").start(move |shared: &Shared| {
        resolver::use_resolvers(&conf);
        while !shared.stopped() {
            let calls = call("api.pay.example");
            shared.count(if calls.iter().all(|(_, passes, _)| *passes == Some(true)) { RIGHT } else { SLIPS });
            if calls.iter().any(|(address, ..)| NEW.contains(&format!("{address} "))) {
                shared.count(AT_NEW);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    })
}

fn moved(world: &World, resolver: &Resolver, move_it: impl FnOnce(), score: &mut Score) -> Vec<Vec<Cell>> {
    let client = client(world, resolver);
    let counted = |index| client.shared().counted(index);
    let mut row = |phase: &str, reached: bool| {
        let mark = score.add(reached && counted(SLIPS) == 0);
        let figures = [RIGHT, SLIPS, AT_NEW].map(|index| Cell::plain(counted(index).to_string()));
        let [calls, slips, at_new] = figures;
        vec![Cell::plain(phase), calls, slips, at_new, mark]
    };
    let before = row("before", eventually(|| counted(RIGHT) > 100) && counted(AT_NEW) == 0);
    move_it();
    let after = row("moved", eventually(|| counted(AT_NEW) > 100));
    client.stop();
    vec![before, after]
}
