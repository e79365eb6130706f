//! What the end-to-end tests share: the ways out of a pod, and the four witnesses of every verdict. The caller (what it got), the
//! wire (what arrived outside), the counters (which rule the kernel charged) and the events (what people are told).

mod evidence;
mod lab;
mod names;
mod policy;
mod scrape;
mod terminal;
mod traffic;
mod way;

pub use evidence::{Evidence, Told};
pub use lab::Lab;
pub use names::{
    held, holds, insist_reached_by_name, insist_refused_by_name, look_up_and_connect, names_policy, names_world,
    scripted_world, wait_until_held,
};
pub use policy::{CONFIG, OFFICE, cluster, config, document, policy};
pub use scrape::{Samples, get};
pub use terminal::Terminal;
pub use traffic::{Tally, Traffic};
pub use way::Way;

use std::net::{IpAddr, SocketAddr};

use egress_world::probe::{self, Outcome, PATIENCE};
use egress_world::{Pod, World, is_root};

/// An external address of each family that [`OFFICE`] allows.
pub const ALLOWED: [&str; 2] = ["1.2.3.4", "2001:db8:1::4"];
/// An external address of each family that [`OFFICE`] denies.
pub const DENIED: [&str; 2] = ["5.6.7.8", "2001:db8:2::8"];
/// The rules of [`OFFICE`] that allow and deny those addresses.
pub const RULES: [(&str, &str); 2] = [(OFFICE[0], OFFICE[2]), (OFFICE[1], OFFICE[3])];
/// The port that most tests use; the outside serves it.
pub const PORT: u16 = 443;

/// A world with these pods, or `None`, said so, if this process may not build one.
pub fn world(pods: &[&str]) -> Option<World> {
    is_root().then(|| World::new(pods))
}

/// Reads an address.
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is not an address"))
}

/// Reads an address and adds a port.
pub fn at(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(text), port)
}

/// Whether the pod can exchange bytes with `to` by TCP. Anything between an answer and EPERM is a failure of the test, but for a call that
/// was under way when the rules changed: allowed by the hook, stopped on the wire, it meets silence. The next one is told.
pub fn reaches(pod: &Pod, to: SocketAddr) -> bool {
    let ask = || pod.run(|| probe::tcp_echo(to)).outcome;
    let first = ask();
    verdict("TCP", to, if first == Outcome::Silence { ask() } else { first })
}

/// The same by UDP, with an unconnected socket.
pub fn reaches_udp(pod: &Pod, to: SocketAddr) -> bool {
    verdict("UDP", to, pod.run(|| probe::udp_unconnected(to, PATIENCE)).outcome)
}

fn verdict(protocol: &str, to: SocketAddr, outcome: Outcome) -> bool {
    match outcome {
        Outcome::Answered => true,
        Outcome::Failed(libc::EPERM) => false,
        other => panic!("{protocol} to {to}: neither an answer nor EPERM but {other:?}"),
    }
}
