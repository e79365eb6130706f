//! The race that a firewall of names must not lose: a connection that follows its lookup at once. The reply teaches the kernel before
//! the pod has it, so that none is refused.
//!
//! 10,000 names are looked up and called in both families. `EGRESS_RACE_NAMES` is for slow machines.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};

use egress_e2e::{Evidence as _, Lab, names_policy, names_world};
use egress_world::probe::PATIENCE;
use egress_world::resolver::{self, Dnsmasq};

const NAMES: usize = 10_000;

/// Addresses of the name of a number, in the networks that the outside answers for.
fn addresses(number: usize) -> [String; 2] {
    let (high, low) = (number / 250, number % 250 + 1);
    [format!("10.1.{high}.{low}"), format!("2001:db8:77:{high:x}::{low:x}")]
}

fn is_refused(address: IpAddr) -> std::io::Result<bool> {
    match TcpStream::connect_timeout(&SocketAddr::new(address, 443), PATIENCE) {
        Ok(mut stream) => stream.write_all(b"hello").map(|()| false),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Looks up and connects; how many connections were made and how many refused.
fn run(names: &[String]) -> (usize, usize) {
    let (mut made, mut refused) = (0, 0);
    for name in names {
        let found = resolver::lookup(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        for address in found {
            if is_refused(address).unwrap_or_else(|error| panic!("{name} at {address}: {error}")) {
                refused += 1;
            } else {
                made += 1;
            }
        }
    }
    (made, refused)
}

#[test]
fn ten_thousand_fresh_names_are_called_right_after_their_lookup_and_none_is_refused() {
    let Some((world, resolver)) = names_world(&["default/client"]) else {
        return;
    };
    let count = std::env::var("EGRESS_RACE_NAMES").map_or(NAMES, |text| text.parse().expect("a number of names"));
    let names: Vec<String> = (0..count).map(|number| format!("n{number}.apps.test")).collect();
    let twins: Vec<String> = (0..20).map(|number| format!("n{number}.others.test")).collect();
    let lines = names.iter().chain(&twins).enumerate().map(|(number, name)| {
        let [address4, address6] = addresses(number);
        format!("{address4} {name}\n{address6} {name}\n")
    });
    let _server = Dnsmasq::start(&resolver, &lines.collect::<String>(), 60, &[]);
    let policy = names_policy("", &["Allow *.apps.test", "Deny 0.0.0.0/0", "Deny ::/0"]);
    let lab = Lab::new(&world, &policy);
    let conf = resolver.conf();
    let results: [(usize, usize); 2] = world.pod("client").run(|| {
        resolver::use_resolvers(&conf);
        [run(&names), run(&twins)]
    });
    assert_eq!(results, [(2 * count, 0), (0, 2 * twins.len())], "connections made and refused");
    let charged = usize::try_from(lab.agent.charged("Allow *.apps.test")).expect("a count");
    assert!(charged >= 2 * count, "{charged}");
}
